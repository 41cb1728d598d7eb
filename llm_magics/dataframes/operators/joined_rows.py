"""The DataFrame of a join, from the positions of the rows of each pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics.errors import UsageError, abbreviate

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

HOWS = ("inner", "left", "right", "outer")

# The position of a row that a pair does not have.
_NO_ROW = -1


def check_suffixes(frames: tuple[DataFrame, DataFrame], suffixes: Any) -> None:
    """
    Check that columns of the same name get different names.

    Raises:
        UsageError: they do not, or ``suffixes`` is not a pair of strings.
    """
    is_pair = isinstance(suffixes, tuple | list) and len(suffixes) == 2
    if not is_pair or not all(isinstance(each, str | None) for each in suffixes):
        msg = f"Invalid value for suffixes: {abbreviate(suffixes)}."
        raise UsageError(msg, hint='Pass two strings: suffixes=("_left", "_right")')
    names = [name for columns in _column_names(frames, suffixes) for name in columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    own = [name for frame in frames for name in frame.columns[frame.columns.duplicated()]]
    if twice is not None and not own:
        msg = f"The result would have two columns with the name {twice}."
        raise UsageError(msg, hint='Choose other suffixes: suffixes=("_left", "_right")')


def joined_rows(
    frames: tuple[DataFrame, DataFrame],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    how: str,
    suffixes: tuple[str, str],
) -> DataFrame:
    """
    Return the rows of each pair side by side, in the order of the left and then of the right table.

    Args:
        frames: the left and the right table.
        pairs: the positions of the left and of the right row of each pair.
        how: ``left``, ``right`` and ``outer`` add rows without a pair of the left, of the right and
            of both tables, as `pandas.merge` does.
        suffixes: what is appended to the names of columns that both tables have.
    """
    left, right = pairs
    if how in ("left", "outer"):
        alone = np.setdiff1d(np.arange(len(frames[0])), left)
        left, right = np.append(left, alone), np.append(right, np.full(len(alone), _NO_ROW))
    if how in ("right", "outer"):
        alone = np.setdiff1d(np.arange(len(frames[1])), right)
        left, right = np.append(left, np.full(len(alone), _NO_ROW)), np.append(right, alone)
    first, second = (right, left) if how == "right" else (left, right)
    # Rows without a partner in the table that sorts are last.
    order = np.lexsort((second, np.where(first == _NO_ROW, np.iinfo(np.int64).max, first)))
    sides = [
        _take(frame, positions[order]).set_axis(names, axis=1)
        for frame, positions, names in zip(
            frames, (left, right), _column_names(frames, suffixes), strict=True
        )
    ]
    return pd.concat(sides, axis=1)


def _take(frame: DataFrame, positions: NDArray[np.int64]) -> DataFrame:
    """Return rows by position; those of `_NO_ROW` are missing."""
    plain = frame.reset_index(drop=True)
    plain.attrs = {}  # of one table only
    if (positions == _NO_ROW).any():
        return plain.reindex(positions).reset_index(drop=True)
    return plain.take(positions).reset_index(drop=True)


def _column_names(
    frames: tuple[DataFrame, DataFrame], suffixes: tuple[str | None, str | None]
) -> list[list[Any]]:
    """Return the names of the columns of both tables in the result."""
    both = set(frames[0].columns) & set(frames[1].columns)
    return [
        [f"{name}{suffix or ''}" if name in both and suffix else name for name in frame.columns]
        for frame, suffix in zip(frames, suffixes, strict=True)
    ]
