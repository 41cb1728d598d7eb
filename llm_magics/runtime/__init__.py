"""
Calls from the prompt to the answer.

Prompt → candidates (`routing`) → stored answer (`storage.lookup`) → attempts (`attempts`:
retries, limits, budget, log) → provider → response. `session` holds what one notebook shares.
"""
