"""``.llm`` on DataFrames and Series, and the functions of ``lm`` for columns and tables."""

# Import pandas before any module of this package: an import hook then imports the accessors, which
# need all of these modules.
import pandas as pd  # noqa: F401
