"""
Run the requests of a comparison or an evaluation: providers in parallel, with one progress.

All rows so far stay available when the run is interrupted or the budget is spent.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from llm_magics._async.concurrency import merge_streams, run_bounded
from llm_magics.benchmarking.measure import Record, attach_partial_result
from llm_magics.benchmarking.measurements import Measurements
from llm_magics.host import Progress
from llm_magics.runtime.chat import ChatCall


class MeasuredJob(Protocol):
    """One row of the result: a request, or a function of the user that sends requests."""

    @property
    def model(self) -> str:
        """The name of the model as passed by the caller."""


JobType = TypeVar("JobType", bound=MeasuredJob)


@dataclass(frozen=True, kw_only=True)
class JobRun(Generic[JobType]):
    """
    The running jobs of a comparison or an evaluation.

    Attributes:
        jobs: the jobs, in the order in which they start at each provider.
        ask: runs a job and adds its row to ``record``.
        record: the rows so far.
        at_once: the number of concurrent jobs of each provider.
        about: the attributes of the result.
        task: what the progress says.
        create: creates the result from rows and attributes.
    """

    jobs: Sequence[JobType]
    ask: Callable[[JobType], Awaitable[None]]
    record: Record
    at_once: int
    about: Mapping[str, Any] = field(default_factory=dict)
    task: str = "comparing"
    create: Callable[..., Measurements] = Measurements.of

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Run all jobs and yield the progress."""
        by_provider: dict[str, list[JobType]] = {}
        for job in self.jobs:
            by_provider.setdefault(job.model.partition("/")[0], []).append(job)
        before, began = len(self.record), time.perf_counter()
        walks = [run_bounded(self.at_once, self.ask, jobs) for jobs in by_provider.values()]
        with attach_partial_result(lambda: self.result(is_stopped=True)):
            async with aclosing(merge_streams(walks)) as finished:
                async for _ in finished:
                    yield self._progress(time.perf_counter() - began, before)

    def _progress(self, elapsed_s: float, before: int) -> Progress:
        failed = self.record.failed
        text = " · ".join([self.task, *([f"{failed:,} failed"] if failed else [])])
        done, total = len(self.record), before + len(self.jobs)
        return Progress(text, done, total, "answers", elapsed_s, before=before)

    def result(self, *, is_stopped: bool = False) -> Measurements:
        """Return the rows so far with their attributes, marked as stopped if ``is_stopped``."""
        rows = self.record.answered if is_stopped else self.record.rows
        about = dict(self.about)
        if not is_stopped:
            self.record.warn_of_cut()
        else:
            about["stopped"] = f"after {len(rows):,} of {len(self.jobs):,} requests"
        return self.create(rows, about)


def calls_by_model(jobs: Sequence[Any]) -> dict[str, list[ChatCall]]:
    """Return the calls of the jobs that are already built, by the name of their model."""
    calls: dict[str, list[ChatCall]] = {}
    for job in jobs:
        if isinstance(call := getattr(job, "call", None), ChatCall):
            calls.setdefault(job.model, []).append(call)
    return calls
