"""One prompt: filled in, sent, and at every moment worth what has come of it so far."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from llm_magics.engine import metrics, prices, recordings, templates
from llm_magics.engine.response import Response
from llm_magics.engine.retrying import Patience, Retries, may_fall_back
from llm_magics.engine.road import (
    INTERRUPTED,
    Route,
    find_candidates,
    find_route,
    logged,
    made_ready,
    route_to,
)
from llm_magics.engine.routing import Candidate
from llm_magics.engine.session import Session
from llm_magics.errors import ProviderError, UsageError
from llm_magics.media import image_of
from llm_magics.schemas import schema_of
from llm_magics.tools import tool_of
from llm_magics.types import (
    ChatMessage,
    ModelParameters,
    ModelResponse,
    Progress,
    StreamChunk,
    Timing,
    Usage,
)

# The parameters that are settings too; any other goes to the service as it is.
_SETTINGS = ("temperature", "max_tokens", "top_p", "seed", "stop")
# What every service has in its own words.
_SHARED = ("tool_choice", "reasoning", "extra_headers")
# Parameters that services have, and that look like slips for ours.
_THEIRS = frozenset(
    {"top_k", "min_p", "min_tokens", "typical_p", "top_n", "n_predict", "stop_token_ids"}
)
# Settings of providers: sent along they would do nothing, or show a key.
_OF_PROVIDERS = frozenset(
    {"api", "api_key", "api_version", "base_url", "connect_s", "idle_s", "profile", "total_s"}
)
_OURS = frozenset({"input", "messages", "prompt", "stream", "stream_options"})


@dataclass(frozen=True, slots=True)
class Prompt:
    """
    What a user asks.

    Attributes:
        text: the prompt, with ``{{ names }}`` in it.
        model: whom to ask; the setting ``model`` where ``None``.
        system: the system message; the setting ``system`` where ``None``.
        parameters: those given for this prompt, over the settings.
        images: pictures that go with it.
        schema: what the answer must look like; see `llm_magics.schemas`.
        tools: functions that the model may call.
        variables: what ``{{ names }}`` stand for; ``None`` leaves braces as they are.
    """

    text: str
    model: str | None = None
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] | None = None
    images: Sequence[Any] = ()
    schema: Any = None
    tools: Sequence[Any] = ()


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
        self.messages = _filled_in(prompt, session.config.system)
        _parameters(prompt, session, {})  # a slip is told of at once, and in the cell's thread
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
        parameters = _parameters(self._prompt, self._session, route.parameters)
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
        answer = _stamped(route, self.messages, parameters)
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


def _parameters(prompt: Prompt, session: Session, alias: Mapping[str, Any]) -> ModelParameters:
    """Those of the prompt, over those of the ``alias`` that was asked, over the settings."""
    given = {name: session.config.get(name) for name in _SETTINGS}
    asked = {name: value for name, value in prompt.parameters.items() if value is not None}
    asked = {**alias, **asked}
    given |= {name: asked.pop(name) for name in _SETTINGS if name in asked}
    given |= {name: asked.pop(name) for name in _SHARED if name in asked}
    asked |= asked.pop("extra_body", {})
    for name in asked:
        _refuse_slip(name)
    schema = None if prompt.schema is None else schema_of(prompt.schema)
    tools = tuple(tool_of(each) for each in _several(prompt.tools))
    return ModelParameters(**given, stream=True, extra_body=asked, schema=schema, tools=tools)


def _refuse_slip(name: str) -> None:
    """What goes to the service as it is must be no slip, and must not undo what is ours."""
    if name in _OURS:
        msg = f"{name} cannot be given as a parameter."
        raise UsageError(msg, hint=f"It is set by the call itself: {', '.join(sorted(_OURS))}.")
    if name in _OF_PROVIDERS:
        msg = f"{name} is a setting of a provider, and none of a prompt."
        raise UsageError(msg, hint=f"Set it for all prompts: %llm config providers.NAME.{name} …")
    if name in _THEIRS:
        return
    meant = get_close_matches(
        name, (*_SETTINGS, *_SHARED, "images", "schema", "tools"), n=1, cutoff=0.8
    )
    if meant:
        msg = f"There is no parameter {name}."
        raise UsageError(msg, hint=f"Did you mean {meant[0]}?")


def _filled_in(prompt: Prompt, default_system: str | None) -> tuple[ChatMessage, ...]:
    for what, value in (("prompt", prompt.text), ("model", prompt.model)):
        if not isinstance(value, str | None) or (what == "prompt" and value is None):
            msg = f"A {what} is a text, and this is {type(value).__name__}."
            raise UsageError(msg, hint="Ask one at a time; lm.compare takes several.")
    system = prompt.system if prompt.system is not None else default_system
    text = prompt.text
    if prompt.variables is not None:
        text = templates.render(text, prompt.variables)
        system = system and templates.render(system, prompt.variables)
    if not text.strip():
        msg = "The prompt is empty."
        raise UsageError(msg, hint="Write what to ask.")
    asked = ChatMessage(
        "user", text, images=tuple(image_of(each) for each in _several(prompt.images))
    )
    return (ChatMessage("system", system), asked) if system else (asked,)


def _several(given: Any) -> Iterable[Any]:
    """What was given as a list, or the one thing that was given without one."""
    return given if isinstance(given, list | tuple) else (given,)


async def _stamped(
    route: Route, messages: tuple[ChatMessage, ...], parameters: ModelParameters
) -> AsyncGenerator[StreamChunk, None]:
    """The provider's chunks, each with a time: its own stamp, or that of its arrival here."""
    sent = time.perf_counter()
    answer = await route.provider.generate_chat(messages, route.model, parameters)
    if isinstance(answer, ModelResponse):
        yield _whole(answer)._replace(elapsed_s=time.perf_counter() - sent)
        return
    try:
        async for chunk in answer:
            if chunk.elapsed_s is None:
                chunk = chunk._replace(elapsed_s=time.perf_counter() - sent)
            yield chunk
    finally:
        await answer.aclose()


def _whole(answer: ModelResponse) -> StreamChunk:
    """A whole answer, from a provider that cannot stream, as the only chunk of a stream."""
    return StreamChunk(
        answer.text,
        answer.reasoning,
        finish_reason=answer.finish_reason or "stop",
        usage=answer.usage,
        timings=answer.timings,
        raw=answer.raw,
        tool_calls=answer.tool_calls,
        reasoning_blocks=answer.reasoning_blocks,
    )
