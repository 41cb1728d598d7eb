"""
Coefficients of agreement corrected for chance, with confidence intervals.

Cohen's kappa, Fleiss' kappa and Krippendorff's alpha are each ``1 - observed / expected``, where
both are disagreements. The functions take arrays of label numbers or values and are independent of
frames.

The interval is Fay and Feuer's for weighted counts of rare events (gamma distributions), applied to
the ratio of the two disagreements, whose variance follows from the influence of each item (the delta
method; for Cohen's kappa it is the standard error of Fleiss, Cohen and Everitt). It does not exceed
1, and has a width even if no label differs. Its upper end is at least that with one more item, on
which all agree on the label that is farthest from the others: otherwise the intervals of small
samples with a rare label are too low.

Sources: Cohen 1960 and 1968; Fleiss 1971; Krippendorff, *Computing Krippendorff's Alpha-Reliability*,
2011; Fleiss, Cohen and Everitt 1969; Fay and Feuer, *Confidence intervals for directly standardized
rates*, Statistics in Medicine 1997.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.intp]

# The scales of labels, each with the properties of those before it.
Level = Literal["nominal", "ordinal", "interval", "ratio"]
LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval", "ratio")

# How the distance between two labels counts in Cohen's kappa.
Weights = Literal["linear", "quadratic"]

# The most cells of a table of distances that is in memory at one time.
_MAX_CELLS = 4_000_000


class Coefficient(NamedTuple):
    """
    A coefficient of agreement with its interval.

    Attributes:
        value, low, high: the coefficient and its interval; NaN if unknown.
        n: the number of items that it is computed from.
        note: why a number is unknown; empty otherwise.
    """

    value: float
    low: float
    high: float
    n: int
    note: str = ""


def unknown(n: int, note: str) -> Coefficient:
    """Return a coefficient that cannot be computed, and why."""
    return Coefficient(math.nan, math.nan, math.nan, n, note)


def cohen_kappa(
    one: Codes, other: Codes, count: int, weights: Weights | None = None, *, alpha: float = 0.05
) -> Coefficient:
    """
    Return Cohen's kappa of two annotators.

    Args:
        one, other: the number of the label that each gave, from 0, for each item.
        count: the number of labels.
        weights: how a difference of label numbers counts; by default all differences are equal.
        alpha: the probability of an interval that does not contain the true value.
    """
    n = len(one)
    if not n:
        return unknown(0, "no item has a label of both")
    if one[0] == other[0] and (one == one[0]).all() and (other == one[0]).all():
        return unknown(n, "both gave the same label to all items")
    numbers = np.arange(count)
    steps = np.abs(numbers[:, None] - numbers[None, :])
    powers = {None: 0, "linear": 1, "quadratic": 2}
    distances = np.where(steps > 0, steps ** powers[weights], 0).astype(np.float64)
    terms = _cohen_terms(one, other, distances)
    more = _cohen_terms(
        np.append(one, terms.farthest), np.append(other, terms.farthest), distances
    )
    return _coefficient(terms, more, alpha)


def fleiss_kappa(counts: NDArray[np.int64], *, alpha: float = 0.05) -> Coefficient:
    """
    Return Fleiss' kappa of the same number of annotators for each item.

    Args:
        counts: how many annotators gave each label, (items, labels).
        alpha: the probability of an interval that does not contain the true value.
    """
    n = len(counts)
    if not n:
        return unknown(0, "no item has a label of all annotators")
    raters = int(counts[0].sum())
    if raters < 2:
        return unknown(n, "there is only one annotator")
    if (counts.sum(axis=0) > 0).sum() < 2:
        return unknown(n, "only one label was given")
    terms = _fleiss_terms(counts, raters)
    item = np.zeros((1, counts.shape[1]), counts.dtype)
    item[0, terms.farthest] = raters
    return _coefficient(terms, _fleiss_terms(np.concatenate([counts, item]), raters), alpha)


def krippendorff_alpha(
    values: Floats, level: Level = "nominal", *, alpha: float = 0.05
) -> Coefficient:
    """
    Return Krippendorff's alpha.

    Args:
        values: the value that each annotator gave, (items, annotators); NaN if missing. For
            nominal and ordinal labels, their numbers.
        level: the scale of the values, which defines how two of them differ.
        alpha: the probability of an interval that does not contain the true value.
    """
    given = np.isfinite(values)
    values = values[given.sum(axis=1) >= 2]
    given = np.isfinite(values)
    n = len(values)
    if not n:
        return unknown(0, "no item has two labels")
    domain, codes = np.unique(values[given], return_inverse=True)
    if level == "ratio" and domain[0] < 0:
        return unknown(n, "a ratio scale has no values below 0")
    if len(domain) < 2:
        return unknown(n, "only one label was given")
    table = np.full(values.shape, -1, np.intp)
    table[given] = codes
    terms = _krippendorff_terms(table, domain, level)
    # An item with the usual number of labels.
    item = np.full((1, values.shape[1]), -1, np.intp)
    item[0, : int(np.median(given.sum(axis=1)))] = terms.farthest
    return _coefficient(
        terms, _krippendorff_terms(np.concatenate([table, item]), domain, level), alpha
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Terms:
    """
    The terms of ``1 - mean(observed) / expected``.

    Attributes:
        observed: the disagreement of each item.
        expected: the expected disagreement.
        change: the influence of each item on the logarithm of ``expected``, plus any constant.
        step: the expected disagreement of an item in which one label differs.
        farthest: the label whose expected disagreement with the others is largest.
    """

    observed: Floats
    expected: float
    change: Floats
    step: float
    farthest: int

    @property
    def ratio(self) -> float:
        """The observed disagreement, divided by the expected one."""
        return float(self.observed.mean()) / self.expected

    def interval(self, alpha: float) -> tuple[float, float]:
        """Return the interval of the ratio."""
        n, mean = len(self.observed), float(self.observed.mean())
        variance = 0.0
        if mean:
            influence = self.observed / mean - self.change
            variance = self.ratio**2 * float(influence.var(ddof=1)) / n
        # The mean of the disagreements that were seen and one of the expected size: a few may
        # all be small, for example on a ratio scale.
        step = (n * mean + self.step) / (int((self.observed > 0).sum()) + 1)
        return _gamma_interval(self.ratio, variance, step / self.expected / n, alpha)


def _coefficient(terms: _Terms, more: _Terms, alpha: float) -> Coefficient:
    """Return the coefficient; ``more`` are the terms with one more item."""
    n = len(terms.observed)
    if n < 2:
        return Coefficient(1 - terms.ratio, math.nan, math.nan, n, "one item has no interval")
    least, most = terms.interval(alpha)
    least = min(least, more.interval(alpha)[0])
    return Coefficient(1 - terms.ratio, max(1 - most, -1.0), min(1 - least, 1.0), n)


def _gamma_interval(
    value: float, variance: float, step: float, alpha: float
) -> tuple[float, float]:
    """Return Fay and Feuer's interval of a weighted count; ``step`` is the weight of one event."""
    from scipy.stats import gamma

    least = value
    if variance:
        least = gamma.ppf(alpha / 2, value**2 / variance, scale=variance / value)
    above, more = value + step, variance + step**2
    return float(least), float(gamma.ppf(1 - alpha / 2, above**2 / more, scale=more / above))


