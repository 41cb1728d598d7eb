"""
Confidence intervals of small samples, paired tests, and the number of pairs that a test needs.

The functions take arrays and return numbers, and are independent of frames and models. Bootstrap,
Wilson's interval, the binomial test and Wilcoxon's test are scipy's (extra ``bench``).

Sources: Efron and Tibshirani, *An Introduction to the Bootstrap* (percentile interval); McNemar
1947 in its exact form (binomial, of the pairs that differ); Wilcoxon 1945 (signed ranks);
Holm 1979; Connor 1987 (pairs needed for McNemar's test); Wilson 1927; Agresti and Min 2005;
Liang and Zeger 1986 (variance of a mean of clusters), with t of one degree of freedom less than clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from llm_magics._util.validation import require_package

# For very many values the interval is narrow, and fewer resamples are sufficient.
_MIN_RESAMPLES, _MAX_RESAMPLES, _ENOUGH_DRAWN = 200, 2000, 10_000_000
# A fixed seed: a table must not change when it is displayed again.
_SEED = 20240229
# The maximum number of values drawn at the same time, which limits the memory.
_MAX_DRAWN = 4_000_000
# The statistical power: the share of true differences that a test should find.
_POWER = 0.8

Statistic = Callable[..., Any]


class Interval(NamedTuple):
    """A confidence interval from ``low`` to ``high``; both are NaN if it is unknown."""

    low: float
    high: float


_UNKNOWN = Interval(math.nan, math.nan)


def require_scipy() -> None:
    """
    Check that intervals and tests can be computed.

    Raises:
        UsageError: scipy is not installed.
    """
    require_package("scipy", "An interval or a test", extra="bench")


def bootstrap(values: Any, statistic: Statistic, confidence: float = 0.95) -> Interval:
    """
    Return the interval of ``statistic`` over ``values`` (n,), from the percentiles of resamples.

    It is unknown for fewer than two values.

    Args:
        statistic: a function of an array along ``axis``, such as `numpy.median`.
    """
    stats = _scipy_stats()
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if len(known) < 2:
        return _UNKNOWN
    found = stats.bootstrap(
        (known,),
        statistic,
        confidence_level=confidence,
        n_resamples=int(max(_MIN_RESAMPLES, min(_MAX_RESAMPLES, _ENOUGH_DRAWN / len(known)))),
        batch=max(1, _MAX_DRAWN // len(known)),
        method="percentile",
        random_state=np.random.default_rng(_SEED),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def mean_interval(values: Any, confidence: float = 0.95) -> Interval:
    """
    Return the confidence interval of the mean of ``values`` (n,).

    If all values are 0 or 1, it is Wilson's interval, which is never a single point: ten wrong
    answers do not prove that all answers are wrong.
    """
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not len(known) or not np.isin(known, (0, 1)).all():
        return bootstrap(known, np.mean, confidence)
    test = _scipy_stats().binomtest(int(known.sum()), len(known))
    found = test.proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def gap_interval(gaps: Any, confidence: float = 0.95) -> Interval:
    """
    Return the confidence interval of the mean of paired differences ``gaps`` (n,), by bootstrap.

    If all differences are equal, resampling has no variation. The interval is then Agresti and
    Min's for differences of -1, 0 or 1 (right and wrong answers), which has a width; for others it
    is unknown.
    """
    known = np.asarray(gaps, np.float64)
    n = len(known)
    if n and (known != known[0]).any():
        return bootstrap(known, np.mean, confidence)
    if not n or known[0] not in (-1, 0, 1):
        return _UNKNOWN
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    won, lost = float((known > 0).sum()) + 0.5, float((known < 0).sum()) + 0.5
    middle = (won - lost) / (n + 2)
    half = z * math.sqrt(won + lost - (won - lost) ** 2 / (n + 2)) / (n + 2)
    return Interval(max(-1.0, middle - half), min(1.0, middle + half))


class Test(NamedTuple):
    """
    The result of a test of a difference: its name, its p-value, and the number of pairs needed.

    ``direction`` is 1 if by ranks the second sample is larger, and -1 if it is smaller.
    """

    name: str
    p: float
    needed: int | None
    direction: int = 0


def paired_test(one: Any, other: Any, alpha: float = 0.05) -> Test:
    """
    Test whether ``other`` differs from ``one``, (n,) each, in pairs.

    It is McNemar's exact test if all values are 0 or 1, and otherwise Wilcoxon's signed-rank test.
    ``needed`` is the number of pairs for ``alpha`` and a power of 80 %, if the observed difference
    is the true one; ``None`` without a difference.
    """
    stats = _scipy_stats()
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    differences = second - first
    if not len(differences):
        return Test("none", math.nan, None)
    known = differences[differences != 0]
    direction = int(np.sign((np.sign(known) * stats.rankdata(np.abs(known))).sum()))
    if np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all():
        p = stats.binomtest(int((known > 0).sum()), len(known)).pvalue if len(known) else 1.0
        return Test("McNemar", float(p), _needed_pairs(differences, alpha), direction)
    # Ties are common in scores. scipy then uses the normal distribution, or permutations of signs
    # if there are few values.
    p = stats.wilcoxon(differences, zero_method="wilcox").pvalue if len(known) else 1.0
    return Test("Wilcoxon", float(p), _needed(differences, alpha), direction)


def _least(differences: Any, alpha: float) -> int:
    """Return the minimum of pairs: enough that the k that differ satisfy 2 ** (1 - k) <= alpha."""
    share = float((differences != 0).mean())
    return math.ceil((1 - math.log2(alpha)) / share) if share else 0


def _needed_pairs(differences: Any, alpha: float) -> int | None:
    """Return the number of pairs that McNemar's test needs, by Connor's formula."""
    share, gap = float((differences != 0).mean()), abs(float(differences.mean()))
    if not gap:
        return None
    found, missed = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(_POWER)
    root = found * math.sqrt(share) + missed * math.sqrt(max(0.0, share - gap**2))
    return max(math.ceil((root / gap) ** 2), _least(differences, alpha))


def _needed(differences: Any, alpha: float) -> int | None:
    """Return the number for a paired t-test, divided by Wilcoxon's relative efficiency (3/π)."""
    gap = abs(float(differences.mean()))
    if not gap or len(differences) < 2:
        return None
    spread = float(differences.std(ddof=1))
    found, missed = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(_POWER)
    needed = math.ceil(((found + missed) * spread / gap) ** 2 * math.pi / 3)
    return max(needed, _least(differences, alpha))


