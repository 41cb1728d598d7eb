"""How fast an embedding went, and what it was that it could not go faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

# So many answers and so much time show how fast it goes; of fewer a lucky one would decide.
_ANSWERS, _SECONDS = 8, 0.25

# Who uses so much of one core has no time left to ask for more.
_BUSY = 0.85


@dataclass(frozen=True, slots=True)
class Speed:
    """
    Attributes:
        rows_per_s: texts that were sent, over the whole time from the first request to the last.
        limit_rows_per_s: the most that came in a second while many requests were under way.
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
    def is_our_own(self) -> bool:
        """Whether this process was the limit, and not the server."""
        return self.cpu_share > _BUSY

    def __str__(self) -> str:
        whose = "this notebook's own" if self.is_our_own else "the server's"
        return (
            f"{self.rows_per_s:,.0f} rows/s, {self.share:.0%} of {whose} limit"
            f" ({self.at_once} requests at once)"
        )


class SpeedMeter:
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

    def landed(self, amount: int, at_once: int) -> None:
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
