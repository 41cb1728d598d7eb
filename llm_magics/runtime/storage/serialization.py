"""
Requests as keys and as JSON, answers and vectors as JSON: the formats on disk.

The key of a call is a digest of all that decides its answer: kind, model, messages, parameters,
schema, tools. Keys of services and headers are not in it, and what is shaped like a key is
removed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from llm_magics.attachments import ReasoningBlock
from llm_magics.parameters import ModelParameters
from llm_magics.secrets import scrub
from llm_magics.types import ChatMessage, StreamChunk, ToolCall, Usage, settled

Request = dict[str, Any]


def chat_request(
    model: str, messages: Sequence[ChatMessage], parameters: ModelParameters
) -> Request:
    """All that decides the answer of a chat."""
    given = {
        name: getattr(parameters, name)
        for name in ("temperature", "max_tokens", "top_p", "seed", "tool_choice", "reasoning")
    }
    given |= {
        "stop": list(parameters.stop) or None,
        "schema": parameters.schema,
        "tools": [tool.as_dict() for tool in parameters.tools] or None,
        "extra_body": dict(parameters.extra_body) or None,
    }
    return {
        "kind": "chat",
        "model": model,
        "messages": [_message(message) for message in messages],
        "parameters": {name: value for name, value in given.items() if value is not None},
    }


def _message(message: ChatMessage) -> dict[str, Any]:
    pictures = [image.url or hashlib.sha256(image.data).hexdigest() for image in message.images]
    made = {
        "role": message.role,
        "content": message.content,
        "images": pictures,
        "tool_calls": [asdict(call) for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
    }
    return {name: value for name, value in made.items() if value or name in ("role", "content")}


def embedding_request(model: str, text: str, dimensions: int | None = None) -> Request:
    """All that decides the vector of a text."""
    request: Request = {"kind": "embedding", "model": model, "text": text}
    return request if dimensions is None else {**request, "dimensions": dimensions}


def key_of(request: Request) -> str:
    """A digest of ``request``."""
    text = json.dumps(with_names(request), sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def with_names(value: Any) -> Any:
    """``value`` with texts for all names in it, so that they can be sorted, and 0.0 as 0."""
    if isinstance(value, Mapping):
        return {str(name): with_names(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [with_names(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # a cell's --temperature 0 and Python's are the same
    return value


def told_by(chunks: Sequence[StreamChunk]) -> dict[str, Any]:
    """An answer as it is kept: its pieces with their times, and how it ended."""
    chunks = settled(chunks)
    pieces = [
        [round(chunk.elapsed_s or 0.0, 4), chunk.text, *([chunk.reasoning] if chunk.reasoning else [])]
        for chunk in chunks
        if chunk.has_tokens
    ]  # fmt: skip
    told: dict[str, Any] = {"chunks": without_keys(pieces)}
    for chunk in chunks:
        if chunk.finish_reason:
            told["finish_reason"] = chunk.finish_reason
        if chunk.usage:
            counted = asdict(chunk.usage).items()
            told["usage"] = {name: count for name, count in counted if count is not None}
        if chunk.tool_calls:
            told.setdefault("tool_calls", []).extend(asdict(call) for call in chunk.tool_calls)
        if chunk.reasoning_blocks:
            blocks = map(ReasoningBlock.of, chunk.reasoning_blocks)
            told.setdefault("reasoning_blocks", []).extend(each.as_dict() for each in blocks)
    return told


def without_keys(pieces: list[list[Any]]) -> list[list[Any]]:
    """A key comes in pieces too: where the whole has one, the whole is kept as one piece."""
    text = "".join(piece[1] for piece in pieces)
    thoughts = "".join(piece[2] for piece in pieces if len(piece) > 2)
    if scrub(text) == text and scrub(thoughts) == thoughts:
        return pieces
    whole = [pieces[-1][0], scrub(text), *([scrub(thoughts)] if thoughts else [])]
    return [whole]


def chunks_of(told: Mapping[str, Any]) -> Iterator[StreamChunk]:
    """The pieces of a kept answer, with the times that they had."""
    elapsed_s = 0.0
    for elapsed_s, text, *reasoning in told["chunks"]:
        yield StreamChunk(text, reasoning[0] if reasoning else "", elapsed_s)
    usage = told.get("usage")
    yield StreamChunk(
        elapsed_s=elapsed_s,
        finish_reason=told.get("finish_reason"),
        usage=Usage(**usage) if usage else None,
        tool_calls=tuple(ToolCall(**call) for call in told.get("tool_calls", ())),
        reasoning_blocks=tuple(map(ReasoningBlock.from_dict, told.get("reasoning_blocks", ()))),
    )


def packed(vector: Sequence[float]) -> str:
    """A vector as it is kept: float32, little-endian, in base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def unpacked(text: str) -> list[float]:
    """The vector in ``text``."""
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def vector_in(answer: Mapping[str, Any]) -> list[float] | None:
    """The vector of a kept answer; ``None`` where there is none that can be read."""
    try:
        return unpacked(answer["vector"]) or None
    except (KeyError, TypeError, ValueError, struct.error):
        return None
