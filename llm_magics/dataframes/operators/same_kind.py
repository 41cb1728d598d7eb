"""Some rows of a table, as an object of the same kind as the table, and their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def as_sized(rows: Any) -> Any:
    """Return ``rows``, or a list of them if they can be read only once."""
    return rows if hasattr(rows, "__len__") or not hasattr(rows, "__iter__") else list(rows)


def take_rows(rows: Any, positions: NDArray[np.intp]) -> Any:
    """
    Return the rows at ``positions`` as an object of the same kind.

    Args:
        rows: a DataFrame or column of pandas or polars; a table, array or column of pyarrow; a
            numpy array, list or tuple.
        positions: the positions, in ascending order.
    """
    if isinstance(rows, pd.DataFrame | pd.Series | pd.Index):
        return rows.take(positions) if isinstance(rows, pd.Index) else rows.iloc[positions]
    if isinstance(rows, np.ndarray):
        return rows[positions]
    if hasattr(rows, "take"):  # pyarrow, and arrays of pandas
        return rows.take(positions)
    if hasattr(rows, "to_pandas"):  # polars
        return rows[positions.tolist()]
    chosen = [rows[position] for position in positions.tolist()]
    return tuple(chosen) if isinstance(rows, tuple) else chosen


def row_labels(index: pd.Index, positions: Sequence[int] | NDArray[np.intp]) -> list[Any]:
    """Return the labels of rows as values of Python, which are shown without their types."""
    labels: list[Any] = index.take(np.asarray(positions, np.intp)).tolist()
    return labels
