"""
Embed many texts, batch by batch.

Vectors of earlier calls are reused, and new ones are stored immediately, so that a call that ends
early loses nothing. A batch that the service refuses because of its texts is halved repeatedly
until the texts at fault are found. Any other error that remains after the retries ends the call.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import numpy as np

from llm_magics._async.concurrency import run_bounded
from llm_magics._util.text import Bounds, batches, replace_lone_surrogates
from llm_magics.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    UnsupportedError,
)
from llm_magics.host import Progress
from llm_magics.runtime import pricing
from llm_magics.runtime.attempts import Batch, load_model, retry_policy, waiting_text
from llm_magics.runtime.embedding import request
from llm_magics.runtime.embedding.request import Send, Sender, embed_mean_of_parts, embed_truncated
from llm_magics.runtime.embedding.results import (
    FAILED,
    OK,
    PENDING,
    EmbeddingResults,
    EmbedOptions,
    Throughput,
    ThroughputMeter,
    is_usable,
)
from llm_magics.runtime.embedding.vector_cache import VectorCache
from llm_magics.runtime.policies.rate_limit import ConcurrencyTuner, RateLimiter
from llm_magics.runtime.policies.retry import is_service_failure, with_hint
from llm_magics.runtime.pricing import Estimate
from llm_magics.runtime.response import Response
from llm_magics.runtime.routing import Route, find_route, log_call
from llm_magics.runtime.session import Session
from llm_magics.runtime.storage import run_log
from llm_magics.runtime.telemetry.attributes import CallDetails
from llm_magics.types import StreamChunk, Usage

if TYPE_CHECKING:
    from llm_magics.runtime.embedding.results import Floats

# Errors that do not depend on the texts.
_CALL_ERRORS = (
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    ModelNotFoundError,
    RateLimitError,
    UnsupportedError,
)

# If this many texts are refused and none is accepted, the cause is not the texts.
_MAX_REFUSALS = 8

# The maximum delay between consecutive failing batches, in seconds.
_MAX_BACK_OFF_S = 2.0


class EmbeddingCall:
    """Embeds ``texts``, which are distinct and not empty; ``results`` has the outcome of each."""

    def __init__(
        self,
        *,
        session: Session,
        texts: Sequence[str],
        model: str | None = None,
        options: EmbedOptions | None = None,
    ) -> None:
        self._session = session
        self._options = options = options or EmbedOptions()
        self._texts = [text if text.isascii() else replace_lone_surrogates(text) for text in texts]
        if options.prefix:
            prefix = replace_lone_surrogates(options.prefix)
            self._texts = [f"{prefix}{text}" for text in self._texts]
        self._model = model or session.config.embedding_model
        self._route: Route | None = None
        self._sender: Sender | None = None
        self._cache: VectorCache | None = None
        self._batch: Batch | None = None
        self._meter = ThroughputMeter()
        self._waiting: Callable[[], str] = str
        self._cpu_s = self._sending_s = 0.0
        self._elapsed_s: float | None = None
        self.results = EmbeddingResults(len(texts), self._texts)

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Embed the texts and yield the progress."""
        if not self._texts:
            return
        self._route = route = await find_route(self._session, self._model)
        limiter = self._session.limiter(route.provider)
        self._batch = Batch(self._tuner(route, limiter))
        self._waiting = lambda: waiting_text(route.provider.name, limiter)
        self._sender = Sender(
            session=self._session,
            route=route,
            dimensions=self._options.dimensions,
            batch=self._batch,
        )
        with log_call(self._session, "embedding", lambda: route, self.response, self._details):
            began = time.perf_counter()
            await self._find_cached(route)
            if (self.results.outcomes == PENDING).any():
                async with aclosing(load_model(route, "embeddings")) as loading:
                    async for progress in loading:
                        yield progress
                async with aclosing(self._sent(route, limiter, self._batch)) as steps:
                    async for _ in steps:
                        self._elapsed_s = time.perf_counter() - began
                        yield self._progress(route)
            self._elapsed_s = time.perf_counter() - began

    async def max_cost_usd(self) -> float | None:
        """Return the cost of all texts, as if none were stored; ``None`` for unknown prices."""
        if not self._texts:
            return 0.0
        route = await find_route(self._session, self._model)
        if not pricing.has_price(self._session.config, route.provider, route.model):
            return None
        estimate = pricing.embedding_estimate(
            self._session.config, route.provider, route.model, self._texts
        )
        return estimate.cost_usd

    async def estimate(self) -> tuple[str, int, Estimate]:
        """Return the model, the number of texts to send, and their estimate; nothing is sent."""
        self._route = route = await find_route(self._session, self._model)
        await self._find_cached(route)
        pending = [self._texts[position] for position in self.results.pending]
        estimate = pricing.embedding_estimate(
            self._session.config, route.provider, route.model, pending
        )
        return route.name, len(pending), estimate

    async def _find_cached(self, route: Route) -> None:
        self._cache = VectorCache(
            session=self._session,
            route=route,
            texts=self._texts,
            options=self._options,
            results=self.results,
        )
        await self._cache.find()

    # Requests.

    async def _sent(
        self, route: Route, limiter: RateLimiter, batch: Batch
    ) -> AsyncGenerator[None, None]:
        """Send all batches concurrently; yield when one has ended or when sending is paused."""
        pending = self.results.pending
        lengths = [len(self._texts[position].encode()) for position in pending]
        bounds = Bounds(self._options.batch_size or route.provider.embedding_batch_size)
        todo = ([pending[number] for number in batch] for batch in batches(lengths, bounds))
        began, cpu_s = time.perf_counter(), time.process_time()
        news: asyncio.Queue[None] = asyncio.Queue()
        forget = limiter.on_pause(lambda: news.put_nowait(None))
        try:
            async with aclosing(
                run_bounded(lambda: batch.tuner.level, self._embed, todo, news)
            ) as steps:
                async for _ in steps:
                    self._sending_s = time.perf_counter() - began
                    self._cpu_s = time.process_time() - cpu_s
                    yield
        except ProviderError as error:
            if is_service_failure(error):
                raise self._broken_off(error, batch) from error
            raise
        finally:
            forget()

    def _broken_off(self, error: ProviderError, batch: Batch) -> ProviderError:
        """Return ``error`` with the number of embedded texts, and how to continue."""
        done = len(self._texts) - self.results.count(PENDING, FAILED)
        more = f"{done:,} of {len(self._texts):,} texts are embedded"
        if self._session.vectors_folder is not None:
            more += " and stored. Run it again to send the rest."
        return with_hint(error, batch.breaker.failures if batch.breaker.is_open else 0, more)

    def _tuner(self, route: Route, limiter: RateLimiter) -> ConcurrencyTuner:
        """Return the tuner of concurrent batches, which is fixed or finds the fastest number."""
        if self._options.concurrency is not None:
            return limiter.fixed_tuner(self._options.concurrency)
        usual = route.provider.embedding_concurrency
        if usual == 1:  # it runs in this process, one batch at a time
            return limiter.fixed_tuner(1)
        return limiter.tuner(f"embeddings {route.model}", usual)

    async def _embed(self, positions: list[int]) -> None:
        """
        Embed a batch; if it is refused because of its texts, embed its halves.

        After a failure of the service, both halves are sent before one of them is split, so that a
        single text at fault does not look like consecutive failures of the service.
        """
        assert self._sender is not None
        assert self._cache is not None
        assert self._batch is not None
        todo = deque([positions])
        while todo:
            part = todo.popleft()
            try:
                rows = await self._sender.send([self._texts[position] for position in part])
            except ProviderError as error:
                if self._batch.breaker.is_open or not _is_about_texts(error):
                    raise
                if len(part) == 1:
                    await self._handle_refused(part[0], error)
                    continue
                next_one = [todo.popleft()] if todo and is_service_failure(error) else []
                todo.extendleft(reversed([*next_one, *_halves(part)]))
                await self._back_off(self._batch)
                continue
            if len(part) > 1 and not is_usable(rows).any():  # one text may invalidate the batch
                todo.extendleft(reversed(_halves(part)))
                continue
            self._meter.record(len(rows), self._batch.tuner.running)
            await self._store(part, rows)
            await self._check_consistency(part, rows)

    async def _back_off(self, batch: Batch) -> None:
        """Wait briefly if the service fails several times in a row."""
        again = batch.breaker.failures - 2
        if again >= 0:
            widest_s = min(retry_policy(self._session.config).backoff_s(again), _MAX_BACK_OFF_S)
            await batch.breaker.sleep(random.uniform(0, widest_s))  # noqa: S311

    async def _store(self, positions: list[int], rows: Floats) -> None:
        """
        Store the received vectors.

        Raises:
            ProviderError: they differ in length from earlier ones, or no vector of the call is
                usable.
        """
        assert self._cache is not None
        results = self.results
        if len(positions) == 1 and is_usable(rows).all() and await self._has_odd_length(rows):
            text = self._texts[positions[0]]
            msg = (
                f"The service returned {rows.shape[1]} dimensions for {text[:60]!r}, but "
                f"{results.dimensions} for other texts."
            )
            results.fail(positions[0], ProviderError(msg))
            return
        await self._cache.store(positions, rows)
        if len(results.errors) >= _MAX_REFUSALS and not results.dimensions:
            raise results.errors[min(results.errors)]

    async def _has_odd_length(self, rows: Floats) -> bool:
        """Return whether only this vector has another length, not all new ones of the model."""
        assert self._sender is not None
        results = self.results
        if results.dimensions in (0, rows.shape[1]):
            return False
        known = np.flatnonzero(np.isin(results.outcomes, (OK,)))
        if len(known) < 2:  # unclear which of the two is wrong
            return False
        again = await self._sender.send_again([self._texts[int(known[0])]])
        return bool(is_usable(again).all()) and again.shape[1] == results.dimensions

    async def _check_consistency(self, positions: list[int], rows: Floats) -> None:
        if self._route is not None and self._sender is not None:
            batch = [self._texts[position] for position in positions], rows
            await request.check_batch_consistency(
                self._session, self._route, self._sender.send_again, batch
            )

    async def _handle_refused(self, position: int, error: ProviderError) -> None:
        """Handle a text that is refused individually: by the ``too_long`` option, or as failed."""
        assert self._sender is not None
        assert self._cache is not None
        text, policy = self._texts[position], self._options.too_long
        if isinstance(error, ContextLengthError) and policy != "error":
            treat = self._truncated if policy == "truncate" else embed_mean_of_parts
            try:
                rows = await treat(text, error, self._sender.send)
            except ContextLengthError as again:
                error = again
            else:
                await self._cache.store([position], rows, self._cache.treatment)
                return
        self.results.fail(position, error)
        if len(self.results.errors) >= _MAX_REFUSALS and not self._sender.sent:
            raise error

    async def _truncated(self, text: str, error: ContextLengthError, send: Send) -> Floats:
        """Return the vector of the beginning of ``text``, truncated by the service if it can."""
        assert self._sender is not None
        assert self._route is not None
        if self._route.provider.truncates_texts:
            return await self._sender.send([text], truncate=True)
        return await embed_truncated(text, error, send)

    # Progress and measurements.

    def _progress(self, route: Route) -> Progress:
        parts = [f"embedding with {route.name}"]
        for count, word in (
            (int(self.results.is_cached.sum()), "cached"),
            (self.results.count(FAILED), "failed"),
        ):
            if count:
                parts.append(f"{count:,} {word}")
        if self._sender is not None and self._sender.cost_usd:
            parts.append(f"${self._sender.cost_usd:.2g}")
        if self._sender is not None and self._sender.tokens:
            parts.insert(1, f"{self._sender.tokens:,} tokens")
        if waiting := self._waiting():
            parts.append(waiting)
        done = len(self._texts) - self.results.count(PENDING)
        return Progress(
            " · ".join(parts),
            done=done,
            total=len(self._texts),
            unit="rows",
            elapsed_s=self._elapsed_s or 0.0,
            before=int(self.results.is_cached.sum()),
        )

    @property
    def speed(self) -> Throughput | None:
        """The throughput; ``None`` if too few texts were sent to measure it."""
        meter = self._meter
        if not meter.fastest or not self._sending_s:
            return None
        rows_per_s, cpu_share = self.sent / self._sending_s, self._cpu_s / self._sending_s
        return Throughput(
            rows_per_s=rows_per_s,
            limit_rows_per_s=meter.fastest,
            at_once=meter.at_once,
            cpu_share=cpu_share,
        )

    @property
    def requested_dimensions(self) -> int | None:
        """The option ``dimensions``."""
        return self._options.dimensions

    @property
    def sent(self) -> int:
        """The number of texts that were sent and answered."""
        return self._sender.sent if self._sender else 0

    def _details(self) -> CallDetails:
        return CallDetails(dimensions=self.results.dimensions or None)

    def response(self) -> Response:
        """Return the measurements of the call, as a response without text."""
        route, sender = self._route, self._sender
        usage = Usage(sender.tokens if sender else None)
        chunks = [StreamChunk(elapsed_s=self._elapsed_s)] if self._elapsed_s else []
        return Response(
            text="",
            model=route.name if route else "",
            finish_reason="stop",
            usage=usage,
            timing=run_log.measure(chunks, usage, route.load_s if route else 0.0),
            cost_usd=sender.cost_usd if sender else None,
            retries=sender.retries if sender else 0,
            cached=not self.sent and bool(self.results.is_cached.any()),
        )


def _is_about_texts(error: ProviderError) -> bool:
    """Return whether other texts may be accepted; a status 500 may be caused by one text."""
    if isinstance(error, ContextLengthError):
        return True
    if isinstance(error, _CALL_ERRORS) or error.status is None:
        return False
    return (400 <= error.status < 500 and error.status != 402) or error.status == 500


def _halves(positions: list[int]) -> tuple[list[int], list[int]]:
    middle = len(positions) // 2
    return positions[:middle], positions[middle:]
