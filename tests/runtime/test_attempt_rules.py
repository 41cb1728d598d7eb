"""What an attempt may repeat, what it costs, and what counts as progress."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics.documents import Document
from llm_magics.runtime.attempts import Batch, attempts
from llm_magics.runtime.embedding.request import embed_mean_of_parts
from llm_magics.runtime.policies.rate_limit import RateLimiter
from llm_magics.runtime.policies.retry import RetryPolicy, RetryState
from llm_magics.runtime.routing import Candidate, Route
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.serialization import chat_request, digest_request
from llm_magics.tools import Tool
from llm_magics.types import Image, ToolCall
from tests.support import virtual_time
from tests.support.serving import Says, as_json, chat_stream, serving
from tests.support.virtual_time import SimulatedProvider, SimulatedSession

PNG = b"\x89PNG\r\n\x1a\n"


def run_attempts(
    body: Callable[[Any], Awaitable[None]], models: Sequence[str], **more: Any
) -> list[str]:
    """Run ``body`` in each attempt, and return the models that were tried."""
    tried: list[str] = []

    async def use() -> None:
        provider = SimulatedProvider(lambda texts: asyncio.sleep(0), is_own=True)
        here = SimulatedSession(provider)

        async def resolve(candidate: Candidate) -> Route:
            return Route(provider=provider, model=candidate.model.partition("/")[2])

        candidates = [Candidate(model) for model in models]
        async for attempt in attempts(here, candidates, resolve, **more):
            async with attempt:
                async for _ in attempt.ready():
                    pass
                tried.append(attempt.route.name)
                await body(attempt)

    virtual_time.run(use())
    return tried


@pytest.mark.parametrize("is_committed", [False, True])
def test_no_model_continues_the_answer_of_another(is_committed: bool) -> None:
    """A part of the answer is with the user: the error is raised, whatever its kind."""
    tried: list[str] = []
    lm.config.retries = 1

    async def body(attempt: Any) -> None:
        tried.append(attempt.route.name)
        attempt.is_committed = is_committed
        raise errors.ConnectionError("reset", retryable=True)

    with pytest.raises(errors.ConnectionError):
        run_attempts(body, ["lab/a", "lab/b"])
    assert tried == (["lab/a"] if is_committed else ["lab/a"] * 2 + ["lab/b"] * 2)


class Tuner:
    """Records what a batch reports to it."""

    level = 1

    def __init__(self) -> None:
        self.amounts: list[int] = []

    def started(self) -> float:
        return 0.0

    def finished(self, started_at: float, amount: int) -> None:
        self.amounts.append(amount)

    def refused(self) -> None:
        """Lower nothing."""


def test_a_failed_request_counts_as_no_throughput() -> None:
    """Otherwise a batch would raise its concurrency because a service fails fast."""
    tuner: Any = Tuner()

    async def body(attempt: Any) -> None:
        attempt.amount = 5
        if not tuner.amounts:
            raise errors.ProviderError("down", status=500, retryable=True)

    assert run_attempts(body, ["lab/a"], batch=Batch(tuner)) == ["lab/a", "lab/a"]
    assert tuner.amounts == [0, 5]


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_a_refused_request_spends_no_budget(status: int) -> None:
    """It is not billed, although its estimate was reserved."""
    lm.config.retries = 0
    lm.config.budget = 100.0
    lm.config.prices = {"one/*": {"input_usd": 1.0, "output_usd": 1.0}}
    refused = as_json({"error": {"message": "no"}}, status)
    with serving(refused) as server:
        lm.config.providers = {"one": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        with pytest.raises(errors.ProviderError):
            lm.ask("hi", model="one/m")
    assert session.budget.spent_usd == 0.0
    assert session.budget.left_usd == 100.0
    with serving(Says(chat_stream("one ", "two")[:2], cut=True)) as server:
        lm.config.set("providers.one.base_url", server.url)
        with pytest.raises(errors.StreamInterrupted):
            lm.ask("hi", model="one/m")
    assert session.budget.spent_usd > 0.0  # it had begun to answer


def ask_one(url: str, **settings: Any) -> None:
    """Ask a priced model at ``url`` with a budget, without retries."""
    lm.config.retries = 0
    lm.config.budget = 100.0
    lm.config.prices = {"one/*": {"input_usd": 1.0, "output_usd": 1.0}}
    provider = {"type": "openai", "base_url": url, "api_key": "k", **settings}
    lm.config.providers = {"one": provider}
    lm.ask("hi", model="one/m")


@pytest.mark.parametrize(
    ("says", "settings"),
    [
        (Says(drop=True), {}),
        (Says(cut=True), {}),
        (Says([b"data: [DON"]), {}),
        (Says([b"data: {]\n\n"]), {}),
        (Says(hang=True), {"idle_s": 0.05}),
        (Says(delay_s=5), {"idle_s": 0.05}),
        (Says(delay_s=5), {"total_s": 0.5}),
    ],
    ids=["dropped", "cut", "ended", "invalid", "silent", "no headers", "total"],
)
def test_a_lost_request_counts_by_its_estimate(says: Says, settings: dict[str, Any]) -> None:
    """It was sent, so the service may bill it: its cost is unknown, not zero."""
    with serving(says) as server, pytest.raises(errors.ProviderError) as caught:
        ask_one(server.url, **settings)
    assert caught.value.status is None
    assert session.budget.spent_usd > 0.0
    assert lm.runs().cost_usd.isna().tolist() == [True]


def test_a_request_that_could_not_be_sent_is_free() -> None:
    """Without a connection nothing is billed."""
    with serving(Says()) as server:
        url = server.url
    with pytest.raises(errors.ConnectionError):
        ask_one(url)
    assert session.budget.spent_usd == 0.0
    assert lm.runs().cost_usd.tolist() == [0.0]


def test_a_large_request_that_is_not_accepted_is_free() -> None:
    """A service that closes the connection before it has read the request does not bill it."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def refuse() -> None:
        connection, _ = listening.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.recv(100)
        connection.close()

    thread = threading.Thread(target=refuse)
    thread.start()
    lm.config.system = "x" * 4_000_000
    with pytest.raises(errors.ConnectionError):
        ask_one(f"http://127.0.0.1:{listening.getsockname()[1]}")
    thread.join()
    listening.close()
    assert session.budget.spent_usd == 0.0


