"""
Anthropic's Messages.

Source: https://docs.anthropic.com/en/api/messages and /messages-streaming.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm_magics.media import Image, ToolCall
from llm_magics.schemas import closed
from llm_magics.types import ChatMessage, ModelParameters, StreamChunk, Usage, whole_number
from llm_magics.wire.decoding import decoded
from llm_magics.wire.errors import InStreamError, is_error
from llm_magics.wire.event_chunks import EventChunkDecoder
from llm_magics.wire.openai_chat import reasoning_tokens_of
from llm_magics.wire.schema_dialects import ANTHROPIC, compiled, tool_parameters
from llm_magics.wire.sse import ServerEvent

# The API wants a bound, and has no default; every current model can write this much.
DEFAULT_MAX_TOKENS = 4096

# Tokens to think with, by the words that other services use.
_BUDGETS = {"low": 1024, "medium": 4096, "high": 16384}

# Why an answer ended, in the words of chat completions, which are those of `finish_reason`.
_FINISHED = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}

_DONE = b"[DONE]"

_CACHED = {"cache_control": {"type": "ephemeral"}}


def messages_request(
    messages: Sequence[ChatMessage],
    model: str,
    parameters: ModelParameters,
    *,
    cache: bool = False,
) -> dict[str, Any]:
    """
    The body of ``POST /v1/messages``.

    With ``cache`` the tools, the system message and the conversation so far are marked to
    be cached: three marks of the four that a request may hold.
    """
    system = "\n\n".join(each.content for each in messages if each.role == "system")
    turns = _turns([each for each in messages if each.role != "system"])
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": parameters.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": turns,
        "stream": True,
    }
    if system:
        body["system"] = [{"type": "text", "text": system}]
    for name in () if parameters.reasoning else ("temperature", "top_p"):  # thinking has its own
        if (value := getattr(parameters, name)) is not None:
            body[name] = value
    if parameters.stop:
        body["stop_sequences"] = list(parameters.stop)
    body |= _tools(parameters) | _thinking(parameters, body["max_tokens"])
    if parameters.schema is not None:
        made = compiled(parameters.schema, ANTHROPIC)
        schema = made.schema if made else closed(dict(parameters.schema))
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    if cache:
        _mark(body)
    return {**body, **parameters.extra_body}


def _turns(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """User and assistant in turn: what follows on one another of one role becomes one turn."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: ChatMessage) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [
            {
                "type": "tool_result",
                "tool_use_id": message.tool_call_id,
                "content": message.content,
            }
        ]
    blocks = [dict(block) for block in message.reasoning_blocks]
    blocks += [_image(image) for image in message.images]
    if message.content:
        blocks.append({"type": "text", "text": message.content})
    blocks += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        for call in message.tool_calls
    ]
    return blocks


def _image(image: Image) -> dict[str, Any]:
    if image.url:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    source = {"type": "base64", "media_type": image.media_type, "data": image.base64}
    return {"type": "image", "source": source}


def _tools(parameters: ModelParameters) -> dict[str, Any]:
    if not parameters.tools:
        return {}
    tools = [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": tool_parameters(tool.parameters),
        }
        for tool in parameters.tools
    ]
    choice = parameters.tool_choice
    if choice is None:
        return {"tools": tools}
    kinds = {"auto": "auto", "none": "none", "required": "any"}
    chosen = {"type": kinds[choice]} if choice in kinds else {"type": "tool", "name": choice}
    return {"tools": tools, "tool_choice": chosen}


def _thinking(parameters: ModelParameters, max_tokens: int) -> dict[str, Any]:
    asked = parameters.reasoning
    if not asked:
        return {} if asked is None else {"thinking": {"type": "disabled"}}
    budget = _BUDGETS.get(str(asked), _BUDGETS["medium"])
    # What it thinks counts as output too, so the bound must leave room for the answer.
    return {
        "thinking": {"type": "enabled", "budget_tokens": budget},
        "max_tokens": max_tokens if max_tokens > budget else max_tokens + budget,
    }


def think_adaptively(body: dict[str, Any]) -> None:
    """Say how hard to think in the words of newer models, which set their own budget."""
    budget = body.pop("thinking")["budget_tokens"]
    effort = next(name for name, tokens in _BUDGETS.items() if tokens >= budget)
    body["thinking"] = {"type": "adaptive"}
    body["output_config"] = {**body.get("output_config", {}), "effort": effort}


