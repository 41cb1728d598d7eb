"""
Kill notebooks that run batch jobs, at every step and at random times, and check the bill.

    python -m tests.support.kills --count 1000

Each trial forks a process that submits rows to a fake service and is killed. Then others run the
same rows until one gets to its end. The fake service runs in a process that outlives them, and
counts what it bills. A fifth of the trials lose connections too.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import importlib
import json
import mmap
import os
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

from llm_magics.http import Transport
from llm_magics.parameters import ModelParameters
from llm_magics.providers.batches.offline import LiveRequest, chat_chunks_of, chat_request_of
from llm_magics.providers.batches.service import BatchResult
from llm_magics.providers.remote import RemoteProvider
from llm_magics.runtime.jobs.clock import Clock
from llm_magics.runtime.jobs.run import JobRun
from llm_magics.runtime.jobs.work import Accepted, JobOptions, Kind
from llm_magics.runtime.routing import Route
from llm_magics.runtime.session import Session
from llm_magics.runtime.storage.answer_cache import Cache
from llm_magics.runtime.storage.job_journal import Journal
from llm_magics.types import ChatMessage, ModelResponse
from tests.support.batch_fakes import BatchFake, Fault, Request
from tests.support.batch_process import FakeProcess, serving_apart
from tests.support.batch_services import KNOWN, Known, provider_of
from tests.support.serving import Asked

# How many rows a trial has, and how late a service lists a new job.
ROWS = 5
LISTED_AFTER_S = 45.0
SETTLE_S = 60.0

# After so many runs that were not killed, a trial has failed.
_RUNS = 12

# After this time all jobs have ended.
_ALL_ENDED_S = 200_000.0

# The share of requests that fail in a trial with faults.
_FAULTY = 0.2

# The identifiers in a path.
_ID = re.compile(r"[\w-]*\d[\w-]{7,}")

# The exit statuses of a run: all rows are there, some are not, and an error of the run.
_COMPLETE, _INCOMPLETE, _FAILED = 0, 3, 4


class SharedClock:
    """A time in a file, which several processes read and advance."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(struct.pack("d", 1_795_000_000.0))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)

    def __call__(self) -> float:
        return cast("float", struct.unpack("d", self._memory[:8])[0])

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self._memory[:8] = struct.pack("d", self() + seconds)


class SharedTime(Clock):
    """The same time, for a run: sleeping advances it."""

    def __init__(self, clock: SharedClock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock()

    async def sleep(self, seconds: float) -> None:
        self._clock.advance(seconds)
        await asyncio.sleep(0)


class RowWork:
    """The rows of a trial, each a chat whose answer is stored in a cache in the trial's folder."""

    kind: Kind = "chat"

    def __init__(self, provider: RemoteProvider, model: str, folder: Path) -> None:
        self.route = Route(provider=provider, model=model)
        self._cache = Cache(folder / "answers.sqlite", 1_000_000_000)

    def key(self, number: int) -> bytes:
        return hashlib.sha256(row_text(number).encode()).digest()

    async def request(self, number: int) -> LiveRequest:
        return await chat_request_of(
            cast("RemoteProvider", self.route.provider),
            self._messages(number),
            self.route.model,
            ModelParameters(max_tokens=50),
        )

    async def accept(self, results: Sequence[tuple[int, BatchResult]]) -> list[Accepted]:
        accepted, values = [], []
        for number, result in results:
            if result.body is None:
                accepted.append(Accepted(error=result.error))
                continue
            chunks = await chat_chunks_of(
                cast("RemoteProvider", self.route.provider),
                self._messages(number),
                self.route.model,
                ModelParameters(),
                result.body,
            )
            values.append((self.key(number), ModelResponse.of(chunks).text.encode()))
            accepted.append(Accepted())
        self._cache.put_all(values)
        return accepted

    def answer(self, number: int) -> str | None:
        """Return the stored answer."""
        found = self._cache.get(self.key(number))
        return None if found is None else found.decode()

    @staticmethod
    def _messages(number: int) -> list[ChatMessage]:
        return [ChatMessage("user", row_text(number))]


def row_text(number: int) -> str:
    """Return the text of a row."""
    return f"the text of row {number}"


def work_of(known: Known, url: str, folder: Path) -> RowWork:
    """Return the work of a run, with a provider for the fake at ``url``."""
    return RowWork(provider_of(known, url), known.model, folder)


def create_fake(name: str, clock_path: Path) -> BatchFake:
    """Make the fake of a service in its process, with the clock of the trials."""
    fake = KNOWN[name].create()
    fake.clock = cast("Any", SharedClock(clock_path))
    return fake


class Events:
    """Counts the steps of a run, and kills its process at one of them."""

    def __init__(self, kill_at: int | None) -> None:
        self.names: list[str] = []
        self._kill_at = kill_at

    def happen(self, name: str) -> None:
        """Count a step."""
        if len(self.names) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(name)


@contextmanager
def watching(events: Events) -> Iterator[None]:
    """Let ``events`` happen before and after each write, request and answer."""
    writing, stream, put_all = Journal._writing, Transport.stream, Cache.put_all

    @contextmanager
    def watched_writing(self: Journal) -> Iterator[Any]:
        events.happen("before a write to the journal")
        with writing(self) as connection:
            yield connection
        events.happen("after a write to the journal")

    @asynccontextmanager
    async def watched_stream(
        self: Transport, method: str, path: str, *rest: Any, **named: Any
    ) -> AsyncGenerator[Any, None]:
        step = f"{method} {_ID.sub('ID', path.partition('?')[0])}"
        step = re.sub(r"http://[^/]*", "", step.replace(self.base_url, ""))
        events.happen(f"before {step}")
        async with stream(self, method, path, *rest, **named) as response:
            events.happen(f"at the answer to {step}")
            yield response
        events.happen(f"after {step}")

    def watched_put_all(self: Cache, values: Any) -> Any:
        events.happen("before answers are stored")
        stored = put_all(self, values)
        events.happen("after answers are stored")
        return stored

    cast("Any", Journal)._writing = watched_writing
    cast("Any", Transport).stream = watched_stream
    cast("Any", Cache).put_all = watched_put_all
    try:
        yield
    finally:
        cast("Any", Journal)._writing = writing
        cast("Any", Transport).stream = stream
        cast("Any", Cache).put_all = put_all


@dataclass(slots=True)
class Tally:
    """
    What the trials have shown.

    Attributes:
        kills: the number of processes that were killed.
        lost: rows without an answer at the end.
        wrong: rows with the answer of another row.
        twice: rows that were billed more than once.
        unfinished: trials that did not get to their end.
        by_step: the number of kills at each step.
        problems: what went wrong, in words.
    """

    kills: int = 0
    trials: int = 0
    lost: int = 0
    wrong: int = 0
    twice: int = 0
    unfinished: int = 0
    by_step: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills in {self.trials} trials: {self.lost} answers lost, {self.wrong} on"
            f" the wrong row, {self.twice} rows paid twice, {self.unfinished} trials unfinished"
        )


