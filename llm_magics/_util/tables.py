"""DataFrames that display untrusted texts escaped, long texts in full, or only some columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pandas as pd

from llm_magics._util.compact_table import MAX_COLUMNS, CompactTable
from llm_magics._util.text import escape_controls

_FULL_TEXT = ("display.max_colwidth", None, "display.max_columns", None)


class SafeFrame(pd.DataFrame):
    """A DataFrame that escapes control and deceptive characters in its display, not in its data."""

    _when_empty = ""

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return SafeFrame

    def __repr__(self) -> str:
        if self._when_empty and not len(self):
            return self._when_empty
        return escape_controls(super().__repr__())

    def _repr_html_(self) -> str | None:
        if self._when_empty and not len(self):
            return None  # the text alone
        html: str | None = super()._repr_html_()  # type: ignore[misc]
        return html and escape_controls(html)


_Safe = TypeVar("_Safe", bound=SafeFrame)


def display_when_empty(frame: _Safe, text: str) -> _Safe:
    """Make ``frame`` display ``text`` if it has no rows; what is derived from it does not."""
    frame._when_empty = text
    return frame


class WideFrame(SafeFrame):
    """A DataFrame that displays full texts in its cells; pandas truncates them at 50 characters."""

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return WideFrame

    def __repr__(self) -> str:
        with pd.option_context(*_FULL_TEXT, "display.expand_frame_repr", False):
            return super().__repr__()

    def _repr_html_(self) -> str | None:
        with pd.option_context(*_FULL_TEXT):
            return super()._repr_html_()


class CompactFrame(SafeFrame):
    """
    A DataFrame that displays at most eight of its columns, with rounded figures.

    All columns stay in the data, and long texts are in tooltips.
    """

    _metadata = ["_preferred"]  # noqa: RUF012 (pandas expects a list)
    _preferred: tuple[str, ...] = ()

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return CompactFrame

    def _displayed_columns(self) -> tuple[str, ...]:
        return self._preferred

    def _compact_table(self) -> CompactTable | None:
        """Return the compact display; ``None`` if it could not show this table."""
        names = self.columns
        is_plain = names.is_unique and all(isinstance(name, str) for name in names)
        preferred = self._displayed_columns()
        is_known = len(names) <= MAX_COLUMNS or any(name in names for name in preferred)
        if not (is_plain and len(self) and is_known):
            return None
        return CompactTable(self, preferred)

    def __repr__(self) -> str:
        table = self._compact_table()
        return super().__repr__() if table is None else table.to_text()

    def _repr_html_(self) -> str | None:
        table = self._compact_table()
        return super()._repr_html_() if table is None else table.to_html()


def display_columns(frame: pd.DataFrame, *columns: str) -> CompactFrame:
    """Return ``frame`` so that it displays these columns first, as far as they have values."""
    compact = CompactFrame(frame)
    compact._preferred = columns
    return compact
