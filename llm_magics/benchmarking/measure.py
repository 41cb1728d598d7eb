"""One measured call as a row, the record of all calls of a run, and its environment."""

from __future__ import annotations

import asyncio
import math
import os
import platform
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

from llm_magics._util.text import pluralize
from llm_magics.benchmarking.latencies import (
    ChunkTimestamps,
    Latencies,
    TokenCounter,
    chunk_timestamps,
    compute_latencies,
    count_tokens,
)
from llm_magics.errors import BudgetError, EmptyAnswerError, LLMError
from llm_magics.host import warn
from llm_magics.http.timing import REQUEST_TIMING, RequestTiming
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.response import INTERRUPTED, Response, cut_warning
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.run_log import unstreamed_tokens
from llm_magics.secrets import redact
from llm_magics.types import StreamChunk
from llm_magics.wire.finish_reasons import is_cut

CACHED_NOTE = "answered from a cache or recording: no times"
VIRTUAL_CLOCK_NOTE = (
    "simulated clock: times are not comparable with other providers, no throughput"
)
CLOCK_WENT_BACK_NOTE = "the clock was set back during the request: no times"


@dataclass(frozen=True, kw_only=True)
class MeasuredCall:
    """
    The result of one call. Times are those of `time.perf_counter`.

    Attributes:
        model: the name of the model as passed by the caller.
        response: the answer, or the part of it that was received.
        chunks: the chunks of the stream.
        error: the error, if the call failed.
        timing: the network timing of the request.
        began: when the call began.
        intended: the scheduled start.
        done: when the call ended; ``None`` if unknown.
    """

    model: str
    response: Response
    chunks: Sequence[StreamChunk]
    error: Exception | None = None
    timing: RequestTiming = field(default_factory=RequestTiming)
    began: float = 0.0
    intended: float = 0.0
    done: float | None = None

    def row(self, zero: float, count: TokenCounter | None = None) -> dict[str, Any]:
        """Return the columns of the call; absolute times are relative to ``zero``."""
        stamps = chunk_timestamps(self.chunks)
        return {
            **self._answer(stamps, count),
            **self._wire(stamps, zero),
            "times_s": list(stamps.times_s),
            "kinds": stamps.kinds,
        }

    def answer(self, count: TokenCounter | None = None) -> dict[str, Any]:
        """Return the columns of the answer and its latencies, as defined in `latencies`."""
        return self._answer(chunk_timestamps(self.chunks), count)

    def _answer(self, stamps: ChunkTimestamps, count: TokenCounter | None) -> dict[str, Any]:
        response = self.response
        provider, _, name = (response.model or self.model).partition("/")
        tokens = count_tokens(response, stamps, count)
        times = Latencies()
        if not response.cached:
            # A local count has only streamed tokens.
            is_reported = tokens.source == "service"
            unstreamed = unstreamed_tokens(self.chunks, response.usage) if is_reported else 0
            times = compute_latencies(stamps, tokens.written, self._load_within_s, unstreamed)
        return {
            "provider": provider,
            "model": name,
            # A failed request keeps the text received so far; its error marks it as incomplete.
            "text": response.text or None if self.error else response.text,
            **asdict(times),
            "load_s": response.timing.load_s,
            "input_tokens": tokens.read,
            "cached_tokens": response.usage.cached_tokens,
            "output_tokens": tokens.written,
            "reasoning_tokens": response.usage.reasoning_tokens,
            "tokens_from": tokens.source,
            "cost_usd": response.cost_usd,
            "reasoning_usd": response.reasoning_usd,
            "cached": response.cached,
            "retries": response.retries,
            "fallback_from": ", ".join(response.fallback_from) or None,
            "finish_reason": response.finish_reason if self.error is None else "error",
            "error": error_text(self.error),
            "note": self._note(stamps),
        }

    def _wire(self, stamps: ChunkTimestamps, zero: float) -> dict[str, Any]:
        """
        Return the columns of the request: its queue, connection and start times, and its bytes.

        A request that does not use the network counts as sent when its call begins.
        """
        timing = self.timing
        nothing = math.nan if self.response.cached else 0.0
        sent = timing.sent_at if timing.sent_at is not None else self.began
        load_before_s = self.response.timing.load_s - self._load_within_s
        queue_s = max(0.0, sent - timing.connect_s - load_before_s - self.intended) + nothing
        is_timed = bool(stamps.times_s) and stamps.is_forward
        e2e_s = stamps.times_s[-1] + nothing if is_timed else math.nan
        return {
            "queue_s": queue_s,
            "connect_s": timing.connect_s + nothing,
            "headers_s": timing.headers_s,
            "latency_s": queue_s + timing.connect_s + e2e_s - self._load_within_s,
            "intended_s": self.intended - zero,
            "sent_s": sent - zero,
            "ended_s": math.nan if self._is_virtual(stamps) else sent - zero + e2e_s,
            "bytes_sent": timing.bytes_sent,
            "bytes_received": timing.bytes_received,
            "pieces": len(stamps.times_s),
        }

    @property
    def _load_within_s(self) -> float:
        """The load time that the engine reports with the answer; it is part of the chunk times."""
        timings = next((each.timings for each in reversed(self.chunks) if each.timings), None)
        return (timings.load_s if timings else None) or 0.0

    def _note(self, stamps: ChunkTimestamps) -> str | None:
        if self.response.cached:
            return CACHED_NOTE
        if self._is_virtual(stamps):
            return VIRTUAL_CLOCK_NOTE
        return None if stamps.is_forward else CLOCK_WENT_BACK_NOTE

    def _is_virtual(self, stamps: ChunkTimestamps) -> bool:
        """
        Whether the timestamps are from a simulated clock.

        They are if the last one is later than the measured duration of the call, with a small
        tolerance.
        """
        if self.done is None or not stamps.times_s:
            return False
        return stamps.times_s[-1] > 1.05 * (self.done - self.began) + 0.005


