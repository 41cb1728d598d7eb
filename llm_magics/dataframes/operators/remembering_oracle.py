"""The base of all oracles: it asks each item once, and remembers the answers and errors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.oracle import FAILED, NO, YES, Oracle
from llm_magics.errors import LLMError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOT_ASKED = -2

# If so many items fail and none succeeds, the cause is not in the items.
_FAILURES = 20

# Records the answer to an item, or its error.
Answer = Callable[[int, bool | LLMError], None]


class RememberingOracle(Oracle):
    """An oracle that asks each item once."""

    def __init__(
        self, items: NDArray[np.int32], digests: NDArray[np.void], count: int | None = None
    ) -> None:
        """
        Remember nothing yet.

        Args:
            items, digests: as for `Oracle`.
            count: the number of items; by default that of ``digests``.
        """
        count = len(digests) if count is None else count
        self.items = items
        self.digests = digests
        self.calls = self.cached = 0
        self.cost_usd: float | None = 0.0
        self.errors: dict[int, LLMError] = {}
        self.is_cached = np.zeros(count, np.bool_)
        self._answers = np.full(count, _NOT_ASKED, np.int8)

    def ask(self, items: NDArray[np.int32]) -> NDArray[np.int8]:
        """
        Return `YES`, `NO` or `FAILED` for each of ``items``.

        Raises:
            LLMError: an error that affects all items; also if the first 20 items fail.
            KeyboardInterrupt: the user interrupted the call; the answers so far are stored.
        """
        new = self.not_asked(items)
        if len(new):
            self._obtain(new, self._record)
            self._check_failures()
        answers: NDArray[np.int8] = self._answers[items]
        return answers

    def not_asked(self, items: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return those of ``items`` that were not asked, each once, in their order."""
        new = items[self._answers[items] == _NOT_ASKED]
        _, first = np.unique(new, return_index=True)
        found: NDArray[np.int32] = new[np.sort(first)]
        return found

    @abstractmethod
    def _obtain(self, items: NDArray[np.int32], record: Answer) -> None:
        """Ask ``items``, which are distinct, and ``record`` each answer when it is known."""

    def _record(self, item: int, answer: bool | LLMError) -> None:
        if isinstance(answer, LLMError):
            self.errors[item] = answer
            self._answers[item] = FAILED
        else:
            self._answers[item] = YES if answer else NO

    def _check_failures(self) -> None:
        """Raise the first error if no item has an answer."""
        enough = min(_FAILURES, len(self._answers))
        if len(self.errors) >= enough and not (self._answers >= 0).any():
            raise next(iter(self.errors.values()))
