"""
Rate limits of one provider: concurrent requests, requests and tokens per minute, pauses.

A refusal (429) halves the number of concurrent requests, and answers raise it by one per round
(https://en.wikipedia.org/wiki/Additive_increase/multiplicative_decrease). Within that limit, the
`ConcurrencyTuner` of a batch searches for the number with the highest rate of answers. A pause
applies to all requests. All of this runs on one event loop and needs no lock.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

# The maximum number of concurrent requests that a batch tries; most services refuse more.
MAX_CONCURRENCY = 64
# The number of requests in the first two rounds. More rounds would slow down a short batch to a
# fast service, and more requests would overload a slow server.
_FIRST_ROUNDS = 40
# The maximum time of an answer, in seconds, that a higher number of requests may cause.
_MAX_LATENCY_S = 60.0
# A lower number of requests is preferred if it reaches this share of the highest rate.
_AS_GOOD = 0.97
# The number of answers to judge a level, to try the next level again, and below which a level is
# measured again, because its rate may be a coincidence.
_ENOUGH, _TRY_AGAIN, _FEW = 24, 300, 8
# After this idle time, in seconds, earlier measurements are discarded.
_IDLE_S = 1.0
# The share of the back-off for which to pause a service that still refuses after its own pause.
_NAMED_SHARE = 1 / 20


def _now() -> float:
    """Return the time of the running event loop, which tests may replace."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


