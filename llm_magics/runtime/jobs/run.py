"""Finds the jobs that have the requests of a call, submits the others, and waits for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

from llm_magics._async.concurrency import run_bounded
from llm_magics._util.filesystem import FileLock
from llm_magics._util.text import pluralize
from llm_magics.errors import JobError, LLMError, ProviderError
from llm_magics.host import Progress
from llm_magics.providers.batches.service import BatchService
from llm_magics.runtime.jobs.clock import Clock
from llm_magics.runtime.jobs.driver import Desk, Driver
from llm_magics.runtime.jobs.input_file import InputFile, delete_remains, write_input_files
from llm_magics.runtime.jobs.plan import Followed, Keys, Plan, RowProgress, make_plan, rows_to_read
from llm_magics.runtime.jobs.work import JobOptions, Work
from llm_magics.runtime.session import Session
from llm_magics.runtime.storage.job_journal import (
    ACTIVE,
    Claim,
    Found,
    JobRecord,
    Journal,
    RowState,
    Target,
)

# The delay between two looks at a job that another kernel drives, in seconds.
_WATCH_S = 2.0

# The delay before requests are submitted again because too much was queued, in seconds.
_QUEUE_S = 60.0


class JobRun:
    """One run over the requests of ``work`` whose answers are not stored."""

    def __init__(
        self,
        session: Session,
        work: Work,
        missing: Sequence[int],
        *,
        options: JobOptions | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._work = work
        self._options = options or JobOptions()
        self._clock = clock or Clock()
        self._journal: Journal = session.journal
        self._service: BatchService = work.route.provider.batch_service()
        self._folder = self._journal.path.parent / "jobs"
        self._news: asyncio.Queue[None] = asyncio.Queue()
        self._followed: dict[str, Followed] = {}
        self._failure: Exception | None = None
        self._is_freed = False
        self._desk = Desk(
            journal=self._journal,
            service=self._service,
            work=work,
            clock=self._clock,
            settle_s=session.config.batch_settle_s,
            waits=self._options.wait,
            deadline=self._clock.now() + self._options.timeout_s,
            changed=lambda: self._news.put_nowait(None),
        )
        self._rows = RowProgress(missing)

    @property
    def errors(self) -> dict[int, LLMError]:
        """The reasons for missing answers, by number."""
        return self._rows.errors

    @property
    def model(self) -> str:
        """The full name of the model."""
        return self._work.route.name

    @property
    def job_ids(self) -> list[str]:
        """Our identifiers of the jobs that have or had the rows."""
        return list(self._followed)

    @property
    def pending(self) -> int:
        """The number of rows without an answer and without an error."""
        return self._rows.pending

    async def plan(self) -> Plan:
        """Return what the run would do; nothing is sent."""
        return await asyncio.to_thread(
            make_plan, self._journal, self._work, self._rows, self._is_free
        )

    async def events(self) -> AsyncGenerator[Progress, None]:
        """
        Submit, wait and store the results; yield the progress.

        Raises:
            JobError: the jobs have not ended in time, or belong to another account.
            ProviderError: the service has refused a job.
        """
        began = time.monotonic()
        await asyncio.to_thread(delete_remains, self._folder, self._journal)
        self._is_freed = True
        while self._is_freed:
            self._is_freed = False
            plan = await self.plan()
            for each in plan.jobs:
                assert each.record is not None
                await self._check_account(each.record)
            new: list[Followed] = []
            async with aclosing(self._submitted(plan.free, new)) as steps:
                async for progress in steps:
                    yield progress
            async with aclosing(self._driven([*plan.jobs, *new])) as driven:
                async for _ in driven:
                    yield self._progress(time.monotonic() - began)

    async def _submitted(
        self, free: Sequence[int], new: list[Followed]
    ) -> AsyncGenerator[Progress, None]:
        """Write and claim the requests that no job has; append their jobs to ``new``."""
        files: list[InputFile] = []
        try:
            async with aclosing(self._write(free, files)) as steps:
                async for progress in steps:
                    yield progress
            if await self._claimed(files):
                new += [Followed(file.id, input=file) for file in files]
            else:  # another kernel has submitted some of them meanwhile
                self._is_freed = True
        finally:
            if not new:
                for file in files:
                    file.discard()

    async def _driven(self, followed: Sequence[Followed]) -> AsyncGenerator[None, None]:
        """Drive the jobs to their ends, and yield after each change."""
        self._followed |= {each.id: each for each in followed}
        limit = self._service.limits.jobs or max(1, len(followed))
        try:
            running = run_bounded(limit, self._drive, followed, self._news)
            async with aclosing(running) as steps:
                async for _ in steps:
                    if self._failure is not None:
                        break
                    yield
        finally:
            for each in followed:
                if each.input is not None:
                    each.input.release()
        if self._failure is not None:  # the other jobs go on at the service
            raise self._failure

    # Planning and claiming.

    def _is_free(self, place: Found) -> bool:
        """Return whether a request is in no job whose result can still be used."""
        # An open row of a job that has ended is paid and unread: with ``fresh`` it is new, too.
        if place.job.state in ACTIVE or place.state is RowState.OPEN:
            return False
        return place.state is RowState.FAILED or self._options.is_fresh

    async def _check_account(self, job: JobRecord) -> None:
        """
        Check that a job can be read with the key in use, which may be a new key of its account.

        Raises:
            JobError: it cannot.
        """
        if job.account == self._service.account:
            return
        if job.service_id is not None and job.address == self._service.provider.address:
            with suppress(ProviderError):
                await self._service.look_at(job.service_id)
                self._journal.note_account(job.id, self._service.account)
                return
        msg = (
            f"The batch job {job.id} with these rows belongs to another account of {job.provider}."
        )
        hint = (
            f"Set the key with which it was submitted, or run %llm jobs forget {job.id} to submit "
            "and pay the rows again."
        )
        raise JobError(msg, hint=hint)

    async def _write(
        self, free: Sequence[int], files: list[InputFile]
    ) -> AsyncGenerator[Progress, None]:
        """Write the requests to input files, and yield the progress."""
        writing = write_input_files(self._folder, self._service, self._work, free, files)
        async with aclosing(writing) as steps:
            async for done, error in steps:
                if error is not None:
                    self.errors[done] = error
                    continue
                yield Progress("preparing a batch job", done, len(free), "requests")

    async def _claimed(self, files: Sequence[InputFile]) -> bool:
        if not files:
            return True
        work, provider = self._work, self._work.route.provider
        target = Target(
            provider=provider.name,
            address=provider.address,
            account=self._service.account,
            model=work.route.model,
            kind=work.kind,
            path=files[0].path,
        )
        claims = [Claim(id=file.id, keys=Keys(work, file.numbers)) for file in files]
        now = self._clock.now()
        return await asyncio.to_thread(self._journal.claim, claims, target, now, self._is_free)

    # Driving.

    async def _drive(self, followed: Followed) -> None:
        """Drive a job to its end; an error ends the run without waiting for the other jobs."""
        try:
            await self._drive_or_watch(followed)
        except Exception as error:
            self._failure = self._failure or error

    async def _drive_or_watch(self, followed: Followed) -> None:
        """Drive a job to its end, or watch the kernel that does."""
        while True:
            lock = await self._lock(followed)
            try:
                followed.record = self._journal.job(followed.id)
            except JobError:  # forgotten meanwhile
                self._is_freed = True
                if lock is not None:
                    lock.release()
                return
            if lock is not None:
                try:
                    await self._advance(followed)
                finally:
                    lock.release()
                    self._remove_folder(followed)
                return
            if not self._options.wait:
                return
            if self._clock.now() >= self._desk.deadline:
                msg = f"The batch job {followed.id} has not ended in time; it goes on."
                raise JobError(msg, hint="Run the cell again to get its results.")
            self._news.put_nowait(None)
            await self._clock.sleep(_WATCH_S)

    async def _lock(self, followed: Followed) -> FileLock | None:
        if followed.input is not None and followed.input.lock is not None:
            lock, followed.input.lock = followed.input.lock, None
            return lock
        folder = self._folder / followed.id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock.try_acquire(folder)

    async def _advance(self, followed: Followed) -> None:
        """Take the job as far as possible; this run holds its lock."""
        assert followed.record is not None
        numbers = await asyncio.to_thread(rows_to_read, self._journal, followed, self._rows)
        driver = Driver(self._desk, followed.record, numbers)
        try:
            if driver.record.state == "prepared":
                if followed.input is None:  # its kernel has ended before it was created
                    await driver.drop("The notebook ended before it was submitted.")
                else:
                    await driver.submit(followed.input.lines)
                    followed.input.release()
            if driver.record.state != "dropped" and not self._options.wait:
                return
            if driver.record.state in ("creating", "uncertain"):
                await driver.find()
            if driver.record.state == "running":
                await driver.poll()
            if driver.record.state == "dropped":
                self._is_freed = True
                if driver.is_queue_full:
                    await self._clock.sleep(_QUEUE_S)
                return
            if max(numbers, default=-1) >= 0:
                await driver.read()
            self._rows.mark_read(numbers, driver.errors)
        finally:
            self.errors.update(driver.errors)
            followed.record = driver.record
            self._news.put_nowait(None)

    def _remove_folder(self, followed: Followed) -> None:
        """Remove the files of a job that has ended; a running one needs its lock."""
        if followed.record is None or followed.record.is_active:
            return
        with suppress(OSError):
            for file in (self._folder / followed.id).iterdir():
                file.unlink()
            (self._folder / followed.id).rmdir()

    def _progress(self, elapsed_s: float) -> Progress:
        records = [each.record for each in self._followed.values() if each.record is not None]
        records = [self._journal.job(each.id) for each in records if each.is_active] + [
            each for each in records if not each.is_active
        ]
        shown = [each for each in records if each.state != "dropped"]
        failed = sum(each.failed for each in shown)
        states = {each.state for each in shown}
        parts = [f"batch job at {self._work.route.provider.name}"]
        if len(shown) > 1:
            parts = [f"{pluralize(len(shown), 'batch job')} at {self._work.route.provider.name}"]
        parts += [next((each for each in ACTIVE if each in states), "reading results")]
        parts += [f"{failed:,} failed"] if failed else []
        return Progress(
            " · ".join(parts),
            sum(each.done for each in shown),
            sum(each.rows for each in shown),
            "requests",
            elapsed_s,
        )
