"""A model cascade: a proxy decides the rows of which it is certain enough, the oracle the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.certificates import expected_draws
from llm_magics.dataframes.operators.labelling import UNKNOWN, LabelledRows
from llm_magics.dataframes.operators.oracle import FAILED, NO, YES
from llm_magics.dataframes.operators.regions import NestedRegions
from llm_magics.dataframes.operators.training import Ranking, ScoreModel, Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The number of sizes of a region that a plan compares.
_GRID = 80

# The least number of rows between two fits of the proxy.
_MIN_BATCH = 16

# What a certificate costs beyond its expectation, in nats.
_MARGIN = 0.3


def smallest_excess(limit: float, *, is_integer: bool) -> float:
    """Return the smallest sum of losses above ``limit``."""
    return float(np.floor(limit + 1e-9) + 1) if is_integer else limit + 1e-9


class Cascade(ABC):
    """
    The decision about each row, by the proxy or the oracle, with a guarantee.

    The proxy learns from a pilot, then from the rows of which it is least certain, until the plan
    leaves all other rows to it. Then it is frozen, and fresh labels certify the regions that it
    decides. The oracle is asked about all rows outside of them.
    """

    def __init__(
        self,
        table: LabelledRows,
        proxy: ScoreModel,
        *,
        delta: float,
        may_fail: bool,
        rng: np.random.Generator,
    ) -> None:
        self.table = table
        self.trainer = Trainer(table, proxy, rng)
        self.delta = delta
        self.may_fail = may_fail

    def run(self) -> NDArray[np.int8]:
        """Return the decision about each row: `YES`, `NO` or `FAILED`."""
        self.trainer.pilot()
        self.pilot_calls = self.table.calls
        ranking = self.trainer.rank()
        while len(uncertain := self.uncertain(ranking)):
            batch = min(len(uncertain), max(_MIN_BATCH, len(uncertain) // 3))
            self.table.ask(uncertain[:batch])
            ranking = self.trainer.rank()
        self.trained_calls = self.table.calls
        decided = (self.trainer.probability >= 0.5).astype(np.int8)
        self.certify(ranking, decided)
        return np.where(self.table.labels == UNKNOWN, decided, self.table.labels)

    @abstractmethod
    def uncertain(self, ranking: Ranking) -> NDArray[np.intp]:
        """Return the rows that the plan does not leave to the proxy, the least certain first."""

    @abstractmethod
    def certify(self, ranking: Ranking, decided: NDArray[np.int8]) -> None:
        """Certify regions of ``ranking``, ask about the other rows, and set ``decided``."""


class AccuracyCascade(Cascade):
    """A cascade whose decisions agree with the oracle's on a share of the rows."""

    def __init__(self, *args, accuracy: float, **options) -> None:
        super().__init__(*args, **options)
        self._tolerance = 1 - accuracy

    def _bound(self) -> float:
        answered = len(self.table) - self.trainer.failures()
        return smallest_excess(self._tolerance * answered, is_integer=not self.may_fail)

    def _path(self, ranking: Ranking) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the rows by descending certainty, and the error expected in each."""
        error = np.minimum(ranking.probability, 1 - ranking.probability)
        by = np.argsort(error, kind="stable")
        return ranking.rows[by], error[by]

    def uncertain(self, ranking: Ranking) -> NDArray[np.intp]:
        path, error = self._path(ranking)
        bounds = np.full(len(path), self._bound())
        size = best_size(error, bounds, np.log(1 / self.delta) + _MARGIN)
        return path[size:][::-1]

    def certify(self, ranking: Ranking, decided: NDArray[np.int8]) -> None:
        path, error = self._path(ranking)
        labels = self.table.labels
        bound = self._bound()

        def losses(rows: NDArray[np.intp], _: int) -> NDArray[np.float64]:
            # A row that fails lowers the number of rows, and with it the errors allowed.
            is_wrong = labels[rows] != decided[rows]
            return np.where(labels[rows] == FAILED, self._tolerance, is_wrong.astype(float))

        regions = NestedRegions(
            self.table, path, predicted=error, losses=losses, bound=lambda _: bound, delta=self.delta
        )
        regions.certify()
        self.table.ask(path[regions.certified :])


def best_size(losses: NDArray[np.float64], bounds: NDArray[np.float64], nats: float) -> int:
    """
    Return the size of the region that saves the most labels.

    Args:
        losses: the expected loss of each row, in the order in which regions grow.
        bounds: the smallest sum of losses that is too large, for each size from 1.
        nats: the logarithm that a certificate has to reach.
    """
    if not len(losses):
        return 0
    sizes, saving = savings(losses, bounds, nats)
    best = int(np.argmax(saving))
    return int(sizes[best]) if saving[best] > 0 else 0


def savings(
    losses: NDArray[np.float64], bounds: NDArray[np.float64], nats: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return sizes of a region, and the labels that each is expected to save."""
    sizes = np.unique(np.linspace(0, len(losses), _GRID + 1).astype(np.int64))[1:]
    mean = np.cumsum(losses)[sizes - 1] / sizes
    draws = expected_draws(sizes.astype(np.float64), bounds[sizes - 1], mean, nats)
    return sizes, sizes - draws


