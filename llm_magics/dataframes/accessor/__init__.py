"""``df.llm`` and ``series.llm``. Importing this registers them."""

import sys

from llm_magics.dataframes.accessor.frame import FrameAccessor
from llm_magics.dataframes.accessor.series import SeriesAccessor

if "pyarrow" in sys.modules:  # pandas imports it where it is installed
    import llm_magics.dataframes.arrow  # noqa: F401 (files with vectors can be read from now on)

__all__ = ["FrameAccessor", "SeriesAccessor"]
