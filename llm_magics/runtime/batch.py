"""Send many prompts to one model concurrently; each answer is stored when it is complete."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from llm_magics._async.concurrency import merge_streams, run_bounded
from llm_magics._util.text import pluralize
from llm_magics.errors import (
    AttachmentError,
    AuthenticationError,
    BudgetError,
    ConfigurationError,
    LLMError,
    ModelNotFoundError,
    ProviderError,
    UsageError,
)
from llm_magics.host import Progress, warn
from llm_magics.runtime import pricing
from llm_magics.runtime.attempts import Batch, waiting_text
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.policies.rate_limit import ConcurrencyTuner, RateLimiter
from llm_magics.runtime.policies.retry import is_service_failure, with_hint
from llm_magics.runtime.pricing import Estimate
from llm_magics.runtime.prompts.prompt import Prompt, PromptParameters
from llm_magics.runtime.response import Response, cut_error, outcome, outcome_of_error
from llm_magics.runtime.routing import Route, find_candidates, find_route, route_to
from llm_magics.runtime.session import Session
from llm_magics.runtime.structured import StructuredCall
from llm_magics.types import StreamChunk
from llm_magics.wire.finish_reasons import Outcome

# Errors that apply to all prompts of a batch.
_BATCH_ERRORS = (
    AuthenticationError,
    BudgetError,
    ConfigurationError,
    ModelNotFoundError,
    UsageError,
)

_FAILURES = tuple(each for each in Outcome if each is not Outcome.OK)

# The initial number of concurrent requests. A user's own server is overloaded sooner than a
# service.
_INITIAL_CONCURRENCY = 8
_INITIAL_CONCURRENCY_LOCAL = 2


@dataclass(slots=True, kw_only=True)
class BatchEstimate:
    """
    The estimate of several prompts.

    Attributes:
        prompts: the number of prompts.
        input_tokens, output_tokens: their tokens.
        known_usd: the cost of those whose price is known, in US dollars.
        has_unknown_cost: whether the price of some prompts is unknown.
    """

    prompts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    known_usd: float = 0.0
    has_unknown_cost: bool = False

    def add(self, estimate: Estimate) -> None:
        """Add a prompt."""
        self.prompts += 1
        self.input_tokens += estimate.input_tokens
        self.output_tokens += estimate.output_tokens
        self.known_usd += estimate.cost_usd or 0.0
        self.has_unknown_cost |= estimate.cost_usd is None

    @property
    def cost_usd(self) -> float | None:
        """The cost in US dollars; ``None`` if the price of a prompt is unknown."""
        return None if self.has_unknown_cost else self.known_usd


class BatchCall:
    """
    Many prompts; afterwards ``responses`` and ``errors`` contain the result of each.

    A prompt that fails individually has an error, and does not stop the others. After several
    consecutive failures of the service the call ends, and the remaining prompts are not sent.
    """

    def __init__(
        self, session: Session, prompts: Sequence[Prompt], concurrency: int | None = None
    ) -> None:
        self._session = session
        self._prompts = prompts
        self._concurrency = concurrency
        self._batch: Batch | None = None
        self._parameters: PromptParameters | None = None
        self._waiting: Callable[[], str] = str
        self._failed_in_row: list[int] = []
        self._gaps: list[str] = []
        self.done: Callable[[], str] = self._done
        # How the attachments would be sent, in words; set by `to_send`.
        self.attachments = ""
        # As of `PromptJobs`: the number of prompts in batch jobs, and the jobs.
        self.in_jobs = 0
        self.job_ids: list[str] = []
        self.responses: list[Response | None] = [None] * len(prompts)
        self.errors: dict[int, LLMError] = {}
        # Totals for the progress, because summing them at each step would take quadratic time.
        self._counts: Counter[Outcome | None] = Counter()
        self._cached = 0
        self._cost_usd = 0.0
        self._has_unknown_cost = False
        self._total = len(prompts)
        self._began: float | None = None

    def continue_from(self, earlier: BatchCall, total: int = 0) -> None:
        """
        Include ``earlier`` in the progress of this call, which is its continuation.

        ``total`` is the expected number of prompts of all calls.
        """
        self._counts.update(earlier._counts)
        self._cached += earlier._cached
        self._cost_usd += earlier._cost_usd
        self._has_unknown_cost |= earlier._has_unknown_cost
        self._total = max(total, earlier._counts.total() + len(self._prompts))
        self._began = earlier._began

    @property
    def is_broken_off(self) -> bool:
        """Whether the call ended because of failures of the service."""
        return self._batch is not None and self._batch.breaker.is_open

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Send all prompts and yield the progress."""
        if not self._prompts:
            return
        model = self._model
        route = await find_route(self._session, model)
        limiter = self._session.limiter(route.provider)
        tuner = self._tuner(route, limiter)
        self._batch = Batch(tuner)
        self._waiting = lambda: waiting_text(route.provider.name, limiter)
        began = self._began = self._began or time.perf_counter()
        news: asyncio.Queue[None] = asyncio.Queue()
        forget = limiter.on_pause(lambda: news.put_nowait(None))
        numbers = range(len(self._prompts))
        try:
            async with aclosing(
                run_bounded(lambda: tuner.level, self._ask, numbers, news)
            ) as steps:
                async for _ in steps:
                    yield self._progress(model, time.perf_counter() - began)
        except ProviderError as error:
            if is_service_failure(error):
                raise self._broken_off(error) from error
            raise
        finally:
            forget()
        if self._gaps:
            documents = pluralize(len(self._gaps), "document")
            warn(f"The model did not get all pages of {documents}. {self._gaps[0]}.")

    def _broken_off(self, error: ProviderError) -> ProviderError:
        """Return ``error`` with the number of answers so far, and how to continue."""
        for number in self._failed_in_row:  # not caused by these prompts: they are sent again
            self._counts[self.outcome(number)] -= 1
            self.errors.pop(number, None)
            self.responses[number] = None
        hint = f"{self.done()} are answered and stored. Run it again to send the rest."
        failures = self._batch.breaker.failures if self._batch and self.is_broken_off else 0
        return with_hint(error, failures, hint)

    def _done(self) -> str:
        """Return the number of answers in words; a run over a column replaces this to count rows."""
        good = [number for number, each in enumerate(self.responses) if each is not None]
        done = len(set(good) - set(self.errors))
        return f"{done:,} of {len(self._prompts):,} prompts"

    def _tuner(self, route: Route, limiter: RateLimiter) -> ConcurrencyTuner:
        """Return the tuner of concurrent prompts, which is fixed or finds the fastest number."""
        if self._concurrency is not None:
            return limiter.fixed_tuner(self._concurrency)
        if route.provider.embedding_concurrency == 1:  # it runs in this process, one at a time
            return limiter.fixed_tuner(1)
        is_own = route.provider.is_free(route.model)
        return limiter.tuner(
            f"chat {route.model}", _INITIAL_CONCURRENCY_LOCAL if is_own else _INITIAL_CONCURRENCY
        )

    async def to_send(self) -> BatchEstimate:
        """Return the estimate of all prompts without a stored answer, without sending them."""
        total = BatchEstimate()
        ways: Counter[str] = Counter()
        for prompt in self._prompts:  # one after the other, because attachments may be large
            try:
                call = ChatCall(self._session, prompt, parameters=self._parameters_of(prompt))
                estimate = await call.to_send()
            except AttachmentError:  # its row will have the error
                ways["not readable"] += 1
                continue
            if estimate is not None:
                total.add(estimate)
            ways.update(call.deliveries.counts())
        self.attachments = attachment_counts(ways)
        return total

    async def may_cost(self) -> bool:
        """Return whether any candidate model has a price, as far as prices are known."""
        if not self._prompts:
            return False
        for each in await find_candidates(self._session, self._model):
            route = await route_to(self._session, each)
            if pricing.has_price(self._session.config, route.provider, route.model):
                return True
        return False

    async def seconds(self, count: int) -> float | None:
        """Return the estimated seconds for ``count`` prompts, based on earlier answers."""
        if not self._prompts:
            return 0.0
        route = await find_route(self._session, self._model)
        each_s = self._session.runs.median_seconds(route.provider.name, route.model)
        return None if each_s is None else each_s * count / self._at_once(route)

    @property
    def _model(self) -> str:
        return self._prompts[0].model or str(self._session.config.model)

    def _at_once(self, route: Route) -> int:
        return self._tuner(route, self._session.limiter(route.provider)).level

    async def _ask(self, number: int) -> None:
        prompt = self._prompts[number]
        parameters = self._parameters_of(prompt)
        try:
            call = await self._create(number, parameters)
        except AttachmentError as error:
            self.errors[number] = error
            self.responses[number] = Response("", self._model)
            self._counts[self.outcome(number)] += 1
            return
        try:
            async with aclosing(call.events()) as events:
                async for _ in events:
                    pass
            call.response().check()
            if call.is_cut_unasked:  # cut off, although the user set no limit
                raise cut_error(call.response())
        except _BATCH_ERRORS:
            raise
        except LLMError as error:
            if self.is_broken_off or _is_unreachable(error):
                raise
            self.errors[number] = error
            if isinstance(error, ProviderError) and is_service_failure(error):
                self._failed_in_row.append(number)
            else:
                self._failed_in_row.clear()
        else:
            self._failed_in_row.clear()
        self._gaps += call.gaps
        response = self.responses[number] = without_attachments(call.response())
        self._counts[self.outcome(number)] += 1
        self._cached += response.cached
        self._cost_usd += response.cost_usd or 0.0
        self._has_unknown_cost |= response.cost_usd is None

    async def _create(self, number: int, parameters: PromptParameters) -> StructuredCall:
        """Return the call of one prompt."""
        prompt = self._prompts[number]
        return StructuredCall(self._session, prompt, self._batch, parameters=parameters)

    def _parameters_of(self, prompt: Prompt) -> PromptParameters:
        """Return the parameters of a prompt; shared with the previous prompt if they are equal."""
        if self._parameters is None or not self._parameters.are_of(prompt):
            self._parameters = PromptParameters(prompt, self._session.config)
        return self._parameters

    def outcome(self, number: int) -> Outcome | None:
        """Return how the answer to a prompt ended; ``None`` if it has not ended."""
        if number in self.errors:
            return outcome_of_error(self.errors[number])
        response = self.responses[number]
        return None if response is None else outcome(response)

    def is_answered(self, number: int) -> bool:
        """Return whether a prompt has an answer that can be used."""
        return self.responses[number] is not None and number not in self.errors

    def is_cached(self, number: int) -> bool:
        """Return whether the answer to a prompt was cached, so that it is free."""
        response = self.responses[number]
        return response is not None and response.cached

    @property
    def sent(self) -> int:
        """The number of prompts that were sent and answered."""
        return sum(each is not None and not each.cached for each in self.responses)

    @property
    def cost_usd(self) -> float | None:
        """The cost in US dollars; ``None`` if the cost of an answer is unknown."""
        costs = [each.cost_usd for each in self.responses if each is not None]
        known = [usd for usd in costs if usd is not None]
        return sum(known) if len(known) == len(costs) else None

    def _progress(self, model: str, elapsed_s: float) -> Progress:
        parts = [f"prompting {model}"]
        waiting = self._waiting()
        parts += [f"{self._cached:,} cached"] if self._cached else []
        parts += [f"{self._counts[each]:,} {each}" for each in _FAILURES if self._counts[each]]
        at_least = "at least " if self._has_unknown_cost else ""
        parts += [f"{at_least}${self._cost_usd:.2g}"] if self._cost_usd else []
        parts += [waiting] if waiting else []
        return Progress(
            " · ".join(parts),
            self._counts.total(),
            self._total,
            "prompts",
            elapsed_s,
            before=self._cached,
        )


