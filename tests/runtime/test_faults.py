"""Servers that misbehave on purpose, met on the whole road."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics._async.bridge import bridge
from llm_magics.http import connections
from llm_magics.runtime.policies.retry import CircuitBreakers
from llm_magics.runtime.session import session
from tests.conftest import eventually
from tests.support.servers import servers
from tests.support.serving import Asked, Says, as_json, chat_event, chat_stream, serving

pytestmark = pytest.mark.usefixtures("quick_retries")

GOOD = Says(chat_stream("all ", "is ", "well"))


def then_good(*first: Says) -> Callable[[Asked], Says]:
    """A server that misbehaves some times, and then is well."""
    left: Iterator[Says] = iter(first)
    return lambda asked: next(left, GOOD)


def refusing(status: int, **headers: str) -> Says:
    """A refusal with an error's body."""
    says = as_json({"error": {"message": "no"}}, status)
    says.headers = headers
    return says


@contextmanager
def one(answer: Callable[[Asked], Says] | Says, **patience: float) -> Iterator[Any]:
    """A server under the name ``one``, asked by default."""
    with servers(one=answer) as running:
        for name, value in patience.items():
            lm.config.set(f"providers.one.{name}", value)
        lm.config.model = "one/m"
        yield running["one"]
        bridge.run(session.providers.close())  # with the connections that are kept for reuse


@pytest.mark.parametrize(
    "fault",
    [
        Says(drop=True),
        Says(chat_stream()[:1], cut=True),
        refusing(500),
        refusing(502),
        refusing(503, **{"retry-after": "0"}),
        refusing(529),
        refusing(429, **{"retry-after": "0"}),
        refusing(429, **{"retry-after-ms": "5"}),
        refusing(429),
        Says(chat_stream()[:1], hang=True),
        Says([b'data: {"error": {"message": "overloaded", "code": 503}}\n\n'], cut=True),
    ],
    ids=["reset", "cut", "500", "502", "503", "529", "429", "429 ms", "429 bare", "stall", "in a 200"],
)  # fmt: skip
def test_what_passes_is_asked_again(fault: Says) -> None:
    """Before the first word: the answer comes, and the log says that it took more than one."""
    with one(then_good(fault), idle_s=0.15) as server:
        answer = lm.ask("hi")
        assert (answer.text, answer.retries) == ("all is well", 1)
        assert len(server.asked) == 2
    assert lm.runs().retries.tolist() == [1]


@pytest.mark.parametrize(
    "fault",
    [
        Says(chat_stream("half ", "x")[:2], cut=True),
        Says(chat_stream("half ", "x")[:2], hang=True),
        Says([*chat_stream("half ", "x")[:2], b"data: {not json}\n\n"]),
        Says([*chat_stream("half ", "x")[:2], b'data: {"error": {"message": "overloaded"}}\n\n']),
        Says([*chat_stream("half ", "x")[:2], b'data: {"choices": 3}\n\n']),
    ],
    ids=["reset", "stall", "garbage", "error in a 200", "wrong shape"],
)
def test_what_breaks_off_keeps_what_came(fault: Says) -> None:
    """Never asked again, for its words are out: an error with the half answer in it."""
    with one(fault, idle_s=0.15) as server:
        with pytest.raises(errors.StreamInterrupted) as caught:
            lm.ask("hi")
        assert caught.value.partial.text == "half "
        assert len(server.asked) == 1
    row = lm.runs().iloc[0]
    assert (row.finish_reason, row.retries) == ("error", 0)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("openai", [*chat_stream("half ", "x")[:2], b'data: {"choices": [{"delta": {"con']),
        ("ollama", [b'{"message": {"content": "half "}, "done": false}\n', b'{"message": {"con']),
    ],
)
def test_a_stream_that_ends_inside_an_event_is_a_lost_connection(
    kind: str, sent: list[bytes]
) -> None:
    """Not an invalid answer: the half event is left out."""
    lm.config.providers = {"one": {"type": kind, "api_key": "k"}}
    with serving(Says(sent)) as server:
        lm.config.set("providers.one.base_url", server.url)
        with pytest.raises(errors.StreamInterrupted) as caught:
            lm.ask("hi", model="one/m")
    assert caught.value.partial.text == "half "
    assert isinstance(caught.value.__cause__, errors.ConnectionError)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_what_is_wrong_is_not_asked_again(status: int) -> None:
    """Nor is another model of the route asked, save where the model is missing."""
    with servers(one=refusing(status), two=GOOD) as running:
        lm.config.routes = {"both": ["one/m", "two/m"]}
        if status == 404:
            assert lm.ask("hi", model="both").fallback_from
        else:
            with pytest.raises(errors.ProviderError):
                lm.ask("hi", model="both")
            assert running["two"].asked == []
        posts = [asked for asked in running["one"].asked if asked.method == "POST"]
        assert len(posts) == 1


def test_a_slow_drip_is_an_answer_and_has_an_end() -> None:
    """Byte by byte it comes whole; ``total_s`` ends one that would go on for ever."""
    said = b'data: {"choices": [{"delta": {"content": "ab"}, "finish_reason": "stop"}]}\n\n'
    drip = [bytes([byte]) for byte in said + b"data: [DONE]\n\n"]
    with one(Says(drip, gap_s=0.0005), idle_s=0.5):
        assert lm.ask("hi").text == "ab"
    for_ever = [chat_event("x")] * 1000
    with one(Says(for_ever, gap_s=0.01), total_s=0.2):
        with pytest.raises(errors.StreamInterrupted) as caught:
            lm.ask("hi")
        assert 1 <= len(caught.value.partial.text) < 100


