"""
How a service is loaded: so many requests at once, or so many a second.

In a *closed loop* a request begins when another has ended, so that ``concurrency`` are under way
at every moment: a slow answer holds the next one up. In an *open loop* they begin at their times,
whether or not the service keeps up, as users do.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count as counted
from itertools import takewhile
from typing import Any, Literal, get_args

from llm_magics.benchmarking.measuring.asking import Job, Record
from llm_magics.engine.crew import done_by
from llm_magics.errors import UsageError
from llm_magics.frames.arguments import whole_number

Arrival = Literal["constant", "poisson"]

# The first ones of a closed loop begin so far apart: begun in one moment they would wait for this
# process, one after the other, and be measured as slow.
_APART_S = 0.004


@dataclass(frozen=True)
class Step:
    """
    One load: ``concurrency`` requests at once (closed loop), or ``rate`` of them a second (open).

    Exactly one of the two is set.
    """

    concurrency: int | None = None
    rate: float | None = None
    arrival: Arrival = "poisson"

    @property
    def columns(self) -> dict[str, Any]:
        """As it stands in the rows."""
        return {"concurrency": self.concurrency, "rate": self.rate}

    def __str__(self) -> str:
        return (
            f"{self.rate:g} a second" if self.rate is not None else f"{self.concurrency} at once"
        )

    async def run(
        self,
        jobs: Iterable[Job],
        record: Record,
        draw: random.Random,
        seconds: float = math.inf,
    ) -> AsyncGenerator[None, None]:
        """Have ``jobs`` asked at this load, none begun after ``seconds``; yields when one is done."""
        if self.rate is None:
            ends = time.perf_counter() + seconds
            in_time = takewhile(lambda _: time.perf_counter() < ends, jobs)
            walk = _closed(in_time, record, self.concurrency or 1)
        else:
            times = arrivals(self.rate, self.arrival, draw)
            walk = _open(jobs, record, takewhile(lambda at: at < seconds, times))
        async with aclosing(walk) as walked:
            async for _ in walked:
                yield


def steps_of(concurrency: Any, rate: Any, arrival: Any) -> list[Step]:
    """
    The loads that were asked for, one after the other ("sweep").

    Raises:
        UsageError: both kinds were asked for, or a number is none.
    """
    if arrival not in get_args(Arrival):
        msg = f"arrival cannot be {arrival!r:.60}."
        raise UsageError(msg, hint='Give it "poisson" or "constant".')
    if rate is None:
        at_once = [1] if concurrency is None else _several(concurrency)
        return [Step(whole_number("concurrency", each)) for each in at_once]
    if concurrency is not None:
        msg = "Requests begin so many at once, or so many a second, and not both."
        raise UsageError(msg, hint="Leave concurrency out, or rate.")
    return [Step(rate=_rate(each), arrival=arrival) for each in _several(rate)]


def _several(given: Any) -> Sequence[Any]:
    several = (
        list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    )
    if not several:
        msg = "There is no load to measure at: the list is empty."
        raise UsageError(msg, hint="Write concurrency=[1, 8], or leave it out.")
    return several


def _rate(given: Any) -> float:
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or not 0 < given < math.inf:
        msg = f"rate cannot be {given!r:.60}."
        raise UsageError(msg, hint="Give it a number of requests a second, above 0.")
    return float(given)


def arrivals(rate: float, arrival: Arrival, draw: random.Random) -> Iterator[float]:
    """When requests are meant to begin, in seconds; the first at 0."""
    at = 0.0
    for number in counted(1):
        yield at
        at = number / rate if arrival == "constant" else at + draw.expovariate(rate)


async def _closed(jobs: Iterable[Job], record: Record, at_once: int) -> AsyncGenerator[None, None]:
    ramp = _Ramp(at_once)

    async def ask(job: Job) -> None:
        await ramp.wait()
        await record.ask(job)

    async with aclosing(done_by(at_once, ask, jobs)) as walked:
        async for _ in walked:
            yield


class _Ramp:
    """Holds the first ones up, each a little longer than the one before."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._begins = time.perf_counter()

    async def wait(self) -> None:
        if self._left:
            self._left -= 1
            self._begins += _APART_S
            await asyncio.sleep(self._begins - _APART_S - time.perf_counter())


async def _open(
    jobs: Iterable[Job], record: Record, times: Iterator[float]
) -> AsyncGenerator[None, None]:
    began = time.perf_counter()
    news: asyncio.Queue[None] = asyncio.Queue()
    tasks: list[asyncio.Task[None]] = []

    async def begin(job: Job, at: float) -> None:
        await asyncio.sleep(began + at - time.perf_counter())
        await record.ask(job, began + at)

    try:
        for at, job in zip(times, jobs, strict=False):
            task = asyncio.create_task(begin(job, at))
            task.add_done_callback(lambda _: news.put_nowait(None))
            tasks.append(task)
        for _ in range(len(tasks)):
            await news.get()
            yield
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
