"""The bias of a judge by the order in which it saw two answers, and by their lengths."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._util.statistics import gap_interval
from llm_magics.errors import UsageError
from llm_magics.evaluations.coefficients import Coefficient, unknown
from llm_magics.evaluations.ratings import Ratings, aligned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# What the bias is about, and its coefficient.
Bias = tuple[str, Coefficient]


def position_bias(ratings: Ratings, first: Any, confidence: float) -> list[Bias]:
    """
    Return how much more often the judge chooses the answer that it saw first than people do.

    Args:
        ratings: the labels of pairwise judgements.
        first: the label of the answer that the judge saw first, for each item.
        confidence: the confidence of the interval.

    Raises:
        UsageError: ``first`` has other labels.
    """
    numbers = {label: number for number, label in enumerate(ratings.labels)}
    shown = aligned(first, ratings.index, "first")
    if other := [each for each in shown if each is not None and each not in numbers]:
        msg = f"{other[0]!r:.60} in first is not a label."
        raise UsageError(msg, hint="Pass the label of the answer that the judge saw first.")
    codes = np.array([-1 if each is None else numbers[each] for each in shown], np.intp)
    answers = np.unique(codes[codes >= 0])
    name = "first answer"
    if len(answers) == 1:  # which of the other labels is the other answer is unknown
        return [(name, unknown(0, "the judge always saw the same answer first"))]
    return [(name, _preference(ratings, codes, answers, confidence))]


def length_bias(ratings: Ratings, lengths: Any, confidence: float) -> list[Bias]:
    """
    Return how the judge's errors depend on the lengths of answers.

    Args:
        ratings: the labels.
        lengths: the length of the answer of each item; or a table with the lengths of two answers,
            in columns named as the labels.
        confidence: the confidence of the intervals.

    Raises:
        UsageError: the table has other columns.
    """
    if not isinstance(lengths, pd.DataFrame):
        known = _lengths(lengths, ratings.index)
        return [("error and length", rank_correlation(_errors(ratings), known, confidence))]
    names = list(lengths.columns)
    if len(names) != 2 or any(name not in ratings.labels for name in names):
        msg = "lengths needs two columns, with the labels of the two answers as names."
        raise UsageError(msg, hint='For example: pd.DataFrame({"A": …, "B": …})')
    one, other = (_lengths(lengths[name], ratings.index) for name in names)
    numbers = [ratings.labels.index(name) for name in names]
    difference = one - other
    longer = np.where(difference > 0, numbers[0], np.where(difference < 0, numbers[1], -1))
    sides = np.zeros(len(ratings.labels) + 1)
    sides[numbers] = 1, -1
    sides[-1] = np.nan
    error = sides[ratings.judge] - row_means(sides[ratings.people])
    return [
        ("longer answer", _preference(ratings, longer, np.array(numbers), confidence)),
        ("error and length", rank_correlation(error, difference, confidence)),
    ]


def rank_correlation(one: Floats, other: Floats, confidence: float) -> Coefficient:
    """
    Return Spearman's rank correlation, with the interval of Bonett and Wright (2000).

    Items with a missing value are left out.
    """
    from scipy.stats import rankdata

    known = np.isfinite(one) & np.isfinite(other)
    n = int(known.sum())
    if n < 4:
        return unknown(n, "fewer than four items have both values")
    ranks = [rankdata(each[known]) for each in (one, other)]
    if any((each == each[0]).all() for each in ranks):
        return unknown(n, "all values are equal")
    value = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    middle = math.atanh(min(max(value, -1 + 1e-12), 1 - 1e-12))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt((1 + value**2 / 2) / (n - 3))
    return Coefficient(value, math.tanh(middle - half), math.tanh(middle + half), n)


def mean_difference(differences: Floats, confidence: float) -> Coefficient:
    """Return the mean of paired differences; missing ones are left out."""
    known = differences[np.isfinite(differences)]
    if not len(known):
        return unknown(0, "no item has labels of both")
    low, high = gap_interval(known, confidence)
    note = "" if math.isfinite(low) else "all differences are equal"
    return Coefficient(float(known.mean()), low, high, len(known), note)


def _preference(
    ratings: Ratings, favoured: NDArray[np.intp], answers: NDArray[np.intp], confidence: float
) -> Coefficient:
    """Return how much more often the judge chooses the favoured answer than people do."""
    has_chosen = (favoured >= 0) & np.isin(ratings.judge, answers)
    by_people = ratings.counts[:, answers].sum(axis=1)
    usable = has_chosen & (by_people > 0)
    if not usable.any():
        return unknown(0, "no item has an answer chosen by both")
    rows = np.flatnonzero(usable)
    people = ratings.counts[rows, favoured[rows]] / by_people[rows]
    chosen = (ratings.judge[rows] == favoured[rows]).astype(np.float64)
    return mean_difference(chosen - people, confidence)


def _errors(ratings: Ratings) -> Floats:
    """
    Return how much the judge's value exceeds the mean of people; NaN if unknown.

    Of labels without an order, it is 1 if the judge differs from most people, and 0 otherwise.
    """
    if ratings.is_ordered or len(ratings.labels) == 2:
        return ratings.valued(ratings.judge) - row_means(ratings.valued(ratings.people))
    known = (ratings.judge >= 0) & (ratings.majority >= 0)
    return np.where(known, (ratings.judge != ratings.majority).astype(np.float64), np.nan)


def row_means(values: Floats) -> Floats:
    """Return the mean of the known values of each row; NaN without one."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    means: Floats = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    return means


def _lengths(values: Any, index: pd.Index[Any]) -> Floats:
    """Return a length for each item; NaN if missing."""
    found = aligned(values, index, "lengths")
    try:
        return np.array([np.nan if each is None else float(each) for each in found], np.float64)
    except (TypeError, ValueError):
        msg = "lengths must be numbers."
        raise UsageError(msg, hint="For example: answers.str.len()") from None