def test_a_lost_request_makes_the_cost_of_a_call_unknown() -> None:
    """Although the last attempt was refused, and is free."""
    answers = iter([Says(drop=True), as_json({"error": {"message": "no"}}, 401)])
    with serving(lambda asked: next(answers)) as server:
        lm.config.retries = 1
        lm.config.prices = {"one/*": {"input_usd": 1.0, "output_usd": 1.0}}
        lm.config.providers = {"one": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        with pytest.raises(errors.AuthenticationError):
            lm.ask("hi", model="one/m")
    assert lm.runs().cost_usd.isna().tolist() == [True]


@pytest.mark.parametrize("says", [Says(drop=True), Says([b"[["], content_type="application/json")])
def test_lost_embeddings_count_by_their_estimate(says: Says) -> None:
    """As a lost prompt does."""
    lm.config.retries = 0
    lm.config.budget = 100.0
    lm.config.prices = {"one/*": {"input_usd": 1.0, "output_usd": 0.0}}
    with serving(says) as server:
        lm.config.providers = {"one": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        with pytest.raises(errors.ProviderError):
            lm.embed(["a", "b"], model="one/m")
    assert session.budget.spent_usd > 0.0
    assert lm.runs().cost_usd.isna().tolist() == [True]


def test_progress_counts_from_when_it_was_made() -> None:
    """A success long ago does not extend the time until a retry is given up."""
    now = 0.0
    state = RetryState(RetryPolicy(timeout_s=10.0), clock=lambda: now)
    busy = errors.RateLimitError("busy", status=429, retryable=True)
    now = 9.0
    state.progressed(5.0)
    now = 14.0
    assert state.shared_delay_s(busy, 0.5) == 0.5  # until 15
    assert state.shared_delay_s(busy, 2.0) is None
    state.progressed(3.0)  # of an earlier time than the last
    assert state.shared_delay_s(busy, 0.5) == 0.5


def test_a_request_that_meets_a_pause_gives_back_what_it_took() -> None:
    """From the bucket of requests: after the pause it takes them only once."""

    async def use() -> float:
        limiter = RateLimiter(concurrency=20, requests_per_minute=60)
        loop = asyncio.get_running_loop()
        while limiter._requests is not None and not limiter._requests.take(1):
            pass  # the burst is used up
        began = loop.time()
        asking = asyncio.create_task(limiter.acquire(lambda: 0))
        await asyncio.sleep(0.5)
        limiter.semaphore.pause(10.0)
        await asking
        assert loop.time() - began == pytest.approx(10.5, abs=0.1)
        # What came in during the pause is there for the next ones.
        for _ in range(8):
            await limiter.acquire(lambda: 0)
        return loop.time() - began

    seconds, _ = virtual_time.run(use())
    assert seconds == pytest.approx(10.5, abs=0.2)


BASE = ModelParameters()
TOOL = Tool("f", "Do it.", {"type": "object", "properties": {}})
OTHER_PARAMETERS: dict[str, Any] = {
    "temperature": 0.5, "max_tokens": 5, "top_p": 0.5, "seed": 1, "stop": ("a",), "extra_body": {"a": 1},
    "tools": (TOOL,), "tool_choice": "none", "schema": {"type": "object"}, "reasoning": "low",
    "logprobs": 3, "choices": ("a", "b"), "search": True,
}  # fmt: skip
MESSAGE = ChatMessage("assistant", "text")
OTHER_MESSAGES: dict[str, Any] = {
    "role": "tool", "content": "another", "images": (Image(data=PNG),),
    "tool_calls": (ToolCall("1", "f", "{}"),), "tool_call_id": "1",
    "attachments": (Document(data=b"text", media_type="text/plain"),),
}  # fmt: skip
# These do not change an answer; headers are in the key of the cache, but in no file.
NOT_IN_KEY = {"stream", "tier", "extra_headers", "reasoning_blocks"}


@pytest.mark.parametrize("name", [each.name for each in fields(ModelParameters)])
def test_every_parameter_has_a_key_of_its_own(name: str) -> None:
    """In the cache and in recordings."""
    if name in NOT_IN_KEY:
        return
    other = replace(BASE, **{name: OTHER_PARAMETERS[name]})
    keys = {digest_request(chat_request("m", [MESSAGE], each)) for each in (BASE, other)}
    assert len(keys) == 2


@pytest.mark.parametrize("name", [each.name for each in fields(ChatMessage)])
def test_every_field_of_a_message_has_a_key_of_its_own(name: str) -> None:
    """In the cache and in recordings."""
    if name in NOT_IN_KEY:
        return
    other = replace(MESSAGE, **{name: OTHER_MESSAGES[name]})
    keys = {digest_request(chat_request("m", [each], BASE)) for each in (MESSAGE, other)}
    assert len(keys) == 2


def test_the_mean_of_parts_is_weighted_by_their_lengths() -> None:
    """A short rest counts less than a full part."""
    sent: list[Sequence[str]] = []

    async def send(parts: Sequence[str]) -> Any:
        sent.append(parts)
        return np.array([[float(len(part)), 1.0] for part in parts], np.float32)

    error = errors.ContextLengthError("too long")
    mean = asyncio.run(embed_mean_of_parts("word " * 21, error, send))
    (parts,) = sent
    lengths = np.array([len(part) for part in parts], float)
    assert len(set(lengths)) > 1
    expected = np.array([(lengths * lengths).sum() / lengths.sum(), 1.0])
    np.testing.assert_allclose(mean, [expected / np.linalg.norm(expected)], rtol=1e-6)
