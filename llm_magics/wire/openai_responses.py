"""
OpenAI's Responses API.

Source: https://platform.openai.com/docs/api-reference/responses and /responses-streaming.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_magics.media import ToolCall
from llm_magics.types import ChatMessage, ModelParameters, StreamChunk, Usage
from llm_magics.wire.decoding import decoded
from llm_magics.wire.errors import InStreamError, is_error
from llm_magics.wire.event_chunks import EventChunkDecoder
from llm_magics.wire.openai_chat import function_of, reasoning_tokens_of, schema_format
from llm_magics.wire.schema_dialects import OPENAI, Dialect
from llm_magics.wire.sse import ServerEvent

_DONE = b"[DONE]"

_TEXT = frozenset({"response.output_text.delta", "response.refusal.delta"})
_SUMMARY = "response.reasoning_summary_text.delta"
_THINKING = frozenset({"response.reasoning_text.delta", _SUMMARY})
_CALL_PIECES = frozenset({"response.function_call_arguments.delta", "response.output_item.added"})
_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})


def responses_request(
    messages: Sequence[ChatMessage],
    model: str,
    parameters: ModelParameters,
    dialect: Dialect = OPENAI,
) -> dict[str, Any]:
    """The body of ``POST /responses``. Nothing is kept at the service."""
    system = "\n\n".join(each.content for each in messages if each.role == "system")
    body: dict[str, Any] = {
        "model": model,
        "input": [item for each in messages if each.role != "system" for item in _items(each)],
        "stream": True,
        "store": False,
    }
    given = {
        "instructions": system or None,
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        "max_output_tokens": parameters.max_tokens,
    }
    body |= {name: value for name, value in given.items() if value is not None}
    if parameters.tools:
        body["tools"] = [{"type": "function", **function_of(tool)} for tool in parameters.tools]
    if parameters.tool_choice:
        body["tool_choice"] = _choice(parameters.tool_choice)
    if parameters.schema is not None:
        told = schema_format(parameters.schema, dialect)
        body["text"] = {"format": {"type": "json_schema", **told}}
    if parameters.reasoning:
        effort = parameters.reasoning if isinstance(parameters.reasoning, str) else "medium"
        body["reasoning"] = {"effort": effort, "summary": "auto"}
        body["include"] = ["reasoning.encrypted_content"]
    return {**body, **parameters.extra_body}


def _choice(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "name": choice}


def _items(message: ChatMessage) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [
            {
                "type": "function_call_output",
                "call_id": message.tool_call_id,
                "output": message.content,
            }
        ]
    items = [dict(block) for block in message.reasoning_blocks]
    kind = "output_text" if message.role == "assistant" else "input_text"
    content = [{"type": kind, "text": message.content}] if message.content else []
    content += [{"type": "input_image", "image_url": image.as_url} for image in message.images]
    if content:
        items.append({"role": message.role, "content": content})
    items += [
        {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments_text,
        }
        for call in message.tool_calls
    ]
    return items


class ChunkDecoder(EventChunkDecoder):
    """The named events of a streamed response into chunks; unknown ones are passed over."""

    def whole(self, body: dict[str, Any], elapsed_s: float) -> list[StreamChunk]:
        """The chunks of a response that came as one JSON body."""
        if not isinstance(body.get("output"), list):
            raise InStreamError(body)
        self.finished = True
        chunks = [_whole_item(item, body, elapsed_s) for item in body.get("output") or ()]
        return [*(chunk for chunk in chunks if chunk is not None), _last(body, body, elapsed_s)]

    def _read(self, event: ServerEvent, elapsed_s: float) -> StreamChunk | None:
        if event.data == _DONE:
            return None
        body = decoded(event.data)
        if not isinstance(body, dict) or ("type" not in body and is_error(body)):
            raise InStreamError(body)
        return self._chunk(body, elapsed_s)

    def _chunk(self, event: dict[str, Any], elapsed_s: float) -> StreamChunk | None:
        kind = event.get("type")
        if kind in _TEXT:
            return StreamChunk(event["delta"], "", elapsed_s, None, None, None, event)
        if kind in _THINKING:
            piece = "summary" if kind == _SUMMARY else ""
            return StreamChunk("", event["delta"], elapsed_s, raw=event, piece=piece)
        if kind in _CALL_PIECES and _is_of_call(event):
            return StreamChunk("", "", elapsed_s, raw=event, piece="tool_call")
        if kind == "response.output_item.done":
            return _item(event["item"], event, elapsed_s)
        if kind == "error":
            raise InStreamError({"error": event.get("error") or event})
        if kind in _LAST:
            self.finished = True
            return _last(event["response"], event, elapsed_s)
        return None


def _is_of_call(event: Mapping[str, Any]) -> bool:
    """Whether an event begins a call of a function, or adds to its arguments."""
    item = event.get("item")
    return item is None or item.get("type") == "function_call"


def _item(item: Mapping[str, Any], event: dict[str, Any], elapsed_s: float) -> StreamChunk | None:
    if item.get("type") == "function_call":
        return StreamChunk("", "", elapsed_s, raw=event, tool_calls=(call_of(item),))
    if item.get("type") == "reasoning":
        return StreamChunk("", "", elapsed_s, raw=event, reasoning_blocks=(item,))
    return None


def _whole_item(
    item: Mapping[str, Any], body: dict[str, Any], elapsed_s: float
) -> StreamChunk | None:
    """An output item that came at once: of a message its text, of thinking its words too."""
    parts = item.get("content") or ()
    if item.get("type") == "message":
        text = "".join(part.get("text") or part.get("refusal") or "" for part in parts)
        return StreamChunk(text, "", elapsed_s, None, None, None, body)
    chunk = _item(item, body, elapsed_s)
    if chunk is None or item.get("type") != "reasoning":
        return chunk
    thoughts = [*parts, *(item.get("summary") or ())]
    return chunk._replace(reasoning="".join(part.get("text") or "" for part in thoughts))


def call_of(item: Mapping[str, Any]) -> ToolCall:
    """The call in an output item."""
    return ToolCall(item.get("call_id") or "", item.get("name") or "", item.get("arguments") or "")


def _last(response: Mapping[str, Any], event: dict[str, Any], elapsed_s: float) -> StreamChunk:
    if response.get("status") == "failed" or response.get("error"):
        raise InStreamError({"error": response.get("error") or {"message": "the response failed"}})
    usage = response.get("usage")
    finish_reason = finish_of(response)
    return StreamChunk(
        "", "", elapsed_s, finish_reason, usage_of(usage) if usage else None, None, event
    )


def finish_of(response: Mapping[str, Any]) -> str:
    """Why it ended, in the words of chat completions."""
    status = response.get("status") or "completed"
    if status == "incomplete":
        why = (response.get("incomplete_details") or {}).get("reason") or status
        return {"max_output_tokens": "length"}.get(why, why)
    items = response.get("output") or ()
    if any(_is_refusal(part) for item in items for part in item.get("content") or ()):
        return "refusal"
    if status != "completed":
        return str(status)
    return "tool_calls" if any(item.get("type") == "function_call" for item in items) else "stop"


def _is_refusal(part: Mapping[str, Any]) -> bool:
    return part.get("type") == "refusal" or bool(part.get("refusal"))


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """The tokens of a response."""
    cached = (usage.get("input_tokens_details") or {}).get("cached_tokens")
    thought = reasoning_tokens_of(usage)
    return Usage(usage.get("input_tokens"), usage.get("output_tokens"), cached, None, thought)
