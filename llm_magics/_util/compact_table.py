"""
Display of a wide table: the columns that matter, rounded, with the full values in tooltips.

The data is not changed: all columns and all digits remain in the DataFrame.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from numbers import Integral, Real
from typing import Any

import pandas as pd

from llm_magics._util.text import escape_controls, format_usd, one_line, pluralize
from llm_magics.secrets import scrub

MAX_COLUMNS = 8
_UNCOUNTED_ROWS = 20
# The width of all texts in a row together, and of one at least.
_ROW_WIDTH, _MIN_TEXT = 180, 40
_PANDAS_WIDTH = 50  # the default of display.max_colwidth
_MAX_TOOLTIP = 2_000
_SAMPLE_ROWS = 100


@dataclass(frozen=True)
class _Cell:
    """A value as displayed; ``full`` is the tooltip if the value is shortened."""

    shown: str
    full: str = ""
    may_wrap: bool = True


@dataclass(frozen=True)
class _Column:
    name: str
    is_number: bool
    format: Callable[[Any], _Cell]


class CompactTable:
    """
    The display of ``frame`` with at most eight columns: ``preferred`` ones first.

    A frame of at most eight columns is displayed with all of them.
    """

    def __init__(self, frame: pd.DataFrame, preferred: Sequence[str]) -> None:
        self._frame = frame
        names = [str(name) for name in frame.columns]
        if len(names) > MAX_COLUMNS:
            known = [name for name in preferred if name in names]
            with_values = [name for name in known if frame[name].notna().any()]
            names = (with_values or known)[:MAX_COLUMNS]
        texts = sum(_is_text(frame[name]) for name in names)
        self._columns = [_column(name, frame[name], _text_width(texts)) for name in names]
        self._levels = list(frame.index.names)

    @property
    def _hidden(self) -> int:
        return self._frame.shape[1] - len(self._columns)

    def _positions(self) -> list[int | None]:
        """Return the rows to display; ``None`` stands for the omitted ones."""
        count = len(self._frame)
        if count <= (pd.get_option("display.max_rows") or count):
            return list(range(count))
        half = max(1, (pd.get_option("display.min_rows") or 10) // 2)
        return [*range(half), None, *range(count - half, count)]

    def _rows(self) -> Iterator[tuple[list[_Cell], list[_Cell]]]:
        """Yield the cells of the index and of the columns of each displayed row."""
        for position in self._positions():
            if position is None:
                yield [_Cell("…")] * len(self._levels), [_Cell("…")] * len(self._columns)
                continue
            label = self._frame.index[position]
            labels = label if isinstance(label, tuple) else (label,)
            cells = [
                column.format(self._frame[column.name].iloc[position]) for column in self._columns
            ]
            yield [_format_text(each, _ROW_WIDTH) for each in labels], cells

    def _size(self) -> str:
        rows, columns = self._frame.shape
        note = f" ({len(self._columns)} shown)" if self._hidden else ""
        size = f"{pluralize(rows, 'row')} × {pluralize(columns, 'column')}{note}"
        return size if self._hidden or rows > _UNCOUNTED_ROWS else ""

    def to_text(self) -> str:
        """Return the table as aligned text."""
        rows = list(self._rows())
        headers = [
            *(str(name) if name is not None else "" for name in self._levels),
            *(column.name for column in self._columns),
        ]
        table = [[cell.shown for cell in (*labels, *cells)] for labels, cells in rows]
        is_number = [False] * len(self._levels) + [column.is_number for column in self._columns]
        widths = [max(map(len, column)) for column in zip(headers, *table, strict=True)]
        lines = [
            "  ".join(
                text.rjust(width) if right else text.ljust(width)
                for text, width, right in zip(line, widths, is_number, strict=True)
            ).rstrip()
            for line in (headers, *table)
        ]
        size = self._size()
        return escape_controls("\n".join([*lines, *(["", size] if size else [])]))

    def to_html(self) -> str:
        """Return the table as HTML, readable without styles."""
        head = "".join(
            [
                *(
                    _tag("th", _Cell("" if name is None else str(name)), False)
                    for name in self._levels
                ),
                *(_tag("th", _Cell(column.name), column.is_number) for column in self._columns),
            ]
        )
        body = "".join(
            f"<tr>{''.join(_tag('th', cell, False) for cell in labels)}"
            + "".join(
                _tag("td", cell, column.is_number)
                for cell, column in zip(cells, self._columns, strict=True)
            )
            + "</tr>\n"
            for labels, cells in self._rows()
        )
        size = self._size()
        note = f"<p>{size}</p>" if size else ""
        return escape_controls(
            f'<table class="dataframe"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>{note}'
        )


def _tag(name: str, cell: _Cell, is_number: bool) -> str:
    style = f"text-align:{'right' if is_number else 'left'}"
    style += "" if cell.may_wrap else ";white-space:nowrap"
    title = f' title="{_escape(cell.full)}"' if cell.full else ""
    return f'<{name} style="{style}"{title}>{_escape(cell.shown)}</{name}>'


def _escape(text: str) -> str:
    return html.escape(scrub(text))


def _text_width(texts: int) -> int | None:
    """Return the width of each of so many columns of texts; ``None`` for no limit."""
    width: int | None = pd.get_option("display.max_colwidth")
    return width if width != _PANDAS_WIDTH else max(_MIN_TEXT, _ROW_WIDTH // max(1, texts))


def _is_number(values: pd.Series[Any]) -> bool:
    types = pd.api.types
    return types.is_numeric_dtype(values.dtype) and not types.is_bool_dtype(values.dtype)


def _is_text(values: pd.Series[Any]) -> bool:
    """Whether the column has texts longer than a name."""
    is_other = not _is_number(values) and not pd.api.types.is_datetime64_any_dtype(values.dtype)
    return is_other and any(len(str(value)) > _MIN_TEXT for value in values.head(_SAMPLE_ROWS))


def _column(name: str, values: pd.Series[Any], width: int | None) -> _Column:
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return _Column(name, False, _format_time)
    is_number = _is_number(values)
    if name.endswith("_usd"):
        return _Column(name, is_number, _format_cost)
    return _Column(
        name, is_number, _format_number if is_number else partial(_format_text, width=width)
    )


def _is_missing(value: Any) -> bool:
    missing = pd.isna(value) if pd.api.types.is_scalar(value) else False
    return bool(missing)


def _format_time(value: Any) -> _Cell:
    """Format a time in the time zone of this machine, to the second."""
    if _is_missing(value):
        return _Cell("")
    local: datetime = value.to_pydatetime().astimezone() if value.tzinfo else value
    return _Cell(f"{local:%Y-%m-%d %H:%M:%S}", str(value), may_wrap=False)


def _format_cost(value: Any) -> _Cell:
    if _is_missing(value):
        return _Cell("")
    return _Cell(format_usd(float(value)), f"{float(value)!r}")


def _format_number(value: Any) -> _Cell:
    """Format with three significant digits, and no exponent for common magnitudes."""
    if _is_missing(value):
        return _Cell("")
    if isinstance(value, Integral):
        return _Cell(f"{int(value):,}")
    number = float(value) if isinstance(value, Real) else math.nan
    if not math.isfinite(number):
        return _Cell(str(value))
    if number == int(number) and abs(number) < 1e15:
        return _Cell(f"{int(number):,}")
    shown = f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
    return _Cell(shown, repr(number))


def _format_text(value: Any, width: int | None) -> _Cell:
    if _is_missing(value):
        return _Cell("")
    if isinstance(value, float):
        return _format_number(value)
    text = value if isinstance(value, str) else str(value)
    line = one_line(text)
    if width is None or len(line) <= width:
        return _Cell(line, text[:_MAX_TOOLTIP] if line != text else "")
    return _Cell(f"{line[: width - 1]}…", text[:_MAX_TOOLTIP])
