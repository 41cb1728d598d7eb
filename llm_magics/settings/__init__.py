"""
What a user can set, where it was set, and where files go.

`llm_magics.config` is one object shared by the magics, the accessor and Python.
"""
