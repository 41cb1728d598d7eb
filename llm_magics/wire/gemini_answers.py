"""
The format of answers of Google's Gemini API: chunks, usage, finish reasons and vectors.

The event with a finish reason ends a stream; no other marker follows it.

Sources (November 2026): https://ai.google.dev/api/generate-content, /embeddings, and
google-genai 3.6.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from llm_magics._util.text import count_or_none
from llm_magics.attachments import ReasoningBlock
from llm_magics.types import Embeddings, StreamChunk, ToolCall, Usage
from llm_magics.wire.decoders import (
    DONE,
    EventChunkDecoder,
    InStreamError,
    ServerEvent,
    decode_json,
    is_error_body,
)
from llm_magics.wire.gemini import SIGNATURE, is_returned
from llm_magics.wire.logprobs import parse_gemini
from llm_magics.wire.tool_calls import CallIds, serialize_arguments
from llm_magics.wire.web_search import parse_grounding

# Finish reasons with the words of chat completions; others are unchanged.
_FINISH_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",  # the limit of one request; the rest needs another request
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "ESCALATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
}

_NO_REASON = "FINISH_REASON_UNSPECIFIED"


class ChunkDecoder(EventChunkDecoder):
    """Decodes the events of a streamed answer to chunks; usage is cumulative."""

    def __init__(self, taken: Iterable[str] = (), origin: str = "") -> None:
        """
        Prepare for one answer.

        Args:
            taken: the ids of earlier calls in the conversation.
            origin: the service, with which reasoning blocks are marked.
        """
        super().__init__()
        self._origin = origin
        self._ids = CallIds(taken)
        self._at = (0, 0)  # characters of text and tool calls so far
        self._usage: dict[str, Any] = {}
        self._parts: list[str] = []  # the texts of the parts of the answer
        self._grounding: Mapping[str, Any] = {}

    def decode_body(self, body: dict[str, Any], elapsed_s: float) -> list[StreamChunk]:
        """Return the chunks of an answer that is not streamed but one JSON body."""
        if not (body.get("candidates") or body.get("promptFeedback")):
            raise InStreamError(body)
        self.finished = True
        return [self._chunk(body, elapsed_s)]

    def _read(self, event: ServerEvent, elapsed_s: float) -> StreamChunk | None:
        if not event.data.strip() or event.data.startswith(DONE):  # from compatible servers
            return None
        body = decode_json(event.data)
        if not isinstance(body, dict) or body.get("error"):
            raise InStreamError(body)
        if not body.get("candidates") and is_error_body(body):
            raise InStreamError(body)
        return self._chunk(body, elapsed_s)

    def _chunk(self, body: dict[str, Any], elapsed_s: float) -> StreamChunk:
        usage = body.get("usageMetadata")
        if usage:
            self._usage |= usage
        candidates = body.get("candidates") or ()
        candidate = candidates[0] if candidates else {}
        reason = candidate.get("finishReason")
        if not candidates and (body.get("promptFeedback") or {}).get("blockReason"):
            reason = "PROHIBITED_CONTENT"  # the service refused the prompt
        chunk = StreamChunk("", "", elapsed_s, raw=body)
        for part in (candidate.get("content") or {}).get("parts") or ():
            chunk = self._add_part(chunk, part)
        if found := candidate.get("logprobsResult"):
            chunk = chunk._replace(logprobs=parse_gemini(found))
        if usage:
            chunk = chunk._replace(usage=parse_usage(self._usage))
        if isinstance(grounding := candidate.get("groundingMetadata"), Mapping):
            self._grounding = {**self._grounding, **grounding}
        if reason and reason != _NO_REASON:
            self.finished = True
            has_calls = self._at[1] > 0
            reason = parse_finish_reason(reason, has_calls=has_calls)
            chunk = self._add_sources(chunk._replace(finish_reason=reason))
        return chunk

    def _add_sources(self, chunk: StreamChunk) -> StreamChunk:
        """Return the last chunk with the citations and searches of the answer."""
        if not self._grounding:
            return chunk
        citations, searches = parse_grounding(self._grounding, self._parts)
        usage = replace(parse_usage(self._usage), searches=len(searches))
        return chunk._replace(citations=tuple(citations), searches=tuple(searches), usage=usage)

    def _add_part(self, chunk: StreamChunk, part: Mapping[str, Any]) -> StreamChunk:
        """Return ``chunk`` with the contents of one more part of the answer."""
        at = self._at
        text = part.get("text") or ""
        if part.get("thought"):  # the service streams summaries of what it counts
            chunk = chunk._replace(reasoning=chunk.reasoning + text, piece="summary")
        elif "functionCall" in part:
            call = self._call(part["functionCall"])
            chunk = chunk._replace(tool_calls=(*chunk.tool_calls, call))
        elif text:
            self._at = (at[0] + len(text), at[1])
            self._parts.append(text)
            chunk = chunk._replace(text=chunk.text + text)
        if not is_returned(part):
            return chunk
        returned = dict(part)
        if "functionCall" in part:  # the call itself is in the answer
            returned = {"functionCall": {}, SIGNATURE: part[SIGNATURE]}
        block = ReasoningBlock(returned, self._origin, at)
        return chunk._replace(reasoning_blocks=(*chunk.reasoning_blocks, block))

    def _call(self, call: Mapping[str, Any]) -> ToolCall:
        self._at = (self._at[0], self._at[1] + 1)
        arguments = serialize_arguments(call.get("args")) or "{}"
        return ToolCall(
            self._ids.make_unique(call.get("id") or ""), call.get("name") or "", arguments
        )


def parse_finish_reason(reason: str, *, has_calls: bool = False) -> str:
    """Return the finish reason in the terms of chat completions; an unknown one is unchanged."""
    if reason == "STOP" and has_calls:
        return "tool_calls"
    return _FINISH_REASONS.get(reason, reason)


def parse_usage(usage: Mapping[str, Any]) -> Usage:
    """
    Return the tokens of a call; results of the service's own tools count as input.

    The service leaves out counts that are 0, but always sends the total.
    """
    counted = {name: count_or_none(value) for name, value in usage.items()}
    total = counted.get("totalTokenCount")
    missing = None if total is None else 0
    prompt = counted.get("promptTokenCount")
    read = None if prompt is None else prompt + (counted.get("toolUsePromptTokenCount") or 0)
    written = counted.get("candidatesTokenCount", missing)
    thought = counted.get("thoughtsTokenCount")
    if thought is None and total is not None and total == (read or 0) + (written or 0):
        thought = 0  # the total leaves nothing for thinking
    return Usage(
        read,
        None if written is None else written + (thought or 0),
        counted.get("cachedContentTokenCount", missing),
        None,
        thought,
        _tier(usage.get("serviceTier")),
    )


def _tier(tier: Any) -> str | None:
    return tier.lower() if isinstance(tier, str) else None


def parse_embeddings(body: Mapping[str, Any]) -> Embeddings:
    """Return the vectors in the answer to ``:batchEmbedContents``, in the order of the texts."""
    usage = body.get("usageMetadata")
    tokens = usage.get("promptTokenCount") if isinstance(usage, Mapping) else None
    rows = [each.get("values") for each in body["embeddings"]]
    return Embeddings.of_rows(rows, Usage(tokens))
