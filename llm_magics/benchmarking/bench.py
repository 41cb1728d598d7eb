"""``lm.bench``: how fast models answer, under which load."""

from __future__ import annotations

import gc
import math
import random
import secrets
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from llm_magics._async.sync import Operation, run_async, run_sync
from llm_magics._util import validation
from llm_magics._util.validation import check_integer
from llm_magics.benchmarking import measure
from llm_magics.benchmarking.latencies import counter_of
from llm_magics.benchmarking.measure import KEEP_THEM, Job, Record, partial_kept
from llm_magics.benchmarking.measurements import Measurements
from llm_magics.benchmarking.workload import Arrival, Block, Plan, Step, steps_of
from llm_magics.errors import Interrupted, UsageError
from llm_magics.progress import Progress
from llm_magics.runtime.confirm import confirm_calls
from llm_magics.runtime.session import session

_PROMPTS = ("Write three sentences about the sea.",)


def bench(  # noqa: PLR0913 (what can be asked)
    prompts: str | Iterable[str] | None = None,
    models: str | Iterable[str] | None = None,
    *,
    repeat: int | None = None,
    concurrency: int | Iterable[int] | None = None,
    rate: float | Iterable[float] | None = None,
    arrival: Arrival = "poisson",
    requests: int | None = None,
    seconds: float | None = None,
    warmup: int = 1,
    distinct: bool = True,
    tokenizer: Any = None,
    system: str | None = None,
    yes: bool = False,
    draw: int | None = None,
    **parameters: Any,
) -> Measurements:
    """
    Measure how fast each of ``models`` answers ``prompts``: ``lm.bench(models="openai/gpt-5")``.

    The models take turns, so that a machine that gets slower does so for all of them. What is
    measured is told in `llm_magics.benchmarking.latencies`. Nothing comes from the cache.

    Args:
        prompts: one, or several; a short one is used if not given.
        models: one, or several.
        repeat: how often each prompt is asked of each model at each load. If neither this,
            ``requests`` nor ``seconds`` is given, 3 times, or as often as it takes for four
            requests to each place of ``concurrency``.
        concurrency: so many requests at once ("closed loop"), 1 if not given; of a list one
            after the other ("sweep").
        rate: so many requests a second in place of that, whether or not the service keeps up
            ("open loop"); ``latency_s`` counts from when each was meant to begin. For fewer
            than 30 requests a rate of ``poisson`` arrivals is a matter of luck.
        arrival: with ``rate``, ``poisson`` or ``constant``.
        requests: of each model at each load, in place of ``repeat``.
        seconds: how long each model is asked at each load, in place of ``repeat``.
        warmup: requests to each model that are not counted; they are in ``.warm_up``.
        distinct: begin each prompt with a mark of its own, so that no cache of prompts
            flatters.
        tokenizer: counts the tokens where a service does not: a function, a
            ``tokenizer.json``, or a model on the hub.
        system, parameters: as for `lm.ask`, the same for all.
        yes: do not ask about the cost.
        draw: the same number draws the same marks, arrivals and order again.

    Returns:
        One row a request, with the columns of `lm.runs` and more; requests that failed are
        rows too. ``.summary()`` has one row a model.

    Raises:
        UsageError: an argument does not fit.
        BudgetError: the budget is spent; with what was measured in ``partial``.
        Interrupted: with what was measured in ``partial`` (of ``lm.abench`` the
            `CancelledError` has it).
    """
    return run_sync(
        _bench_operation(
            prompts,
            models,
            repeat=repeat,
            concurrency=concurrency,
            rate=rate,
            arrival=arrival,
            requests=requests,
            seconds=seconds,
            warmup=warmup,
            distinct=distinct,
            tokenizer=tokenizer,
            system=system,
            yes=yes,
            draw=draw,
            parameters=parameters,
        )
    )


