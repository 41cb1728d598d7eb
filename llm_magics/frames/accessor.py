"""``df.llm`` and ``series.llm``. Importing this registers them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics.errors import UsageError, nearest

if TYPE_CHECKING:
    from pandas import DataFrame, Series


@pd.api.extensions.register_series_accessor("llm")
class SeriesAccessor:
    """Language models over a column."""

    def __init__(self, series: Series[Any]) -> None:
        self._series = series

    def embed(self, *, model: str | None = None) -> Series[Any]:
        """
        The vector of each text, float32, on the same index; missing ones stay missing.

        Args:
            model: ``provider/name``; the setting ``embedding_model`` if not given.
        """
        from llm_magics.frames.embed import embed_column

        return embed_column(self._series, model)


@pd.api.extensions.register_dataframe_accessor("llm")
class FrameAccessor:
    """Language models over the columns of a frame."""

    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame

    def embed(self, column: str, *, into: str = "vector", model: str | None = None) -> DataFrame:
        """
        The frame, with the vectors of ``column`` in the column ``into``.

        The frame is changed in place, as by an assignment, and returned.

        Args:
            column: the column of texts.
            into: the column of vectors, made or overwritten.
            model: ``provider/name``; the setting ``embedding_model`` if not given.
        """
        from llm_magics.frames.embed import embed_column

        if not isinstance(column, Hashable) or column not in self._frame.columns:
            msg = f"The frame has no column {column!r}."
            raise UsageError(msg, hint=nearest(str(column), map(str, self._frame.columns)))
        self._frame[into] = embed_column(self._frame[column], model)
        return self._frame
