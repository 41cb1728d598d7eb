"""A model cascade: a proxy decides the rows of which it is certain enough, the oracle the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.decisions import Decisions, estimate_quality
from llm_magics.dataframes.operators.labelling import UNKNOWN, LabelledRows, Sampled
from llm_magics.dataframes.operators.oracle import FAILED, NO, YES
from llm_magics.dataframes.operators.planning import (
    MARGIN_NATS,
    CascadePlan,
    best_size,
    smallest_excess,
)
from llm_magics.dataframes.operators.regions import NestedRegions
from llm_magics.dataframes.operators.training import Ranking, ScoreModel, Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The least number of rows between two fits of the proxy.
_MIN_BATCH = 16

# Called with the plan after the pilot; raises an error to stop.
Confirm = Callable[[CascadePlan], None]


def _accept(_: CascadePlan) -> None:
    """Accept any plan."""


class Cascade(ABC):
    """
    The decision about each row, by the proxy or the oracle, with a guarantee.

    The proxy learns from a pilot, then from the rows of which it is least certain, until the plan
    leaves all other rows to it. Then it is frozen, and fresh labels certify the regions that it
    decides. The oracle is asked about all rows outside of them.
    """

    def __init__(  # noqa: PLR0913 (the parts of a decision)
        self,
        table: LabelledRows,
        proxy: ScoreModel,
        *,
        delta: float,
        may_fail: bool,
        rng: np.random.Generator,
        confirm: Confirm = _accept,
    ) -> None:
        """
        Prepare the decisions.

        Args:
            table: the rows, and the oracle.
            proxy: predicts the answers of the oracle.
            delta: the probability with which the guarantee may fail.
            may_fail: whether the oracle can fail.
            rng: breaks ties of scores.
            confirm: called with the plan after the pilot, and with later ones.
        """
        self.table = table
        self.trainer = Trainer(table, proxy, rng)
        self.delta = delta
        self.may_fail = may_fail
        self.kept = self.dropped = Sampled.none()
        self.bound: dict[str, float] = {}
        self._confirm = confirm

    def run(self) -> Decisions:
        """Ask the oracle, and return the decisions."""
        self.pilot()
        pilot_calls = self.table.calls
        ranking = self.trainer.rank()
        rows, saving = self.uncertain(ranking)
        self._confirm(self._plan_calls(rows, saving))
        while len(rows):
            # The sizes do not depend on the target, so that another one asks the same rows.
            self.table.ask(rows[: max(_MIN_BATCH, self.table.calls // 4)])
            ranking = self.trainer.rank()
            rows, saving = self.uncertain(ranking)
            self._confirm(self._plan_calls(rows, saving))
        training_calls = self.table.calls
        self.certify(ranking)
        labels = self.table.labels.copy()
        is_asked = labels != UNKNOWN
        for side, label in ((self.kept, YES), (self.dropped, NO)):
            unseen = side.rows[~is_asked[side.rows]]
            labels[unseen] = label
        precision, recall = estimate_quality(
            self.table, self.kept, self.dropped, self.delta, self.trainer.probability
        )
        return Decisions(
            labels=labels,
            is_asked=is_asked,
            probability=self.trainer.probability,
            kept=self.kept,
            dropped=self.dropped,
            pilot_calls=pilot_calls,
            training_calls=training_calls,
            calls=self.table.calls,
            bound={name: float(share) for name, share in self.bound.items()},
            precision=precision,
            recall=recall,
            reason=self.reason() if is_asked.all() else "",
        )

    def _plan_calls(self, rows: NDArray[np.intp], saving: float) -> CascadePlan:
        expected = self.expected_calls(rows, saving)
        return CascadePlan(len(self.table), expected, self.table.calls)

    def expected_calls(self, rows: NDArray[np.intp], saving: float) -> int:
        """
        Return the calls that are expected in total.

        These are fewer than rows where contents are repeated: each is asked once.

        Args:
            rows, saving: what `uncertain` returns.
        """
        table = self.table
        others = np.setdiff1d(np.flatnonzero(~table.is_known), rows)
        # Of the rows that are left to the proxy, certificates draw some at random.
        drawn_share = 1 - min(saving / max(len(others), 1), 1)
        drawn = (1 - (1 - drawn_share) ** table.copies(others)).sum()
        return table.calls + len(table.copies(rows)) + round(float(drawn))

    def pilot(self) -> None:
        """Ask about the rows of the pilot."""
        self.trainer.pilot()

    @abstractmethod
    def uncertain(self, ranking: Ranking) -> tuple[NDArray[np.intp], float]:
        """
        Return what the plan does not leave to the proxy.

        Returns:
            the rows to ask, the least certain first; and the number of rows that the plan does not
            ask.
        """

    @abstractmethod
    def certify(self, ranking: Ranking) -> None:
        """Certify regions of ``ranking``, and set ``kept``, ``dropped`` and ``bound``."""

    def reason(self) -> str:
        """Return why every row was asked."""
        return "The proxy is not certain enough of any rows to save calls."


class AccuracyCascade(Cascade):
    """A cascade whose decisions agree with the oracle's on a share of the rows."""

    def __init__(
        self, table: LabelledRows, proxy: ScoreModel, *, accuracy: float, **options: object
    ) -> None:
        """Prepare the decisions; ``options`` are those of `Cascade`."""
        super().__init__(table, proxy, **options)  # type: ignore[arg-type]
        self._tolerance = 1 - accuracy

    def _limit(self) -> float:
        """Return the number of errors allowed."""
        return self._tolerance * (len(self.table) - self.table.failures)

    def _path(self, ranking: Ranking) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the rows by descending certainty, and the error expected in each."""
        error = np.minimum(ranking.probability, 1 - ranking.probability)
        by = np.argsort(error, kind="stable")
        return ranking.rows[by], error[by]

    def uncertain(self, ranking: Ranking) -> tuple[NDArray[np.intp], float]:
        path, error = self._path(ranking)
        bound = smallest_excess(self._limit(), is_integer=not self.may_fail)
        size, saving = best_size(error, bound, np.log(1 / self.delta) + MARGIN_NATS)
        return path[size:][::-1], saving

    def certify(self, ranking: Ranking) -> None:
        path, error = self._path(ranking)
        table, labels = self.table, self.table.labels
        decided = self.trainer.probability >= 0.5
        limit = self._limit()
        bound = smallest_excess(limit, is_integer=not self.may_fail)
        rank = np.full(len(table), len(table))
        rank[path] = np.arange(len(path))

        def losses(rows: NDArray[np.intp], size: int) -> NDArray[np.float64]:
            # A row that fails lowers the number of rows, and with it the errors allowed.
            is_wrong = (labels[rows] != decided[rows]) & (rank[rows] < size)
            return np.where(labels[rows] == FAILED, self._tolerance, is_wrong.astype(np.float64))

        regions = NestedRegions(
            table,
            path,
            predicted=error,
            losses=losses,
            bound=lambda _: bound,
            delta=self.delta,
            pool=path if self.may_fail else None,
        )
        regions.certify()
        region = regions.sampled()
        table.ask(path[regions.certified :])
        self.kept, self.dropped = region.where(decided), region.where(~decided)
        found = int((losses(region.rows, len(path))[table.is_known[region.rows]] == 1).sum())
        answered = max(len(table) - self.table.failures, 1)
        errors = max(np.floor(limit + 1e-9) - found, 0) if (~table.is_known).any() else 0
        self.bound = {"accuracy": 1 - errors / answered}
