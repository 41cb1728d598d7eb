"""
The test of the gate: has the mean score over items and repeated answers dropped?

Each item has several stored answers of the baseline and one or more new answers. The statistic is
the mean difference per item, divided by its standard error over the items. Its distribution
without a drop comes from permutations: within each item, which of its answers are the new ones is
drawn again. If nothing has changed, all of these are equally likely, and the error rate is at most
the level for any number of items and any scores; without equal statistics it is the level. If some
items improved and others became worse, the standard error includes it, and the error rate holds
approximately. The items arrive in up to five waves, with a look after each.

Sources: Phipson and Smyth 2010 (p-values of random permutations); Chung and Romano 2013
(studentized permutation tests); Lan and DeMets 1983; Holm 1979.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_magics.evaluations.gate.sequential import drift_for_power, spend

Matrix = NDArray[np.float64]

POWER = 0.8
MAX_LOOKS = 5
# A look with fewer items than this decides almost nothing.
_MIN_WAVE = 20
_PERMUTATIONS = 3999
_SEED = 20240229
# The maximum number of values drawn at the same time, which limits the memory.
_MAX_DRAWN = 2_000_000
# Sums in another order differ by rounding; equal statistics must stay equal.
_DIGITS = 9


def count_looks(items: int) -> int:
    """Return the number of looks for a number of items: at most five, of at least 20 items each."""
    return max(1, min(MAX_LOOKS, items // _MIN_WAVE))


def wave_ends(items: int, looks: int) -> list[int]:
    """Return how many items each look has, for waves of nearly equal size."""
    return [items * (each + 1) // looks for each in range(looks)]


class Looks(NamedTuple):
    """
    The statistics of all looks so far, of the observed answers (row 0) and of permutations.

    ``statistics`` has the shape (1 + permutations, looks); larger values mean a larger drop.
    ``times`` are the shares of the final number of items.
    """

    statistics: Matrix
    times: list[float]

    def rejects(self, alpha: float) -> bool:
        """Whether the observed statistic crosses the boundary of level ``alpha`` at any look."""
        rows = len(self.statistics)
        is_alive = np.ones(rows, np.bool_)
        crossed = 0
        for column, time in zip(self.statistics.T, self.times, strict=True):
            quota = math.floor(spend(alpha, time) * rows + 1e-9) - crossed
            alive = np.sort(column[is_alive])[::-1]
            if quota < 1 or not len(alive):
                continue
            # The largest values that fit into the quota; of equal values all or none.
            bound = alive[quota] if quota < len(alive) else -math.inf
            is_crossing = is_alive & (column > bound)
            if is_crossing[0]:
                return True
            crossed += int(is_crossing.sum())
            is_alive &= ~is_crossing
        return False

    def p_value(self) -> float:
        """Return the smallest level at which the test rejects, to four digits; 1.0 if none does."""
        if not self.rejects(1.0):
            return 1.0
        low, high = 0, 10_000
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.rejects(middle / 10_000) else (middle, high)
        return high / 10_000


def look(
    baseline: Any, new: Any, ends: Sequence[int], final: int, permutations: int = _PERMUTATIONS
) -> Looks:
    """
    Return the statistics of the looks so far.

    Args:
        baseline, new: the scores of each item, (n, repeats), in the order of the waves. NaN is a
            missing answer; an item without a score on either side is left out.
        ends: how many items each look has; the last is n.
        final: the number of items after the last look that is planned.
    """
    stored, fresh = _as_matrix(baseline), _as_matrix(new)
    sums = np.zeros((permutations + 1, len(ends)))
    squares = np.zeros_like(sums)
    counts = np.zeros(len(ends))
    begin = 0
    for position, end in enumerate(ends):
        rows = slice(begin, end)
        drawn = _draw_wave(stored[rows], fresh[rows], permutations, position)
        sums[:, position], squares[:, position], counts[position] = drawn
        begin = end
    sums, squares = sums.cumsum(axis=1), squares.cumsum(axis=1)
    statistics = studentize(sums, squares, counts.cumsum())
    return Looks(statistics, [min(1.0, end / final) for end in ends])


def _as_matrix(values: Any) -> Matrix:
    found = np.asarray(values, np.float64)
    return found if found.ndim == 2 else found.reshape(len(found), 1)


def studentize(sums: Matrix, squares: Matrix, counts: Matrix) -> Matrix:
    """Return minus the mean divided by its standard error; infinite if all differences are equal."""
    n = np.maximum(counts, 1)
    mean = sums / n
    variance = np.maximum(squares / n - mean**2, 0.0).round(12)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = -mean.round(12) / np.sqrt(variance / np.maximum(n - 1, 1))
    rounded: Matrix = np.nan_to_num(found, nan=0.0, posinf=np.inf, neginf=-np.inf).round(_DIGITS)
    return rounded


def _draw_wave(
    stored: Matrix, fresh: Matrix, permutations: int, position: int
) -> tuple[Matrix, Matrix, int]:
    """
    Return the sums and the sums of squares of the differences of one wave, and its items.

    Row 0 is observed, the others are permutations, in which each item draws its new answers.
    """
    sums, squares = np.zeros(permutations + 1), np.zeros(permutations + 1)
    old_counts, new_counts = (~np.isnan(stored)).sum(axis=1), (~np.isnan(fresh)).sum(axis=1)
    is_known = (old_counts > 0) & (new_counts > 0)
    differences = np.nanmean(fresh[is_known], axis=1) - np.nanmean(stored[is_known], axis=1)
    sums[0], squares[0] = differences.sum(), (differences**2).sum()
    values = np.hstack([stored, fresh])
    # The same answers give the same result. The seed does not depend on which answers are new, and
    # equal waves have different seeds.
    key = zlib.crc32(np.sort(values, axis=1).tobytes())
    random = np.random.default_rng([_SEED, position, key])
    lowest, highest = np.nanmin(values[is_known], axis=1), np.nanmax(values[is_known], axis=1)
    # Items with equal answers are zero in every permutation.
    is_open = is_known.copy()
    is_open[is_known] = lowest < highest
    patterns = {
        (int(a), int(b)) for a, b in zip(old_counts[is_open], new_counts[is_open], strict=True)
    }
    for old, new in sorted(patterns):
        rows = values[is_open & (old_counts == old) & (new_counts == new)]
        answers = np.sort(rows[~np.isnan(rows)].reshape(len(rows), old + new), axis=1)
        # Right and wrong answers, and other scores with two values: many items are alike.
        has_two = ((answers == answers[:, :1]) | (answers == answers[:, -1:])).all(axis=1)
        for row, count in zip(
            *np.unique(answers[has_two], axis=0, return_counts=True), strict=True
        ):
            changes, chances = _two_valued(row, new)
            counted = random.multinomial(count, chances, size=permutations).astype(np.float64)
            sums[1:] += counted @ changes
            squares[1:] += counted @ changes**2
        _add_others(sums[1:], squares[1:], answers[~has_two], new, random)
    return sums, squares, int(is_known.sum())


def _two_valued(answers: Matrix, new: int) -> tuple[Matrix, Matrix]:
    """Return the possible differences of an item whose answers have two values, and their chances."""
    low, high, width = answers[0], answers[-1], len(answers)
    highs = int((answers == high).sum())
    picked = np.arange(max(0, new - (width - highs)), min(new, highs) + 1)
    ways = [math.comb(highs, each) * math.comb(width - highs, new - each) for each in picked]
    chosen = low * (new - picked) + high * picked
    changes = chosen / new - (answers.sum() - chosen) / (width - new)
    return changes, np.asarray(ways, np.float64) / sum(ways)


def _add_others(
    sums: Matrix, squares: Matrix, answers: Matrix, new: int, random: np.random.Generator
) -> None:
    """Add the differences of items (items, k) whose answers have any values."""
    chunk = max(1, _MAX_DRAWN // max(1, answers.size))
    for first in range(0, len(sums) if len(answers) else 0, chunk):
        part = slice(first, min(first + chunk, len(sums)))
        drawn = _draw_differences(answers, new, random, part.stop - part.start)
        sums[part] += drawn.sum(axis=1)
        squares[part] += (drawn**2).sum(axis=1)


def _draw_differences(
    answers: Matrix, new: int, random: np.random.Generator, count: int
) -> Matrix:
    """Return differences (count, items), with ``new`` of the answers (items, k) drawn as the new."""
    items, width = answers.shape
    if new == 1:
        chosen = answers[np.arange(items), random.integers(width, size=(count, items))]
    else:
        order = random.random((count, items, width)).argpartition(new - 1, axis=2)[:, :, :new]
        chosen = np.take_along_axis(answers[None], order, axis=2).sum(axis=2)
    rest = answers.sum(axis=1) - chosen
    return np.asarray(chosen / new - rest / (width - new))


def holm_rejects(checks: Sequence[Looks], alpha: float) -> list[bool]:
    """Return which of the checks show a drop, at an error rate of ``alpha`` over all of them."""
    rejected = [False] * len(checks)
    while not all(rejected):
        level = alpha / rejected.count(False)
        found = [
            not done and each.rejects(level) for done, each in zip(rejected, checks, strict=True)
        ]
        if not any(found):
            break
        rejected = [done or each for done, each in zip(rejected, found, strict=True)]
    return rejected


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    The sample that a check needs to find a drop, and the drop that can be seen with a sample.

    Attributes:
        variance: the variance of the answers of one item, averaged over the items.
        stored: stored answers per item that are compared, of the baseline.
        repeats: new answers per item.
        alpha: the one-sided error rate of this check.
        span: the largest possible change of the score of an item.
    """

    variance: float
    stored: int
    repeats: int
    alpha: float = 0.05
    span: float = 1.0
    power: float = POWER

    @property
    def noise(self) -> float:
        """The variance of the difference of an item that did not change."""
        return self.variance * (1 / self.repeats + 1 / self.stored)

    def required_items(self, drop: float) -> int:
        """
        Return the number of items for which a drop of the mean by ``drop`` is found.

        The drop is assumed to be in as few items as possible, for which it is hardest to find.
        """
        spread = self.noise + drop * max(self.span - drop, 0.0)
        items = required_items(drop, spread, alpha=self.alpha, power=self.power)
        for _ in range(3):  # the number of looks depends on the number of items
            looks = count_looks(items)
            items = required_items(drop, spread, alpha=self.alpha, power=self.power, looks=looks)
        return max(items, 2)

    def detectable_drop(self, items: int) -> float:
        """Return the drop of the mean that is found with ``items``; at most ``span``."""
        drift = drift_for_power(self.alpha, self.power, count_looks(items)) ** 2
        root = (drift * self.span) ** 2 + 4 * (items + drift) * drift * self.noise
        return min(self.span, (drift * self.span + math.sqrt(root)) / (2 * (items + drift)))


def required_items(
    drop: float, variance: float, *, alpha: float = 0.05, power: float = POWER, looks: int = 1
) -> int:
    """
    Return the number of paired items for which a drop of the mean is found.

    Args:
        drop: the drop of the mean that must be found.
        variance: the variance of the difference of an item. For right and wrong answers it is the
            share of items that are answered differently, minus ``drop ** 2``.
    """
    return math.ceil(drift_for_power(alpha, power, looks) ** 2 * variance / drop**2)


def mean_variance(scores: Any) -> float:
    """Return the variance of the answers of one item, averaged over items; (n, repeats), ddof 1."""
    values = _as_matrix(scores)
    counts = (~np.isnan(values)).sum(axis=1)
    values, counts = values[counts > 1], counts[counts > 1]
    if not len(values):
        return math.nan
    means = np.nanmean(values, axis=1, keepdims=True)
    return float((np.nansum((values - means) ** 2, axis=1) / (counts - 1)).mean())
