"""
The log of calls, with measurements in the standard terms of model serving.

| name | definition |
|---|---|
| TTFT | from sending the request to reading the first token from the socket, even if it is part of
thinking or a tool call; excludes the load time that the engine reports |
| ITL | the time between two tokens after the first: the engine's own generation time, divided by
the output tokens less one; otherwise the time from the first to the last streamed token, divided by
the streamed tokens less one |
| E2E | from sending the request to reading the last byte |
| load | the time to load a model into memory before the request could be sent, or as the engine
reports it |
| tokens/s | output tokens divided by the engine's own generation time; otherwise the inverse of ITL
|

The service counts the tokens. ITL and tokens/s need at least two of them. Thinking that a service
counts but does not stream, or only streams as a summary, is not part of the streamed tokens; if the
service does not report its size, ITL and tokens/s are unknown. Sources: vLLM's
``benchmark_serving``
(TTFT, ITL), guidellm (ITL over tokens, not chunks).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from llm_magics.types import StreamChunk, Timing, Usage

if TYPE_CHECKING:
    from pandas import DataFrame

# Sufficient for a long day; the log must not grow without a limit.
_MAX_RUNS = 100_000

# The kinds of content of a chunk.
ANSWER, THINKING, SUMMARY, TOOL, EMPTY, COUNT = "a", "r", "s", "t", "e", "u"
# The kinds that a model has generated.
WRITTEN = frozenset({ANSWER, THINKING, SUMMARY, TOOL})

# The number of recent runs from which a model's speed is estimated.
_SPEED_RUNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One call and its measurements: a row of ``lm.runs()``."""

    time: datetime
    provider: str
    model: str
    kind: str
    ttft_s: float | None
    itl_ms: float | None
    e2e_s: float | None
    load_s: float
    input_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None = None
    tokens_per_s: float | None
    cost_usd: float | None
    reasoning_usd: float | None = None
    cached: bool
    retries: int
    fallback_from: str | None
    finish_reason: str | None
    error: str | None
    cell: int | None = None


class Totals(NamedTuple):
    """The totals of several calls; ``cost_usd`` excludes the ``unpriced`` ones, of unknown cost."""

    calls: int
    tokens: int
    cost_usd: float
    unpriced: int


_DISPLAYED_COLUMNS = ("time", "provider", "model", "e2e_s", "output_tokens", "cost_usd", "finish_reason", "error", "kind")  # fmt: skip
_COLUMN_TYPES = {
    "time": "datetime64[us, UTC]",
    "provider": "object",
    "model": "object",
    "kind": "object",
    "ttft_s": "float64",
    "itl_ms": "float64",
    "e2e_s": "float64",
    "load_s": "float64",
    "input_tokens": "Int64",
    "output_tokens": "Int64",
    "reasoning_tokens": "Int64",
    "tokens_per_s": "float64",
    "cost_usd": "float64",
    "reasoning_usd": "float64",
    "cached": "bool",
    "retries": "int64",
    "fallback_from": "object",
    "finish_reason": "object",
    "error": "object",
    "cell": "Int64",
}


# The lists that `collect_runs` fills.
_collections: ContextVar[tuple[list[Run], ...]] = ContextVar("collections", default=())


@contextmanager
def collect_runs() -> Generator[list[Run], None, None]:
    """Return a list that gets every call that the block logs, also on the event loop."""
    runs: list[Run] = []
    token = _collections.set((*_collections.get(), runs))
    try:
        yield runs
    finally:
        _collections.reset(token)


class _ModelRuns:
    """The statistics of one model: the length of its longest answer, and its last times."""

    def __init__(self) -> None:
        self.max_output_tokens = 0
        self.seconds: deque[float] = deque(maxlen=_SPEED_RUNS)
        self.tokens_per_s: deque[float] = deque(maxlen=_SPEED_RUNS)

    def add(self, run: Run) -> None:
        """Add ``run`` to the statistics, which are about single requests."""
        if run.kind == "batch":
            return
        self.max_output_tokens = max(self.max_output_tokens, run.output_tokens or 0)
        if run.cached:
            return
        if run.e2e_s is not None:
            self.seconds.append(run.e2e_s)
        if run.tokens_per_s is not None:
            self.tokens_per_s.append(run.tokens_per_s)


