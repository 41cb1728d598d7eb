"""
The turns of a request to Anthropic's Messages.

Users and assistant speak in turn, no text is blank, the results of tools come first in the turn
after their calls, and thinking goes back where it stood, unchanged.

Source: https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_magics.attachments import Image, ReasoningBlock
from llm_magics.errors import ParseError
from llm_magics.types import ChatMessage, ToolCall
from llm_magics.wire.turns import is_current

THINKING = frozenset({"thinking", "redacted_thinking"})
# Of tools that the service runs itself: they must go back while the answer goes on.
_OF_THE_SERVER = re.compile(r"(?:server|mcp)_tool_use|[a-z_]+_tool_result")
# What an id may hold.
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_-]")
# Said where only pictures or nothing would stand before the first answer.
_BLANK = {"type": "text", "text": "(blank)"}


def is_returned(block: Mapping[str, Any]) -> bool:
    """Return whether ``block`` of an answer must go back with it."""
    kind = block.get("type")
    if not isinstance(kind, str) or kind == "tool_result":
        return False
    return kind in THINKING or bool(_OF_THE_SERVER.fullmatch(kind))


def turns_of(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return the turns of ``messages``: those that follow one another of one role become one."""
    turns: list[dict[str, Any]] = []
    for message, is_last_round in zip(messages, is_current(messages), strict=True):
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message, is_last_round=is_last_round)
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
        _without_trailing_space(turns[-1]["content"][-1])
    return turns


def lacks_thinking(turns: Sequence[Mapping[str, Any]]) -> bool:
    """
    Return whether the calls that the last turn answers were made without thinking.

    Thinking cannot begin in the middle of a turn: the service refuses it.
    """
    if len(turns) < 2 or turns[-1]["role"] != "user":
        return False
    if not any(block["type"] == "tool_result" for block in turns[-1]["content"]):
        return False
    said = turns[-2]["content"]
    return said[0]["type"] not in THINKING and any(each["type"] == "tool_use" for each in said)


def _blocks(message: ChatMessage, *, is_last_round: bool) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [_result(message)]
    said = [_image(image) for image in message.images] + list(_said(message, is_last_round))
    if all(block["type"] in THINKING for block in said):
        return []  # a turn must not end with thinking
    return said


def _said(message: ChatMessage, is_last_round: bool) -> Iterator[dict[str, Any]]:
    """The text and calls of a message, each returned block in its place between them."""
    text_at = calls_at = 0
    for each in map(ReasoningBlock.of, message.reasoning_blocks):
        if not is_returned(each) or not (each["type"] in THINKING or is_last_round):
            continue
        text_to, calls_to = each.at
        yield from _text(message.content[text_at:text_to])
        yield from map(_call, message.tool_calls[calls_at:calls_to])
        text_at, calls_at = max(text_at, text_to), max(calls_at, calls_to)
        yield dict(each)
    yield from _text(message.content[text_at:])
    yield from map(_call, message.tool_calls[calls_at:])


def _text(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _call(call: ToolCall) -> dict[str, Any]:
    try:
        given: dict[str, Any] = call.arguments
    except ParseError:  # the service requires an object; the tool result reports the error
        given = {"invalid_json": call.arguments_text}
    return {"type": "tool_use", "id": _id(call.id), "name": call.name, "input": given}


def _result(message: ChatMessage) -> dict[str, Any]:
    content: Any = message.content
    if message.images:
        content = [*_text(message.content), *map(_image, message.images)]
    return {"type": "tool_result", "tool_use_id": _id(message.tool_call_id), "content": content}


def _id(call_id: str) -> str:
    """An id in letters that the service takes: other services use more."""
    return _NOT_IN_IDS.sub("_", call_id)


def _image(image: Image) -> dict[str, Any]:
    if image.url:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    source = {"type": "base64", "media_type": image.media_type, "data": image.base64}
    return {"type": "image", "source": source}


def _without_trailing_space(block: dict[str, Any]) -> None:
    """The beginning of an answer that goes on must not end in a space."""
    if block["type"] == "text":
        block["text"] = block["text"].rstrip()
