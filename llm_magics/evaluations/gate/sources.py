"""Where new answers come from: a model, or recorded answers."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from llm_magics._async.concurrency import run_bounded
from llm_magics._async.sync import Operation, run_sync
from llm_magics.errors import (
    AuthenticationError,
    BudgetError,
    ConfigurationError,
    ContentFilterError,
    ContextLengthError,
    EmptyAnswerError,
    Interrupted,
    LLMError,
    ModelNotFoundError,
)
from llm_magics.evaluations.gate.answers import AnswerFile, ItemAnswers
from llm_magics.evaluations.gate.requests import Request
from llm_magics.host import Progress
from llm_magics.runtime.session import session

# The model or its prompt is the cause: the answer has the score 0.
_REFUSED = (ContentFilterError, EmptyAnswerError, ContextLengthError)
# All later requests would fail as well.
_FATAL = (AuthenticationError, BudgetError, ConfigurationError, ModelNotFoundError)


class Source(Protocol):
    """
    Returns answers to requests.

    Attributes:
        is_live: whether the answers are new, not recorded.
    """

    is_live: bool

    @property
    def stops_early(self) -> bool:
        """Whether later waves are not asked for after a check has failed."""

    def ask(
        self, requests: Sequence[Request], repeats: int, concurrency: int
    ) -> dict[str, ItemAnswers]:
        """Return the answers by item. An item without an answer is missing."""


@dataclass
class Recorded:
    """
    Answers from a file.

    Attributes:
        file: the answers.
        unrecorded: by label, the items whose current request has too few answers.
    """

    file: AnswerFile
    unrecorded: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    is_live: bool = False

    @property
    def stops_early(self) -> bool:
        """Whether later waves are not asked for: recorded answers are free."""
        return False

    def ask(
        self, requests: Sequence[Request], repeats: int, concurrency: int
    ) -> dict[str, ItemAnswers]:
        """Return the recorded answers by item."""
        found: dict[str, ItemAnswers] = {}
        for each in requests:
            known = self.file.answers.get((each.label, each.item))
            if known is None or known.key != each.key or len(known.texts) < repeats:
                self.unrecorded[each.label].append(each.item)
            else:
                found[each.item] = _answers(each, known.texts[:repeats])
        return found


@dataclass(kw_only=True)
class Live:
    """
    Answers of models.

    Attributes:
        record: the file to which all answers are written after each wave, if any.
        recording: the file to which `write_recording` writes the answers of the run, if any.
        known: answers that are not asked for again.
        answered: the answers of the run.
        failures: the requests that failed, by the text of their error.
    """

    record: Path | None = None
    recording: Path | None = None
    known: AnswerFile = field(default_factory=AnswerFile)
    answered: AnswerFile = field(default_factory=AnswerFile)
    failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    is_live: bool = True

    @property
    def stops_early(self) -> bool:
        """Whether no recording is written, which needs the answers to all items."""
        return self.record is None

    def ask(
        self, requests: Sequence[Request], repeats: int, concurrency: int
    ) -> dict[str, ItemAnswers]:
        """
        Send the requests and return the answers by item. Answers that were paid for are recorded.

        Raises:
            BudgetError: a request may exceed the budget; it was not sent.
            LLMError: no request can succeed, for example without a key.
            Interrupted: the user interrupted.
        """
        texts = {each.item: list(self._known_texts(each)[:repeats]) for each in requests}
        missing = [each for each in requests for _ in range(repeats - len(texts[each.item]))]
        run = _AskRun(missing, texts, concurrency=concurrency, failures=self.failures)
        try:
            if missing:
                run_sync(Operation(run, lambda: None, run.stopped))
        finally:
            found = {
                each.item: _answers(each, texts[each.item])
                for each in requests
                if texts[each.item]
            }
            self.known.add(found.values())
            self.answered.add(found.values())
            if self.record is not None:
                self.known.save(self.record)
        return found

    @classmethod
    def recording_to(cls, path: Path) -> Live:
        """
        Return answers that replace the recording ``path`` when all are complete.

        Until then they are in the file ``….partial``, with which a later run continues.

        Raises:
            UsageError: that file exists, and has no answers.
        """
        partial = partial_of(path)
        return cls(record=partial, recording=path, known=AnswerFile.load_if_exists(partial))

    def write_recording(self) -> None:
        """
        Write the recording, if there is one to write, and no request has failed.

        Raises:
            UsageError: it cannot be written.
        """
        if self.recording is None or self.failures or not self.answered.answers:
            return
        self.answered.save(self.recording)
        partial_of(self.recording).unlink(missing_ok=True)

    def _known_texts(self, request: Request) -> tuple[str | None, ...]:
        known = self.known.answers.get((request.label, request.item))
        return known.texts if known is not None and known.key == request.key else ()


def partial_of(path: Path) -> Path:
    """Return the file for the answers so far of a file that is not complete."""
    return path.with_name(f"{path.name}.partial")


class _AskRun:
    """Sends requests, and adds the answers to ``texts``."""

    def __init__(
        self,
        requests: Sequence[Request],
        texts: dict[str, list[str | None]],
        *,
        concurrency: int,
        failures: dict[str, int],
    ) -> None:
        # Templates run in the caller's thread; the calls are built there.
        self._calls = [(each.item, each.call()) for each in requests]
        self._texts, self._failures, self._concurrency = texts, failures, concurrency
        self._done = 0

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Send all requests and yield the progress."""
        began = time.perf_counter()
        walk = run_bounded(self._concurrency, self._ask, range(len(self._calls)))
        async with aclosing(walk) as finished:
            async for _ in finished:
                elapsed_s = time.perf_counter() - began
                yield Progress("asking", self._done, len(self._calls), "answers", elapsed_s)

    async def _ask(self, position: int) -> None:
        item, call = self._calls[position]
        call.warns_of_cut = False
        try:
            async with aclosing(call.events()) as events:
                async for _ in events:
                    pass
            self._texts[item].append(call.response().text)
        except _FATAL:
            raise
        except _REFUSED:
            self._texts[item].append(None)
        except asyncio.CancelledError:
            raise
        except LLMError as error:
            self._failures[str(error)] += 1
        self._done += 1

    def stopped(self) -> Interrupted:
        """Return the error of an interrupted run."""
        return Interrupted(f"Stopped after {self._done:,} of {len(self._calls):,} answers.")


def _answers(request: Request, texts: Sequence[str | None]) -> ItemAnswers:
    return ItemAnswers(
        label=request.label,
        item=request.item,
        digest=request.digest,
        key=request.key,
        texts=tuple(texts),
    )


@contextmanager
def cost_cap(usd: float) -> Generator[Iterator[float], None, None]:
    """
    Refuse requests of the block that may exceed ``usd``, or a lower budget in the settings.

    Yields an iterator whose next value is the amount spent so far.
    """
    config = session.config
    before, left = config.budget, session.budget.left_usd
    spent = session.budget.spent_usd
    config.budget = usd if left is None else min(usd, left)
    session.budget.allow(config.budget)
    inner = session.budget

    def amounts() -> Iterator[float]:
        while True:
            yield inner.spent_usd

    try:
        yield amounts()
    finally:
        used = inner.spent_usd
        config.budget = before
        session.budget.allow(before)
        session.budget.spent_usd = spent + used
