"""Reading of columns and frames from pandas, polars and pyarrow: texts and missing rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from llm_magics.errors import UsageError, abbreviate, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame


# The handling of a failed row: no result, or an error.
OnError = Literal["null", "raise"]

# The name of a single column of texts in a prompt.
TEXT = "text"

# Codes of rows without a text.
MISSING, EMPTY, NO_TEXT = -1, -2, -3

# Methods that convert a column of pyarrow, polars, pandas or numpy to a list.
_TO_LIST_METHODS = ("to_pylist", "to_list", "tolist")


class Rows:
    """
    The rows of a column, encoded by their distinct texts.

    Attributes:
        texts: the distinct texts, in the order of their first occurrence.
        codes: the number of each row's text, or ``MISSING``, ``EMPTY`` or ``NO_TEXT``.
    """

    def __init__(self, column: Any, *, strict: bool) -> None:
        """
        Read ``column``: a list, array, or column of pandas, polars or pyarrow.

        Raises:
            UsageError: it is not a column, or a row is not a text and ``strict`` is set.
        """
        values = to_list(column)
        codes: NDArray[np.int64]
        self.texts, codes = _encode_texts(values) or _encode_with_gaps(values, strict=strict)
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    def count(self, why: int) -> int:
        """Return the number of rows with the code ``why``."""
        return int((self.codes == why).sum())


def to_list(column: Any) -> list[Any]:
    """
    Return the values of a list, array, or column of pandas, polars or pyarrow.

    Raises:
        UsageError: ``column`` is something else.
    """
    if (
        not isinstance(column, Iterable)
        or isinstance(column, str | bytes | Mapping | AbstractSet)
        or getattr(column, "ndim", 1) != 1
        or hasattr(column, "columns")
    ):
        msg = f"Expected a list or a column, got {type(column).__name__}."
        is_lazy = hasattr(column, "collect")  # of polars
        hint = (
            "Pass its rows: frame.collect()"
            if is_lazy
            else 'Pass df["column"], or a list of texts.'
        )
        raise UsageError(msg, hint=hint)
    for way in _TO_LIST_METHODS:
        if hasattr(column, way):
            values: list[Any] = getattr(column, way)()
            return values
    return list(column)


def to_pandas(table: Any) -> DataFrame:
    """
    Return a polars DataFrame or pyarrow table as a pandas DataFrame with unchanged values.

    Its columns have the dtype ``object``, because pandas would convert integers with missing values
    to floats.
    """
    import pandas as pd

    if not hasattr(table, "column_names") and not hasattr(table, "get_columns"):
        frame: DataFrame = table.to_pandas()
        return frame
    if hasattr(table, "get_columns"):
        columns = table.get_columns()
        names = list(table.columns)
    else:
        columns, names = list(table.columns), list(table.column_names)
    values = {
        position: pd.Series(to_list(column), dtype=object)
        for position, column in enumerate(columns)
    }
    return pd.DataFrame(values).set_axis(names, axis=1)


def _encode_texts(values: list[Any]) -> tuple[list[str], NDArray[np.int64]] | None:
    """Return texts and codes if every row is a text, otherwise ``None``; a fast path."""
    if {*map(type, values)} != {str}:
        return None
    texts = list(dict.fromkeys(values))
    if not all(map(is_text, texts)):
        return None
    numbers = dict(zip(texts, range(len(texts)), strict=True))
    return texts, np.fromiter(map(numbers.__getitem__, values), np.int64, len(values))


def _encode_with_gaps(values: list[Any], *, strict: bool) -> tuple[list[str], NDArray[np.int64]]:
    numbers: dict[str, int] = {}
    codes = np.empty(len(values), np.int64)
    for row, value in enumerate(values):
        if not isinstance(value, str):
            codes[row] = _missing_reason(value, row, strict=strict)
        else:
            codes[row] = numbers.setdefault(value, len(numbers)) if is_text(value) else EMPTY
    return list(numbers), codes


def is_text(value: Any) -> bool:
    """Whether ``value`` is a string that is not blank."""
    return isinstance(value, str) and not (not value or value.isspace())


def _missing_reason(value: Any, row: int, *, strict: bool) -> int:
    """
    Return the code of a row without a text.

    Raises:
        UsageError: the row is not missing and ``strict`` is set.
    """
    # Recognise pd.NA and NaT without pandas, which is slower.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return MISSING
    if isinstance(value, float | np.floating) and math.isnan(value):
        return MISSING
    if not strict:
        return NO_TEXT
    msg = f"Row {row} is {type(value).__name__}, not text: {value!r:.60}"
    raise UsageError(msg, hint='Convert the column first: df["c"] = df["c"].astype(str)')


def get_column(frame: Any, name: Any) -> Any:
    """
    Return the column ``name`` of a pandas or Dask DataFrame.

    Raises:
        UsageError: the column does not exist, or its name is not unique.
    """
    known = list(frame.columns)
    count = sum(each == name for each in known) if _is_hashable(name) else 0
    if count == 0:
        msg = f"The DataFrame has no column {abbreviate(name)}."
        raise UsageError(msg, hint=nearest(str(name), map(str, known)))
    if count > 1 or getattr(frame[name], "ndim", 1) != 1:
        msg = f"The DataFrame has more than one column {abbreviate(name)}."
        raise UsageError(msg, hint="Rename the columns: df.columns = […]")
    return frame[name]


def check_not_overwriting(
    read: Iterable[object], written: Iterable[object], what: str = "answers"
) -> None:
    """
    Refuse to overwrite the columns that the results are computed from.

    A second run would otherwise read the results of the first one.

    Raises:
        UsageError: a column is both read and written.
    """
    both = sorted({str(name) for name in read} & {str(name) for name in written})
    if both:
        msg = f"The {what} would overwrite the column {both[0]}, which they are computed from."
        raise UsageError(msg, hint="Use another name for into=, or for the field of the schema.")


def check_holds_no_texts(frame: Any, into: object) -> None:
    """
    Refuse to overwrite a column of texts with vectors.

    Raises:
        UsageError: the column ``into`` of a pandas DataFrame has texts.
    """
    if not _is_hashable(into):
        msg = f"Invalid value for into: {into!r:.60}."
        raise UsageError(msg, hint='Pass the name of a column: into="vector"')
    if into not in frame.columns:
        return
    column = get_column(frame, into)
    if any(isinstance(value, str) and value.strip() for value in column):
        msg = f"The vectors would overwrite the texts in the column {into}."
        hint = f"Use another name for into=, or drop the column: df.pop({into!r})"
        raise UsageError(msg, hint=hint)


def _is_hashable(name: Any) -> bool:
    try:
        hash(name)
    except TypeError:
        return False
    return True


def to_frame(rows: Any) -> DataFrame:
    """Return rows as a pandas DataFrame; a single column is called ``text``."""
    if isinstance(rows, pd.DataFrame):
        return rows
    if isinstance(rows, pd.Series):
        return rows.to_frame(TEXT)
    if hasattr(rows, "to_pandas") and hasattr(
        rows, "columns"
    ):  # of polars or pyarrow: integers with nulls stay integers
        return to_pandas(rows)
    return pd.DataFrame({TEXT: pd.Series(to_list(rows), dtype=object)})
