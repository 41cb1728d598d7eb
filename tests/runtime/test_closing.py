"""Whatever a call has opened is closed with it, at every moment, and in the right order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics._async.bridge import bridge
from llm_magics.benchmarking import bench, compare
from llm_magics.host import Progress
from llm_magics.runtime.batch import BatchCall, ParallelCalls
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.embedding import EmbeddingCall, EmbedOptions
from llm_magics.runtime.media_calls import image_call, transcription_call
from llm_magics.runtime.models import PullCall
from llm_magics.runtime.policies.budget import Budget
from llm_magics.runtime.policies.rate_limit import Permit, RateLimiter
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session
from llm_magics.runtime.structured import StructuredCall
from llm_magics.types import StreamChunk, Usage
from tests.support import fake_anthropic, fake_gemini, fake_ollama, virtual_time
from tests.support.closing import BENCH, left_open
from tests.support.embedder import Embedder
from tests.support.fake_anthropic import FakeAnthropic
from tests.support.fake_media import WAV, FakeMedia
from tests.support.fake_ollama import FakeOllama
from tests.support.fake_openai import FakeOpenAI
from tests.support.fake_responses import FakeResponses
from tests.support.servers import servers
from tests.support.serving import Asked, Says, chat_stream, serving
from tests.support.virtual_time import SimulatedProvider, SimulatedSession

KEY = "a-key-of-the-test"
THINKS = Says(chat_stream("<think>", "hm", "</think>", "two ", "words"))


def provider(kind: str, url: str, **settings: Any) -> None:
    """Set up one provider, named ``one``."""
    lm.config.providers = {"one": {"type": kind, "base_url": url, "api_key": KEY, **settings}}


@pytest.fixture(autouse=True)
def closed_connections() -> Iterator[None]:
    """Nothing is kept, and no connection outlives the test."""
    lm.config.vectors = "off"
    yield
    bridge.run(session.providers.close())


def nothing_left_open(create: Callable[[], AsyncGenerator[Any, None]], at_least: int) -> None:
    """Closed after any number of items, each generator was closed by the one that opened it."""
    left, items = left_open(create)
    assert left == []
    assert items >= at_least


def chat(model: str = "one/m", schema: Any = None, **parameters: Any) -> ChatCall:
    """A prompt on its way."""
    return ChatCall(session, Prompt(text="hi", model=model, schema=schema, parameters=parameters))


def test_a_chat_of_every_format() -> None:
    """OpenAI's chat with thoughts in tags and Responses, Anthropic's, Gemini's and Ollama's."""
    with serving(THINKS) as server:
        provider("openai", server.url)
        nothing_left_open(lambda: chat().events(), 4)
    with serving(FakeResponses()) as server:
        lm.config.providers = {
            "openai": {"base_url": server.url, "api_key": KEY, "api": "responses"}
        }
        nothing_left_open(lambda: chat(model="openai/gpt-5").events(), 2)
    with serving(FakeAnthropic()) as server:
        provider("anthropic", server.url)
        nothing_left_open(lambda: chat(model=f"one/{fake_anthropic.CHAT}").events(), 2)
    with serving(fake_gemini.FakeGemini()) as server:
        provider("gemini", server.url)
        nothing_left_open(lambda: chat(model=f"one/{fake_gemini.CHAT}").events(), 2)
    with serving(FakeOllama()) as server:
        provider("ollama", server.url)
        call = lambda: chat(model=f"one/{fake_ollama.CHAT}", max_tokens=3)  # noqa: E731
        nothing_left_open(lambda: call().events(), 4)


def test_an_answer_in_a_wrapped_schema() -> None:
    """The object around a list is taken off, and a refused schema is stated in the prompt."""
    with serving(FakeOpenAI()) as server:
        provider("openai", server.url, profile="openai")
        wrapped = {"type": "array", "items": {"type": "integer"}}
        nothing_left_open(lambda: chat(model="one/gpt-test", schema=wrapped).events(), 4)


def test_an_answer_that_is_asked_for_twice() -> None:
    """A first one that does not fit its schema, and one after it that does."""
    said = ["no", '{"a": 1}']

    def answer(asked: Asked) -> Says:
        return Says(chat_stream(said[len(asked.json()["messages"]) > 1]))

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    with serving(answer) as server:
        provider("openai", server.url)
        prompt = Prompt(text="hi", model="one/m", schema=schema)
        nothing_left_open(lambda: StructuredCall(session, prompt).events(), 4)


def test_a_stored_answer(tmp_path: Path) -> None:
    """Replayed out of the cache, chunk by chunk."""
    lm.config.cache, lm.config.cache_dir = True, tmp_path
    with serving(THINKS) as server:
        provider("openai", server.url)
        lm.ask("hi", model="one/m")
        nothing_left_open(lambda: chat().events(), 2)
        assert len(server.asked) == 1


def test_a_route_whose_first_model_fails() -> None:
    """What the second one opened."""
    with servers(one=Says([b"{}"], 503, "application/json"), two=THINKS):
        lm.config.routes = {"both": ["one/m", "two/m"]}
        lm.config.retries = 0
        nothing_left_open(lambda: chat(model="both").events(), 4)


def test_many_at_once() -> None:
    """Prompts of a column, and answers side by side."""
    with serving(THINKS) as server:
        provider("openai", server.url)
        prompts = [Prompt(text=f"row {n}", model="one/m") for n in range(4)]
        nothing_left_open(lambda: BatchCall(session, prompts, 2).events(), 4)
        nothing_left_open(lambda: ParallelCalls([chat(), chat()]).events(), 8)


def test_embeddings() -> None:
    """A column of texts, in batches."""
    with serving(Embedder()) as server:
        provider("openai", server.url)
        options = EmbedOptions(batch_size=2, concurrency=2)
        texts = [f"text {n}" for n in range(8)]
        nothing_left_open(
            lambda: EmbeddingCall(
                session=session, texts=texts, model="one/m", options=options
            ).events(),
            3,
        )


def test_images_and_transcriptions() -> None:
    """Neither streams; both tell what they wait for."""
    with serving(FakeMedia()) as server:
        provider("openai", server.url)
        nothing_left_open(lambda: image_call(session, "a cat", "one/dall-e-3", {}).events(), 1)
        nothing_left_open(lambda: transcription_call(session, WAV, "one/w", {}).events(), 1)


def test_a_pull() -> None:
    """Bytes of a model on their way."""
    with serving(FakeOllama()) as server:
        provider("ollama", server.url)
        nothing_left_open(lambda: PullCall(session, "one/new:1b").events(), 4)


@pytest.mark.parametrize("load", [{"concurrency": 2}, {"rate": 200.0, "arrival": "constant"}])
def test_a_benchmark(load: dict[str, Any]) -> None:
    """In a closed and in an open loop."""
    with serving(THINKS) as server:
        provider("openai", server.url)

        def events() -> AsyncGenerator[Any, None]:
            operation = bench._bench_operation("hi", "one/m", **(BENCH | load))
            return operation.call.events()

        nothing_left_open(events, 4)


def test_a_comparison() -> None:
    """Of models of two providers at once."""
    with servers(one=THINKS, two=THINKS):

        def events() -> AsyncGenerator[Any, None]:
            operation = compare._compare_operation(["a", "b"], ["one/m", "two/m"], **COMPARE)
            return operation.call.events()

        nothing_left_open(events, 4)


COMPARE: dict[str, Any] = {
    "system": None, "variables": None, "expected": None, "score": None, "repeat": 1,
    "concurrency": 2, "tokenizer": None, "templates": (), "yes": True, "parameters": {},
}  # fmt: skip


class Streaming(SimulatedProvider):
    """A provider whose first ``failures`` streams break off before their first word."""

    def __init__(self, told: list[str], failures: int = 0) -> None:
        super().__init__(lambda texts: asyncio.sleep(0), is_own=True)  # which costs nothing
        self._told = told
        self._failures = failures

    def prepare(self, model: str, capability: str) -> AsyncGenerator[Progress, None]:
        return self._prepared()

    async def _prepared(self) -> AsyncGenerator[Progress, None]:
        self._told.append("loading")
        try:
            yield Progress("loading")
        finally:
            self._told.append("loaded")

    async def generate_chat(self, *_: Any) -> AsyncGenerator[StreamChunk, None]:
        return self._stream()

    async def _stream(self) -> AsyncGenerator[StreamChunk, None]:
        self._told.append("opened")
        try:
            if self._failures:
                self._failures -= 1
                raise errors.ProviderError("down", status=500, retryable=True)
            yield StreamChunk("one ")
            yield StreamChunk("two", finish_reason="stop", usage=Usage(1, 1))
        finally:
            self._told.append("closed")


ATTEMPT = ["admitted", "loading", "loaded", "held", "opened", "closed", "settled", "released"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens, in its order: to the limiter's permits and the budget's holds."""
    lm.config.budget = 1.0
    events: list[str] = []
    acquire, release, held = RateLimiter.acquire, Permit.release, Budget.held

    async def acquire_told(self: RateLimiter, *given: Any) -> Permit:
        permit = await acquire(self, *given)
        events.append("admitted")
        return permit

    async def release_told(self: Permit) -> None:
        events.append("released")
        await release(self)

    @contextmanager
    def held_told(self: Budget, *given: Any) -> Iterator[Any]:
        with held(self, *given) as hold:
            events.append("held")
            try:
                yield hold
            finally:
                events.append("settled")

    monkeypatch.setattr(RateLimiter, "acquire", acquire_told)
    monkeypatch.setattr(Permit, "release", release_told)
    monkeypatch.setattr(Budget, "held", held_told)
    return events


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_an_attempt_ends_before_the_next_one_begins(told: list[str], failures: int) -> None:
    """Stream closed, budget settled, permit released; then the next request is admitted."""

    async def walked() -> None:
        call = ChatCall(
            SimulatedSession(Streaming(told, failures)), Prompt(text="hi", model="lab/m")
        )
        async with aclosing(call.events()) as events:
            async for _ in events:
                pass

    virtual_time.run(walked())
    assert told == ATTEMPT * (failures + 1)


