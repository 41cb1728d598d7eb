"""
The OpenAI chat, completion and embedding formats, as OpenAI and its many look-alikes speak them.

Source: https://platform.openai.com/docs/api-reference/chat, and llama.cpp's ``tools/server``.
"""

from __future__ import annotations

import array
import binascii
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from llm_magics._util.text import count_or_none
from llm_magics.parameters import ModelParameters, Tool
from llm_magics.types import (
    ChatMessage,
    Embeddings,
    EngineTimings,
    PackedVectors,
    StreamChunk,
    Usage,
    float32_bytes,
)
from llm_magics.wire import openai_reasoning
from llm_magics.wire.decoders import EventChunkDecoder, InStreamError, decoded, is_error
from llm_magics.wire.schema_dialects import OPENAI, Dialect, compiled, tool_parameters
from llm_magics.wire.sse import ServerEvent
from llm_magics.wire.tool_calls import ToolCallAssembler
from llm_magics.wire.turns import in_tool_turns

_DONE = b"[DONE]"


def chat_request(
    messages: Sequence[ChatMessage],
    model: str,
    parameters: ModelParameters,
    dialect: Dialect = OPENAI,
) -> dict[str, Any]:
    """Return the body of ``POST /chat/completions``, with the schema in the service's dialect."""
    return {
        "model": model,
        "messages": _messages(messages),
        **_chat_only(parameters, dialect),
        **_common(parameters),
    }


def _messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The messages; pictures of a tool's result follow it as the user's, as tools have no own."""
    made: list[dict[str, Any]] = []
    pictures: list[dict[str, Any]] = []
    for message, uses_tools in zip(messages, in_tool_turns(messages), strict=True):
        if message.role != "tool" and pictures:
            made.append({"role": "user", "content": pictures})
            pictures = []
        made.append(_message(message, uses_tools=uses_tools))
        if message.role == "tool":
            pictures = pictures + _pictures(message)
    return [*made, {"role": "user", "content": pictures}] if pictures else made


def _pictures(message: ChatMessage) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": image.as_url}} for image in message.images]


def _message(message: ChatMessage, *, uses_tools: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images and message.role != "tool":
        text = [{"type": "text", "text": message.content}] if message.content else []
        made["content"] = [*text, *_pictures(message)]
    if message.reasoning_blocks:
        made |= openai_reasoning.fields_of(message, uses_tools=uses_tools)
    if message.tool_calls:
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments_text or "{}"},
                **openai_reasoning.beside_call(message, call.id),
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    return made


def schema_format(schema: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Return the name, the schema and ``strict`` of an answer's format."""
    made = compiled(schema, dialect)
    told: dict[str, Any] = {"name": "answer", "schema": made.schema if made else dict(schema)}
    return {**told, "strict": True} if made and made.is_strict else told


def function_of(tool: Tool) -> dict[str, Any]:
    """Return a tool as its function is described, with its schema as services accept it."""
    return {**tool.as_dict(), "parameters": tool_parameters(tool.parameters)}


def _chat_only(parameters: ModelParameters, dialect: Dialect) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if parameters.tools:
        given["tools"] = [
            {"type": "function", "function": function_of(tool)} for tool in parameters.tools
        ]
    choice = parameters.tool_choice
    if choice:
        named = {"type": "function", "function": {"name": choice}}
        given["tool_choice"] = choice if choice in ("auto", "none", "required") else named
    if parameters.schema is not None:
        told = schema_format(parameters.schema, dialect)
        given["response_format"] = {"type": "json_schema", "json_schema": told}
    if parameters.reasoning:
        effort = parameters.reasoning if isinstance(parameters.reasoning, str) else "medium"
        given["reasoning_effort"] = effort
    return given


def completion_request(prompt: str, model: str, parameters: ModelParameters) -> dict[str, Any]:
    """The body of ``POST /completions``."""
    return {"model": model, "prompt": prompt, **_common(parameters)}


def _common(parameters: ModelParameters) -> dict[str, Any]:
    given = {
        "temperature": parameters.temperature,
        "max_tokens": parameters.max_tokens,
        "top_p": parameters.top_p,
        "seed": parameters.seed,
        "stop": list(parameters.stop) or None,
    }
    return {
        "stream": True,
        "stream_options": {"include_usage": True},
        **{name: value for name, value in given.items() if value is not None},
        **parameters.extra_body,
    }