class _ClusteredMean(NamedTuple):
    """The mean of values in clusters, its standard error, and the number of clusters."""

    mean: float
    error: float
    clusters: int


def _clustered_mean(values: Any, clusters: Any) -> _ClusteredMean:
    known = np.asarray(values, np.float64)
    is_known = np.isfinite(known)
    known = known[is_known]
    if not len(known):
        return _ClusteredMean(math.nan, math.nan, 0)
    _, codes = np.unique(np.asarray(clusters, str)[is_known], return_inverse=True)
    mean = float(known.mean())
    sums = np.bincount(codes, known - mean)
    count = len(sums)
    if count < 2:
        return _ClusteredMean(mean, math.nan, count)
    error = math.sqrt(count / (count - 1) * float((sums**2).sum())) / len(known)
    is_constant = bool((known == known[0]).all())  # rounding would leave a tiny error
    return _ClusteredMean(mean, 0.0 if is_constant else error, count)


def clustered_interval(values: Any, clusters: Any, confidence: float = 0.95) -> Interval:
    """
    Return the interval of the mean of ``values`` (n,) that are alike within ``clusters`` (n,).

    It is unknown for fewer than two clusters. If all values are 0, or all are 1, it is Wilson's
    for the number of clusters.
    """
    found = _clustered_mean(values, clusters)
    if found.clusters and found.error == 0 and found.mean in (0, 1):
        return mean_interval(np.full(found.clusters, found.mean), confidence)
    if not found.error > 0:
        return _UNKNOWN
    t = float(_scipy_stats().t.ppf((1 + confidence) / 2, found.clusters - 1))
    return Interval(found.mean - t * found.error, found.mean + t * found.error)


def clustered_gap_interval(gaps: Any, clusters: Any, confidence: float = 0.95) -> Interval:
    """Return the interval of the mean of paired differences that are alike within ``clusters``."""
    found = _clustered_mean(gaps, clusters)
    if found.clusters and found.error == 0:
        return gap_interval(np.full(found.clusters, found.mean), confidence)
    return clustered_interval(gaps, clusters, confidence)


def clustered_test(one: Any, other: Any, clusters: Any, alpha: float = 0.05) -> Test:
    """
    Test whether ``other`` differs from ``one``, (n,) each, in pairs that are alike within clusters.

    It is a t-test of the mean difference with the error of clusters. ``needed`` is the number of
    pairs, in clusters of the same sizes. If all differences are equal, it is the sign test over
    clusters.
    """
    gaps = np.asarray(other, np.float64) - np.asarray(one, np.float64)
    found = _clustered_mean(gaps, clusters)
    if found.clusters < 2:
        return Test("none", math.nan, None)
    direction = int(np.sign(found.mean))
    if not direction:
        return Test("clustered t", 1.0, None)
    if found.error == 0:
        return Test("sign", 2.0 ** (1 - found.clusters), len(gaps), direction)
    t = abs(found.mean) / found.error
    p = 2 * float(_scipy_stats().t.sf(t, found.clusters - 1))
    power = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(_POWER)
    return Test("clustered t", p, math.ceil(len(gaps) * (power / t) ** 2), direction)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down method; NaN values are not counted."""
    known = sorted((p, index) for index, p in enumerate(ps) if not math.isnan(p))
    corrected = [math.nan] * len(ps)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[index] = highest
    return corrected


def _scipy_stats() -> Any:
    require_scipy()
    from scipy import stats

    return stats
