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

from llm_magics._async.concurrency import done_by
from llm_magics._util.validation import number, whole_number
from llm_magics.benchmarking.measuring.asking import Job, Record
from llm_magics.errors import UsageError

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
            walk = _closed(_in_time(jobs, seconds), record, self.concurrency or 1)
        else:
            times = arrivals(self.rate, self.arrival, draw)
            walk = _open(jobs, record, takewhile(lambda at: at < seconds, times))
        async with aclosing(walk) as walked:
            async for _ in walked:
                yield


def _in_time(jobs: Iterable[Job], seconds: float) -> Iterator[Job]:
    """The jobs that are asked for within so many seconds; none is taken and left."""
    ends, left = time.perf_counter() + seconds, iter(jobs)
    while time.perf_counter() < ends:
        try:
            yield next(left)
        except StopIteration:
            return


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
    return [
        Step(rate=number("rate", each, "requests a second"), arrival=arrival)
        for each in _several(rate)
    ]


def _several(given: Any) -> Sequence[Any]:
    several = (
        list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    )
    if not several:
        msg = "There is no load to measure at: the list is empty."
        raise UsageError(msg, hint="Write concurrency=[1, 8], or leave it out.")
    return several


def arrivals(rate: float, arrival: Arrival, draw: random.Random) -> Iterator[float]:
    """When requests are meant to begin, in seconds: evenly, or as those of many people do."""
    at = 0.0
    for nth in counted():
        at = nth / rate if arrival == "constant" else at + draw.expovariate(rate)
        yield at


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
    ended: asyncio.Queue[asyncio.Task[None]] = asyncio.Queue()
    tasks: list[asyncio.Task[None]] = []

    async def begin(job: Job, at: float) -> None:
        await asyncio.sleep(began + at - time.perf_counter())
        await record.ask(job, began + at)

    try:
        for at, job in zip(times, jobs, strict=False):
            task = asyncio.create_task(begin(job, at))
            task.add_done_callback(ended.put_nowait)
            tasks.append(task)
        for _ in range(len(tasks)):
            (await ended.get()).result()  # what is wrong with all of them ends it
            yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
