"""The picture of shares with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._util.plotting import COLOURS, GREY, empty_figure, font_families, single_line
from llm_magics._util.text import format_confidence, format_percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

# More groups than these are not legible; those with the most rows are shown.
MOST_GROUPS = 40


def plot_shares(shares: DataFrame, groups: DataFrame, confidence: float) -> Figure:
    """
    Return a figure with a line for each group, the first one at the top.

    Args:
        shares: the result of `share`.
        groups: the intervals of labels alone, in grey.
        confidence: the confidence of the intervals.

    Raises:
        UsageError: matplotlib is not installed.
    """
    largest = np.sort(np.argsort(-shares["rows"].to_numpy(), kind="stable")[:MOST_GROUPS])
    shares, groups = shares.iloc[largest], groups.iloc[largest]
    figure = empty_figure(7, 1.2 + 0.3 * len(shares))
    ax = figure.subplots()
    ax.patch.set_alpha(0)
    places = np.arange(len(shares))[::-1]
    ax.hlines(
        places, groups["low_alone"], groups["high_alone"], color=GREY, alpha=0.4, linewidth=5
    )
    ax.hlines(places, shares["low"], shares["high"], color=COLOURS[0], linewidth=2)
    ax.plot(shares["share"], places, "o", color=COLOURS[0], markersize=5)
    names = [single_line(", ".join(map(str, key)), 40) for key in _keys(shares)]
    ax.set_yticks(places, names)
    for text in ax.get_yticklabels():
        text.set_parse_math(False)
        text.set_fontfamily(font_families())
    ax.set_ylim(-0.7, len(shares) - 0.3)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_formatter(lambda value, _: format_percent(value))
    ax.tick_params(colors=GREY, labelsize="small")
    for name, spine in ax.spines.items():
        spine.set_color(GREY)
        spine.set_visible(name == "bottom")
    ax.grid(visible=True, axis="x", color=GREY, alpha=0.25, linewidth=0.6)
    ax.set_xlabel(
        f"share, {format_confidence(confidence)} confidence; grey: labels alone",
        color=GREY,
        fontsize="small",
    )
    return figure


def _keys(shares: DataFrame) -> list[tuple[Any, ...]]:
    """Return the values that name each group."""
    columns = list(shares.columns)
    keys = shares[columns[: columns.index("share")]]
    if keys.columns.empty:
        return [("all",)] * len(shares)
    return list(keys.itertuples(index=False, name=None))
