"""How many requests at once: as many as bring more, and no more."""

from __future__ import annotations

import asyncio
import functools
import math
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_magics as lm
from llm_magics._async.concurrency import run_bounded
from llm_magics.host import Progress
from llm_magics.runtime.batch import BatchCall
from llm_magics.runtime.embedding import results
from llm_magics.runtime.embedding.results import Throughput, ThroughputMeter
from llm_magics.runtime.policies.rate_limit import AdaptiveSemaphore, ConcurrencyTuner
from llm_magics.runtime.prompts.prompt import Prompt
from tests.support import virtual_time
from tests.support.embedder import Embedder
from tests.support.serving import serving
from tests.support.virtual_time import SharedServer, SimulatedProvider, SimulatedSession

ROWS = 1000

# Answers a second by requests at once, as of Ollama on two cores.
TWO_CORES = {1: 6.1, 2: 8.6, 4: 7.8, 8: 6.7, 16: 5.7, 32: 4.9, 64: 4.2}


def two_cores(count: int) -> float:
    """Between the measured numbers, and beyond them, in proportion."""
    known = sorted(TWO_CORES)
    for low, high in pairwise(known):
        if low <= count <= high:
            share = math.log(count / low) / math.log(high / low)
            return TWO_CORES[low] * (TWO_CORES[high] / TWO_CORES[low]) ** share
    return TWO_CORES[known[-1]]


def sixty_four_places(count: int) -> float:
    """Answers a second of a service that is fastest at 64; each takes 0.8 s."""
    return min(count, 64) / 0.8 * (min(1.0, 64 / count) ** 0.3)


def column_s(rate: Callable[[int], float], *, is_own: bool, spread: float) -> float:
    """Virtual seconds that a column of a thousand prompts takes, the number being found."""
    server, draw = SharedServer(rate), random.Random(7)

    async def ask() -> None:
        provider = SimulatedProvider(
            lambda texts: server.serve(draw.uniform(1 - spread, 1 + spread)), is_own=is_own
        )
        prompts = [Prompt(text=f"row {number}", model="lab/m") for number in range(ROWS)]
        call = BatchCall(SimulatedSession(provider), prompts)
        async with aclosing(call.events()) as events:
            async for _ in events:
                pass
        assert all(each is not None for each in call.responses)
        assert not call.errors

    return virtual_time.run(ask())[1]


@functools.cache
def fixed_s(rate: Callable[[int], float], concurrency: int, spread: float) -> float:
    """Virtual seconds of as many requests, always so many at once, without prompts around them."""
    server, draw = SharedServer(rate), random.Random(7)

    async def ask(number: int) -> None:
        await server.serve(draw.uniform(1 - spread, 1 + spread))

    async def walk() -> None:
        async for _ in run_bounded(lambda: concurrency, ask, range(ROWS)):
            pass

    return virtual_time.run(walk())[1]


@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("is_own", [True, False], ids=["own server", "service"])
@pytest.mark.parametrize(
    ("rate", "best"), [(two_cores, 2), (sixty_four_places, 64)], ids=["two cores", "64 places"]
)
def test_a_column_is_as_fast_as_with_the_best_number(
    rate: Callable[[int], float], best: int, is_own: bool, spread: float
) -> None:
    """At most 1.1 times as long, with the search for the number in it."""
    best_s = fixed_s(rate, best, spread)
    found_s = column_s(rate, is_own=is_own, spread=spread)
    assert found_s <= 1.1 * best_s, f"{found_s:.1f} s and {best_s:.1f} s"


class Climb:
    """A tuner and requests to a server with so many places, without prompts around them."""

    def __init__(self, tuner: ConcurrencyTuner, rate: Callable[[int], float]) -> None:
        self.tuner = tuner
        self.meter = ThroughputMeter(lambda: asyncio.get_running_loop().time())
        self._server = SharedServer(rate)

    async def walk(self, count: int) -> None:
        """Send ``count`` requests, each with 100 results."""
        async for _ in run_bounded(lambda: self.tuner.level, self._ask, range(count)):
            pass

    async def _ask(self, number: int) -> None:
        started_at = self.tuner.started()
        await self._server.serve()
        self.tuner.finished(started_at, 100)
        self.meter.record(100, self.tuner.running)


@pytest.mark.parametrize(
    ("places", "expected"), [(1, {1}), (4, {4}), (8, {8, 9}), (16, {16, 18}), (1000, {64})]
)
def test_the_limit_of_a_server_is_found(places: int, expected: set[int]) -> None:
    """It is not crowded beyond what it does at once, nor left idle."""
    climb = Climb(ConcurrencyTuner(start=4), lambda count: 10.0 * min(count, places))
    virtual_time.run(climb.walk(1200))
    assert climb.tuner.level in expected
    assert 0.6 < climb.meter.fastest / (min(places, 64) * 1000) < 1.1


def test_a_given_number_stays() -> None:
    """Where the user says how many, it stays so; the speed is measured all the same."""
    climb = Climb(ConcurrencyTuner(start=2, maximum=2), lambda count: 10.0 * count)
    virtual_time.run(climb.walk(100))
    assert climb.tuner.level == 2
    assert climb.meter.fastest == pytest.approx(2000, rel=0.1)


