"""Options of an embedding call, and its results: a vector or an error for each text; throughput."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from llm_magics.errors import ProviderError, UsageError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.errors import LLMError

    Floats = NDArray[np.float32]

# The outcomes of a text.
PENDING, OK, TRUNCATED, AVERAGED, FAILED = range(5)
OUTCOMES = ("pending", "ok", "truncated", "averaged", "failed")


class EmbeddingResults:
    """
    The vectors of ``count`` texts; ``matrix`` has a row for each, NaN until it is computed.

    ``is_cached`` marks those that were already stored and are free.
    """

    def __init__(self, count: int, texts: Sequence[str] = ()) -> None:
        self._texts = texts
        self.outcomes = np.full(count, PENDING, np.uint8)
        self.is_cached = np.zeros(count, bool)
        self.matrix: Floats = np.empty((count, 0), np.float32)
        self.errors: dict[int, LLMError] = {}

    @property
    def dimensions(self) -> int:
        """Of each vector; 0 before there is one."""
        return int(self.matrix.shape[1])

    @property
    def pending(self) -> list[int]:
        """The positions of the texts that have no outcome yet."""
        return [int(position) for position in np.flatnonzero(self.outcomes == PENDING)]

    def count(self, *outcomes: int) -> int:
        """Return how many texts have one of these ``outcomes``."""
        return int(np.isin(self.outcomes, outcomes).sum())

    def store_cached(self, found: NDArray[np.bool_], matrix: Floats) -> None:
        """Take the stored rows of a ``matrix`` that has a row for each text."""
        if not found.any():
            return
        self.matrix = matrix
        self.outcomes[found] = OK
        self.is_cached[found] = True

    def store(self, positions: Sequence[int], rows: Floats, outcome: int = OK) -> list[int]:
        """
        Store the ``rows`` of the texts at ``positions``; return the positions with usable vectors.

        Raises:
            ProviderError: they are of another length than those before.
        """
        good = is_usable(rows)
        for position in np.asarray(positions)[~good].tolist():
            self.fail(position, self._unusable(position))
        if not good.any():
            return []
        if not self.dimensions:
            self.matrix = np.full((len(self.outcomes), rows.shape[1]), np.nan, np.float32)
        if rows.shape[1] != self.dimensions:
            msg = f"Received vectors of {rows.shape[1]} dimensions after vectors of {self.dimensions}."
            hint = "The model behind this name may have changed. The vectors received so far are stored; run it again."
            raise ProviderError(msg, hint=hint)
        stored = np.asarray(positions)[good]
        self.matrix[stored] = rows[good]
        self.outcomes[stored] = outcome
        return [int(position) for position in stored]

    def _unusable(self, position: int) -> ProviderError:
        text = self._texts[position] if position < len(self._texts) else ""
        of = f" for {text[:60]!r}{'…' if len(text) > 60 else ''}" if text else ""
        msg = (
            f"The service returned an unusable vector{of}: not finite, all zeros, or of another "
            "length than the others."
        )
        hint = "The other texts have their vectors. Run it again to retry this one."
        return ProviderError(msg, hint=hint)

    def fail(self, position: int, error: LLMError) -> None:
        """Record the reason why a text has no vector."""
        self.outcomes[position] = FAILED
        self.errors[position] = error


def is_usable(rows: Floats) -> NDArray[np.bool_]:
    """Which ``rows`` have a direction: all numbers finite, and not all of them zero."""
    return np.asarray(np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1), np.bool_)


TooLong = Literal["truncate", "chunk-mean", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """
    Attributes:
        batch_size: texts in one request at most; by default as many as the provider takes.
        concurrency: requests at once at most; by default as many as are fastest.
        too_long: of a text that is longer than the model reads: ``truncate`` embeds its
            beginning, ``chunk-mean`` the mean of its parts weighted by their lengths and of
            length 1 again, ``error`` nothing.
        dimensions: of each vector, where the service can give fewer than all.
        prefix: stands before each text, as some models want it (``"passage: "``).
    """

    batch_size: int | None = None
    concurrency: int | None = None
    too_long: TooLong = "truncate"
    dimensions: int | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        for name in ("batch_size", "concurrency", "dimensions"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                msg = f"Invalid value for {name}: {value!r}."
                raise UsageError(msg, hint="Pass an integer of at least 1.")
        if self.too_long not in get_args(TooLong):
            msg = f"Invalid value for too_long: {self.too_long!r}."
            raise UsageError(msg, hint=nearest(str(self.too_long), get_args(TooLong)))


# So many answers and so much time show how fast it goes; of fewer a lucky one would decide.
_ANSWERS, _SECONDS = 8, 0.25

# A process that uses this share of a core has no time left to send more requests.
_BUSY = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """
    Attributes:
        rows_per_s: texts that were sent, over the time from the first request to the last.
        limit_rows_per_s: the most answered in a second while many requests were open.
        at_once: how many requests at once that took.
        cpu_share: of one core, what this process used meanwhile.
    """

    rows_per_s: float
    limit_rows_per_s: float
    at_once: int
    cpu_share: float

    @property
    def share(self) -> float:
        """What was reached of the limit, from 0 to 1."""
        return min(1.0, self.rows_per_s / self.limit_rows_per_s)

    @property
    def is_client_bound(self) -> bool:
        """Whether this process was the limit, and not the server."""
        return self.cpu_share > _BUSY

    def __str__(self) -> str:
        whose = "this notebook's own" if self.is_client_bound else "the server's"
        return (
            f"{self.rows_per_s:,.0f} rows/s, {self.share:.0%} of {whose} limit"
            f" ({self.at_once} concurrent requests)"
        )


class ThroughputMeter:
    """
    Measures how fast answers come.

    Attributes:
        fastest: the most in a second over some answers; 0 before there were enough.
        at_once: how many requests at once that took.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.fastest = 0.0
        self.at_once = 0
        self._clock = clock
        self._since: float | None = None  # the first answer also waited for a connection
        self._answers = self._amount = self._most_at_once = 0

    def record(self, amount: int, at_once: int) -> None:
        """Count an answer that holds ``amount``, one of ``at_once`` that were under way."""
        now = self._clock()
        if self._since is None:
            self._since = now
        if now == self._since:  # the rest of a burst belongs to the time before
            return
        self._most_at_once = max(self._most_at_once, at_once)
        self._answers += 1
        self._amount += amount
        took_s = now - self._since
        if self._answers < max(_ANSWERS, 2 * self._most_at_once) or took_s < _SECONDS:
            return
        if self._amount / took_s > self.fastest:
            self.fastest, self.at_once = self._amount / took_s, self._most_at_once
        self._since, self._answers, self._amount, self._most_at_once = now, 0, 0, 0
