"""
Takes one job of the journal from its claim to its results.

The driver of a job holds its lock, which ends with the process. Every step first writes to the
journal what is about to happen, so that the driver of another kernel can go on from there:

| state in the journal | what the next driver does |
|---|---|
| prepared | nothing was paid: it drops the job, and its requests are claimed again |
| creating, uncertain | it asks the service's list whether the job exists |
| running | it polls |
| ended | it reads the results, again from their beginning if reading was interrupted |
"""

from __future__ import annotations

import asyncio
import re
from array import array
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from llm_magics.errors import (
    AuthenticationError,
    JobError,
    LLMError,
    ProviderError,
    RateLimitError,
    ResultsGoneError,
)
from llm_magics.providers.batches.service import (
    BatchResult,
    BatchService,
    JobStatus,
    Submission,
)
from llm_magics.providers.batches.transfers import INVALID_RESULTS
from llm_magics.runtime.jobs.clock import Backoff, Clock
from llm_magics.runtime.jobs.search import Search
from llm_magics.runtime.jobs.work import OpenRows, Work
from llm_magics.runtime.storage.job_journal import JobRecord, Journal, Mark, RowState

_T = TypeVar("_T")

# Some services answer 404 for a batch that exists (anthropics/anthropic-sdk-python#1432), so a job
# counts as deleted only if the answer stays the same for this long.
_MISSING_S = 600.0

# How long an interrupt waits for the answer to a request that creates a job.
_LAST_ANSWER_S = 5.0

_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")  # as submitted; a service may return any text

# The number of results that are stored in one transaction.
_RESULTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """
    What all drivers of a run share.

    Attributes:
        journal: the journal.
        service: the service's batch API.
        work: the requests of the run.
        clock: the time.
        settle_s: how long after its creation a job may be missing in the service's list.
        waits: whether the run waits for jobs; otherwise also not for a full queue.
        deadline: the time until which to wait.
        changed: called after each change.
    """

    journal: Journal
    service: BatchService
    work: Work
    clock: Clock
    settle_s: float
    waits: bool
    deadline: float
    changed: Callable[[], None]


