"""Send one prompt, and provide its answer while it arrives."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from copy import copy
from typing import Any
from uuid import uuid4

from llm_magics.errors import ProviderError
from llm_magics.host import Progress, current_host, warn
from llm_magics.parameters import ModelParameters
from llm_magics.providers.base import as_stream
from llm_magics.providers.tiers import require_tier
from llm_magics.runtime import pricing
from llm_magics.runtime.answer_lookup import AnswerLookup, describe_source, replay
from llm_magics.runtime.attempts import Attempt, Attempts, Batch, attempts
from llm_magics.runtime.delivery import Deliveries
from llm_magics.runtime.parsing import answer_in_thoughts
from llm_magics.runtime.pricing import Estimate
from llm_magics.runtime.prompts.prompt import (
    Prompt,
    PromptParameters,
    Turn,
    apply_template,
    build_messages,
    has_foreign_system,
    previous_messages,
)
from llm_magics.runtime.prompts.templates import Substitution
from llm_magics.runtime.response import (
    INTERRUPTED,
    Response,
    completeness_error,
    cut_warning,
    outcome,
    search_warning,
)
from llm_magics.runtime.routing import Candidate, Route, find_candidates, log_call, route_to
from llm_magics.runtime.session import Session
from llm_magics.runtime.storage import run_log
from llm_magics.runtime.storage.serialization import decode_answer
from llm_magics.runtime.telemetry.attributes import CallDetails
from llm_magics.types import ChatMessage, ModelResponse, StreamChunk, Timing, Usage
from llm_magics.wire.finish_reasons import Outcome, has_limit


class ChatCall:
    """
    A prompt, its request, and its answer.

    ``events`` yields `Progress` while the model is downloaded and loaded, and a `StreamChunk` for
    each part of the answer. An answer that is refused, empty or otherwise incomplete raises an
    error at its end, with the received part in ``partial``.

    Attributes:
        warns_of_cut: whether to warn about a truncated answer if the user set no limit.
    """

    def __init__(
        self,
        session: Session,
        prompt: Prompt,
        batch: Batch | None = None,
        *,
        parameters: PromptParameters | None = None,
    ) -> None:
        """
        Render the prompt, in this thread, because its expressions are the user's code.

        Args:
            session: the shared state of the notebook.
            prompt: the prompt.
            batch: the batch to which the call belongs.
            parameters: the parameters of the prompt, if it shares them with others.
        """
        self._session = session
        self._batch = batch
        self.warns_of_cut = batch is None
        self._prompt = prompt = apply_template(prompt, session.config)
        # Stored now, because another cell may be running when the answer is complete.
        self._cell = current_host().current_cell
        self._turn_key = uuid4().hex
        self.filled: list[Substitution] = []
        before = previous_messages(session.conversations, prompt, self._cell)
        self.messages = build_messages(
            prompt,
            session.config.system,
            before,
            self.filled.append,
            is_default_foreign=has_foreign_system(prompt, session.config),
        )
        if parameters is None or not parameters.are_of(prompt):
            parameters = PromptParameters(prompt, session.config)
        self._prompt_parameters = parameters
        parameters.merge()  # errors are raised immediately, in the cell's thread
        self._thread_message = self.messages[-1]
        self._repairs = self._removed_turns = 0
        self._begin()

    def _begin(self) -> None:
        self.deliveries = Deliveries(self.messages)
        self._route: Route | None = None
        self._chunks: list[StreamChunk] = []
        self._measured: tuple[int, float, ModelResponse, Timing] | None = None
        self._interrupted = self._is_replayed = self._is_incomplete = False
        self._attempts: Attempts | None = None
        self._lookup: AnswerLookup | None = None
        self._is_sent, self._sent_at = False, 0.0
        self._may_be_billed = False

    @property
    def schema(self) -> Any:
        """The schema that the answer must match, if any."""
        return self._prompt.schema

    @property
    def json_schema(self) -> Mapping[str, Any] | None:
        """The schema that the answer must match, as a JSON schema."""
        return self._prompt_parameters.schema

    @property
    def chunks(self) -> Sequence[StreamChunk]:
        """The chunks of the answer received so far."""
        return self._chunks

    async def adopt(self, route: Route, chunks: Sequence[StreamChunk]) -> None:
        """Take ``chunks``, which were received in another way, as the answer to this call."""
        self._route, self._chunks = route, list(chunks)
        self._lookup = self._answer_lookup(route, self._parameters(route))
        if self._lookup is not None:
            await self._lookup.find_keys()

    def again(
        self,
        more: Sequence[ChatMessage],
        *,
        is_repair: bool = False,
        reasoning: bool | None = None,
    ) -> ChatCall:
        """
        Return the call with ``more`` messages after the prompt; in a thread it replaces this one.

        ``reasoning`` turns thinking on or off, and overrides the prompt.
        """
        other = copy(self)
        if reasoning is not None:
            other._prompt_parameters = self._prompt_parameters.with_reasoning(reasoning)
        other.messages = (*self.messages, *more)
        other._repairs = self._repairs + is_repair
        other._begin()
        return other

    async def plan(self) -> tuple[Route, list[str], Estimate]:
        """Return the route, the fallback models and the estimate, without sending a request."""
        first, *others = await find_candidates(self._session, self._model)
        self._route = route = await route_to(self._session, first)
        await self.deliveries.prepare(route)
        parameters = self._parameters(route)
        if parameters.search:
            route.provider.require_search()
        if parameters.tier:
            require_tier(parameters.tier, route.provider.name, route.provider.tiers)
        names = [each.model for each in others]
        return route, names, self._estimate(route)

    async def to_send(self) -> Estimate | None:
        """
        Estimate the call, for the most expensive candidate; ``None`` if the answer is stored.

        A candidate with an unknown price counts as the most expensive.
        """
        estimates: list[Estimate] = []
        for each in await find_candidates(self._session, self._model):
            route = await route_to(self._session, each)
            lookup = None if estimates else self._answer_lookup(route, self._parameters(route))
            if lookup is not None and await lookup.has_answer():
                return None
            await self.deliveries.prepare(route)
            estimates.append(self._estimate(route))
        return max(
            estimates, key=lambda each: math.inf if each.cost_usd is None else each.cost_usd
        )

    def _answer_lookup(self, route: Route, parameters: ModelParameters) -> AnswerLookup | None:
        """Return the lookup of stored answers; ``None`` without a recording and a cache."""
        session, prompt = self._session, self._prompt
        cache = session.answer_cache if prompt.is_kept else session.cache
        if session.recording is None and cache is None:
            return None
        return AnswerLookup(
            recording=session.recording,
            cache=cache,
            route=route,
            messages=self.messages,
            parameters=parameters,
            is_fresh=prompt.is_fresh,
            schema=prompt.schema,
        )

    @property
    def _model(self) -> str:
        return self._prompt.model or str(self._session.config.model)

    def _parameters(self, route: Route) -> ModelParameters:
        return self._prompt_parameters.merge(route.parameters)

    def _estimate(self, route: Route) -> Estimate:
        return pricing.chat_estimate(
            self._session.config,
            self._session.runs,
            route.provider,
            route.model,
            messages=self.deliveries.messages(route),
            parameters=self._parameters(route),
            attachment_tokens=self.deliveries.native_tokens(route),
        )

    async def _start(self) -> Attempts:
        """Find the candidates, and return the attempts at them."""
        found = await find_candidates(self._session, self._model)
        # With only one name, an invalid name ends the call before it is logged.
        only = await route_to(self._session, found[0]) if len(found) == 1 else None
        self._route = only

        async def resolve(candidate: Candidate) -> Route:
            return only or await route_to(self._session, candidate)

        self._attempts = attempts(
            self._session,
            found,
            resolve,
            capability="chat",
            tokens=lambda route: self._estimate(route).input_tokens,
            estimate_usd=lambda route: self._estimate(route).cost_usd,
            batch=self._batch,
        )
        return self._attempts

    async def events(self) -> AsyncGenerator[Progress | StreamChunk, None]:
        """Run the call. Closing the generator or cancelling its task stops the model at once."""
        run = await self._start()
        try:
            with log_call(self._session, "chat", lambda: self._route, self.response, self.details):
                async for attempt in run:
                    self._route = attempt.route
                    async with attempt:
                        parameters = self._parameters(attempt.route)
                        stored = await self._find_stored(attempt, parameters)
                        if stored is not None:
                            speed = self._session.config.replay_speed
                            async with aclosing(replay(stored, speed)) as chunks:
                                async for chunk in chunks:
                                    self._chunks.append(chunk)
                                    yield chunk
                        else:
                            await self.deliveries.prepare(attempt.route, warns=self.warns_of_cut)
                            async with aclosing(attempt.ready()) as steps:
                                async for progress in steps:
                                    yield progress
                            async with self._request(attempt, parameters) as stream:
                                async for chunk in stream:
                                    yield self._received(chunk, attempt)
                        # An error here ends the attempt, so that a failed answer is not stored.
                        self._check()
                await self._store()
        except ProviderError as error:
            if error.partial is None:
                error.partial = self.response()
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self._interrupted = True
            raise
        finally:
            self._remember()
        self._warn()

    def details(self) -> CallDetails:
        """Return what a trace of the call has in addition to its response."""
        parameters = None if self._route is None else self._parameters(self._route)
        return CallDetails.of(self._prompt, parameters, self._chunks)

    async def _store(self) -> None:
        """Store a new answer in the recording and the cache."""
        if not self._is_replayed and self._lookup is not None:
            await self._lookup.store(self._chunks)

    def _warn(self) -> None:
        """Warn about a truncated answer and about missing searches; the latter once per batch."""
        response = self.response()
        # If it does not match its schema, the error for that mentions the cut.
        if self.warns_of_cut and self.is_cut_unasked and response.misfit() is None:
            warn(cut_warning(response.model))
        is_requested = self._route is not None and self._parameters(self._route).search
        message = search_warning(response, is_requested=is_requested)
        if message and (self._batch is None or self._batch.may_warn(message)):
            warn(message)

    async def _find_stored(
        self, attempt: Attempt, parameters: ModelParameters
    ) -> Iterable[StreamChunk] | None:
        """Return the stored answer; without one, clear the chunks for a new answer."""
        if attempt.is_first:
            self._lookup = self._answer_lookup(attempt.route, parameters)
            found = await self._lookup.find() if self._lookup is not None else None
            if found is not None:
                self._is_replayed = True
                return decode_answer(found)
        self._chunks.clear()
        self._measured = None
        return None

    @asynccontextmanager
    async def _request(
        self, attempt: Attempt, parameters: ModelParameters
    ) -> AsyncGenerator[AsyncGenerator[StreamChunk, None], None]:
        """Send one request, and yield its stream to the block."""
        route = attempt.route
        self._is_sent, self._sent_at = True, time.perf_counter()
        try:
            messages = self.deliveries.messages(route)
            answer = await route.provider.generate_chat(messages, route.model, parameters)
            stream = as_stream(answer) if isinstance(answer, ModelResponse) else answer
            async with aclosing(stream):
                yield stream
        except ProviderError as error:
            self._may_be_billed |= attempt.is_billed or error.may_be_billed
            self._is_sent = self._may_be_billed  # a refused request is free
            raise
        attempt.cost_usd = self.response().cost_usd

    def _received(self, chunk: StreamChunk, attempt: Attempt) -> StreamChunk:
        """Add a chunk to the answer, and return it with its arrival time."""
        if chunk.elapsed_s is None:
            chunk = chunk._replace(elapsed_s=time.perf_counter() - self._sent_at)
        self._chunks.append(chunk)
        attempt.is_billed = True
        if chunk.has_tokens or chunk.tool_calls:
            attempt.is_committed = True
        return chunk

    def _check(self) -> None:
        """Raise an error unless the answer is complete, or was cut off at a length limit."""
        error = completeness_error(self.response())
        if error is not None:
            self._is_incomplete = True
            raise error

    @property
    def is_cut_unasked(self) -> bool:
        """Whether the answer was cut off, although the user set no limit."""
        if self._route is None or outcome(self.response()) is not Outcome.CUT:
            return False
        parameters = self._parameters(self._route)
        return not has_limit(parameters.max_tokens, parameters.extra_body)

    async def store_for(self, other: ChatCall) -> None:
        """Store this answer in the cache for ``other``, the first call with this prompt."""
        is_same_model = self._route and other._route and self._route.name == other._route.name
        if is_same_model and other._lookup is not None and not self._is_replayed:
            await other._lookup.store_in_cache(self._chunks)

    async def provenance(self) -> dict[str, Any]:
        """Return the source of the answer, without values that differ between runs."""
        if self._route is None:
            return {}
        parameters = self._parameters(self._route)
        return await describe_source(self._route, self.messages, parameters, self.response())

    def _remember(self) -> None:
        """Add the prompt and the answer, or its received part, to its thread."""
        has_begun = any(chunk.has_tokens for chunk in self._chunks)
        if self._prompt.thread is None or not has_begun or self._is_incomplete:
            return
        answer, response = self._answer(self._chunks), self.response()
        said = ChatMessage("assistant", answer.text, reasoning_blocks=answer.reasoning_blocks)
        is_whole = response.finish_reason not in (None, INTERRUPTED)
        turn = Turn(
            key=self._turn_key,
            cell=self._cell.key,
            run=self._cell.run,
            asked=self._thread_message,
            answered=said,
            model=response.model,
            is_whole=is_whole,
        )
        self._removed_turns += self._session.conversations.add(self._prompt.thread, turn)

    def response(self, so_far: Sequence[StreamChunk] | None = None) -> Response:
        """Return the answer, the partial answer, or the answer in ``so_far``."""
        route = self._route
        load_s = route.load_s if route else 0.0
        if so_far is None:
            answer, timing = self._measure(load_s)
        else:
            # While it arrives, the thoughts may contain drafts of the answer.
            answer = ModelResponse.of(so_far)
            timing = run_log.measure(so_far, answer.usage, load_s)
        cost = self._cost(answer)
        return Response(
            text=answer.text,
            model=route.name if route else "",
            finish_reason=INTERRUPTED if self._interrupted else answer.finish_reason,
            usage=answer.usage or Usage(),
            timing=Timing() if self._is_replayed else timing,  # not those of the original call
            cost_usd=cost.usd,
            reasoning_usd=cost.reasoning_usd,
            cached=self._is_replayed,
            messages=self.messages,
            reasoning=answer.reasoning,
            raw=answer.raw,
            tool_calls=answer.tool_calls,
            reasoning_blocks=answer.reasoning_blocks,
            token_logprobs=answer.logprobs,
            sources=answer.citations,
            searches=answer.searches,
            request_id=answer.request_id,
            schema=self._prompt.schema,
            retries=self._attempts.retries if self._attempts else 0,
            fallback_from=tuple(self._attempts.failed) if self._attempts else (),
            repairs=self._repairs,
            removed_turns=self._removed_turns,
        )

    def _measure(self, load_s: float) -> tuple[ModelResponse, Timing]:
        """Return the answer so far and its times; both are cached, because they are read often."""
        size, known = len(self._chunks), self._measured
        if known is not None and known[:2] == (size, load_s):
            return known[2:]
        answer = self._answer(self._chunks)
        timing = run_log.measure(self._chunks, answer.usage, load_s)
        self._measured = size, load_s, answer, timing
        return answer, timing

    def _answer(self, chunks: Sequence[StreamChunk]) -> ModelResponse:
        """Return the answer in ``chunks``, which may be JSON in its thoughts."""
        return answer_in_thoughts(ModelResponse.of(chunks), self._prompt.schema)

    def _cost(self, answer: ModelResponse) -> pricing.Cost:
        if self._is_replayed or self._route is None:
            usd = 0.0 if self._is_replayed else None
            return pricing.Cost(usd, usd)
        provider, model = self._route.provider, self._route.model
        return pricing.answer_cost(
            self._session.config, provider, model, answer, is_sent=self._is_sent
        )
