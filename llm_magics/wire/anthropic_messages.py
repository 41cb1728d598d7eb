"""
Anthropic's Messages.

Source: https://docs.anthropic.com/en/api/messages and /messages-streaming.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llm_magics._util.text import count_or_none
from llm_magics.attachments import ReasoningBlock
from llm_magics.parameters import ModelParameters
from llm_magics.schemas import closed
from llm_magics.types import ChatMessage, StreamChunk, ToolCall, Usage
from llm_magics.wire.anthropic_turns import THINKING, is_returned, lacks_thinking, turns_of
from llm_magics.wire.decoders import EventChunkDecoder, InStreamError, decoded, is_error
from llm_magics.wire.openai_chat import reasoning_tokens_of
from llm_magics.wire.schema_dialects import ANTHROPIC, compiled, tool_parameters
from llm_magics.wire.sse import ServerEvent
from llm_magics.wire.tool_calls import CallIds, text_of

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
    system = "\n\n".join(
        each.content for each in messages if each.role == "system" and each.content.strip()
    )
    turns = turns_of([each for each in messages if each.role != "system"])
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


def has_thinking(body: Mapping[str, Any]) -> bool:
    """Return whether a request sends thinking back."""
    return any(block["type"] in THINKING for turn in body["messages"] for block in turn["content"])


def leave_out_thinking(body: dict[str, Any]) -> None:
    """Send no thinking back; in the middle of a turn none can be asked for then."""
    for turn in body["messages"]:
        turn["content"] = [block for block in turn["content"] if block["type"] not in THINKING]
    if lacks_thinking(body["messages"]):
        body.pop("thinking", None)


def count_request(
    messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
) -> dict[str, Any]:
    """The body of ``POST /v1/messages/count_tokens``: the same, without what is for writing."""
    body = messages_request(messages, model, parameters)
    counted = ("model", "messages", "system", "tools", "tool_choice", "thinking")
    return {name: body[name] for name in counted if name in body}


def _mark(body: dict[str, Any]) -> None:
    last = body["messages"][-1]["content"] if body["messages"] else None
    for blocks in (body.get("tools"), body.get("system"), last):
        if blocks:
            blocks[-1] = {**blocks[-1], **_CACHED}


class ChunkDecoder(EventChunkDecoder):
    """
    The events of a streamed answer into chunks.

    Usage in ``message_delta`` is cumulative, so that the last one counts; ``input_tokens``
    leave out what was read from or written to the cache, which is added here.
    """

    def __init__(self, taken: Iterable[str] = (), origin: str = "") -> None:
        """
        Prepare for one answer.

        Args:
            taken: the ids of earlier calls of the conversation.
            origin: the service, by which reasoning blocks are marked.
        """
        super().__init__()
        self._origin = origin
        self._ids = CallIds(taken)
        self._at = (0, 0)  # characters of text and tool calls so far
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._finish_reason: str | None = None

    def whole(self, body: dict[str, Any], elapsed_s: float) -> list[StreamChunk]:
        """The chunks of a message that came as one JSON body."""
        if not isinstance(body.get("content"), list):
            raise InStreamError(body)
        self.finished = True
        chunks = [self._whole_block(block, body, elapsed_s) for block in body["content"]]
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
            unfinished = self._stop(event, elapsed_s)  # some number all blocks 0
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
                finish_of(event["delta"].get("stop_reason")) or self._finish_reason
            )
        elif kind == "message_stop":
            self.finished = True
            usage = usage_of(self._usage)
            last = StreamChunk("", "", elapsed_s, self._finish_reason, usage, None, event)
            return self._with_unfinished(last, elapsed_s)
        return None

    def _with_unfinished(self, last: StreamChunk, elapsed_s: float) -> StreamChunk:
        """``last`` with the calls whose blocks were not closed."""
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
            text = written or text_of(block.get("input"))
            return StreamChunk("", "", elapsed_s, raw=event, tool_calls=(self._call(block, text),))
        if not is_returned(block):
            return None
        if written:
            block["input"] = decoded(written.encode())
        made = ReasoningBlock(block, self._origin, self._at)
        return StreamChunk("", "", elapsed_s, raw=event, reasoning_blocks=(made,))

    def _call(self, block: Mapping[str, Any], text: str) -> ToolCall:
        self._at = (self._at[0], self._at[1] + 1)
        return ToolCall(self._ids.of(block.get("id") or ""), block.get("name") or "", text)

    def _whole_block(
        self, block: Mapping[str, Any], body: dict[str, Any], elapsed_s: float
    ) -> StreamChunk:
        kind = block.get("type")
        if kind == "tool_use":
            call = self._call(block, text_of(block.get("input")) or "{}")
            return StreamChunk("", "", elapsed_s, raw=body, tool_calls=(call,))
        returned = (ReasoningBlock(block, self._origin, self._at),) if is_returned(block) else ()
        text = block.get("text") or "" if kind == "text" else ""
        self._at = (self._at[0] + len(text), self._at[1])
        thinking = block.get("thinking") or ""
        return StreamChunk(text, thinking, elapsed_s, raw=body, reasoning_blocks=returned)

    def _count(self, usage: Mapping[str, Any] | None) -> None:
        counted = (int, Mapping)  # of the thinking there is a mapping of details
        usage = usage or {}
        self._usage |= {name: n for name, n in usage.items() if isinstance(n, counted)}
        if isinstance(tier := usage.get("service_tier"), str):
            self._usage["service_tier"] = tier


def finish_of(stop_reason: str | None) -> str | None:
    """Why it ended, in the words of chat completions; an unknown reason stays as it is."""
    return _FINISHED.get(stop_reason, stop_reason) if stop_reason else None


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """The tokens of a call, those in the cache counted as read."""
    cached = count_or_none(usage.get("cache_read_input_tokens")) or 0
    written = count_or_none(usage.get("cache_creation_input_tokens")) or 0
    read = count_or_none(usage.get("input_tokens"))
    total = None if read is None else read + cached + written
    thought = reasoning_tokens_of(usage)
    tier = usage.get("service_tier")
    return Usage(total, usage.get("output_tokens"), cached, written or None, thought, tier)
