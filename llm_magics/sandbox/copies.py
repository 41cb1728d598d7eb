"""Read-only copies of the caller's data for templates, rows, and functions to read tables."""

from __future__ import annotations

import datetime as dt
import decimal
import sys
import uuid
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from llm_magics.errors import TemplateError

_MAX_ITEMS = 1_000_000
_MAX_DEPTH = 60
_SAME = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    decimal.Decimal,
    dt.date,
    dt.datetime,
    dt.time,
    dt.timedelta,
    uuid.UUID,
)
_MAPPINGS = (dict, OrderedDict, defaultdict, Counter, ChainMap, UserDict, MappingProxyType)
# Types of immutable values in the cells of tables.
_CELLS = frozenset({"Timestamp", "Timedelta", "NaTType", "NAType", "Period", "Interval"})


def user_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return ``variables`` without those that IPython has added to the notebook's namespace.

    These are its history (``In``, ``_i3``), its outputs (``Out``, ``_``, ``_3``) and its functions.
    A name that the user has set to another value is not removed.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return dict(variables)
    nothing = object()
    internal = shell.user_ns_hidden
    history = [
        getattr(shell.history_manager, name, nothing)
        for name in ("input_hist_parsed", "input_hist_raw", "output_hist", "dir_hist")
    ]
    return {
        name: value
        for name, value in variables.items()
        if internal.get(name, nothing) is not value and not any(value is each for each in history)
    }


class NoDataError(Exception):
    """A value is not data and not a table; the message is the name of its type."""


class TooMuchError(Exception):
    """A value has too many items, or too many levels."""


def copied(value: Any, wrap_table: Callable[[Any], Any | None]) -> Any:
    """
    Return a deep copy of ``value``, in which shared parts stay shared.

    Raises:
        NoDataError: it contains a value that is not data and not a table (``wrap_table`` returned
            ``None``).
        TooMuchError: it has too many items or levels.
    """
    return _Copier(wrap_table).copy(value, 0)


class _Copier:
    def __init__(self, wrap_table: Callable[[Any], Any | None]) -> None:
        self._wrap_table = wrap_table
        self._left = _MAX_ITEMS
        # By id(); the reference to the value prevents that its id is reused.
        self._copies: dict[int, tuple[Any, Any]] = {}

    def copy(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _SAME:
            return value
        known = self._copies.get(id(value))
        if known is not None:
            return known[1]
        if depth > _MAX_DEPTH:
            msg = f"has more than {_MAX_DEPTH} levels"
            raise TooMuchError(msg)
        copy = self._copy(value, kind, depth + 1)
        self._copies[id(value)] = (value, copy)
        return copy

    def _copy(self, value: Any, kind: type, depth: int) -> Any:  # noqa: PLR0911 (one for each kind)
        if kind in _MAPPINGS:
            self._take(len(value))
            pairs = list(value.items())
            return {self.copy(key, depth): self.copy(item, depth) for key, item in pairs}
        if kind in (list, tuple, set, frozenset, deque):
            self._take(len(value))
            items = (self.copy(item, depth) for item in list(value))
            return list(items) if kind is deque else kind(items)
        if isinstance(value, str):
            return str.__str__(value)  # plain text of StrEnum, numpy.str_ and Markup
        module = kind.__module__.partition(".")[0]
        if module == "pandas" and kind.__name__ in _CELLS:
            return value
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            self._take(len(value))
            items = (self.copy(item, depth) for item in tuple.__iter__(value))
            return dict(zip(kind._fields, items, strict=True))
        if module == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
            return self._scalar(value, depth)
        if module == "pyarrow" and hasattr(value, "as_py"):
            return self.copy(value.as_py(), depth)
        stand_in = self._wrap_table(value)
        if stand_in is None:
            raise NoDataError(kind.__name__)
        return stand_in

    def _scalar(self, value: Any, depth: int) -> Any:
        if value.dtype.kind in "mM":  # as an integer it would lose its unit
            return str(value)
        plain = value.item()
        return float(plain) if type(plain).__module__ == "numpy" else self.copy(plain, depth)

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            msg = f"has more than {_MAX_ITEMS:,} items"
            raise TooMuchError(msg)


class Row:
    """A row: its values by position, and by the names of the columns."""

    def __init__(self, names: Sequence[Any], values: Sequence[Any]) -> None:
        self._names = list(names)
        self._values = list(values)

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the values."""
        return iter(self._values)

    def __str__(self) -> str:
        """Return the text of the values by name."""
        return str(self.to_dict())

    __repr__ = __str__

    def __getitem__(self, key: Any) -> Any:
        """Return the value at a position, or of a column."""
        if key in self._names:
            return self._values[self._names.index(key)]
        if isinstance(key, int | slice):
            return self._values[key]
        raise KeyError(key)

    def __getattr__(self, name: str) -> Any:
        """Return the value of a column."""
        if name.startswith("_") or name not in self._names:
            raise AttributeError(name)
        return self[name]

    def keys(self) -> list[Any]:
        """Return the names of the columns."""
        return list(self._names)

    def values(self) -> list[Any]:
        """Return the values."""
        return list(self._values)

    def items(self) -> list[tuple[Any, Any]]:
        """Return the values with their names."""
        return list(zip(self._names, self._values, strict=True))

    def to_dict(self) -> dict[Any, Any]:
        """Return the values by name."""
        return dict(self.items())


# Tables of pandas, polars and pyarrow.


def column_names(frame: Any) -> Any:
    """Return the names of the columns of a table."""
    return frame.schema.names if type(frame).__module__.startswith("pyarrow") else frame.columns


def column_at(frame: Any, position: int) -> Any:
    """Return the column at a position of a table."""
    if hasattr(frame, "iloc"):
        return frame.iloc[:, position]
    return frame.column(position) if hasattr(frame, "column") else frame.to_series(position)


def list_values(column: Any) -> list[Any]:
    """Return the values of a column or an array."""
    has_own = hasattr(column, "to_pylist")  # pyarrow
    values: list[Any] = column.to_pylist() if has_own else column.to_list() if hasattr(column, "to_list") else column.tolist()  # fmt: skip
    return values


def refuse_repeated(names: list[Any]) -> None:
    """Refuse duplicate names, so that a part of a table is never larger than the table."""
    try:
        is_repeated = len(set(names)) < len(names)
    except TypeError:  # nested lists
        is_repeated = True
    if is_repeated:
        msg = "A table is indexed by a list with duplicates or nested lists."
        raise TemplateError(msg, hint='List each name once: {{ df[["name", "stars"]] }}.')


def refuse_growth(one: Any, other: Any) -> None:
    """Refuse operands whose combination would be larger: duplicate labels, or different shapes."""
    if hasattr(one, "index") and hasattr(other, "index"):
        if one.index.is_unique or other.index.is_unique or one.index.equals(other.index):
            return
    elif getattr(one, "ndim", 1) == getattr(other, "ndim", 1) == 1 or one.shape == other.shape:
        return
    msg = "Two columns with duplicate labels, or two arrays of different shapes, are combined."
    raise TemplateError(msg, hint="Do it in a cell, and insert the result.")
