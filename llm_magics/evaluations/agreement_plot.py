"""The picture of corrected scores, with those of the judge and of people alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llm_magics._util.plotting import (
    COLOURS,
    GREY,
    empty_figure,
    font_families,
    legend,
    single_line,
)
from llm_magics._util.text import format_confidence

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

# More scores than these are not legible; the first ones are shown.
MOST_SCORES = 40
_SHARE = "share of "


def plot_corrected(scores: DataFrame, confidence: float) -> Figure:
    """
    Return a figure with a line for each score, the first one at the top.

    Args:
        scores: the result of `Agreement.corrected`.
        confidence: the confidence of the intervals.

    Raises:
        UsageError: matplotlib is not installed.
    """
    scores = scores.iloc[:MOST_SCORES]
    figure = empty_figure(7, 1.2 + 0.35 * len(scores))
    ax = figure.subplots()
    ax.patch.set_alpha(0)
    places = np.arange(len(scores))[::-1]
    ax.hlines(places, scores["low"], scores["high"], color=COLOURS[0], linewidth=2)
    (corrected,) = ax.plot(scores["estimate"], places, "o", color=COLOURS[0], markersize=6)
    (judge,) = ax.plot(scores["judge"], places, "D", color=COLOURS[1], markersize=6)
    (people,) = ax.plot(
        scores["people"], places, "|", color=GREY, markersize=14, markeredgewidth=2
    )
    ax.set_yticks(places, [single_line(str(name), 40) for name in scores["score"]])
    for text in ax.get_yticklabels():
        text.set_parse_math(False)
        text.set_fontfamily(font_families())
    ax.set_ylim(-0.7, len(scores) - 0.3)
    if all(str(name).startswith(_SHARE) for name in scores["score"]):
        ax.set_xlim(left=0)
    ax.tick_params(colors=GREY, labelsize="small")
    for side, spine in ax.spines.items():
        spine.set_color(GREY)
        spine.set_visible(side == "bottom")
    ax.grid(visible=True, axis="x", color=GREY, alpha=0.25, linewidth=0.6)
    names = [f"corrected, {format_confidence(confidence)} interval", "judge alone", "people alone"]
    legend(ax, names, [corrected, judge, people], loc="center left", anchor=(1.0, 0.5))
    return figure
