"""Display of vector columns in a notebook: a few bars and the dimensions in place of the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics.dataframes.vectors import tagged_columns

if TYPE_CHECKING:
    import pandas as pd

_BARS = "▁▂▃▄▅▆▇█"
_SHOWN_VALUES = 8


def for_display(frame: pd.DataFrame) -> pd.DataFrame:
    """
    Return ``frame`` with its vectors replaced by short texts, such as ``▁▃▅▂▇▁▄▂ 384-d``.

    Only columns that this package embedded are replaced. ``frame`` is not changed. Only the rows
    that pandas displays have texts.
    """
    import pandas as pd

    names = tagged_columns(frame)
    if not names:
        return frame
    shown = pd.get_option("display.max_rows") or len(frame)
    rows = [*range(min(shown, len(frame))), *range(max(0, len(frame) - shown), len(frame))]
    displayed = frame.copy(deep=False)
    for name in names:
        texts = np.full(len(frame), None, dtype=object)
        values = frame[name]
        for row in rows:
            texts[row] = _short_text(values.iloc[row])
        displayed[name] = pd.Series(texts, index=frame.index, dtype=object)
    return displayed


def _short_text(value: Any) -> Any:
    """Return a vector as a short text; another value, such as a missing one, unchanged."""
    if not isinstance(value, list | np.ndarray):
        return value
    vector = np.asarray(value)
    if vector.ndim != 1 or vector.dtype.kind != "f" or not len(vector):
        return value
    first = vector[:_SHOWN_VALUES].astype("float64")
    low, high = float(np.nanmin(first)), float(np.nanmax(first))
    if not np.isfinite(first).all() or low == high:
        return f"{len(vector)}-d"
    levels = ((first - low) / (high - low) * (len(_BARS) - 1)).round().astype(int)
    return f"{''.join(_BARS[level] for level in levels)} {len(vector)}-d"
