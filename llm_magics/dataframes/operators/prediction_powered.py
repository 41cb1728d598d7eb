"""
Estimates of the share of positive rows in groups, from labels of some rows and predictions of all.

The estimator is the difference estimator of survey sampling with cross-fitted predictions, also
known as prediction-powered inference (Angelopoulos, Duchi and Zrnic, PPI++, arXiv 2311.01453; Zrnic
and Candès, cross-prediction, arXiv 2309.16598). The population is the table: labelled rows are
known, and only the share of the other rows is estimated.

If at least `NORMAL_COUNT` positives and as many negatives are among the labels of a group, its
interval is a score interval (Wilson) with the variance that predictions leave, and a correction for
skewness. Otherwise it is the exact interval of the rows drawn, which uses no predictions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.finite_population import (
    hypergeometric_interval,
    score_interval,
)
from llm_magics.dataframes.operators.labelled_sample import LabelledSample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.dataframes.operators.labelled_sample import Labels
    from llm_magics.dataframes.operators.share_sampling import Population

# Positives, and negatives, among the labels that the normal approximation needs at 95 %.
NORMAL_COUNT = 15

# The quantile of the normal distribution for 95 %.
_Z95 = NormalDist().inv_cdf(0.975)

# From this part of the variance on, predictions are too weak to smooth the distribution of a count.
_UNEXPLAINED = 0.7

# The slope of a group is combined with that of all groups, as if the latter came from this number
# of its labels.
_PRIOR_LABELS = 30


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions:
    """
    Predictions of the answers, larger where ``YES`` is more likely; on any scale.

    Attributes:
        values: float, (folds, rows). A fold's predictions come from labels of the other folds.
        folds: the fold of each item. A fixed proxy has one fold.
    """

    values: NDArray[np.float64]
    folds: NDArray[np.intp]


@dataclass(frozen=True, eq=False, kw_only=True)
class Shares:
    """
    The estimates, an array each with a value for each group.

    Attributes:
        share, low, high: the estimate and its interval. Without a label, the estimate is NaN.
        is_exact: whether the interval is exact.
        labels: the number of items with an answer.
        variance_ratio: the variance that predictions leave, as a part of that without them; NaN
            without labels.
    """

    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    is_exact: NDArray[np.bool_]
    labels: NDArray[np.intp]
    variance_ratio: NDArray[np.float64]

    @property
    def width(self) -> NDArray[np.float64]:
        """The widths of the intervals."""
        return self.high - self.low


def estimate_shares(
    population: Population, labels: Labels, predictions: Predictions | None, alpha: float
) -> Shares:
    """
    Return the share of positive rows among those that can be answered, for each group.

    Args:
        population: the rows and their groups.
        labels: the answers.
        predictions: predictions for all rows; ``None`` uses labels alone.
        alpha: the probability that the interval of a group does not contain its share.
    """
    sample = LabelledSample(population, labels)
    z = NormalDist().inv_cdf(1 - alpha / 2)
    unknown = _estimate_unknown(sample, predictions, z)
    intervals = [_interval(unknown, each, alpha, z) for each in range(len(population.sizes))]
    return Shares(
        share=np.array([each.share for each in intervals]),
        low=np.array([each.low for each in intervals]),
        high=np.array([each.high for each in intervals]),
        is_exact=np.array([each.is_exact for each in intervals], np.bool_),
        labels=sample.count_items(),
        variance_ratio=unknown.variance_ratio,
    )


def needed_count(alpha: float) -> float:
    """Return the positives, and negatives, among the labels that the normal approximation needs."""
    return NORMAL_COUNT * max(1.0, (NormalDist().inv_cdf(1 - alpha / 2) / _Z95) ** 2)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Unknown:
    """
    Estimates of the unknown rows, an array each with a value for each group.

    Attributes:
        yes, no: rows known to be positive or negative.
        rows: rows without a known answer.
        answerable: the estimated number of these that the oracle can answer.
        drawn_yes, drawn_no: rows drawn, by answer.
        effective: the number of labels without duplicates that would tell as much.
        mean: the share of positives among the labels, with their weights.
        share, variance: the estimated share of the unknown rows, and its variance.
        skew: the third moment of the residuals, divided by the second.
        variance_ratio: as in `Shares`.
    """

    yes: NDArray[np.float64]
    no: NDArray[np.float64]
    rows: NDArray[np.float64]
    answerable: NDArray[np.float64]
    drawn_yes: NDArray[np.intp]
    drawn_no: NDArray[np.intp]
    effective: NDArray[np.float64]
    mean: NDArray[np.float64]
    share: NDArray[np.float64]
    variance: NDArray[np.float64]
    skew: NDArray[np.float64]
    variance_ratio: NDArray[np.float64]


def _estimate_unknown(
    sample: LabelledSample, predictions: Predictions | None, z: float
) -> _Unknown:
    """Estimate the share of the unknown rows of each group, and its variance."""
    answered, groups = sample.weight * sample.is_answered, sample.groups
    total = sample.sum(answered)
    rows = sample.population.sizes - sample.sum(np.ones(len(sample.rows)))
    with np.errstate(invalid="ignore", divide="ignore"):  # groups without labels, or complete ones
        mean = sample.sum(answered * sample.is_yes) / total
        effective = total**2 / sample.sum_squares(answered)
        answerable = rows * total / sample.sum(sample.weight)
        # How much each answer exceeds the mean. Rows that the oracle cannot answer do not count.
        above = np.where(sample.is_answered, sample.is_yes - mean[groups], 0.0)
        explained, is_used = _explained(sample, predictions, above)
        shift = sample.sum(sample.weight * explained) / total
        residuals = above - explained + np.where(sample.is_answered, shift[groups], 0.0)
        alone = sample.variance(above) / np.maximum(effective - 1, 1)
        variance = sample.variance(residuals) / np.maximum(effective - 1 - is_used, 1)
        ratio = np.where(alone > 0, variance / alone, 1.0)
        # As far as predictions have reduced the variance, it is estimated (as in Student's
        # distribution), the slope has an error, and wrong predictions may have been missed.
        estimated = ratio * ((z * z + 1) / (2 * np.maximum(effective - 2, 1)) + 1 / effective)
        missed = _divide(_rare_errors(sample, residuals, z), effective * mean * (1 - mean))
        increase = (estimated + missed) * (1 - np.minimum(ratio, 1))
        squares = sample.sum(answered * residuals**2)
        cubes = sample.sum(answered * residuals**3)
    return _Unknown(
        yes=sample.sum(sample.is_yes.astype(np.float64)),
        no=sample.sum((sample.is_answered & ~sample.is_yes).astype(np.float64)),
        rows=rows,
        answerable=answerable,
        drawn_yes=sample.drawn_yes,
        drawn_no=sample.drawn_no,
        effective=effective,
        mean=mean,
        share=mean - shift,
        variance=_divide((variance + increase * alone) * effective, answerable**2),
        skew=_divide(cubes, squares),
        variance_ratio=ratio + increase,
    )


def _divide(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quotients; 0 where the second number is 0 or NaN."""
    return np.divide(one, other, out=np.zeros_like(one), where=other > 0)


