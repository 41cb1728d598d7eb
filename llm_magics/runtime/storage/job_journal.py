"""
The journal of batch jobs: which request is in which job, and the progress of each job.

Every step that cannot be undone is written here, and synced to the disk, before it is done. A
notebook that is killed at any time then finds out what happened to its jobs. Kernels share the
journal. It contains digests of requests, and no prompts or keys.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from llm_magics._util.text import reason_of
from llm_magics.errors import JobError
from llm_magics.runtime.storage.sqlite_files import close_in, set_journal_mode, transaction

# prepared: its requests are claimed, and nothing was sent that costs money.
# creating: the request to create it is about to be sent, or was sent and its answer is not known.
# uncertain: the service has a batch that may be this job, and shows whose it is when it has ended.
# running: the service has accepted it.
# ended: it has ended at the service; unread results may still be available.
# dropped: it does not exist at the service. Its requests are free.
State = Literal["prepared", "creating", "uncertain", "running", "ended", "dropped"]

ACTIVE: tuple[State, ...] = ("prepared", "creating", "uncertain", "running")

# Other kernels write for a few milliseconds only.
_BUSY_S = 30.0

# No service has results for longer than 30 days.
_MAX_AGE_S = 90 * 86_400.0

# The number of keys in one query.
_KEYS = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    serial INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, provider TEXT NOT NULL,
    address TEXT NOT NULL, account TEXT NOT NULL, model TEXT NOT NULL, kind TEXT NOT NULL,
    path TEXT NOT NULL, state TEXT NOT NULL, outcome TEXT NOT NULL DEFAULT '',
    service_id TEXT, input_id TEXT NOT NULL DEFAULT '', rows INTEGER NOT NULL,
    claimed REAL NOT NULL, creating REAL, expires REAL, done INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0, message TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS rows (
    job INTEGER NOT NULL, number INTEGER NOT NULL, key BLOB NOT NULL,
    state INTEGER NOT NULL DEFAULT 0, cost_usd REAL, error TEXT,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rows_by_key ON rows(key);
"""


class RowState(IntEnum):
    """The state of a row's result: not read yet, stored as an answer, or failed."""

    OPEN = 0
    STORED = 1
    FAILED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """
    A job in the journal.

    Attributes:
        id: our identifier, which the service stores where it can.
        account: a digest of the key and the address.
        path: the path of its live requests.
        state, outcome: its progress, and the service's word for its end.
        service_id, input_id: the service's identifiers of the job and of its input file.
        claimed, creating, expires: when its requests were claimed, when the request that creates
            it was sent, and until when the service tries, in seconds since the epoch.
        rows, done, failed: the number of its requests, and the service's counts.
        cost_usd: the cost of the results that were read; ``None`` if a part of it is unknown.
            Only `Journal.jobs` computes it.
        message: the reason for its state, if there is one.
    """

    serial: int
    id: str
    provider: str
    address: str
    account: str
    model: str
    kind: str
    path: str
    state: State
    outcome: str
    service_id: str | None
    input_id: str
    rows: int
    claimed: float
    creating: float | None
    expires: float | None
    done: int
    failed: int
    message: str
    cost_usd: float | None = 0.0

    @property
    def is_active(self) -> bool:
        """Whether it exists or may exist at the service, and has not ended."""
        return self.state in ACTIVE


