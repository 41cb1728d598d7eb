"""
Chunk timestamps, token counts and latencies of one answer, each with its formula.

With *t* the times of the pieces since the request was sent (`Stamps`), *t_first* and *t_last*
those of the first and the last piece in which the model wrote something, *t_end* that of the very
last piece, and *n* the tokens streamed, thinking included:

| column | formula | the same as |
|---|---|---|
| ``ttft_s`` | t_first, thinking counts | guidellm's and aiperf's TTFT |
| ``ttft_answer_s`` | the first piece of the answer itself | guidellm's TTFOT, aiperf's TTFO |
| ``itl_ms`` | (t_last - t_first) / (n - 1) | guidellm's ITL; aiperf's, whose latency ends with the last content |
| ``tpot_ms`` | (t_end - t_first) / (n - 1) | vLLM's TPOT, where its first event has words |
| ``e2e_s`` | t_end | guidellm's request latency |
| ``tokens_per_s`` | (n - 1) / (t_last - t_first) | aiperf's tokens/s/user |
| ``headers_s`` | to the head of the answer: where a service answers one at a time, this includes the time in its queue | - |
| ``latency_s`` | queue_s + connect_s + e2e_s: from the moment at which it was meant to begin | wrk2's corrected latency |

ITL and TPOT go by tokens and not by pieces, of which one may hold several tokens. They, and
tokens/s, need two tokens that did not come at once. Thinking that a service counts but does not
stream is not in *n*: it was written before the first piece. Neither is thinking of which only a
summary is streamed; the summary counts for ``ttft_s`` and for nothing else. Where it is not said
how many tokens of thinking there were, these three are missing. A tool call begins with the first
piece of its name or arguments. The stream ends with its last event; what a
server still holds the connection open for is not in it. The clock starts when the request is handed to the socket: what a new
connection took stands in ``connect_s``, waiting before that in ``queue_s``. Loading a model
(``load_s``), where an engine tells of it, is taken out of all of them.

Sources: vLLM's ``benchmarks/serve.py``, guidellm's ``schemas/request_stats.py``, aiperf's
``metrics/types``; "coordinated omission" by Gil Tene's wrk2. `tool_metrics` gives the figures as each
of those tools would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

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
    The times of an answer's pieces, as they were read off the socket.

    Attributes:
        times_s: of each piece, in seconds since the request was sent.
        kinds: a letter for each: ``a`` words of the answer, ``r`` of the thinking
            ("reasoning"), ``s`` of a summary of thinking, ``t`` a tool call or a piece of one,
            ``u`` nothing but a count of tokens ("usage"), ``e`` empty, such as the one that
            only names the role.
    """

    times_s: tuple[float, ...] = ()
    kinds: str = ""

    @classmethod
    def from_columns(cls, times_s: Any, kinds: Any) -> ChunkTimestamps:
        """As they come out of a file: of CSV a list is a text, and an empty text is missing."""
        times = json.loads(times_s) if isinstance(times_s, str) else times_s
        return cls(tuple(times), kinds if isinstance(kinds, str) else "")

    @property
    def is_forward(self) -> bool:
        """Whether no piece is earlier than the one before it, nor than the request."""
        return all(one <= next_one for one, next_one in pairwise((0.0, *self.times_s)))

    def of(self, kinds: Iterable[str]) -> list[float]:
        """The times of the pieces of these kinds."""
        selected = frozenset(kinds)
        return [at for at, kind in zip(self.times_s, self.kinds, strict=True) if kind in selected]


def chunk_timestamps(chunks: Iterable[StreamChunk]) -> ChunkTimestamps:
    """The stamps of ``chunks``, all of which have one."""
    timed = [(chunk, kind) for chunk, kind in _with_kinds(chunks) if chunk.elapsed_s is not None]
    times = tuple(chunk.elapsed_s or 0.0 for chunk, _ in timed)
    return ChunkTimestamps(times, "".join(kind for _, kind in timed))


def _with_kinds(chunks: Iterable[StreamChunk]) -> Iterable[tuple[StreamChunk, str]]:
    chunks = list(chunks)
    return zip(chunks, classify_chunks(chunks), strict=True)


# How many tokens a text has.
TokenCounter = Callable[[str], int]


class TokenCounts(NamedTuple):
    """
    Of one call.

    Attributes:
        read: of the prompt, where that is known.
        written: of the answer, its thinking included.
        source: who counted: the ``service``, a ``tokenizer``, or ``pieces`` of the stream,
            each taken for one token.
    """

    read: int | None
    written: int | None
    source: str | None


def count_tokens(
    response: Response, stamps: ChunkTimestamps, count: TokenCounter | None
) -> TokenCounts:
    """The service's count; else the tokenizer's; else that of the pieces."""
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
    How ``tokenizer`` counts.

    Args:
        tokenizer: a function from a text to its tokens or to their number; a tokenizer of
            Hugging Face's; a ``tokenizer.json``; the name of a model on the hub.

    Raises:
        UsageError: it is none of these, or cannot be had.
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
        raise UsageError(msg, hint="pip install tokenizers") from None
    try:
        is_file = Path(name).is_file()
        return Tokenizer.from_file(name) if is_file else Tokenizer.from_pretrained(name)
    except Exception as error:  # whatever the library raises, a bare Exception among it
        msg = f"Could not load the tokenizer {name}: {error}"
        raise UsageError(
            msg, hint="Pass the path of a tokenizer.json file, or a function."
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Of one answer, by the formulas above; ``None`` where there is nothing to measure."""

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
    What ``stamps`` and so many output ``tokens`` make; of a clock that went back, nothing.

    Args:
        load_s: seconds of loading that the engine tells of, within the first of the times.
        unstreamed: how many of the tokens were not streamed; ``None`` if some, and nobody knows.
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
