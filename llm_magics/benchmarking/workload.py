"""Which requests a benchmark makes, and in which order.

How a service is loaded: so many requests at once, or so many a second.

In a *closed loop* a request begins when another has ended, so that ``concurrency`` are under way
at every moment: a slow answer holds the next one up. In an *open loop* they begin at their times,
whether or not the service keeps up, as users do.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count, takewhile
from itertools import count as counted
from typing import Any, Literal, get_args

from llm_magics._async.concurrency import run_bounded
from llm_magics._util.validation import check_integer, check_positive
from llm_magics.benchmarking.measure import Job, Record
from llm_magics.errors import UsageError
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session


def mark_of(key: str) -> str:
    """A short mark, another for each ``key``."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def marked(prompt: str, mark: str) -> str:
    """
    ``prompt`` with ``mark`` before it.

    At its beginning, for what services and engines keep of a prompt is its beginning; where
    there is a system message, that has one too.
    """
    return f"[{mark}] {prompt}"


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
        return [Step(check_integer("concurrency", each)) for each in at_once]
    if concurrency is not None:
        msg = "Requests begin so many at once, or so many a second, and not both."
        raise UsageError(msg, hint="Leave concurrency out, or rate.")
    return [
        Step(rate=check_positive("rate", each, "requests a second"), arrival=arrival)
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

    async with aclosing(run_bounded(at_once, ask, jobs)) as walked:
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


# So often each prompt is asked, where nobody said how often.
_REPEAT = 3
# So many requests for each place of a closed loop, so that it runs full most of the time.
_A_PLACE = 4
# So many requests make a rate.
_AT_A_RATE = 30


@dataclass(frozen=True)
class Plan:
    """
    What is to be asked.

    Attributes:
        models, prompts: each model is asked each prompt.
        steps: at these loads, one after the other.
        repeat: how often; ``None`` leaves it to ``requests``, ``seconds``, or the load.
        requests: of each model at each step, in place of ``repeat``.
        seconds: how long each model is asked at each step, in place of both.
        is_distinct: whether each request begins with a mark of its own.
        seed: draws marks, arrivals and the order of models.
        system, parameters: the same for all.
        run: tells its rows from those of other runs, when they are put together.
    """

    models: Sequence[str]
    prompts: Sequence[str]
    steps: Sequence[Step]
    repeat: int | None = None
    requests: int | None = None
    seconds: float | None = None
    is_distinct: bool = True
    seed: int = 0
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    run: int = 0

    def requests_at(self, step: Step) -> int | None:
        """How many requests of each model; ``None`` where the time decides."""
        if self.seconds is not None:
            return None
        if self.requests is not None:
            return self.requests
        if self.repeat is not None:
            return self.repeat * len(self.prompts)
        return max(
            _REPEAT * len(self.prompts), _A_PLACE * (step.concurrency or 1) * _is_many(step)
        )

    @property
    def total(self) -> int | None:
        """Requests of all models at all steps."""
        told = [self.requests_at(step) for step in self.steps]
        known = [each for each in told if each is not None]
        return len(self.models) * sum(known) if len(known) == len(told) else None

    def rounds_at(self, step: Step) -> int:
        """
        In so many rounds, in each of which all models have their turn.

        A machine that gets slower does so for all of them. Rounds are no shorter than it takes
        to keep a closed loop full, or an open one at its rate.
        """
        wanted = self.repeat or _REPEAT
        requests, at_once = self.requests_at(step), step.concurrency or 1
        if requests is None:  # an open loop that begins anew has begun with nobody waiting
            return 1 if step.rate else wanted
        least = _AT_A_RATE if step.rate else 1 if at_once == 1 else _A_PLACE * at_once
        return max(1, min(wanted, requests // least))

    def blocks(self) -> Iterator[Block]:
        """What is asked without a break: one model, at one load, in one round."""
        draw = random.Random(self.seed)  # noqa: S311 (an order, and no secret)
        for number, step in enumerate(self.steps):
            rounds = self.rounds_at(step)
            counts = {model: count() for model in range(len(self.models))}
            for each in range(rounds):
                for model in draw.sample(range(len(self.models)), len(self.models)):
                    yield Block(self, number, each, rounds, model, counts[model])

    def warm_up(self, requests: int) -> list[Job]:
        """What is asked of each model before anything counts."""
        return [
            self._job((number, model), Step(1), model, number, 0, "warm-up")
            for model in range(len(self.models))
            for number in range(requests)
        ]

    def calls(self) -> dict[str, list[ChatCall]]:
        """
        Each prompt once for each model, as it is asked but for the mark; nothing is sent.

        Raises:
            UsageError: something is wrong with a prompt or a parameter, and so for all models.
        """
        return {
            model: [
                ChatCall(session, self._prompt(prompt, model, self.system))
                for prompt in self.prompts
            ]
            for model in self.models
        }

    def _prompt(self, text: str, model: str, system: str | None) -> Prompt:
        return Prompt(text, model, system, self.parameters, is_fresh=True)

    def job(self, step: int, model: int, number: int, in_round: int) -> Job:
        """The request ``number`` of a model at a step."""
        place = (step, number, model)
        return self._job(place, self.steps[step], model, number, in_round, f"{step}")

    def _job(  # noqa: PLR0913, PLR0917 (where it stands)
        self,
        place: tuple[int, ...],
        step: Step,
        model: int,
        number: int,
        in_round: int,
        phase: str,
    ) -> Job:
        text = self.prompts[number % len(self.prompts)]
        asked = text
        system = self.system
        if self.is_distinct:
            mark = mark_of(f"{self.seed} {phase} {model} {number}")
            asked, system = marked(text, mark), system and marked(system, mark)
        columns = {
            "run": f"{self.run:08x}",
            "repeat": number // len(self.prompts),
            "round": in_round,
            **step.columns,
            "asked": self.models[model],
            "prompt": text,
        }
        return Job(place, self._prompt(asked, self.models[model], system), columns)


def _is_many(step: Step) -> bool:
    return (step.concurrency or 1) > 1


@dataclass(frozen=True)
class Block:
    """Requests of one model at one load in one of ``rounds``."""

    plan: Plan
    step_number: int
    in_round: int
    rounds: int
    model_number: int
    numbers: Iterator[int]

    @property
    def step(self) -> Step:
        """The load."""
        return self.plan.steps[self.step_number]

    @property
    def model(self) -> str:
        """Who is asked."""
        return self.plan.models[self.model_number]

    @property
    def seconds(self) -> float | None:
        """How long it lasts, where time decides."""
        return None if self.plan.seconds is None else self.plan.seconds / self.rounds

    def jobs(self) -> Iterator[Job]:
        """As many as fall to this round; without end where time decides."""
        requests = self.plan.requests_at(self.step)
        for number in self.numbers:
            yield self.plan.job(self.step_number, self.model_number, number, self.in_round)
            if requests is not None and (number + 1) * self.rounds >= requests * (
                self.in_round + 1
            ):
                return
