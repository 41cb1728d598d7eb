"""Intervals for a share of a finite population: exact ones, and the score interval of Wilson."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def hypergeometric_interval(yes: int, drawn: int, rows: int, alpha: float) -> tuple[float, float]:
    """
    Return the exact interval for the share of positive rows among ``rows``.

    Both tests at level ``alpha / 2`` are inverted (Clopper and Pearson's construction, with the
    hypergeometric distribution), so that the interval has at least ``1 - alpha`` coverage.

    Args:
        yes: the number of positive rows among those drawn.
        drawn: the number of rows drawn without replacement.
        rows: the number of rows of the population.
        alpha: the probability of an interval that does not contain the share.
    """
    if not drawn:
        return 0.0, 1.0
    no = drawn - yes
    most = _largest(yes, rows - no, partial(_at_most, yes, drawn, rows), alpha / 2)
    # By symmetry: the largest number of negative rows.
    most_no = _largest(no, rows - yes, partial(_at_most, no, drawn, rows), alpha / 2)
    return (rows - most_no) / rows, most / rows


def _largest(low: int, high: int, tail: Callable[[int], float], level: float) -> int:
    """Return the largest number from ``low`` to ``high`` whose decreasing tail exceeds level."""
    while low < high:
        middle = (low + high + 1) // 2
        if tail(middle) > level:
            low = middle
        else:
            high = middle - 1
    return low


def _at_most(yes: int, drawn: int, rows: int, positive: int) -> float:
    """Return the probability of at most ``yes`` positive rows among those drawn."""
    from scipy.special import gammaln

    low = max(0, drawn - (rows - positive))
    if yes < low:
        return 0.0
    found = np.arange(low, yes + 1)
    left = np.array([positive + 1.0, rows - positive + 1.0, rows - drawn + 1.0, drawn + 1.0])
    logs = gammaln(left).sum() - math.lgamma(rows + 1)
    logs = logs - gammaln(
        np.stack(
            [
                found + 1.0,
                positive - found + 1.0,
                drawn - found + 1.0,
                rows - positive - drawn + found + 1.0,
            ]
        )
    ).sum(axis=0)
    return float(np.exp(logs).sum())


def score_interval(
    variance: float, slope: float, curvature: float, z: float
) -> tuple[float, float]:
    """
    Return how far below and above an estimate the values are that a score test accepts.

    The test uses the variance under the hypothesis: ``variance + slope * d - curvature * d ** 2``
    for a value that exceeds the estimate by ``d``. For ``p * (1 - p)`` it is Wilson's interval.

    Args:
        variance: the variance at the estimate.
        slope, curvature: how the variance changes with the value; the curvature is at least 0.
        z: quantile of the normal distribution.
    """
    a = 1 + z * z * curvature
    half_b = z * z * slope / 2
    root = math.sqrt(half_b * half_b + a * z * z * variance)
    return (half_b - root) / a, (half_b + root) / a


def labels_to_halve(
    share: NDArray[np.float64],
    labels: NDArray[np.intp],
    items: NDArray[np.intp],
    is_exact: NDArray[np.bool_],
    alpha: float,
) -> NDArray[np.int64]:
    """
    Return about how many more labels would halve the intervals, for each group.

    For normal intervals it follows from the variance, which is in proportion to ``1 / labels - 1 /
    items``. For exact ones it is found by search, as if the share of positives stayed the same.

    Args:
        share: the estimated shares; NaN counts as 0.5, which needs the most labels.
        labels, items: the number of labels, and of items altogether.
        is_exact: whether the interval is exact.
        alpha: as for `hypergeometric_interval`.
    """
    share = np.clip(np.where(np.isfinite(share), share, 0.5), 0, 1)
    count = np.maximum(labels, 1).astype(np.float64)
    needed = 1 / ((1 / count - 1 / np.maximum(items, 1)) / 4 + 1 / np.maximum(items, 1))
    if is_exact.any():
        goal = _exact_width(share, count, items, alpha) / 2
        low, high = count, np.maximum(items, count)
        for _ in range(math.ceil(math.log2(max(2.0, float(high.max()))))):
            middle = (low + high) / 2
            is_narrow = _exact_width(share, middle, items, alpha) <= goal
            low, high = np.where(is_narrow, low, middle), np.where(is_narrow, middle, high)
        needed = np.where(is_exact, high, needed)
    # Rounding errors must not add a label.
    more = np.ceil(needed - labels - 1e-6).astype(np.int64)
    return np.clip(more, 0, np.maximum(items - labels, 0))


def _exact_width(
    share: NDArray[np.float64],
    labels: NDArray[np.float64],
    items: NDArray[np.intp],
    alpha: float,
) -> NDArray[np.float64]:
    """Return the width of Clopper and Pearson's interval, with the finite population's factor."""
    from scipy.special import betaincinv

    yes, no = share * labels, (1 - share) * labels
    low = np.where(yes > 1e-9, betaincinv(np.maximum(yes, 1e-9), no + 1, alpha / 2), 0.0)
    high = np.where(no > 1e-9, betaincinv(yes + 1, np.maximum(no, 1e-9), 1 - alpha / 2), 1.0)
    left = np.clip(1 - labels / np.maximum(items, 1), 0, 1)
    return (high - low) * np.sqrt(left)
