"""
The format of OpenAI's Responses API: requests with input items, and the events of a response.

Sources: https://platform.openai.com/docs/api-reference/responses and /responses-streaming,
https://platform.openai.com/docs/guides/reasoning and /guides/function-calling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm_magics._util.text import count_or_none
from llm_magics.attachments import ReasoningBlock
from llm_magics.documents import Attachment, Document, reject
from llm_magics.parameters import ModelParameters
from llm_magics.types import ChatMessage, StreamChunk, ToolCall, Usage
from llm_magics.wire.decoders import (
    EventChunkDecoder,
    InStreamError,
    ServerEvent,
    count_reasoning_tokens,
    decode_typed_event,
)
from llm_magics.wire.logprobs import INCLUDE, MAX_LOGPROBS, parse_tokens
from llm_magics.wire.openai_chat import build_schema_format, build_tier
from llm_magics.wire.schema_dialects import OPENAI, Dialect, build_function
from llm_magics.wire.thinking import EFFORT_SUMMARY, add_thinking
from llm_magics.wire.tool_calls import CallIds, serialize_arguments
from llm_magics.wire.web_search import (
    RESPONSES_TOOL,
    count_response_searches,
    parse_response_items,
)

# Requested with the answer, so that reasoning can be sent back without being stored at the service.
ENCRYPTED_REASONING = "reasoning.encrypted_content"

_TEXT = frozenset({"response.output_text.delta", "response.refusal.delta"})
_SUMMARY = "response.reasoning_summary_text.delta"
_THINKING = frozenset({"response.reasoning_text.delta", _SUMMARY})
_CALL_PIECES = frozenset({"response.function_call_arguments.delta", "response.output_item.added"})
_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})


def build_input_items(message: ChatMessage, *, is_stored: bool = False) -> list[dict[str, Any]]:
    """
    Return the input items of a message.

    If the service does not store responses, it cannot use a reasoning item without encrypted
    content; such an item is dropped.
    """
    if message.role == "tool":
        return [_encode_result(message)]
    blocks = [block for block in message.reasoning_blocks if isinstance(block.get("type"), str)]
    reasoning = [block for block in blocks if block["type"] == "reasoning"]
    returned = [block for block in reasoning if is_stored or block.get("encrypted_content")]
    if returned and len(blocks) > len(reasoning):  # the items after the reasoning are stored too
        is_whole = len(returned) == len(reasoning) and _is_all_of(blocks, message)
        return [dict(block) for block in blocks] if is_whole else _encode_message(message)
    return [*map(dict, returned), *_encode_message(message)]


def _is_all_of(blocks: Sequence[Mapping[str, Any]], message: ChatMessage) -> bool:
    """Return whether ``blocks`` match the message's text and calls, and can be sent unchanged."""
    text, calls = "", []
    for block in blocks:
        if block["type"] == "message":
            parts = block.get("content") or ()
            text += "".join(part.get("text") or part.get("refusal") or "" for part in parts)
        elif block["type"] == "function_call":
            calls.append(block.get("call_id"))
    return text == message.content and calls == [call.id for call in message.tool_calls]


def _encode_message(message: ChatMessage) -> list[dict[str, Any]]:
    """Encode a message and its calls, without the service's ids of the items."""
    items: list[dict[str, Any]] = []
    kind = "output_text" if message.role == "assistant" else "input_text"
    content: list[dict[str, Any]] = []
    if message.content:
        content.append({"type": kind, "text": message.content})
    content += map(_encode_attachment, message.attachments)
    content += _encode_images(message)
    if content:  # llama.cpp requires the type
        items.append({"type": "message", "role": message.role, "content": content})
    return items + [
        {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments_text or "{}",
        }
        for call in message.tool_calls
    ]


def _encode_result(message: ChatMessage) -> dict[str, Any]:
    output: Any = message.content
    if message.images:
        text = [{"type": "input_text", "text": output}] if output else []
        output = [*text, *_encode_images(message)]
    return {"type": "function_call_output", "call_id": message.tool_call_id, "output": output}


def _encode_attachment(attachment: Attachment) -> dict[str, Any]:
    if not isinstance(attachment, Document):
        raise reject(attachment, "The Responses API")
    if attachment.url:
        return {"type": "input_file", "file_url": attachment.url}
    name, data = attachment.file_name, attachment.as_url
    return {"type": "input_file", "filename": name, "file_data": data}


def _encode_images(message: ChatMessage) -> list[dict[str, Any]]:
    return [{"type": "input_image", "image_url": image.as_url} for image in message.images]


