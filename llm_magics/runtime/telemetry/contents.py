"""
Messages, instructions and tools as contents of spans and events, in the conventions' JSON schemas.

All texts have keys masked. Their size is bounded: the newest messages keep their text, older ones
lose it first. Files and images are described, but not exported.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from llm_magics.errors import LLMError
from llm_magics.runtime.response import Response
from llm_magics.secrets import scrub, scrub_json
from llm_magics.types import ChatMessage, Tool, ToolCall

# The bounds of one attribute, in characters, messages and tools.
MAX_TEXT = 100_000
_MAX_MESSAGES = 200
_MAX_TOOLS = 100

# So much more of a text is searched for keys that none is cut in two.
_MAX_KEY_LENGTH = 4096

Part = dict[str, Any]


class _Room:
    """The characters that remain for texts."""

    def __init__(self) -> None:
        self._left = MAX_TEXT

    def fit(self, text: str) -> str:
        """Return ``text`` with keys masked, cut to the number of characters left."""
        taken = text[: self._left + _MAX_KEY_LENGTH] if self._left else ""
        masked = scrub(taken)
        kept = masked[: self._left]
        self._left -= len(kept)
        if len(kept) == len(masked) and len(taken) == len(text):
            return kept
        return f"{kept}\n[… {len(text) - len(kept):,} more characters left out]"

    def fit_json(self, value: Any) -> Any:
        """Return a JSON value with keys masked; as a text that is cut if it is too long."""
        text = json.dumps(value, ensure_ascii=False, default=str)
        if len(text) > self._left:
            return self.fit(text)
        self._left -= len(text)
        return scrub_json(value)


def content_attributes(response: Response, tools: Sequence[Tool]) -> dict[str, list[Any]]:
    """Return the contents of a call: what was sent, and the answer or its received part."""
    system = [each for each in response.messages if each.role == "system"]
    sent = [each for each in response.messages if each.role != "system"]
    found = {
        "gen_ai.system_instructions": _instructions(system),
        "gen_ai.input.messages": _input(sent),
        "gen_ai.output.messages": _output(response),
        "gen_ai.tool.definitions": _definitions(tools),
    }
    return {name: value for name, value in found.items() if value}


def tool_text(text: str) -> str:
    """Return the arguments or the result of a tool call, masked and cut."""
    return _Room().fit(text)


def to_json(value: Any) -> str:
    """Return contents as the JSON string that spans have."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _instructions(messages: Sequence[ChatMessage]) -> list[Part]:
    room = _Room()
    return [{"type": "text", "content": room.fit(each.content)} for each in messages]


def _input(messages: Sequence[ChatMessage]) -> list[Part]:
    room = _Room()
    newest = reversed(messages[-_MAX_MESSAGES:])
    return [{"role": each.role, "parts": list(_parts(each, room))} for each in newest][::-1]


def _parts(message: ChatMessage, room: _Room) -> Iterable[Part]:
    if message.role == "tool":
        result = room.fit(message.content)
        yield {"type": "tool_call_response", "id": message.tool_call_id, "response": result}
    elif message.content:
        yield {"type": "text", "content": room.fit(message.content)}
    for call in message.tool_calls:
        yield _call_part(call, room)
    for each in (*message.images, *message.attachments):
        kind = str(getattr(each, "media_type", ""))
        yield {"type": "attachment", "mime_type": kind, "size": len(each.data)}


def _call_part(call: ToolCall, room: _Room) -> Part:
    try:
        arguments: Any = dict(call.arguments)
    except LLMError:  # the model wrote something else than a JSON object
        arguments = call.arguments_text
    return {
        "type": "tool_call",
        "id": call.id,
        "name": scrub(call.name),
        "arguments": room.fit_json(arguments),
    }


def _output(response: Response) -> list[Part]:
    room = _Room()
    parts: list[Part] = []
    if response.text:
        parts.append({"type": "text", "content": room.fit(response.text)})
    parts += [_call_part(call, room) for call in response.tool_calls]
    if response.reasoning:
        parts.insert(0, {"type": "reasoning", "content": room.fit(response.reasoning)})
    reason = response.finish_reason or "error"
    return [{"role": "assistant", "parts": parts, "finish_reason": reason}] if parts else []


def _definitions(tools: Sequence[Tool]) -> list[Part]:
    room = _Room()
    return [
        {
            "type": "function",
            "name": scrub(each.name),
            "description": room.fit(each.description),
            "parameters": room.fit_json(dict(each.parameters)),
        }
        for each in tools[:_MAX_TOOLS]
    ]
