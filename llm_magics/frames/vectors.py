"""A column as the vectors it holds: texts are embedded, which costs nothing for those that were."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics.errors import UsageError
from llm_magics.frames import search
from llm_magics.frames.embed import embedded
from llm_magics.frames.rows import is_text, values_of
from llm_magics.runtime.embedding import EmbedOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import Index

    Vectors = NDArray[np.float32]

# What numpy writes of an array, and Python of a list.
_WRITTEN_OUT = re.compile(r"\s*\[\s*-?\d[\d.eE+\-]*[\s,]")


def vectors_of(column: Any, model: str | None = None) -> Vectors:
    """
    The vectors of a column of shape (n, d), NaN where one is missing; texts are embedded.

    Raises:
        UsageError: they are neither; or to embed them may cost much, and nobody allows it.
    """
    if getattr(column, "ndim", 1) != 1:
        return search.matrix(column)
    if "list" in str(getattr(column, "dtype", "")):  # Arrow's: no object for each number
        return search.matrix(column)
    values = values_of(column)
    first = next((value for value in values if is_text(value)), None)
    if first is None:
        return search.matrix(values)
    if _WRITTEN_OUT.match(first):
        msg = "The column has vectors that were written out as text, and cut short, as CSV does."
        raise UsageError(msg, hint="Keep frames with vectors in Parquet: df.to_parquet(…).")
    if any(isinstance(value, list | tuple | np.ndarray) for value in values):
        msg = "The column has texts and vectors."
        raise UsageError(msg, hint="Look for the row that is not like the others.")
    done = embedded(values, model, EmbedOptions(), "null")
    if done.error is not None:
        raise done.error
    return done.matrix


def index_of(column: Any) -> Index:
    """That of a pandas column, else the numbers of the rows."""
    import pandas as pd

    return column.index if hasattr(column, "iloc") else pd.RangeIndex(len(column))