def error_text(error: Exception | None) -> str | None:
    """Return the text of ``error`` for the column ``error``, without secrets."""
    return None if error is None else redact(f"{type(error).__name__}: {error}")


# The types of columns, so that a column of missing values has the right type too.
COLUMN_TYPES: dict[str, str] = {
    **dict.fromkeys(
        [
            "ttft_s",
            "ttft_answer_s",
            "itl_ms",
            "tpot_ms",
            "e2e_s",
            "tokens_per_s",
            "load_s",
            "cost_usd",
            "reasoning_usd",
            "queue_s",
            "connect_s",
            "headers_s",
            "latency_s",
            "rate",
            "client_cpu",
        ],
        "float64",
    ),
    **dict.fromkeys(
        ["input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "concurrency"],
        "Int64",
    ),
}


PARTIAL_HINT = (
    "The partial results are in the exception: import sys; runs = sys.last_value.partial"
)


@contextmanager
def attach_partial_result(so_far: Callable[[], Any]) -> Generator[None, None, None]:
    """Add the results so far as ``partial`` to a `BudgetError` raised inside the block."""
    try:
        yield
    except BudgetError as error:
        vars(error)["partial"] = so_far()
        error.hint = f"{error.hint or ''} {PARTIAL_HINT}".strip()
        raise


@dataclass(frozen=True, kw_only=True)
class Job:
    """
    One request of a comparison or benchmark.

    Attributes:
        position: the sort key of its row among all rows.
        prompt: the prompt to send.
        columns: the first columns of its row, including the prompt as passed by the user.
        call: the call, if it is already built.
    """

    position: tuple[int, ...]
    prompt: Prompt
    columns: dict[str, Any]
    call: ChatCall | None = None

    @property
    def model(self) -> str:
        """The name of the model as passed by the caller; by default the setting ``model``."""
        return self.prompt.model or str(session.config.model)


class Record:
    """The rows of the calls so far, in the order of their positions."""

    def __init__(self, count: TokenCounter | None = None) -> None:
        """Count tokens with ``count`` if the service does not report them."""
        self.zero = time.perf_counter()
        self._count = count
        self._rows: dict[tuple[int, ...], dict[str, Any]] = {}
        self.failed = 0  # number of calls with an error
        self._cut = 0  # number of answers cut at a limit that the user did not set

    def warn_of_cut(self) -> None:
        """Warn once about answers that were cut although the user set no limit."""
        if self._cut:
            warn(cut_warning("", self._cut, len(self)))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of all calls."""
        return [self._rows[position] for position in sorted(self._rows)]

    @property
    def answered(self) -> list[dict[str, Any]]:
        """The rows of all calls except those interrupted before any text was received."""
        return [row for row in self.rows if row["text"] or row["finish_reason"] != INTERRUPTED]

    def so_far(self) -> str:
        """Return the number of complete and partial answers as text."""
        complete = sum(row["finish_reason"] != INTERRUPTED for row in self.answered)
        part = len(self.answered) - complete
        text = pluralize(complete, "complete answer")
        return f"{text}, {part:,} partial" if part else text

    def __len__(self) -> int:
        return len(self._rows)

    def note(self, jobs: Iterable[Job], client_cpu: float | None) -> None:
        """Add the CPU use of this process to the rows of ``jobs`` that used the network."""
        for job in jobs:
            row = self._rows.get(job.position)
            if row is not None:
                row["client_cpu"] = client_cpu if row["headers_s"] is not None else None

    async def ask(self, job: Job, intended: float | None = None) -> None:
        """Send the request and add its row. ``intended`` is the scheduled start, by default now."""
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
        except BudgetError as failure:  # all later requests would fail as well
            error = failure
            raise
        except EmptyAnswerError as failure:
            # A model that spends its token limit on thinking is measured like any other cut answer.
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
            answered = MeasuredCall(
                model=job.model,
                response=replace(response, finish_reason=INTERRUPTED) if is_stopped else response,
                chunks=tuple(call.chunks) if call else (),
                error=error,
                timing=timing,
                began=began,
                intended=began if intended is None else intended,
                done=time.perf_counter(),
            )
            self.failed += error is not None
            self._cut += error is None and call is not None and call.is_cut_unasked
            self._rows[job.position] = {**job.columns, **answered.row(self.zero, self._count)}


# Libraries that parse answers or run local models.
_REPORTED_LIBRARIES = ("httpx", "pandas", "xllamacpp", "torch", "transformers")


def describe_environment(models: Iterable[str]) -> dict[str, Any]:
    """Return the time, versions, machine and service addresses as JSON values without secrets."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "llm_magics": _version("jupyter-llm-magics"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else [],
        "libraries": {name: found for name in _REPORTED_LIBRARIES if (found := _version(name))},
        "services": {name: _address(name) for name in sorted({*map(_provider, models)}) if name},
    }


def request_settings(system: str | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that all requests share."""
    values = {name: repr(value) for name, value in parameters.items()}
    return {"system": system, "parameters": values}


def _version(name: str) -> str | None:
    try:
        return _installed_version(name)
    except PackageNotFoundError:
        return None


@cache
def _installed_version(name: str) -> str:  # reading the metadata takes milliseconds
    return version(name)


def _provider(model: str) -> str:
    return model.partition("/")[0] if "/" in model else ""


def _address(name: str) -> str:
    """Return the address of a provider without its path, query or credentials."""
    try:
        url = getattr(session.provider(name).config, "base_url", None) or ""
    except LLMError:
        return "unknown"
    parts = urlsplit(str(url))
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}" if parts.hostname else "here"  # fmt: skip
