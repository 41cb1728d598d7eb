"""Evaluations of answers: evaluation sets, agreement with people, and a gate for CI."""

# Import pandas before any module of this package: an import hook then imports the accessors.
import pandas as pd  # noqa: F401
