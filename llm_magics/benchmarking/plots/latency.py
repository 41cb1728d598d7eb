"""How a measurement is spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics.benchmarking.plots import canvas
from llm_magics.benchmarking.results.differences import column_to_compare
from llm_magics.benchmarking.results.whole import is_whole, several_loads
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TOLD = {"concurrency": "at once", "rate": "a second"}
# More loads than these beside each other cannot be read.
_MOST_LOADS = 6


def figure(frame: pd.DataFrame, by: str) -> Figure:
    """The share of requests at or below each value: a line for each model, axes for each load."""
    column = column_to_compare(frame, by)
    whole = frame[is_whole(frame) & frame[column].notna()]
    if not len(whole):
        msg = f"No request has a {column}."
        raise UsageError(msg, hint="Answers from a cache or a recording have no times.")
    parts = _by_load(whole)
    drawn, axes = canvas.empty(len(parts), width=max(7.0, 3.2 * len(parts) + 1.5))
    models = list(dict.fromkeys(whole["asked"]))
    handles: list[Any] = []
    for ax, (load, part) in zip(axes, parts, strict=True):
        handles = [_line(ax, part, model, column, number) for number, model in enumerate(models)]
        ax.set_ylim(0, 1.02)
        y = "share of requests, at or below" if ax is axes[0] else ""
        canvas.label(ax, x=column, y=y, title=f"{column}, {len(part):,} requests{load}")
    limits = [ax.get_xlim() for ax in axes]
    for ax in axes:
        ax.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
    canvas.legend(axes[-1], models, handles)
    return drawn


def _by_load(whole: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    loads = several_loads(whole)
    if not loads:
        return [("", whole)]
    name = loads[0]
    parts = [(f", {load:g} {_TOLD[name]}", part) for load, part in whole.groupby(name)]
    if len(parts) > _MOST_LOADS:
        msg = f"There are {len(parts)} loads, and no more than {_MOST_LOADS} can be seen at once."
        raise UsageError(msg, hint=f"Draw some: runs[runs.{name} <= 8].plot_latency()")
    return parts


def _line(ax: Axes, part: pd.DataFrame, model: str, column: str, number: int) -> Any:
    values = np.sort(part.loc[part["asked"] == model, column].to_numpy("float64"))
    shares = np.arange(1, len(values) + 1) / max(1, len(values))
    steps = np.repeat(np.concatenate([[0.0], shares]), 2)[1:-1]
    style = {**canvas.line_of(number), "markevery": max(1, len(values) // 2)}
    return ax.plot(np.repeat(values, 2), steps if len(values) else [], **style)[0]
