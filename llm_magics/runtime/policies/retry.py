"""
Retry policy and circuit breakers: which alone decide whether a request is repeated.

A request is repeated until its first token has been handed out, and not after. The delay that a
service asks for is obeyed up to a bound; without one the delay grows exponentially and is drawn
at random, so that many clients do not come back at the same moment ("full jitter",
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from llm_magics.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    ContentFilterError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    StreamInterrupted,
    UnsupportedError,
    WeightsError,
)

# Errors that name their reason, whatever their status: another request may succeed.
_REQUEST_ERRORS = (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    ModelNotFoundError,
    UnsupportedError,
)

# With so many failures in a row a batch of requests ends.
MAX_BATCH_FAILURES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """
    How often and how long to retry.

    Attributes:
        retries: retries of one request at most.
        max_delay_s: a longer delay, even one that the service asks for, is not waited.
        timeout_s: no retry begins later than this after the request, or after the last progress.
        first_delay_s: upper bound of the first random delay; it doubles with each retry.
    """

    retries: int = 2
    max_delay_s: float = 30.0
    timeout_s: float = 120.0
    first_delay_s: float = 0.5

    def backoff_s(self, count: int) -> float:
        """Return the upper bound of the random delay before retry number ``count``, from 0."""
        return min(self.first_delay_s * 2.0 ** min(count, 60), self.max_delay_s)


class RetryState:
    """The retries of one request: how many there were, and whether another one may follow."""

    def __init__(
        self,
        policy: RetryPolicy,
        draw: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._since = clock()
        self._draw = draw or random.Random()  # noqa: S311 (not for cryptography)
        self._in_row = 0
        self.count = 0

    def delay_s(self, error: ProviderError) -> float | None:
        """Return the seconds until the next attempt, or ``None`` if ``error`` is final."""
        delay_s = error.retry_after
        if delay_s is None:
            delay_s = self._draw.uniform(0, self._policy.backoff_s(self._in_row))
        return self._granted(error, delay_s, has_retries=self._in_row < self._policy.retries)

    def shared_delay_s(
        self, error: ProviderError, pause_s: float, *, is_batch_moving: bool = False
    ) -> float | None:
        """
        Return ``pause_s``, for which the provider is paused, or ``None`` to give up.

        While a batch is moving, the number of retries is not counted, only the time without
        progress: a service that admits some requests a minute refuses many before it is done.
        """
        policy = self._policy
        has_retries = self._in_row < policy.retries or (is_batch_moving and policy.retries > 0)
        requested_s = max(pause_s, error.retry_after or 0.0)
        return (
            None if self._granted(error, requested_s, has_retries=has_retries) is None else pause_s
        )

    def progressed(self, at: float | None = None) -> None:
        """Start counting again: the provider has answered another request meanwhile."""
        self._in_row = 0
        self._since = max(self._since, self._clock() if at is None else at)

    def _granted(self, error: ProviderError, delay_s: float, *, has_retries: bool) -> float | None:
        policy = self._policy
        if not has_retries or not may_retry(error) or delay_s > policy.max_delay_s:
            return None
        if self._clock() - self._since + delay_s > policy.timeout_s:
            return None
        self._in_row += 1
        self.count += 1
        return delay_s


def may_retry(error: ProviderError) -> bool:
    """Return whether the same request may succeed later. Half an answer is not repeated."""
    is_reachable = error.code != "unreachable"  # a refused connection is refused a second later
    # Damaged weights and failed downloads are reported at once: a retry would take minutes.
    is_request = not isinstance(error, StreamInterrupted | WeightsError)
    return error.retryable and is_reachable and is_request


def may_fall_back(error: ProviderError) -> bool:
    """Return whether another model may do better: not if the request or the key is wrong."""
    if isinstance(error, StreamInterrupted):
        return False
    passing = (ConnectionError, RateLimitError, ModelNotFoundError)
    is_not_set_up = error.code == "no_key"  # no key is set: nothing was sent, nothing is wrong
    return isinstance(error, passing) or error.retryable or is_not_set_up


def is_overload(error: ProviderError) -> bool:
    """Return whether the service refuses requests for now, whatever they contain."""
    is_named = error.retry_after is not None and error.status in (429, 503, 529)
    return may_retry(error) and (isinstance(error, RateLimitError) or is_named)


def is_service_failure(error: ProviderError) -> bool:
    """Return whether ``error`` is a failure of the service, and not of this one request."""
    if isinstance(error, _REQUEST_ERRORS):
        return False
    kinds = (ConfigurationError, ConnectionError, RateLimitError, WeightsError)
    return error.retryable or isinstance(error, kinds) or (error.status or 0) >= 500


def with_hint(error: ProviderError, failures: int, more: str) -> ProviderError:
    """Return ``error`` as the one that ends a batch: after how many failures, and what to do."""
    message = str(error)
    copy = type(error)(
        f"{failures:,} requests in a row failed; the last error: {message}"
        if failures
        else message,
        hint=f"{error.hint or ''} {more}".strip(),
        **error.details(),
    )
    copy.partial = error.partial
    return copy


class BatchBreaker:
    """
    The circuit breaker of a batch: a number of failures in a row ends it; a success resets the count.

    It stays open, for the batch is over then; requests that are due for a retry end.
    """

    def __init__(self, after: int = MAX_BATCH_FAILURES) -> None:
        self._after = after
        self._opened = asyncio.Event()
        self.failures = 0
        self.successes = 0
        self.error: ProviderError | None = None

    @property
    def is_open(self) -> bool:
        """Whether the batch has to end."""
        return self.error is not None

    def succeeded(self) -> None:
        """Count a success."""
        self.failures = 0
        self.successes += 1

    def failed(self, error: ProviderError) -> None:
        """Count a failure; one that is about the request alone shows that the service works."""
        if not is_service_failure(error):
            self.failures = 0
            return
        if self.is_open:  # those that were under way
            return
        self.failures += 1
        if self.failures >= self._after:
            self.error = error
            self._opened.set()

    def check(self) -> None:
        """Raise the last failure if the breaker is open."""
        if self.error is not None:
            raise self.error

    async def sleep(self, seconds: float) -> None:
        """Wait, and raise at once if the breaker opens meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._opened.wait()
        except TimeoutError:
            pass
        self.check()


