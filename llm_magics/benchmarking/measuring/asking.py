"""Calls that are measured: each ends as a row, however it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from llm_magics.benchmarking.measuring.counting import Counter
from llm_magics.benchmarking.measuring.rows import Answered
from llm_magics.completeness import is_cut
from llm_magics.errors import BudgetError, EmptyAnswerError, LLMError
from llm_magics.http.timing import REQUEST_TIMING, RequestTiming
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.incomplete import cut_warning
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.response import INTERRUPTED, Response
from llm_magics.runtime.session import session
from llm_magics.user_code import warn


@dataclass(frozen=True)
class Job:
    """
    A prompt to be asked.

    Attributes:
        place: where its row stands among all of them.
        prompt: what is asked.
        columns: what stands in its row before all others; the prompt, as the user gave it.
        call: the call, where it had to be made beforehand.
    """

    place: tuple[int, ...]
    prompt: Prompt
    columns: dict[str, Any]
    call: ChatCall | None = None

    @property
    def model(self) -> str:
        """Whom to ask, as it was said."""
        return self.prompt.model or str(session.config.model)


class Record:
    """The rows of what was asked so far, in the order in which they were meant."""

    def __init__(self, count: Counter | None = None) -> None:
        """Count tokens by ``count`` where a service does not."""
        self.zero = time.perf_counter()
        self._count = count
        self._rows: dict[tuple[int, ...], dict[str, Any]] = {}
        self.failed = 0  # how many have an error
        self._cut = 0  # how many were cut at no limit of the user's

    def warn_of_cut(self) -> None:
        """Warn once of answers that were cut though the user set no limit."""
        if self._cut:
            warn(cut_warning("", self._cut, len(self)))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All of them."""
        return [self._rows[place] for place in sorted(self._rows)]

    @property
    def answered(self) -> list[dict[str, Any]]:
        """Those that were not cut short before a word had come."""
        return [row for row in self.rows if row["text"] or row["finish_reason"] != INTERRUPTED]

    def so_far(self) -> str:
        """How much of it has come, in words."""
        whole = sum(row["finish_reason"] != INTERRUPTED for row in self.answered)
        part = len(self.answered) - whole
        told = f"{whole:,} answer{'s' * (whole != 1)} had come"
        return f"{told} whole, and {part:,} in part" if part else told

    def __len__(self) -> int:
        return len(self._rows)

    def note(self, jobs: Iterable[Job], client_cpu: float | None) -> None:
        """Put how busy this process was into the rows of ``jobs`` that went over the network."""
        for job in jobs:
            row = self._rows.get(job.place)
            if row is not None:
                row["client_cpu"] = client_cpu if row["headers_s"] is not None else None

    async def ask(self, job: Job, intended: float | None = None) -> None:
        """Ask, and keep the row; ``intended`` is when it should have begun, else now."""
        timing, began = RequestTiming(), time.perf_counter()
        REQUEST_TIMING.set(timing)
        error: LLMError | None = None
        call: ChatCall | None = None
        is_stopped = False
        try:
            call = job.call or ChatCall(session, job.prompt)
            call.warns_of_cut = False  # one warning for all of them
            async with aclosing(call.events()) as events:
                async for _ in events:
                    pass
        except BudgetError as failure:  # of this one and of all that come
            error = failure
            raise
        except EmptyAnswerError as failure:
            # A model that thinks up to its limit is measured like one that writes up to it.
            response = call.response() if call else None
            is_measured = response and response.reasoning and is_cut(response.finish_reason)
            error = None if is_measured else failure
        except LLMError as failure:
            error = failure
        except asyncio.CancelledError:
            is_stopped = True
            raise
        finally:
            REQUEST_TIMING.set(None)
            response = call.response() if call else Response("", job.model)
            answered = Answered(
                job.model,
                replace(response, finish_reason=INTERRUPTED) if is_stopped else response,
                tuple(call.chunks) if call else (),
                error,
                timing,
                began,
                began if intended is None else intended,
                time.perf_counter(),
            )
            self.failed += error is not None
            self._cut += error is None and call is not None and call.is_cut_unasked
            self._rows[job.place] = {**job.columns, **answered.row(self.zero, self._count)}


async def merged(
    walks: Iterable[AsyncGenerator[None, None]],
) -> AsyncGenerator[None, None]:
    """Several walks at the same time; yields whenever one of them does."""
    news: asyncio.Queue[bool] = asyncio.Queue()

    async def walk(each: AsyncGenerator[None, None]) -> None:
        try:
            async with aclosing(each):
                async for _ in each:
                    news.put_nowait(False)
        finally:
            news.put_nowait(True)

    tasks = [asyncio.create_task(walk(each)) for each in walks]
    left = len(tasks)
    try:
        while left:
            if await news.get():
                left -= 1
            else:
                yield
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
