"""The oracle of an operator: the answers to a yes-or-no question that count as right."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.dataframes.reports import RowsEstimate
    from llm_magics.errors import LLMError

# The answers of an oracle.
NO, YES, FAILED = 0, 1, -1

# The item of a row without a question, because all of its values are missing.
NO_ITEM = -1

# Bytes of the digest of an item's content.
DIGEST_BYTES = 16


class Oracle(ABC):
    """
    Yes-or-no answers about the rows of a table: of a model, people, or a function.

    Rows with the same question are one item, which is asked and paid for once. In a ``with`` block,
    all calls of `ask` share one line of progress.

    Attributes:
        name: what gives the answers, for reports.
        items: the item of each row, or `NO_ITEM`; int32, the length of the table.
        digests: a digest of the content of each item, dtype ``V16``.
        may_fail: whether `ask` can return `FAILED`.
        is_cached: whether the answer to each item was stored before.
        calls: the number of items that were sent to a service, or asked of people or a function.
        cached: the number of items whose answer was stored before.
        cost_usd: the cost of ``calls`` in US dollars; ``None`` if unknown.
        errors: the error of each item that failed.
    """

    name: str
    items: NDArray[np.int32]
    digests: NDArray[np.void]
    may_fail: bool
    is_cached: NDArray[np.bool_]
    calls: int
    cached: int
    cost_usd: float | None
    errors: dict[int, LLMError]

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 (not all oracles show progress)
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the line of progress."""

    def expect(self, calls: int) -> None:  # noqa: B027 (not all oracles show progress)
        """Set the number of items that may be asked in total, for the progress."""

    @abstractmethod
    def ask(self, items: NDArray[np.int32]) -> NDArray[np.int8]:
        """
        Return `YES`, `NO` or `FAILED` for each of ``items``.

        An item that was asked before is not asked again.

        Raises:
            LLMError: an error that affects all items.
            KeyboardInterrupt: the user interrupted the call; the answers so far are stored.
        """

    @abstractmethod
    def estimate(
        self, items: NDArray[np.int32], *, with_stored: bool = False
    ) -> RowsEstimate | None:
        """
        Return the estimated cost of asking ``items``; ``None`` if the oracle is free.

        Stored answers are free, unless ``with_stored``, which counts them like others.
        """
