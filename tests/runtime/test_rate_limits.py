"""How many calls run at once, and how many begin in a minute."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_magics as lm
from llm_magics.runtime.policies.rate_limit import (
    AdaptiveSemaphore,
    RateLimiter,
    TokenBucket,
)
from llm_magics.runtime.session import session
from tests.support.servers import BUSY, servers
from tests.support.serving import Asked, Says, chat_stream, serving


@given(st.lists(st.sampled_from(["enter", "leave", "refuse", "answer", "cancel"]), max_size=60))
@settings(deadline=None)
def test_never_more_than_the_limit_and_nobody_forgotten(steps: list[str]) -> None:
    """Whatever happens in whatever order: places are neither lost nor given twice."""

    async def play() -> None:
        gate = AdaptiveSemaphore(3)
        inside, waiting = [], []
        for step in steps:
            if step == "enter":
                waiting.append(asyncio.create_task(gate.acquire()))
            elif step == "leave" and inside:
                inside.pop()
                gate.release()
            elif step == "refuse" and inside:
                gate.refused(inside[-1])
            elif step == "answer":
                gate.succeeded()
            elif step == "cancel" and waiting:
                waiting.pop(len(waiting) // 2).cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            inside += [task.result() for task in waiting if task.done()]
            waiting = [task for task in waiting if not task.done()]
            assert gate.running == len(inside) <= 3
            assert 1 <= gate.limit <= 3
            assert not waiting or gate.running >= int(gate.limit)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for _ in inside:
            gate.release()
        assert gate.running == 0

    asyncio.run(play())


def test_a_place_given_and_left_in_the_same_moment() -> None:
    """Goes to the next."""

    async def play() -> None:
        gate = AdaptiveSemaphore(1)
        await gate.acquire()
        first = asyncio.create_task(gate.acquire())
        second = asyncio.create_task(gate.acquire())
        await asyncio.sleep(0)
        gate.release()
        first.cancel()
        await asyncio.wait_for(second, 5)
        assert gate.running == 1

    asyncio.run(play())


def test_all_cancelled_in_the_same_moment() -> None:
    """Those that wait are cancelled, also if the one that runs has left its place just then."""

    async def hold(gate: AdaptiveSemaphore) -> None:
        await gate.acquire()
        try:
            await asyncio.sleep(60)
        finally:
            gate.release()

    async def play() -> None:
        gate = AdaptiveSemaphore(1)
        tasks = [asyncio.create_task(hold(gate)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in results] == [asyncio.CancelledError] * 3
        assert gate.running == 0

    asyncio.run(play())


def test_a_refusal_halves_and_answers_raise_again() -> None:
    """One burst of refusals counts once; from eight to four, and back by one a round."""

    async def play() -> None:
        gate = AdaptiveSemaphore()
        numbers = [await gate.acquire() for _ in range(8)]
        for number in numbers:
            gate.refused(number)
        assert gate.limit == 4
        for _ in range(8):
            gate.release()
        later = await gate.acquire()
        for _ in range(5):
            gate.succeeded()
        assert 5 <= gate.limit < 5.2
        gate.refused(later)
        assert gate.limit == 1
        for _ in range(400):
            gate.succeeded()
        assert gate.limit == float("inf")

    asyncio.run(play())


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 20)), max_size=30))
def test_no_more_than_the_bucket_pours(takes: list[tuple[float, float]]) -> None:
    """What has begun by any moment is at most a minute's worth and what came since."""
    now = [0.0]
    bucket = TokenBucket(60, lambda: now[0])
    begun: list[tuple[float, float]] = []
    for pause_s, amount in takes:
        now[0] += pause_s
        begun.append((now[0] + bucket.take(amount), amount))
    for moment, _ in begun:
        assert sum(each for at, each in begun if at <= moment) <= 60 + moment + 1e-6


def test_a_call_larger_than_a_minutes_worth_is_not_refused_for_ever() -> None:
    """It takes all there is, and goes."""
    assert TokenBucket(60, lambda: 0.0).take(1000) == 0


