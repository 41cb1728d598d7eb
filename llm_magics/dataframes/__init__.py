"""``.llm`` on DataFrames and Series, and the functions of ``lm`` for columns and tables."""

# Before any module of this package: pandas, once imported, has the accessors imported, which
# need all of them.
import pandas as pd  # noqa: F401
