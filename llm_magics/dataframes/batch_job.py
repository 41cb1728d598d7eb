"""What a call with ``batch=True, wait=False`` returns: its batch jobs, and later their rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llm_magics._async.bridge import bridge
from llm_magics._util.text import format_usd, pluralize
from llm_magics._util.validation import check_positive
from llm_magics.dataframes.reports import sum_known
from llm_magics.runtime.jobs.control import cancel_job, look_at_jobs, stopped_waiting
from llm_magics.runtime.session import session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_magics.runtime.storage.job_journal import JobRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """
    The progress of the batch jobs of a call.

    Attributes:
        state: ``running`` or another state in which a job is active, ``ended``, or ``stored`` if
            all answers were stored, so that no job was needed.
        rows, done, failed: the number of requests, and the service's counts of them.
        cost_usd: the cost of the results that were read, in US dollars; ``None`` if unknown.
    """

    state: str
    rows: int
    done: int
    failed: int
    cost_usd: float | None


class Run(Protocol):
    """
    The run of a call over rows.

    Attributes:
        call: the requests: ``job_ids``, ``pending`` and ``wait_for``.
    """

    call: Any

    @property
    def codes(self) -> Sequence[int] | NDArray[Any]:
        """The number of the request of each row."""

    @property
    def is_answered(self) -> NDArray[np.bool_]:
        """Whether each row has a result."""

    def ask(self) -> BaseException | None:
        """Send the requests; return the error that ended the run, if any."""


class BatchJob:
    """
    The batch jobs of a call that did not wait for them.

    They go on without this object: the same call with ``wait=True`` finds them, in any kernel.
    """

    def __init__(self, run: Run, write: Callable[[BaseException | None], Any]) -> None:
        self._run = run
        self._write = write

    @property
    def ids(self) -> list[str]:
        """The identifiers of the jobs, for ``%llm jobs``."""
        return list(self._jobs.job_ids)

    @property
    def status(self) -> BatchStatus:
        """The progress of the jobs, of which the service is asked."""
        if self.ids:
            bridge.run(look_at_jobs(session))
        return self._status()

    def wait(self, timeout: float | None = None) -> None:
        """
        Wait until the jobs have ended, and store the answers.

        Args:
            timeout: the maximum time in seconds; by default the setting ``batch_timeout``.

        Raises:
            JobError: the jobs have not ended in this time; they go on.
            Interrupted: the jobs go on.
        """
        if timeout is not None:
            check_positive("timeout", timeout, "seconds")
        ended_by = self._wait(timeout)
        if isinstance(ended_by, KeyboardInterrupt):
            done = int(self._run.is_answered.sum())
            rows = f"{done:,} of {len(self._run.codes):,} rows are answered"
            raise stopped_waiting(session, rows, self.ids, None)
        if ended_by is not None:
            raise ended_by

    def result(self) -> Any:
        """
        Wait until the jobs have ended, and return what the call returns that waits for them.

        Raises:
            JobError: the jobs have not ended in the time of the setting ``batch_timeout``.
            Interrupted: the jobs go on; ``partial`` has the answers so far.
        """
        return self._write(self._wait(None))

    def cancel(self) -> None:
        """
        Cancel the jobs. What was done until now is billed; `result` returns it.

        Raises:
            JobError: it is not known whether the service has a job.
        """
        for record in self._records():
            if record.is_active:
                bridge.run(cancel_job(session, record))

    def __repr__(self) -> str:
        status = self._status()
        what = ", ".join(self.ids) or "no batch job"
        parts = [status.state, f"{status.done:,} of {pluralize(status.rows, 'request')} done"]
        parts += [f"{status.failed:,} failed"] if status.failed else []
        parts += [format_usd(status.cost_usd)] if status.cost_usd else []
        return f"<BatchJob {what}: {' · '.join(parts)}>"

    @property
    def _jobs(self) -> Any:
        return self._run.call

    def _wait(self, timeout: float | None) -> BaseException | None:
        if not self._jobs.pending:
            return None
        seconds = float(session.config.batch_timeout) if timeout is None else float(timeout)
        self._jobs.wait_for(seconds)
        return self._run.ask()

    def _records(self) -> list[JobRecord]:
        """Return the jobs in the journal; one that was forgotten is missing."""
        records = {each.id: each for each in session.journal.jobs()}
        return [records[each] for each in self.ids if each in records]

    def _status(self) -> BatchStatus:
        records = self._records()
        active = [each.state for each in records if each.is_active]
        return BatchStatus(
            state=active[0] if active else "ended" if self.ids else "stored",
            rows=sum(each.rows for each in records),
            done=sum(each.done for each in records),
            failed=sum(each.failed for each in records),
            cost_usd=sum_known(each.cost_usd for each in records),
        )