class Trials:
    """Trials with one service, whose fake runs all the time."""

    def __init__(
        self, known: Known, fake: FakeProcess, clock: SharedClock, draw: random.Random
    ) -> None:
        self._known = known
        self._fake = fake
        self._clock = clock
        self._draw = draw
        self._import()
        self._steps = self._count_steps()
        self._names = sorted(set(self._steps[0]))
        self._next = 0

    def _import(self) -> None:
        """Import what a run needs, which each fork would otherwise do again."""
        with _folder() as folder:
            work_of(self._known, self._fake.url, folder)
        importlib.import_module("anyio._backends._asyncio")

    def _count_steps(self) -> tuple[list[str], float]:
        """Return the steps of a run that is not killed, and the seconds that it takes."""
        with _folder() as folder:
            began = time.perf_counter()
            self._fake.do(_reset)
            status = self._run(folder, None)
            seconds = time.perf_counter() - began
            if status != _COMPLETE:
                raise RuntimeError((folder / "errors").read_text(encoding="utf-8"))
            return (folder / "steps").read_text(encoding="utf-8").splitlines(), seconds

    def trial(self, tally: Tally, *, has_faults: bool, is_timed: bool) -> None:
        """Kill a run, and perhaps the next ones; then run to the end, and check."""
        self._fake.do(_reset)
        if has_faults:
            self._fake.do(_set_faults, self._draw.random())
        with _folder() as folder:
            tally.trials += 1
            status: int | None = None
            for attempt in range(_RUNS):
                is_killed = attempt == 0 or (attempt < 4 and self._draw.random() < 0.3)
                status = self._killed_run(folder, tally, is_timed) if is_killed else None
                if status is None:
                    status = self._run(folder, None)
                if status == _COMPLETE:
                    break
                if attempt == _RUNS // 2:
                    self._fake.do(_heal)
            self._check(folder, tally, is_complete=status == _COMPLETE)

    def _killed_run(self, folder: Path, tally: Tally, is_timed: bool) -> int | None:
        """Run and kill; return the exit status of a run that ended before, otherwise ``None``."""
        steps, seconds = self._steps
        if is_timed:
            status = self._run(folder, None, kill_after_s=self._draw.uniform(0, seconds))
            step = "at a random time"
        else:
            step = self._names[self._next % len(self._names)]
            self._next += 1
            at = self._draw.choice([number for number, each in enumerate(steps) if each == step])
            status = self._run(folder, at)
        if status >= 0:
            return status
        tally.kills += 1
        tally.by_step[step] += 1
        return self._run(folder, None)

    def _run(self, folder: Path, kill_at: int | None, kill_after_s: float | None = None) -> int:
        """Run in a fork; return its exit status, negative if it was killed."""
        child = os.fork()
        if child == 0:
            self._run_here(folder, kill_at)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _run_here(self, folder: Path, kill_at: int | None) -> NoReturn:
        events = Events(kill_at)
        status = _FAILED
        try:
            with watching(events):
                work = work_of(self._known, self._fake.url, folder)
                run = _job_run(work, folder, SharedTime(self._clock))
                asyncio.run(_to_the_end(run))
            (folder / "steps").write_text("\n".join(events.names), encoding="utf-8")
            status = _INCOMPLETE if _missing(work) else _COMPLETE
            if status == _INCOMPLETE:
                _add_error(folder, f"incomplete: {run.errors}")
        except BaseException:  # reported by the parent
            _add_error(folder, traceback.format_exc())
        finally:
            os._exit(status)

    def _check(self, folder: Path, tally: Tally, *, is_complete: bool) -> None:
        work = work_of(self._known, self._fake.url, folder)
        answers = {number: work.answer(number) for number in range(ROWS)}
        lost = sum(answer is None for answer in answers.values())
        wrong = sum(
            answer is not None and row_text(number) not in answer
            for number, answer in answers.items()
        )
        self._clock.advance(_ALL_ENDED_S)  # jobs that are not followed are billed too
        billed = Counter(map(_text_of, self._fake.do(BatchFake.billed)))
        twice = sum(count - 1 for count in billed.values())
        tally.lost += lost
        tally.wrong += wrong
        tally.twice += twice
        tally.unfinished += not is_complete
        if lost or wrong or twice or not is_complete:
            errors = folder / "errors"
            text = errors.read_text(encoding="utf-8") if errors.exists() else ""
            tally.problems.append(
                f"{self._known.name}: {lost} lost, {wrong} wrong, {twice} twice\n{text[-3000:]}"
            )

    @property
    def steps(self) -> list[str]:
        """The steps at which a run is killed."""
        return self._steps[0]


