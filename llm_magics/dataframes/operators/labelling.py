"""The labels of rows while an operator asks for them, and samples from regions of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.oracle import FAILED

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The label of a row that has not been asked.
UNKNOWN = -2

# Asks the oracle about rows. Rows with the same content may be answered by one call.
AskRows = Callable[["NDArray[np.intp]"], "NDArray[np.int8]"]


@dataclass(frozen=True, slots=True)
class Sampled:
    """
    Rows that the proxy decided, and a random sample of them that the oracle answered.

    Attributes:
        rows: the rows, those of the sample included.
        sample: some of them, in random order.
        choices: the number of sets of rows among which the sample chose this one.
    """

    rows: NDArray[np.intp]
    sample: NDArray[np.intp]
    choices: int = 1

    @classmethod
    def none(cls) -> Sampled:
        """Return no rows."""
        return cls(np.empty(0, np.intp), np.empty(0, np.intp))

    def where(self, condition: NDArray[np.bool_]) -> Sampled:
        """Return the rows for which ``condition``, an array over the table, holds."""
        return Sampled(
            self.rows[condition[self.rows]], self.sample[condition[self.sample]], self.choices
        )


class LabelledRows:
    """
    Rows and their labels: yes, no, failed, or not asked yet.

    Attributes:
        labels: the label of each row, int8.
        place: the place of each row in the order of sampling.
        calls: the number of items asked.
    """

    def __init__(self, order: NDArray[np.intp], items: NDArray[np.int32], ask: AskRows) -> None:
        self._ask = ask
        self.order = order
        self.labels = np.full(len(order), UNKNOWN, np.int8)
        self.place = np.empty(len(order), np.intp)
        self.place[order] = np.arange(len(order))
        self.calls = 0
        self._items = items
        # The rows of each item, to label all copies of a content at once.
        self._by_item = np.argsort(items, kind="stable")
        self._starts = np.searchsorted(items[self._by_item], np.arange(items.max(initial=-1) + 2))
        self._has_copies = len(self._starts) - 1 < len(items)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Whether each row was asked, also if its oracle failed."""
        return np.asarray(self.labels != UNKNOWN)

    def ask(self, rows: NDArray[np.intp]) -> None:
        """Ask about ``rows`` that are not known; copies of their contents get the same label."""
        items, first = np.unique(self._items[rows], return_index=True)
        is_new = self.labels[rows[first]] == UNKNOWN
        rows, items = rows[first[is_new]], items[is_new]
        if not len(rows):
            return
        # In the order of sampling, so that an interrupt leaves the first ones answered.
        by_place = np.argsort(self.place[rows])
        rows, items = rows[by_place], items[by_place]
        answers = self._ask(rows)
        self.calls += len(rows)
        self.labels[rows] = answers
        if self._has_copies:
            for item, answer in zip(items.tolist(), answers.tolist(), strict=True):
                copies = self._by_item[self._starts[item] : self._starts[item + 1]]
                self.labels[copies] = answer

    def sample_order(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return ``rows`` in the order of sampling: a random permutation of them."""
        return rows[np.argsort(self.place[rows])]

    def drawn(self, ordered: NDArray[np.intp]) -> int:
        """Return how many rows at the beginning of ``ordered`` are known."""
        known = self.labels[ordered] != UNKNOWN
        return len(ordered) if known.all() else int(np.argmin(known))

    def draw(self, ordered: NDArray[np.intp], count: int) -> None:
        """Ask about the next ``count`` unknown rows of ``ordered``."""
        unknown = ordered[self.labels[ordered] == UNKNOWN]
        self.ask(unknown[:count])

    def counted(self, rows: NDArray[np.intp], label: int) -> int:
        """Return the number of ``rows`` with ``label``."""
        return int((self.labels[rows] == label).sum())

    def copies(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return how many of ``rows`` each of their items has."""
        return np.unique(self._items[rows], return_counts=True)[1]

    @property
    def failures(self) -> int:
        """The number of rows whose oracle failed."""
        return int((self.labels == FAILED).sum())
