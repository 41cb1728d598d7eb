"""The time by which jobs are polled, which tests drive, and the delays between two looks at a job."""

from __future__ import annotations

import asyncio
import random
import time

# The delays between two looks at a job, in seconds.
_FIRST_S, _LAST_S, _FACTOR = 2.0, 300.0, 1.5


class Clock:
    """The time of this machine, which goes on while a laptop is suspended."""

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait; a suspended laptop makes it longer."""
        await asyncio.sleep(seconds)


class Backoff:
    """Growing delays between the looks at a job."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._delay_s = _FIRST_S

    def reset(self) -> None:
        """Start again with the shortest delay."""
        self._delay_s = _FIRST_S

    async def wait(self, least_s: float | None = None, most_s: float | None = None) -> None:
        """Wait at least ``least_s``, otherwise at most ``most_s``; the next time longer."""
        delay_s = self._delay_s * random.uniform(0.9, 1.1)  # noqa: S311 (not for cryptography)
        self._delay_s = min(self._delay_s * _FACTOR, _LAST_S)
        most_s = _LAST_S if most_s is None else most_s
        await self._clock.sleep(max(min(delay_s, most_s), least_s or 0.0))
