"""A picture of a filter: the scores of the proxy, and which of them decided rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._util.plotting import COLOURS, GREY, empty_figure, legend
from llm_magics.dataframes.operators.calibration import logit
from llm_magics.dataframes.operators.oracle import NO, YES
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from llm_magics.dataframes.operators.filter_report import RowDecisions

_BINS = 40

# The axis shows log odds, which spread the scores near 0 and 1; those beyond are at its ends.
_LIMIT = 0.999
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)

# The groups from bottom to top; their colours differ in lightness too.
_GROUPS = (
    ("dropped by the proxy", COLOURS[5]),
    ("dropped by the oracle", COLOURS[0]),
    ("kept by the oracle", COLOURS[3]),
    ("kept by the proxy", COLOURS[1]),
)

_THRESHOLDS = "thresholds of the proxy"


def plot_scores(decisions: RowDecisions, proxy: str) -> Figure:
    """
    Return a histogram of scores by decision, with the thresholds of the proxy.

    Raises:
        UsageError: matplotlib is not installed, or no row has a score.
    """
    from llm_magics.dataframes.operators.filter_report import PROXY

    has_score = np.isfinite(decisions.scores)
    if not has_score.any():
        msg = "The report has nothing to plot: the oracle decided all rows."
        raise UsageError(msg, hint='Filter more rows, or with proxy="auto".')
    figure = empty_figure(7.0, 3.2)
    ax = figure.add_subplot()
    ax.patch.set_alpha(0)
    by_proxy = decisions.sources == PROXY
    groups = [
        by_proxy & (decisions.labels == NO),
        ~by_proxy & (decisions.labels == NO),
        ~by_proxy & (decisions.labels == YES),
        by_proxy & (decisions.labels == YES),
    ]
    shown = [
        (decisions.scores[group & has_score], *style)
        for group, style in zip(groups, _GROUPS, strict=True)
        if (group & has_score).any()
    ]
    low, high = logit(np.array([1 - _LIMIT, _LIMIT])).tolist()
    edges = np.linspace(low, high, _BINS + 1)
    width = edges[1] - edges[0]
    below = np.zeros(_BINS)
    handles: list[Any] = []
    for scores, _, colour in shown:
        counts, _ = np.histogram(_odds(scores), edges)
        handles.append(ax.bar(edges[:-1], counts, width, below, align="edge", color=colour))
        below += counts
    names = [name for _, name, _ in shown]
    for at in thresholds(decisions.scores, groups[0], groups[3]):
        line = ax.axvline(_odds(np.array([at]))[0], color=GREY, linewidth=1, linestyle="--")
        if _THRESHOLDS not in names:
            names.append(_THRESHOLDS)
            handles.append(line)
    ax.set_ylim(0, 1.05 * max(below.max(), 1))
    ax.set_xlim(edges[0], edges[-1])
    ax.set_xticks(logit(np.array(_TICKS)), [f"{tick:g}" for tick in _TICKS])
    ax.set_xlabel(f"probability of yes by the proxy ({proxy})", color=GREY, parse_math=False)
    ax.set_ylabel("rows", color=GREY)
    ax.tick_params(colors=GREY)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    legend(ax, names, handles, loc="upper left", anchor=(1.0, 1.0))
    return figure


def _odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log odds of ``scores`` within the limits of the axis."""
    return logit(np.clip(scores, 1 - _LIMIT + 1e-9, _LIMIT - 1e-9))


def thresholds(
    scores: NDArray[np.float64], dropped: NDArray[np.bool_], kept: NDArray[np.bool_]
) -> list[float]:
    """Return the highest score that the proxy dropped, and the lowest that it kept, if any."""
    found = []
    if dropped.any():
        found.append(float(np.nanmax(scores[dropped])))
    if kept.any():
        found.append(float(np.nanmin(scores[kept])))
    return found
