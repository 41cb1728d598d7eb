"""Plots of measurements: quality against cost, latency, load, and win shares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._util import plotting
from llm_magics._util.plotting import COLOURS, GREY, SHAPES, empty_figure
from llm_magics._util.statistics import mean_interval
from llm_magics._util.text import format_usd
from llm_magics.benchmarking.analysis import (
    LOAD_COLUMNS,
    MODEL_COLUMN,
    SCORE_PREFIX,
    column_to_compare,
    counted_values,
    is_better_higher,
    is_complete,
    item_keys,
    mean_of_known,
    score_columns,
    varying_loads,
)
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_DASHES = ("-", "--", "-.", ":")


def new_figure(
    columns: int = 1, *, width: float = 7.0, height: float = 4.0
) -> tuple[Figure, list[Axes]]:
    """
    Return a figure that a notebook displays, and its axes in one row.

    Raises:
        UsageError: matplotlib is not installed.
    """
    figure = empty_figure(width, height)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        _style_axes(ax)
    return figure, list(axes)


def _style_axes(ax: Axes) -> None:
    ax.patch.set_alpha(0)
    ax.tick_params(colors=GREY, labelsize="small", which="both")
    for name, spine in ax.spines.items():
        spine.set_color(GREY)
        spine.set_visible(name in ("left", "bottom"))
    ax.grid(visible=True, color=GREY, alpha=0.25, linewidth=0.6)


def line_style(number: int) -> dict[str, Any]:
    """Return the line style of group ``number``: colour, dashes and marker all differ."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "marker": SHAPES[number % len(SHAPES)],
        "markersize": 5,
        "linewidth": 1.6,
    }


def label(ax: Axes, *, x: str = "", y: str = "", title: str = "") -> None:
    """Set the labels and title of axes as plain text; a dollar sign does not start a formula."""
    for text in (
        ax.set_xlabel(x, color=GREY, fontsize="small"),
        ax.set_ylabel(y, color=GREY, fontsize="small"),
        ax.set_title(title, color=GREY, fontsize="small"),
    ):
        text.set_parse_math(False)


def legend(ax: Axes, names: Sequence[str], handles: Sequence[Any]) -> None:
    """Draw a legend to the right of the axes."""
    plotting.legend(ax, names, handles, loc="upper left", anchor=(1.0, 1.0))


def frontier_points(frame: pd.DataFrame, quality: str | None, cost: str | None) -> pd.DataFrame:
    """
    Return one row per model: mean ``quality`` with its interval, mean ``cost``, and ``frontier``.

    A model is on the frontier unless another model is at least as good in both quality and cost,
    and better in one of them.
    """
    if quality is None and not score_columns(frame):
        msg = "The answers have no scores."
        raise UsageError(msg, hint='Score them with runs.scored("exact", expected=[…]).')
    quality_column = column_to_compare(frame, quality)
    cost_column = column_to_compare(frame, cost or _default_cost_column(frame))
    rows = []
    for name, group in frame.groupby(MODEL_COLUMN, sort=False):
        by_prompt = counted_values(group, quality_column).groupby(item_keys(group)).mean()
        interval = mean_interval(by_prompt)
        rows.append((name, mean_of_known(by_prompt), *interval, _mean_cost(group, cost_column)))
    table = pd.DataFrame(
        rows, columns=["model", quality_column, "low", "high", cost_column]
    ).set_index("model")
    table["frontier"] = [
        _is_on_frontier(table, name, quality_column, cost_column) for name in table.index
    ]
    return table


def _default_cost_column(frame: pd.DataFrame) -> str:
    spent = frame["cost_usd"]
    return "cost_usd" if spent.notna().any() and (spent.fillna(0) > 0).any() else "e2e_s"


def _mean_cost(group: pd.DataFrame, cost_column: str) -> float:
    """Return the mean cost or time per answer; NaN if the price of any answer is unknown."""
    values = counted_values(group, cost_column)
    return math.nan if cost_column == "cost_usd" and values.isna().any() else mean_of_known(values)


