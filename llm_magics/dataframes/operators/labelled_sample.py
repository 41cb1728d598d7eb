"""The rows whose answer is known: what each stands for, and their sums by group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.oracle import FAILED, NO, YES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.dataframes.operators.share_sampling import Population

# The answer about an item that was not asked.
UNKNOWN = -2


@dataclass(frozen=True, eq=False, kw_only=True)
class Labels:
    """
    The answers of an oracle about the items that were drawn.

    Attributes:
        drawn: the rows that were drawn.
        answers: the answer about each item: `YES`, `NO`, `FAILED` or `UNKNOWN`.
        missed: the probability that an item was not asked.
    """

    drawn: NDArray[np.intp]
    answers: NDArray[np.int8]
    missed: NDArray[np.float64]


class LabelledSample:
    """
    The rows with a known answer; those that are copies of a drawn row are known too.

    Attributes:
        population: all rows.
        is_unknown: whether the answer about each row of the population is unknown.
        rows: the rows with a known answer. The other arrays are about these.
        items, groups: the item and the group of each.
        is_answered, is_yes: whether the oracle answered, and with `YES`.
        weight: the number of unknown rows for which each stands: ``(1 - p) / p``, where ``p`` is
            the probability that its item was asked. It is 0 if that was certain.
    """

    def __init__(self, population: Population, labels: Labels) -> None:
        """Find the rows with a known answer."""
        self.population = population
        answers = labels.answers[population.items]
        self.is_unknown = answers == UNKNOWN
        self.rows = np.flatnonzero(~self.is_unknown)
        self.items = population.items[self.rows]
        self.groups = population.groups[self.rows]
        known = answers[self.rows]
        self.is_answered = known != FAILED
        self.is_yes = known == YES
        asked = 1 - labels.missed[self.items]
        self.weight = (1 - asked) / asked
        self._count = len(population.sizes)
        # The rows of an item in a group are known together.
        codes = self.items * self._count + self.groups
        pairs, first, self._pairs = np.unique(codes, return_index=True, return_inverse=True)
        self._pair_groups = pairs % self._count
        self._pair_weight = (self.weight / asked)[first]
        self._pair_is_answered = self.is_answered[first]
        drawn_answers = answers[labels.drawn]
        drawn_groups = population.groups[labels.drawn]
        self.drawn_yes, self.drawn_no = (
            np.bincount(drawn_groups[drawn_answers == answer], minlength=self._count)
            for answer in (YES, NO)
        )

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over the known rows of each group."""
        return _sums(self.groups, values, self._count)

    def sum_squares(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over the items of each group of their squared sums."""
        return self._sum_pairs(self._total(values) ** 2)

    def variance(self, residuals: NDArray[np.float64]) -> NDArray[np.float64]:
        """
        Return the variance of each group's weighted sum of residuals.

        It is Hájek's approximation of the variance of the Horvitz-Thompson estimator, which is
        exact for a simple random sample but for the degrees of freedom.
        """
        return self._sum_pairs(self._pair_weight * self._total(residuals) ** 2)

    def count_items(self) -> NDArray[np.intp]:
        """Return the number of items with an answer in each group."""
        return np.bincount(self._pair_groups[self._pair_is_answered], minlength=self._count)

    def _total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return _sums(self._pairs, values, len(self._pair_groups))

    def _sum_pairs(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return _sums(self._pair_groups, values, self._count)


def _sums(codes: NDArray[np.intp], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return the sum of the values with each code below ``count``."""
    return np.bincount(codes, values, minlength=count).astype(np.float64, copy=False)
