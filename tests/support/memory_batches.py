"""A batch service and a store of answers in memory, for tests of the protocol alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from llm_magics.errors import ConnectionError, LLMError, ProviderError, ResultsGoneError
from llm_magics.providers.batches.offline import LiveRequest
from llm_magics.providers.batches.service import (
    BatchLimits,
    BatchResult,
    BatchService,
    JobState,
    JobStatus,
    Submission,
)
from llm_magics.runtime.jobs.clock import Clock
from llm_magics.runtime.jobs.run import JobRun
from llm_magics.runtime.jobs.work import Accepted, JobOptions, Kind
from llm_magics.runtime.session import Session
from llm_magics.runtime.storage.job_journal import Journal


class DrivenClock(Clock):
    """A time that passes only during a sleep."""

    def __init__(self, start: float = 1_795_000_000.0) -> None:
        self.time = start
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


@dataclass
class Batch:
    """A batch that the service has accepted."""

    id: str
    mark: str
    created: float
    lines: list[dict[str, Any]]
    run_s: float
    outcome: str = "completed"
    error: str = ""
    queue_full: bool = False
    cancelled: bool = False
    deleted: bool = False
    account: str = "mine"


@dataclass
class Ledger:
    """
    What the service has: it outlives the kernels of a test.

    Attributes:
        clock: the time.
        listed_after_s: how late a batch appears in the list.
        run_s: how long a batch takes.
        faults: by the name of a method, what happens at its next calls: ``before`` and ``after``
            lose the connection before or after the call is processed; an error is raised.
        answer: the result of a request: a body, an error, or ``None`` if it is not processed.
    """

    clock: DrivenClock = field(default_factory=DrivenClock)
    listed_after_s: float = 0.0
    run_s: float = 100.0
    batches: list[Batch] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    faults: dict[str, list[str | Exception]] = field(default_factory=dict)
    answer: Callable[[dict[str, Any]], Any] = lambda body: {"text": body["text"].upper()}
    next_fate: dict[str, Any] = field(default_factory=dict)

    def paid(self) -> list[str]:
        """The texts of all requests that were accepted, in all batches."""
        return [line["body"]["text"] for batch in self.batches for line in batch.lines]


class MemoryService(BatchService):
    """The batch API of a `Ledger`."""

    limits = BatchLimits(requests=1000, bytes=1_000_000, jobs=None)

    def __init__(self, ledger: Ledger, account: str = "mine", *, has_marks: bool = True) -> None:
        super().__init__(cast("Any", SimpleNamespace(name="memory", address="memory:")))
        self._ledger = ledger
        self._account = account
        self.can_read_all = False
        self.has_marks = has_marks  # type: ignore[misc]

    @property
    def account(self) -> str:
        return self._account

    def encode(self, custom_id: str, path: str, body: Mapping[str, Any]) -> bytes:
        return json.dumps({"custom_id": custom_id, "body": dict(body)}).encode()

    async def upload(self, submission: Submission) -> str:
        self._begin("upload")
        file_id = f"file-{len(self._ledger.files)}"
        self._ledger.files[file_id] = submission.lines.read_text(encoding="utf-8")
        self._end("upload")
        return file_id

    async def create(self, submission: Submission) -> JobStatus:
        self._begin("create")
        ledger = self._ledger
        text = ledger.files[submission.input_id]
        batch = Batch(
            id=f"batch-{len(ledger.batches)}",
            mark=submission.mark,
            created=ledger.clock.now(),
            lines=[json.loads(line) for line in text.splitlines()],
            run_s=ledger.run_s,
            account=self._account,
            **ledger.next_fate,
        )
        assert len(batch.lines) == submission.count
        ledger.batches.append(batch)
        self._end("create")
        return self._status(batch)

    async def recent(self, since: datetime) -> AsyncGenerator[JobStatus, None]:
        self._begin("recent")
        now = self._ledger.clock.now()
        for batch in self._ledger.batches:
            is_listed = batch.created + self._ledger.listed_after_s <= now and not batch.deleted
            if is_listed and batch.created >= since.timestamp():
                yield self._status(batch)
        self._end("recent")

    async def retrieve(self, job_id: str) -> JobStatus:
        self._begin("retrieve")
        found = [each for each in self._ledger.batches if each.id == job_id and not each.deleted]
        found = [each for each in found if self.can_read_all or each.account == self._account]
        if not found:
            raise ProviderError("no such batch", status=404)
        self._end("retrieve")
        return self._status(found[0])

    async def results(self, status: JobStatus) -> AsyncGenerator[BatchResult, None]:
        self._begin("results")
        batch = next(each for each in self._ledger.batches if each.id == status.id)
        if batch.deleted:
            raise ResultsGoneError("The results are deleted.")
        for line in reversed(batch.lines):
            found = self._ledger.answer(line["body"])
            if found is None:
                yield BatchResult(custom_id=line["custom_id"], is_expired=True)
            elif isinstance(found, ProviderError):
                yield BatchResult(custom_id=line["custom_id"], error=found)
            elif found != "absent":
                yield BatchResult(custom_id=line["custom_id"], body=found)
        self._end("results")

    async def cancel(self, job_id: str) -> None:
        self._begin("cancel")
        for batch in self._ledger.batches:
            batch.cancelled |= batch.id == job_id

    async def discard(self, input_id: str) -> None:
        self._begin("discard")
        self._ledger.files.pop(input_id, None)

    def _status(self, batch: Batch) -> JobStatus:
        now, total = self._ledger.clock.now(), len(batch.lines)
        is_ended = batch.cancelled or batch.error != "" or now >= batch.created + batch.run_s
        share = min(1.0, (now - batch.created) / batch.run_s) if batch.run_s else 1.0
        state: JobState = "ended" if is_ended else "running"
        return JobStatus(
            id=batch.id,
            state=state,
            mark=batch.mark if self.has_marks else None,
            total=total,
            done=int(share * total),
            created=datetime.fromtimestamp(batch.created, UTC),
            expires=datetime.fromtimestamp(batch.created + 86_400, UTC),
            outcome=("cancelled" if batch.cancelled else batch.outcome) if is_ended else "",
            error=batch.error,
            is_queue_full=batch.queue_full,
        )

    def _begin(self, name: str) -> None:
        self._ledger.asked.append(name)
        faults = self._ledger.faults.get(name, [])
        if faults and faults[0] == "":
            faults.pop(0)
        elif faults and faults[0] == "before":
            faults.pop(0)
            raise ConnectionError("The connection was lost.")
        elif faults and isinstance(faults[0], Exception):
            raise cast("Exception", faults.pop(0))

    def _end(self, name: str) -> None:
        faults = self._ledger.faults.get(name, [])
        if faults and faults[0] == "after":
            faults.pop(0)
            raise ConnectionError("The connection was lost.")


class TextWork:
    """Requests for texts, whose answers are stored in a dictionary that outlives the kernels."""

    kind: Kind = "chat"

    def __init__(
        self, texts: Iterable[str], service: BatchService, store: dict[bytes, str]
    ) -> None:
        self.texts = list(texts)
        self.store = store
        provider = SimpleNamespace(name="memory", address="memory:", batch_service=lambda: service)
        self.route: Any = SimpleNamespace(provider=provider, model="upper")
        self.refused: dict[str, LLMError] = {}

    def key(self, number: int) -> bytes:
        return self.texts[number].encode().rjust(32, b"\0")

    async def request(self, number: int) -> LiveRequest:
        if self.texts[number] in self.refused:
            raise self.refused[self.texts[number]]
        return LiveRequest("/texts", {"text": self.texts[number]})

    async def accept(self, results: Sequence[tuple[int, BatchResult]]) -> list[Accepted]:
        accepted = []
        for number, result in results:
            if result.body is not None:
                self.store[self.key(number)] = result.body["text"]
            accepted.append(Accepted(error=result.error, cost_usd=0.01 if result.body else 0.0))
        return accepted

    @property
    def missing(self) -> list[int]:
        """The numbers of the texts without a stored answer."""
        return [n for n in range(len(self.texts)) if self.key(n) not in self.store]


class World:
    """A service, a journal and a store; each `kernel` is a new process in effect."""

    def __init__(self, folder: Path, *, has_marks: bool = True) -> None:
        self.folder = folder
        self.has_marks = has_marks
        self.ledger = Ledger()
        self.store: dict[bytes, str] = {}
        self.settle_s = 60.0

    def journal(self) -> Journal:
        """The journal, opened again."""
        return Journal(self.folder / "jobs.sqlite")

    def service(self, account: str = "mine") -> MemoryService:
        """The service, for an account."""
        return MemoryService(self.ledger, account, has_marks=self.has_marks)

    def run_of(
        self,
        texts: Iterable[str],
        *,
        account: str = "mine",
        service: MemoryService | None = None,
        **options: Any,
    ) -> tuple[JobRun, TextWork]:
        """A run of a new kernel over ``texts``."""
        work = TextWork(texts, service or self.service(account), self.store)
        session = SimpleNamespace(
            journal=self.journal(), config=SimpleNamespace(batch_settle_s=self.settle_s)
        )
        run = JobRun(
            cast("Session", session),
            work,
            work.missing,
            options=JobOptions(**options),
            clock=self.ledger.clock,
        )
        return run, work

    def go(self, texts: Iterable[str], **options: Any) -> JobRun:
        """Run to the end; close the journal."""
        run, _ = self.run_of(texts, **options)

        async def work() -> None:
            async for _ in run.events():
                pass

        try:
            asyncio.run(work())
        finally:
            run._journal.close()
        return run

    def answers(self, texts: Iterable[str]) -> list[str | None]:
        """The stored answers."""
        work = TextWork(texts, self.service(), self.store)
        return [self.store.get(work.key(number)) for number in range(len(work.texts))]