class ChunkDecoder(EventChunkDecoder):
    """
    The bytes of a streamed answer into chunks; chats and plain completions alike.

    ``finished`` tells whether the service said that the answer is whole.
    """

    def __init__(
        self, names: Collection[str] = (), taken: Iterable[str] = (), origin: str = ""
    ) -> None:
        """
        Prepare for one answer.

        Args:
            names: the tools that it may call.
            taken: the ids of earlier calls of the conversation.
            origin: the service and model, by which reasoning blocks are marked.
        """
        super().__init__()
        self._calls = ToolCallAssembler(names, taken)
        self._thoughts = openai_reasoning.Thoughts(origin, wanted=bool(names))
        self._is_refused = False
        self._tier: str | None = None

    def flush(self, elapsed_s: float) -> Iterator[StreamChunk]:
        """What is left when the stream has ended."""
        yield from super().flush(elapsed_s)
        yield from self._left_over(elapsed_s)

    def whole(self, body: dict[str, Any], elapsed_s: float) -> list[StreamChunk]:
        """The chunks of an answer that came as one JSON body."""
        if not isinstance(body.get("choices"), list):
            raise InStreamError(body)
        self.finished = True
        return [self._chunk(body, elapsed_s), *self._left_over(elapsed_s)]

    def _left_over(self, elapsed_s: float) -> list[StreamChunk]:
        """What is left of services that give no finish reason: calls, the mark of a refusal."""
        calls, reason = self._calls.take(), "refusal" if self._is_refused else None
        blocks = self._thoughts.take(self._calls.extras)
        if not calls and not reason and not blocks:
            return []
        return [StreamChunk("", "", elapsed_s, reason, None, None, None, calls, blocks)]

    def _read(self, event: ServerEvent, elapsed_s: float) -> StreamChunk | None:
        if event.data.startswith(_DONE):
            self.finished = True
            return None
        body = decoded(event.data) if event.data.strip() else None
        if is_error(body) or (event.name == b"error" and body):
            if not isinstance(body, dict) or not body.get("choices"):
                raise InStreamError(body)
            chunk = self._chunk(body, elapsed_s)  # a last piece of the answer, beside the error
            self.finished, self.failure = True, body
            return chunk
        if not isinstance(body, dict):
            return None
        return self._chunk(body, elapsed_s)

    def _fail(self, error: Any) -> None:
        """Note the error of a choice, as OpenRouter sends it: raised behind what it came with."""
        self.finished = True
        self.failure = {"error": error}

    def _add_calls(self, delta: Mapping[str, Any]) -> bool:
        """Add the pieces of tool calls in ``delta``; whether there are any."""
        pieces = list(delta.get("tool_calls") or ())
        if old := delta.get("function_call"):  # what came before tool calls
            pieces += [{"function": old}] if old.get("name") or old.get("arguments") else []
        for call in pieces:
            function = call.get("function") or call
            index, call_id = call.get("index"), call.get("id")
            name, arguments = function.get("name"), function.get("arguments")
            self._calls.add(index, call_id, name, arguments, openai_reasoning.beside(call))
        return bool(pieces)

    def _beside_content(
        self, choice: Mapping[str, Any], delta: Mapping[str, Any], text: str, thought: str
    ) -> tuple[str, str, str]:
        """Read the refusal, thinking and tool calls of a delta: text, reasoning and piece."""
        piece = ""
        if refusal := delta.get("refusal"):
            self._is_refused, text = True, text or refusal
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or thought
        if not reasoning and delta.get("reasoning_details"):
            reasoning, piece = _details(delta["reasoning_details"])
        if not self._thoughts.known.isdisjoint(delta):
            self._thoughts.add(delta, is_whole="message" in choice)
        has_calls = delta.get("tool_calls") or delta.get("function_call")
        if has_calls and self._add_calls(delta):
            piece = "tool_call"
        return text, reasoning, piece

    def _chunk(self, event: dict[str, Any], elapsed_s: float) -> StreamChunk:
        text = reasoning = piece = ""
        finish_reason = None
        for choice in event.get("choices") or ():
            if choice.get("index"):  # a second answer to the same prompt, which nobody asked for
                continue
            delta = choice.get("delta") or choice.get("message") or choice
            text, thought = _content(delta.get("content"))
            text = text or delta.get("text") or ""
            finish_reason = choice.get("finish_reason")
            reasoning = thought
            if not _BESIDE_CONTENT.isdisjoint(delta):
                text, reasoning, piece = self._beside_content(choice, delta, text, thought)
            error = choice.get("error") or (finish_reason == "error" and delta.get("error"))
            if error:
                self._fail(error)
        if finish_reason:
            self.finished = True
            if self._is_refused:
                finish_reason, self._is_refused = "refusal", False
        usage = event.get("usage")
        self._tier = event.get("service_tier") or self._tier
        timings = event.get("timings") or event.get("stats")
        calls = self._calls.take() if finish_reason else ()
        return StreamChunk(
            text,
            reasoning,
            elapsed_s,
            finish_reason,
            _usage(usage, self._tier) if usage else None,
            _timings(timings) if timings else None,
            event,
            calls,
            self._thoughts.take(self._calls.extras) if finish_reason else (),
            piece,
        )


