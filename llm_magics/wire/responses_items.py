"""
The input items of a request to OpenAI's Responses.

Source: https://platform.openai.com/docs/guides/reasoning and /guides/function-calling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_magics.types import ChatMessage


def items_of(message: ChatMessage, *, is_stored: bool = False) -> list[dict[str, Any]]:
    """
    Return the items of a message.

    Where nothing is stored at the service, a reasoning item without encrypted content means
    nothing to it, and is dropped.
    """
    if message.role == "tool":
        return [_result(message)]
    blocks = [block for block in message.reasoning_blocks if isinstance(block.get("type"), str)]
    reasoning = [block for block in blocks if block["type"] == "reasoning"]
    kept = [block for block in reasoning if is_stored or block.get("encrypted_content")]
    if kept and len(blocks) > len(reasoning):  # with all items that followed it
        is_whole = len(kept) == len(reasoning) and _is_all_of(blocks, message)
        return [dict(block) for block in blocks] if is_whole else _written(message)
    return [*map(dict, kept), *_written(message)]


def _is_all_of(blocks: Sequence[Mapping[str, Any]], message: ChatMessage) -> bool:
    """Whether ``blocks`` hold the message's own text and calls, which then go back unchanged."""
    text, calls = "", []
    for block in blocks:
        if block["type"] == "message":
            parts = block.get("content") or ()
            text += "".join(part.get("text") or part.get("refusal") or "" for part in parts)
        elif block["type"] == "function_call":
            calls.append(block.get("call_id"))
    return text == message.content and calls == [call.id for call in message.tool_calls]


def _written(message: ChatMessage) -> list[dict[str, Any]]:
    """A message and its calls, without the service's own names for them."""
    items: list[dict[str, Any]] = []
    kind = "output_text" if message.role == "assistant" else "input_text"
    content: list[dict[str, Any]] = []
    if message.content:
        content.append({"type": kind, "text": message.content})
    content += _images(message)
    if content:
        items.append({"role": message.role, "content": content})
    return items + [
        {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments_text or "{}",
        }
        for call in message.tool_calls
    ]


def _result(message: ChatMessage) -> dict[str, Any]:
    output: Any = message.content
    if message.images:
        text = [{"type": "input_text", "text": output}] if output else []
        output = [*text, *_images(message)]
    return {"type": "function_call_output", "call_id": message.tool_call_id, "output": output}


def _images(message: ChatMessage) -> list[dict[str, Any]]:
    return [{"type": "input_image", "image_url": image.as_url} for image in message.images]
