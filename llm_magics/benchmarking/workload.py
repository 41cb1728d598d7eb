"""
The requests of a benchmark, their order, and the load (``concurrency`` or ``rate``).

In a *closed loop* a request starts when another one ends, so that ``concurrency`` requests are
always in flight: a slow answer delays the next request. In an *open loop* requests start at
scheduled times, whether or not the service keeps up, like those of independent users.
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
from llm_magics.benchmarking.analysis import MODEL_COLUMN
from llm_magics.benchmarking.measure import Job, Record
from llm_magics.errors import UsageError
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session


def make_mark(key: str) -> str:
    """Return a short mark that is different for each ``key``."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def add_mark(prompt: str, mark: str) -> str:
    """
    Return ``prompt`` with ``mark`` as a prefix.

    Services and engines cache prefixes of prompts, so a different prefix prevents cache hits.
    """
    return f"[{mark}] {prompt}"


Arrival = Literal["constant", "poisson"]

# Seconds between the first requests of a closed loop. If they all started at the same moment, this
# process would delay some of them and measure them as slow.
_RAMP_INTERVAL_S = 0.004


@dataclass(frozen=True)
class Step:
    """
    One load: ``concurrency`` requests in flight (closed loop), or ``rate`` per second (open loop).

    Exactly one of the two is set.
    """

    concurrency: int | None = None
    rate: float | None = None
    arrival: Arrival = "poisson"

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that describe this load in a row."""
        return {"concurrency": self.concurrency, "rate": self.rate}

    def __str__(self) -> str:
        return (
            f"{self.rate:g} per second"
            if self.rate is not None
            else f"{self.concurrency} concurrent"
        )

    async def run(
        self,
        jobs: Iterable[Job],
        record: Record,
        draw: random.Random,
        seconds: float = math.inf,
    ) -> AsyncGenerator[None, None]:
        """Send ``jobs`` at this load, starting none after ``seconds``; yield after each one."""
        if self.rate is None:
            walk = _run_closed_loop(_take_within(jobs, seconds), record, self.concurrency or 1)
        else:
            times = arrival_times(self.rate, self.arrival, draw)
            walk = _run_open_loop(jobs, record, takewhile(lambda at: at < seconds, times))
        async with aclosing(walk) as finished:
            async for _ in finished:
                yield


def _take_within(jobs: Iterable[Job], seconds: float) -> Iterator[Job]:
    """Yield jobs until ``seconds`` have passed, without consuming a job that is not yielded."""
    ends, left = time.perf_counter() + seconds, iter(jobs)
    while time.perf_counter() < ends:
        try:
            yield next(left)
        except StopIteration:
            return


def parse_steps(concurrency: Any, rate: Any, arrival: Any) -> list[Step]:
    """
    Return the requested loads, one after the other ("sweep").

    Raises:
        UsageError: both kinds were requested, or a number is invalid.
    """
    if arrival not in get_args(Arrival):
        msg = f"Invalid arrival: {arrival!r:.60}."
        raise UsageError(msg, hint='Use "poisson" or "constant".')
    if rate is None:
        at_once = [1] if concurrency is None else _as_nonempty_list(concurrency)
        return [Step(check_integer("concurrency", each)) for each in at_once]
    if concurrency is not None:
        msg = "concurrency and rate cannot be combined."
        raise UsageError(msg, hint="Remove one of them.")
    return [
        Step(rate=check_positive("rate", each, "requests a second"), arrival=arrival)
        for each in _as_nonempty_list(rate)
    ]


def _as_nonempty_list(value: Any) -> Sequence[Any]:
    several = (
        list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    )
    if not several:
        msg = "The list of loads is empty."
        raise UsageError(msg, hint="Use concurrency=[1, 8], or remove it.")
    return several


def arrival_times(rate: float, arrival: Arrival, draw: random.Random) -> Iterator[float]:
    """Yield the scheduled start times in seconds: evenly spaced, or a Poisson process."""
    at = 0.0
    for nth in counted():
        at = nth / rate if arrival == "constant" else at + draw.expovariate(rate)
        yield at


async def _run_closed_loop(
    jobs: Iterable[Job], record: Record, at_once: int
) -> AsyncGenerator[None, None]:
    ramp = _Ramp(at_once)

    async def ask(job: Job) -> None:
        await ramp.delay()
        await record.ask(job)

    async with aclosing(run_bounded(at_once, ask, jobs)) as finished:
        async for _ in finished:
            yield


class _Ramp:
    """Delays the first requests, each by a little more than the previous one."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._begins = time.perf_counter()

    async def delay(self) -> None:
        if self._left:
            self._left -= 1
            self._begins += _RAMP_INTERVAL_S
            await asyncio.sleep(self._begins - _RAMP_INTERVAL_S - time.perf_counter())


