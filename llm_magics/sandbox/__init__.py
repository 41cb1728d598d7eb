"""
The sandbox for templates of unknown origin, which limits their data, calls, time and memory.

`copies` makes read-only copies of the caller's data, `frames` wraps DataFrames and arrays,
`budget` limits size and time, and `environment` is the Jinja environment that uses all three.
"""
