"""
The format of Anthropic's Messages API.

In a request, the roles of user and assistant alternate, no text is blank, tool results come first
in the turn after their calls, and thinking blocks are sent back unchanged at their original
positions.

Sources: https://docs.anthropic.com/en/api/messages and /messages-streaming, and
https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llm_magics._util.text import count_or_none
from llm_magics.attachments import ReasoningBlock
from llm_magics.parameters import ModelParameters
from llm_magics.schemas import close_objects
from llm_magics.types import ChatMessage, StreamChunk, ToolCall, Usage
from llm_magics.wire.anthropic_files import encode_document, encode_image
from llm_magics.wire.decoders import (
    DONE,
    EventChunkDecoder,
    InStreamError,
    ServerEvent,
    count_reasoning_tokens,
    decode_json,
    is_error_body,
)
from llm_magics.wire.schema_dialects import ANTHROPIC, compile_schema, convert_tool_schema
from llm_magics.wire.thinking import BUDGETS, level_of
from llm_magics.wire.tool_calls import CallIds, encode_arguments, serialize_arguments

_THINKING = frozenset({"thinking", "redacted_thinking"})
# Blocks of tools that the service runs itself: they must be sent back until the answer is complete.
_SERVER_TOOL_BLOCK = re.compile(r"(?:server|mcp)_tool_use|[a-z_]+_tool_result")
# Characters that are not allowed in ids.
_INVALID_ID_CHARACTERS = re.compile(r"[^A-Za-z0-9_-]")
# The user turn that is inserted before a conversation that starts with an answer.
_BLANK = {"type": "text", "text": "(blank)"}

# The API requires a limit and has no default; every current model supports this one.
DEFAULT_MAX_TOKENS = 4096

# Stop reasons, with the finish reasons of chat completions.
_FINISH_REASONS = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}

_CACHE_CONTROL = {"cache_control": {"type": "ephemeral"}}


def _is_returned(block: Mapping[str, Any]) -> bool:
    """Return whether ``block`` of an answer must be sent back with it."""
    kind = block.get("type")
    if not isinstance(kind, str) or kind == "tool_result":
        return False
    return kind in _THINKING or bool(_SERVER_TOOL_BLOCK.fullmatch(kind))


def _build_turns(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return the turns of ``messages``, with consecutive messages of one role merged."""
    turns: list[dict[str, Any]] = []
    for message, is_last_round in zip(messages, _mark_last_round(messages), strict=True):
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _encode_blocks(message, is_last_round=is_last_round)
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        if turn["role"] == "user":
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    if turns and turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [dict(_BLANK)]})
    if turns and turns[-1]["role"] == "assistant":
        _strip_trailing_space(turns[-1]["content"][-1])
    return turns


def _mark_last_round(messages: Sequence[ChatMessage]) -> list[bool]:
    """Return for each message whether it follows the last user message."""
    last = max((n for n, each in enumerate(messages) if each.role == "user"), default=-1)
    return [index > last for index in range(len(messages))]


def _lacks_thinking(turns: Sequence[Mapping[str, Any]]) -> bool:
    """
    Return whether the last turn has results of tool calls that no thinking block precedes.

    The service refuses to enable thinking in the middle of such a turn.
    """
    if len(turns) < 2 or turns[-1]["role"] != "user":
        return False
    if not any(block["type"] == "tool_result" for block in turns[-1]["content"]):
        return False
    said = turns[-2]["content"]
    return said[0]["type"] not in _THINKING and any(each["type"] == "tool_use" for each in said)


def _encode_blocks(message: ChatMessage, *, is_last_round: bool) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [_encode_result(message)]
    said = [
        *map(encode_document, message.attachments),
        *map(encode_image, message.images),
        *_encode_content(message, is_last_round),
    ]
    if all(block["type"] in _THINKING for block in said):
        return []  # a turn may not end with thinking
    return said


