"""
What the fakes of all services with batch jobs have in common: time, jobs, faults and the bill.

A fake is called with a request, as the other fakes are, and served by `serving` in a thread, or by
`tests.support.batch_process` in a process that outlives its clients. All of its state is in the
object. A job's state is a function of the clock: the tests advance it instead of waiting.
"""

from __future__ import annotations

import random
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.support.serving import Asked, Says

Phase = Literal["waiting", "running", "cancelling", "ended"]
Outcome = Literal["completed", "failed", "expired", "cancelled"]


class Clock:
    """A time that tests advance. With ``runs`` it also goes on as the real time does."""

    def __init__(self, start: float = 1_795_000_000.0, *, runs: bool = False) -> None:
        self._start = time.time() if runs else start
        self._runs_from = time.monotonic() if runs else None

    def __call__(self) -> float:
        passed = 0.0 if self._runs_from is None else time.monotonic() - self._runs_from
        return self._start + passed

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self._start += seconds


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a job: our identifier, the path of the live request, and its body."""

    custom_id: str
    path: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The status and the body of the response to one request. Only the status 200 is billed."""

    body: dict[str, Any]
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """
    What becomes of the jobs created from now on. Change it with `BatchFake.fate`.

    Attributes:
        wait_s: how long a job is validated or queued.
        run_s: how long all requests take, one after another. A job that would take longer than
            ``expires_s`` expires, with the results until then.
        expires_s: after what time from its creation a job expires.
        cancel_s: how long it takes to cancel a job.
        retention_s: after what time from the end the results are deleted.
        invalid: why the job fails its validation, as the service's code; empty if it does not.
        listing_delay_s: how late a job appears in the list.
    """

    wait_s: float = 10.0
    run_s: float = 100.0
    expires_s: float = 86_400.0
    cancel_s: float = 5.0
    retention_s: float = 29 * 86_400.0
    invalid: str = ""
    listing_delay_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Job:
    """
    A job that the fake has accepted.

    Attributes:
        id: the service's identifier.
        account: the account that created it.
        created_at: the time of its creation.
        requests: its requests, in their order.
        fate: what becomes of it.
        facts: what else the service stores of it, such as metadata.
        cancelled_at: when it was asked to cancel.
        deleted: whether the user has deleted it.
    """

    id: str
    account: str
    created_at: float
    requests: list[Request]
    fate: Fate
    facts: dict[str, Any] = field(default_factory=dict)
    cancelled_at: float | None = None
    deleted: bool = False

    @property
    def started_at(self) -> float:
        """When it starts to run, unless it is cancelled or invalid."""
        return self.created_at + self.fate.wait_s

    @property
    def expires_at(self) -> float:
        """Until when the service tries."""
        return self.created_at + self.fate.expires_s

    @property
    def ended_at(self) -> float:
        """When it ends, as things are now."""
        if self.cancelled_at is not None:
            return self.cancelled_at + self.fate.cancel_s
        if self.fate.invalid:
            return self.started_at
        return min(self.started_at + self.fate.run_s, self.expires_at)

    def phase(self, now: float) -> Phase:
        """What it does at ``now``."""
        if now >= self.ended_at:
            return "ended"
        if self.cancelled_at is not None:
            return "cancelling"
        return "waiting" if now < self.started_at else "running"

    @property
    def outcome(self) -> Outcome:
        """How it ends, as things are now."""
        if self.cancelled_at is not None:
            return "cancelled"
        if self.fate.invalid:
            return "failed"
        is_late = self.started_at + self.fate.run_s > self.expires_at
        return "expired" if is_late else "completed"

    def done(self, now: float) -> list[Request]:
        """The requests that were processed until ``now``: those are billed."""
        if self.fate.invalid:
            return []
        until = min(now, self.ended_at, self.cancelled_at or now)
        if until < self.started_at:
            return []
        share = (until - self.started_at) / self.fate.run_s if self.fate.run_s else 1.0
        return self.requests[: int(min(1.0, share) * len(self.requests) + 1e-9)]

    def cancel(self, now: float) -> None:
        """Ask it to stop; an ended job is not changed."""
        if self.phase(now) != "ended" and self.cancelled_at is None:
            self.cancelled_at = now

    def has_results(self, now: float) -> bool:
        """Whether it has ended, and its results are not deleted yet."""
        return self.ended_at <= now < self.ended_at + self.fate.retention_s


@dataclass(slots=True, kw_only=True)
class Fault:
    """
    A failure of the network or of the service, at the next requests that match.

    Attributes:
        method, path: the method, and a regular expression of the path; empty for all.
        when: ``before`` drops the connection before the request is processed, ``after`` drops it
            when it was processed, ``middle`` cuts the answer in the middle of its bytes.
        says: what is answered instead of processing, such as a status 503; ``when`` is then unused.
        times: at how many requests.
    """

    method: str = ""
    path: str = ""
    when: Literal["before", "after", "middle"] = "before"
    says: Says | None = None
    times: int = 1

    def fits(self, asked: Asked) -> bool:
        """Whether it happens at this request."""
        is_method = self.method in ("", asked.method)
        return self.times > 0 and is_method and re.search(self.path, asked.path) is not None


