"""
Calls from the prompt to the answer.

Prompt → candidates (`routing`) → stored answer (`answer_lookup`) → attempts (`attempts`: retries,
limits, budget, log) → provider → response. `session` contains the shared state of a notebook.
"""
