"""
The format of answers of Anthropic's Messages API: chunks, usage, stop reasons and citations.

Sources: https://docs.anthropic.com/en/api/messages and /messages-streaming.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_magics._util.text import count_or_none
from llm_magics.attachments import ReasoningBlock
from llm_magics.types import StreamChunk, ToolCall, Usage
from llm_magics.wire.anthropic_messages import is_returned
from llm_magics.wire.decoders import (
    EventChunkDecoder,
    InStreamError,
    ServerEvent,
    count_reasoning_tokens,
    decode_json,
    decode_typed_event,
)
from llm_magics.wire.tool_calls import CallIds, serialize_arguments
from llm_magics.wire.web_search import parse_block_citations, parse_block_search

# Stop reasons, with the finish reasons of chat completions.
_FINISH_REASONS = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}


class ChunkDecoder(EventChunkDecoder):
    """
    Decodes the events of a streamed answer to chunks.

    Usage in ``message_delta`` is cumulative, so the last value counts. The service's
    ``input_tokens`` exclude tokens that are read from or written to the cache; these are added
    here.
    """

    def __init__(
        self, taken: Iterable[str] = (), origin: str = "", *, at: tuple[int, int] = (0, 0)
    ) -> None:
        """
        Prepare for one answer.

        Args:
            taken: the ids of earlier calls in the conversation.
            origin: the service, with which reasoning blocks are marked.
            at: the characters of text and the tool calls of the answer that is continued.
        """
        super().__init__()
        self._origin = origin
        self._ids = CallIds(taken)
        self._at = at  # characters of text and tool calls so far
        self._usage: dict[str, Any] = {}
        self._start: dict[str, Any] = {}
        self._queries: dict[str, str] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._finish_reason: str | None = None

    def decode_body(self, body: dict[str, Any], elapsed_s: float) -> list[StreamChunk]:
        """Return the chunks of a message that is not streamed but one JSON body."""
        if not isinstance(body.get("content"), list):
            raise InStreamError(body)
        self.finished = True
        chunks = [self._full_block(block, body, elapsed_s) for block in body["content"]]
        self._count(body.get("usage"))
        finish_reason = parse_finish_reason(body.get("stop_reason"))
        last = StreamChunk("", "", elapsed_s, finish_reason, parse_usage(self._usage), None, body)
        return [*chunks, last]

    def _read(self, event: ServerEvent, elapsed_s: float) -> StreamChunk | None:
        body = decode_typed_event(event.data)
        return None if body is None else self._chunk(body, elapsed_s)

    def _chunk(self, event: dict[str, Any], elapsed_s: float) -> StreamChunk | None:
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._delta(event, elapsed_s)
        if kind == "error":
            raise InStreamError(event)
        if kind == "message_start":
            self._start = {name: event["message"].get(name) for name in ("id", "model")}
            self._count(event["message"].get("usage"))
        elif kind == "content_block_start":
            unfinished = self._stop(event, elapsed_s)  # some servers number all blocks 0
            block = {**event["content_block"], "json": "", "pieces": [], "at": self._at}
            self._blocks[event["index"]] = block
            if block.get("type") != "tool_use":
                return unfinished
            begun = unfinished or StreamChunk("", "", elapsed_s, raw=event)
            return begun._replace(piece="tool_call")
        elif kind == "content_block_stop":
            return self._stop(event, elapsed_s)
        elif kind == "message_delta":
            self._count(event.get("usage"))
            self._finish_reason = (
                parse_finish_reason(event["delta"].get("stop_reason")) or self._finish_reason
            )
        elif kind == "message_stop":
            self.finished = True
            usage = parse_usage(self._usage)
            raw = {**event, "message": self._start} if self._start else event
            last = StreamChunk("", "", elapsed_s, self._finish_reason, usage, None, raw)
            return self._with_unfinished(last, elapsed_s)
        return None

    def _with_unfinished(self, last: StreamChunk, elapsed_s: float) -> StreamChunk:
        """Return ``last`` with the calls in blocks that were not closed."""
        left = [self._stop({"index": index}, elapsed_s) for index in list(self._blocks)]
        calls = tuple(call for chunk in left if chunk for call in chunk.tool_calls)
        return last._replace(tool_calls=calls) if calls else last

    def _delta(self, event: dict[str, Any], elapsed_s: float) -> StreamChunk | None:
        delta = event["delta"]
        kind = delta.get("type")
        if kind == "text_delta":
            self._at = (self._at[0] + len(delta["text"]), self._at[1])
            if event.get("index") in self._blocks:
                self._blocks[event["index"]].setdefault("pieces", []).append(delta["text"])
            return StreamChunk(delta["text"], "", elapsed_s, None, None, None, event)
        block = self._blocks.setdefault(event["index"], {"json": ""})
        if kind == "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta["thinking"]
            return StreamChunk("", delta["thinking"], elapsed_s, None, None, None, event)
        if kind == "signature_delta":
            block["signature"] = block.get("signature", "") + delta["signature"]
        elif kind == "citations_delta":
            block.setdefault("cited", []).append(delta["citation"])
        elif kind == "input_json_delta":
            block["json"] += delta.get("partial_json") or ""
            if delta.get("partial_json") and block.get("type") == "tool_use":
                return StreamChunk("", "", elapsed_s, raw=event, piece="tool_call")
        return None

    def _stop(self, event: dict[str, Any], elapsed_s: float) -> StreamChunk | None:
        block = self._blocks.pop(event["index"], {})
        written, at = block.pop("json", ""), block.pop("at", self._at)
        said, cited = "".join(block.pop("pieces", ())), block.pop("cited", [])
        if cited:
            block["citations"] = [*(block.get("citations") or ()), *cited]
        if block.get("type") == "tool_use":
            text = written or serialize_arguments(block.get("input"))
            return StreamChunk("", "", elapsed_s, raw=event, tool_calls=(self._call(block, text),))
        if written and is_returned(block):
            block["input"] = decode_json(written.encode())
        if said and block.get("citations"):
            block["text"] = said
        chunk = self._add_facts(StreamChunk("", "", elapsed_s, raw=event), block, at)
        has_facts = chunk.reasoning_blocks or chunk.citations or chunk.searches
        return chunk if has_facts else None

    def _add_facts(
        self, chunk: StreamChunk, block: Mapping[str, Any], at: tuple[int, int]
    ) -> StreamChunk:
        """Add the citations or the search of ``block``, which began ``at``, and what is returned."""
        if is_returned(block):
            chunk = chunk._replace(reasoning_blocks=(ReasoningBlock(block, self._origin, at),))
        if block.get("citations"):
            found = parse_block_citations(block["citations"], at[0], self._at[0])
            chunk = chunk._replace(citations=tuple(found))
        if searches := parse_block_search(block, self._queries):
            chunk = chunk._replace(searches=tuple(searches))
        return chunk

    def _call(self, block: Mapping[str, Any], text: str) -> ToolCall:
        self._at = (self._at[0], self._at[1] + 1)
        return ToolCall(
            self._ids.make_unique(block.get("id") or ""), block.get("name") or "", text
        )

    def _full_block(
        self, block: Mapping[str, Any], body: dict[str, Any], elapsed_s: float
    ) -> StreamChunk:
        kind = block.get("type")
        if kind == "tool_use":
            call = self._call(block, serialize_arguments(block.get("input")) or "{}")
            return StreamChunk("", "", elapsed_s, raw=body, tool_calls=(call,))
        at, text = self._at, block.get("text") or "" if kind == "text" else ""
        self._at = (at[0] + len(text), at[1])
        chunk = StreamChunk(text, block.get("thinking") or "", elapsed_s, raw=body)
        return self._add_facts(chunk, block, at)

    def _count(self, usage: Mapping[str, Any] | None) -> None:
        counted = (int, Mapping)  # the thinking tokens are in a mapping
        usage = usage or {}
        self._usage |= {name: n for name, n in usage.items() if isinstance(n, counted)}
        if isinstance(tier := usage.get("service_tier"), str):
            self._usage["service_tier"] = tier


def parse_finish_reason(stop_reason: str | None) -> str | None:
    """Return the finish reason in the terms of chat completions; an unknown one is unchanged."""
    return _FINISH_REASONS.get(stop_reason, stop_reason) if stop_reason else None


def parse_usage(usage: Mapping[str, Any]) -> Usage:
    """Return the tokens of a call; the input tokens include cached ones."""
    cached = count_or_none(usage.get("cache_read_input_tokens")) or 0
    written = count_or_none(usage.get("cache_creation_input_tokens")) or 0
    read = count_or_none(usage.get("input_tokens"))
    total = None if read is None else read + cached + written
    thought = count_reasoning_tokens(usage)
    tier, tools = usage.get("service_tier"), usage.get("server_tool_use")
    searches = tools.get("web_search_requests") if isinstance(tools, Mapping) else None
    return Usage(
        total, usage.get("output_tokens"), cached, written or None, thought, tier, searches
    )
