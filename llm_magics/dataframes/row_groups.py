"""Rows with equal values, found without creating Python objects for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import Series


# The number of rows for which temporary arrays are created.
_SLICE = 65_536


def group_rows(columns: Sequence[Series[Any]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """
    Return the first row of each group of equal rows in order, and the group of each row.

    Values are equal if a template renders them equally; all missing values are. If that is unknown
    for the type of a column, each row is its own group.
    """
    count = len(columns[0])
    groups = np.zeros(count, np.int32)
    distinct = 1
    for column in columns:
        if not _is_groupable(column):
            return np.arange(count, dtype=np.int32), np.arange(count, dtype=np.int32)
        codes, size = _codes_of(column)
        if len(columns) > 1:
            codes, size = _codes_of(groups.astype(np.int64) * size + codes)
        groups, distinct = codes, size
    first = np.zeros(distinct, np.int32)
    for row in range(count - 1, -1, -_SLICE):  # the last one that is written stays
        rows = np.arange(row, max(-1, row - _SLICE), -1, dtype=np.int32)
        first[groups[rows]] = rows
    return first, groups


def _codes_of(values: Any) -> tuple[NDArray[np.int32], int]:
    """Return a number for each value, in the order of their first occurrence, and their count."""
    codes, distinct = pd.factorize(values, use_na_sentinel=False)
    return codes.astype(np.int32), len(distinct)


def _is_groupable(column: Series[Any]) -> bool:
    """Return whether equal values in ``column`` are always rendered equally, unlike 1 and True."""
    dtype = column.dtype
    if dtype == "object":
        return pd.api.types.infer_dtype(column, skipna=True) in ("string", "empty")
    is_plain = pd.api.types.is_integer_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)
    return is_plain or isinstance(dtype, pd.StringDtype)