@dataclass(slots=True)
class _State:
    failures: int = 0
    open_until: float = 0.0
    is_tried: bool = False


@dataclass(kw_only=True)
class CircuitBreakers:
    """
    One circuit breaker for each provider, so that a route skips one that keeps failing.

    After some failures in a row it opens. When it has been open for some time, one call may
    try the provider (half-open), and its success closes it. Safe to use from several threads.

    Attributes:
        after: failures in a row that open it.
        open_s: how long it stays open.
    """

    after: int = 3
    open_s: float = 30.0
    clock: Callable[[], float] = time.monotonic
    _states: dict[str, _State] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def may_try(self, name: str) -> bool:
        """Return whether ``name`` may be tried now; if half-open, only the first caller may."""
        with self._lock:
            state = self._states.get(name)
            if state is None or state.failures < self.after:
                return True
            if self.clock() < state.open_until or state.is_tried:
                return False
            state.is_tried = True
            return True

    def failed(self, name: str) -> None:
        """Count a failed call of ``name``."""
        with self._lock:
            state = self._states.setdefault(name, _State())
            state.failures += 1
            state.is_tried = False
            if state.failures >= self.after:
                state.open_until = self.clock() + self.open_s

    def succeeded(self, name: str) -> None:
        """Close the breaker: ``name`` answered, or the request itself was wrong."""
        with self._lock:
            self._states.pop(name, None)

    def abandoned(self, name: str) -> None:
        """Let another call try ``name``: the one that might was cancelled, or sent nothing."""
        with self._lock:
            state = self._states.get(name)
            if state is not None:
                state.is_tried = False