def _encode_content(message: ChatMessage, is_last_round: bool) -> Iterator[dict[str, Any]]:
    """Yield the text and calls of a message, with returned blocks at their original positions."""
    text_at = calls_at = 0
    for each in map(ReasoningBlock.of, message.reasoning_blocks):
        if not _is_returned(each) or not (each["type"] in _THINKING or is_last_round):
            continue
        text_to, calls_to = each.at
        yield from _encode_text(message.content[text_at:text_to])
        yield from map(_encode_call, message.tool_calls[calls_at:calls_to])
        text_at, calls_at = max(text_at, text_to), max(calls_at, calls_to)
        yield dict(each)
    yield from _encode_text(message.content[text_at:])
    yield from map(_encode_call, message.tool_calls[calls_at:])


def _encode_text(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _encode_call(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": _encode_id(call.id),
        "name": call.name,
        "input": encode_arguments(call),
    }


def _encode_result(message: ChatMessage) -> dict[str, Any]:
    content: Any = message.content
    if message.images:
        content = [*_encode_text(message.content), *map(encode_image, message.images)]
    return {
        "type": "tool_result",
        "tool_use_id": _encode_id(message.tool_call_id),
        "content": content,
    }


def _encode_id(call_id: str) -> str:
    """Return an id with only characters that the service accepts: other services use more."""
    return _INVALID_ID_CHARACTERS.sub("_", call_id)


def _strip_trailing_space(block: dict[str, Any]) -> None:
    """Remove trailing whitespace, which the beginning of an answer to continue must not have."""
    if block["type"] == "text":
        block["text"] = block["text"].rstrip()


def build_messages_request(
    messages: Sequence[ChatMessage],
    model: str,
    parameters: ModelParameters,
    *,
    cache: bool = False,
) -> dict[str, Any]:
    """
    Return the body of ``POST /v1/messages``.

    With ``cache``, the tools, the system message and the conversation are marked to be cached.
    These are three of the four marks that a request may have.
    """
    system = "\n\n".join(
        each.content for each in messages if each.role == "system" and each.content.strip()
    )
    turns = _build_turns([each for each in messages if each.role != "system"])
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": parameters.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": turns,
        "stream": True,
    }
    if system:
        body["system"] = [{"type": "text", "text": system}]
    for name in () if parameters.reasoning else ("temperature", "top_p"):  # refused with thinking
        if (value := getattr(parameters, name)) is not None:
            body[name] = value
    if parameters.stop:
        body["stop_sequences"] = list(parameters.stop)
    body |= _encode_tools(parameters) | _encode_thinking(parameters, body["max_tokens"])
    if parameters.schema is not None:
        compilation = compile_schema(parameters.schema, ANTHROPIC)
        schema = compilation.schema if compilation else close_objects(dict(parameters.schema))
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    if cache:
        _mark_for_cache(body)
    return {**body, **parameters.extra_body}


def _encode_tools(parameters: ModelParameters) -> dict[str, Any]:
    if not parameters.tools:
        return {}
    tools = [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": convert_tool_schema(tool.parameters),
        }
        for tool in parameters.tools
    ]
    choice = parameters.tool_choice
    if choice is None:
        return {"tools": tools}
    kinds = {"auto": "auto", "none": "none", "required": "any"}
    chosen = {"type": kinds[choice]} if choice in kinds else {"type": "tool", "name": choice}
    return {"tools": tools, "tool_choice": chosen}


def _encode_thinking(parameters: ModelParameters, max_tokens: int) -> dict[str, Any]:
    reasoning = parameters.reasoning
    if not reasoning:
        return {} if reasoning is None else {"thinking": {"type": "disabled"}}
    budget = BUDGETS[level_of(reasoning)]
    # Thinking counts as output too, so the limit must leave enough tokens for the answer.
    return {
        "thinking": {"type": "enabled", "budget_tokens": budget},
        "max_tokens": max_tokens if max_tokens > budget else max_tokens + budget,
    }


def use_adaptive_thinking(body: dict[str, Any]) -> None:
    """Replace the budget with an effort level, which newer models require."""
    budget = body.pop("thinking")["budget_tokens"]
    effort = next(name for name in ("low", "medium", "high", "max") if BUDGETS[name] >= budget)
    body["thinking"] = {"type": "adaptive"}
    body["output_config"] = {**body.get("output_config", {}), "effort": effort}


