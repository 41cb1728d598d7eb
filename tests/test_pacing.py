"""How many requests at once: as many as bring more, and no more."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

import llm_magics as lm
from llm_magics.engine.crew import done_by
from llm_magics.engine.embedding.speed import Speed
from llm_magics.policies.pacing import Pace
from llm_magics.types import Progress
from tests.embedder import Embedder
from tests.serving import serving


def simulated(pace: Pace, clock: list[float], answers: int, takes_s: float, places: int) -> float:
    """
    Answers of 100 from a server with so many ``places``, each taking ``takes_s``; their speed.

    Requests that find no place wait for one.
    """
    began = clock[0]
    running: list[float] = []
    free = [clock[0]] * places
    for _ in range(answers):
        while len(running) < pace.at_once:
            start = max(clock[0], heapq.heappop(free))
            heapq.heappush(free, start + takes_s)
            heapq.heappush(running, start + takes_s)
        clock[0] = heapq.heappop(running)
        pace.landed(100)
    return answers * 100 / (clock[0] - began)


@pytest.mark.parametrize(("places", "expected"), [(1, 4), (4, 4), (8, 8), (16, 16), (1000, 32)])
def test_the_limit_of_a_server_is_found(places: int, expected: int) -> None:
    """It is not crowded beyond what it does at once, nor left idle."""
    clock = [0.0]
    pace = Pace(4, 32, lambda: clock[0])
    simulated(pace, clock, 400, 0.1, places)
    assert pace.at_once == expected
    assert pace.fastest == pytest.approx(min(places, 32) * 1000, rel=0.15)


def test_what_was_said_is_kept() -> None:
    """Where the user says how many, it stays so; it is still told how fast it went."""
    clock = [0.0]
    pace = Pace(2, 2, lambda: clock[0])
    simulated(pace, clock, 100, 0.1, 1000)
    assert pace.at_once == 2
    assert pace.fastest == pytest.approx(2000, rel=0.1)


def test_few_answers_tell_nothing() -> None:
    """A lucky one decides nothing."""
    clock = [0.0]
    pace = Pace(4, 32, lambda: clock[0])
    simulated(pace, clock, 8, 0.1, 4)
    assert (pace.at_once, pace.fastest) == (4, 0.0)


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
        crew: AsyncGenerator[None, None] = done_by(lambda: wanted[0], do, range(60))
        async with aclosing(crew) as walked:
            async for _ in walked:
                pass

    asyncio.run(walk())
    assert sorted(seen) == list(range(60))
    assert most == {2: 2, 5: 5, 1: 1}


def test_a_service_that_is_far_away_is_asked_more_at_once() -> None:
    """And the report says how fast it went; with a number given it is that number."""
    service = Embedder()
    service.delay_s = 0.2  # far more than what a slow machine takes for a request
    with serving(service) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.embedding_model = "lab/m"
        import pandas as pd

        frame = pd.DataFrame({"text": [f"text {n}" for n in range(1500)]})
        frame.llm.embed("text", batch_size=10)
        speed = frame.llm.report.speed
        assert server.most_at_once > 4
        assert 4 < speed.at_once <= 32
        assert 0 < speed.share <= 1
        assert "rows/s" in str(speed)
        server.most_at_once = 0
        frame["other"] = frame["text"] + "!"
        frame.llm.embed("other", batch_size=50, concurrency=3)
        assert server.most_at_once == 3
        frame.llm.embed("text")
        assert frame.llm.report.speed is None


def test_whose_limit_it_was_is_told() -> None:
    """The server's, or this process's own where it had no time left."""
    assert str(Speed(930.0, 1000.0, 8, 0.3)) == (
        "930 rows/s, 93% of the server's limit (8 requests at once)"
    )
    assert "this notebook's own limit" in str(Speed(930.0, 1000.0, 8, 0.99))


def test_what_was_there_before_is_no_speed() -> None:
    """Rows that were kept count as done, and not as fast."""
    progress = Progress("x", done=950, total=1000, unit="rows", elapsed_s=10, before=900)
    assert progress.speed == 5
    assert progress.eta_s == 10
    assert "5 rows/s" in str(progress)
    assert Progress("x", done=900, total=1000, unit="rows", elapsed_s=1, before=900).eta_s is None
