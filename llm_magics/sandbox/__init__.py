"""
Rendering templates of unknown origin: what they see, what they may call, and how much they may use.

`copies` makes read-only copies of the caller's data, `frames` stands in front of DataFrames,
`budget` counts size and time, and `environment` is the Jinja environment that uses all three.
"""