async def _run_open_loop(
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
            (await ended.get()).result()  # raises errors that affect all requests
            yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# The number of times that each prompt is sent by default.
_DEFAULT_REPEAT = 3
# The number of requests per slot of a closed loop that keeps all slots busy most of the time.
_REQUESTS_PER_SLOT = 4
# The number of requests needed for a meaningful rate.
_MIN_REQUESTS_FOR_RATE = 30


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    The requests of a benchmark.

    Attributes:
        models, prompts: each prompt is sent to each model.
        steps: the loads, measured one after the other.
        repeat: how often each prompt is sent to each model; if ``None``, it depends on
            ``requests``, ``seconds`` or the load.
        requests: the number of requests to each model at each step, instead of ``repeat``.
        seconds: how long each model is measured at each step, instead of the other two.
        is_distinct: whether each request begins with a different mark.
        seed: the random seed for marks, arrivals and the order of models.
        system, parameters: the same for all requests.
        run: identifies the rows of this run when several runs are concatenated.
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
        """Return the number of requests to each model; ``None`` if ``seconds`` is set."""
        if self.seconds is not None:
            return None
        if self.requests is not None:
            return self.requests
        if self.repeat is not None:
            return self.repeat * len(self.prompts)
        return max(
            _DEFAULT_REPEAT * len(self.prompts),
            _REQUESTS_PER_SLOT * (step.concurrency or 1) * _is_concurrent(step),
        )

    @property
    def total(self) -> int | None:
        """The number of requests to all models at all steps; ``None`` if ``seconds`` is set."""
        counts = [self.requests_at(step) for step in self.steps]
        known = [each for each in counts if each is not None]
        return len(self.models) * sum(known) if len(known) == len(counts) else None

    def rounds_at(self, step: Step) -> int:
        """
        Return the number of rounds. In each round all models have a turn.

        With several rounds, a machine that slows down affects all models. Each round is long
        enough to keep a closed loop busy, or an open loop at its rate.
        """
        repeat = self.repeat or _DEFAULT_REPEAT
        requests, at_once = self.requests_at(step), step.concurrency or 1
        if requests is None:  # an open loop that restarts would lose its backlog of requests
            return 1 if step.rate else repeat
        least = (
            _MIN_REQUESTS_FOR_RATE
            if step.rate
            else 1
            if at_once == 1
            else _REQUESTS_PER_SLOT * at_once
        )
        return max(1, min(repeat, requests // least))

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of consecutive requests: one model at one load in one round."""
        draw = random.Random(self.seed)  # noqa: S311 (an order, not a secret)
        for number, step in enumerate(self.steps):
            rounds = self.rounds_at(step)
            counts = {model: count() for model in range(len(self.models))}
            for each in range(rounds):
                for model in draw.sample(range(len(self.models)), len(self.models)):
                    yield Block(
                        plan=self,
                        step_number=number,
                        in_round=each,
                        rounds=rounds,
                        model_number=model,
                        numbers=counts[model],
                    )

    def warm_up(self, requests: int) -> list[Job]:
        """Return the warm-up requests to each model, which are not counted."""
        return [
            self._job((number, model), Step(1), model, number, 0, "warm-up")
            for model in range(len(self.models))
            for number in range(requests)
        ]

    def calls(self) -> dict[str, list[ChatCall]]:
        """
        Build the call of each prompt and model, without a mark. Nothing is sent.

        Raises:
            UsageError: a prompt or parameter is invalid.
        """
        return {
            model: [
                ChatCall(session, self._prompt(prompt, model, self.system))
                for prompt in self.prompts
            ]
            for model in self.models
        }

    def _prompt(self, text: str, model: str, system: str | None) -> Prompt:
        return Prompt(
            text=text, model=model, system=system, parameters=self.parameters, is_fresh=True
        )

    def job(self, step: int, model: int, number: int, in_round: int) -> Job:
        """Return request ``number`` to a model at a step."""
        position = (step, number, model)
        return self._job(position, self.steps[step], model, number, in_round, f"{step}")

    def _job(  # noqa: PLR0913, PLR0917 (the coordinates of a request)
        self,
        position: tuple[int, ...],
        step: Step,
        model: int,
        number: int,
        in_round: int,
        phase: str,
    ) -> Job:
        text = self.prompts[number % len(self.prompts)]
        sent_text = text
        system = self.system
        if self.is_distinct:
            mark = make_mark(f"{self.seed} {phase} {model} {number}")
            sent_text, system = add_mark(text, mark), system and add_mark(system, mark)
        columns = {
            "run": f"{self.run:08x}",
            "repeat": number // len(self.prompts),
            "round": in_round,
            **step.columns,
            MODEL_COLUMN: self.models[model],
            "prompt": text,
        }
        return Job(
            position=position,
            prompt=self._prompt(sent_text, self.models[model], system),
            columns=columns,
        )


def _is_concurrent(step: Step) -> bool:
    return (step.concurrency or 1) > 1


@dataclass(frozen=True, kw_only=True)
class Block:
    """The requests to one model at one load in one of ``rounds``."""

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
        """The model that is measured."""
        return self.plan.models[self.model_number]

    @property
    def seconds(self) -> float | None:
        """The duration of the block in seconds; ``None`` if the number of requests is set."""
        return None if self.plan.seconds is None else self.plan.seconds / self.rounds

    def jobs(self) -> Iterator[Job]:
        """Yield the requests of this round; they do not end if the plan has ``seconds``."""
        requests = self.plan.requests_at(self.step)
        for number in self.numbers:
            yield self.plan.job(self.step_number, self.model_number, number, self.in_round)
            if requests is not None and (number + 1) * self.rounds >= requests * (
                self.in_round + 1
            ):
                return
