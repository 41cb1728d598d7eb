"""The time by which jobs are polled; tests drive their own."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """The time of this machine, which goes on while a laptop is suspended."""

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait; a suspended laptop makes it longer."""
        await asyncio.sleep(seconds)
