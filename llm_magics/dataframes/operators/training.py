"""The first phase of a cascade: labels that choose what the proxy decides, then a frozen proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from llm_magics.dataframes.operators.calibration import calibrate
from llm_magics.dataframes.operators.labelling import UNKNOWN, LabelledRows
from llm_magics.dataframes.operators.oracle import NO, YES

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The most and the fewest rows of a pilot. In between, it grows with the square root of the rows:
# where the proxy saves most, a pilot that is a share of the table would cost more than the rest.
PILOT, _MIN_PILOT, _PILOT_ROOTS = 200, 10, 0.8


class ScoreModel(Protocol):
    """
    A proxy: it predicts the answers of the oracle.

    Attributes:
        name: what the report calls it.
        learns: whether `fit` has an effect on `predict`, which then returns calibrated values.
    """

    name: str
    learns: bool

    def fit(self, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> None:
        """Learn from rows and their labels, 0 or 1."""
        ...

    def predict(self) -> NDArray[np.float64]:
        """Return a score in [0, 1] for each row of the table."""
        ...


@dataclass(frozen=True, slots=True)
class Ranking:
    """
    The rows without a label, by the frozen or current prediction of the proxy.

    Attributes:
        rows: the rows, by ascending probability; ties are in random order.
        probability: the probability of yes of each.
    """

    rows: NDArray[np.intp]
    probability: NDArray[np.float64]


class Trainer:
    """
    The labels that a proxy learns from, and its predictions.

    Attributes:
        table: the rows and their labels.
        probability: the last prediction for each row of the table.
    """

    def __init__(self, table: LabelledRows, proxy: ScoreModel, rng: np.random.Generator) -> None:
        self.table = table
        self._proxy = proxy
        # Equal scores are in random order, which depends on contents and not on the table's order.
        self._ties = table.order[rng.permutation(len(table))]
        self.probability = np.full(len(table), 0.5)

    def pilot(self, size: int | None = None) -> None:
        """Ask about the first rows of the sample."""
        count = len(self.table)
        default = int(min(PILOT, max(_MIN_PILOT, _PILOT_ROOTS * count**0.5)))
        self.table.draw(self.table.order, min(default if size is None else size, count))

    def rank(self) -> Ranking:
        """Let the proxy learn from all labels, and return the rows without one."""
        labels = self.table.labels
        known = np.flatnonzero((labels == YES) | (labels == NO))
        self._proxy.fit(known, labels[known])
        scores = self._proxy.predict()
        self.probability = (
            scores if self._proxy.learns else calibrate(scores, scores[known], labels[known])
        )
        rows = self._ties[labels[self._ties] == UNKNOWN]
        rows = rows[np.argsort(self.probability[rows], kind="stable")]
        return Ranking(rows, self.probability[rows])

    def known_positives(self) -> int:
        """Return the number of rows with the label yes."""
        return int((self.table.labels == YES).sum())
