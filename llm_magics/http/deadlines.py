"""Timeouts that count the time of others, not that in which our own event loop was busy."""

from __future__ import annotations

import asyncio

# The turns of the event loop that a connection takes at most.
_TURNS = 20


class ConnectionTimeout:
    """
    Raises `TimeoutError` if the block takes longer than a number of seconds.

    After the deadline, the block gets some more turns of the event loop: in a busy loop, a
    connection can be established, or data sent, in time without having had its turn.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds, self._timeout = seconds, asyncio.timeout(None)
        self._timer: asyncio.Handle | None = None

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        if self._seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self._expire, _TURNS)

    async def __aexit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(*error)  # type: ignore[arg-type]

    def _expire(self, turns: int) -> None:
        loop = asyncio.get_running_loop()
        if turns:
            self._timer = loop.call_soon(self._expire, turns - 1)
        else:
            self._timeout.reschedule(loop.time())