class PrecisionRecallCascade(Cascade):
    """A cascade that keeps a share of the positive rows, and of whose rows a share is positive."""

    def __init__(self, *args, precision: float, recall: float, **options) -> None:
        super().__init__(*args, **options)
        self._excess = 1 - precision
        self._missing = 1 - recall

    def uncertain(self, ranking: Ranking) -> NDArray[np.intp]:
        low, high = self._plan(ranking)
        middle = slice(low, len(ranking.rows) - high)
        rows, p = ranking.rows[middle], ranking.probability[middle]
        return rows[np.argsort(np.abs(p - 0.5), kind="stable")]

    def _plan(self, ranking: Ranking) -> tuple[int, int]:
        """Return how many rows at the lower and at the upper end to leave to the proxy."""
        p, count = ranking.probability, len(ranking.rows)
        if not count:
            return 0, 0
        positives = self.trainer.known_positives() + float(p.sum())
        nats = np.log(2 / self.delta) + _MARGIN
        missed = smallest_excess(self._missing * positives, is_integer=True)
        low_sizes, low = savings(p, np.full(count, missed), nats)
        # With k rows kept unseen, false ones may be a share of all that are kept.
        false = np.full(count, self._excess / (1 - self._excess) * positives * (1 - self._missing / 2))
        false = np.floor(false) + 1 if not self.may_fail else false
        high_sizes, high = savings(1 - p[::-1], false, nats)
        low_sizes, low = np.append(0, low_sizes), np.append(0.0, low)
        high_sizes, high = np.append(0, high_sizes), np.append(0.0, high)
        total = low[:, None] + high[None, :]
        total[low_sizes[:, None] + high_sizes[None, :] > count] = -np.inf
        best = np.unravel_index(int(np.argmax(total)), total.shape)
        return int(low_sizes[best[0]]), int(high_sizes[best[1]])

    def certify(self, ranking: Ranking, decided: NDArray[np.int8]) -> None:
        low, high = self._plan(ranking)
        sides = (low > 0) + (high > 0)
        delta = self.delta / max(sides, 1)
        kept = self._certify_kept(ranking, high, delta)
        self.table.ask(ranking.rows[low : len(ranking.rows) - high])
        decided[kept] = YES
        dropped = self._certify_dropped(ranking, low, len(kept), delta)
        decided[dropped] = NO

    def _certify_kept(self, ranking: Ranking, size: int, delta: float) -> NDArray[np.intp]:
        """Return the rows that may be kept without asking about all of them."""
        path = ranking.rows[::-1][:size]
        table = self.table

        def losses(rows: NDArray[np.intp], _: int) -> NDArray[np.float64]:
            labels = table.labels[rows]
            return np.where(labels == FAILED, self._excess, (labels == NO).astype(float))

        regions = NestedRegions(
            table,
            path,
            predicted=1 - ranking.probability[::-1][:size],
            losses=losses,
            bound=lambda k: smallest_excess(self._allowed(path, k), is_integer=not self.may_fail),
            delta=delta,
        )
        regions.certify()
        table.ask(path[regions.certified :])
        self._false = self._allowed(path, regions.certified)
        return path[: regions.certified]

    def _allowed(self, path: NDArray[np.intp], size: int) -> float:
        """Return how many of the first ``size`` rows of ``path`` may be false."""
        others = self.trainer.known_positives() - self.table.counted(path[:size], YES)
        return self._excess * (size + others)

    def _certify_dropped(
        self, ranking: Ranking, size: int, kept: int, delta: float
    ) -> NDArray[np.intp]:
        """Return the rows that may be dropped without asking about all of them."""
        path = ranking.rows[:size]
        table = self.table
        kept_rows = ranking.rows[::-1][:kept]

        def bound(_: int) -> float:
            known = self.trainer.known_positives() - table.counted(kept_rows, YES)
            positives = known + (kept - self._false if kept else 0)
            return smallest_excess(self._missing * positives, is_integer=True)

        regions = NestedRegions(
            table,
            path,
            predicted=ranking.probability[:size],
            losses=lambda rows, _: (table.labels[rows] == YES).astype(float),
            bound=bound,
            delta=delta,
        )
        regions.certify()
        table.ask(path[regions.certified :])
        return path[: regions.certified]