def _explained(
    sample: LabelledSample, predictions: Predictions | None, above: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """
    Return the part of each answer that predictions explain, and whether a group uses them.

    A prediction counts as its difference from the mean of the group's unknown rows, so that the sum
    over these is known to be 0. The factor is the slope of the answers (the power tuning of PPI++),
    at least 0. Groups with few labels share the slope of all groups.
    """
    population = sample.population
    count = len(population.sizes)
    explained = np.zeros(len(sample.rows))
    if predictions is None:
        return explained, np.zeros(count, np.bool_)
    unknown = np.flatnonzero(sample.is_unknown)
    unknown_groups = population.groups[unknown]
    unknown_counts = np.maximum(np.bincount(unknown_groups, minlength=count), 1)
    folds = predictions.folds[sample.items]
    for fold, values in enumerate(predictions.values):
        means = np.bincount(unknown_groups, values[unknown], minlength=count) / unknown_counts
        here = np.flatnonzero(folds == fold)
        explained[here] = values[sample.rows[here]] - means[sample.groups[here]]
    # Weights are relative to their mean in the group.
    labels = np.maximum(sample.sum(np.ones(len(sample.rows))), 1)
    relative = sample.weight * _divide(labels, sample.sum(sample.weight))[sample.groups]
    inner = explained - (sample.sum(relative * explained) / labels)[sample.groups]
    common, spread = sample.sum(relative * inner * above), sample.sum(relative * inner**2)
    if spread.sum() <= 1e-12 * (explained**2).sum():  # constant predictions
        return np.zeros_like(explained), np.zeros(count, np.bool_)
    prior = _PRIOR_LABELS * spread.sum() / labels.sum()
    slopes = (common + prior * common.sum() / spread.sum()) / (spread + prior)
    slopes = np.maximum(slopes, 0.0)
    return slopes[sample.groups] * explained, slopes > 0


def _rare_errors(
    sample: LabelledSample, residuals: NDArray[np.float64], z: float
) -> NDArray[np.float64]:
    """
    Return what to add to a sum of squared residuals for wrong predictions too rare to be seen.

    The predictions of a good proxy may be right for all labels, which then seem to have no
    variance, and wrong for some unknown rows. So ``z ** 2 / 2`` more labels are assumed to
    contradict their prediction, as Agresti and Coull do for a share.
    """
    weight = sample.weight * sample.is_answered
    added = sample.sum(weight * np.maximum(0, 1 - 2 * np.abs(residuals)))
    return z * z / 2 * added / sample.sum(weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interval:
    share: float
    low: float
    high: float
    is_exact: bool


def _interval(unknown: _Unknown, group: int, alpha: float, z: float) -> _Interval:
    """Return the estimate and the interval of a group."""
    yes, no, rows = (float(each[group]) for each in (unknown.yes, unknown.no, unknown.rows))
    if not rows:
        share = yes / (yes + no) if yes + no else math.nan
        return _Interval(share=share, low=share, high=share, is_exact=True)
    # The unknown rows are at most all positive, or all negative.
    least, most = yes / (yes + no + rows), 1 - no / (yes + no + rows)
    drawn_yes, drawn_no = int(unknown.drawn_yes[group]), int(unknown.drawn_no[group])
    share, answerable = float(unknown.share[group]), float(unknown.answerable[group])
    if not math.isfinite(share):  # all labels are about rows that were certain to be drawn
        share = drawn_yes / (drawn_yes + drawn_no) if drawn_yes + drawn_no else math.nan
        answerable = rows

    def of_group(of_unknown: float) -> float:
        return (yes + answerable * of_unknown) / (yes + no + answerable)

    drawn = drawn_yes + drawn_no
    mean, effective = float(unknown.mean[group]), float(unknown.effective[group])
    count, needed = effective * min(mean, 1 - mean), needed_count(alpha)
    is_normal = count >= needed - 1e-9  # not for NaN
    is_weak = bool(unknown.variance_ratio[group] > _UNEXPLAINED) and count < 2 * needed
    exact = math.nan, math.nan
    if is_weak or not is_normal:
        exact = hypergeometric_interval(drawn_yes, drawn, round(yes + no + rows), alpha)
    low, high = exact
    if is_normal:
        below, above = _accepted(unknown, group, z)
        low, high = of_group(share + below), of_group(share + above)
        # Labels alone: shares with fewer expected positives or negatives are tested exactly.
        if exact[0] * drawn < needed:  # not for NaN
            low = min(low, exact[0])
        if (1 - exact[1]) * drawn < needed:
            high = max(high, exact[1])
    low, high = (min(max(end, least), most) for end in (low, high))
    estimate = of_group(share)
    if math.isfinite(estimate):
        estimate = min(max(estimate, low), high)
    return _Interval(share=estimate, low=low, high=high, is_exact=not is_normal)


def _accepted(unknown: _Unknown, group: int, z: float) -> tuple[float, float]:
    """Return how far below and above the estimated share of the unknown rows the interval ends."""
    effective, mean = float(unknown.effective[group]), float(unknown.mean[group])
    variance, skew = float(unknown.variance[group]), float(unknown.skew[group])
    left = float(unknown.answerable[group])
    left /= effective + left  # the part of the population that the unknown rows are
    alone = mean * (1 - mean)
    slope = variance / (alone * float(unknown.variance_ratio[group])) * left * skew
    below, above = score_interval(variance, slope, variance / alone * left**2, z)
    # The first term of Edgeworth's series, because the distribution is not symmetric.
    shift = skew / effective * (z * z - 1) / 6 * (2 * left - 1) / left
    return below - shift, above - shift
