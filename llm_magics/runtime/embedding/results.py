"""Options and results of an embedding call: a vector or an error per text, and the throughput."""

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
    The vectors of ``count`` texts; ``matrix`` has a row per text, NaN until it is computed.

    ``is_cached`` marks those that were stored already, and are therefore free.
    """

    def __init__(self, count: int, texts: Sequence[str] = ()) -> None:
        self._texts = texts
        self.outcomes = np.full(count, PENDING, np.uint8)
        self.is_cached = np.zeros(count, bool)
        self.matrix: Floats = np.empty((count, 0), np.float32)
        self.errors: dict[int, LLMError] = {}

    @property
    def dimensions(self) -> int:
        """The length of the vectors; 0 before the first one."""
        return int(self.matrix.shape[1])

    @property
    def pending(self) -> list[int]:
        """The positions of the texts without an outcome."""
        return [int(position) for position in np.flatnonzero(self.outcomes == PENDING)]

    def count(self, *outcomes: int) -> int:
        """Return the number of texts with one of these ``outcomes``."""
        return int(np.isin(self.outcomes, outcomes).sum())

    def store_cached(self, found: NDArray[np.bool_], matrix: Floats) -> None:
        """Store the rows of ``matrix`` that ``found`` marks; both have an entry for each text."""
        if not found.any():
            return
        self.matrix = matrix
        self.outcomes[found] = OK
        self.is_cached[found] = True

    def store(self, positions: Sequence[int], rows: Floats, outcome: int = OK) -> list[int]:
        """
        Store the ``rows`` of the texts at ``positions``; return the positions with usable vectors.

        Raises:
            ProviderError: they differ in length from earlier ones.
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
    """Return which ``rows`` are usable: all numbers are finite, and at least one is not zero."""
    return np.asarray(np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1), np.bool_)


TooLong = Literal["truncate", "chunk-mean", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """
    Attributes:
        batch_size: the maximum number of texts per request; by default the provider's maximum.
        concurrency: the maximum number of concurrent requests; by default the fastest number.
        too_long: how to handle a text that is too long for the model: ``truncate`` embeds its
            beginning, ``chunk-mean`` embeds its parts and normalises their mean, weighted by
            length, and ``error`` reports an error.
        dimensions: the length of the vectors, if the service can shorten them.
        prefix: text to put before each text, as some models require (``"passage: "``).
        batch: whether to embed the texts in batch jobs of the service.
        wait: whether to wait until these have ended.
    """

    batch_size: int | None = None
    concurrency: int | None = None
    too_long: TooLong = "truncate"
    dimensions: int | None = None
    prefix: str = ""
    batch: bool = False
    wait: bool = True

    def __post_init__(self) -> None:
        for name in ("batch", "wait"):
            if not isinstance(getattr(self, name), bool):
                msg = f"Invalid value for {name}: {getattr(self, name)!r:.60}."
                raise UsageError(msg, hint="Use True or False.")
        if not self.wait and not self.batch:
            msg = "wait=False needs batch=True."
            raise UsageError(msg, hint="Live calls end when all texts are embedded.")
        if self.batch and (self.batch_size is not None or self.concurrency is not None):
            name = "concurrency" if self.batch_size is None else "batch_size"
            msg = f"{name} has no effect on batch jobs."
            raise UsageError(msg, hint=f"Pass either batch=True or {name}.")
        for name in ("batch_size", "concurrency", "dimensions"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                msg = f"Invalid value for {name}: {value!r}."
                raise UsageError(msg, hint="Pass an integer of at least 1.")
        if self.too_long not in get_args(TooLong):
            msg = f"Invalid value for too_long: {self.too_long!r}."
            raise UsageError(msg, hint=nearest(str(self.too_long), get_args(TooLong)))


# The minimum number of answers and of seconds for a measurement of throughput.
_ANSWERS, _SECONDS = 8, 0.25

# The CPU share of a core above which this process has no time to send more requests.
_BUSY = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """
    Attributes:
        rows_per_s: the number of texts sent, per second from the first request to the last.
        limit_rows_per_s: the highest measured rate of answers, with many open requests.
        at_once: the number of concurrent requests at that rate.
        cpu_share: the CPU time of this process during the call, as a share of one core.
    """

    rows_per_s: float
    limit_rows_per_s: float
    at_once: int
    cpu_share: float

    @property
    def share(self) -> float:
        """The achieved share of the limit, from 0 to 1."""
        return min(1.0, self.rows_per_s / self.limit_rows_per_s)

    @property
    def is_client_bound(self) -> bool:
        """Whether this process was the limit, rather than the server."""
        return self.cpu_share > _BUSY

    def __str__(self) -> str:
        whose = "this notebook's own" if self.is_client_bound else "the server's"
        return (
            f"{self.rows_per_s:,.0f} rows/s, {self.share:.0%} of {whose} limit"
            f" ({self.at_once} concurrent requests)"
        )


class ThroughputMeter:
    """
    Measures the rate of answers.

    Attributes:
        fastest: the highest rate per second over several answers; 0 before there are enough.
        at_once: the number of concurrent requests at that rate.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.fastest = 0.0
        self.at_once = 0
        self._clock = clock
        self._since: float | None = None  # from the first answer on, without the time to connect
        self._answers = self._amount = self._most_at_once = 0

    def record(self, amount: int, at_once: int) -> None:
        """Count an answer with ``amount`` results, one of ``at_once`` concurrent requests."""
        now = self._clock()
        if self._since is None:
            self._since = now
        if now == self._since:  # the rest of a burst belongs to the previous interval
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