# By name, because a later version may add columns.
_COLUMNS = [each.name for each in fields(JobRecord) if each.name != "cost_usd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where the request of a key is: the row of a job, and the job."""

    job: JobRecord
    number: int
    state: RowState
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job to be: its identifier, and the keys of its requests in the order of its lines."""

    id: str
    keys: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where jobs go: the service, the account, the model and the path of the live requests."""

    provider: str
    address: str
    account: str
    model: str
    kind: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The state of a row after its result was read."""

    number: int
    state: RowState
    cost_usd: float | None = None
    error: str | None = None


class Journal:
    """
    A journal in a file, which is created with the first job.

    It can be used from several threads and processes. Every method writes in one transaction that
    is on the disk when the method returns.

    Raises:
        JobError: the file cannot be read or written. No job is submitted without a journal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._close: Callable[[], None] | None = None
        self._process = 0

    # Reading.

    def jobs(self) -> list[JobRecord]:
        """Return all jobs with their costs, the latest first."""
        if not self.path.exists():
            return []
        # A result without a price makes the cost of its job unknown.
        query = (
            "SELECT job, total(cost_usd), total(state != 0 AND cost_usd IS NULL) FROM rows"
            " GROUP BY job"
        )
        with self._reading() as connection:
            costs = {job: (usd, unpriced) for job, usd, unpriced in connection.execute(query)}
        return [
            replace(each, cost_usd=None if unpriced else usd)
            for each in self._records("ORDER BY serial DESC")
            for usd, unpriced in [costs.get(each.serial, (0.0, 0))]
        ]

    def job(self, job_id: str) -> JobRecord:
        """Return the job with our identifier ``job_id``."""
        found = self._records("WHERE id = ?", job_id)
        if not found:
            msg = f'Unknown batch job "{job_id}".'
            raise JobError(msg, hint="List them with: %llm jobs")
        return found[0]

    def has_job(self, job_id: str) -> bool:
        """Return whether there is a job with our identifier ``job_id``."""
        return self.path.exists() and bool(self._records("WHERE id = ?", job_id))

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Found]:
        """Return where the requests of ``keys`` are; of several jobs, in the latest one."""
        if not self.path.exists():
            return {}
        where: dict[bytes, tuple[int, int, int, str | None]] = {}
        query = (
            "SELECT key, job, number, rows.state, rows.error FROM rows JOIN jobs ON serial = job"
            " WHERE jobs.state != 'dropped' AND key IN ({}) ORDER BY job"
        )
        with self._reading() as connection:
            for start in range(0, len(keys), _KEYS):
                part = list(keys[start : start + _KEYS])
                places = ",".join("?" * len(part))
                for key, *rest in connection.execute(query.format(places), part):
                    where[key] = tuple(rest)
        records = {each.serial: each for each in self._records("")} if where else {}
        return {
            key: Found(job=records[job], number=number, state=RowState(state), error=error)
            for key, (job, number, state, error) in where.items()
            if job in records
        }

    def rows_of(self, job: JobRecord) -> Iterator[tuple[int, RowState, str | None]]:
        """Yield number, state and error of each row of a job, in the order of its lines."""
        query = (
            "SELECT number, state, error FROM rows WHERE job = ? AND number > ?"
            " ORDER BY number LIMIT 5000"
        )
        last = -1
        while True:
            with self._reading() as connection:
                rows = connection.execute(query, (job.serial, last)).fetchall()
            if not rows:
                return
            for number, state, error in rows:
                yield number, RowState(state), error
            last = rows[-1][0]

    def service_ids(self, account: str) -> set[str]:
        """Return the service's identifiers of the jobs of an account."""
        query = "SELECT service_id FROM jobs WHERE account = ? AND service_id IS NOT NULL"
        with self._reading() as connection:
            return {row[0] for row in connection.execute(query, (account,))}

    # Writing.

    def claim(
        self,
        claims: Sequence[Claim],
        target: Target,
        now: float,
        is_free: Callable[[Found], bool] = lambda found: not found.job.is_active,
    ) -> bool:
        """
        Enter new jobs, unless one of their requests is in another job meanwhile.

        ``is_free`` decides whether a request that is in a job may be submitted again.

        Returns:
            Whether they were entered: all or none.
        """
        with self._writing() as connection:
            _delete_old(connection, now)
            for claim in claims:
                for start in range(0, len(claim.keys), _KEYS):
                    found = self.find(claim.keys[start : start + _KEYS])
                    if not all(map(is_free, found.values())):
                        return False
            for claim in claims:
                serial = connection.execute(
                    "INSERT INTO jobs (id, provider, address, account, model, kind, path, state,"
                    " rows, claimed) VALUES (?, ?, ?, ?, ?, ?, ?, 'prepared', ?, ?)",
                    (
                        claim.id,
                        target.provider,
                        target.address,
                        target.account,
                        target.model,
                        target.kind,
                        target.path,
                        len(claim.keys),
                        now,
                    ),
                ).lastrowid
                connection.executemany(
                    "INSERT INTO rows (job, number, key) VALUES (?, ?, ?)",
                    ((serial, number, key) for number, key in enumerate(claim.keys)),
                )
        return True

    def note_account(self, job_id: str, account: str) -> None:
        """Record that another key belongs to the account of the job."""
        self._update(job_id, account=account)

    def note_input(self, job_id: str, input_id: str) -> None:
        """Record the service's identifier of the uploaded input file."""
        self._update(job_id, input_id=input_id)

    def note_creating(self, job_id: str, now: float) -> None:
        """Record that the job is about to be created at the service."""
        self._update(job_id, state="creating", creating=now)

    def note_prepared(self, job_id: str, message: str) -> None:
        """Record that the service has refused to create the job for now."""
        self._update(job_id, state="prepared", message=message)

    def note_created(self, job_id: str, service_id: str, expires: float | None) -> None:
        """Record that the service has accepted the job."""
        self._update(job_id, state="running", service_id=service_id, expires=expires, message="")

    def note_progress(self, job_id: str, done: int, failed: int, expires: float | None) -> None:
        """Record the service's counts."""
        self._update(job_id, done=done, failed=failed, expires=expires)

    def note_ended(self, job_id: str, outcome: str, done: int, failed: int) -> None:
        """Record that the job has ended at the service; its results are not read yet."""
        self._update(job_id, state="ended", outcome=outcome, done=done, failed=failed)

    def note_uncertain(self, job_id: str, message: str) -> None:
        """Record that the service has a batch that may be this job."""
        self._update(job_id, state="uncertain", message=message)

    def drop(self, job_id: str, message: str) -> None:
        """Record that the service does not have the job. Its requests can be submitted again."""
        self._update(job_id, state="dropped", message=message)

    def drop_prepared(self, job_id: str, message: str) -> bool:
        """Record that a job will not be submitted; return whether it was not submitted before."""
        with self._writing() as connection:
            query = "UPDATE jobs SET state = 'dropped', message = ? WHERE id = ? AND state = 'prepared'"
            return connection.execute(query, (message, job_id)).rowcount > 0

    def forget(self, job_id: str) -> None:
        """Delete a job from the journal. Its requests can be submitted again."""
        with self._writing() as connection:
            query = "DELETE FROM rows WHERE job = (SELECT serial FROM jobs WHERE id = ?)"
            connection.execute(query, (job_id,))
            connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def mark(self, job: JobRecord, marks: Sequence[Mark]) -> None:
        """Record what became of rows of ``job``."""
        with self._writing() as connection:
            connection.executemany(
                "UPDATE rows SET state = ?, cost_usd = ?, error = ? WHERE job = ? AND number = ?",
                [
                    (int(each.state), each.cost_usd, each.error, job.serial, each.number)
                    for each in marks
                ],
            )

    def close(self) -> None:
        """Close the file; it is opened again on the next use."""
        with self._lock:
            if self._close is not None:
                self._close()
            self._connection = self._close = None

    def _records(self, rest: str, *arguments: Any) -> list[JobRecord]:
        with self._reading() as connection:
            query = f"SELECT {', '.join(_COLUMNS)} FROM jobs {rest}"  # noqa: S608
            rows = connection.execute(query, arguments)
            return [JobRecord(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]

    def _update(self, job_id: str, **values: Any) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        with self._writing() as connection:
            connection.execute(
                f"UPDATE jobs SET {names} WHERE id = ?",  # noqa: S608 (names of columns)
                (*values.values(), job_id),
            )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._opened()
            except (sqlite3.Error, OSError) as error:
                self._fail(error)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction that locks the journal for other kernels."""
        with self._lock:
            try:
                connection = self._opened()
                with transaction(connection):
                    yield connection
            except (sqlite3.Error, OSError) as error:
                self._fail(error)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None or self._process != os.getpid():  # also after a fork
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                self.path.chmod(0o600)
                set_journal_mode(connection, "WAL", _BUSY_S)
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript(_SCHEMA)
            except BaseException:
                connection.close()
                raise
            self._connection, self._process = connection, os.getpid()
            self._close = weakref.finalize(self, close_in, self._process, connection)
        return self._connection

    def _fail(self, error: Exception) -> None:
        msg = f"Could not use the journal of batch jobs {self.path}: {reason_of(error)}."
        hint = "Check the free space and the permissions of its folder, or set cache_dir."
        raise JobError(msg, hint=hint) from error


def _delete_old(connection: sqlite3.Connection, now: float) -> None:
    """Delete jobs whose results no service has any more."""
    old = "state IN ('ended', 'dropped') AND claimed < ?"
    limit = (now - _MAX_AGE_S,)
    connection.execute(
        f"DELETE FROM rows WHERE job IN (SELECT serial FROM jobs WHERE {old})",  # noqa: S608
        limit,
    )
    connection.execute(f"DELETE FROM jobs WHERE {old}", limit)  # noqa: S608
