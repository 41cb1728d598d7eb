"""Oracles without a model: a column of human labels, and a function of the row."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics.dataframes.operators.oracle import NO_ITEM
from llm_magics.dataframes.operators.questions import statement_texts
from llm_magics.dataframes.operators.remembering_oracle import Answer, RememberingOracle
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.rows import get_column
from llm_magics.errors import LLMError, UsageError, abbreviate

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

# Returns whether a statement holds for a row.
RowFunction = Callable[["Series[Any]"], Any]


class ColumnOracle(RememberingOracle):
    """
    A column of human labels.

    Each row with a label is a separate item, because equal texts may have different labels.
    Rows without one have no item.

    Attributes:
        statements: the rendered statement of each row.
    """

    may_fail = False

    def __init__(self, frame: DataFrame, column: Hashable, statement: str) -> None:
        """
        Read the labels.

        Args:
            frame: the rows. Those in which all columns that the statement names are missing have
                no item.
            column: the column of labels: booleans, or 0 and 1; missing values are allowed.
            statement: the template of the statement.

        Raises:
            UsageError: a label is something else; or as for `ModelOracle`.
        """
        labels = read_labels(get_column(frame, column))
        texts = statement_texts(frame, RowPrompts(text=statement))
        rows = np.flatnonzero((labels >= 0) & (texts.codes >= 0))
        super().__init__(*_items_of_rows(rows, texts.codes, texts.digests))
        self.name = f"the column {column}"
        self.statements = texts
        self._labels = labels[rows]

    def _obtain(self, items: NDArray[np.int32], record: Answer) -> None:
        for item in items.tolist():
            record(item, bool(self._labels[item]))
        self.calls += len(items)

    def estimate(self, items: NDArray[np.int32], *, with_stored: bool = False) -> None:
        """Return ``None``: labels are free."""
        return


class FunctionOracle(RememberingOracle):
    """
    A function of the row; each row is a separate item.

    An item fails if the function raises an error, or returns something other than a bool.

    Attributes:
        statements: the rendered statement of each row.
    """

    may_fail = True

    def __init__(self, frame: DataFrame, function: RowFunction, statement: str) -> None:
        """
        Prepare to call ``function``.

        Args:
            frame, statement: as for `ColumnOracle`.
            function: its argument is the row as a `pandas.Series`.

        Raises:
            UsageError: the statement names no column, or one that does not exist.
        """
        texts = statement_texts(frame, RowPrompts(text=statement))
        rows = np.flatnonzero(texts.codes >= 0)
        super().__init__(*_items_of_rows(rows, texts.codes, texts.digests))
        self.name = function_name(function)
        self.statements = texts
        self._frame = frame
        self._function = function
        self._rows = rows

    def _obtain(self, items: NDArray[np.int32], record: Answer) -> None:
        for item in items.tolist():
            row = self._frame.iloc[self._rows[item]]
            record(item, call_function(self._function, row))
            self.calls += 1

    def estimate(self, items: NDArray[np.int32], *, with_stored: bool = False) -> None:
        """Return ``None``: a function is free, as far as is known."""
        return


def read_labels(column: Series[Any]) -> NDArray[np.int8]:
    """
    Return the labels in a column: 1, 0, or -1 for a missing one.

    Raises:
        UsageError: a value is neither a boolean, nor 0 or 1, nor missing.
    """
    labels = np.empty(len(column), np.int8)
    for row, value in enumerate(column.tolist()):
        labels[row] = _read_label(value, column.name)
    return labels


def _read_label(value: Any, name: Hashable) -> int:
    if isinstance(value, bool | int | float | np.bool_ | np.number):
        if value in (0, 1):
            return int(value)
        if value != value:  # noqa: PLR0124 (NaN)
            return NO_ITEM
    elif value is None or value is pd.NA or value is pd.NaT:
        return NO_ITEM
    msg = f"The column {name} has the label {abbreviate(value)}, which is neither true nor false."
    hint = "Labels are True and False, or 1 and 0; rows without a label are missing values."
    raise UsageError(msg, hint=hint)


def call_function(function: RowFunction, row: Series[Any]) -> bool | LLMError:
    """Return the answer of ``function`` about ``row``, or an error."""
    try:
        answer = function(row)
    except Exception as error:
        failure = LLMError(f"The oracle function raised {type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure
    if isinstance(answer, bool | np.bool_):
        return bool(answer)
    msg = f"The oracle function returned {abbreviate(answer)}, not True or False."
    return LLMError(msg, hint="Convert its result with bool(…).")


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a function for reports."""
    return f"the function {getattr(function, '__name__', type(function).__name__)}"


def _items_of_rows(
    rows: NDArray[np.intp], codes: NDArray[np.int32], digests: NDArray[np.void]
) -> tuple[NDArray[np.int32], NDArray[np.void]]:
    """Return items and digests for an oracle in which each of ``rows`` is an item."""
    items = np.full(len(codes), NO_ITEM, np.int32)
    items[rows] = np.arange(len(rows), dtype=np.int32)
    return items, digests[codes[rows]]
