"""How a measurement is spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from llm_magics.benchmarking.differences import column_to_compare
from llm_magics.benchmarking.plots import canvas
from llm_magics.benchmarking.summary import several_loads
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(frame: pd.DataFrame, by: str) -> Figure:
    """The share of requests at or below each value, a line for each model and load."""
    column = column_to_compare(frame, by)
    keys = ["asked", *several_loads(frame)]
    whole = frame[frame["error"].isna() & frame[column].notna()]
    if not len(whole):
        msg = f"No request has a {column}."
        raise UsageError(msg, hint="Answers from a cache or a recording have no times.")
    drawn, (ax,) = canvas.empty()
    names, handles = [], []
    for number, (key, group) in enumerate(whole.groupby(keys, sort=False)):
        values = np.sort(group[column].to_numpy("float64"))
        shares = np.arange(1, len(values) + 1) / len(values)
        style = canvas.line_of(number)
        handles += ax.plot(
            np.repeat(values, 2),
            np.repeat(np.concatenate([[0], shares]), 2)[1:-1],
            **{**style, "markevery": max(1, len(values) // 4)},
        )
        names.append(_named(key, len(values)))
    ax.set_ylim(0, 1.02)
    canvas.label(ax, x=column, y="share of requests", title=f"{column}: at or below")
    canvas.legend(ax, names, handles)
    return drawn


def _named(key: tuple[object, ...], count: int) -> str:
    name, *load = key
    at = f", {load[0]:g}" if load and isinstance(load[0], int | float) else ""
    return f"{name}{at} (n = {count})"
