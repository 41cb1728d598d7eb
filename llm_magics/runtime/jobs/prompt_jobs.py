"""The prompts of rows in batch jobs, with the interface of `llm_magics.runtime.batch.BatchCall`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from llm_magics._util.text import pluralize
from llm_magics.errors import AttachmentError, LLMError
from llm_magics.host import Progress, warn
from llm_magics.runtime import pricing
from llm_magics.runtime.answer_bounds import text_tokens
from llm_magics.runtime.answer_lookup import AnswerKeys
from llm_magics.runtime.batch import BatchCall, BatchEstimate, attachment_counts
from llm_magics.runtime.delivery import Deliveries
from llm_magics.runtime.jobs.prompts import HELD, LIVE, PENDING, RECORDED, STORED, PromptWork
from llm_magics.runtime.jobs.run import JobRun
from llm_magics.runtime.jobs.spending import log_jobs, run_in_budget
from llm_magics.runtime.jobs.work import JobOptions
from llm_magics.runtime.pricing import Estimate
from llm_magics.runtime.prompts.prompt import Prompt, PromptParameters
from llm_magics.runtime.response import Response, outcome, outcome_of_error
from llm_magics.runtime.routing import Route, find_route
from llm_magics.runtime.session import Session
from llm_magics.runtime.structured import StructuredCall
from llm_magics.secrets import redact
from llm_magics.types import StreamChunk
from llm_magics.wire.finish_reasons import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The number of prompts that are looked up at once, and of answers that are read at once.
_SLICE = 500


class PromptJobs:
    """
    Many prompts to one model, whose missing answers come from batch jobs.

    `events` can be iterated again, to wait for jobs that have not ended. ``responses`` are read
    from where they are stored.
    """

    def __init__(
        self, session: Session, prompts: Sequence[Prompt], options: JobOptions | None = None
    ) -> None:
        self._session = session
        self._prompts = prompts
        self.options = options or JobOptions()
        self._work: PromptWork | None = None
        self._run: JobRun | None = None
        self._live: dict[int, Response] = {}
        self._live_usd: float | None = 0.0
        self.done: Callable[[], str] = lambda: f"{self._answered:,} of {len(prompts):,} prompts"
        # How the attachments would be sent, in words, and the number of prompts that a job has.
        self.attachments = ""
        self.in_jobs = 0
        self.errors: dict[int, LLMError] = {}
        self.responses: Sequence[Response | None] = _Responses(self)
        self.job_ids: list[str] = []

    @property
    def _answered(self) -> int:
        return sum(self.is_answered(number) for number in range(len(self._prompts)))

    # What is stored.

    async def _looked_up(self) -> AsyncGenerator[Progress, None]:
        """Find the stored answers, once."""
        if self._work is not None or not self._prompts:
            return
        route = await self._route()
        parameters = PromptParameters(self._prompts[0], self._session.config)
        headers = parameters.merge(route.parameters).extra_headers
        keys = await AnswerKeys.of(route, headers)
        work = PromptWork(self._session, self._prompts, route=route, keys=keys)
        count = len(self._prompts)
        for start in range(0, count, _SLICE):
            yield Progress("looking for stored answers", start, count, "prompts")
            await asyncio.to_thread(work.look_up, range(start, min(count, start + _SLICE)))
        self.errors |= work.errors
        self._work = work

    async def _look_up(self) -> PromptWork | None:
        async with aclosing(self._looked_up()) as steps:
            async for _ in steps:
                pass
        return self._work

    async def _route(self) -> Route:
        """Return the first candidate: all prompts of a job are for one model."""
        return await find_route(
            self._session, self._prompts[0].model or str(self._session.config.model)
        )

    def _missing(self) -> NDArray[np.int32]:
        """Return the numbers of the prompts to submit."""
        if self._work is None:
            return np.empty(0, np.int32)
        is_missing = self._work.places == PENDING
        is_missing[[*self.errors, *self._work.misrecorded]] = False
        return self._work.distinct(np.flatnonzero(is_missing)).astype(np.int32)

    # Before it is sent.

    async def to_send(self) -> BatchEstimate:
        """Return the estimate of the prompts that no job has, at the price of batch jobs."""
        work = await self._look_up()
        missing = self._missing()
        if work is None or not missing.size:
            return BatchEstimate()
        plan = await self._job_run(work, missing).plan()
        self.in_jobs = plan.submitted
        return await self._estimate(work, plan.free)

    def _job_run(self, work: PromptWork, missing: NDArray[np.int32]) -> JobRun:
        return JobRun(self._session, work, cast("Sequence[int]", missing), options=self.options)

    async def _estimate(self, work: PromptWork, numbers: Sequence[int]) -> BatchEstimate:
        total = BatchEstimate()
        ways: Counter[str] = Counter()
        known: dict[int, Estimate] = {}  # by the length of the prompt
        for number in numbers:
            prompt = self._prompts[number]
            length = text_tokens(prompt.text)
            if prompt.attachments or length not in known:
                try:
                    deliveries = Deliveries(work.messages(number))
                    await deliveries.prepare(work.route)
                except AttachmentError:  # its row will have the error
                    ways["not readable"] += 1
                    continue
                ways.update(deliveries.counts())
                estimate = self._estimate_one(work, deliveries)
                if prompt.attachments:
                    total.add(estimate)
                    continue
                known[length] = estimate
            total.add(known[length])
        self.attachments = attachment_counts(ways)
        return total

    def _estimate_one(self, work: PromptWork, deliveries: Deliveries) -> Estimate:
        return pricing.chat_estimate(
            self._session.config,
            self._session.runs,
            work.route.provider,
            work.route.model,
            messages=deliveries.messages(work.route),
            parameters=work.parameters,
            attachment_tokens=deliveries.native_tokens(work.route),
            tier="batch",
        )

    async def may_cost(self) -> bool:
        """Return whether the model has a price, as far as prices are known."""
        if not self._prompts:
            return False
        route = await self._route()
        return pricing.has_price(self._session.config, route.provider, route.model)

    async def seconds(self, count: int) -> float | None:
        """Return ``None``: a service does not say how long a job takes."""
        return None if count else 0.0

    # Sending it.

    async def events(self) -> AsyncGenerator[Progress, None]:
        """
        Submit what no job has, wait for the jobs, and correct a few answers; yield the progress.

        Raises:
            BudgetError: the prompts to submit may cost more than the remaining budget.
            JobError: the jobs have not ended in time, or belong to another account.
        """
        async with aclosing(self._looked_up()) as steps:
            async for progress in steps:
                yield progress
        work = self._work
        if work is None:
            return
        async with aclosing(self._replayed(work)) as steps:
            async for progress in steps:
                yield progress
        missing = self._missing()
        if missing.size:
            async with aclosing(self._submitted(work, missing)) as steps:
                async for progress in steps:
                    yield progress
            if self._run is not None and not self._run.pending:
                await self._collect(work)
            async with aclosing(self._corrected(work)) as steps:
                async for progress in steps:
                    yield progress
        if work.gaps:
            documents = pluralize(len(work.gaps), "document")
            warn(f"The model did not get all pages of {documents}. {next(iter(work.gaps))}.")
            work.gaps.clear()
        for warning in work.warnings:
            warn(warning)
        work.warnings.clear()

    async def _submitted(
        self, work: PromptWork, missing: NDArray[np.int32]
    ) -> AsyncGenerator[Progress, None]:
        """Run the jobs within the budget, and log what was accepted."""
        run = self._run = self._job_run(work, missing)
        started = datetime.now(UTC)
        results, ending = work.results, ""
        estimate = BatchEstimate()
        if self._session.budget.limit_usd is not None:
            free = (await run.plan()).free
            estimate = await self._estimate(work, free) if free else estimate
        try:
            running = run_in_budget(
                self._session,
                run,
                work,
                estimate_usd=estimate.cost_usd,
                job_ids=self.job_ids,
            )
            async with aclosing(running) as steps:
                async for progress in steps:
                    yield progress
        except LLMError as error:
            ending = redact(f"{type(error).__name__}: {error}")
            raise
        finally:
            self.errors |= run.errors
            if work.results > results or ending:
                self._log(work, started, ending)

    async def _collect(self, work: PromptWork) -> None:
        """Find the answers that another kernel has stored meanwhile."""
        left = np.flatnonzero(work.places == PENDING)
        unread = [number for number in left.tolist() if number not in self.errors]
        for start in range(0, len(unread), _SLICE):
            part = unread[start : start + _SLICE]
            await asyncio.to_thread(work.look_up, part, is_new=True)

    async def _replayed(self, work: PromptWork) -> AsyncGenerator[Progress, None]:
        """Replay recorded answers that do not match the schema, with their corrections."""
        numbers, work.misrecorded = work.misrecorded, []
        call = BatchCall(self._session, [self._prompts[number] for number in numbers])
        async with aclosing(self._taken(call, numbers)) as steps:
            async for progress in steps:
                yield progress

    async def _corrected(self, work: PromptWork) -> AsyncGenerator[Progress, None]:
        """Let the model correct invalid answers in live calls, at most 1 % of the prompts."""
        invalid = {
            number: chunks for number, chunks in work.invalid.items() if number in self.errors
        }
        work.invalid.clear()
        if not self._session.config.schema_retries:
            return
        call = _Corrections(self._session, self._prompts, route=work.route, invalid=invalid)
        before = {number: self.errors.pop(number) for number in invalid}
        try:
            async with aclosing(self._taken(call, list(invalid))) as steps:
                async for progress in steps:
                    yield progress
        except LLMError as error:  # the jobs have succeeded: these rows join the next one
            warn(f"Some answers that do not match the schema were not corrected: {error}")
        finally:
            for number, misfit in before.items():
                if number not in self._live:
                    self.errors.setdefault(number, misfit)

    async def _taken(
        self, call: BatchCall, numbers: Sequence[int]
    ) -> AsyncGenerator[Progress, None]:
        """Run live calls, and take over their answers and errors."""
        if not numbers:
            return
        assert self._work is not None
        try:
            async with aclosing(call.events()) as steps:
                async for progress in steps:
                    yield progress
        finally:
            for position, number in enumerate(numbers):
                response = call.responses[position]
                if position in call.errors:
                    self.errors[number] = call.errors[position]
                elif response is not None:
                    self._live[number] = response
                    self._work.places[number] = LIVE
            usd = call.cost_usd
            known = usd is not None and self._live_usd is not None
            self._live_usd = (self._live_usd or 0.0) + (usd or 0.0) if known else None

    def _log(self, work: PromptWork, started: datetime, error: str) -> None:
        """Log the call as one run."""
        usage, cost_usd = work.take_usage()
        log_jobs(self._session, work.route, started, usage=usage, cost_usd=cost_usd, error=error)

    # The results.

    def wait_for(self, timeout_s: float) -> None:
        """Let the next `events` wait until the jobs have ended, at most ``timeout_s``."""
        self.options = replace(self.options, wait=True, timeout_s=timeout_s, is_fresh=False)

    @property
    def pending(self) -> int:
        """The number of prompts whose jobs have not ended."""
        return 0 if self._work is None else int(self._missing().size)

    def outcome(self, number: int) -> Outcome | None:
        """Return how the answer to a prompt ended; ``None`` if it has not ended."""
        if number in self.errors:
            return outcome_of_error(self.errors[number])
        place = PENDING if self._work is None else self._work.places[number]
        if place == PENDING:
            return None
        if place in (HELD, RECORDED, LIVE):  # it may be cut at the user's own limit
            response = self.responses[number]
            return None if response is None else outcome(response)
        return Outcome.OK

    def is_answered(self, number: int) -> bool:
        """Return whether a prompt has an answer that can be used."""
        is_there = self._work is not None and self._work.places[number] != PENDING
        return bool(is_there) and number not in self.errors

    def is_cached(self, number: int) -> bool:
        """Return whether the answer to a prompt was cached, so that it is free."""
        if self._work is None or not self.is_answered(number):
            return False
        if number in self._live:
            return self._live[number].cached
        return self._work.places[number] not in (STORED, HELD)

    @property
    def sent(self) -> int:
        """The number of prompts that were answered in this call."""
        live = sum(not each.cached for each in self._live.values())
        return live if self._work is None else live + self._work.accepted

    @property
    def cost_usd(self) -> float | None:
        """The cost in US dollars; ``None`` if the cost of an answer is unknown."""
        costs = (0.0 if self._work is None else self._work.cost_usd, self._live_usd)
        return None if costs[0] is None or costs[1] is None else costs[0] + costs[1]

    def read(self, numbers: Sequence[int]) -> list[Response | None]:
        """Return the answers to prompts, or the received parts of them."""
        found: Mapping[int, Response] = {} if self._work is None else self._work.read(numbers)
        return [
            self._live.get(number) or found.get(number) or self._part(number) for number in numbers
        ]

    def _part(self, number: int) -> Response | None:
        partial = getattr(self.errors.get(number), "partial", None)
        return partial if isinstance(partial, Response) else None

    @property
    def count(self) -> int:
        """The number of prompts."""
        return len(self._prompts)


class _Responses(Sequence["Response | None"]):
    """The answers of a `PromptJobs`, read when they are needed."""

    def __init__(self, call: PromptJobs) -> None:
        self._call = call

    def __len__(self) -> int:
        return self._call.count

    def __getitem__(self, number: Any) -> Any:
        numbers = range(len(self))[number]
        return (
            self._call.read(numbers)
            if isinstance(number, slice)
            else self._call.read([numbers])[0]
        )

    def __iter__(self) -> Iterator[Response | None]:
        for start in range(0, len(self), _SLICE):
            yield from self[start : start + _SLICE]


class _Corrections(BatchCall):
    """Live calls that begin with an answer that does not match the schema."""

    def __init__(
        self,
        session: Session,
        prompts: Sequence[Prompt],
        *,
        route: Route,
        invalid: Mapping[int, Sequence[StreamChunk]],
    ) -> None:
        super().__init__(session, [prompts[number] for number in invalid])
        self._given = route, list(invalid.values())

    async def _create(self, number: int, parameters: PromptParameters) -> StructuredCall:
        call = await super()._create(number, parameters)
        route, answers = self._given
        await call.start_from(route, answers[number])
        return call