def _cohen_terms(one: Codes, other: Codes, distances: Floats) -> _Terms:
    rows, columns = (
        np.bincount(each, minlength=len(distances)) / len(one) for each in (one, other)
    )
    chance_rows, chance_columns = distances @ columns, rows @ distances
    expected = float(rows @ chance_rows)
    seen = (rows + columns) > 0
    return _Terms(
        observed=distances[one, other],
        expected=expected,
        change=(chance_rows[one] + chance_columns[other]) / expected,
        step=expected / (1 - float(rows @ columns)),
        farthest=int(np.where(seen, chance_rows + chance_columns, -1).argmax()),
    )


def _fleiss_terms(counts: NDArray[np.int64], raters: int) -> _Terms:
    shares = counts.mean(axis=0) / raters
    expected = 1 - float(shares @ shares)
    same = (counts * (counts - 1)).sum(axis=1) / (raters * (raters - 1))
    return _Terms(
        observed=1 - same,
        expected=expected,
        change=-2 * (counts @ shares) / raters / expected,
        step=2 / raters,
        farthest=int(np.where(shares > 0, shares, 2).argmin()),
    )


def _krippendorff_terms(codes: Codes, domain: Floats, level: Level) -> _Terms:
    """Return the terms for the number of each label, (items, annotators); -1 if missing."""
    n, given = len(codes), codes >= 0
    totals = np.bincount(codes[given], minlength=len(domain)).astype(np.float64)
    scale = _midranks(totals) if level == "ordinal" else domain
    distance = _DISTANCES[level]
    chance = _chance_distances(scale, totals, distance)
    all_pairs, ratings = float(totals @ chance), float(totals.sum())
    by_label = np.where(given, chance[codes], 0.0).sum(axis=1)
    change = 2 * by_label / all_pairs - given.sum(axis=1) / (ratings - 1)
    if level == "ordinal":
        change -= _change_of_ranks(scale, totals, codes)
    return _Terms(
        observed=_within_items(scale[codes], given, distance),
        expected=all_pairs / (ratings - 1) / n,
        change=n * change,
        step=2 * all_pairs / (ratings**2 - float((totals**2).sum())),
        farthest=int(chance.argmax()),
    )


