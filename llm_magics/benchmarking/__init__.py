"""Models compared: how good, how fast, and for how much."""

# Before any module of this package: pandas, once imported, has the accessors imported.
import pandas as pd  # noqa: F401
