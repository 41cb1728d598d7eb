"""What batch jobs are made of: requests by number, where their results go, and which rows have none yet."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from llm_magics.errors import LLMError
from llm_magics.providers.batches.offline import LiveRequest
from llm_magics.providers.batches.service import BatchResult
from llm_magics.runtime.routing import Route
from llm_magics.usage import Usage

Kind = Literal["chat", "embedding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """
    What became of one result.

    Attributes:
        error: why the row has no answer; ``None`` if the answer is stored. A result that is not
            stored for another reason, such as a full disk, raises an error instead.
        cost_usd: its price at the price of batches; ``None`` if unknown.
        usage: the tokens that the service counted.
    """

    error: LLMError | None = None
    cost_usd: float | None = 0.0
    usage: Usage = field(default_factory=Usage)


class Work(Protocol):
    """
    Requests that are numbered from 0, all for one model.

    Attributes:
        kind: what they ask for.
        route: the provider and the model.
    """

    kind: Kind
    route: Route

    def key(self, number: int) -> bytes:
        """Return the key under which the answer is stored: that of the live call, 32 bytes."""

    async def request(self, number: int) -> LiveRequest:
        """
        Return the request that a live call would send.

        Raises:
            LLMError: there is none, for example because a file cannot be read; its row has the
                error, and the others go on.
        """

    async def accept(self, results: Sequence[tuple[int, BatchResult]]) -> list[Accepted]:
        """
        Store the results under their keys, and return what became of each, in their order.

        The answers are on the disk when this returns. Accepting a result twice is harmless.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """
    Attributes:
        wait: whether to wait until the jobs have ended.
        timeout_s: the longest wait, in seconds.
        is_fresh: whether to submit requests whose answers were read from an ended job before.
    """

    wait: bool = True
    timeout_s: float = 86_400.0
    is_fresh: bool = False


class OpenRows:
    """The rows of a job whose results are not read yet, and their numbers in the work."""

    def __init__(self, numbers: array[int]) -> None:
        self._numbers = array("q", numbers)
        self._count = sum(number >= 0 for number in numbers)

    def __contains__(self, row: int) -> bool:
        return self._numbers[row] >= 0

    def __len__(self) -> int:
        return self._count

    def number(self, row: int) -> int:
        """Return the number in the work of an open row."""
        return self._numbers[row]

    def take(self, row: int) -> int:
        """Return the number in the work of an open row, which is no longer open."""
        number, self._numbers[row] = self._numbers[row], -1
        self._count -= 1
        return number

    def left(self) -> list[int]:
        """Return the open rows."""
        return [row for row, number in enumerate(self._numbers) if number >= 0]
