"""Read-only wrappers of DataFrames, columns and arrays for templates."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any

from llm_magics._util.table_text import format_table, is_table, summarize_table
from llm_magics.errors import TemplateError
from llm_magics.sandbox.copies import (
    NoDataError,
    Row,
    column_at,
    column_names,
    copied,
    list_values,
    refuse_growth,
    refuse_repeated,
)

# The maximum number of cells that one call converts to text or lists.
_MAX_CELLS = 1_000_000
_KINDS = {
    "pandas": ("DataFrame", "Series", "Index"),
    "polars": ("DataFrame", "Series"),
    "pyarrow": ("Table", "RecordBatch", "ChunkedArray", "Array"),
    "numpy": ("ndarray",),
}
_SIMPLE = (str, int, float, bool, type(None))


def facade(value: Any) -> Facade | None:
    """Return the wrapper of a table, a column or an array; ``None`` for other values."""
    for library, names in _KINDS.items():
        module = sys.modules.get(library)
        for name in names:
            kind = getattr(module, name, None)
            if isinstance(kind, type) and isinstance(value, kind):
                is_table = name in ("DataFrame", "Table", "RecordBatch")
                return Table(value, library) if is_table else Column(value, library)
    return None


def raw(value: Any) -> Any:
    """Return the table or column in a `Facade`; any other value is returned unchanged."""
    return value._raw if isinstance(value, Facade) else value


def _seen(value: Any) -> Any:
    try:
        return copied(value, facade)
    except NoDataError as error:
        msg = f"The table contains a {error}."
        raise TemplateError(
            msg, hint="A prompt file can use strings, numbers and lists."
        ) from None


def _key(key: Any) -> Any:
    """Return a key for the library, which must be a plain value: a function would be called."""
    if isinstance(key, Column):
        if not key.dtype.lower().startswith("bool"):
            refuse_repeated(key._list())
        return key._raw
    if isinstance(key, slice):
        return slice(_key(key.start), _key(key.stop), _key(key.step))
    if isinstance(key, list):
        if not all(isinstance(part, bool) for part in key):
            refuse_repeated(key)
        return [_key(part) for part in key]
    if isinstance(key, tuple):
        return tuple(_key(part) for part in key)
    if isinstance(key, _SIMPLE) or hasattr(key, "isoformat"):
        return key
    msg = f"A table cannot be indexed by a {type(key).__name__}."
    raise TemplateError(msg, hint='Use the name of a column: {{ df["name"] }}.')


class Facade:
    """A table or a column that a template may read; the sandbox hides ``_raw``."""

    def __init__(self, value: Any, library: str) -> None:
        self._raw = value
        self._library = library
        self._text: str | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._raw)

    def __str__(self) -> str:
        """Return the text for the prompt."""
        if self._text is None:  # cached: a list may contain the same table many times
            is_summed_up = is_table(self._raw)
            self._text = summarize_table(self._raw) if is_summed_up else str(self._raw)
        return self._text

    __repr__ = __str__

    def __getitem__(self, key: Any) -> Any:
        """Return a column, a part, or a value."""
        try:
            return _seen(self._raw[_key(key)])
        except TemplateError:
            raise
        except Exception as error:  # each library raises another type for a missing name
            raise KeyError(key) from error

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers of rows and of columns."""
        shape = getattr(self._raw, "shape", None)
        return (len(self),) if shape is None else tuple(shape)

    @property
    def size(self) -> int:
        """The number of values."""
        size = 1
        for length in self.shape:
            size *= length
        return size

    @property
    def empty(self) -> bool:
        """Whether the table or column has no values."""
        return self.size == 0

    @property
    def loc(self) -> Places:
        """Rows and columns by their labels (pandas)."""
        return Places(self._raw.loc)

    @property
    def iloc(self) -> Places:
        """Rows and columns by their positions (pandas)."""
        return Places(self._raw.iloc)

    @property
    def index(self) -> Any:
        """The labels of the rows (pandas)."""
        return _seen(self._raw.index)

    @property
    def values(self) -> list[Any]:
        """The values as lists."""
        return self._rows() if isinstance(self, Table) else self._list()

    def head(self, n: int = 5) -> Any:
        """Return the first rows."""
        return self._part(slice(None, n))

    def tail(self, n: int = 5) -> Any:
        """Return the last rows."""
        return self._part(slice(-n if n > 0 else len(self), None))

    def sample(self, n: int = 5) -> Any:
        """Return ``n`` rows at regular intervals over the table; the same ones each time."""
        return self._part(slice(None, None, max(1, len(self) // max(1, n)))).head(n)

    def describe(self) -> Any:
        """Return counts, means and quartiles."""
        return _seen(self._raw.describe())

    def _part(self, rows: slice) -> Any:
        if self._library == "pyarrow":
            start, stop, step = rows.indices(len(self))
            return _seen(self._raw.take(list(range(start, stop, step))))
        has_places = self._library == "pandas" and hasattr(self._raw, "iloc")
        return _seen(self._raw.iloc[rows] if has_places else self._raw[rows])

    def _bounded(self) -> Any:
        if self.size > _MAX_CELLS:
            msg = f"A table of {self.size:,} values is too large to insert."
            raise TemplateError(msg, hint="Use a part of it: {{ df.head(20) }}.")
        return self._raw

    def _list(self) -> list[Any]:
        return [_seen(value) for value in list_values(self._bounded())]

    def _rows(self) -> list[Any]:
        names = list(column_names(self._raw))
        columns = [
            list_values(column_at(self._bounded(), position)) for position in range(len(names))
        ]
        return [[_seen(value) for value in row] for row in zip(*columns, strict=True)]


class Table(Facade):
    """A DataFrame, or a table of pyarrow."""

    def __getattr__(self, name: str) -> Any:
        """Return a column by name: ``{{ df.stars }}``."""
        if name.startswith("_") or name not in column_names(self._raw):
            raise AttributeError(name)
        return _seen(self._raw[name])

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the names of the columns (pandas), or over the columns (polars, pyarrow)."""
        for name in column_names(self._raw):
            yield name if self._library == "pandas" else _seen(self._raw[name])

    def __contains__(self, name: object) -> bool:
        """Return whether there is such a column."""
        return name in list(column_names(self._raw))

    @property
    def columns(self) -> list[Any]:
        """The names of the columns."""
        return [_seen(name) for name in column_names(self._raw)]

    @property
    def dtypes(self) -> dict[Any, str]:
        """The type of each column, by name."""
        kinds = self._raw.schema.types if self._library == "pyarrow" else self._raw.dtypes
        return dict(zip(self.columns, map(str, kinds), strict=True))

    def keys(self) -> list[Any]:
        """Return the names of the columns."""
        return self.columns

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield each column with its name."""
        for position, name in enumerate(self.columns):
            yield name, _seen(column_at(self._raw, position))

    def itertuples(self, index: bool = True) -> Iterator[Row]:
        """Yield the rows, with the label of each unless ``index`` is false (pandas)."""
        for label, row in self._labelled():
            yield Row(["Index", *row.keys()], [label, *row.values()]) if index else row

    def iterrows(self) -> Iterator[tuple[Any, Row]]:
        """Yield the label of each row, and the row."""
        yield from self._labelled()

    def iter_rows(self, named: bool = False) -> Iterator[Any]:
        """Yield the rows as tuples, or by the names of the columns (polars)."""
        for _, row in self._labelled():
            yield row.to_dict() if named else tuple(row.values())

    def rows(self, named: bool = False) -> list[Any]:
        """Return the rows as tuples, or by the names of the columns (polars)."""
        self._bounded()
        return list(self.iter_rows(named))

    def to_dict(self, orient: str = "dict") -> Any:
        """Return the table as lists and mappings: ``dict``, ``list`` or ``records``."""
        self._bounded()
        if orient == "records":
            return [row.to_dict() for _, row in self._labelled()]
        listed = {name: column._list() for name, column in self.items()}
        if orient == "list" or (orient == "dict" and self._library != "pandas"):
            return listed
        if orient == "dict":
            labels = _seen(self._raw.index)._list()
            return {name: dict(zip(labels, each, strict=True)) for name, each in listed.items()}
        msg = f'to_dict("{orient}") is not supported in prompt files.'
        raise TemplateError(msg, hint="Use dict, list or records.")

    def to_dicts(self) -> Any:
        """Return the rows by the names of the columns (polars)."""
        return self.to_dict("records")

    def to_pylist(self) -> Any:
        """Return the rows by the names of the columns (pyarrow)."""
        return self.to_dict("records")

    def to_markdown(self) -> str:
        """Return all rows as a Markdown table."""
        frame = self._pandas()
        return format_table(frame, len(frame))

    def to_string(self, *, index: bool = True) -> str:
        """Return all rows as plain text."""
        text: str = self._pandas().to_string(index=bool(index))
        return text

    def to_json(self, *, orient: str = "records") -> str:
        """Return all rows as JSON."""
        frame = self._pandas()
        for part in (
            frame.index,
            frame.columns,
            *(frame.iloc[:, n] for n in range(frame.shape[1])),
        ):
            if part.dtype == object:  # pandas would write all attributes of unknown objects
                _listed_seen(part)
        text: str = frame.to_json(orient=str(orient))
        return text

    def to_csv(self, *, index: bool = True) -> str:
        """Return all rows as CSV."""
        text: str = self._pandas().to_csv(index=bool(index))
        return text

    def sort_values(self, by: Any, ascending: bool = True) -> Any:
        """Return the rows in the order of a column."""
        if self._library == "polars":
            return _seen(self._raw.sort(_key(by), descending=not ascending))
        if self._library == "pyarrow":
            order = "ascending" if ascending else "descending"
            return _seen(self._raw.sort_by([(_key(by), order)]))
        return _seen(self._raw.sort_values(_key(by), ascending=bool(ascending)))

    def _pandas(self) -> Any:
        frame = self._bounded()
        return frame if self._library == "pandas" else frame.to_pandas()

    def _labelled(self) -> Iterator[tuple[Any, Row]]:
        names = self.columns
        labels = self._raw.index if self._library == "pandas" else range(len(self))
        frame = self._raw
        if self._library == "pandas":
            records = frame.itertuples(index=False, name=None)
        elif self._library == "polars":
            records = frame.iter_rows()
        else:
            records = zip(*(list_values(each) for each in frame.columns), strict=True)
        for label, record in zip(labels, records, strict=False):
            yield _seen(label), Row(names, [_seen(value) for value in record])


class Column(Facade):
    """A column, an index, or an array."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the values."""
        return (_seen(value) for value in self._raw)

    def __contains__(self, value: object) -> bool:
        """Return whether it is one of the values. Labels do not count, unlike in pandas."""
        return any(value == each for each in self)

    @property
    def name(self) -> Any:
        """The name of the column."""
        return _seen(getattr(self._raw, "name", None))

    @property
    def dtype(self) -> str:
        """The type of its values."""
        return str(self._raw.type if self._library == "pyarrow" else self._raw.dtype)

    def tolist(self) -> list[Any]:
        """Return the values."""
        return self._list()

    to_list = to_pylist = tolist

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield each value with its label."""
        labels = self._raw.index if hasattr(self._raw, "loc") else range(len(self))
        for label, value in zip(labels, self._raw, strict=True):
            yield _seen(label), _seen(value)

    def to_dict(self) -> dict[Any, Any]:
        """Return the values by their labels."""
        self._bounded()
        return dict(self.items())

    def unique(self) -> list[Any]:
        """Return the values without repetitions."""
        return _listed_seen(self._raw.unique())

    def value_counts(self) -> Any:
        """Return how often each value occurs."""
        return _seen(self._raw.value_counts())

    def _figure(self, name: str) -> Any:
        source = self._raw
        if self._library == "pyarrow":
            source = source.to_pandas()
        return _seen(getattr(source, name)())

    def _with(self, how: Callable[[Any, Any], Any], other: Any) -> Any:
        if not isinstance(other, Column | str | int | float) and not hasattr(other, "isoformat"):
            return NotImplemented
        if isinstance(other, Column):
            refuse_growth(self._raw, other._raw)
        return _seen(how(self._raw, raw(other)))

    def _reckoned(self, how: Callable[[Any, Any], Any], other: Any) -> Any:
        """Compute ``how`` for numbers only, because texts and lists could grow without a limit."""
        kinds = [self, *([other] if isinstance(other, Column) else [])]
        are_numbers = all(_is_numeric(each.dtype) for each in kinds)
        if not are_numbers or not isinstance(other, Column | int | float):
            return NotImplemented
        return self._with(how, other)


def _is_numeric(dtype: str) -> bool:
    return dtype.lower().lstrip("u").startswith(("int", "float", "double", "bool"))


def _figure(name: str) -> Callable[[Column], Any]:
    def figure(self: Column) -> Any:
        return self._figure(name)

    figure.__name__ = name
    return figure


def _operator(name: str, way: str) -> Callable[[Column, Any], Any]:
    how: Callable[[Any, Any], Any] = getattr(operator, name)

    def operate(self: Column, other: Any) -> Any:
        result: Any = getattr(self, way)(how, other)
        return result

    return operate


for _name in ("count", "sum", "mean", "median", "min", "max", "std", "nunique"):
    setattr(Column, _name, _figure(_name))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Column, f"__{_name}__", _operator(_name, "_with"))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod"):
    setattr(Column, f"__{_name}__", _operator(_name, "_reckoned"))


class Places:
    """``df.loc`` and ``df.iloc``, read-only."""

    def __init__(self, places: Any) -> None:
        self._places = places

    def __getitem__(self, key: Any) -> Any:
        """Return a part of the table, or a value."""
        try:
            return _seen(self._places[_key(key)])
        except (ValueError, TypeError) as error:
            raise KeyError(key) from error


def _listed_seen(values: Any) -> list[Any]:
    has_list = any(hasattr(values, name) for name in ("to_pylist", "to_list", "tolist"))
    return [_seen(value) for value in (list_values(values) if has_list else values)]
