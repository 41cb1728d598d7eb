"""
When to ask again, and how long to wait: the only place that retries.

A call is repeated until the first token has been handed out, and not after. What the service
says of the wait is obeyed, up to a bound; where it says nothing, the wait grows and is drawn at
random, so that many clients do not come back at the same moment ("full jitter",
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from llm_magics.errors import (
    ConnectionError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    StreamInterrupted,
    WeightsError,
)


@dataclass(frozen=True, slots=True)
class Patience:
    """
    How hard to try.

    Attributes:
        retries: how often to ask again at most.
        longest_wait_s: a longer wait, be it asked for by the service, is not waited.
        total_s: so long after the call began nothing is asked again.
        first_s: the first wait is drawn from 0 to this; each further one from twice the range.
    """

    retries: int = 2
    longest_wait_s: float = 30.0
    total_s: float = 120.0
    first_s: float = 0.5


class Retries:
    """The retries of one call: how many there were, and whether there is one more."""

    def __init__(
        self,
        patience: Patience,
        draw: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._began_at = clock()
        self._draw = draw or random.Random()  # noqa: S311 (nothing secret hangs on it)
        self.count = 0

    def wait_s(self, error: ProviderError) -> float | None:
        """Seconds until the next attempt, or ``None`` where there shall be none."""
        patience = self._patience
        if not may_retry(error) or self.count >= patience.retries:
            return None
        wait_s = error.retry_after
        if wait_s is None:
            widest_s = patience.first_s * 2**self.count
            wait_s = self._draw.uniform(0, min(widest_s, patience.longest_wait_s))
        past_s = self._clock() - self._began_at
        if wait_s > patience.longest_wait_s or past_s + wait_s > patience.total_s:
            return None
        self.count += 1
        return wait_s


def may_retry(error: ProviderError) -> bool:
    """Whether the same request may succeed later. Half an answer is not asked for again."""
    is_there = error.code != "unreachable"  # where nobody listens nobody will in a second
    # Of weights that are damaged, and of a fetch that takes minutes, the user is to hear.
    is_mere_call = not isinstance(error, StreamInterrupted | WeightsError)
    return error.retryable and is_there and is_mere_call


def may_fall_back(error: ProviderError) -> bool:
    """Whether another model may do better: not where the request or the key is at fault."""
    if isinstance(error, StreamInterrupted):
        return False
    passing = (ConnectionError, RateLimitError, ModelNotFoundError)
    is_not_set_up = error.code == "no_key"  # none is set: nothing was asked, and nothing is wrong
    return isinstance(error, passing) or error.retryable or is_not_set_up