def count_request(
    messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
) -> dict[str, Any]:
    """The body of ``POST /v1/messages/count_tokens``: the same, without what is for writing."""
    body = messages_request(messages, model, parameters)
    counted = ("model", "messages", "system", "tools", "tool_choice", "thinking")
    return {name: body[name] for name in counted if name in body}


def _mark(body: dict[str, Any]) -> None:
    for blocks in (body.get("tools"), body.get("system"), body["messages"][-1]["content"]):
        if blocks:
            blocks[-1] |= _CACHED


class ChunkDecoder(EventChunkDecoder):
    """
    The events of a streamed answer into chunks.

    Usage in ``message_delta`` is cumulative, so that the last one counts; ``input_tokens``
    leave out what was read from or written to the cache, which is added here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._finish_reason: str | None = None

    def whole(self, body: dict[str, Any], elapsed_s: float) -> list[StreamChunk]:
        """The chunks of a message that came as one JSON body."""
        if not isinstance(body.get("content"), list):
            raise InStreamError(body)
        self.finished = True
        chunks = [_whole_block(block, body, elapsed_s) for block in body.get("content") or ()]
        self._count(body.get("usage"))
        finish_reason = finish_of(body.get("stop_reason"))
        last = StreamChunk("", "", elapsed_s, finish_reason, usage_of(self._usage), None, body)
        return [*chunks, last]

    def _read(self, event: ServerEvent, elapsed_s: float) -> StreamChunk | None:
        if not event.data.strip() or event.data.startswith(_DONE):  # of look-alikes
            return None
        body = decoded(event.data)
        if not isinstance(body, dict) or ("type" not in body and is_error(body)):
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
            block = self._blocks[event["index"]] = {**event["content_block"], "json": ""}
            if block.get("type") == "tool_use":
                return StreamChunk("", "", elapsed_s, raw=event, piece="tool_call")
        elif kind == "content_block_stop":
            return self._stop(event, elapsed_s)
        elif kind == "message_delta":
            self._count(event.get("usage"))
            self._finish_reason = (
                finish_of(event["delta"].get("stop_reason")) or self._finish_reason
            )
        elif kind == "message_stop":
            self.finished = True
            usage = usage_of(self._usage)
            return StreamChunk("", "", elapsed_s, self._finish_reason, usage, None, event)
        return None

    def _delta(self, event: dict[str, Any], elapsed_s: float) -> StreamChunk | None:
        delta = event["delta"]
        kind = delta.get("type")
        if kind == "text_delta":
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
            call = ToolCall(block["id"], block["name"], written or json.dumps(block.get("input")))
            return StreamChunk("", "", elapsed_s, None, None, None, event, (call,))
        if block.get("type") in ("thinking", "redacted_thinking"):
            return StreamChunk("", "", elapsed_s, raw=event, reasoning_blocks=(block,))
        return None

    def _count(self, usage: Mapping[str, Any] | None) -> None:
        counted = (int, Mapping)  # of the thinking there is a mapping of details
        self._usage |= {name: n for name, n in (usage or {}).items() if isinstance(n, counted)}


def _whole_block(block: Mapping[str, Any], body: dict[str, Any], elapsed_s: float) -> StreamChunk:
    kind = block.get("type")
    if kind == "tool_use":
        call = ToolCall(block["id"], block["name"], json.dumps(block.get("input") or {}))
        return StreamChunk("", "", elapsed_s, raw=body, tool_calls=(call,))
    thoughts = (block,) if kind in ("thinking", "redacted_thinking") else ()
    text = block.get("text") or "" if kind == "text" else ""
    thinking = block.get("thinking") or ""
    return StreamChunk(text, thinking, elapsed_s, raw=body, reasoning_blocks=thoughts)


def finish_of(stop_reason: str | None) -> str | None:
    """Why it ended, in the words of chat completions; an unknown reason stays as it is."""
    return _FINISHED.get(stop_reason, stop_reason) if stop_reason else None


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """The tokens of a call, those in the cache counted as read."""
    cached = whole_number(usage.get("cache_read_input_tokens")) or 0
    written = whole_number(usage.get("cache_creation_input_tokens")) or 0
    read = whole_number(usage.get("input_tokens"))
    total = None if read is None else read + cached + written
    thought = reasoning_tokens_of(usage)
    return Usage(total, usage.get("output_tokens"), cached, written or None, thought)