def test_few_answers_tell_no_speed() -> None:
    """A lucky one decides nothing."""
    climb = Climb(ConcurrencyTuner(start=4, maximum=4), lambda count: 10.0 * count)
    virtual_time.run(climb.walk(8))
    assert climb.meter.fastest == 0.0


def test_slow_answers_are_not_multiplied() -> None:
    """A server that needs 20 s an answer and does one at a time never gets dozens at once."""
    climb = Climb(ConcurrencyTuner(start=2), lambda count: 0.05)
    virtual_time.run(climb.walk(60))
    assert climb._server.most_at_once <= 4


def test_a_refusal_ends_the_climb() -> None:
    """The number stays within what the service admits, and grows with that again."""
    semaphore = AdaptiveSemaphore()
    tuner = ConcurrencyTuner(start=8, semaphore=semaphore)

    async def refuse() -> None:
        number = [await semaphore.acquire() for _ in range(8)][-1]
        semaphore.refused(number)
        tuner.refused()

    virtual_time.run(refuse())
    assert tuner.level == 4
    for _ in range(5):
        semaphore.succeeded()
    assert tuner.level == 4


@given(
    st.lists(st.tuples(st.floats(0.001, 100), st.sampled_from([0, 1, 1, 1])), max_size=300),
    st.integers(1, 70),
    st.integers(1, 64),
)
@settings(deadline=None)
def test_the_number_stays_within_its_bounds(
    answers: list[tuple[float, int]], start: int, maximum: int
) -> None:
    """Whatever comes, however long it takes: from 1 to the maximum."""
    now = [0.0]
    tuner = ConcurrencyTuner(start=start, maximum=maximum, clock=lambda: now[0])
    for took_s, amount in answers:
        started_at = tuner.started()
        now[0] += took_s
        tuner.finished(started_at, amount)
        assert 1 <= tuner.level <= maximum
    assert tuner.running == 0


def test_a_crew_grows_and_shrinks() -> None:
    """While it works, and nothing is done twice or left."""
    wanted, running, seen = [2], 0, []
    most = {2: 0, 5: 0, 1: 0}

    async def do(piece: int) -> None:
        nonlocal running
        running += 1
        await asyncio.sleep(0.001)
        if seen[-1:] and len(seen) % 20 > 8:  # some pieces after each change
            most[wanted[0]] = max(most[wanted[0]], running)
        running -= 1
        seen.append(piece)
        wanted[0] = 2 if len(seen) < 20 else 5 if len(seen) < 40 else 1

    async def walk() -> None:
        crew: AsyncGenerator[None, None] = run_bounded(lambda: wanted[0], do, range(60))
        async with aclosing(crew) as walked:
            async for _ in walked:
                pass

    asyncio.run(walk())
    assert sorted(seen) == list(range(60))
    assert most == {2: 2, 5: 5, 1: 1}


def test_a_service_that_is_far_away_is_asked_more_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the report says how fast it went; with a number given it is that number."""
    monkeypatch.setattr(results, "_SECONDS", 0.1)  # no speed is told of a shorter time
    service = Embedder()
    service.delay_s = 0.1  # far more than what a slow machine takes for a request
    with serving(service) as server:
        lm.config.providers = {
            "lab": {"type": "openai", "base_url": server.url, "api_key": "k", "connect_s": 60}
        }
        lm.config.embedding_model = "lab/m"
        import pandas as pd

        frame = pd.DataFrame({"text": [f"text {n}" for n in range(300)]})
        frame.llm.embed("text", batch_size=2)
        speed = frame.llm.report.speed
        assert server.most_at_once > 4
        assert 4 < speed.at_once <= 64
        assert 0 < speed.share <= 1
        assert "rows/s" in str(speed)
        server.most_at_once = 0
        frame["other"] = frame["text"] + "!"
        frame.llm.embed("other", batch_size=40, concurrency=3)
        assert server.most_at_once == 3
        frame.llm.embed("text")
        assert frame.llm.report.speed is None


def test_whose_limit_it_was_is_told() -> None:
    """The server's, or this process's own where it had no time left."""
    assert str(
        Throughput(rows_per_s=930.0, limit_rows_per_s=1000.0, at_once=8, cpu_share=0.3)
    ) == ("930 rows/s, 93% of the server's limit (8 concurrent requests)")
    assert "this notebook's own limit" in str(
        Throughput(rows_per_s=930.0, limit_rows_per_s=1000.0, at_once=8, cpu_share=0.99)
    )


def test_what_was_there_before_is_no_speed() -> None:
    """Rows that were kept count as done, and not as fast."""
    progress = Progress("x", done=950, total=1000, unit="rows", elapsed_s=10, before=900)
    assert progress.speed == 5
    assert progress.eta_s == 10
    assert "5 rows/s" in str(progress)
    assert Progress("x", done=900, total=1000, unit="rows", elapsed_s=1, before=900).eta_s is None
