"""``lm.bench``: measure the speed of models under load."""

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
from llm_magics.benchmarking.latencies import resolve_tokenizer
from llm_magics.benchmarking.measure import PARTIAL_HINT, Job, Record, attach_partial_result
from llm_magics.benchmarking.measurements import Measurements
from llm_magics.benchmarking.workload import Arrival, Block, Plan, Step, parse_steps
from llm_magics.errors import Interrupted, UsageError
from llm_magics.host import Progress
from llm_magics.runtime.confirm import confirm_calls
from llm_magics.runtime.session import session

_DEFAULT_PROMPTS = ("Write three sentences about the sea.",)


def bench(  # noqa: PLR0913 (a public function)
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

    The models take turns, so that a change in the speed of the machine affects all of them.
    `llm_magics.benchmarking.latencies` defines the measurements. The cache is not used.

    Args:
        prompts: a string or a list of strings; by default a short prompt.
        models: a string or a list of strings.
        repeat: how often each prompt is sent to each model at each load. If ``repeat``,
            ``requests`` and ``seconds`` are not set: 3 times, or often enough for four requests
            per slot of ``concurrency``.
        concurrency: concurrent requests ("closed loop"), by default 1. A list is measured one
            after the other ("sweep").
        rate: requests started per second instead, whether or not the service keeps up ("open
            loop"). ``latency_s`` counts from the scheduled start. With fewer than 30 requests,
            the actual rate of ``poisson`` arrivals varies widely.
        arrival: with ``rate``, ``poisson`` or ``constant``.
        requests: number of requests to each model at each load, instead of ``repeat``.
        seconds: how long each model is measured at each load, instead of ``repeat``.
        warmup: first requests to each model, which are not counted; they are in ``.warm_up``.
        distinct: start each prompt with a unique marker, so that prompt caches do not improve
            the result.
        tokenizer: counts the tokens if the service does not: a function, a ``tokenizer.json``,
            or a model on the hub.
        system, parameters: as for ``lm.ask``, the same for all requests.
        yes: do not ask for confirmation of the cost.
        draw: a seed for the marks, arrivals and order.

    Returns:
        one row per request, with the columns of ``lm.runs`` and more. Failed requests are rows
        too. ``.summary()`` has one row per model.

    Raises:
        UsageError: an argument is invalid.
        BudgetError: the budget is spent; ``partial`` has the results so far.
        Interrupted: ``partial`` has the results so far (with ``lm.abench``, in the
            ``CancelledError``).
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


async def abench(  # noqa: PLR0913 (a public function)
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

    The models take turns, so that a change in the speed of the machine affects all of them.
    `llm_magics.benchmarking.latencies` defines the measurements. The cache is not used.

    Args:
        prompts: a string or a list of strings; by default a short prompt.
        models: a string or a list of strings.
        repeat: how often each prompt is sent to each model at each load. If ``repeat``,
            ``requests`` and ``seconds`` are not set: 3 times, or often enough for four requests
            per slot of ``concurrency``.
        concurrency: concurrent requests ("closed loop"), by default 1. A list is measured one
            after the other ("sweep").
        rate: requests started per second instead, whether or not the service keeps up ("open
            loop"). ``latency_s`` counts from the scheduled start. With fewer than 30 requests,
            the actual rate of ``poisson`` arrivals varies widely.
        arrival: with ``rate``, ``poisson`` or ``constant``.
        requests: number of requests to each model at each load, instead of ``repeat``.
        seconds: how long each model is measured at each load, instead of ``repeat``.
        warmup: first requests to each model, which are not counted; they are in ``.warm_up``.
        distinct: start each prompt with a unique marker, so that prompt caches do not improve
            the result.
        tokenizer: counts the tokens if the service does not: a function, a ``tokenizer.json``,
            or a model on the hub.
        system, parameters: as for ``lm.ask``, the same for all requests.
        yes: do not ask for confirmation of the cost.
        draw: a seed for the marks, arrivals and order.

    Returns:
        one row per request, with the columns of ``lm.runs`` and more. Failed requests are rows
        too. ``.summary()`` has one row per model.

    Raises:
        UsageError: an argument is invalid.
        BudgetError: the budget is spent; ``partial`` has the results so far.
        Interrupted: ``partial`` has the results so far (with ``lm.abench``, in the
            ``CancelledError``).
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


def _bench_operation(  # noqa: PLR0913 (a public function)
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
        raise _missing_models_error(prompts)
    if seconds is not None and (requests is not None or repeat is not None):
        msg = "seconds cannot be combined with requests or repeat."
        raise UsageError(msg, hint="Remove seconds, or remove requests and repeat.")
    if requests is not None and repeat is not None:
        msg = "requests and repeat cannot be combined."
        raise UsageError(msg, hint="Remove one of them.")
    plan = Plan(
        models=validation.check_model_names(models),
        prompts=validation.check_texts(
            "prompts", _DEFAULT_PROMPTS if prompts is None else prompts
        ),
        steps=parse_steps(concurrency, rate, arrival),
        repeat=None if repeat is None else check_integer("repeat", repeat),
        requests=None if requests is None else check_integer("requests", requests),
        seconds=None
        if seconds is None
        else validation.check_positive("seconds", seconds, "seconds"),
        is_distinct=bool(distinct),
        # A recording is looked up by the request, so the marks must be the same in each run.
        seed=draw if draw is not None else 0 if session.recording else secrets.randbits(32),
        system=system,
        parameters=parameters,
        run=secrets.randbits(32),
    )
    count = resolve_tokenizer(tokenizer)
    warm_up = check_integer("warmup", warmup, least=0)
    calls = plan.calls()  # always built: mistakes are reported before anything is sent
    if not yes:
        confirm_calls(calls, _requests_per_prompt(plan) + warm_up / len(plan.prompts))
    call = BenchCall(plan=plan, record=Record(count), before=Record(count), warm_up=warm_up)

    def stopped() -> Interrupted:
        msg = f"Stopped after {call.record.so_far()}."
        return Interrupted(msg, hint=PARTIAL_HINT, partial=call.result(is_stopped=True))

    return Operation(call, call.result, stopped)


def _missing_models_error(prompts: Any) -> UsageError:
    """Return the error for a call without ``models``; a model may be among the prompts."""
    named = [prompts] if isinstance(prompts, str) else prompts
    is_model = isinstance(named, list) and all(
        isinstance(each, str) and "/" in each and len(each.split()) == 1 for each in named
    )
    if named and is_model:
        msg = "lm.bench needs models=; its first argument is the prompts."
        return UsageError(msg, hint=f"Use: lm.bench(models={prompts!r})")
    msg = "lm.bench needs models=."
    return UsageError(msg, hint='Use: lm.bench(prompts, models="provider/name")')


class BenchCall:
    """A running benchmark; ``record`` has the rows so far."""

    def __init__(self, *, plan: Plan, record: Record, before: Record, warm_up: int) -> None:
        self.record = record
        self._plan = plan
        self._before = before
        self._warm_up = plan.warm_up(warm_up)
        self._began = time.perf_counter()

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Send all requests and yield the progress."""
        self._began = time.perf_counter()
        draw = random.Random(self._plan.seed)  # noqa: S311 (arrival times, not a secret)
        for job in self._warm_up:
            yield Progress(f"warming up {job.model}")
            await self._before.ask(job)
        self._began = time.perf_counter()
        with (
            _garbage_collection_paused(),
            attach_partial_result(lambda: self.result(is_stopped=True)),
        ):
            for block in self._plan.blocks():
                async with aclosing(self._walk(block, draw)) as finished:
                    async for _ in finished:
                        yield self._progress(block)

    async def _walk(self, block: Block, draw: random.Random) -> AsyncGenerator[None, None]:
        """Run one block of requests and add the CPU use of this process to its rows."""
        started: list[Job] = []
        cpu_s, began = time.process_time(), time.perf_counter()
        walk = block.step.run(
            _record_jobs(block.jobs(), started), self.record, draw, block.seconds or math.inf
        )
        try:
            async with aclosing(walk) as finished:
                async for _ in finished:
                    yield
        finally:
            took_s = time.perf_counter() - began
            self.record.note(
                started, (time.process_time() - cpu_s) / took_s if took_s > 0 else None
            )

    def _progress(self, block: Block) -> Progress:
        parts = [f"measuring {block.model}, {block.step}"]
        parts += [f"{self.record.failed:,} failed"] if self.record.failed else []
        return Progress(
            " · ".join(parts),
            len(self.record),
            self._plan.total,
            "requests",
            time.perf_counter() - self._began,
        )

    def result(self, *, is_stopped: bool = False) -> Measurements:
        """Return the measurements so far, marked as stopped if ``is_stopped``."""
        plan = self._plan
        about = {
            **measure.describe_environment(plan.models),
            "steps": [str(step) for step in plan.steps],
            "distinct_prompts": plan.is_distinct,
            "draw": plan.seed,
            **measure.request_settings(plan.system, plan.parameters),
        }
        if not is_stopped:
            self.record.warn_of_cut()
        else:
            about["stopped"] = f"after {len(self.record):,} of {plan.total or 'many'} requests"
        return Measurements.of(self.record.rows, about, self._before.rows)


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Exclude existing objects from garbage collection, which would delay chunk timestamps."""
    was_frozen = gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not was_frozen:
            gc.unfreeze()


def _record_jobs(jobs: Iterable[Job], started: list[Job]) -> Iterator[Job]:
    for job in jobs:
        started.append(job)
        yield job


def _requests_per_prompt(plan: Plan) -> float:
    """Return the number of requests per prompt and model, estimated if ``seconds`` is set."""
    counts = [plan.requests_at(step) for step in plan.steps]
    most = sum(_requests_in_time(step, plan) if each is None else each for each, step in zip(counts, plan.steps, strict=True))  # fmt: skip
    return most / len(plan.prompts)


def _requests_in_time(step: Step, plan: Plan) -> float:
    """Estimate how many requests fit in the time, assuming one second per answer."""
    return (plan.seconds or 0.0) * (step.rate or step.concurrency or 1)