def has_thinking(body: Mapping[str, Any]) -> bool:
    """Return whether a request sends thinking blocks back."""
    return any(
        block["type"] in _THINKING for turn in body["messages"] for block in turn["content"]
    )


def remove_thinking(body: dict[str, Any]) -> None:
    """Remove thinking blocks, and disable thinking if the request continues a turn with calls."""
    for turn in body["messages"]:
        turn["content"] = [block for block in turn["content"] if block["type"] not in _THINKING]
    if _lacks_thinking(body["messages"]):
        body.pop("thinking", None)


def build_count_request(
    messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
) -> dict[str, Any]:
    """Return the body of ``POST /v1/messages/count_tokens``, a subset of the message request."""
    body = build_messages_request(messages, model, parameters)
    counted = ("model", "messages", "system", "tools", "tool_choice", "thinking")
    return {name: body[name] for name in counted if name in body}


def _mark_for_cache(body: dict[str, Any]) -> None:
    last = body["messages"][-1]["content"] if body["messages"] else None
    for blocks in (body.get("tools"), body.get("system"), last):
        if blocks:
            blocks[-1] = {**blocks[-1], **_CACHE_CONTROL}


class ChunkDecoder(EventChunkDecoder):
    """
    Decodes the events of a streamed answer to chunks.

    Usage in ``message_delta`` is cumulative, so the last value counts. The service's
    ``input_tokens`` exclude tokens that are read from or written to the cache; these are added
    here.
    """

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
        if not event.data.strip() or event.data.startswith(DONE):  # from compatible servers
            return None
        body = decode_json(event.data)
        if not isinstance(body, dict) or ("type" not in body and is_error_body(body)):
            raise InStreamError(body)
        return self._chunk(body, elapsed_s)

    def _chunk(self, event: dict[str, Any], elapsed_s: float) -> StreamChunk | None:
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._delta(event, elapsed_s)
        if kind == "error":
            raise InStreamError(event)
        if kind == "message_start":
            self._count(event["message"].get("usage"))
        elif kind == "content_block_start":
            unfinished = self._stop(event, elapsed_s)  # some servers number all blocks 0
            block = self._blocks[event["index"]] = {**event["content_block"], "json": ""}
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
            last = StreamChunk("", "", elapsed_s, self._finish_reason, usage, None, event)
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
            return StreamChunk(delta["text"], "", elapsed_s, None, None, None, event)
        block = self._blocks.setdefault(event["index"], {"json": ""})
        if kind == "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta["thinking"]
            return StreamChunk("", delta["thinking"], elapsed_s, None, None, None, event)
        if kind == "signature_delta":
            block["signature"] = block.get("signature", "") + delta["signature"]
        elif kind == "input_json_delta":
            block["json"] += delta.get("partial_json") or ""
            if delta.get("partial_json") and block.get("type") == "tool_use":
                return StreamChunk("", "", elapsed_s, raw=event, piece="tool_call")
        return None

    def _stop(self, event: dict[str, Any], elapsed_s: float) -> StreamChunk | None:
        block = self._blocks.pop(event["index"], {})
        written = block.pop("json", "")
        if block.get("type") == "tool_use":
            text = written or serialize_arguments(block.get("input"))
            return StreamChunk("", "", elapsed_s, raw=event, tool_calls=(self._call(block, text),))
        if not _is_returned(block):
            return None
        if written:
            block["input"] = decode_json(written.encode())
        returned = ReasoningBlock(block, self._origin, self._at)
        return StreamChunk("", "", elapsed_s, raw=event, reasoning_blocks=(returned,))

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
        returned = (ReasoningBlock(block, self._origin, self._at),) if _is_returned(block) else ()
        text = block.get("text") or "" if kind == "text" else ""
        self._at = (self._at[0] + len(text), self._at[1])
        thinking = block.get("thinking") or ""
        return StreamChunk(text, thinking, elapsed_s, raw=body, reasoning_blocks=returned)

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
    tier = usage.get("service_tier")
    return Usage(total, usage.get("output_tokens"), cached, written or None, thought, tier)
