"""
Models against each other: how good, how fast, and for how much.

(The room is called ``benchmarking`` and not ``bench``, because ``lm.bench`` is the function.)
"""

# First: once it is imported, so are the accessors, which stand beside what is here.
import pandas as pd  # noqa: F401

from llm_magics.benchmarking.benching import abench, bench
from llm_magics.benchmarking.comparing import acompare, compare
from llm_magics.benchmarking.measurements import Measurements
from llm_magics.benchmarking.quality import scorers

__all__ = ["Measurements", "abench", "acompare", "bench", "compare", "scorers"]
