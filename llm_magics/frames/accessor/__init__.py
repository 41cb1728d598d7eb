"""``df.llm`` and ``series.llm``. Importing this registers them."""

from llm_magics.frames.accessor.frame import FrameAccessor
from llm_magics.frames.accessor.series import SeriesAccessor

__all__ = ["FrameAccessor", "SeriesAccessor"]
