"""DataFrames that display untrusted texts escaped, and long texts in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import pandas as pd

from llm_magics._util.text import escape_controls

_FULL_TEXT = ("display.max_colwidth", None, "display.max_columns", None)


class SafeFrame(pd.DataFrame):
    """A DataFrame that escapes control and deceptive characters in its display, not in its data."""

    _when_empty = ""

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return SafeFrame

    def displaying_when_empty(self, text: str) -> Self:
        """Display ``text`` instead of an empty table; what is derived from this one does not."""
        self._when_empty = text
        return self

    def __repr__(self) -> str:
        if self._when_empty and not len(self):
            return self._when_empty
        return escape_controls(super().__repr__())

    def _repr_html_(self) -> str | None:
        if self._when_empty and not len(self):
            return None  # the text alone
        html: str | None = super()._repr_html_()  # type: ignore[misc]
        return html and escape_controls(html)


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
