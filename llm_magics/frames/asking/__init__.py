"""Questions about rows: ``lm.prompt``, ``lm.extract``, ``lm.classify``, and those of the accessors."""

from llm_magics.frames.asking.functions import classify, extract, prompt

__all__ = ["classify", "extract", "prompt"]
