"""Look at the jobs in the journal, cancel them, and forget them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from llm_magics._util.filesystem import FileLock
from llm_magics.errors import Interrupted, JobError, LLMError, nearest
from llm_magics.providers.batches.service import BatchService
from llm_magics.runtime.session import Session
from llm_magics.runtime.storage.job_journal import JobRecord, RowState

# How long to wait for a service when jobs are listed, in seconds.
_LOOK_S = 10.0


@dataclass(frozen=True, slots=True)
class Look:
    """The current or last known state of a job, and the reason if it could not be refreshed."""

    record: JobRecord
    note: str = ""


async def look_at_jobs(session: Session) -> list[Look]:
    """Return all jobs, the latest first; the services are asked about those that run."""
    records = session.journal.jobs()
    looks = await asyncio.gather(*(_look(session, each) for each in records))
    fresh = {each.id: each for each in session.journal.jobs()}
    return [Look(fresh.get(each.record.id, each.record), each.note) for each in looks]


async def _look(session: Session, record: JobRecord) -> Look:
    if record.state != "running" or record.service_id is None:
        return Look(record, record.message)
    journal = session.journal
    try:
        service = service_of(session, record)
        async with asyncio.timeout(_LOOK_S):
            status = await service.look_at(record.service_id)
    except TimeoutError:
        return Look(record, f"{record.provider} did not answer within {_LOOK_S:.0f} s.")
    except LLMError as error:
        return Look(record, str(error))
    expires = status.expires.timestamp() if status.expires else record.expires
    journal.note_progress(record.id, status.done, status.failed, expires)
    # One that ended because the queue was full is submitted again by the run that waits for it.
    if status.state == "ended" and not status.is_queue_full:
        journal.note_ended(record.id, status.outcome, status.done, status.failed)
    return Look(record)


def service_of(session: Session, record: JobRecord) -> BatchService:
    """
    Return the batch API of the service that has a job.

    Raises:
        JobError: the provider has another key or address now.
    """
    service = session.provider(record.provider, in_use=True).batch_service()
    if service.account != record.account:
        msg = f"The batch job {record.id} belongs to another account of {record.provider}."
        raise JobError(msg, hint="Set the key and the address with which it was submitted.")
    return service


def find_job(records: Sequence[JobRecord], job_id: str) -> JobRecord:
    """
    Return the job whose identifier, or the service's, begins with ``job_id``.

    Raises:
        JobError: there is none, or there are several.
    """
    found = [
        each
        for each in records
        if job_id and (each.id.startswith(job_id) or (each.service_id or "").startswith(job_id))
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        msg = f'Unknown batch job "{job_id}".'
        guess = nearest(job_id, [each.id for each in records], listed=False)
        raise JobError(msg, hint=guess or "List them with: %llm jobs")
    msg = f'Several batch jobs begin with "{job_id}".'
    raise JobError(msg, hint=f"Use one of: {', '.join(each.id for each in found)}.")


async def cancel_job(session: Session, record: JobRecord) -> str:
    """
    Cancel a job, and return what happens to it in words.

    Raises:
        JobError: it has ended, or it is not known whether the service has it.
        ProviderError: the service has refused to cancel it.
    """
    if record.state == "running" and record.service_id is not None:
        await service_of(session, record).cancel(record.service_id)
        return (
            f"Cancelling {record.id} at {record.provider}. What was done until now is billed; run "
            "the cell again to get its results."
        )
    if record.state == "prepared":
        folder = session.journal.path.parent / "jobs" / record.id
        lock = FileLock.try_acquire(folder) if folder.is_dir() else None
        if lock is None and folder.is_dir():
            msg = f"Another notebook is about to submit {record.id}."
            raise JobError(msg, hint="Interrupt it there, or cancel it in a moment.")
        is_dropped = session.journal.drop_prepared(record.id, "Cancelled before it was submitted.")
        if lock is not None:
            lock.release()
        if not is_dropped:
            msg = f"Another notebook has just submitted {record.id}."
            raise JobError(msg, hint="Cancel it again, at its service.")
        return f"Cancelled {record.id} before it was submitted."
    if record.is_active:
        msg = f"It is not known yet whether {record.provider} has {record.id}."
        hint = (
            f"Run its cell again to find out, or look for it on the website of {record.provider}."
        )
        raise JobError(msg, hint=hint)
    msg = f"{record.id} has ended."
    raise JobError(msg, hint="Only a job that is under way can be cancelled.")


def unread_rows(session: Session, record: JobRecord) -> int:
    """Return the number of rows of a job that are paid, or may be, and whose results are unread."""
    if record.state == "dropped":
        return 0
    rows = session.journal.rows_of(record)
    return sum(state is RowState.OPEN for _, state, _ in rows)


def forget_job(session: Session, record: JobRecord) -> None:
    """Delete a job from the journal, and its files unless another notebook uses them."""
    session.journal.forget(record.id)
    folder = session.journal.path.parent / "jobs" / record.id
    lock = FileLock.try_acquire(folder) if folder.is_dir() else None
    if lock is not None:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def stopped_waiting(
    session: Session, done: str, jobs: Sequence[str], partial: object
) -> Interrupted:
    """Return the error for an interrupt after ``jobs`` were prepared; ``done`` is a part of a sentence."""
    states = {each.id: each.state for each in session.journal.jobs()}
    active = [each for each in jobs if states.get(each) in ("creating", "uncertain", "running")]
    ended = [each for each in jobs if states.get(each) == "ended"]
    msg, hint = "No batch job was submitted.", "Run the cell again to submit the rows."
    if active:
        msg = f"{_names(active)} {'goes' if len(active) == 1 else 'go'} on."
        hint = f"Run the cell again to get the rows, or cancel it: %llm jobs cancel {active[0]}"
    elif ended:
        msg = f"{_names(ended)} {'has' if len(ended) == 1 else 'have'} ended."
        hint = "Run the cell again to read the results."
    return Interrupted(f"Stopped waiting: {done}. {msg}", hint=hint, partial=partial)


def _names(jobs: Sequence[str]) -> str:
    return f"The batch job{'s' if len(jobs) > 1 else ''} {', '.join(jobs)}"
