"""Closing returns only after what it closes has ended, also where something still refers to it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import llm_magics as lm
from llm_magics._async.bridge import bridge
from llm_magics._async.concurrency import merge_streams, run_bounded
from llm_magics._async.sync import SyncRunner, iterate_async
from llm_magics._util.filesystem import append_lines, locked
from llm_magics.benchmarking import bench
from llm_magics.host import Progress
from llm_magics.providers.base import ModelInfo
from llm_magics.runtime.batch import BatchCall
from llm_magics.runtime.embedding import EmbeddingCall, EmbedOptions
from llm_magics.runtime.media_calls import image_call
from llm_magics.runtime.policies.rate_limit import RateLimiter
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.vector_files import Writer
from llm_magics.types import StreamChunk
from tests.support import virtual_time
from tests.support.closing import BENCH, left_open
from tests.support.embedder import Embedder
from tests.support.fake_media import FakeMedia
from tests.support.serving import Asked, Says, as_json, chat_stream, serving
from tests.support.virtual_time import SimulatedProvider, SimulatedSession


class Endless:
    """A call whose events go on until it is stopped; stopping takes a moment."""

    def __init__(self) -> None:
        self.has_ended = False

    async def events(self) -> AsyncGenerator[Progress | StreamChunk, None]:
        try:
            while True:
                yield StreamChunk("word ")
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0.01)
            self.has_ended = True


def test_leaving_a_block_ends_its_call() -> None:
    """While the runner and its iterator are still referred to, as by a traceback."""
    call = Endless()
    with SyncRunner(call) as runner:
        words = iter(runner)
        assert next(words).text == "word "
    assert call.has_ended
    assert list(words) == []


@pytest.mark.parametrize("loop", ["its own", "the bridge's"])
@pytest.mark.parametrize("iterate", [iterate_async, lambda call: bridge.aiterate(call.events())])
def test_closing_in_a_loop_ends_the_call(iterate: Any, loop: str) -> None:
    """In the loop of the caller, and in that of the bridge."""
    call = Endless()

    async def use() -> bool:
        chunks = iterate(call)
        assert (await anext(chunks)).text == "word "
        await chunks.aclose()
        return call.has_ended

    assert asyncio.run(use()) if loop == "its own" else bridge.run(use())


def test_an_asynchronous_stream_has_ended_when_its_close_returns() -> None:
    """The service sees the end of the connection, although the stream is still referred to."""
    with serving(Says(chat_stream("one ", "two "), hang=True)) as server:
        lm.config.providers = {"one": {"type": "openai", "base_url": server.url, "api_key": "k"}}

        async def use() -> int:
            stream = lm.astream("hi", "one/m")
            await anext(stream)
            await stream.aclose()
            return len(lm.runs())

        assert asyncio.run(use()) == 1
        assert server.hung_up.wait(30)


async def _closed_in_the_middle(
    create: Callable[[Callable[[int], Awaitable[None]]], AsyncGenerator[Any, None]],
) -> list[int]:
    """Return which of three items had ended when the generator's close returned."""
    ended: list[int] = []

    async def work(number: int) -> None:
        try:
            await asyncio.sleep(0 if number == 0 else 100)
        finally:
            await asyncio.sleep(0.01)
            ended.append(number)

    running = create(work)
    await anext(running)
    async with asyncio.timeout(10):
        await running.aclose()
    return ended.copy()


def test_items_that_run_are_cancelled_and_awaited() -> None:
    """Not left running, and not waited for until they are done."""

    def create(work: Callable[[int], Awaitable[None]]) -> AsyncGenerator[Any, None]:
        return run_bounded(3, work, range(3))

    ended, seconds = virtual_time.run(_closed_in_the_middle(create))
    assert sorted(ended) == [0, 1, 2]
    assert seconds < 10


def test_streams_that_are_merged_are_cancelled_and_awaited() -> None:
    """The same of a fan-in."""

    def create(work: Callable[[int], Awaitable[None]]) -> AsyncGenerator[Any, None]:
        async def stream(number: int) -> AsyncGenerator[int, None]:
            await work(number)
            yield number

        return merge_streams([stream(number) for number in range(3)])

    ended, seconds = virtual_time.run(_closed_in_the_middle(create))
    assert sorted(ended) == [0, 1, 2]
    assert seconds < 10


def test_requests_that_are_not_due_are_not_sent_after_a_benchmark() -> None:
    """An open loop that is closed after its first request sends no other."""
    with serving(Says(chat_stream("a"))) as server:
        lm.config.providers = {"one": {"type": "openai", "base_url": server.url, "api_key": "k"}}

        async def use() -> None:
            load = {"rate": 2.0, "arrival": "constant", "repeat": 3}
            events = bench._bench_operation("hi", "one/m", **(BENCH | load)).call.events()
            async for _ in events:
                if server.asked:
                    break
            async with asyncio.timeout(0.9):
                await events.aclose()

        bridge.run(use())
        assert len(server.asked) < 3


