"""
The formats on disk: requests as keys and as JSON, answers and vectors as JSON.

The key of a call is a digest of everything that determines its answer: kind, model, messages,
parameters, schema, tools. Whether the answer is streamed, and the tier in which it is paid, are
not part of it. API keys and headers are not part of it, and text that looks like an API
key is removed.
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
from llm_magics.citations import Citation, Search
from llm_magics.documents import attachment_digest
from llm_magics.parameters import TIER_FIELDS, ModelParameters
from llm_magics.secrets import scrub
from llm_magics.types import (
    ChatMessage,
    StreamChunk,
    TokenLogprob,
    ToolCall,
    Usage,
    settled,
)

Request = dict[str, Any]


def chat_request(
    model: str, messages: Sequence[ChatMessage], parameters: ModelParameters
) -> Request:
    """Return everything that determines the answer of a chat."""
    return {
        "kind": "chat",
        "model": model,
        "messages": [encode_message(message) for message in messages],
        "parameters": encode_parameters(parameters),
    }


def encode_parameters(parameters: ModelParameters) -> dict[str, Any]:
    """Return the parameters that determine an answer, as JSON; without those that are not set."""
    parameters_sent = {
        name: getattr(parameters, name)
        for name in (
            "temperature",
            "max_tokens",
            "top_p",
            "seed",
            "tool_choice",
            "reasoning",
            "logprobs",
        )
    }
    parameters_sent |= {
        "stop": list(parameters.stop) or None,
        "schema": parameters.schema,
        "choices": list(parameters.choices) or None,
        "tools": [tool.as_dict() for tool in parameters.tools] or None,
        "extra_body": {
            name: value for name, value in parameters.extra_body.items() if name not in TIER_FIELDS
        }
        or None,
        "search": parameters.search or None,
    }
    return {name: value for name, value in parameters_sent.items() if value is not None}


def encode_message(message: ChatMessage) -> dict[str, Any]:
    """Return a message as JSON, with digests of its images and attachments."""
    images = [image.url or hashlib.sha256(image.data).hexdigest() for image in message.images]
    fields = {
        "role": message.role,
        "content": message.content,
        "images": images,
        "tool_calls": [asdict(call) for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
        "attachments": [attachment_digest(each) for each in message.attachments],
    }
    return {name: value for name, value in fields.items() if value or name in ("role", "content")}


def digest_messages(messages: Sequence[ChatMessage]) -> str:
    """Return a digest of a conversation."""
    return digest_request({"messages": [encode_message(message) for message in messages]})


def embedding_request(model: str, text: str, dimensions: int | None = None) -> Request:
    """Return everything that determines the vector of a text."""
    request: Request = {"kind": "embedding", "model": model, "text": text}
    return request if dimensions is None else {**request, "dimensions": dimensions}


def digest_request(request: Request) -> str:
    """Return the key of ``request``."""
    text = json.dumps(canonicalize(request), sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def canonicalize(value: Any) -> Any:
    """Return ``value`` with strings as keys, so that they can be sorted, and 0.0 as 0."""
    if isinstance(value, Mapping):
        return {str(name): canonicalize(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [canonicalize(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # --temperature 0 in a cell equals temperature=0.0 in Python
    return value


def encode_answer(chunks: Sequence[StreamChunk]) -> dict[str, Any]:
    """Return an answer as JSON: pieces with their times, usage, tool calls and finish reason."""
    chunks = settled(chunks)
    pieces = [
        [round(chunk.elapsed_s or 0.0, 4), chunk.text, *([chunk.reasoning] if chunk.reasoning else [])]
        for chunk in chunks
        if chunk.has_tokens
    ]  # fmt: skip
    redacted = redact_keys(pieces)
    answer: dict[str, Any] = {"chunks": redacted}
    logprobs = [_encode_token(token) for chunk in chunks for token in chunk.logprobs]
    if logprobs and redacted is pieces:  # otherwise a key is in the tokens too
        answer["logprobs"] = logprobs
    for chunk in chunks:
        if chunk.finish_reason:
            answer["finish_reason"] = chunk.finish_reason
        if chunk.usage:
            counted = asdict(chunk.usage).items()
            answer["usage"] = {name: count for name, count in counted if count is not None}
        if chunk.tool_calls:
            answer.setdefault("tool_calls", []).extend(asdict(call) for call in chunk.tool_calls)
        if chunk.reasoning_blocks:
            blocks = map(ReasoningBlock.of, chunk.reasoning_blocks)
            answer.setdefault("reasoning_blocks", []).extend(each.as_dict() for each in blocks)
        for name in ("citations", "searches"):
            if found := getattr(chunk, name):
                answer.setdefault(name, []).extend(each.as_dict() for each in found)
    return answer


def _encode_token(token: TokenLogprob) -> list[Any]:
    """Return a token as a list: its text, log probability, bytes in hexadecimal, alternatives."""
    encoded: list[Any] = [token.token, token.logprob]
    if token.data or token.top:
        encoded.append(token.data.hex())
    if token.top:
        encoded.append([_encode_token(each) for each in token.top])
    return encoded


def _decode_token(encoded: Sequence[Any]) -> TokenLogprob:
    data = bytes.fromhex(encoded[2]) if len(encoded) > 2 else b""
    top = tuple(map(_decode_token, encoded[3])) if len(encoded) > 3 else ()
    return TokenLogprob(encoded[0], encoded[1], data, top)


def redact_keys(pieces: list[list[Any]]) -> list[list[Any]]:
    """Remove keys from the pieces; pieces that one key spans are joined first."""
    text = "".join(piece[1] for piece in pieces)
    thoughts = "".join(piece[2] for piece in pieces if len(piece) > 2)
    if scrub(text) == text and scrub(thoughts) == thoughts:
        return pieces
    redacted = [pieces[-1][0], scrub(text), *([scrub(thoughts)] if thoughts else [])]
    return [redacted]


def decode_answer(answer: Mapping[str, Any]) -> Iterator[StreamChunk]:
    """Yield the chunks of a stored answer, with their times."""
    elapsed_s = 0.0
    for elapsed_s, text, *reasoning in answer["chunks"]:
        yield StreamChunk(text, reasoning[0] if reasoning else "", elapsed_s)
    usage = answer.get("usage")
    yield StreamChunk(
        elapsed_s=elapsed_s,
        finish_reason=answer.get("finish_reason"),
        usage=Usage(**usage) if usage else None,
        tool_calls=tuple(ToolCall(**call) for call in answer.get("tool_calls", ())),
        reasoning_blocks=tuple(map(ReasoningBlock.from_dict, answer.get("reasoning_blocks", ()))),
        logprobs=tuple(map(_decode_token, answer.get("logprobs", ()))),
        citations=tuple(map(Citation.from_dict, answer.get("citations", ()))),
        searches=tuple(map(Search.from_dict, answer.get("searches", ()))),
    )


def encode_vector(vector: Sequence[float]) -> str:
    """Encode a vector as little-endian float32 in base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def decode_vector(text: str) -> list[float]:
    """Decode a vector that `encode_vector` encoded."""
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def read_vector(answer: Mapping[str, Any]) -> list[float] | None:
    """Return the vector of a stored answer; ``None`` if it is missing or invalid."""
    try:
        return decode_vector(answer["vector"]) or None
    except (KeyError, TypeError, ValueError, struct.error):
        return None
