"""
The mean score that people would give, from labels of some items and a judge's labels of all.

The estimate is the judge's mean, corrected by the judge's mean error on the items that people
labelled, with the judge's labels weighted by their slope (prediction-powered inference with power
tuning: Angelopoulos, Duchi and Zrnic, PPI++, arXiv 2311.01453). Its variance has two parts: that of
the correction, over the items without a label of people, and that of the items themselves, if the
score is that of future items. Labelled items must be a random sample of all items; the judge may be
as wrong as it likes.

Shares of labels given by one person have the score interval, or the exact one, of `share`; other
scores have Student's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from llm_magics.dataframes.operators.finite_population import score_interval
from llm_magics.dataframes.operators.labelled_sample import UNKNOWN, Labels
from llm_magics.dataframes.operators.prediction_powered import Predictions, estimate_shares
from llm_magics.dataframes.operators.share_sampling import Population
from llm_magics.errors import UsageError
from llm_magics.evaluations.judge_bias import row_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.evaluations.ratings import Ratings

    Floats = NDArray[np.float64]

# Whose mean is estimated: that of the items that the judge labelled, or of all like them.
Items = Literal["future", "table"]

# Standard errors between the judge's mean of labelled items and of others that a random sample has
# once in a thousand times.
_SUSPICIOUS = NormalDist().inv_cdf(1 - 0.001 / 2)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """
    The estimate of a mean, with its interval; NaN if unknown.

    Attributes:
        value, low, high: the estimate.
        width_alone: the width of the interval of people's labels alone.
        note: why it is unknown; empty otherwise.
    """

    value: float
    low: float
    high: float
    width_alone: float
    note: str = ""


def correct(ratings: Ratings, items: Items, confidence: float) -> pd.DataFrame:
    """
    Return the corrected means; see `Agreement.corrected`.

    Raises:
        UsageError: ``items`` is invalid.
    """
    if items not in ("future", "table"):
        msg = f"Invalid items: {items!r:.60}."
        raise UsageError(msg, hint='Use "future" or "table".')
    rows = []
    for name, judge, people in _scores(ratings):
        found = estimate_mean(judge, people, items=items, confidence=confidence)
        known = people[np.isfinite(people)]
        rows.append(
            {
                "score": name,
                "estimate": found.value,
                "low": found.low,
                "high": found.high,
                "judge": _mean(judge[np.isfinite(judge)]),
                "people": _mean(known),
                "width_ratio": _ratio(found.high - found.low, found.width_alone),
                "labels": len(known),
                "items": len(people),
                "note": found.note or _sample_note(judge, people),
            }
        )
    return pd.DataFrame(rows)


def _scores(ratings: Ratings) -> list[tuple[str, Floats, Floats]]:
    """Return each score with its values by the judge and by people, the mean of several."""
    if ratings.is_numeric:
        people = row_means(ratings.valued(ratings.people))
        return [("mean", ratings.valued(ratings.judge), people)]
    labelled = ratings.counts.sum(axis=1)
    judged = ratings.judge >= 0
    found = []
    for number, label in enumerate(ratings.labels):
        share = np.full(len(labelled), np.nan)
        np.divide(ratings.counts[:, number], labelled, out=share, where=labelled > 0)
        judge = np.where(judged, (ratings.judge == number).astype(np.float64), np.nan)
        found.append((f"share of {label}", judge, share))
    return found


def estimate_mean(
    judge: Floats, people: Floats, *, items: Items = "future", confidence: float = 0.95
) -> Estimate:
    """
    Return the mean score of people.

    Args:
        judge: the judge's score of each item; NaN if missing.
        people: people's score of each item; NaN if missing.
        items: whose mean: of these items, or of future ones that are like them.
        confidence: the confidence of the interval.
    """
    labelled = np.isfinite(people)
    count = int(labelled.sum())
    if count < 2:
        return Estimate(
            value=_mean(people[labelled]),
            low=math.nan,
            high=math.nan,
            width_alone=math.nan,
            note="fewer than two items have a label of people",
        )
    # A missing score of the judge tells nothing.
    known = np.isfinite(judge)
    judge = np.where(known, judge, _mean(judge[known]) if known.any() else 0.0)
    is_binary = bool(np.isin(people[labelled], (0, 1)).all())
    method = _estimate_share if is_binary else _estimate_score
    return method(judge, people, items == "future", 1 - confidence)


def _estimate_share(judge: Floats, people: Floats, is_future: bool, alpha: float) -> Estimate:
    """Return the share of items with the score 1."""
    rows, drawn = len(people), np.flatnonzero(np.isfinite(people))
    answers = np.full(rows, UNKNOWN, np.int8)
    answers[drawn] = people[drawn]
    nothing = np.zeros(rows, np.intp)
    population = Population.of(np.arange(rows), nothing, 1)
    missed = np.full(rows, 1 - len(drawn) / rows)
    labels = Labels(drawn=drawn, answers=answers, missed=missed)
    predictions = Predictions(values=judge[None], folds=nothing)
    ends = []
    for used in (predictions, None):
        shares = estimate_shares(population, labels, used, alpha)
        value, low, high = (float(each[0]) for each in (shares.share, shares.low, shares.high))
        if is_future:
            low, high = _widen_share(value, low, high, rows, alpha)
        ends.append((value, low, high))
    (value, low, high), (_, low_alone, high_alone) = ends
    return Estimate(value=value, low=low, high=high, width_alone=high_alone - low_alone)


def _widen_share(
    value: float, low: float, high: float, rows: int, alpha: float
) -> tuple[float, float]:
    """
    Return the interval for future items, from that of a table.

    The errors of the two are independent, so that the distances of their ends from the estimate are
    added as squares (Zou and Donner, *Construction of confidence limits about effect measures*,
    2008). That of the table is Wilson's.
    """
    z = NormalDist().inv_cdf(1 - alpha / 2)
    spread = value * (1 - value)
    below, above = score_interval(spread / rows, (1 - 2 * value) / rows, 1 / rows, z)
    return (
        max(0.0, value - math.hypot(value - low, below)),
        min(1.0, value + math.hypot(high - value, above)),
    )


def _estimate_score(judge: Floats, people: Floats, is_future: bool, alpha: float) -> Estimate:
    """Return the mean of any numbers."""
    from scipy.stats import t

    labelled = np.isfinite(people)
    score, rows = people[labelled], len(people)
    count = len(score)
    inner = judge[labelled] - judge[labelled].mean()
    spread = float(inner @ inner)
    slope = max(0.0, float(inner @ score) / spread) if spread > 0 and count > 2 else 0.0
    shift = float(judge[labelled].mean() - judge.mean())
    value = float(score.mean()) - slope * shift
    own = float(score.var(ddof=1))
    left = 1 - count / rows
    of_items = own / rows if is_future else 0.0
    freedom = count - 1 - (slope > 0)
    residuals = score - score.mean() - slope * inner
    variance = float(residuals @ residuals) / freedom
    error = variance * left / count + (variance * shift**2 / spread if slope else 0.0)
    half = float(t.ppf(1 - alpha / 2, freedom)) * math.sqrt(error + of_items)
    alone = float(t.ppf(1 - alpha / 2, count - 1)) * math.sqrt(own * left / count + of_items)
    is_constant = own == 0 and (is_future or left > 0)
    if is_constant:
        return Estimate(
            value=value,
            low=math.nan,
            high=math.nan,
            width_alone=math.nan,
            note="all scores of people are equal",
        )
    return Estimate(value=value, low=value - half, high=value + half, width_alone=2 * alone)


def _sample_note(judge: Floats, people: Floats) -> str:
    """Return a note if the labelled items cannot be a random sample."""
    known = np.isfinite(judge)
    one, other = judge[known & np.isfinite(people)], judge[known & ~np.isfinite(people)]
    if len(one) < 10 or len(other) < 10:
        return ""
    error = math.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))
    if not error or abs(one.mean() - other.mean()) < _SUSPICIOUS * error:
        return ""
    return "the judge scores labelled items differently from others: are they a random sample?"


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _ratio(width: float, alone: float) -> float:
    return width / alone if alone > 0 else math.nan