def _is_on_frontier(table: pd.DataFrame, name: Any, quality_column: str, cost_column: str) -> bool:
    up, down = _sign(quality_column), -_sign(cost_column)
    mine, cost = table.loc[name, quality_column] * up, table.loc[name, cost_column] * down
    if math.isnan(mine) or math.isnan(cost):
        return False
    others = table.drop(index=name)
    as_good, as_cheap = others[quality_column] * up >= mine, others[cost_column] * down <= cost
    better = (others[quality_column] * up > mine) | (others[cost_column] * down < cost)
    return not bool((as_good & as_cheap & better).any())


def _sign(column: str) -> int:
    return 1 if is_better_higher(column) else -1


def frontier(frame: pd.DataFrame, quality: str | None, cost: str | None) -> Figure:
    """Plot each model as a point with the interval of its quality, and the frontier as a line."""
    table = frontier_points(frame, quality, cost)
    quality_column, cost_column = str(table.columns[0]), str(table.columns[3])
    drawn, (ax,) = new_figure()
    best = table[table["frontier"]].sort_values(cost_column)
    ax.plot(
        best[cost_column], best[quality_column], color=GREY, linewidth=1, linestyle="--", zorder=1
    )
    for number, (name, row) in enumerate(table.iterrows()):
        style = line_style(number)
        if not math.isnan(row["low"]):
            ax.plot(
                [row[cost_column]] * 2,
                [row["low"], row["high"]],
                color=style["color"],
                linewidth=1,
            )
        ax.plot(
            [row[cost_column]],
            [row[quality_column]],
            marker=style["marker"],
            color=style["color"],
            markersize=9 if row["frontier"] else 6,
            fillstyle="full" if row["frontier"] else "none",
            linestyle="none",
        )
        is_right = row[cost_column] > table[cost_column].mean()
        ax.annotate(
            f"{name} " if is_right else f" {name}",
            (row[cost_column], row[quality_column]),
            xytext=(-6 if is_right else 6, 4),
            textcoords="offset points",
            ha="right" if is_right else "left",
            color=GREY,
            fontsize="small",
            parse_math=False,
        )
    ax.margins(0.15)
    if quality_column.startswith(SCORE_PREFIX) and table[quality_column].between(0, 1).all():
        ax.set_ylim(-0.04, 1.04)
    x_label = f"{cost_column}, mean"
    if cost_column == "cost_usd":
        x_label = "mean cost of an answer"
        ax.xaxis.set_major_formatter(lambda usd, _: format_usd(usd) if usd >= 0 else "")
    label(
        ax, x=x_label, y=f"{quality_column.removeprefix(SCORE_PREFIX)}, mean", title="higher is better, further left is cheaper; filled points on the line: no model is better in both"
    )  # fmt: skip
    return drawn


_LOAD_UNITS = {"concurrency": "concurrent", "rate": "per second"}
# With more axes in one row the plot is not legible.
_MAX_LOADS = 6


def latency(frame: pd.DataFrame, by: str) -> Figure:
    """Plot the share of requests at or below each value: one line per model, one axes per load."""
    column = column_to_compare(frame, by)
    complete = frame[is_complete(frame) & frame[column].notna()]
    if not len(complete):
        msg = f"No request has a value of {column}."
        raise UsageError(
            msg,
            hint="Answers from a cache or a recording have no times.",
        )
    parts = _split_by_load(complete)
    drawn, axes = new_figure(len(parts), width=max(7.0, 3.2 * len(parts) + 1.5))
    models = list(dict.fromkeys(complete[MODEL_COLUMN]))
    handles: list[Any] = []
    for ax, (load, part) in zip(axes, parts, strict=True):
        handles = [
            _draw_distribution(ax, part, model, column, number)
            for number, model in enumerate(models)
        ]
        ax.set_ylim(0, 1.02)
        y = "cumulative share of requests" if ax is axes[0] else ""
        label(ax, x=column, y=y, title=f"{column}, {len(part):,} requests{load}")
    limits = [ax.get_xlim() for ax in axes]
    for ax in axes:
        ax.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
    legend(axes[-1], models, handles)
    return drawn


