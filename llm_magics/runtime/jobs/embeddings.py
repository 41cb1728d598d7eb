"""
The vectors of texts from batch jobs, with the interface of `llm_magics.runtime.embedding`.

A text has the key and the checks of a live call. Vectors are stored as they are read, in the
vector store, so that live calls find them, and jobs find those of live calls.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.errors import (
    ContextLengthError,
    JobError,
    LLMError,
    ProviderError,
    UnsupportedError,
    UsageError,
)
from llm_magics.host import Progress
from llm_magics.providers.batches.offline import LiveRequest
from llm_magics.providers.batches.service import BatchResult, BatchService
from llm_magics.runtime import pricing
from llm_magics.runtime.embedding.call import EmbeddingCall
from llm_magics.runtime.embedding.request import Sender, embed_mean_of_parts
from llm_magics.runtime.embedding.results import OK, EmbeddingResults, EmbedOptions
from llm_magics.runtime.embedding.vector_cache import VectorCache
from llm_magics.runtime.jobs.run import JobRun
from llm_magics.runtime.jobs.spending import log_jobs, run_in_budget
from llm_magics.runtime.jobs.work import Accepted, JobOptions, Kind
from llm_magics.runtime.pricing import Estimate
from llm_magics.runtime.response import Response
from llm_magics.runtime.routing import Route, find_route
from llm_magics.runtime.session import Session
from llm_magics.runtime.storage import run_log
from llm_magics.secrets import redact
from llm_magics.types import StreamChunk, Usage
from llm_magics.usage import add_usage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


class EmbeddingWork:
    """
    Texts to embed with one model.

    Attributes:
        accepted: the number of accepted vectors.
        usage: the tokens that the service counted.
        cost_usd: the cost of the results in US dollars; ``None`` if a part of it is unknown.
    """

    kind: Kind = "embedding"

    def __init__(  # noqa: PLR0913 (the parts of one call)
        self,
        *,
        session: Session,
        route: Route,
        texts: Sequence[str],
        options: EmbedOptions,
        results: EmbeddingResults,
        cache: VectorCache,
    ) -> None:
        self.route = route
        self._config = session.config
        self._texts = texts
        self._options = options
        self._results = results
        self._cache = cache
        self._service: BatchService = route.provider.batch_service()
        self._space = json.dumps(cache.space, sort_keys=True, default=str).encode()
        self._length: int | None = None
        self.accepted = 0
        self.usage = Usage()
        self.cost_usd: float | None = 0.0
        self._spent_usd = 0.0

    def key(self, number: int) -> bytes:
        """Return a digest of the text and of everything else that determines its vector."""
        text = self._texts[number].encode("utf-8", "surrogatepass")
        parts = b"%d\0%s%s" % (len(self._space), self._space, text)
        return blake2b(parts, digest_size=32, person=b"llm_magics texts").digest()

    async def request(self, number: int) -> LiveRequest:
        """Return the request that a live call would send for this text alone."""
        return self._service.embedding_request(
            self._texts[number], self.route.model, self._options.dimensions
        )

    async def accept(self, results: Sequence[tuple[int, BatchResult]]) -> list[Accepted]:
        """
        Store the vectors in the vector store and the recording.

        Raises:
            JobError: the vector store could not be written.
            ProviderError: the vectors differ in length from stored ones.
        """
        read = {number: self._read(result) for number, result in results}
        vectors = {number: each for number, (each, _) in read.items() if isinstance(each, list)}
        if self._length is None and vectors:
            self._length = Counter(map(len, vectors.values())).most_common(1)[0][0]
        errors = {number: each for number, (each, _) in read.items() if isinstance(each, LLMError)}
        errors |= {
            number: self._odd_length(number, len(each))
            for number, each in vectors.items()
            if len(each) != self._length
        }
        good = [number for number in vectors if number not in errors]
        if good:
            await self._store(good, np.array([vectors[each] for each in good], np.float32))
        for number in good:
            if self._results.outcomes[number] != OK:  # not finite, or all zeros
                errors[number] = self._results.errors[number]
            else:
                self._results.errors.pop(number, None)
        accepted = [self._accepted(errors.get(number), read[number][1]) for number, _ in results]
        self.accepted += sum(each.error is None for each in accepted)
        return accepted

    def _read(self, result: BatchResult) -> tuple[list[float] | LLMError, Usage | None]:
        """Return the vector or the error in a result, and its tokens; ``None`` if it is free."""
        if result.body is None:
            return result.error or ProviderError("The service returned no vector."), None
        try:
            vector, usage = self._service.parse_vector(result.body)
            return list(map(float, vector)), usage
        except LLMError as error:
            return error, None
        except (TypeError, ValueError, OverflowError) as error:
            msg = f"{self.route.name} returned an invalid vector: {error}."
            return ProviderError(msg, provider=self.route.provider.name), None

    def _odd_length(self, number: int, length: int) -> LLMError:
        text = self._texts[number]
        msg = (
            f"The service returned {length} dimensions for {text[:60]!r}, but {self._length} for "
            "other texts."
        )
        return ProviderError(msg, provider=self.route.provider.name)

    async def _store(self, numbers: list[int], rows: Floats) -> None:
        requested = self._options.dimensions
        if requested not in (None, rows.shape[1]):
            msg = (
                f"{self.route.name} gave vectors of {rows.shape[1]} dimensions, and {requested} "
                "were asked for. They were not kept."
            )
            hint = "The model does not support this number of dimensions; remove dimensions."
            raise UnsupportedError(msg, hint=hint, provider=self.route.provider.name)
        # The journal records next that the vector is stored, so it must be on the disk.
        if not await self._cache.store(numbers, rows, is_synced=True):
            msg = "The vectors could not be stored."
            hint = "Free some space, or change the setting vectors, and run it again to read them again."
            raise JobError(msg, hint=hint)

    def _accepted(self, error: LLMError | None, usage: Usage | None) -> Accepted:
        if usage is None:
            return Accepted(error=error)
        usage = replace(usage, output_tokens=0, service_tier="batch")
        provider, model = self.route.provider, self.route.model
        cost_usd = pricing.cost_usd(self._config, provider, model, usage)
        self.usage = add_usage(self.usage, usage)
        self._spent_usd += cost_usd or 0.0
        known = self.cost_usd is not None and cost_usd is not None
        self.cost_usd = (self.cost_usd or 0.0) + (cost_usd or 0.0) if known else None
        return Accepted(error=error, cost_usd=cost_usd, usage=usage)

    def take_spent(self) -> float:
        """Return the known cost since the last call of this method."""
        spent_usd, self._spent_usd = self._spent_usd, 0.0
        return spent_usd


class EmbeddingJobs(EmbeddingCall):
    """
    Embeds texts in batch jobs; ``results`` has the outcome of each text.

    `events` can be iterated again, to wait for jobs that have not ended.

    Attributes:
        options: whether and how long to wait.
        in_jobs: the number of texts that batch jobs had before this call.
        job_ids: our identifiers of the jobs.
    """

    def __init__(
        self,
        *,
        session: Session,
        texts: Sequence[str],
        model: str | None = None,
        options: EmbedOptions | None = None,
        job_options: JobOptions | None = None,
    ) -> None:
        super().__init__(session=session, texts=texts, model=model, options=options)
        self.options = job_options or JobOptions()
        self.in_jobs = 0
        self.job_ids: list[str] = []
        self._work: EmbeddingWork | None = None
        self._logged: tuple[int, float] = 0, 0.0

    def wait_for(self, seconds: float) -> None:
        """Let the next iteration of `events` wait for the jobs, at most this long."""
        self.options = replace(self.options, wait=True, timeout_s=seconds)

    @property
    def pending(self) -> int:
        """The number of texts whose jobs have not ended."""
        return len(self.results.pending)

    async def max_cost_usd(self) -> float | None:
        if not self._texts:
            return 0.0
        route = await find_route(self._session, self._model)
        if not pricing.has_price(self._session.config, route.provider, route.model):
            return None
        return self._estimated(route, range(len(self._texts))).cost_usd

    async def estimate(self) -> tuple[str, int, Estimate]:
        """Return the model, the number of texts that no job has, and their estimate."""
        route, work = await self._look_up()
        missing = self._missing(work)
        plan = await JobRun(self._session, work, missing, options=self.options).plan()
        self.in_jobs = plan.submitted
        return route.name, len(plan.free), self._estimated(route, plan.free)

    async def events(self) -> AsyncGenerator[Progress, None]:
        """
        Submit the texts that no job has, wait for the jobs, and yield the progress.

        Raises:
            UsageError: vectors are not stored.
            BudgetError: the texts to submit may cost more than the remaining budget.
            JobError: the jobs have not ended in time, or belong to another account.
        """
        if not self._texts:
            return
        began, started = time.perf_counter(), datetime.now(UTC)
        _, work = await self._look_up()
        if not self.results.pending:
            return
        accepted, ending = work.accepted, ""
        try:
            async with aclosing(self._submitted(work)) as steps:
                async for progress in steps:
                    self._elapsed_s = time.perf_counter() - began
                    yield progress
        except LLMError as error:
            ending = redact(f"{type(error).__name__}: {error}")
            raise
        finally:
            if work.accepted > accepted or ending:
                self._log(started, ending)

    async def _look_up(self) -> tuple[Route, EmbeddingWork]:
        """Find the stored vectors, once."""
        if self._route is not None and self._work is not None:
            return self._route, self._work
        self._route = route = await find_route(self._session, self._model)
        service = route.provider.batch_service()
        service.embedding_request("", route.model, self._options.dimensions)
        await self._find_cached(route)
        assert self._cache is not None
        if self.results.pending and not self._cache.is_stored:
            msg = "Vectors from batch jobs must be stored, but the setting vectors is off."
            hint = "Leave out batch, or set it to a folder: %llm config vectors FOLDER"
            raise UsageError(msg, hint=hint)
        self._work = EmbeddingWork(
            session=self._session,
            route=route,
            texts=self._texts,
            options=self._options,
            results=self.results,
            cache=self._cache,
        )
        return route, self._work

    def _missing(self, work: EmbeddingWork) -> list[int]:
        """Return the texts to submit: of equal ones, which differ in bad Unicode only, the first."""
        first: dict[bytes, int] = {}
        for number in self.results.pending:
            first.setdefault(work.key(number), number)
        return list(first.values())

    def _estimated(self, route: Route, numbers: Sequence[int]) -> Estimate:
        texts = (self._texts[number] for number in numbers)
        return pricing.embedding_estimate(
            self._session.config, route.provider, route.model, texts, tier="batch"
        )

    async def _submitted(self, work: EmbeddingWork) -> AsyncGenerator[Progress, None]:
        run = JobRun(self._session, work, self._missing(work), options=self.options)
        estimate_usd = None
        if self._session.budget.limit_usd is not None:
            estimate_usd = self._estimated(work.route, (await run.plan()).free).cost_usd
        try:
            running = run_in_budget(
                self._session,
                run,
                work,
                estimate_usd=estimate_usd,
                job_ids=self.job_ids,
            )
            async with aclosing(running) as steps:
                async for progress in steps:
                    yield progress
        finally:
            for number, error in run.errors.items():
                self.results.fail(number, error)
        assert self._cache is not None
        self._cache.find_new()  # those of other kernels
        await self._shorten(run.errors)

    async def _shorten(self, errors: dict[int, LLMError]) -> None:
        """Embed texts that are too long by the option ``too_long``, at most 1 % of all, live."""
        assert self._route is not None
        assert self._cache is not None
        policy = self._options.too_long
        too_long = {
            number: error
            for number, error in errors.items()
            if isinstance(error, ContextLengthError)
        }
        if policy == "error" or not too_long:
            return
        self._sender = self._sender or Sender(
            session=self._session, route=self._route, dimensions=self._options.dimensions
        )
        treat = self._truncated if policy == "truncate" else embed_mean_of_parts
        for number in sorted(too_long)[: max(1, len(self._texts) // 100)]:
            try:
                rows = await treat(self._texts[number], too_long[number], self._sender.send)
            except LLMError as error:  # the vectors of the jobs are there
                self.results.fail(number, error)
                continue
            self.results.errors.pop(number, None)
            await self._cache.store([number], rows, self._cache.treatment)

    # Measurements.

    @property
    def sent(self) -> int:
        """The number of texts that were answered in this call."""
        return super().sent + (self._work.accepted if self._work else 0)

    def response(self) -> Response:
        """Return the tokens and the cost of the call, as a response without text."""
        live = super().response()
        work = self._work
        costs = [work.cost_usd if work else 0.0, live.cost_usd if self._sender else 0.0]
        known = [usd for usd in costs if usd is not None]
        usage = add_usage(work.usage, live.usage) if work else live.usage
        chunks = [StreamChunk(elapsed_s=self._elapsed_s)] if self._elapsed_s else []
        return replace(
            live,
            usage=usage,
            timing=run_log.measure(chunks, usage),
            cost_usd=sum(known) if len(known) == len(costs) else None,
        )

    def _log(self, started: datetime, error: str) -> None:
        """Log the call as one run."""
        assert self._route is not None
        response, (tokens, usd) = self.response(), self._logged
        total_tokens, total_usd = response.usage.input_tokens or 0, response.cost_usd
        self._logged = total_tokens, usd if total_usd is None else total_usd
        log_jobs(
            self._session,
            self._route,
            started,
            usage=Usage(total_tokens - tokens),
            cost_usd=None if total_usd is None else total_usd - usd,
            error=error,
        )
