"""DataFrames whose texts are shown whole: explanations and hints are there to be read."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

_WHOLE = ("display.max_colwidth", None, "display.max_columns", None)


class WideFrame(pd.DataFrame):
    """A DataFrame that shows the texts in its cells whole, where pandas cuts them at 50 characters."""

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return WideFrame

    def __repr__(self) -> str:
        with pd.option_context(*_WHOLE, "display.expand_frame_repr", False):
            return super().__repr__()

    def _repr_html_(self) -> str | None:
        with pd.option_context(*_WHOLE):
            html: str | None = super()._repr_html_()  # type: ignore[misc]
            return html