def attachment_counts(ways: Counter[str]) -> str:
    """Return the numbers of attachments by the way in which they are sent, in words."""
    pages = ways.pop("page", 0)
    parts = [f"{count:,} {way}" for way, count in ways.items()]
    return ", ".join([*parts, *([pluralize(pages, "page")] if pages else [])])


def without_attachments(response: Response) -> Response:
    """Return ``response`` without the files that were sent, which would fill the memory."""
    if not any(message.attachments or message.images for message in response.messages):
        return response
    messages = [replace(each, attachments=(), images=()) for each in response.messages]
    return replace(response, messages=messages)


def _is_unreachable(error: LLMError) -> bool:
    """Return whether nothing listens at the address, so that all other prompts would fail too."""
    return isinstance(error, ProviderError) and error.code == "unreachable"


Event = Progress | StreamChunk


class ParallelCalls:
    """
    Several calls at the same time; one that fails does not stop the others.

    ``errors`` contains the error of each call; ``None`` for a successful one.
    """

    def __init__(self, calls: Sequence[ChatCall]) -> None:
        self._calls = calls
        self.errors: list[LLMError | None] = [None] * len(calls)
        self._ended: list[int] = []

    def ended(self) -> list[tuple[int, LLMError | None]]:
        """Return the number and the error of each call that has ended, in that order."""
        return [(number, self.errors[number]) for number in self._ended.copy()]

    async def events(self) -> AsyncGenerator[tuple[int, Event], None]:
        """Yield each event with the number of its call; closing the generator stops all calls."""
        streams = [self._events_of(number) for number in range(len(self._calls))]
        async with aclosing(merge_streams(streams)) as events:
            async for event in events:
                yield event

    async def _events_of(self, number: int) -> AsyncGenerator[Event, None]:
        try:
            async with aclosing(self._calls[number].events()) as events:
                async for event in events:
                    yield event
        except LLMError as error:
            self.errors[number] = error
        self._ended.append(number)