_Distance = Callable[[Any, Any], Any]


def _ratio_distance(one: Floats, other: Floats) -> Floats:
    total = one + other
    share: Floats = np.divide(one - other, total, out=np.zeros_like(total), where=total > 0)
    squares: Floats = share**2
    return squares


def _nominal_distance(one: Floats, other: Floats) -> Floats:
    differs: Floats = (one != other).astype(np.float64)
    return differs


def _squared_distance(one: Floats, other: Floats) -> Floats:
    squares: Floats = (one - other) ** 2
    return squares


# Ordinal labels have the squared distance of their ranks.
_DISTANCES: dict[Level, _Distance] = {
    "nominal": _nominal_distance,
    "ordinal": _squared_distance,
    "interval": _squared_distance,
    "ratio": _ratio_distance,
}


def _midranks(totals: Floats) -> Floats:
    """Return the mean rank of each label, whose differences define the ordinal distance."""
    ranks: Floats = np.cumsum(totals) - totals / 2
    return ranks


def _within_items(values: Floats, given: NDArray[np.bool_], distance: _Distance) -> Floats:
    """Return the sum of distances between the values of each item, divided by their number - 1."""
    total = np.zeros(len(values))
    for one in range(values.shape[1]):
        for other in range(one):
            both = given[:, one] & given[:, other]
            total[both] += 2 * distance(values[both, one], values[both, other])
    per_pair: Floats = total / (given.sum(axis=1) - 1)
    return per_pair


def _chance_distances(scale: Floats, totals: Floats, distance: _Distance) -> Floats:
    """Return the sum of distances from each label to all labels that were given."""
    rows = max(1, _MAX_CELLS // len(scale))
    parts = [
        distance(scale[first : first + rows, None], scale[None, :]) @ totals
        for first in range(0, len(scale), rows)
    ]
    return np.concatenate(parts)


def _change_of_ranks(ranks: Floats, totals: Floats, codes: Codes) -> Floats:
    """Return how each item's labels change the logarithm of the ratio by changing the ranks."""
    given = codes >= 0
    count = given.sum(axis=1)
    at = ranks[codes]
    sums = np.where(given, at, 0.0).sum(axis=1)
    pulls = np.where(given, (count[:, None] * at - sums[:, None]) / (count[:, None] - 1), 0.0)
    within = np.bincount(codes[given], pulls[given], minlength=len(ranks))
    chance = totals * (totals.sum() * ranks - totals @ ranks)
    # Half of the derivatives, divided by half of the sums.
    relative = -chance / float(chance @ ranks)
    if (observed := float(within @ ranks)) > 0:
        relative += within / observed
    # One more label raises the ranks above it by 1, and its own by a half.
    by_label = 2 * (relative.sum() - np.cumsum(relative) + relative / 2)
    change: Floats = np.where(given, by_label[codes], 0.0).sum(axis=1)
    return change