def build_responses_request(
    messages: Sequence[ChatMessage],
    model: str,
    parameters: ModelParameters,
    dialect: Dialect = OPENAI,
    *,
    reasons: bool = True,
) -> dict[str, Any]:
    """
    Return the body of ``POST /responses``. The service does not store anything.

    Encrypted reasoning is requested, to be sent back with the answer, unless ``reasons`` is false
    because the model is known not to reason.
    """
    is_stored = bool(parameters.extra_body.get("store"))
    system = "\n\n".join(each.content for each in messages if each.role == "system")
    body: dict[str, Any] = {
        "model": model,
        "input": [
            item
            for each in messages
            if each.role != "system"
            for item in build_input_items(each, is_stored=is_stored)
        ],
        "stream": True,
        "store": False,
    }
    included = [ENCRYPTED_REASONING] if reasons else []
    if parameters.logprobs is not None:
        included.append(INCLUDE)
        body["top_logprobs"] = min(parameters.logprobs, MAX_LOGPROBS)
    if included:
        body["include"] = included
    options = {
        "instructions": system or None,
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        "max_output_tokens": parameters.max_tokens,
    }
    body |= {name: value for name, value in options.items() if value is not None}
    tools = [{"type": "function", **build_function(tool)} for tool in parameters.tools]
    if parameters.search:
        tools.append(dict(RESPONSES_TOOL))
    if tools:
        body["tools"] = tools
    if parameters.tool_choice:
        body["tool_choice"] = _encode_choice(parameters.tool_choice)
    if parameters.schema is not None:
        format_ = build_schema_format(parameters.schema, dialect)
        body["text"] = {"format": {"type": "json_schema", **format_}}
    body |= build_tier(parameters)
    return add_thinking({**body, **parameters.extra_body}, EFFORT_SUMMARY, parameters.reasoning)


def _encode_choice(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "name": choice}


class ChunkDecoder(EventChunkDecoder):
    """Decodes the named events of a streamed response to chunks; unknown events are ignored."""

    def __init__(
        self, taken: Iterable[str] = (), origin: str = "", *, limit: int | None = None
    ) -> None:
        """
        Prepare for one answer.

        Args:
            taken: the ids of earlier calls in the conversation.
            origin: the service and model, with which reasoning blocks are marked.
            limit: the requested ``max_output_tokens``, for servers that do not repeat it and report
                a truncated answer as ``completed``.
        """
        super().__init__()
        self._origin = origin
        self._limit = limit
        self._ids = CallIds(taken)
        self._has_reasoned = False
        self._calls = 0
        self._items: list[Mapping[str, Any]] = []

    def decode_body(self, body: dict[str, Any], elapsed_s: float) -> list[StreamChunk]:
        """Return the chunks of a response that is not streamed but one JSON body."""
        if not isinstance(body.get("output"), list):
            raise InStreamError(body)
        self.finished = True
        chunks = [self._full_item(item, body, elapsed_s) for item in body["output"]]
        last = self._last(body, body, elapsed_s)
        return [*(chunk for chunk in chunks if chunk is not None), last]

    def _read(self, event: ServerEvent, elapsed_s: float) -> StreamChunk | None:
        body = decode_typed_event(event.data)
        return None if body is None else self._chunk(body, elapsed_s)

    def _chunk(self, event: dict[str, Any], elapsed_s: float) -> StreamChunk | None:
        kind = event.get("type")
        if kind in _TEXT:
            tokens = parse_tokens(found) if (found := event.get("logprobs")) else ()
            return StreamChunk(event["delta"], "", elapsed_s, raw=event, logprobs=tokens)
        if kind in _THINKING:
            piece = "summary" if kind == _SUMMARY else ""
            return StreamChunk("", event["delta"], elapsed_s, raw=event, piece=piece)
        if kind in _CALL_PIECES and _is_of_call(event):
            return StreamChunk("", "", elapsed_s, raw=event, piece="tool_call")
        if kind == "response.output_item.done":
            return self._item(event["item"], event, elapsed_s)
        if kind == "error":
            raise InStreamError({"error": event.get("error") or event})
        if kind in _LAST:
            self.finished = True
            return self._last(event["response"], event, elapsed_s)
        return None

    def _item(
        self, item: Mapping[str, Any], event: dict[str, Any], elapsed_s: float
    ) -> StreamChunk | None:
        """Read a complete item. From the first reasoning item on, all are sent back unchanged."""
        kind = item.get("type")
        self._items.append(item)
        self._has_reasoned = self._has_reasoned or kind == "reasoning"
        blocks = (ReasoningBlock(item, self._origin),) if self._has_reasoned else ()
        calls = (self._call(item),) if kind == "function_call" else ()
        if not blocks and not calls:
            return None
        return StreamChunk("", "", elapsed_s, None, None, None, event, calls, blocks)

    def _call(self, item: Mapping[str, Any]) -> ToolCall:
        self._calls += 1
        call = parse_call(item)
        return replace(call, id=self._ids.make_unique(call.id))

    def _full_item(
        self, item: Mapping[str, Any], body: dict[str, Any], elapsed_s: float
    ) -> StreamChunk | None:
        """Read an item of an unstreamed response: the text of a message or of reasoning."""
        parts = item.get("content") or ()
        chunk = self._item(item, body, elapsed_s)
        if item.get("type") == "message":
            text = "".join(part.get("text") or part.get("refusal") or "" for part in parts)
            chunk = chunk or StreamChunk("", "", elapsed_s, None, None, None, body)
            tokens = [each for part in parts for each in parse_tokens(part.get("logprobs"))]
            return chunk._replace(text=text, logprobs=tuple(tokens))
        if chunk is None or item.get("type") != "reasoning":
            return chunk
        thoughts = [*parts, *(item.get("summary") or ())]
        return chunk._replace(reasoning="".join(part.get("text") or "" for part in thoughts))

    def _last(
        self, response: Mapping[str, Any], event: dict[str, Any], elapsed_s: float
    ) -> StreamChunk:
        """Return the last chunk; some servers report calls only at the end."""
        if response.get("max_output_tokens") is None:
            response = {**response, "max_output_tokens": self._limit}
        last = _decode_last(response, event, elapsed_s)
        output = response.get("output")
        items = output if isinstance(output, list) else []
        citations, searches = parse_response_items(items or self._items)
        if citations or searches:
            last = last._replace(citations=tuple(citations), searches=tuple(searches))
        count = count_response_searches(response, len(searches))
        if count is not None:
            last = last._replace(usage=replace(last.usage or Usage(), searches=count))
        calls = [item for item in items if item.get("type") == "function_call"]
        left = tuple(self._call(item) for item in calls[self._calls :])
        return last._replace(tool_calls=left) if left else last


