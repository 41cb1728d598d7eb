"""Vectors as a picture: ``lm.plot`` and ``df.llm.plot``."""

# First: once it is imported, so are the accessors, which stand above what is here.
import pandas as pd  # noqa: F401

from llm_magics.frames.plots.drawing import plot
from llm_magics.frames.plots.picture import VectorPlot

__all__ = ["VectorPlot", "plot"]
