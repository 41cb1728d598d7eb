"""Vectors as a picture: ``lm.plot`` and ``df.llm.plot``."""

from llm_magics.frames.plots.drawing import plot
from llm_magics.frames.plots.picture import VectorPlot

__all__ = ["VectorPlot", "plot"]
