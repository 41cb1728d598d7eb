"""One call as a row: the columns of ``lm.runs()`` that tell of an answer, and what else was seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llm_magics.benchmarking.measuring.counting import Counter, tokens_of
from llm_magics.benchmarking.measuring.definitions import Latencies, latencies_of
from llm_magics.benchmarking.measuring.stamps import Stamps, stamps_of
from llm_magics.http.timing import RequestTiming
from llm_magics.runtime.response import Response
from llm_magics.runtime.storage.run_log import hidden_tokens
from llm_magics.secrets import redact
from llm_magics.types import StreamChunk

CACHED = "an earlier answer, given again: it has no times"
VIRTUAL = "on a clock of its own: its times stand beside no others, and it has no throughput"
BACKWARDS = "the clock went back while it came: it has no times"


@dataclass(frozen=True)
class Answered:
    """
    What came of one call.

    Attributes:
        model: whom was asked, as it was said.
        response: the answer, or as much of it as came.
        chunks: its pieces.
        error: why it failed, if it did.
        timing: what it took on the network.
        began: when the call began, on the clock of `time.perf_counter`.
        intended: when it was meant to begin.
        done: when it had ended, on that clock; nothing where that was not seen.
    """

    model: str
    response: Response
    chunks: Sequence[StreamChunk]
    error: Exception | None = None
    timing: RequestTiming = field(default_factory=RequestTiming)
    began: float = 0.0
    intended: float = 0.0
    done: float | None = None

    def row(self, zero: float, count: Counter | None = None) -> dict[str, Any]:
        """Its columns; times of the clock count from ``zero``."""
        stamps = stamps_of(self.chunks)
        return {
            **self._answer(stamps, count),
            **self._wire(stamps, zero),
            "times_s": list(stamps.times_s),
            "kinds": stamps.kinds,
        }

    def answer(self, count: Counter | None = None) -> dict[str, Any]:
        """The columns of the answer and its figures, by the formulas of `definitions`."""
        return self._answer(stamps_of(self.chunks), count)

    def _answer(self, stamps: Stamps, count: Counter | None) -> dict[str, Any]:
        response = self.response
        provider, _, name = (response.model or self.model).partition("/")
        tokens = tokens_of(response, stamps, count)
        times = Latencies()
        if not response.cached:
            # What was counted here is what was streamed.
            is_told = tokens.source == "service"
            hidden = hidden_tokens(self.chunks, response.usage) if is_told else 0
            times = latencies_of(stamps, tokens.written, self._load_within_s, hidden)
        return {
            "provider": provider,
            "model": name,
            # Of one that broke off, what had come; it is no answer, and its error says so.
            "text": response.text or None if self.error else response.text,
            **asdict(times),
            "load_s": response.timing.load_s,
            "input_tokens": tokens.read,
            "cached_tokens": response.usage.cached_tokens,
            "output_tokens": tokens.written,
            "reasoning_tokens": response.usage.reasoning_tokens,
            "tokens_from": tokens.source,
            "cost_usd": response.cost_usd,
            "cached": response.cached,
            "retries": response.retries,
            "fallback_from": ", ".join(response.fallback_from) or None,
            "finish_reason": response.finish_reason if self.error is None else "error",
            "error": told(self.error),
            "note": self._note(stamps),
        }

    def _wire(self, stamps: Stamps, zero: float) -> dict[str, Any]:
        """
        When it was meant to begin, was sent and ended; and its bytes.

        Where nothing goes over the network it is sent when its call begins.
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
        """Of the loading, what lies within the times: the engine's own, told with the answer."""
        timings = next((each.timings for each in reversed(self.chunks) if each.timings), None)
        return (timings.load_s if timings else None) or 0.0

    def _note(self, stamps: Stamps) -> str | None:
        if self.response.cached:
            return CACHED
        if self._is_virtual(stamps):
            return VIRTUAL
        return None if stamps.is_forward else BACKWARDS

    def _is_virtual(self, stamps: Stamps) -> bool:
        """Whether it says that it took longer than it did: no real clock does, but by a trifle."""
        if self.done is None or not stamps.times_s:
            return False
        return stamps.times_s[-1] > 1.05 * (self.done - self.began) + 0.005


def told(error: Exception | None) -> str | None:
    """An error as it stands in a row."""
    return None if error is None else redact(f"{type(error).__name__}: {error}")


# The types that columns have also where all their values are missing.
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
