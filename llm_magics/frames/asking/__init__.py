"""Questions about rows: ``lm.prompt``, ``lm.extract``, ``lm.classify``, and those of the accessors."""

# First: once it is imported, so are the accessors, which want what stands here.
import pandas as pd  # noqa: F401

from llm_magics.frames.asking.functions import classify, extract, prompt

__all__ = ["classify", "extract", "prompt"]