async def abench(  # noqa: PLR0913 (what can be asked)
    prompts: str | Iterable[str] | None = None,
    models: str | Iterable[str] | None = None,
    *,
    repeat: int | None = None,
    concurrency: int | Iterable[int] | None = None,
    rate: float | Iterable[float] | None = None,
    arrival: Arrival = "poisson",
    requests: int | None = None,
    seconds: float | None = None,
    warmup: int = 1,
    distinct: bool = True,
    tokenizer: Any = None,
    system: str | None = None,
    yes: bool = False,
    draw: int | None = None,
    **parameters: Any,
) -> Measurements:
    """
    Measure how fast each of ``models`` answers ``prompts``: ``lm.bench(models="openai/gpt-5")``.

    The models take turns, so that a machine that gets slower does so for all of them. What is
    measured is told in `llm_magics.benchmarking.latencies`. Nothing comes from the cache.

    Args:
        prompts: one, or several; a short one is used if not given.
        models: one, or several.
        repeat: how often each prompt is asked of each model at each load. If neither this,
            ``requests`` nor ``seconds`` is given, 3 times, or as often as it takes for four
            requests to each place of ``concurrency``.
        concurrency: so many requests at once ("closed loop"), 1 if not given; of a list one
            after the other ("sweep").
        rate: so many requests a second in place of that, whether or not the service keeps up
            ("open loop"); ``latency_s`` counts from when each was meant to begin. For fewer
            than 30 requests a rate of ``poisson`` arrivals is a matter of luck.
        arrival: with ``rate``, ``poisson`` or ``constant``.
        requests: of each model at each load, in place of ``repeat``.
        seconds: how long each model is asked at each load, in place of ``repeat``.
        warmup: requests to each model that are not counted; they are in ``.warm_up``.
        distinct: begin each prompt with a mark of its own, so that no cache of prompts
            flatters.
        tokenizer: counts the tokens where a service does not: a function, a
            ``tokenizer.json``, or a model on the hub.
        system, parameters: as for `lm.ask`, the same for all.
        yes: do not ask about the cost.
        draw: the same number draws the same marks, arrivals and order again.

    Returns:
        One row a request, with the columns of `lm.runs` and more; requests that failed are
        rows too. ``.summary()`` has one row a model.

    Raises:
        UsageError: an argument does not fit.
        BudgetError: the budget is spent; with what was measured in ``partial``.
        Interrupted: with what was measured in ``partial`` (of ``lm.abench`` the
            `CancelledError` has it).
    """
    return await run_async(
        _bench_operation(
            prompts,
            models,
            repeat=repeat,
            concurrency=concurrency,
            rate=rate,
            arrival=arrival,
            requests=requests,
            seconds=seconds,
            warmup=warmup,
            distinct=distinct,
            tokenizer=tokenizer,
            system=system,
            yes=yes,
            draw=draw,
            parameters=parameters,
        )
    )


def _bench_operation(  # noqa: PLR0913 (what can be asked)
    prompts: str | Iterable[str] | None,
    models: str | Iterable[str] | None,
    *,
    repeat: int | None,
    concurrency: int | Iterable[int] | None,
    rate: float | Iterable[float] | None,
    arrival: Arrival,
    requests: int | None,
    seconds: float | None,
    warmup: int,
    distinct: bool,
    tokenizer: Any,
    system: str | None,
    yes: bool,
    draw: int | None,
    parameters: dict[str, Any],
) -> Operation[Measurements]:
    validation.check_misspelled(parameters, bench)
    if models is None:
        raise _no_models(prompts)
    if seconds is not None and (requests is not None or repeat is not None):
        msg = "It is measured for so many seconds, or so many requests, and not both."
        raise UsageError(msg, hint="Leave seconds out, or requests and repeat.")
    if requests is not None and repeat is not None:
        msg = "There are so many requests, or each prompt is asked so often, and not both."
        raise UsageError(msg, hint="Leave requests out, or repeat.")
    plan = Plan(
        validation.check_model_names(models),
        validation.check_texts("prompts", _PROMPTS if prompts is None else prompts),
        steps_of(concurrency, rate, arrival),
        None if repeat is None else check_integer("repeat", repeat),
        None if requests is None else check_integer("requests", requests),
        None if seconds is None else validation.check_positive("seconds", seconds, "seconds"),
        bool(distinct),
        # A recording is found again by what was sent.
        draw if draw is not None else 0 if session.tape else secrets.randbits(32),
        system,
        parameters,
        secrets.randbits(32),
    )
    count = counter_of(tokenizer)
    warm_up = check_integer("warmup", warmup, least=0)
    calls = plan.calls()  # made in any case: slips are told of before anything is sent
    if not yes:
        confirm_calls(calls, _times(plan) + warm_up / len(plan.prompts))
    call = BenchCall(plan, Record(count), Record(count), warm_up)

    def stopped() -> Interrupted:
        msg = f"Stopped; {call.record.so_far()}."
        return Interrupted(msg, hint=KEEP_THEM, partial=call.result(is_stopped=True))

    return Operation(call, call.result, stopped)


