"""The groups of the rows of a table, by the values of columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics.dataframes.rows import get_column
from llm_magics.errors import UsageError, abbreviate

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame


def group_columns(frame: Any, by: Any, written: Iterable[str] = ()) -> list[Any]:
    """
    Return the names of the columns that ``by`` means: one, several in a list, or none.

    Raises:
        UsageError: a column does not exist, is named twice, or has the name of a column that is
            ``written``.
    """
    names = [] if by is None else list(by) if isinstance(by, list) else [by]
    for name in names:
        get_column(frame, name)
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        msg = f"by= names the column {abbreviate(twice[0])} twice."
        raise UsageError(msg, hint="Name each column once.")
    if taken := [name for name in names if name in written]:
        msg = f"The column {taken[0]} of by= has the name of a column of the result."
        raise UsageError(msg, hint=f"Rename it: df.rename(columns={{{taken[0]!r}: …}})")
    return names


def group_rows(frame: DataFrame, names: list[Any]) -> tuple[NDArray[np.intp], DataFrame]:
    """
    Return the group of each row, and the values of the columns ``names`` for each group.

    Groups are in the order of their values; missing values are a group. Without columns, all rows
    are one group.

    Raises:
        UsageError: the values cannot be groups.
    """
    if not names:
        return np.zeros(len(frame), np.intp), pd.DataFrame(index=[0])
    # Without the index, whose levels may have the same names.
    keys = frame[names].reset_index(drop=True)
    try:
        grouped = keys.groupby(names, dropna=False, observed=True)
        numbers = grouped.ngroup().to_numpy().astype(np.intp)
    except TypeError as error:
        msg = f"The rows cannot be grouped: {error}."
        raise UsageError(msg, hint="Group by a column of texts, numbers or dates.") from None
    first = np.unique(numbers, return_index=True)[1]
    return numbers, keys.iloc[first].reset_index(drop=True)