class Driver:
    """
    Drives one job; the caller holds its lock.

    Attributes:
        record: the job as the journal has it.
        errors: the errors of the rows that were read, by the numbers of the work.
        status: the job as the service described it last.
        is_queue_full: whether the service dropped it because too much is queued.
    """

    def __init__(self, desk: Desk, record: JobRecord, numbers: array[int]) -> None:
        """``numbers`` has the number in the work of each row of the job; -1 for other rows."""
        self._desk = desk
        self._numbers = numbers
        self.record = record
        self.errors: dict[int, LLMError] = {}
        self.status: JobStatus | None = None
        self.is_queue_full = False
        self._backoff = Backoff(desk.clock)
        self._missing_since: float | None = None

    async def submit(self, lines: Path) -> None:
        """
        Create the job, which is prepared; afterwards it is running, creating or dropped.

        Raises:
            ProviderError: the service has refused the job, which is then dropped.
        """
        desk = self._desk
        while True:
            try:
                submission = await self._uploaded(lines)
            except ProviderError as error:
                await self.drop(f"The input was not accepted: {error}")
                raise
            self._note(self._desk.journal.note_creating, desk.clock.now())
            try:
                status = await self._created(submission)
            except ProviderError as error:
                if not _is_refusal(error):
                    return  # it may exist: `find` asks the service
                is_full = isinstance(error, RateLimitError) and error.retryable
                if not is_full or not desk.waits:
                    await self.drop(str(error))
                    raise
                message = f"{self.record.provider} accepts no further job at present: {error}"
                self._note(desk.journal.note_prepared, message)
                await self._wait(error)
                continue
            self._adopt(status)
            return

    async def _created(self, submission: Submission) -> JobStatus:
        """Create the job; an interrupt waits a moment for the answer, so that it is known."""
        creating = asyncio.ensure_future(self._desk.service.create(submission))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            with suppress(TimeoutError, ProviderError):
                self._adopt(await asyncio.wait_for(creating, _LAST_ANSWER_S))
            raise

    async def _uploaded(self, lines: Path) -> Submission:
        """Return the submission, after uploading its lines if the service requires a file."""
        desk, record = self._desk, self.record
        submission = Submission(
            mark=record.id,
            path=record.path,
            model=record.model,
            lines=lines,
            count=record.rows,
            input_id=record.input_id,
        )
        if record.input_id:
            return submission
        input_id = await self._retried(lambda: desk.service.upload(submission))
        if input_id:
            self._note(self._desk.journal.note_input, input_id)
        return replace(submission, input_id=input_id)

    async def find(self) -> None:
        """Ask the service's list for the job until it is running, or certainly not there."""
        desk, record = self._desk, self.record
        assert record.creating is not None
        settled_at = record.creating + desk.settle_s
        search = Search(desk.service, desk.journal, record)
        while True:
            asked_at = desk.clock.now()
            error: ProviderError | None = None
            try:
                found = await search.look()
            except AuthenticationError:
                raise
            except ProviderError as failure:
                error = failure
            else:
                if found.status is not None:
                    self._adopt(found.status)
                    return
                if not found.unclear and asked_at >= settled_at:
                    await self.drop("The service did not receive it.")
                    return
                if found.unclear and self.record.state != "uncertain":
                    self._note(desk.journal.note_uncertain, found.describe(record.provider))
            await self._wait(error, until=settled_at)

    async def poll(self) -> None:
        """Wait until the job has ended at the service."""
        desk, record = self._desk, self.record
        assert record.service_id is not None
        while True:
            error: ProviderError | None = None
            try:
                status = await desk.service.look_at(record.service_id)
            except AuthenticationError:
                raise
            except ProviderError as failure:
                error = failure
                if self._is_lost(error):
                    self._note_end("deleted")
                    return
            else:
                self._is_lost(None)
                self._see(status)
                if status.state == "ended":
                    if status.is_queue_full:
                        self.is_queue_full = True
                        await self.drop(f"Too much is queued at {record.provider}.")
                    else:
                        self._note_end(status.outcome)
                    return
            await self._wait(error)

    async def read(self) -> None:
        """
        Read the results of the ended job, and store those that the work knows.

        Raises:
            JobError: the results could not be stored.
        """
        desk, record = self._desk, self.record
        open_rows = OpenRows(self._numbers)
        try:
            if record.outcome == "deleted":
                raise self._gone()
            status = self.status or await self._status()
            damage = await self._read(status, open_rows)
        except ResultsGoneError as error:
            await self._fail_rows(open_rows, ResultsGoneError(str(error), hint=error.hint))
            return
        reason = status.error or f"The service returned no result for this row ({status.outcome})."
        missing = damage or ProviderError(reason, provider=record.provider)
        await self._fail_rows(open_rows, missing)
        if record.input_id:
            with suppress(ProviderError):  # a remaining file is free
                await desk.service.discard(record.input_id)

    async def _status(self) -> JobStatus:
        """Return the state of the ended job."""
        assert self.record.service_id is not None
        while True:
            try:
                return await self._desk.service.look_at(self.record.service_id)
            except AuthenticationError:
                raise
            except ProviderError as error:
                if self._is_lost(error):
                    raise self._gone() from error
                if error.status != 404 and not error.retryable:
                    raise
                await self._wait(error)

    def _is_lost(self, error: ProviderError | None) -> bool:
        """Return whether the service has not found the batch for so long that it is deleted."""
        if error is None or error.status != 404:
            self._missing_since = None
            return False
        now = self._desk.clock.now()
        self._missing_since = self._missing_since or now
        return now - self._missing_since >= _MISSING_S

    def _gone(self) -> ResultsGoneError:
        msg = f"{self.record.provider} no longer has the batch {self.record.service_id}."
        return ResultsGoneError(msg, provider=self.record.provider)

    async def _read(self, status: JobStatus, open_rows: OpenRows) -> ProviderError | None:
        """
        Read all results; after a lost connection, again from the beginning.

        Returns:
            The error, if results are damaged when they are read for the second time.
        """
        is_second = False
        while True:
            try:
                await self._read_once(status, open_rows)
            except (AuthenticationError, ResultsGoneError):
                raise
            except ProviderError as error:
                if self._is_lost(error):
                    raise self._gone() from error
                if error.code == INVALID_RESULTS:
                    if is_second or not open_rows:
                        return error
                    is_second = True
                elif not error.retryable:
                    raise
                else:
                    await self._wait(error)
            else:
                return None

    async def _read_once(self, status: JobStatus, open_rows: OpenRows) -> None:
        """Read the results from the beginning, and store them, also those before an error."""
        batch: list[tuple[int, BatchResult]] = []
        results = self._desk.service.results(status)
        try:
            async for result in results:
                row = self._row_of(result.custom_id)
                if row is None or row not in open_rows:
                    continue  # another run's, or already stored
                batch.append((row, _explained(result)))
                if len(batch) >= _RESULTS:
                    await self._accept(batch, open_rows)
                    batch = []
        except ProviderError:
            await self._accept(batch, open_rows)
            raise
        finally:
            await results.aclose()
        await self._accept(batch, open_rows)

    def _row_of(self, custom_id: str) -> int | None:
        """Return the number of a row in the job; ``None`` if the result is not the job's."""
        mark, _, number = custom_id.rpartition("-")
        is_mine = mark == self.record.id and _NUMBER.fullmatch(number) is not None
        return int(number) if is_mine and int(number) < self.record.rows else None

    async def _accept(self, batch: list[tuple[int, BatchResult]], open_rows: OpenRows) -> None:
        """Store results, then record in the journal that they are stored."""
        if not batch:
            return
        unique: dict[int, BatchResult] = {}
        for row, result in batch:  # of several results for a row, an answer counts first
            if row in open_rows and (row not in unique or unique[row].body is None):
                unique[row] = result
        numbered = [(open_rows.number(row), result) for row, result in unique.items()]
        accepted = await self._desk.work.accept(numbered)
        marks: list[Mark] = []
        for row, each in zip(unique, accepted, strict=True):
            number = open_rows.take(row)
            if each.error is not None:
                self.errors[number] = each.error
            marks.append(
                Mark(
                    number=row,
                    state=RowState.STORED if each.error is None else RowState.FAILED,
                    cost_usd=each.cost_usd,
                    error=None if each.error is None else _kind_of(each.error),
                )
            )
        await asyncio.to_thread(self._desk.journal.mark, self.record, marks)
        self._desk.changed()

    async def _fail_rows(self, open_rows: OpenRows, error: ProviderError) -> None:
        """Record the rows without a result as failed; they can be submitted again."""
        left = open_rows.left()
        marks = [
            Mark(number=row, state=RowState.FAILED, cost_usd=0.0, error=_kind_of(error))
            for row in left
        ]
        self.errors |= {open_rows.take(row): error for row in left}
        await asyncio.to_thread(self._desk.journal.mark, self.record, marks)

    # Steps.

    def _adopt(self, status: JobStatus) -> None:
        expires = status.expires.timestamp() if status.expires else None
        self._note(self._desk.journal.note_created, status.id, expires)
        self.status = None
        self._backoff.reset()

    def _see(self, status: JobStatus) -> None:
        self.status = status
        expires = status.expires.timestamp() if status.expires else self.record.expires
        seen = (status.done, status.failed, expires)
        if seen != (self.record.done, self.record.failed, self.record.expires):
            self._note(self._desk.journal.note_progress, *seen)

    def _note_end(self, outcome: str) -> None:
        done, failed = self.record.done, self.record.failed
        self._note(self._desk.journal.note_ended, outcome, done, failed)

    async def drop(self, message: str) -> None:
        """Give up a job that the service does not have, and its input file."""
        self._note(self._desk.journal.drop, message)
        if self.record.input_id:
            with suppress(ProviderError):
                await self._desk.service.discard(self.record.input_id)

    def _note(self, write: Callable[..., None], *facts: Any) -> None:
        """Write to the journal before the next step."""
        write(self.record.id, *facts)
        self.record = self._desk.journal.job(self.record.id)
        self._desk.changed()

    async def _retried(self, send: Callable[[], Awaitable[_T]]) -> _T:
        """Return the result of a request that can be repeated; wait while the service fails."""
        while True:
            try:
                return await send()
            except AuthenticationError:
                raise
            except ProviderError as error:
                if not error.retryable:
                    raise
                await self._wait(error)

    async def _wait(self, error: ProviderError | None = None, until: float | None = None) -> None:
        """
        Wait before the next look.

        Raises:
            JobError: the time to wait for jobs is over.
        """
        desk = self._desk
        if desk.clock.now() >= desk.deadline:
            raise self._timeout()
        least_s = error.retry_after if error is not None else None
        left_s = (until or 0.0) - desk.clock.now()  # the answer is known then
        await self._backoff.wait(least_s, left_s if left_s > 0 else None)

    def _timeout(self) -> JobError:
        record = self.record
        name = f"{record.id} ({record.service_id})" if record.service_id else record.id
        if record.state == "prepared":
            msg = f"The batch job {name} could not be submitted in time. {record.message}".strip()
            return JobError(msg, hint="Run the cell again to submit it.")
        msg = f"The batch job {name} at {record.provider} has not ended in time; it goes on."
        return JobError(msg, hint="Run the cell again to get its results, or see %llm jobs.")


def _explained(result: BatchResult) -> BatchResult:
    """Return the result, with an error if the request was not processed in time."""
    if not result.is_expired or result.error is not None:
        return result
    error = ProviderError(
        "The batch job ended before this row was processed.",
        hint="Run the cell again to submit it again.",
    )
    return replace(result, error=error)


def _kind_of(error: LLMError) -> str:
    """Return what the journal has of an error: its message may quote a prompt or an answer."""
    status = getattr(error, "status", None)
    return type(error).__name__ + (f", status {status}" if status else "")


def _is_refusal(error: ProviderError) -> bool:
    """Return whether the service certainly did not create the job."""
    return error.status is not None and 400 <= error.status < 500 and error.status != 408