def _no_models(prompts: Any) -> UsageError:
    """Return the error for a call without ``models``; a model may stand in the prompts' place."""
    named = [prompts] if isinstance(prompts, str) else prompts
    is_model = isinstance(named, list) and all(
        isinstance(each, str) and "/" in each and len(each.split()) == 1 for each in named
    )
    if named and is_model:
        msg = "lm.bench takes the prompts first and needs models= for the models."
        return UsageError(msg, hint=f"Write lm.bench(models={prompts!r}).")
    msg = "lm.bench needs models=."
    return UsageError(msg, hint='Write lm.bench(prompts, models="provider/name").')


class BenchCall:
    """A plan on its way; ``record`` has the rows so far."""

    def __init__(self, plan: Plan, record: Record, before: Record, warm_up: int) -> None:
        self.record = record
        self._plan = plan
        self._before = before
        self._warm_up = plan.warm_up(warm_up)
        self._began = time.perf_counter()

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Ask all there is to ask, yielding how far it has come."""
        self._began = time.perf_counter()
        draw = random.Random(self._plan.seed)  # noqa: S311 (times, and no secret)
        for job in self._warm_up:
            yield Progress(f"warming up {job.model}")
            await self._before.ask(job)
        self._began = time.perf_counter()
        with _memory_left_alone(), partial_kept(lambda: self.result(is_stopped=True)):
            for block in self._plan.blocks():
                async with aclosing(self._walk(block, draw)) as walked:
                    async for _ in walked:
                        yield self._progress(block)

    async def _walk(self, block: Block, draw: random.Random) -> AsyncGenerator[None, None]:
        """One block; how busy this process was meanwhile is put into its rows."""
        asked: list[Job] = []
        cpu_s, began = time.process_time(), time.perf_counter()
        walk = block.step.run(
            _noted(block.jobs(), asked), self.record, draw, block.seconds or math.inf
        )
        try:
            async with aclosing(walk) as walked:
                async for _ in walked:
                    yield
        finally:
            took_s = time.perf_counter() - began
            self.record.note(asked, (time.process_time() - cpu_s) / took_s if took_s > 0 else None)

    def _progress(self, block: Block) -> Progress:
        told = [f"measuring {block.model}, {block.step}"]
        told += [f"{self.record.failed:,} failed"] if self.record.failed else []
        return Progress(
            " · ".join(told),
            len(self.record),
            self._plan.total,
            "requests",
            time.perf_counter() - self._began,
        )

    def result(self, *, is_stopped: bool = False) -> Measurements:
        """What was measured so far; where that is not all, it is noted."""
        plan = self._plan
        about = {
            **measure.environment(plan.models),
            "steps": [str(step) for step in plan.steps],
            "distinct_prompts": plan.is_distinct,
            "draw": plan.seed,
            **measure.asked(plan.system, plan.parameters),
        }
        if not is_stopped:
            self.record.warn_of_cut()
        else:
            about["stopped"] = f"after {len(self.record):,} of {plan.total or 'many'} requests"
        return Measurements.of(self.record.rows, about, self._before.rows)


@contextmanager
def _memory_left_alone() -> Iterator[None]:
    """What is in memory is not looked through for what to free: that would hold stamps up."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _noted(jobs: Iterable[Job], asked: list[Job]) -> Iterator[Job]:
    for job in jobs:
        asked.append(job)
        yield job


def _times(plan: Plan) -> float:
    """How often each prompt is asked of a model at most, as far as that is known."""
    told = [plan.requests_at(step) for step in plan.steps]
    most = sum(_in_time(step, plan) if each is None else each for each, step in zip(told, plan.steps, strict=True))  # fmt: skip
    return most / len(plan.prompts)


def _in_time(step: Step, plan: Plan) -> float:
    """About how many requests fit in the time; an answer takes a second, for want of better."""
    return (plan.seconds or 0.0) * (step.rate or step.concurrency or 1)