class RunLog:
    """
    The calls of this session, oldest first.

    Statistics that each call needs are stored by model, so that reading them takes constant time.
    """

    def __init__(self) -> None:
        self._runs: deque[Run] = deque(maxlen=_MAX_RUNS)
        self._models: dict[tuple[str, str], _ModelRuns] = {}

    def add(self, run: Run) -> None:
        """Add ``run``."""
        self._runs.append(run)
        for collected in _collections.get():
            collected.append(run)
        self._models.setdefault((run.provider, run.model), _ModelRuns()).add(run)

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: int) -> Run:
        return self._runs[index]

    def clear(self) -> None:
        """Delete all runs."""
        self._runs.clear()
        self._models.clear()

    def totals(self) -> Totals:
        """Return the totals of all calls."""
        runs = self._runs.copy()
        known = [run.cost_usd for run in runs if run.cost_usd is not None]
        return Totals(
            calls=len(runs),
            tokens=sum((run.input_tokens or 0) + (run.output_tokens or 0) for run in runs),
            cost_usd=sum(known),
            unpriced=len(runs) - len(known),
        )

    def speeds(self) -> dict[str, float]:
        """Return the speed of each model in tokens per second, as the median of its last runs."""
        return {
            f"{provider}/{model}": median(list(runs.tokens_per_s))
            for (provider, model), runs in self._models.copy().items()
            if runs.tokens_per_s
        }

    def median_seconds(self, provider: str, model: str) -> float | None:
        """Return the median time of a model's last answers in seconds; ``None`` without answers."""
        runs = self._models.get((provider, model))
        return median(list(runs.seconds)) if runs and runs.seconds else None

    def longest_output(self, provider: str, model: str) -> int:
        """Return the number of tokens in a model's longest answer; 0 without an answer."""
        runs = self._models.get((provider, model))
        return runs.max_output_tokens if runs else 0

    def frame(self) -> DataFrame:
        """Return one row per call; times are in UTC, durations in the unit in the column's name."""
        from llm_magics._util.tables import CompactFrame, display_columns, display_when_empty

        columns = [field.name for field in fields(Run)]
        frame = CompactFrame([astuple(run) for run in self._runs.copy()], columns=columns)
        hint = "No calls yet. Each call of %%llm, %embed or lm.ask adds a row."
        compact = display_columns(frame.astype(_COLUMN_TYPES), *_DISPLAYED_COLUMNS)
        return display_when_empty(compact, hint)


def classify_chunks(chunks: Iterable[StreamChunk]) -> Iterator[str]:
    """
    Yield the kind of content of each chunk, as a letter: ``ANSWER``, ``THINKING`` and so on.

    For a tool call that is streamed in pieces, the pieces count, not the chunk with the whole call.
    """
    comes_in_pieces = False
    for chunk in chunks:
        if chunk.piece == "tool_call":
            comes_in_pieces = True
        if chunk.text:
            yield ANSWER
        elif chunk.reasoning:
            yield SUMMARY if chunk.piece == "summary" else THINKING
        elif chunk.piece == "tool_call" or (chunk.tool_calls and not comes_in_pieces):
            yield TOOL
        elif chunk.usage is None or chunk.finish_reason or (chunk.raw or {}).get("choices"):
            yield EMPTY
        else:  # OpenAI's format sends the usage in an event without choices
            yield COUNT


def unstreamed_tokens(chunks: Iterable[StreamChunk], usage: Usage | None) -> int | None:
    """
    Return the number of output tokens that were counted but not streamed; ``None`` if unknown.

    Thinking may be omitted, encrypted, or streamed as a summary, which has other tokens.
    """
    is_hidden = False
    for chunk in chunks:
        if chunk.reasoning and chunk.piece != "summary":
            return 0
        is_hidden = is_hidden or bool(chunk.reasoning or chunk.reasoning_blocks)
    thought = usage.reasoning_tokens if usage else None
    if thought is not None:
        return min(thought, (usage and usage.output_tokens) or 0)
    return None if is_hidden else 0


def measure(chunks: Sequence[StreamChunk], usage: Usage | None, load_s: float = 0.0) -> Timing:
    """Return the times of the call that returned ``chunks``, after ``load_s`` of loading."""
    if not chunks:
        return Timing(load_s=load_s)
    pieces = list(zip(chunks, classify_chunks(chunks), strict=True))
    spoken = [chunk.elapsed_s or 0.0 for chunk, kind in pieces if kind in WRITTEN]
    timings = next((chunk.timings for chunk in reversed(chunks) if chunk.timings), None)
    engine_load_s = (timings.load_s if timings else None) or 0.0
    output_tokens = (usage.output_tokens if usage else None) or 0
    generation_s = timings.generation_s if timings else None
    itl_s = tokens_per_s = None
    if generation_s and output_tokens > 1:
        itl_s = generation_s / (output_tokens - 1)
        tokens_per_s = output_tokens / generation_s
    elif (unstreamed := unstreamed_tokens(chunks, usage)) is not None:
        counted = WRITTEN - {SUMMARY} if unstreamed else WRITTEN
        streamed = [chunk.elapsed_s or 0.0 for chunk, kind in pieces if kind in counted]
        gaps = output_tokens - unstreamed - 1
        if gaps > 0 and streamed and streamed[-1] > streamed[0]:
            itl_s = (streamed[-1] - streamed[0]) / gaps
            tokens_per_s = 1 / itl_s
    return Timing(
        ttft_s=spoken[0] - engine_load_s if spoken else None,
        itl_ms=itl_s * 1000 if itl_s is not None else None,
        e2e_s=(chunks[-1].elapsed_s or 0.0) - engine_load_s,
        load_s=load_s + engine_load_s,
        tokens_per_s=tokens_per_s,
    )