@pytest.mark.parametrize("kind", ["chat", "rows", "side by side"])
def test_a_call_that_is_left_has_ended_when_its_close_returns(told: list[str], kind: str) -> None:
    """In the same order, with nothing left to happen later."""

    async def walked() -> list[str]:
        here = SimulatedSession(Streaming(told))
        prompt = Prompt(text="hi", model="lab/m")
        calls = {
            "chat": lambda: ChatCall(here, prompt),
            "rows": lambda: BatchCall(here, [prompt]),
            "side by side": lambda: ParallelCalls([ChatCall(here, prompt)]),
        }
        events = calls[kind]().events()
        async for event in events:
            if kind == "rows" or not isinstance(event, Progress | tuple) or "opened" in told:
                break
        await events.aclose()
        return told.copy()

    ended, _ = virtual_time.run(walked())
    assert ended == told == ATTEMPT


def test_loading_that_is_left_is_ended_before_the_permit_goes(told: list[str]) -> None:
    """A chat that is stopped while its model is loaded."""

    async def walked() -> list[str]:
        call = ChatCall(SimulatedSession(Streaming(told)), Prompt(text="hi", model="lab/m"))
        events = call.events()
        assert isinstance(await anext(events), Progress)
        await events.aclose()
        return told.copy()

    ended, _ = virtual_time.run(walked())
    assert ended == told == ["admitted", "loading", "loaded", "released"]


def test_an_image_ends_in_the_same_order(told: list[str]) -> None:
    """Closed when it was about to be sent, without a budget, for its price is not known."""
    lm.config.budget = None

    async def walked() -> list[str]:
        call = image_call(SimulatedSession(Streaming(told)), "a cat", "lab/m", {})
        events = call.events()
        await anext(events)
        await events.aclose()
        return told.copy()

    ended, _ = virtual_time.run(walked())
    assert ended == told == ["admitted", "released"]