def test_a_storm_without_end_is_given_up() -> None:
    """Twice asked again, then an error that says how long the service wants to be left alone."""
    with one(refusing(429, **{"retry-after": "0"})) as server:
        with pytest.raises(errors.RateLimitError):
            lm.ask("hi")
        assert len(server.asked) == 3
    with one(refusing(429, **{"retry-after": "3600"})) as server:
        with pytest.raises(errors.RateLimitError) as caught:
            lm.ask("hi")
        assert caught.value.retry_after == 3600
        assert len(server.asked) == 1


def test_a_server_that_is_gone_for_a_while() -> None:
    """The route goes on with the next, leaves it alone, tries it when it rested, and is back."""
    now = [0.0]
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    with servers(two=GOOD) as running:
        gone = {"type": "openai", "base_url": f"http://127.0.0.1:{port}", "api_key": "a-test-key"}
        lm.config.providers = {
            "one": gone,
            "two": {"type": "openai", "base_url": running["two"].url, "api_key": "a-test-key"},
        }
        lm.config.routes = {"both": ["one/m", "two/m"]}
        session.circuit_breakers = CircuitBreakers(clock=lambda: now[0])
        assert [lm.ask("hi", model="both").model for _ in range(4)] == ["two/m"] * 4
        assert "skipped" in lm.runs().fallback_from.tolist()[3]
        now[0] = 31
        assert lm.ask("hi", model="both").fallback_from == ("one/m (ConnectionError)",)
        assert "skipped" in lm.ask("hi", model="both").fallback_from[0]
        with serving(GOOD) as back:
            lm.config.set("providers.one.base_url", back.url)
            now[0] = 62
            assert [lm.ask("hi", model="both").model for _ in range(2)] == ["one/m"] * 2


def test_two_hundred_streams_at_once() -> None:
    """Each gets its own answer, piece by piece, and none another's."""

    def answer(asked: Asked) -> Says:
        said = asked.json()["messages"][-1]["content"]
        return Says(chat_stream(*(f"{said}.{number} " for number in range(4))), gap_s=0.002)

    async def read(number: int) -> str:
        return "".join([chunk.text async for chunk in lm.astream(str(number))])

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(read, range(200)))

    with one(answer, connect_s=60):  # two hundred at the door of a busy machine
        told = asyncio.run(all_of_them())
    assert told == ["".join(f"{n}.{k} " for k in range(4)) for n in range(200)]


def left_behind() -> tuple[int, int, int]:
    """Tasks on the bridge, threads, and open connections of this process."""

    async def tasks() -> int:
        return len(asyncio.all_tasks())

    gc.collect()
    connections = [
        each for each in psutil.Process().net_connections("tcp") if each.status == "ESTABLISHED"
    ]
    return bridge.run(tasks()), threading.active_count(), len(connections)


def test_cancelled_at_any_moment_a_thousand_times() -> None:
    """No task, thread, connection or memory is left of them, and the next call is answered."""
    draw = random.Random(4)
    body = chat_stream(*("word " for _ in range(6)))

    async def cancelled() -> None:
        task = asyncio.create_task(lm.aask("hi"))
        await asyncio.sleep(draw.uniform(0, 0.015))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def many(count: int) -> None:
        for _ in range(count // 50):
            await asyncio.gather(*(cancelled() for _ in range(50)))

    with one(Says(body, gap_s=0.001)):
        lm.ask("hi")  # imports what is imported at the first use
        asyncio.run(many(600))
        bridge.run(session.providers.close())  # connections that are kept for reuse are not left
        before = left_behind()
        objects, memory = len(gc.get_objects()), psutil.Process().memory_info().rss
        asyncio.run(many(600))
        bridge.run(session.providers.close())
        assert eventually(lambda: left_behind() <= before, 10), (left_behind(), before)
        objects = len(gc.get_objects()) - objects
        grown = psutil.Process().memory_info().rss - memory
        assert lm.ask("hi").finish_reason == "stop"
    # Their rows in the log: a call that is left would be dozens of objects.
    assert objects < 2000
    # And what the allocator keeps.
    assert grown < 8_000_000, f"{grown / 1e6:.1f} MB"


def test_an_event_of_another_kind_does_no_harm() -> None:
    """Comments, pings and fields that nobody knows are passed over."""
    pieces = [b": ping\n\n", b"event: ping\ndata: {}\n\n", *chat_stream("fine")]
    strange = json.dumps({"id": "x", "object": "x", "choices": [], "new": [1]}).encode()
    with one(Says([*pieces[:2], b"data: " + strange + b"\n\n", *pieces[2:]])):
        assert lm.ask("hi").text == "fine"


def test_a_server_with_too_many_at_its_door_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has answered before, and takes no connection in time: that passes, unlike one that is gone."""
    left: list[int] = []
    connect = connections._connect

    async def crowded(host: str, port: int) -> Any:
        if left:
            left.pop()
            raise TimeoutError
        return await connect(host, port)

    with one(GOOD):
        assert lm.ask("first").retries == 0
        left[:] = [0]
        monkeypatch.setattr(connections, "_connect", crowded)
        assert lm.ask("hi").retries == 1
