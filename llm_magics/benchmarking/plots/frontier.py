"""Quality against cost, and which models no other beats in both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics._util.plotting import GREY
from llm_magics._util.statistics import mean_interval
from llm_magics.benchmarking.plots import canvas
from llm_magics.benchmarking.results.differences import (
    SCORE,
    column_to_compare,
    is_better_higher,
    scores_of,
    values_of,
)
from llm_magics.benchmarking.results.items import items
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def points(frame: pd.DataFrame, quality: str | None, cost: str | None) -> pd.DataFrame:
    """
    A row a model: mean ``quality`` with its interval, mean ``cost``, and whether it is on the frontier.

    On the frontier is who has no other that is at least as good and at most as dear, and
    better in one of the two.
    """
    if quality is None and not scores_of(frame):
        msg = "The answers have no score."
        raise UsageError(msg, hint='Score them: runs.scored("exact", expected=[…]).')
    good = column_to_compare(frame, quality)
    dear = column_to_compare(frame, cost or _known_cost(frame))
    rows = []
    for name, group in frame.groupby("asked", sort=False):
        by_prompt = values_of(group, good).groupby(items(group)).mean()
        interval = mean_interval(by_prompt)
        rows.append((name, _mean(by_prompt), *interval, _mean_cost(group, dear)))
    told = pd.DataFrame(rows, columns=["model", good, "low", "high", dear]).set_index("model")
    told["frontier"] = [_is_best(told, name, good, dear) for name in told.index]
    return told


def _known_cost(frame: pd.DataFrame) -> str:
    spent = frame["cost_usd"]
    return "cost_usd" if spent.notna().any() and (spent.fillna(0) > 0).any() else "e2e_s"


def _mean(values: Any) -> float:
    known = pd.to_numeric(values).astype("float64").dropna()
    return float(known.mean()) if len(known) else math.nan


def _mean_cost(group: pd.DataFrame, dear: str) -> float:
    """Return the mean of what an answer takes; unknown where the cost of one is not known."""
    values = values_of(group, dear)
    return math.nan if dear == "cost_usd" and values.isna().any() else _mean(values)


def _is_best(told: pd.DataFrame, name: Any, good: str, dear: str) -> bool:
    up, down = _sign(good), -_sign(dear)
    mine, cost = told.loc[name, good] * up, told.loc[name, dear] * down
    if math.isnan(mine) or math.isnan(cost):
        return False
    others = told.drop(index=name)
    as_good, as_cheap = others[good] * up >= mine, others[dear] * down <= cost
    better = (others[good] * up > mine) | (others[dear] * down < cost)
    return not bool((as_good & as_cheap & better).any())


def _sign(column: str) -> int:
    return 1 if is_better_higher(column) else -1


def figure(frame: pd.DataFrame, quality: str | None, cost: str | None) -> Figure:
    """Each model a point with the interval of its quality; the frontier a line."""
    told = points(frame, quality, cost)
    good, dear = str(told.columns[0]), str(told.columns[3])
    drawn, (ax,) = canvas.empty()
    best = told[told["frontier"]].sort_values(dear)
    ax.plot(best[dear], best[good], color=GREY, linewidth=1, linestyle="--", zorder=1)
    for number, (name, row) in enumerate(told.iterrows()):
        style = canvas.line_of(number)
        if not math.isnan(row["low"]):
            ax.plot([row[dear]] * 2, [row["low"], row["high"]], color=style["color"], linewidth=1)
        ax.plot(
            [row[dear]],
            [row[good]],
            marker=style["marker"],
            color=style["color"],
            markersize=9 if row["frontier"] else 6,
            fillstyle="full" if row["frontier"] else "none",
            linestyle="none",
        )
        is_right = row[dear] > told[dear].mean()
        ax.annotate(
            f"{name} " if is_right else f" {name}",
            (row[dear], row[good]),
            xytext=(-6 if is_right else 6, 4),
            textcoords="offset points",
            ha="right" if is_right else "left",
            color=GREY,
            fontsize="small",
            parse_math=False,
        )
    ax.margins(0.15)
    if good.startswith(SCORE) and told[good].between(0, 1).all():
        ax.set_ylim(-0.04, 1.04)
    canvas.label(
        ax, x=f"{dear}, mean", y=f"{good.removeprefix(SCORE)}, mean", title="up is better, left is cheaper; filled, on the line: no other is better in both"
    )  # fmt: skip
    return drawn
