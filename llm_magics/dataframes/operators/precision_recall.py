"""A cascade with a guarantee of precision and recall."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llm_magics._util.text import format_percent, pluralize
from llm_magics.dataframes.operators.cascade import Cascade
from llm_magics.dataframes.operators.labelling import LabelledRows
from llm_magics.dataframes.operators.oracle import NO, YES
from llm_magics.dataframes.operators.planning import (
    MARGIN_NATS,
    best_size,
    recall_floor,
    savings,
    smallest_excess,
)
from llm_magics.dataframes.operators.regions import NestedRegions
from llm_magics.dataframes.operators.training import Ranking, ScoreModel

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PrecisionRecallCascade(Cascade):
    """
    A cascade that keeps a share of the positive rows, and of whose rows a share is positive.

    The proxy keeps the rows at the upper end of its scores and drops those at the lower end; each
    end has its own certificate, with half of δ if there are two.
    """

    def __init__(
        self,
        table: LabelledRows,
        proxy: ScoreModel,
        *,
        precision: float,
        recall: float,
        **options: object,
    ) -> None:
        """Prepare the decisions; ``options`` are those of `Cascade`."""
        super().__init__(table, proxy, **options)  # type: ignore[arg-type]
        self._excess = 1 - precision
        self._missing = 1 - recall

    def uncertain(self, ranking: Ranking) -> tuple[NDArray[np.intp], float]:
        low, high, saving = self._plan(ranking)
        middle = slice(low, len(ranking.rows) - high)
        rows, p = ranking.rows[middle], ranking.probability[middle]
        return rows[np.argsort(np.abs(p - 0.5), kind="stable")], saving

    def _plan(self, ranking: Ranking) -> tuple[int, int, float]:
        """Return how many rows at each end to leave to the proxy, and the calls saved."""
        p, count = ranking.probability, len(ranking.rows)
        positives = self.trainer.known_positives() + float(p.sum())
        missed = smallest_excess(self._missing * positives, is_integer=True)
        # False rows may be a share of all that are kept; some positive rows are dropped.
        kept = positives * (1 - self._missing / 2)
        false = smallest_excess(self._excess / (1 - self._excess) * kept, is_integer=True)
        one, half = (np.log(sides / self.delta) + MARGIN_NATS for sides in (1, 2))
        # A single certificate has all of δ.
        low, low_saving = best_size(p, missed, one)
        high, high_saving = best_size(1 - p[::-1], false, one)
        plans = [(low, 0, low_saving), (0, high, high_saving)]
        low_sizes, low_savings = savings(p, missed, half)
        high_sizes, high_savings = savings(1 - p[::-1], false, half)
        total = low_savings[:, None] + high_savings[None, :]
        total[low_sizes[:, None] + high_sizes[None, :] > count] = -np.inf
        best = np.unravel_index(int(np.argmax(total)), total.shape)
        plans.append((int(low_sizes[best[0]]), int(high_sizes[best[1]]), float(total[best])))
        return max(plans, key=lambda plan: plan[2])

    def certify(self, ranking: Ranking) -> None:
        low, high, _ = self._plan(ranking)
        self.table.ask(ranking.rows[low : len(ranking.rows) - high])
        delta = self.delta / max((low > 0) + (high > 0), 1)
        false = self._certify_kept(ranking, high, delta)
        missed, positives = self._certify_dropped(ranking, low, false, delta)
        found = self.table.counted(self.kept.rows, NO)
        kept = self.trainer.known_positives() + int((~self.table.is_known[self.kept.rows]).sum())
        self.bound = {
            "precision": 1 - max(false - found, 0) / max(kept, 1),
            "recall": 1 - missed / max(positives, 1),
        }

    def _certify_kept(self, ranking: Ranking, size: int, delta: float) -> int:
        """Set the rows that are kept without asking about all; return how many may be false."""
        path = ranking.rows[::-1][:size]
        table = self.table

        def allowed(k: int) -> int:
            # Of all rows that are kept, those asked outside of the region included.
            others = self.trainer.known_positives() - table.counted(path[:k], YES)
            return int(self._excess * (k + others) + 1e-9)

        regions = NestedRegions(
            table,
            path,
            predicted=1 - ranking.probability[::-1][:size],
            # A row that fails counts as false, so that the rest is a number of positive rows.
            losses=lambda rows, _: (table.labels[rows] != YES).astype(np.float64),
            bound=lambda k: allowed(k) + 1,
            delta=delta,
        )
        regions.certify()
        self.kept = regions.sampled()
        table.ask(path[regions.certified :])
        return allowed(regions.certified) if regions.certified else 0

    def _certify_dropped(
        self, ranking: Ranking, size: int, false: int, delta: float
    ) -> tuple[int, float]:
        """
        Set the rows that are dropped without asking about all.

        Args:
            ranking: the rows.
            size: the number of rows at its lower end that the plan drops.
            false: the number of kept rows that may be false.
            delta: the level of the certificate.

        Returns:
            how many positive rows may be missed, and the least number of positive rows.
        """
        path = ranking.rows[:size]
        table, kept = self.table, self.kept.rows

        def positives() -> int:
            known = self.trainer.known_positives() - table.counted(kept, YES)
            return known + max(len(kept) - false, table.counted(kept, YES))

        regions = NestedRegions(
            table,
            path,
            predicted=ranking.probability[:size],
            losses=lambda rows, _: (table.labels[rows] == YES).astype(np.float64),
            bound=lambda _: smallest_excess(self._missing * positives(), is_integer=True),
            delta=delta,
        )
        regions.certify()
        self.dropped = regions.sampled()
        allowed = int(self._missing * positives() + 1e-9) if regions.certified else 0
        found = table.counted(self.dropped.rows, YES)
        table.ask(path[regions.certified :])
        return max(allowed - found, 0), positives()

    def reason(self) -> str:
        positives = self.trainer.known_positives()
        misses = int(self._missing * positives + 1e-9)
        share = recall_floor(self.delta, misses)
        return (
            f"With {pluralize(positives, 'positive row')}, {misses} of them may be missed: "
            f"a guarantee of recall must ask {format_percent(share)} of the rows that it drops."
        )
