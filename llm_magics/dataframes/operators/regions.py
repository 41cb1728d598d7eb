"""Nested regions of rows that a frozen proxy decides, certified by fresh labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.certificates import expected_draws, log_wealth
from llm_magics.dataframes.operators.labelling import LabelledRows, Sampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Returns the losses of rows with labels, for the region of a size.
Losses = Callable[["NDArray[np.intp]", int], "NDArray[np.float64]"]

# The shares of the largest region that the nested regions have.
_SHARES = np.array([0.3, 0.45, 0.6, 0.7, 0.78, 0.85, 0.9, 0.94, 0.97, 1.0])

# The losses that the proxy's own prediction counts for, when observed losses correct it.
_PRIOR_LOSSES = 3.0

# The least number of rows asked between two looks at the certificates.
_MIN_WAVE = 8


class NestedRegions:
    """
    Nested regions of rows, the most certain ones first, whose losses are bounded.

    Attributes:
        path: the rows; a region is a number of rows at the beginning.
        certified: the size of the largest region that is certified.
    """

    def __init__(  # noqa: PLR0913
        self,
        table: LabelledRows,
        path: NDArray[np.intp],
        *,
        predicted: NDArray[np.float64],
        losses: Losses,
        bound: Callable[[int], float],
        delta: float,
        pool: NDArray[np.intp] | None = None,
        shares: NDArray[np.float64] = _SHARES,
    ) -> None:
        """
        Prepare the regions.

        Args:
            table: the labels.
            path: rows without a label, in an order that depends on no label drawn later.
            predicted: the loss that the proxy expects of each, which affects only the power.
            losses: returns the loss in [0, 1] of rows with labels, for the region of a size.
            bound: the smallest sum of losses that is too large, for the region of a size.
            delta: the probability with which a region may be certified wrongly.
            pool: the rows to sample and to sum losses of, for all regions; by default those of
                the region.
            shares: the sizes of the regions, as shares of the path.
        """
        self.path = path
        self.certified = 0
        self._table = table
        self._losses = losses
        self._bound = bound
        self._nats = float(np.log(1 / delta))
        self._predicted = np.concatenate([[0.0], np.cumsum(predicted)])
        sizes = np.unique(np.floor(shares * len(path)).astype(np.int64))
        self._sizes = sizes[sizes > 0]
        self._orders: dict[int, NDArray[np.intp]] = {}
        self._pool = None if pool is None else table.sample_order(pool)
        self._next = 0
        # Bets must not depend on labels drawn later, as bounds may.
        self._expected = [
            float(self._predicted[size] / max(bound(size), 1e-9)) for size in self._sizes.tolist()
        ]

    def certify(self, budget: int | None = None) -> None:
        """
        Draw and ask rows as long as larger regions are worth it.

        Args:
            budget: the number of rows that may be asked, for the largest region; without one, a
                row asked has to save another one.
        """
        start = self._table.calls
        self.advance()
        while self._next < len(self._sizes):
            left = None if budget is None else budget - (self._table.calls - start)
            if left is not None and left <= 0:
                return
            target, draws = self._choose(left)
            if target is None:
                return
            wave = int(max(1, min(draws, max(draws // 3, _MIN_WAVE))))
            self._table.draw(self._order(target), wave)
            self.advance()

    def sampled(self) -> Sampled:
        """Return the rows of the certified region, with a sample of them."""
        region = self.path[: self.certified]
        order = self._table.sample_order(region if self._pool is None else self._pool)
        sample = order[: self._table.drawn(order)]
        return Sampled(region, sample[np.isin(sample, region)], max(len(self._sizes), 1))

    def advance(self) -> None:
        """Certify regions from the smallest that is not certified, until one fails."""
        while self._next < len(self._sizes) and self._wealth(self._next).max() >= self._nats:
            self.certified = int(self._sizes[self._next])
            self._next += 1

    def _order(self, number: int) -> NDArray[np.intp]:
        """Return the rows to sample for a region, in the order of sampling."""
        if self._pool is not None:
            return self._pool
        if number not in self._orders:
            self._orders[number] = self._table.sample_order(self.path[: self._sizes[number]])
        return self._orders[number]

    def _wealth(self, number: int) -> NDArray[np.float64]:
        """Return the logarithm of the martingale of a region after each draw."""
        size = int(self._sizes[number])
        population = len(self._order(number))
        losses = self._drawn_losses(number)
        return log_wealth(losses, population, self._bound(size), self._expected[number])

    def _drawn_losses(self, number: int) -> NDArray[np.float64]:
        order = self._order(number)
        return self._losses(order[: self._table.drawn(order)], int(self._sizes[number]))

    def _choose(self, budget: int | None) -> tuple[int | None, float]:
        """Return the region to draw from next, if any is worth it, and the draws expected."""
        numbers = range(self._next, len(self._sizes))
        sizes = self._sizes[self._next :]
        drawn = [self._drawn_losses(number) for number in numbers]
        counts = np.array([len(each) for each in drawn], np.float64)
        sums = np.array([each.sum() for each in drawn])
        bounds = np.array([self._bound(size) for size in sizes.tolist()])
        wealth = np.array([self._wealth(number)[-1] for number in numbers])
        population = np.array([len(self._order(number)) for number in numbers], np.float64)
        predicted = self._predicted[sizes] / population
        surprise = (sums + _PRIOR_LOSSES) / (predicted * counts + _PRIOR_LOSSES)
        draws = expected_draws(
            population - counts, bounds - sums, predicted * surprise, self._nats - wealth
        )
        # Smaller regions have to be certified first, by those of the same draws that they have.
        share = np.maximum.accumulate(draws / np.maximum(population - counts, 1))
        draws = np.ceil(share * (population - counts))
        saving = sizes - self.certified - draws if budget is None else sizes.astype(np.float64)
        # A region of which every row would be drawn needs no certificate.
        is_possible = draws < population - counts
        if budget is not None:
            is_possible &= draws <= budget
        saving = np.where(is_possible, saving, -1.0)
        best = int(np.argmax(saving))
        return (numbers[best], float(draws[best])) if saving[best] > 0 else (None, 0.0)
