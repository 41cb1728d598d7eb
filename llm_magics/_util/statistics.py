"""
What can be said of few measurements: intervals, paired tests, and how many more it would take.

Arrays in, numbers out; nothing here knows of frames or models. Needs numpy; the tests need scipy
(extra ``bench``).

Sources: Efron and Tibshirani, *An Introduction to the Bootstrap* (percentile interval); McNemar
1947 in its exact form (binomial, of the pairs that differ); Wilcoxon 1945 (signed ranks, scipy's);
Holm 1979; Connor 1987 (pairs needed for McNemar's test); Wilson 1927; Agresti and Min 2005.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from llm_magics.errors import UsageError

RESAMPLES = 2000
# Of very many values an interval is narrow, and fewer resamples find it.
_MIN_RESAMPLES, _ENOUGH_DRAWN = 200, 10_000_000
# Resampling draws the same every time: a table must not change when it is displayed again.
_SEED = 20240229
# Values drawn at once, so that memory stays bounded.
_MAX_DRAWN = 4_000_000

# The share of true differences that a test shall find.
POWER = 0.8

Statistic = Callable[..., Any]


class Interval(NamedTuple):
    """Where a figure lies, from ``low`` to ``high``; both NaN where that cannot be said."""

    low: float
    high: float


def bootstrap(values: Any, statistic: Statistic, confidence: float = 0.95) -> Interval:
    """
    The interval of ``statistic`` over ``values`` (n,), by the percentiles of resamples.

    Args:
        statistic: of an array along ``axis``, such as `numpy.median`.

    Of fewer than two values nothing can be said.
    """
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if len(known) < 2:
        return Interval(math.nan, math.nan)
    draw = np.random.default_rng(_SEED)
    resampled: list[Any] = []
    left = int(max(_MIN_RESAMPLES, min(RESAMPLES, _ENOUGH_DRAWN / len(known))))
    while left:
        rows = max(1, min(left, _MAX_DRAWN // len(known)))
        resampled.append(
            statistic(known[draw.integers(0, len(known), (rows, len(known)))], axis=1)
        )
        left -= rows
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(resampled), [tail, 1 - tail])
    return Interval(float(low), float(high))


def mean_interval(values: Any, confidence: float = 0.95) -> Interval:
    """
    The interval of a mean (n,).

    Where all values are 0 or 1, Wilson's: of ten wrong answers nobody knows that all are.
    """
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    n = len(known)
    if not n or not np.isin(known, (0, 1)).all():
        return bootstrap(known, np.mean, confidence)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = float(known.mean())
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def gap_interval(gaps: Any, confidence: float = 0.95) -> Interval:
    """
    The interval of a mean of paired differences (n,), by bootstrap.

    Where that has nothing to draw from, for all differ alike: that of Agresti and Min for
    answers that are right or wrong, which is never of no width; for others nothing is said.
    """
    known = np.asarray(gaps, np.float64)
    n = len(known)
    if n and (known != known[0]).any():
        return bootstrap(known, np.mean, confidence)
    if not n or known[0] not in (-1, 0, 1):
        return Interval(math.nan, math.nan)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    won, lost = float((known > 0).sum()) + 0.5, float((known < 0).sum()) + 0.5
    middle = (won - lost) / (n + 2)
    half = z * math.sqrt(won + lost - (won - lost) ** 2 / (n + 2)) / (n + 2)
    return Interval(max(-1.0, middle - half), min(1.0, middle + half))


class Test(NamedTuple):
    """
    A test of a difference: which, its probability, and how many pairs it would need.

    ``direction`` is 1 where by ranks the other is more, -1 where it is less.
    """

    name: str
    p: float
    needed: int | None
    direction: int = 0


def paired_test(one: Any, other: Any, alpha: float = 0.05) -> Test:
    """
    Whether ``other`` differs from ``one``, (n,) each, value by value.

    McNemar's exact test where all values are 0 or 1, else Wilcoxon's of signed ranks.
    ``needed`` is for ``alpha`` and a power of 80 %, taking the difference seen for the true one;
    ``None`` where none was seen.
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    differences = second - first
    if not len(differences):
        return Test("none", math.nan, None)
    is_binary = bool(np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all())
    way = _direction(differences)
    if is_binary:
        return Test("McNemar", _mcnemar(differences), _needed_pairs(differences, alpha), way)
    return Test("Wilcoxon", _wilcoxon(differences), _needed(differences, alpha), way)


def _direction(differences: Any) -> int:
    """By the sum of signed ranks, which is what Wilcoxon's test is of."""
    known = differences[differences != 0]
    sizes = np.abs(known)
    _, places, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - (counts - 1) / 2  # equal ones share the ranks that they take
    return int(np.sign((np.sign(known) * middles[places]).sum())) if len(known) else 0


def _mcnemar(differences: Any) -> float:
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    if not better + worse:
        return 1.0
    return float(_scipy().binomtest(better, better + worse, 0.5).pvalue)


def _wilcoxon(differences: Any) -> float:
    if not differences.any():
        return 1.0
    # Ties are usual in scores: with them scipy takes the normal distribution by itself, or
    # permutations of signs where there are few values.
    return float(_scipy().wilcoxon(differences, zero_method="wilcox").pvalue)


def _least(differences: Any, alpha: float) -> int:
    """So many pairs an exact test needs at least, however clear they are: of those that differ 2 ** (1 - k) <= alpha."""
    share = float((differences != 0).mean())
    return math.ceil((1 - math.log2(alpha)) / share) if share else 0


def _needed_pairs(differences: Any, alpha: float) -> int | None:
    """Connor's number for McNemar's test."""
    share, gap = float((differences != 0).mean()), abs(float(differences.mean()))
    if not gap:
        return None
    found, missed = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(POWER)
    root = found * math.sqrt(share) + missed * math.sqrt(max(0.0, share - gap**2))
    return max(math.ceil((root / gap) ** 2), _least(differences, alpha))


def _needed(differences: Any, alpha: float) -> int | None:
    """That of a paired t-test, over Wilcoxon's efficiency against it (3/π)."""
    gap = abs(float(differences.mean()))
    if not gap or len(differences) < 2:
        return None
    spread = float(differences.std(ddof=1))
    found, missed = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(POWER)
    needed = math.ceil(((found + missed) * spread / gap) ** 2 * math.pi / 3)
    return max(needed, _least(differences, alpha))


def holm(ps: Sequence[float]) -> list[float]:
    """Probabilities corrected for their number (Holm's step-down); NaN stays, and does not count."""
    known = sorted((p, index) for index, p in enumerate(ps) if not math.isnan(p))
    corrected = [math.nan] * len(ps)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[index] = highest
    return corrected


def _scipy() -> Any:
    try:
        from scipy import stats
    except ImportError:
        msg = "scipy is not installed: it has the tests of differences."
        raise UsageError(msg, hint="pip install scipy") from None
    return stats
