"""
Models against each other.

(The room is called ``benchmarking`` and not ``bench``, because ``lm.bench`` is the function.)
"""

from llm_magics.benchmarking.comparison import compare
from llm_magics.benchmarking.load import bench

__all__ = ["bench", "compare"]
