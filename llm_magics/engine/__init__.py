"""
The road from a prompt to an answer.

`chat` and `embedding` walk it: prompt → route → kept answers → provider → measurements. What is
decided on the way stands in `llm_magics.policies`.
"""