@pytest.mark.parametrize("kind", ["rows", "texts"])
def test_a_limiter_forgets_the_listeners_of_a_run(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It lives as long as the session; a run adds one listener and removes it."""
    listening: list[Any] = []
    on_pause = RateLimiter.on_pause

    def subscribe(self: RateLimiter, listener: Callable[[], None]) -> Callable[[], None]:
        forget = on_pause(self, listener)
        listening.append(listener)

        def unsubscribe() -> None:
            forget()
            listening.remove(listener)

        return unsubscribe

    monkeypatch.setattr(RateLimiter, "on_pause", subscribe)
    with serving(Says(chat_stream("a")) if kind == "rows" else Embedder()) as server:
        lm.config.providers = {"one": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.vectors = "off"
        prompts = [Prompt(text=f"row {n}", model="one/m") for n in range(2)]
        calls: dict[str, Callable[[], Any]] = {
            "rows": lambda: BatchCall(session, prompts, 2),
            "texts": lambda: EmbeddingCall(
                session=session, texts=["a", "b"], model="one/m", options=EmbedOptions()
            ),
        }
        seen: list[int] = []

        async def use() -> None:
            seen.extend([len(listening) async for _ in calls[kind]().events()])

        bridge.run(use())
    assert 1 in seen
    assert listening == []


def test_an_image_that_waits_for_its_second_try_can_be_left() -> None:
    """The wait is closed with the call."""
    good = FakeMedia()
    sent: list[Asked] = []

    def answer(asked: Asked) -> Says:
        sent.append(asked)
        busy = {"error": {"message": "busy"}}
        return as_json(busy, 503) if len(sent) % 2 else good(asked)

    with serving(answer) as server:
        lm.config.providers = {"one": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.retries = 1
        lm.config.max_retry_delay_s = 0.01
        call = lambda: image_call(session, "a cat", "one/dall-e-3", {}).events()  # noqa: E731
        unclosed, items = left_open(call)
    assert unclosed == []
    assert items >= 2  # the wait for the second try is one of them


class Loading(SimulatedProvider):
    """A provider whose model is loaded before its first request."""

    def __init__(self) -> None:
        super().__init__(lambda texts: asyncio.sleep(0), is_own=True)
        self.steps: list[str] = []

    async def prepare(self, model: str, capability: str) -> AsyncGenerator[Progress, None]:
        self.steps.append("begun")
        try:
            yield Progress("loading")
        finally:
            self.steps.append("ended")


def test_loading_before_texts_are_embedded_ends_with_the_call() -> None:
    """Closed while the model is loaded, before anything is sent."""
    lm.config.vectors = "off"
    loading = Loading()

    async def use() -> list[str]:
        call = EmbeddingCall(
            session=SimulatedSession(loading), texts=["a"], model="lab/m", options=EmbedOptions()
        )
        events = call.events()
        assert isinstance(await anext(events), Progress)
        await events.aclose()
        return loading.steps.copy()

    ended, _ = virtual_time.run(use())
    assert ended == ["begun", "ended"]
    assert loading.requests == []


def test_a_session_ends_the_requests_for_lists() -> None:
    """A service that does not answer with its list holds nothing up."""

    class Silent(Loading):
        async def describe_models(self) -> list[ModelInfo]:
            self.steps.append("begun")
            try:
                await asyncio.sleep(1000)
            finally:
                self.steps.append("ended")
            return []

    silent = Silent()

    async def use() -> list[str]:
        own = SimulatedSession(silent)
        asking = asyncio.create_task(own.listings.of(["lab"]))
        await asyncio.sleep(0.1)
        await own.close()
        steps = silent.steps.copy()
        asking.cancel()
        await asyncio.wait([asking])
        return steps

    ended, seconds = virtual_time.run(use())
    assert ended == ["begun", "ended"]
    assert seconds < 10


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has handles in place of descriptors")
def test_no_file_stays_open(tmp_path: Path) -> None:
    """Locks, appended lines and segments of vectors close the files that they open."""
    this = psutil.Process()
    rows = np.ones((1, 2), np.float32)
    keys = np.zeros((1, 2), np.uint64)
    before = this.num_fds()
    for number in range(5):
        with locked(tmp_path / "lock") as is_locked:
            append_lines(tmp_path / "lines", b"{}\n", is_locked=is_locked)
        (tmp_path / str(number)).mkdir()
        assert Writer(tmp_path / str(number), 2).append(keys, rows)
    assert this.num_fds() == before


def test_the_cache_of_a_closed_session_is_closed(tmp_path: Path) -> None:
    """Windows deletes no file that is open."""
    lm.config.cache, lm.config.cache_dir = True, tmp_path
    with serving(Says(chat_stream("a"))) as server:
        lm.config.providers = {"one": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.ask("hi", model="one/m")
    path = next(tmp_path.rglob("*.sqlite"))
    is_open = lambda: str(path) in {each.path for each in psutil.Process().open_files()}  # noqa: E731
    assert is_open()
    bridge.run(session.close())
    assert not is_open()
