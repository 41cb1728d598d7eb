"""
Expected positives by rank, among the pairs that were not asked.

Ranks are divided into strata whose bounds grow by a constant factor. The share of positives in a
stratum is estimated from the pairs that were drawn at random from it, and from the stratum before:
pairs further down are expected to be positive less often. Estimates affect only the number of
calls, never the promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The first bound of strata, and the factor between bounds.
_FIRST_BOUND, _FACTOR = 128, 2**0.5

# How many draws the expectation from the stratum before counts as.
_WEIGHT = 8.0

# The ratio of the positives of ranks n to 2n and of n/2 to n: before it is known, and its largest
# value. The first counts as so many positives.
_RATIO, _MOST, _RATIO_WEIGHT = 0.25, 1.5, 2.0


def rank_bounds(size: int) -> NDArray[np.int64]:
    """Return the bounds of the strata, from 0 to ``size``."""
    bounds = [0.0, float(_FIRST_BOUND)]
    while bounds[-1] < size:
        bounds.append(bounds[-1] * _FACTOR)
    return np.unique(np.minimum(np.round(bounds), size)).astype(np.int64)


def expected_positives(
    bounds: NDArray[np.int64],
    density: float,
    decay: float,
    ranks: NDArray[np.int64],
    is_positive: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """
    Return the pairs drawn from each stratum, and the positives expected among its other pairs.

    Args:
        bounds: the bounds of strata of consecutive ranks.
        density: the share of positives in the ranks before the first bound.
        decay: the factor by which this share falls from one stratum to the next.
        ranks, is_positive: the ranks of pairs drawn at random from the strata, and their answers.
    """
    stratum = np.searchsorted(bounds, ranks, side="right") - 1
    drawn = np.bincount(stratum, minlength=len(bounds) - 1)
    found = np.bincount(stratum, weights=is_positive, minlength=len(bounds) - 1)
    expected = np.empty(len(bounds) - 1)
    for number, size in enumerate(np.diff(bounds)):
        prior = density * decay
        density = (found[number] + _WEIGHT * prior) / (drawn[number] + _WEIGHT)
        expected[number] = density * (size - drawn[number])
    return drawn, expected


def known_decay(is_positive: NDArray[np.bool_]) -> tuple[float, float]:
    """
    Return the share of positives at the end of the known ranks, and its decay between strata.

    Args:
        is_positive: the answers of the first ranks.
    """
    count = len(is_positive)
    if not count:
        return 1.0, _RATIO**0.5 / _FACTOR
    last = is_positive[count // 2 :]
    before = int(is_positive[count // 4 : count // 2].sum())
    found = int(last.sum())
    ratio = (found + _RATIO * _RATIO_WEIGHT) / (before + _RATIO_WEIGHT)
    # At the end of the last octave the share is below its mean.
    decay = min(ratio, _MOST) ** 0.5 / _FACTOR
    return (found + 0.5) / len(last) * min(1.0, decay**0.5), decay
