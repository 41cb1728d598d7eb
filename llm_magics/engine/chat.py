"""One prompt: filled in, sent, and at every moment worth what has come of it so far."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from llm_magics.engine.prompt import Prompt, messages_of, parameters_of
from llm_magics.engine.response import Response
from llm_magics.engine.road import (
    INTERRUPTED,
    Route,
    find_candidates,
    find_route,
    logged,
    made_ready,
    route_to,
)
from llm_magics.engine.session import Session
from llm_magics.engine.stamping import stamped
from llm_magics.errors import ProviderError
from llm_magics.policies import metrics, prices, recordings
from llm_magics.policies.retrying import Patience, Retries, may_fall_back
from llm_magics.policies.routing import Candidate
from llm_magics.types import ModelResponse, Progress, StreamChunk, Timing, Usage


class ChatCall:
    """
    A prompt on its way.

    ``events`` yields what happens as it happens: `Progress` while the model is fetched and
    loaded, `StreamChunk` while it answers.
    """

    def __init__(self, session: Session, prompt: Prompt) -> None:
        """Fill in the prompt; in this thread, for its expressions are the user's own code."""
        self._session = session
        self._prompt = prompt
        self.messages = messages_of(prompt, session.config.system)
        parameters_of(prompt, session, {})  # a slip is told of at once, and in the cell's thread
        self._route: Route | None = None
        self._chunks: list[StreamChunk] = []
        self._interrupted = False
        self._is_replayed = False
        self._retries = 0
        self._failed: list[str] = []

    async def plan(self) -> Route:
        """Find the model — of a route the first — without asking it."""
        self._route = await find_route(self._session, self._wanted)
        return self._route

    @property
    def _wanted(self) -> str:
        return self._prompt.model or str(self._session.config.model)

    async def events(self) -> AsyncGenerator[Progress | StreamChunk, None]:
        """Walk the road. Closing the generator, or cancelling, stops the model at once."""
        found = await find_candidates(self._session, self._wanted)
        # A slip in the only name ends the call before it is one, and is in no log.
        only = await route_to(self._session, found[0]) if len(found) == 1 else None
        self._route = only
        try:
            with logged(self._session, "chat", lambda: self._route, self.response):
                async for event in self._first_that_answers(found, only):
                    yield event
        except (asyncio.CancelledError, GeneratorExit):
            self._interrupted = True
            raise

    async def _first_that_answers(
        self, found: Sequence[Candidate], only: Route | None
    ) -> AsyncGenerator[Progress | StreamChunk, None]:
        """Try one model after the other, until one has begun to answer."""
        for place, candidate in enumerate(found, 1):
            is_last = place == len(found)
            try:
                self._route = only or await route_to(self._session, candidate)
                if not is_last and not self._session.cooldowns.may_try(self._route.provider.name):
                    self._failed.append(f"{candidate.model} (it rests after failures)")
                    continue
                async for event in self._asked(self._route):
                    yield event
                return
            except ProviderError as error:
                if is_last or self._has_begun or not may_fall_back(error):
                    raise
                self._failed.append(f"{candidate.model} ({type(error).__name__})")

    async def _asked(self, route: Route) -> AsyncGenerator[Progress | StreamChunk, None]:
        """Ask one model, again where that may help; whether it answered is remembered."""
        patience = Patience(self._session.config.retries, self._session.config.longest_wait_s)
        retries, cooldowns = Retries(patience), self._session.cooldowns
        while True:
            self._chunks.clear()
            try:
                async for event in self._attempt(route):
                    yield event
                cooldowns.answered(route.provider.name)
                return
            except ProviderError as error:
                wait_s = None if self._has_begun else retries.wait_s(error)
                if wait_s is None:
                    note = cooldowns.failed if may_fall_back(error) else cooldowns.answered
                    note(route.provider.name)
                    raise
                self._retries += 1
                yield Progress(f"asking {route.name} again in {wait_s:.0f} s: {error}")
                await asyncio.sleep(wait_s)

    async def _attempt(self, route: Route) -> AsyncGenerator[Progress | StreamChunk, None]:
        parameters = parameters_of(self._prompt, self._session, route.parameters)
        tape = self._session.tape
        request = tape and recordings.chat_request(route.name, self.messages, parameters)
        kept = tape.find(request) if tape and request else None
        if kept is not None:
            self._is_replayed = True
            for chunk in recordings.chunks_of(kept):
                self._chunks.append(chunk)
                yield chunk
            return
        async for progress in made_ready(route, "chat"):
            yield progress
        answer = stamped(route, self.messages, parameters)
        keep = self._chunks.append
        try:
            async for chunk in answer:
                keep(chunk)
                yield chunk
        finally:
            await answer.aclose()
        if tape and request:
            tape.keep(request, recordings.told_by(self._chunks))

    @property
    def _has_begun(self) -> bool:
        """Whether words have been handed out, which cannot be taken back."""
        return any(chunk.has_tokens for chunk in self._chunks)

    def response(self) -> Response:
        """The answer, or as much of it as has come."""
        answer = ModelResponse.of(self._chunks)
        route = self._route
        load_s = route.load_s if route else 0.0
        timing = metrics.measure(self._chunks, answer.usage, load_s)
        cost_usd = prices.cost_usd(route.provider.name, answer.usage) if route else None
        return Response(
            text=answer.text,
            model=route.name if route else "",
            finish_reason=INTERRUPTED if self._interrupted else answer.finish_reason,
            usage=answer.usage or Usage(),
            timing=Timing() if self._is_replayed else timing,  # whose times they would be
            cost_usd=0.0 if self._is_replayed else cost_usd,
            cached=self._is_replayed,
            messages=self.messages,
            reasoning=answer.reasoning,
            raw=answer.raw,
            tool_calls=answer.tool_calls,
            schema=self._prompt.schema,
            retries=self._retries,
            fallback_from=tuple(self._failed),
        )