# The fields of a delta beside its content. Most have none, and one look is faster than one for each.
_BESIDE_CONTENT = openai_reasoning.Thoughts.known | {
    "refusal", "reasoning", "reasoning_content", "reasoning_details", "tool_calls", "function_call"
}  # fmt: skip

# The parts of a content that is a list; any other list is an answer in JSON.
_PARTS = frozenset(
    ["text", "output_text", "thinking", "refusal", "reference", "tool_reference", "image_url",
     "document_url", "input_audio", "file"]
)  # fmt: skip


def _content(content: Any) -> tuple[str, str]:
    """
    The text and the thinking in a delta or message.

    Mistral sends a list of both; Cloudflare sends an answer that is bound to a schema as the
    JSON value itself.
    """
    if isinstance(content, str):
        return content, ""
    if content is None or content == []:
        return "", ""
    if not isinstance(content, list) or not all(map(_is_part, content)):
        return json.dumps(content, ensure_ascii=False), ""
    text = "".join(
        part.get("text") or "" for part in content if part.get("type") in ("text", "output_text")
    )
    thoughts = [part.get("thinking") or [] for part in content if part.get("type") == "thinking"]
    thinking = "".join(each.get("text") or "" for thought in thoughts for each in thought)
    return text, thinking


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _PARTS


