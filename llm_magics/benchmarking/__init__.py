"""Comparison and benchmarks of models: quality, speed and cost."""

# Import pandas before any module of this package: an import hook then imports the accessors.
import pandas as pd  # noqa: F401
