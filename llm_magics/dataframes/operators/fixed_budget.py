"""Cascades that spend a number of calls: a guarantee of precision or recall, and the best other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.cascade import Cascade
from llm_magics.dataframes.operators.certificates import expected_draws
from llm_magics.dataframes.operators.labelling import UNKNOWN, LabelledRows, Sampled
from llm_magics.dataframes.operators.oracle import FAILED, NO, YES
from llm_magics.dataframes.operators.planning import MARGIN_NATS, smallest_excess
from llm_magics.dataframes.operators.regions import NestedRegions
from llm_magics.dataframes.operators.training import Ranking, ScoreModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The shares of the calls that a proxy learns from: one that learns, and one that is calibrated.
_LEARNING_SHARE, _CALIBRATION_SHARE = 1 / 4, 1 / 40

# The share of the calls left that the plan of a certificate may need, because it may need more.
_PLANNED_SHARE = 0.8

# The number of nested regions. More of them lose less between two.
_REGIONS = 120


class FixedBudget(Cascade):
    """Decisions with a fixed number of calls, and a guarantee of precision or recall."""

    def __init__(
        self,
        table: LabelledRows,
        proxy: ScoreModel,
        *,
        target: float,
        max_calls: int,
        **options: object,
    ) -> None:
        """Prepare the decisions; ``options`` are those of `Cascade`."""
        super().__init__(table, proxy, **options)  # type: ignore[arg-type]
        self._slack = 1 - target
        self._max_calls = max_calls
        self._share = _LEARNING_SHARE if proxy.learns else _CALIBRATION_SHARE

    @property
    def _left(self) -> int:
        """The number of calls left."""
        return max(self._max_calls - self.table.calls, 0)

    def pilot(self) -> None:
        """
        Ask about rows that choose the regions: some at random, others with the highest scores.

        Where positive rows are rare, they are hardly found at random.
        """
        count = max(int(self._max_calls * self._share), 1)
        self.trainer.pilot(count)
        for _ in range(2):
            highest = self.trainer.rank().rows[::-1]
            self.table.ask(highest[: min(count // 2, self._left)])

    def uncertain(self, ranking: Ranking) -> tuple[NDArray[np.intp], float]:
        return ranking.rows[:0], float(len(self.table) - self._max_calls)

    def expected_calls(self, rows: NDArray[np.intp], saving: float) -> int:
        table = self.table
        unknown = len(table.copies(np.flatnonzero(~table.is_known)))
        return min(max(self._max_calls, table.calls), table.calls + unknown)

    def _spend(self, rows: NDArray[np.intp]) -> None:
        """Ask about the first of ``rows`` with the calls that are left."""
        self.table.ask(rows[self.table.labels[rows] == UNKNOWN][: self._left])

    def reason(self) -> str:
        return f"max_calls={self._max_calls:,} is enough for all rows."


class PrecisionBudget(FixedBudget):
    """The most positive rows with a guarantee of precision, for a number of calls."""

    def certify(self, ranking: Ranking) -> None:
        rows, p = ranking.rows[::-1], ranking.probability[::-1]
        size = self._affordable(p)
        path = rows[:size]
        table = self.table

        def losses(some: NDArray[np.intp], _: int) -> NDArray[np.float64]:
            # A row that fails lowers the number of rows, and with it the false ones allowed.
            labels = table.labels[some]
            return np.where(labels == FAILED, self._slack, (labels == NO).astype(np.float64))

        def limit(k: int) -> float:
            others = self.trainer.known_positives() - table.counted(path[:k], YES)
            return self._slack * (k + others)

        regions = NestedRegions(
            table,
            path,
            predicted=1 - p[:size],
            losses=losses,
            bound=lambda k: smallest_excess(limit(k), is_integer=not self.may_fail),
            delta=self.delta,
        )
        regions.certify(self._left)
        self.kept = regions.sampled()
        false = int(limit(regions.certified) + 1e-9) - table.counted(self.kept.rows, NO)
        # The remaining calls find positive rows one by one.
        rest = rows[regions.certified :]
        self._spend(rest)
        self.dropped = Sampled(rest, rest[:0])
        kept = self.trainer.known_positives() + int((~table.is_known[self.kept.rows]).sum())
        self.bound = {"precision": 1 - max(false, 0) / max(kept, 1) if regions.certified else 1.0}

    def _affordable(self, p: NDArray[np.float64]) -> int:
        """Return the largest number of rows whose certificate is within the budget."""
        sizes = np.unique(np.linspace(0, len(p), 2 * _REGIONS + 1).astype(np.int64))[1:]
        if not len(sizes):
            return 0
        mean = np.cumsum(1 - p)[sizes - 1] / sizes
        bounds = np.floor(self._slack * (sizes + self.trainer.known_positives())) + 1
        nats = np.log(1 / self.delta) + MARGIN_NATS
        draws = expected_draws(sizes.astype(np.float64), bounds, mean, nats)
        is_possible = draws <= _PLANNED_SHARE * self._left
        return int(sizes[np.flatnonzero(is_possible)[-1]]) if is_possible.any() else 0


class RecallBudget(FixedBudget):
    """
    The fewest rows with a guarantee of recall, for a number of calls.

    Recall is at least r if the sum over all rows of positive·(dropped - (1 - r)) is at most 0. A
    uniform sample of all rows tests this for each number of rows to drop.
    """

    def certify(self, ranking: Ranking) -> None:
        table, slack = self.table, self._slack
        rows, p = ranking.rows, ranking.probability
        rank = np.empty(len(table), np.int64)
        rank[rows] = np.arange(len(rows))
        known = self.trainer.known_positives()

        def losses(some: NDArray[np.intp], size: int) -> NDArray[np.float64]:
            # The terms of the sum, plus 1 - r so that they are in [0, 1].
            is_positive = table.labels[some] == YES
            return np.where(is_positive, (rank[some] < size).astype(np.float64), slack)

        regions = NestedRegions(
            table,
            rows,
            # The loss of a missed row is bet on as its share of the positive rows.
            predicted=p / max(float(p.sum()) + known, 1e-9) * len(rows),
            losses=losses,
            bound=lambda _: slack * (len(rows) + known) + 1e-9,
            delta=self.delta,
            pool=rows,
            shares=np.linspace(0, 1, _REGIONS + 1)[1:],
        )
        order = table.sample_order(rows)
        self._spend(order)
        regions.advance()
        self.dropped = regions.sampled()
        everything = Sampled(rows, order[: table.drawn(order)], self.dropped.choices)
        is_dropped = np.isin(np.arange(len(table)), self.dropped.rows)
        self.kept = everything.where(~is_dropped)
        is_certain = table.is_known[self.dropped.rows].all()
        self.bound = {"recall": 1.0 if is_certain else 1 - slack}