def _is_of_call(event: Mapping[str, Any]) -> bool:
    """Return whether an event starts a function call, or adds to its arguments."""
    item = event.get("item")
    return item is None or item.get("type") == "function_call"


def parse_call(item: Mapping[str, Any]) -> ToolCall:
    """Return the call in an output item."""
    arguments = serialize_arguments(item.get("arguments"))
    return ToolCall(item.get("call_id") or "", item.get("name") or "", arguments)


def _decode_last(
    response: Mapping[str, Any], event: dict[str, Any], elapsed_s: float
) -> StreamChunk:
    if response.get("status") == "failed" or response.get("error"):
        raise InStreamError({"error": response.get("error") or {"message": "the response failed"}})
    usage = response.get("usage")
    finish_reason = parse_finish_reason(response)
    return StreamChunk(
        "",
        "",
        elapsed_s,
        finish_reason,
        parse_usage(usage, response.get("service_tier")) if usage else None,
        None,
        event,
    )


def parse_finish_reason(response: Mapping[str, Any]) -> str:
    """Return the reason for the end of a response, in the words of chat completions."""
    status = response.get("status") or "completed"
    if status == "incomplete":
        why = (response.get("incomplete_details") or {}).get("reason") or status
        return {"max_output_tokens": "length"}.get(why, why)
    items = response.get("output") or ()
    if any(_is_refusal(part) for item in items for part in item.get("content") or ()):
        return "refusal"
    if status != "completed":
        return str(status)
    if any(item.get("type") == "function_call" for item in items):
        return "tool_calls"
    return "length" if _has_reached_limit(response) else "stop"


def _has_reached_limit(response: Mapping[str, Any]) -> bool:
    """Return whether the limit is reached; Ollama and llama.cpp then report ``completed`` too."""
    limit = count_or_none(response.get("max_output_tokens"))
    written = count_or_none((response.get("usage") or {}).get("output_tokens"))
    return limit is not None and written is not None and written >= limit


def _is_refusal(part: Mapping[str, Any]) -> bool:
    return part.get("type") == "refusal" or bool(part.get("refusal"))


def parse_usage(usage: Mapping[str, Any], tier: str | None = None) -> Usage:
    """Return the tokens of a response, and the service tier by which they are billed."""
    cached = (usage.get("input_tokens_details") or {}).get("cached_tokens")
    thought = count_reasoning_tokens(usage)
    read, written = usage.get("input_tokens"), usage.get("output_tokens")
    return Usage(read, written, cached, None, thought, tier)