class BatchFake(ABC):
    """
    A service with batch jobs. Call it with a request.

    Attributes:
        clock: its time.
        fate: what becomes of jobs that are created from now on.
        answer: answers one request of a job; a test can replace it by a function of the request.
        faults: the failures to come; each is used up.
        fails: returns a fault for a request, or ``None``; asked if no fault of ``faults`` fits.
        asked: all requests, in the order in which they came in, also those that were dropped.
        jobs: all jobs, by their id, the oldest first.
    """

    def __init__(
        self, *, keys: Mapping[str, str] | None = None, clock: Clock | None = None
    ) -> None:
        """``keys`` are the valid keys, with the account of each."""
        self.keys = keys or {"a-key-of-the-test": "account"}
        self.clock = clock or Clock()
        self.lock = threading.RLock()
        self.answer: Callable[[Request], Answer] = self.usual_answer
        self.fails: Callable[[Asked], Fault | None] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all jobs, requests and faults; the clock goes on."""
        with self.lock:
            self.fate = Fate()
            self.faults: list[Fault] = []
            self.asked: list[Asked] = []
            self.jobs: dict[str, Job] = {}
            self._statuses: dict[str, list[int]] = {}
            self._ids = random.Random(7)

    def __call__(self, asked: Asked) -> Says:
        with self.lock:
            self.asked.append(asked)
            fault = next((each for each in self.faults if each.fits(asked)), None)
            if fault is None and self.fails is not None:
                fault = self.fails(asked)
            if fault is None:
                return self.process(asked)
            fault.times -= 1
            if fault.says is not None:
                return fault.says
            if fault.when == "before":
                return Says(drop=True)
            says = self.process(asked)
            if fault.when == "after":
                return Says(drop=True)
            content = b"".join(says.pieces)
            return replace(says, pieces=[content[: len(content) // 2]], cut=True)

    @abstractmethod
    def process(self, asked: Asked) -> Says:
        """Answer one request as the service does."""

    @abstractmethod
    def usual_answer(self, request: Request) -> Answer:
        """Answer one request of a job: the same whenever it is asked."""

    def change_fate(self, **changes: Any) -> None:
        """Change what becomes of the jobs that are created from now on."""
        self.fate = replace(self.fate, **changes)

    def fail(self, **facts: Any) -> None:
        """Add a `Fault`."""
        self.faults.append(Fault(**facts))

    def new_id(self, prefix: str) -> str:
        """A new identifier, which tells nothing of the order in which they were made."""
        return f"{prefix}{self._ids.getrandbits(96):024x}"

    def add_job(self, job_id: str, account: str, requests: list[Request], **facts: Any) -> Job:
        """Create a job with these requests."""
        job = Job(
            id=job_id,
            account=account,
            created_at=self.clock(),
            requests=requests,
            fate=self.fate,
            facts=facts,
        )
        self.jobs[job.id] = job
        return job

    def listed(self, account: str) -> list[Job]:
        """The jobs in the account's list, the newest first."""
        now = self.clock()
        jobs = [
            job
            for job in self.jobs.values()
            if job.account == account
            and not job.deleted
            and job.created_at + job.fate.listing_delay_s <= now
        ]
        return sorted(jobs, key=lambda job: job.created_at)[::-1]

    def results(self, job: Job) -> list[tuple[Request, Answer | None]]:
        """Each request with its answer, or ``None`` if it was not processed, in another order."""
        done = {request.custom_id for request in job.done(self.clock())}
        results = [
            (each, self.answer(each) if each.custom_id in done else None) for each in job.requests
        ]
        random.Random(job.id).shuffle(results)
        return results

    def statuses(self, job: Job) -> list[int]:
        """The statuses of the answers to the requests that were processed until now."""
        done = len(job.done(self.clock()))
        known = self._statuses.setdefault(job.id, [])
        known += [self.answer(each).status for each in job.requests[len(known) : done]]
        return known[:done]

    def billed(self) -> list[Request]:
        """The requests that cost money until now, of all jobs: those with an answer."""
        with self.lock:
            return [
                request
                for job in self.jobs.values()
                for request, status in zip(job.requests, self.statuses(job), strict=False)
                if status == 200
            ]

    def paths(self, method: str = "") -> list[str]:
        """The paths that were asked for, in their order."""
        return [each.path for each in self.asked if method in ("", each.method)]


@dataclass(frozen=True, slots=True)
class FormPart:
    """A part of a form: its content, and its file name and media type if it is a file."""

    data: bytes
    file_name: str | None = None
    content_type: str | None = None


def read_form(asked: Asked) -> dict[str, FormPart]:
    """The parts of a ``multipart/form-data`` body, by the names of their fields."""
    found = re.fullmatch(
        r'multipart/form-data; *boundary="?([^";]+)"?', asked.headers.get("content-type", "")
    )
    if found is None:
        msg = "not multipart/form-data"
        raise ValueError(msg)
    marker = b"--" + found[1].encode()
    if not asked.body.rstrip(b"\r\n").endswith(marker + b"--"):
        msg = "the form has no end"
        raise ValueError(msg)
    parts: dict[str, FormPart] = {}
    for part in (b"\r\n" + asked.body).split(b"\r\n" + marker):
        head, _, data = part.partition(b"\r\n\r\n")
        name = re.search(rb'; name="([^"]*)"', head)
        if name is None:
            continue
        file_name = re.search(rb'; filename="([^"]*)"', head)
        kind = re.search(rb"(?i)content-type: *([^\r\n]+)", head)
        parts[name[1].decode()] = FormPart(
            data,
            file_name[1].decode() if file_name else None,
            kind[1].decode() if kind else None,
        )
    return parts
