"""
Chunk timestamps, token counts and latencies of one answer, each with its formula.

Let *t* be the time of a chunk since the request was sent (`ChunkTimestamps`): *t_first* and
*t_last* for the first and last chunk with generated content, and *t_end* for the last chunk of the
stream. *n* is the number of streamed tokens, including thinking.

| column | formula | corresponds to |
|---|---|---|
| ``ttft_s`` | t_first, including thinking | guidellm's and aiperf's TTFT |
| ``ttft_answer_s`` | time of the first chunk of the answer itself | guidellm's TTFOT, aiperf's TTFO |
| ``itl_ms`` | (t_last - t_first) / (n - 1) | guidellm's ITL; aiperf's, whose latency ends with the last content |
| ``tpot_ms`` | (t_end - t_first) / (n - 1) | vLLM's TPOT, if its first event has content |
| ``e2e_s`` | t_end | guidellm's request latency |
| ``tokens_per_s`` | (n - 1) / (t_last - t_first) | aiperf's tokens/s/user |
| ``headers_s`` | time to the response headers, including the service's queue if it processes one request at a time | - |
| ``latency_s`` | queue_s + connect_s + e2e_s: from the scheduled start | wrk2's corrected latency |

ITL and TPOT are computed from tokens, not from chunks, because a chunk may contain several tokens.
ITL, TPOT and tokens/s need at least two tokens with different timestamps. Thinking tokens that a
service counts but does not stream are not in *n*, because they were generated before the first
chunk. If only a summary of the thinking is streamed, the thinking is not in *n* either, and the
summary counts only for ``ttft_s``. If the number of unstreamed thinking tokens is unknown, ITL,
TPOT and tokens/s are missing. A tool call begins with the first chunk of its name or arguments. The
stream ends with its last event, even if the server closes the connection later. The clock starts
when the request is passed to the socket: the time to open a new connection is in ``connect_s``, and
the time before that in ``queue_s``. If the engine reports the time to load a model (``load_s``), it
is subtracted from all times.

Sources: vLLM's ``benchmarks/serve.py``, guidellm's ``schemas/request_stats.py``, aiperf's
``metrics/types``; "coordinated omission" by Gil Tene's wrk2. `tool_metrics` computes the metrics as
each of these tools defines them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from llm_magics._util.text import reason_of
from llm_magics.errors import UsageError
from llm_magics.runtime.response import Response
from llm_magics.runtime.storage.run_log import (
    ANSWER,
    COUNT,
    SUMMARY,
    TOOL,
    WRITTEN,
    classify_chunks,
)
from llm_magics.types import StreamChunk

__all__ = ["ANSWER", "COUNT", "SUMMARY", "TOOL", "WRITTEN", "ChunkTimestamps", "chunk_timestamps"]


class ChunkTimestamps(NamedTuple):
    """
    The times at which the chunks of an answer were read from the socket.

    Attributes:
        times_s: the time of each chunk, in seconds since the request was sent.
        kinds: one letter per chunk: ``a`` text of the answer, ``r`` thinking ("reasoning"),
            ``s`` a summary of thinking, ``t`` a tool call or a part of one, ``u`` only token
            counts ("usage"), ``e`` empty, such as a chunk with only the role.
    """

    times_s: tuple[float, ...] = ()
    kinds: str = ""

    @classmethod
    def from_columns(cls, times_s: Any, kinds: Any) -> ChunkTimestamps:
        """Parse values read from a file. A CSV file has lists as JSON and empty text as missing."""
        times = json.loads(times_s) if isinstance(times_s, str) else times_s
        return cls(tuple(times), kinds if isinstance(kinds, str) else "")

    @property
    def is_forward(self) -> bool:
        """Whether the times never decrease and none is before the request."""
        return all(one <= next_one for one, next_one in pairwise((0.0, *self.times_s)))

    def of(self, kinds: Iterable[str]) -> list[float]:
        """Return the times of the chunks of these kinds."""
        selected = frozenset(kinds)
        return [at for at, kind in zip(self.times_s, self.kinds, strict=True) if kind in selected]


def chunk_timestamps(chunks: Iterable[StreamChunk]) -> ChunkTimestamps:
    """Return the timestamps of ``chunks``; chunks without a time are left out."""
    timed = [(chunk, kind) for chunk, kind in _with_kinds(chunks) if chunk.elapsed_s is not None]
    times = tuple(chunk.elapsed_s or 0.0 for chunk, _ in timed)
    return ChunkTimestamps(times, "".join(kind for _, kind in timed))


def _with_kinds(chunks: Iterable[StreamChunk]) -> Iterable[tuple[StreamChunk, str]]:
    chunks = list(chunks)
    return zip(chunks, classify_chunks(chunks), strict=True)


# A function that returns the number of tokens of a text.
TokenCounter = Callable[[str], int]


class TokenCounts(NamedTuple):
    """
    The token counts of one call.

    Attributes:
        read: tokens of the prompt, if known.
        written: tokens of the answer, including thinking.
        source: the source of the counts: ``service``, ``tokenizer``, or ``pieces`` (each
            chunk of the stream is counted as one token).
    """

    read: int | None
    written: int | None
    source: str | None


def count_tokens(
    response: Response, stamps: ChunkTimestamps, count: TokenCounter | None
) -> TokenCounts:
    """Return the service's counts, otherwise the tokenizer's, otherwise the number of chunks."""
    usage = response.usage
    if usage.output_tokens is not None:
        return TokenCounts(usage.input_tokens, usage.output_tokens, "service")
    if count is not None:
        prompt_text = "\n".join(message.content for message in response.messages)
        read = count(prompt_text) if usage.input_tokens is None else usage.input_tokens
        return TokenCounts(read, count(response.reasoning + response.text), "tokenizer")
    if not stamps.times_s:
        return TokenCounts(usage.input_tokens, None, None)
    return TokenCounts(usage.input_tokens, len(stamps.of(WRITTEN)), "pieces")


def resolve_tokenizer(tokenizer: Any) -> TokenCounter | None:
    """
    Return a function that counts tokens with ``tokenizer``.

    Args:
        tokenizer: a function from a text to its tokens or to their number; a Hugging Face
            tokenizer; the path of a ``tokenizer.json``; the name of a model on the hub.

    Raises:
        UsageError: the tokenizer is invalid or cannot be loaded.
    """
    if tokenizer is None:
        return None
    if isinstance(tokenizer, str | Path):
        tokenizer = _load_tokenizer(str(tokenizer))
    encode = getattr(tokenizer, "encode", tokenizer)
    if not callable(encode):
        msg = f"Invalid tokenizer: {tokenizer!r:.60}."
        raise UsageError(msg, hint="Pass a function that returns the tokens of a text.")

    def count(text: str) -> int:
        tokens: Any = encode(text)
        return tokens if isinstance(tokens, int) else len(getattr(tokens, "ids", tokens))

    return count


@cache
def _load_tokenizer(name: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        msg = "tokenizers is not installed."
        raise UsageError(msg, hint="Run: pip install tokenizers") from None
    try:
        is_file = Path(name).is_file()
        return Tokenizer.from_file(name) if is_file else Tokenizer.from_pretrained(name)
    except Exception as error:  # the library also raises plain Exception
        msg = f"Could not load the tokenizer {name}: {reason_of(error)}."
        raise UsageError(
            msg, hint="Pass the path of a tokenizer.json file, or a function."
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """The latencies of one answer by the formulas above; ``None`` if they cannot be measured."""

    ttft_s: float | None = None
    ttft_answer_s: float | None = None
    itl_ms: float | None = None
    tpot_ms: float | None = None
    e2e_s: float | None = None
    tokens_per_s: float | None = None


def compute_latencies(
    stamps: ChunkTimestamps, tokens: int | None, load_s: float = 0.0, unstreamed: int | None = 0
) -> Latencies:
    """
    Compute the latencies of an answer. All are ``None`` if the clock went back.

    Args:
        tokens: the number of output tokens.
        load_s: the model's load time that the engine reports, in seconds; part of all times.
        unstreamed: how many of the tokens were not streamed; ``None`` if that is unknown.
    """
    if not stamps.times_s or not stamps.is_forward:
        return Latencies()
    written = stamps.of(WRITTEN)
    end = stamps.times_s[-1]
    if not written:
        return Latencies(e2e_s=end - load_s)
    streamed = stamps.of(WRITTEN - {SUMMARY}) if unstreamed else written
    first, last = (streamed[0], streamed[-1]) if streamed else (0.0, 0.0)
    answered = stamps.of((ANSWER, TOOL))
    steps = 0 if unstreamed is None else (tokens or 0) - unstreamed - 1
    took = last - first
    return Latencies(
        ttft_s=written[0] - load_s,
        ttft_answer_s=answered[0] - load_s if answered else None,
        itl_ms=took / steps * 1000 if steps > 0 and took > 0 else None,
        tpot_ms=(end - first) / steps * 1000 if steps > 0 and took > 0 else None,
        e2e_s=end - load_s,
        tokens_per_s=steps / took if steps > 0 and took > 0 else None,
    )