def test_what_was_taken_and_not_used_is_given_back() -> None:
    """A call that is cancelled while it waits takes nobody's turn."""

    async def play() -> float:
        limiter = RateLimiter(requests_per_minute=1)
        await (await limiter.acquire(lambda: 0)).release()
        waiting = asyncio.create_task(limiter.acquire(lambda: 0))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert limiter._requests
        assert limiter.semaphore.running == 0
        return limiter._requests.take(0)

    assert asyncio.run(play()) == pytest.approx(0, abs=1)


def all_of(calls: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    """What all of them give, at once."""

    async def gathered() -> list[Any]:
        return await asyncio.gather(*calls)

    return asyncio.run(gathered())


def test_concurrency_of_a_provider_is_bounded() -> None:
    """Forty calls, four at a time, all answered."""
    service_s, times, lock = 0.03, list[float](), threading.Lock()

    def answer(asked: Asked) -> Says:
        with lock:
            times.append(time.monotonic())
        return Says(chat_stream("a", "b"), delay_s=service_s)

    with serving(answer) as server:
        lm.config.providers = {
            "one": {"type": "openai", "base_url": server.url, "api_key": "k" * 9, "concurrency": 4}
        }
        answers = all_of([lm.aask("hi", model="one/m") for _ in range(40)])
        assert [answer.text for answer in answers] == ["ab"] * 40
    # The fifth request of any five is sent when one of the four before it has been answered.
    assert all(fifth - first >= service_s for first, fifth in zip(times, times[4:], strict=False))
    assert any(after - before < service_s for before, after in pairwise(times))


@pytest.mark.usefixtures("quick_retries")
def test_a_storm_of_refusals_is_survived() -> None:
    """A server that takes three at once: every call is answered, and fewer are sent at once."""
    running, lock, refusals = [0], threading.Lock(), [0]

    def answer(asked: Asked) -> Says:
        with lock:
            if running[0] >= 3:
                refusals[0] += 1
                return Says(BUSY.pieces, 429, "application/json")
            running[0] += 1
        threading.Timer(0.03, leave).start()
        return Says(chat_stream("ok"), delay_s=0.03)

    def leave() -> None:
        with lock:
            running[0] -= 1

    with servers(one=answer):
        lm.config.retries = 20
        answers = all_of([lm.aask(f"{number}", model="one/m") for number in range(40)])
        assert [answer.text for answer in answers] == ["ok"] * 40
        assert refusals[0]
        assert session.limiter(session.provider("one")).semaphore.limit < 40


def test_requests_a_minute() -> None:
    """The third of two a minute waits; a limit of the wrong kind is refused."""
    lm.config.providers = {"echo": {"requests_per_minute": 240}}
    started = time.monotonic()
    asked = [lm.aask("hi", model="echo/echo") for _ in range(241)]
    all_of(asked)
    assert time.monotonic() - started > 0.2
    lm.config.providers = {"echo": {"concurrency": 0}}
    with pytest.raises(lm.errors.ConfigurationError, match="concurrency"):
        lm.ask("hi", model="echo/echo")


def test_what_is_given_back_is_no_more_than_what_was_taken() -> None:
    """A call larger than a minute's worth, cancelled, does not pay the debts of others."""
    bucket = TokenBucket(1000, lambda: 0.0)
    bucket.take(1000)
    bucket.take(1000)
    assert bucket.take(50_000) == pytest.approx(120)
    bucket.give_back(50_000)
    assert bucket.take(0) == pytest.approx(60)


def test_a_fork_begins_with_all_places_free() -> None:
    """Those of the parent's calls are left by nobody there."""
    lm.config.providers = {"echo": {"concurrency": 1}}
    limiter = session.limiter(session.provider("echo"))
    limiter.semaphore.running = 1
    child = os.fork()
    if child == 0:
        is_free = session.limiter(session.provider("echo")).semaphore.running == 0
        os._exit(0 if is_free else 1)
    assert os.waitpid(child, 0)[1] == 0
    limiter.semaphore.running = 0