def _details(details: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """
    OpenRouter's list of thoughts, and ``summary`` if it only sums them up.

    Encrypted thoughts have no words.
    """
    texts = [each.get("text") or "" for each in details]
    summaries = [each.get("summary") or "" for each in details]
    told = "".join(text or summary for text, summary in zip(texts, summaries, strict=True))
    return told, "summary" if any(summaries) and not any(texts) else ""


def _usage(usage: Mapping[str, Any], tier: str | None) -> Usage:
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens", usage.get("prompt_cache_hit_tokens"))  # DeepSeek's
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    thought = reasoning_tokens_of(usage)
    if thought and usage.get("total_tokens") == (read or 0) + (written or 0) + thought:
        written = (written or 0) + thought  # xAI counts them beside the answer's own
    return Usage(read, written, cached, None, thought, tier)


def reasoning_tokens_of(usage: Mapping[str, Any]) -> int | None:
    """The tokens of the thinking, wherever a service counts them."""
    for name in ("completion_tokens_details", "output_tokens_details"):
        details = usage.get(name)
        if isinstance(details, Mapping):
            for kind in ("reasoning_tokens", "thinking_tokens"):
                if (count := count_or_none(details.get(kind))) is not None:
                    return count
    return count_or_none(usage.get("reasoning_tokens"))


def _timings(timings: Mapping[str, Any]) -> EngineTimings:
    """An engine's own measurements: llama.cpp's in milliseconds, LM Studio's in seconds."""
    if "generation_time" in timings or "time_to_first_token" in timings:
        return EngineTimings(
            prompt_s=timings.get("time_to_first_token"),
            generation_s=timings.get("generation_time"),
        )
    prompt, generation = timings.get("prompt_ms"), timings.get("predicted_ms")
    return EngineTimings(
        prompt_s=prompt / 1000 if prompt is not None else None,
        generation_s=generation / 1000 if generation is not None else None,
    )


def embedding_request(
    texts: Sequence[str],
    model: str,
    encoding_format: str = "base64",
    dimensions: int | None = None,
) -> dict[str, Any]:
    """The body of ``POST /embeddings``."""
    body = {"model": model, "input": list(texts), "encoding_format": encoding_format}
    return body if dimensions is None else {**body, "dimensions": dimensions}


def embeddings_of(reply: Mapping[str, Any]) -> Embeddings:
    """
    The vectors of an answer, in the order of the texts sent, from base64 or numbers.

    A vector that cannot be read becomes NaN.

    Raises:
        ValueError: it is not clear which vector belongs to which text.
    """
    return Embeddings.of_rows([_vector(each) for each in _in_order(reply)], read_tokens(reply))


def _in_order(reply: Mapping[str, Any]) -> list[Any]:
    """
    The vectors of an answer as they came, in the order of the texts sent.

    Raises:
        ValueError: their indexes are not the numbers from 0 on, each once.
    """
    data = reply.get("data") if isinstance(reply, Mapping) else None
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        msg = "an answer without a list of vectors"
        raise ValueError(msg)
    indexes = [row.get("index") for row in data]
    vectors = [row.get("embedding") for row in data]
    if indexes == [None] * len(data):
        return vectors
    # ``1.0`` and ``True`` equal 1, hence the comparison of types.
    if set(map(type, indexes)) != {int} or sorted(indexes) != list(range(len(data))):
        told = ", ".join(repr(index) for index in indexes[:8])
        msg = f"vectors whose indexes are not the numbers from 0 to {len(data) - 1}, each once: {told:.80}"
        raise ValueError(msg)
    return [vector for _, vector in sorted(zip(indexes, vectors, strict=True), key=_by_index)]


def _by_index(row: tuple[int, Any]) -> int:
    return row[0]


_VECTOR = b'"embedding":'
# Stands before the number of a vector that was set apart; base64 has no such character.
_MARK = "#"


def vectors_apart(body: bytes) -> tuple[bytes, list[memoryview]]:
    """
    An answer with a mark in place of each vector that came in base64, and these vectors.

    So they are never made into text: to take them out of JSON would cost as much as to decode
    them. Within a string a key has backslashes before its quotes, and is not found.
    """
    view = memoryview(body)
    told: list[bytes | memoryview] = []
    vectors: list[memoryview] = []
    done = 0
    while (at := body.find(_VECTOR, done)) >= 0:
        start = at + len(_VECTOR)
        while body[start : start + 1].isspace():
            start += 1
        end = body.find(b'"', start + 1)
        if body[start : start + 1] != b'"' or end < 0 or body.find(b"\\", start, end) >= 0:
            told.append(view[done:start])  # numbers, or text with something to undo in it
            done = start
            continue
        told += [view[done:start], b'"#%d"' % len(vectors)]
        vectors.append(view[start + 1 : end])
        done = end + 1
    return b"".join([*told, view[done:]]), vectors


def packed_rows_of(
    reply: Mapping[str, Any], vectors: Sequence[bytes | memoryview] = ()
) -> list[bytes | None]:
    """
    The vectors of an answer as float32, little-endian; ``None`` for one that cannot be read.

    What came in base64 is not taken apart; ``vectors`` are those set apart.

    Raises:
        ValueError: it is not clear which vector belongs to which text.
    """
    return [_float32(each, vectors) for each in _in_order(reply)]


def packed_of(
    reply: Mapping[str, Any], vectors: Sequence[bytes | memoryview] = ()
) -> PackedVectors:
    """The same, packed; a vector that cannot be read becomes NaN."""
    return PackedVectors.of_rows(packed_rows_of(reply, vectors), read_tokens(reply))


def read_tokens(reply: Mapping[str, Any]) -> Usage:
    """How many tokens the texts had."""
    usage = reply.get("usage") or {}
    return Usage(usage.get("prompt_tokens", usage.get("total_tokens")))  # Voyage's: all is read


def _float32(embedding: Any, vectors: Sequence[bytes | memoryview]) -> bytes | None:
    """The bytes of one vector, from base64, numbers, or the mark of one that was set apart."""
    if not isinstance(embedding, str):
        return float32_bytes(embedding)
    packed: str | bytes | memoryview = embedding
    if embedding.startswith(_MARK) and embedding[1:].isdecimal():
        number = int(embedding[1:])
        packed = vectors[number] if number < len(vectors) else b""
    elif "\n" in embedding:  # lines, as MIME has them
        packed = "".join(embedding.split())
    try:  # without strictness, whatever is not base64 would be passed over
        data = binascii.a2b_base64(packed, strict_mode=True)
    except ValueError:
        return None
    return data if data and len(data) % 4 == 0 else None


def _vector(embedding: Any) -> Any:
    """The numbers of a vector in base64; anything else as it is."""
    packed = _float32(embedding, ()) if isinstance(embedding, str) else None
    if packed is None:
        return embedding
    floats = array.array("f", packed)
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tolist()
