"""
The road from a prompt to an answer, and the policies along it.

`road` walks it: template → route → provider → measurements. Each policy is a file of its own
that knows no other.
"""
