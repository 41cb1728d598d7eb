"""
Retry policy and circuit breakers, which alone decide whether a request is repeated.

A request is only repeated until its first token has been yielded. A delay that the service requests
is respected up to a limit. Otherwise the delay is random with an exponentially growing bound, so
that many clients do not retry at the same moment ("full jitter",
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

# Errors of one request, whatever their status: another request may succeed.
_REQUEST_ERRORS = (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    ModelNotFoundError,
    UnsupportedError,
)

# The number of consecutive failures that ends a batch of requests.
MAX_BATCH_FAILURES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """
    How often and how long to retry.

    Attributes:
        retries: the maximum number of retries of one request.
        max_delay_s: the maximum delay; a longer delay, even if the service requests it, is an
            error.
        timeout_s: the maximum time from the request, or the last progress, to the start of a retry.
        first_delay_s: the upper bound of the first random delay; it doubles with each retry.
    """

    retries: int = 2
    max_delay_s: float = 30.0
    timeout_s: float = 120.0
    first_delay_s: float = 0.5

    def backoff_s(self, count: int) -> float:
        """Return the upper bound of the random delay before retry number ``count``, from 0."""
        return min(self.first_delay_s * 2.0 ** min(count, 60), self.max_delay_s)


class RetryState:
    """The retries of one request: their number, and whether another one may follow."""

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

        While a batch makes progress, the number of retries is not limited, only the time without
        progress: a service that admits a few requests per minute refuses many before the batch is
        complete.
        """
        policy = self._policy
        has_retries = self._in_row < policy.retries or (is_batch_moving and policy.retries > 0)
        requested_s = max(pause_s, error.retry_after or 0.0)
        return (
            None if self._granted(error, requested_s, has_retries=has_retries) is None else pause_s
        )

    def progressed(self, at: float | None = None) -> None:
        """Reset the count and the time, because the provider has answered another request."""
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
    """Return whether the same request may succeed later. A partial answer is not repeated."""
    is_reachable = error.code != "unreachable"  # a refused connection will be refused again
    # Damaged weights and failed downloads are reported immediately: a retry would take minutes.
    is_request = not isinstance(error, StreamInterrupted | WeightsError)
    return error.retryable and is_reachable and is_request


def may_fall_back(error: ProviderError) -> bool:
    """Return whether another model may succeed: not if the request or the key is wrong."""
    if isinstance(error, StreamInterrupted):
        return False
    passing = (ConnectionError, RateLimitError, ModelNotFoundError)
    is_not_set_up = error.code == "no_key"  # no key is set, so nothing was sent
    return isinstance(error, passing) or error.retryable or is_not_set_up


def is_overload(error: ProviderError) -> bool:
    """Return whether the service temporarily refuses all requests, whatever they contain."""
    is_named = error.retry_after is not None and error.status in (429, 503, 529)
    return may_retry(error) and (isinstance(error, RateLimitError) or is_named)


def is_service_failure(error: ProviderError) -> bool:
    """Return whether ``error`` is a failure of the service rather than of this request."""
    if isinstance(error, _REQUEST_ERRORS):
        return False
    kinds = (ConfigurationError, ConnectionError, RateLimitError, WeightsError)
    return error.retryable or isinstance(error, kinds) or (error.status or 0) >= 500


def with_hint(error: ProviderError, failures: int, more: str) -> ProviderError:
    """Return ``error`` as the end of a batch, with the number of failures and what to do."""
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
    The circuit breaker of a batch: several consecutive failures end it; a success resets the count.

    It stays open, because the batch then ends; requests that wait for a retry end too.
    """

    def __init__(self, after: int = MAX_BATCH_FAILURES) -> None:
        self._after = after
        self._opened = asyncio.Event()
        self.failures = 0
        self.successes = 0
        self.error: ProviderError | None = None

    @property
    def is_open(self) -> bool:
        """Whether the batch must end."""
        return self.error is not None

    def succeeded(self) -> None:
        """Count a success."""
        self.failures = 0
        self.successes += 1

    def failed(self, error: ProviderError) -> None:
        """Count a failure; a failure of the request alone shows that the service works."""
        if not is_service_failure(error):
            self.failures = 0
            return
        if self.is_open:  # of requests that were still running
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
        """Wait, and raise immediately if the breaker opens in the meantime."""
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
    One circuit breaker per provider, so that a route skips a provider that keeps failing.

    It opens after several consecutive failures. After it has been open for some time, one call may
    try the provider (half-open); a success closes it. It can be used from several threads.

    Attributes:
        after: the number of consecutive failures that open it.
        open_s: the time for which it stays open, in seconds.
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
        """Let another call try ``name``, because the trial call was cancelled or sent nothing."""
        with self._lock:
            state = self._states.get(name)
            if state is not None:
                state.is_tried = False
