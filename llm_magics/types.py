"""
The values exchanged with providers: messages, tool calls, chunks, responses and vectors.

All are independent of any service, notebook or file. Parameters, tools and progress are defined in
other modules and can be imported from here as well.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

from llm_magics._util.text import replace_lone_surrogates
from llm_magics.attachments import Image, ReasoningBlock
from llm_magics.citations import Citation, Search, number_sources
from llm_magics.documents import Attachment
from llm_magics.errors import ConfigurationError, ParseError
from llm_magics.host import Progress
from llm_magics.parameters import ModelParameters, Tool
from llm_magics.secrets import scrub_json
from llm_magics.usage import EngineTimings, Usage

__all__ = [
    "ROLES",
    "ChatMessage",
    "Citation",
    "Embeddings",
    "EngineTimings",
    "Image",
    "ModelParameters",
    "ModelResponse",
    "PackedVectors",
    "Progress",
    "Role",
    "Search",
    "StreamChunk",
    "Timing",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "Usage",
    "float32_bytes",
    "messages_of",
    "model_name",
    "settled",
]

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """
    One message of a conversation.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: the text.
        images: the images of the message.
        tool_calls: the tool calls of the assistant.
        tool_call_id: the id of the call, in a message with the result of a tool.
        reasoning_blocks: data of the service that must be sent back unchanged with an answer.
        attachments: the documents and audio of the message.
    """

    role: Role
    content: str
    images: tuple[Image, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    reasoning_blocks: tuple[Mapping[str, Any], ...] = ()
    attachments: tuple[Attachment, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            msg = f'Invalid message role: "{self.role}".'
            raise ConfigurationError(msg, hint=f"Use one of {', '.join(ROLES)}.")
        object.__setattr__(self, "content", replace_lone_surrogates(self.content))

    @classmethod
    def of(cls, message: ChatMessage | Mapping[str, Any]) -> ChatMessage:
        """Return ``message`` itself, or one created from ``{"role": …, "content": …}``."""
        if isinstance(message, ChatMessage):
            return message
        if isinstance(message, Mapping):
            known = {each.name for each in fields(cls)}
            is_text = isinstance(message.get("content"), str)
            if set(message) <= known and "role" in message and is_text:
                return cls(**message)
        msg = "Invalid message."  # without the values, which may be long
        raise ConfigurationError(msg, hint='Use {"role": "user", "content": "…"}.')


class TokenLogprob(NamedTuple):
    """
    A token of an answer and its log probability.

    Attributes:
        token: the text of the token.
        logprob: the natural logarithm of its probability, at most 0.
        data: the bytes of the token if its text cannot express them, as for a part of a character.
        top: the most likely tokens at its position, most likely first.
    """

    token: str
    logprob: float
    data: bytes = b""
    top: tuple[TokenLogprob, ...] = ()

    @property
    def as_bytes(self) -> bytes:
        """The bytes of the token in UTF-8."""
        return self.data or self.token.encode("utf-8", "replace")


class StreamChunk(NamedTuple):
    """
    A chunk of a streamed answer. It is a tuple, because creating one must be fast.

    Attributes:
        text: new text of the answer, often one token.
        reasoning: new text of the model's thinking, separate from the answer.
        elapsed_s: seconds from sending the request to reading this chunk from the socket. If a
            provider leaves it ``None``, it is set when the chunk arrives.
        finish_reason: the reason why the answer ended, in the last chunk.
        usage: the tokens so far, in chunks that report them.
        timings: the times measured by the engine, in chunks that report them.
        raw: the decoded data from the service.
        tool_calls: the tool calls that this chunk completes.
        reasoning_blocks: data that must be sent back with the answer in the next turn.
        piece: ``tool_call`` for a part of an incomplete call; ``summary`` if ``reasoning`` is a
            summary of thinking that the service does not stream; otherwise empty.
        ends_reasoning: whether all text before this chunk was thinking, because the model wrote
            the end of its thinking without its start.
        logprobs: the log probabilities of the tokens of the answer in this chunk, if requested.
        citations: the sources of passages in the answer so far.
        searches: the web searches that the service has made.
        request_id: the service's identifier of the request, in the first chunk if it sends one.
    """

    text: str = ""
    reasoning: str = ""
    elapsed_s: float | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    timings: EngineTimings | None = None
    raw: Mapping[str, Any] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_blocks: tuple[Mapping[str, Any], ...] = ()
    piece: str = ""
    ends_reasoning: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()
    citations: tuple[Citation, ...] = ()
    searches: tuple[Search, ...] = ()
    request_id: str | None = None

    @property
    def has_tokens(self) -> bool:
        """Whether the chunk has new text of the answer or of the thinking."""
        return bool(self.text or self.reasoning)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ModelResponse:
    """An answer, or the part of it that was received."""

    text: str
    model: str = ""
    provider: str = ""
    finish_reason: str | None = None
    reasoning: str = ""
    usage: Usage | None = None
    timings: EngineTimings | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_blocks: tuple[Mapping[str, Any], ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    citations: tuple[Citation, ...] = ()
    searches: tuple[Search, ...] = ()
    request_id: str | None = None

    @classmethod
    def of(
        cls, chunks: Iterable[StreamChunk], *, model: str = "", provider: str = ""
    ) -> ModelResponse:
        """Combine ``chunks`` into an answer with the last known usage and finish reason."""
        chunks = settled(list(chunks))
        text = "".join([chunk.text for chunk in chunks])
        cited = number_sources(each for chunk in chunks for each in chunk.citations)
        names = ("finish_reason", "usage", "timings", "raw", "request_id")
        values = {name: _last_value(chunks, name) for name in names}
        last: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if "raw" in last:
            last["raw"] = scrub_json(last["raw"])
        return cls(
            text=text,
            reasoning="".join([chunk.reasoning for chunk in chunks]),
            tool_calls=tuple(call for chunk in chunks for call in chunk.tool_calls),
            reasoning_blocks=tuple(block for chunk in chunks for block in chunk.reasoning_blocks),
            logprobs=tuple(token for chunk in chunks for token in chunk.logprobs),
            citations=tuple(each.moved(0, len(text)) for each in cited),
            searches=tuple(each for chunk in chunks for each in chunk.searches),
            model=model,
            provider=provider,
            **last,
        )


def settled(chunks: Sequence[StreamChunk]) -> Sequence[StreamChunk]:
    """Return ``chunks`` with text that turned out to be thinking moved to ``reasoning``."""
    last = max((index for index, each in enumerate(chunks) if each.ends_reasoning), default=0)
    if not last:
        return chunks
    thoughts = [
        each._replace(text="", reasoning=each.reasoning + each.text) for each in chunks[:last]
    ]
    return [*thoughts, *chunks[last:]]


def _last_value(chunks: Sequence[StreamChunk], name: str) -> Any:
    """Return the last value of the attribute ``name`` that is not ``None``."""
    return next(
        (value for each in reversed(chunks) if (value := getattr(each, name)) is not None), None
    )


class Embeddings(list[list[float]]):
    """One vector per text, and the token usage if the service reports it."""

    def __init__(self, vectors: Iterable[list[float]] = (), usage: Usage | None = None) -> None:
        super().__init__(vectors)
        self.usage = usage

    @classmethod
    def of_rows(cls, rows: Sequence[object], usage: Usage | None = None) -> Embeddings:
        """Create from the vectors of a service; a row that is not a list of numbers becomes NaN."""
        vectors = [
            row if isinstance(row, list) and float32_bytes(row) is not None else None
            for row in rows
        ]
        width = max((len(row) for row in vectors if row), default=1)
        return cls((row or [math.nan] * width for row in vectors), usage)


class PackedVectors(NamedTuple):
    """
    Vectors as bytes: little-endian float32 in rows of ``dimensions`` values.

    A row of NaN means a vector that could not be read. ``usage`` has the tokens if the service
    reports them.
    """

    data: bytes
    dimensions: int
    usage: Usage | None = None

    @classmethod
    def of(cls, vectors: Sequence[Sequence[float]]) -> PackedVectors:
        """Pack ``vectors``; one that is invalid or has an uncommon length becomes NaN."""
        usage = vectors.usage if isinstance(vectors, Embeddings) else None
        return cls.of_rows([float32_bytes(vector) for vector in vectors], usage)

    @classmethod
    def of_rows(cls, rows: Sequence[bytes | None], usage: Usage | None = None) -> PackedVectors:
        """
        Join ``rows`` of float32; a missing row, or one without the most common length, becomes NaN.

        If two lengths are equally common, all rows become NaN, because it is unknown which rows
        are correct.
        """
        counts = Counter(len(row) for row in rows if row)
        common = counts.most_common(2)
        is_tie = len(common) == 2 and common[0][1] == common[1][1]
        size = common[0][0] if common and not is_tie else 4
        if is_tie or len(common) > 1 or not all(rows):
            hole = _NAN * (size // 4)
            rows = [hole if is_tie or row is None or len(row) != size else row for row in rows]
        return cls(b"".join(row or b"" for row in rows), size // 4 if rows else 0, usage)


_NAN = struct.pack("<f", math.nan)


def float32_bytes(vector: Any) -> bytes | None:
    """Return ``vector`` as little-endian float32; ``None`` if it is not a list of numbers."""
    if isinstance(vector, str | bytes | bytearray | Mapping):
        return None
    if isinstance(vector, list) and bool in set(map(type, vector)):
        return None
    try:
        packed = array("f", vector)
    except (TypeError, ValueError, OverflowError):
        return None
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes() or None


@dataclass(frozen=True, slots=True)
class Timing:
    """
    The times of one call, as defined in `llm_magics.runtime.storage.run_log`.

    ``ttft_s``, ``e2e_s`` and ``load_s`` are seconds, ``itl_ms`` milliseconds.
    """

    ttft_s: float | None = None
    itl_ms: float | None = None
    e2e_s: float | None = None
    load_s: float = 0.0
    tokens_per_s: float | None = None


def messages_of(messages: Sequence[ChatMessage | Mapping[str, Any]]) -> list[ChatMessage]:
    """Return ``messages`` as `ChatMessage` objects; dicts are converted."""
    return [ChatMessage.of(message) for message in messages]


def model_name(value: object) -> str:
    """
    Return ``value`` as the name of a model.

    Raises:
        TypeError: ``value`` is not a string, or is empty.
    """
    if not isinstance(value, str) or not value:
        msg = f"a model whose name is {value!r:.60}"
        raise TypeError(msg)
    return replace_lone_surrogates(value)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call by a model: the name of the tool, and the arguments as the model wrote them."""

    id: str
    name: str
    arguments_text: str = ""

    def __post_init__(self) -> None:
        """
        Check the types, because a service may send any value.

        Raises:
            TypeError: a field is not a string.
        """
        for name in ("id", "name", "arguments_text"):
            value = getattr(self, name)
            if type(value) is int and name == "id":
                value = str(value)
            if not isinstance(value, str):
                msg = f"a tool call whose {name} is of the type {type(value).__name__}"
                raise TypeError(msg)
            object.__setattr__(self, name, replace_lone_surrogates(value))

    @property
    def arguments(self) -> dict[str, Any]:
        """
        The decoded arguments; an empty text means no arguments.

        Raises:
            ParseError: the text is not a JSON object.
        """
        try:
            arguments = json.loads(self.arguments_text or "{}")
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            msg = f"The arguments of {self.name} are not a JSON object: {self.arguments_text[:80]}"
            raise ParseError(msg, hint="The raw text is in .arguments_text.")
        return arguments


def remove_foreign_reasoning(messages: Sequence[ChatMessage], origin: str) -> list[ChatMessage]:
    """
    Return ``messages`` without the reasoning blocks of another service or model.

    Blocks of unknown origin stay: a wire format sends only those that have its shape.
    """
    return [_remove_foreign(message, origin) for message in messages]


def _remove_foreign(message: ChatMessage, origin: str) -> ChatMessage:
    if not message.reasoning_blocks:
        return message
    blocks = map(ReasoningBlock.of, message.reasoning_blocks)
    own = tuple(block for block in blocks if block.origin in ("", origin))
    return replace(message, reasoning_blocks=own)
