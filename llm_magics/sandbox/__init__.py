"""
The sandbox for templates of unknown origin: what they see, what they may call, how much they may use.

`copies` makes read-only copies of the caller's data, `frames` wraps DataFrames and arrays,
`budget` limits size and time, and `environment` is the Jinja environment that uses all three.
"""