def _split_by_load(complete: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    loads = varying_loads(complete)
    if not loads:
        return [("", complete)]
    name = loads[0]
    parts = [(f", {load:g} {_LOAD_UNITS[name]}", part) for load, part in complete.groupby(name)]
    if len(parts) > _MAX_LOADS:
        msg = f"The measurements have {len(parts)} loads; a plot shows at most {_MAX_LOADS}."
        raise UsageError(msg, hint=f"Select some: runs[runs.{name} <= 8].plot_latency()")
    return parts


def _draw_distribution(ax: Axes, part: pd.DataFrame, model: str, column: str, number: int) -> Any:
    values = np.sort(part.loc[part[MODEL_COLUMN] == model, column].to_numpy("float64"))
    shares = np.arange(1, len(values) + 1) / max(1, len(values))
    steps = np.repeat(np.concatenate([[0.0], shares]), 2)[1:-1]
    style = {**line_style(number), "markevery": max(1, len(values) // 2)}
    return ax.plot(np.repeat(values, 2), steps if len(values) else [], **style)[0]


_LOAD_LINES = {"concurrency": "concurrent requests", "rate": "requests per second"}


def load(summary: pd.DataFrame) -> Figure:
    """Plot time to first token (median to 90th percentile) and tokens per second against load."""
    load = next((name for name in LOAD_COLUMNS if name in summary.index.names), None)
    if load is None:
        msg = "All requests have the same load."
        raise UsageError(msg, hint="Measure with concurrency=[1, 4, 16] or rate=[1, 2, 4].")
    drawn, (first, speed) = new_figure(2, width=9.5)
    names, handles = [], []
    for number, (name, group) in enumerate(summary.groupby(level="model", sort=False)):
        at = group.index.get_level_values(load).astype(float).to_numpy()
        style = line_style(number)
        first.fill_between(
            at, group["ttft_s"], group["ttft_s_p90"], color=style["color"], alpha=0.15, linewidth=0
        )
        first.plot(at, group["ttft_s"], **style)
        handles += speed.plot(at, group["throughput_tokens_per_s"], **style)
        names.append(str(name))
    for ax in (first, speed):
        top = ax.dataLim.ymax  # infinite if nothing was drawn
        ax.set_ylim(0, 1.08 * top if math.isfinite(top) and top > 0 else 1)
        ax.set_xticks(sorted({*summary.index.get_level_values(load).astype(float)}))
    label(first, x=_LOAD_LINES[load], y="seconds", title="time to first token: median to 90th percentile")  # fmt: skip
    label(speed, x=_LOAD_LINES[load], y="tokens/s", title="tokens per second, all requests")
    legend(speed, names, handles)
    return drawn


def wins(shares: pd.DataFrame, column: str) -> Figure:
    """Plot the result of `Measurements.wins` as a heat map with a number in each cell."""
    if len(shares) < 2:
        msg = "The measurements have only one model."
        raise UsageError(msg, hint="Compare at least two models.")
    size = 1.2 + 0.9 * len(shares)
    drawn, (ax,) = new_figure(width=size + 2.2, height=size)
    ax.grid(visible=False)
    # A colormap that is also monotonic in greyscale; each cell has its number as well.
    ax.imshow(shares.to_numpy("float64"), cmap="Blues", vmin=0, vmax=1, alpha=0.85)
    for row, name in enumerate(shares.index):
        for position, other in enumerate(shares.columns):
            value = float(shares.loc[name, other])
            if not math.isnan(value):
                ink = "white" if value > 0.55 else "#202020"
                ax.text(position, row, f"{value:.0%}", ha="center", va="center", color=ink)
    ticks = range(len(shares))
    for text in (
        *ax.set_xticks(ticks, [str(name) for name in shares.columns], rotation=30, ha="right"),
        *ax.set_yticks(ticks, [str(name) for name in shares.index]),
    ):
        for tick_label in (text.label1, text.label2):
            tick_label.set_parse_math(False)
    label(
        ax,
        title=f"{column.removeprefix(SCORE_PREFIX)}: share of prompts won by the row (ties count half)",
    )
    return drawn
