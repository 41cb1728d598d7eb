"""Cascades that spend a fixed number of calls: a guarantee of precision or recall, and the best other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.cascade import smallest_excess
from llm_magics.dataframes.operators.certificates import expected_draws, log_evidence
from llm_magics.dataframes.operators.labelling import UNKNOWN, LabelledRows
from llm_magics.dataframes.operators.oracle import FAILED, NO, YES
from llm_magics.dataframes.operators.regions import NestedRegions
from llm_magics.dataframes.operators.training import Ranking, ScoreModel, Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MARGIN = 0.3


class FixedBudget(ABC):
    """Decisions with a fixed number of calls, and a guarantee of precision or recall."""

    def __init__(
        self,
        table: LabelledRows,
        proxy: ScoreModel,
        *,
        target: float,
        delta: float,
        max_calls: int,
        may_fail: bool,
        rng: np.random.Generator,
    ) -> None:
        self.table = table
        self.trainer = Trainer(table, proxy, rng)
        self.slack = 1 - target
        self.delta = delta
        self.max_calls = max_calls
        self.may_fail = may_fail

    @property
    def left(self) -> int:
        """The number of calls left."""
        return self.max_calls - self.table.calls

    def run(self) -> NDArray[np.int8]:
        """Return the decision about each row: `YES`, `NO` or `FAILED`."""
        self._train()
        decided = np.full(len(self.table), NO, np.int8)
        if self.left > 0 and not self.table.is_known.all():
            self.certify(self.trainer.rank(), decided)
        return np.where(self.table.labels == UNKNOWN, decided, self.table.labels)

    def _train(self) -> None:
        """Label rows that choose the regions: some at random, others of the highest scores."""
        share = self.max_calls // 20
        self.trainer.pilot(share)
        for _ in range(2):
            ranking = self.trainer.rank()
            # Where positives are rare, they are hardly found elsewhere.
            self.table.ask(ranking.rows[::-1][: share // 2])

    @abstractmethod
    def certify(self, ranking: Ranking, decided: NDArray[np.int8]) -> None:
        """Certify regions of ``ranking``, and set ``decided``."""


class PrecisionBudget(FixedBudget):
    """The most rows with a guarantee of precision, for a fixed number of calls."""

    def certify(self, ranking: Ranking, decided: NDArray[np.int8]) -> None:
        rows, p = ranking.rows[::-1], ranking.probability[::-1]
        size = self._affordable(p)
        path = rows[:size]
        table = self.table

        def losses(some: NDArray[np.intp], _: int) -> NDArray[np.float64]:
            labels = table.labels[some]
            return np.where(labels == FAILED, self.slack, (labels == NO).astype(float))

        def bound(k: int) -> float:
            others = self.trainer.known_positives() - table.counted(path[:k], YES)
            return smallest_excess(self.slack * (k + others), is_integer=not self.may_fail)

        regions = NestedRegions(
            table, path, predicted=1 - p[:size], losses=losses, bound=bound, delta=self.delta
        )
        regions.certify(value=np.inf, budget=self.left)
        kept = path[: regions.certified]
        decided[kept] = YES
        # What is left finds positives one by one.
        rest = rows[regions.certified :]
        table.ask(rest[table.labels[rest] == UNKNOWN][: self.left])

    def _affordable(self, p: NDArray[np.float64]) -> int:
        """Return the largest number of rows whose certificate is within the budget."""
        sizes = np.unique(np.linspace(0, len(p), 161).astype(np.int64))[1:]
        false = np.cumsum(1 - p)[sizes - 1]
        known = self.trainer.known_positives()
        bounds = np.floor(self.slack * (sizes + known)) + 1
        nats = np.log(1 / self.delta) + _MARGIN
        draws = expected_draws(sizes.astype(float), bounds, false / sizes, nats)
        is_possible = draws <= 0.8 * self.left
        return int(sizes[np.flatnonzero(is_possible)[-1]]) if is_possible.any() else int(sizes[0])


class RecallBudget(FixedBudget):
    """The fewest rows with a guarantee of recall, for a fixed number of calls."""

    def certify(self, ranking: Ranking, decided: NDArray[np.int8]) -> None:
        table, slack = self.table, self.slack
        rows, p = ranking.rows, ranking.probability
        decided[:] = YES
        rank = np.empty(len(table), np.int64)
        rank[rows] = np.arange(len(rows))
        known = self.trainer.known_positives()

        # Recall is at least 1 - slack if the sum over all rows of positive x (dropped - slack) is
        # at most 0. Losses are these terms plus slack, which are in [0, 1].
        def losses(some: NDArray[np.intp], size: int) -> NDArray[np.float64]:
            is_positive = table.labels[some] == YES
            return np.where(is_positive, (rank[some] < size).astype(float), slack)

        share = np.linspace(0, 1, 121)[1:]
        regions = NestedRegions(
            table,
            rows,
            predicted=p / max(float(p.sum()) + known, 1e-9) * len(rows),
            losses=losses,
            bound=lambda _: slack * (len(rows) + known) + 1e-9,
            delta=self.delta,
            pool=rows,
            shares=share,
        )
        table.draw(table.sample_order(rows), self.left)
        regions.advance()
        decided[rows[: regions.certified]] = NO