def _text_of(request: Request) -> str:
    found = re.search(r"the text of row \d+", json.dumps(request.body))
    assert found is not None
    return found[0]


def _missing(work: RowWork) -> list[int]:
    return [number for number in range(ROWS) if work.answer(number) is None]


def _job_run(work: RowWork, folder: Path, clock: Clock) -> JobRun:
    session = SimpleNamespace(
        journal=Journal(folder / "jobs.sqlite"), config=SimpleNamespace(batch_settle_s=SETTLE_S)
    )
    options = JobOptions(timeout_s=_ALL_ENDED_S)
    return JobRun(cast("Session", session), work, _missing(work), options=options, clock=clock)


async def _to_the_end(run: JobRun) -> None:
    async for _ in run.events():
        pass


def _add_error(folder: Path, text: str) -> None:
    with (folder / "errors").open("a", encoding="utf-8") as file:
        file.write(text + "\n")


@contextmanager
def _folder() -> Iterator[Path]:
    # In memory where that is possible: a killed process loses nothing that it has written, and
    # each write to the journal waits for the disk.
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# Operations in the process of the fake.


def _reset(fake: BatchFake) -> None:
    fake.reset()
    fake.fails = None
    fake.change_fate(listing_delay_s=LISTED_AFTER_S)


def _set_faults(fake: BatchFake, seed: float) -> None:
    draw = random.Random(seed)

    def fails(asked: Asked) -> Fault | None:
        if draw.random() >= _FAULTY:
            return None
        return Fault(when=draw.choice(["before", "after", "middle"]))

    fake.fails = fails


def _heal(fake: BatchFake) -> None:
    fake.fails = None


def run_trials(
    names: Sequence[str], kills: int, seed: int, report: Callable[[str], None] = print
) -> Tally:
    """Run trials with each service in turn until ``kills`` processes were killed."""
    tally, draw = Tally(), random.Random(seed)
    for done, name in enumerate(names, 1):
        with _folder() as folder:
            path = folder / "clock"
            clock = SharedClock(path)
            create = functools.partial(create_fake, name, path)
            with serving_apart(create, start_method="fork") as fake:
                trials = Trials(KNOWN[name], fake, clock, draw)
                number = 0
                while tally.kills < kills * done / len(names):
                    trials.trial(tally, has_faults=number % 5 == 4, is_timed=number % 3 == 2)
                    number += 1
        report(f"{name} ({len(trials.steps)} steps): {tally}")
    return tally


def main() -> int:
    """Run the trials of the command line; the exit status is 0 if none has failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="number of kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--service", action="append", choices=KNOWN, help="only this service")
    asked = parser.parse_args()
    tally = run_trials(asked.service or list(KNOWN), asked.count, asked.seed)
    for step, count in sorted(tally.by_step.items()):
        print(f"{count:5}  {step}")
    print(*tally.problems[:5], sep="\n")
    print(tally)
    return int(bool(tally.problems))


if __name__ == "__main__":
    sys.exit(main())