class AdaptiveSemaphore:
    """Admits a limited number of concurrent requests, in the order of their arrival."""

    def __init__(self, maximum: int | None = None) -> None:
        """Admit at most ``maximum`` requests; without it, any number until a refusal."""
        self._maximum = float(maximum or math.inf)
        self.limit = self._maximum
        self.running = 0
        self._lowered_at = 0  # the last request admitted before the limit was lowered
        self._admitted = 0
        self._recovered_at = math.inf
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pause_s(self) -> float:
        """The seconds until requests are admitted again; 0 if they are admitted now."""
        return max(0.0, self._paused_until - _now()) if self._paused_until else 0.0

    @property
    def _has_room(self) -> bool:
        return self.running < max(1, int(min(self.limit, 1e9))) and not self._paused_until

    async def acquire(self) -> int:
        """Wait to be admitted and return the request's number, for `refused`."""
        if self._waiting or not self._has_room:
            await self._queue()
        else:
            self.running += 1
        self._admitted += 1
        return self._admitted

    async def _queue(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # admitted and cancelled at the same time
                self.release()
            elif future in self._waiting:  # not if a place was released in the same turn
                self._waiting.remove(future)
            raise

    def release(self) -> None:
        """Release a place, and admit the next request."""
        self.running -= 1
        self._admit()

    def refused(self, number: int) -> bool:
        """Halve the limit, once per burst; return whether this is the burst's first refusal."""
        if number <= self._lowered_at:
            return False
        self._lowered_at = self._admitted
        at_once = min(self.limit, self.running)
        self._recovered_at = at_once * 2
        self.limit = max(1.0, at_once / 2)
        return True

    def succeeded(self) -> None:
        """Raise the limit, by one per round of answers."""
        if self.limit >= self._maximum:
            return
        self.limit = min(self._maximum, self.limit + 1 / self.limit)
        if self.limit > self._recovered_at:
            self.limit = self._maximum
        self._admit()

    def is_after_refusal(self, number: int) -> bool:
        """Return whether request ``number`` was admitted after the limit was last lowered."""
        return number > self._lowered_at

    def pause(self, seconds: float) -> None:
        """Admit no request for ``seconds``, or until a later end that is already set."""
        until = _now() + seconds
        if seconds <= 0 or until <= self._paused_until:
            return
        self._paused_until = until
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._paused_until, self._timer = 0.0, None
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._has_room:
            future = self._waiting.popleft()
            if not future.done():
                self.running += 1
                future.set_result(None)


class TokenBucket:
    """A token bucket: a rate per minute, with a burst of at most one minute."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = _now) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._level = per_minute
        self._filled_at = clock()

    def take(self, amount: float) -> float:
        """Take ``amount`` and return the seconds until it is available."""
        now = self._clock()
        refill = (now - self._filled_at) * self._per_minute / 60
        self._level = min(self._per_minute, self._level + refill) - min(amount, self._per_minute)
        self._filled_at = now
        return max(0.0, -self._level * 60 / self._per_minute)

    def give_back(self, amount: float) -> None:
        """Return ``amount`` that was taken but not used."""
        self._level = min(self._per_minute, self._level + min(amount, self._per_minute))


class ConcurrencyTuner:
    """
    Finds the number of concurrent requests (the level) with the highest rate of answers.

    It measures one level after another, each for about one round of answers: first upwards while
    the rate increases, then downwards. It settles at the lowest level that is as good as the best.
    From time to time it tries the next higher or lower level again, because services change.
    """

    def __init__(
        self,
        *,
        start: int,
        maximum: int = MAX_CONCURRENCY,
        semaphore: AdaptiveSemaphore | None = None,
        clock: Callable[[], float] = _now,
    ) -> None:
        """Start at the level ``start``; if it is ``maximum``, the level is fixed."""
        self.running = 0  # the number of running requests
        self._level = min(start, maximum)
        self._maximum = maximum
        self._is_settled = self._is_fixed = start >= maximum
        self._semaphore = semaphore
        self._clock = clock
        self._rates: dict[int, float] = {}
        self._counts: dict[int, int] = {}
        self._has_stepped = self._tries_lower = False
        self._ended_at = -math.inf
        self._since: float | None = None  # None until requests of the previous level have ended
        self._left_over = self._answers = self._amount = 0
        self._latency_s = math.inf

    @property
    def level(self) -> int:
        """The number of concurrent requests, at most as many as the service admits."""
        admitted = self._semaphore.limit if self._semaphore is not None else math.inf
        return max(1, int(min(self._level, admitted)))

    def started(self) -> float:
        """Count a request that is sent now, and return the time."""
        now = self._clock()
        if not self.running and now - self._ended_at > _IDLE_S:
            self._measure_from(now)
        self.running += 1
        return now

    def finished(self, started_at: float, amount: int) -> None:
        """Count a request that ended, with ``amount`` results; 0 if it failed."""
        now = self._ended_at = self._clock()
        self.running -= 1
        if self._is_fixed or not amount:
            return
        if self._since is None:
            # Do not measure requests that were partly processed before this level.
            self._left_over -= self.running < self._level
            if self._left_over <= 0:
                self._measure_from(now)
            return
        self._answers += 1
        self._amount += amount
        self._latency_s = min(self._latency_s, now - started_at)
        if self._answers < self._enough or now <= self._since:
            return
        rate = self._amount / (now - self._since)
        if self._is_settled:
            self._try_again(rate)
        else:
            self._rates[self._level] = rate
        self._counts[self._level] = self._answers
        self._go_to(self._next_level(), now)

    def refused(self) -> None:
        """Stop increasing the level after a refusal."""
        if not self._is_fixed:
            self._level, self._is_settled = self.level, True
            self._since = None

    @property
    def _enough(self) -> int:
        if self._is_settled:
            return max(_TRY_AGAIN, 20 * self._level)
        is_first = not self._rates or self._level > max(self._rates)
        # Whole rounds, because answers may arrive in bursts.
        return self._level * (1 if is_first else math.ceil(_ENOUGH / self._level))

    def _measure_from(self, now: float | None) -> None:
        self._since = now
        self._answers = self._amount = 0
        self._latency_s = math.inf

    def _go_to(self, level: int | None, now: float) -> None:
        if level is None:
            level, self._is_settled = self._best, True
        is_down = level < self._level
        self._level = self._left_over = level
        self._measure_from(None if is_down else now)

    def _try_again(self, rate: float) -> None:
        """Measure the next higher level; at the next call, the next lower one."""
        level = self._level
        not_now = level * 2 if self._tries_lower else max(1, level // 2)
        self._rates, self._counts = {not_now: 0.0, level: rate}, {not_now: _ENOUGH}
        self._is_settled, self._tries_lower = False, not self._tries_lower

    @property
    def _best(self) -> int:
        most = max(self._rates.values())
        return min(level for level, rate in self._rates.items() if rate >= _AS_GOOD * most)

    def _next_level(self) -> int | None:
        """Return the next level to measure, or ``None`` if the best level is known."""
        best, known = self._best, sorted(self._rates)
        if best == known[-1] and (above := self._above(best)) is not None:
            return above
        if best > 1 and not any(best // 2 <= level < best for level in known):
            return best // 2
        if best < known[-1] and not any(best < level <= best * 2 for level in known):
            return best * 2
        # A few answers may have been slow by chance: measure again levels that may be better.
        rivals = [level for level in known if self._rates[level] * 2 >= self._rates[best]]
        return next((level for level in rivals if self._counts.get(level, 0) < _FEW), None)

    def _above(self, best: int) -> int | None:
        """Return the next higher level, unless it could make answers much too slow."""
        first = 0 if self._has_stepped else _FIRST_ROUNDS - best
        self._has_stepped = True
        for level in (first, best * 2):
            level = min(level, self._maximum)
            if level > best and self._latency_s * level / best <= _MAX_LATENCY_S:
                return level
        return None


class Slot(Protocol):
    """A place in a limit that several processes share."""

    async def take(self) -> None:
        """Wait for the place."""

    async def give_back(self) -> None:
        """Release the place for another process."""


# The limit shared by all requests of a cluster, if they run on one.
cluster_limit: ContextVar[Slot | None] = ContextVar("cluster_limit", default=None)


@dataclass(slots=True)
class Permit:
    """The admission of a request; `release` it when the request has ended."""

    number: int
    semaphore: AdaptiveSemaphore
    slot: Slot | None = None

    async def release(self) -> None:
        """Release the place of the request."""
        self.semaphore.release()
        if self.slot is not None:
            await self.slot.give_back()


class RateLimiter:
    """
    All rate limits of one provider.

    Attributes:
        successes: the number of answered requests.
        last_success: the time of the last answer, on the event loop's clock.
    """

    def __init__(
        self,
        *,
        concurrency: int | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = _now,
    ) -> None:
        self.semaphore = AdaptiveSemaphore(concurrency)
        self.successes, self.last_success = 0, 0.0
        self._concurrency = concurrency
        self._requests = TokenBucket(requests_per_minute, clock) if requests_per_minute else None
        self._tokens = TokenBucket(tokens_per_minute, clock) if tokens_per_minute else None
        self._tuners: dict[str, ConcurrencyTuner] = {}
        self._refusals = 0  # bursts of refusals since the last success
        self._draw = random.Random()  # noqa: S311 (not for cryptography)
        self._listeners: list[Callable[[], None]] = []

    @property
    def pause_s(self) -> float:
        """The seconds until requests may be sent again; 0 if they may be sent now."""
        return self.semaphore.pause_s

    def tuner(self, kind: str, start: int) -> ConcurrencyTuner:
        """Return the tuner for batches of this kind, with the results of earlier batches."""
        if self._concurrency is not None:
            return self.fixed_tuner(self._concurrency)
        if cluster_limit.get() is not None:  # the cluster shares the limit
            return self.fixed_tuner(start)
        if kind not in self._tuners:
            self._tuners[kind] = ConcurrencyTuner(start=start, semaphore=self.semaphore)
        return self._tuners[kind]

    def fixed_tuner(self, concurrency: int) -> ConcurrencyTuner:
        """Return a tuner that stays at ``concurrency``."""
        return ConcurrencyTuner(start=concurrency, maximum=concurrency, semaphore=self.semaphore)

    def on_pause(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` whenever a pause begins; return a function that stops this."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def acquire(self, tokens: Callable[[], int]) -> Permit:
        """Wait until a request with about ``tokens()`` tokens may be sent."""
        while True:
            permit = Permit(await self.semaphore.acquire(), self.semaphore)
            try:
                if (slot := cluster_limit.get()) is not None:
                    await slot.take()
                    permit.slot = slot
                spent = await self._spend(tokens)
            except BaseException:
                await permit.release()
                raise
            if not self.semaphore.pause_s:
                return permit
            # A pause that has begun in the meantime applies to this request too.
            _refund(spent)
            await permit.release()

    async def _spend(self, tokens: Callable[[], int]) -> list[tuple[TokenBucket, float]]:
        """Take one request and ``tokens()`` from the buckets, as soon as they contain enough."""
        spent = [(self._requests, 1.0)] if self._requests else []
        spent += [(self._tokens, tokens())] if self._tokens else []
        delay_s = max((bucket.take(amount) for bucket, amount in spent), default=0.0)
        if delay_s:
            try:
                await asyncio.sleep(delay_s)
            except asyncio.CancelledError:
                _refund(spent)
                raise
        return spent

    def succeeded(self, number: int) -> None:
        """Record that request ``number`` was answered."""
        self.successes += 1
        self.last_success = _now()
        if self.semaphore.is_after_refusal(number):
            self._refusals = 0
        self.semaphore.succeeded()

    def refused(
        self,
        number: int,
        retry_after_s: float | None,
        backoff_s: Callable[[int], float],
        max_delay_s: float,
    ) -> float:
        """
        Record that request ``number`` was refused; pause all, and return the remaining seconds.

        The service's requested pause is used; without one it is random and grows by ``backoff_s``.
        A delay above ``max_delay_s`` is not waited for, and does not pause other requests.
        """
        is_first = self.semaphore.refused(number)
        self._refusals += is_first
        if retry_after_s is None:
            widest_s = backoff_s(self._refusals - 1) if is_first else 0.0
            delay_s = self._draw.uniform(widest_s / 2, widest_s)
        elif retry_after_s > max_delay_s:
            delay_s = 0.0
        else:
            least_s = backoff_s(self._refusals - 1) * _NAMED_SHARE if self._refusals > 1 else 0.0
            delay_s = max(retry_after_s, least_s)
        was_paused = self.semaphore.pause_s > 0
        self.semaphore.pause(delay_s)
        if self.semaphore.pause_s and not was_paused:
            for listener in [*self._listeners]:
                listener()
        return self.semaphore.pause_s


def _refund(spent: Sequence[tuple[TokenBucket, float]]) -> None:
    for bucket, amount in spent:
        bucket.give_back(amount)
