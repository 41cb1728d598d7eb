"""
The pipeline of every paid request: candidates, retries, limits, budget.

Its form follows stamina (https://stamina.hynek.me)::

    async for attempt in attempts(session, candidates, resolve, capability="chat"):
        async with attempt:
            async for progress in attempt.ready():
                yield progress
            ...  # send the request to attempt.route, and yield the received chunks

`Attempt.ready` waits for the attempt's turn, loads the model and reserves the budget. An error
inside the block ends the attempt; if another attempt follows, the block suppresses the error.
Nothing is retried after ``attempt.is_committed`` is set. No other code retries requests.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from llm_magics.errors import ProviderError
from llm_magics.host import Progress
from llm_magics.http.tokens import RENEWALS, Renewals
from llm_magics.providers.base import BaseModelProvider
from llm_magics.runtime.policies.budget import Budget, Hold
from llm_magics.runtime.policies.rate_limit import ConcurrencyTuner, Permit, RateLimiter
from llm_magics.runtime.policies.retry import (
    BatchBreaker,
    CircuitBreakers,
    RetryPolicy,
    RetryState,
    is_overload,
    may_fall_back,
)
from llm_magics.runtime.routing import Candidate, Route
from llm_magics.runtime.telemetry.calls import note_failed_attempt
from llm_magics.settings.config import Config


class Services(Protocol):
    """The parts of a session that attempts need."""

    config: Config
    circuit_breakers: CircuitBreakers

    @property
    def budget(self) -> Budget:
        """The budget of all calls."""

    def limiter(self, provider: BaseModelProvider) -> RateLimiter:
        """Return the rate limiter of ``provider``."""


@dataclass(frozen=True)
class Batch:
    """
    The requests of one batch, such as those for the rows of a column.

    Attributes:
        tuner: determines how many of them run concurrently.
        breaker: ends all of them after several consecutive failures.
    """

    tuner: ConcurrencyTuner
    breaker: BatchBreaker = field(default_factory=BatchBreaker)
    _warnings: set[str] = field(default_factory=set, repr=False)

    def may_warn(self, message: str) -> bool:
        """Return whether no other request has issued the warning ``message``."""
        is_new = message not in self._warnings
        self._warnings.add(message)
        return is_new


def retry_policy(config: Config) -> RetryPolicy:
    """Return the retry policy from the settings."""
    return RetryPolicy(
        retries=config.retries,
        max_delay_s=config.max_retry_delay_s,
        timeout_s=config.retry_timeout_s,
    )


def waiting_text(provider: str, limiter: RateLimiter) -> str:
    """Return the text to show while a provider is paused; empty if it is not."""
    seconds = math.ceil(limiter.pause_s)
    return f"{provider} requests a delay of {seconds:,} s (rate limit)" if seconds else ""


def attempts(  # noqa: PLR0913 (policies as keyword arguments)
    services: Services,
    candidates: Sequence[Candidate],
    resolve: Callable[[Candidate], Awaitable[Route]],
    *,
    capability: str | None = None,
    tokens: Callable[[Route], int] = lambda route: 0,
    estimate_usd: Callable[[Route], float | None] = lambda route: None,
    batch: Batch | None = None,
    is_final: Callable[[ProviderError], bool] = lambda error: False,
) -> Attempts:
    """
    Try ``candidates`` in their order, each as often as the retry policy allows.

    Args:
        services: the session.
        candidates: the models that may answer.
        resolve: finds the provider of a candidate.
        capability: the capability for which the model is loaded; without one, it is not loaded.
        tokens: estimates the tokens of the request.
        estimate_usd: estimates its cost; ``None`` if unknown.
        batch: the batch to which the request belongs.
        is_final: whether an error is not retried here, because the caller handles it.

    Raises:
        ProviderError: the last candidate has failed, or another candidate would fail too.
        BudgetError: the request may cost more than the remaining budget.
    """
    return Attempts(
        services,
        candidates,
        resolve,
        capability=capability,
        tokens=tokens,
        estimate_usd=estimate_usd,
        batch=batch,
        is_final=is_final,
    )


class Attempts:
    """
    The attempts of one request.

    Attributes:
        failed: the candidates that failed, each with the reason.
    """

    def __init__(  # noqa: PLR0913 (only called by `attempts`)
        self,
        services: Services,
        candidates: Sequence[Candidate],
        resolve: Callable[[Candidate], Awaitable[Route]],
        *,
        capability: str | None,
        tokens: Callable[[Route], int],
        estimate_usd: Callable[[Route], float | None],
        batch: Batch | None,
        is_final: Callable[[ProviderError], bool],
    ) -> None:
        self.services = services
        self.capability = capability
        self.tokens = tokens
        self.estimate_usd = estimate_usd
        self.failed: list[str] = []
        self._candidates = candidates
        self._resolve = resolve
        self._batch = batch
        self._is_final = is_final
        self._repeated = 0
        self._renewals = Renewals()
        self._index = 0
        self._route: Route | None = None
        self._retry = RetryState(RetryPolicy())
        self._successes = 0
        self._delay_s = 0.0
        self._error: ProviderError | None = None
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Attempt:
        if self._is_over:
            raise StopAsyncIteration
        is_first = self._route is None
        RENEWALS.set(self._renewals)
        route = self._route or await self._next_route()
        return Attempt(self, route, is_first=is_first, delay_s=self._delay_s, error=self._error)

    @property
    def retries(self) -> int:
        """The number of repeated requests, including those with another token of an identity."""
        return self._repeated + self._renewals.count

    @property
    def batch(self) -> Batch | None:
        """The batch, for the last candidate only: failures of others do not end the batch."""
        return self._batch if self._is_last else None

    @property
    def _is_last(self) -> bool:
        return self._index == len(self._candidates) - 1

    async def _next_route(self) -> Route:
        """Find the provider of the next candidate that may be tried."""
        breakers = self.services.circuit_breakers
        while True:
            candidate = self._candidates[self._index]
            try:
                route = await self._resolve(candidate)
            except ProviderError as error:
                if not self._falls_back(error):
                    raise
                continue
            if self._is_last or breakers.may_try(route.provider.name):
                break
            self.failed.append(f"{candidate.model} (skipped after repeated failures)")
            self._index += 1
        policy = retry_policy(self.services.config)
        self._retry = RetryState(policy, clock=asyncio.get_running_loop().time)
        self._successes = self.services.limiter(route.provider).successes
        self._route, self._delay_s, self._error = route, 0.0, None
        return route

    def _falls_back(self, error: ProviderError) -> bool:
        """Switch to the next candidate if it may succeed; return whether there is one."""
        if self._is_last or not may_fall_back(error):
            if self.failed:
                error.hint = f"{error.hint or ''} Also failed: {', '.join(self.failed)}.".strip()
            return False
        self.failed.append(f"{self._candidates[self._index].model} ({type(error).__name__})")
        self._index += 1
        self._route = None
        return True

    def over(self) -> None:
        """End the iteration: no further attempt follows."""
        self._is_over = True

    def goes_on_after(self, error: ProviderError, attempt: Attempt) -> bool:
        """Return whether another attempt follows one that ended with ``error``."""
        delay_s = self._delay_after(error, attempt)
        if delay_s is not None:
            self._repeated += 1
            self._delay_s, self._error = delay_s, error
            return True
        breakers, name = self.services.circuit_breakers, attempt.route.provider.name
        (breakers.failed if may_fall_back(error) else breakers.succeeded)(name)
        return not attempt.is_committed and self._falls_back(error)

    def _delay_after(self, error: ProviderError, attempt: Attempt) -> float | None:
        """Return the seconds until the same candidate is retried; ``None`` if it is not."""
        limiter = self.services.limiter(attempt.route.provider)
        overloaded, breaker = is_overload(error), self.batch.breaker if self.batch else None
        pause_s = self._refused(error, attempt, limiter) if overloaded else 0.0
        if attempt.is_committed or self._is_final(error):
            delay_s = None
        elif overloaded:
            if limiter.successes != self._successes:
                self._successes = limiter.successes
                self._retry.progressed(limiter.last_success)
            is_moving = breaker is not None and breaker.successes > 0
            delay_s = self._retry.shared_delay_s(error, pause_s, is_batch_moving=is_moving)
        else:
            delay_s = self._retry.delay_s(error)
        if breaker is not None and (delay_s is None or not overloaded):
            breaker.failed(error)
            if breaker.is_open:
                return None
        # `RateLimiter.acquire` applies the pause, to all requests.
        return 0.0 if overloaded and delay_s is not None else delay_s

    def _refused(self, error: ProviderError, attempt: Attempt, limiter: RateLimiter) -> float:
        if attempt.number is None:
            return limiter.pause_s
        policy = retry_policy(self.services.config)
        if self.batch is not None:
            self.batch.tuner.refused()
        return limiter.refused(
            attempt.number, error.retry_after, policy.backoff_s, policy.max_delay_s
        )


class Attempt:
    """
    One request to one model.

    Attributes:
        route: the provider and the model.
        is_first: whether this is the first attempt with this model.
        is_committed: set it after yielding a part of the answer, to exclude retries.
        is_billed: set it when an answer has begun, which is billed even if it fails.
        cost_usd: set it to the cost of the answer; otherwise the estimate counts, unless the
            service answered with an error, or nothing was sent.
        amount: set it to the size of the answer, in the unit that the batch counts.
        number: the number of the request among all of its provider, after it was admitted.
    """

    def __init__(
        self,
        run: Attempts,
        route: Route,
        *,
        is_first: bool,
        delay_s: float,
        error: ProviderError | None,
    ) -> None:
        self.route = route
        self.is_first = is_first
        self.is_committed = False
        self.is_billed = False
        self.cost_usd: float | None = None
        self.amount = 1
        self.number: int | None = None
        self._run = run
        self._batch = run.batch
        self._delay_s = delay_s
        self._error = error
        self._permit: Permit | None = None
        self._hold: Hold | None = None
        self._resources = ExitStack()
        self._started_at: float | None = None

    async def ready(self) -> AsyncGenerator[Progress, None]:
        """Wait until the request may be sent, and load the model; yield the progress."""
        run, route, batch = self._run, self.route, self._batch
        limiter = run.services.limiter(route.provider)
        if self._delay_s or (self._error is not None and not limiter.pause_s):
            yield Progress(f"retrying {route.name} in {self._delay_s:.0f} s: {self._error}")
        if self._delay_s:
            sleep = batch.breaker.sleep if batch is not None else asyncio.sleep
            await sleep(self._delay_s)
        if waiting := waiting_text(route.provider.name, limiter):
            yield Progress(waiting)
        self._permit = await limiter.acquire(lambda: run.tokens(route))
        if batch is not None:
            batch.breaker.check()
        self.number = self._permit.number
        if run.capability is not None:
            async with aclosing(load_model(route, run.capability)) as loading:
                async for progress in loading:
                    yield progress
        budget = run.services.budget
        if budget.limit_usd is not None:
            held = budget.held(route.name, run.estimate_usd(route))
            self._hold = self._resources.enter_context(held)
        if batch is not None:
            self._started_at = batch.tuner.started()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        run = self._run
        try:
            if error is None:
                run.over()
                self._succeeded()
            elif isinstance(error, ProviderError):
                if self._hold is not None:
                    may_be_billed = self.is_billed or error.may_be_billed
                    self._hold.spent_usd = self.cost_usd if may_be_billed else 0.0
                return self._is_swallowed(error)
            else:
                run.over()
                run.services.circuit_breakers.abandoned(self.route.provider.name)
        finally:
            if self._batch is not None and self._started_at is not None:
                amount = self.amount if error is None else 0
                self._batch.tuner.finished(self._started_at, amount)
            self._resources.close()
            if self._permit is not None:
                await self._permit.release()
        return False

    def _succeeded(self) -> None:
        run, provider = self._run, self.route.provider
        if self.number is None:  # no request was needed, for example for a stored answer
            run.services.circuit_breakers.abandoned(provider.name)
            return
        if self._hold is not None:
            self._hold.spent_usd = self.cost_usd
        run.services.limiter(provider).succeeded(self.number)
        run.services.circuit_breakers.succeeded(provider.name)
        if self._batch is not None:
            self._batch.breaker.succeeded()

    def _is_swallowed(self, error: ProviderError) -> bool:
        goes_on = self._run.goes_on_after(error, self)
        if goes_on:
            note_failed_attempt(self.route.provider, self.route.model, error)
        else:
            self._run.over()
        return goes_on


async def load_model(route: Route, capability: str) -> AsyncGenerator[Progress, None]:
    """Download and load the model, and record the load time in ``route.load_s``."""
    loading_since: float | None = None
    async with aclosing(route.provider.prepare(route.model, capability)) as steps:
        async for progress in steps:
            if progress.is_load and loading_since is None:
                loading_since = time.perf_counter()
            yield progress
    if loading_since is not None:
        route.load_s = time.perf_counter() - loading_since
