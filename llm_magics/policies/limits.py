"""
How many calls of a provider run at once, and how many begin in a minute.

The bound on calls at once finds itself: a refusal for too much (429) halves it, and answers
raise it again, by one for each round of them ("additive increase, multiplicative decrease",
https://en.wikipedia.org/wiki/Additive_increase/multiplicative_decrease).
All of it lives on one event loop and needs no lock.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Protocol

from llm_magics.errors import RateLimitError


class Gate:
    """Lets so many in at once, in the order in which they came."""

    def __init__(self, most: int | None = None) -> None:
        """At most ``most``; without one, as many as come until a refusal."""
        self._most = float(most or math.inf)
        self.limit = self._most
        self.running = 0
        self._lowered_at = 0  # the number of those let in when the limit was lowered last
        self._entered = 0
        self._enough = math.inf
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> int:
        """Wait for a place; its number is to be told to `refused`."""
        if self._waiting or self.running >= max(1, int(min(self.limit, 1e9))):
            await self._queue()
        else:
            self.running += 1
        self._entered += 1
        return self._entered

    async def _queue(self) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # let in, and gone in the same moment
                self.leave()
            else:
                self._waiting.remove(place)
            raise

    def leave(self) -> None:
        """Give the place back."""
        self.running -= 1
        self._let_in()

    def refused(self, number: int) -> None:
        """The service said that it was too much; of one burst, only the first counts."""
        if number <= self._lowered_at:
            return
        self._lowered_at = self._entered
        at_once = min(self.limit, self.running)
        self._enough = at_once * 2
        self.limit = max(1.0, at_once / 2)

    def answered(self) -> None:
        """One more went well."""
        if self.limit >= self._most:
            return
        self.limit = min(self._most, self.limit + 1 / self.limit)
        if self.limit > self._enough:
            self.limit = self._most
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self.running < max(1, int(min(self.limit, 1e9))):
            place = self._waiting.popleft()
            if not place.done():
                self.running += 1
                place.set_result(None)


class Bucket:
    """So much in a minute, a full minute's worth at once at most."""

    def __init__(self, a_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_minute = a_minute
        self._clock = clock
        self._level = a_minute
        self._filled_at = clock()

    def take(self, amount: float) -> float:
        """Take ``amount``; seconds to wait until it is there."""
        now = self._clock()
        poured = (now - self._filled_at) * self._a_minute / 60
        self._level = min(self._a_minute, self._level + poured) - min(amount, self._a_minute)
        self._filled_at = now
        return max(0.0, -self._level * 60 / self._a_minute)

    def give_back(self, amount: float) -> None:
        """What was taken is not used after all."""
        self._level = min(self._a_minute, self._level + min(amount, self._a_minute))


class Place(Protocol):
    """A place among those that several processes share."""

    async def take(self) -> None: ...

    async def give_back(self) -> None: ...


# Where calls are made as a part of something larger, a cluster say: its limit for all of them.
beyond: ContextVar[Place | None] = ContextVar("beyond", default=None)


@asynccontextmanager
async def _place_beyond() -> AsyncGenerator[None, None]:
    shared = beyond.get()
    if shared is None:
        yield
        return
    await shared.take()
    try:
        yield
    finally:
        await shared.give_back()


class Limiter:
    """All limits of one provider."""

    def __init__(
        self,
        concurrency: int | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.gate = Gate(concurrency)
        self._requests = Bucket(requests_per_minute, clock) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute, clock) if tokens_per_minute else None

    @asynccontextmanager
    async def place(self, tokens: Callable[[], int]) -> AsyncGenerator[None, None]:
        """Wait for the turn of a call of about ``tokens()``; how it ends is learned from."""
        number = await self.gate.enter()
        try:
            async with _place_beyond():
                await self._paced(tokens)
                yield
            self.gate.answered()
        except RateLimitError:
            self.gate.refused(number)
            raise
        finally:
            self.gate.leave()

    async def _paced(self, tokens: Callable[[], int]) -> None:
        taken = [(self._requests, 1), (self._tokens, tokens() if self._tokens else 0)]
        buckets = [(bucket, amount) for bucket, amount in taken if bucket is not None]
        wait_s = max((bucket.take(amount) for bucket, amount in buckets), default=0.0)
        if wait_s:
            try:
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                for bucket, amount in buckets:
                    bucket.give_back(amount)
                raise
