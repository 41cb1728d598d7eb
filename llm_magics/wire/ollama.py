"""
Ollama's own format: one JSON object per line.

Source: ``api/types.go`` and ``docs/api.md`` of ollama, and traffic of a 0.24 server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llm_magics.attachments import ReasoningBlock
from llm_magics.documents import reject
from llm_magics.parameters import ModelParameters
from llm_magics.types import ChatMessage, Embeddings, EngineTimings, StreamChunk, ToolCall, Usage
from llm_magics.wire.decoders import InStreamError, NewlineSplitter, decode_json
from llm_magics.wire.logprobs import MAX_LOGPROBS, build_fields, parse_tokens
from llm_magics.wire.schema_dialects import GRAMMAR, build_function, compile_schema
from llm_magics.wire.tool_calls import (
    CallIds,
    encode_arguments,
    mark_tool_turns,
    serialize_arguments,
)

# Our parameter names with Ollama's. They are sent in "options".
_OPTIONS = {
    "temperature": "temperature",
    "max_tokens": "num_predict",
    "top_p": "top_p",
    "seed": "seed",
}


def build_chat_request(
    messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
) -> dict[str, Any]:
    """Return the body of ``POST /api/chat``."""
    names: dict[str, str] = {}
    encoded = []
    for message, uses_tools in zip(messages, mark_tool_turns(messages), strict=True):
        names |= {call.id: call.name for call in message.tool_calls}  # an id may be reused
        encoded.append(_encode_message(message, names, uses_tools=uses_tools))
    return {
        "model": model,
        "messages": encoded,
        **_encode_tools(parameters),
        **_build_options(parameters),
    }


def build_generate_request(prompt: str, model: str, parameters: ModelParameters) -> dict[str, Any]:
    """Return the body of ``POST /api/generate``, which continues a raw text."""
    return {"model": model, "prompt": prompt, "raw": True, **_build_options(parameters)}


def build_embed_request(
    texts: Sequence[str], model: str, dimensions: int | None = None, *, truncate: bool = False
) -> dict[str, Any]:
    """
    Return the body of ``POST /api/embed``.

    The server refuses a text that is too long for the model, unless ``truncate`` is true.
    """
    body = {"model": model, "input": list(texts), "truncate": truncate}
    return body if dimensions is None else {**body, "dimensions": dimensions}


def _encode_message(
    message: ChatMessage, names: Mapping[str, str], *, uses_tools: bool = False
) -> dict[str, Any]:
    encoded: dict[str, Any] = {"role": message.role, "content": message.content}
    if uses_tools:  # the thinking that preceded a call
        for block in message.reasoning_blocks:
            encoded |= block if set(block) == {"thinking"} else {}
    for attachment in message.attachments:
        raise reject(attachment, "Ollama")
    if message.images:
        encoded["images"] = [image.base64 for image in message.images]
    if message.tool_calls:
        encoded["tool_calls"] = [
            {"function": {"name": call.name, "arguments": encode_arguments(call)}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        encoded["tool_name"] = names.get(message.tool_call_id, message.tool_call_id)
    return encoded


def _encode_tools(parameters: ModelParameters) -> dict[str, Any]:
    if not parameters.tools:
        return {}
    tools = [{"type": "function", "function": build_function(tool)} for tool in parameters.tools]
    return {"tools": tools}


def _build_options(parameters: ModelParameters) -> dict[str, Any]:
    extra = dict(parameters.extra_body)
    options = {
        theirs: value
        for ours, theirs in _OPTIONS.items()
        if (value := getattr(parameters, ours)) is not None
    }
    if parameters.stop:
        options["stop"] = list(parameters.stop)
    options |= extra.pop("options", {})
    body: dict[str, Any] = {"stream": True, **({"options": options} if options else {})}
    body |= _forbid_truncation(extra)
    if parameters.schema is not None:
        compilation = compile_schema(parameters.schema, GRAMMAR)
        body["format"] = compilation.schema if compilation else dict(parameters.schema)
    if parameters.logprobs is not None:
        body |= build_fields(parameters.logprobs, MAX_LOGPROBS)
    if parameters.reasoning is not None:
        body["think"] = _think_value(parameters.reasoning)
    return {**body, **extra}


def _think_value(reasoning: bool | str) -> bool | str:
    """Return the value of ``think``; the server knows ``max``, but no other further levels."""
    return {"minimal": "low", "xhigh": "max"}.get(str(reasoning), reasoning)


def _forbid_truncation(extra: Mapping[str, Any]) -> dict[str, bool]:
    """
    Return fields by which the server refuses a prompt that is too long, unless ``extra`` truncates
    it.

    By default the server silently drops the oldest messages or the end of a prompt (``truncate``),
    and the oldest tokens during the generation (``shift``).
    """
    if extra.get("truncate"):
        return {}
    return {"truncate": False, "shift": False}


class ChunkDecoder:
    """Decodes the bytes of a streamed answer to chunks, both for chat and for generate."""

    def __init__(
        self, taken: Iterable[str] = (), origin: str = "", *, has_tools: bool = False
    ) -> None:
        """
        Prepare for one answer.

        Args:
            taken: the ids of earlier calls in the conversation.
            origin: the server and model, with which reasoning blocks are marked.
            has_tools: whether to return the thinking also for an answer without calls.
        """
        self._origin = origin
        self._thoughts: list[str] = []
        self._wants_thoughts = has_tools
        self._lines = NewlineSplitter()
        self._ids = CallIds(taken)
        self.finished = False

    def feed(self, data: bytes, elapsed_s: float) -> Iterator[StreamChunk]:
        """Yield the chunks that ``data``, received at ``elapsed_s``, completes."""
        return self._chunks(self._lines.feed(data), elapsed_s)

    def flush(self, elapsed_s: float) -> Iterator[StreamChunk]:
        """Yield the remaining chunks at the end of the stream."""
        return self._chunks(self._lines.flush(), elapsed_s)

    def decode_body(self, body: dict[str, Any], elapsed_s: float) -> list[StreamChunk]:
        """Return the chunks of an answer that is not streamed but one JSON body."""
        return [self._chunk(body, elapsed_s)]

    def _chunks(self, lines: Sequence[bytes], elapsed_s: float) -> Iterator[StreamChunk]:
        for line in lines:
            if line.strip():
                yield self._chunk(decode_json(line), elapsed_s)

    def _chunk(self, event: dict[str, Any], elapsed_s: float) -> StreamChunk:
        if "error" in event:
            raise InStreamError(event)
        message = event.get("message") or event
        done = bool(event.get("done"))
        self.finished = self.finished or done
        calls = tuple(self._call(call) for call in message.get("tool_calls") or ())
        thinking = message.get("thinking") or ""
        if thinking:
            self._thoughts.append(thinking)
        tokens = event.get("logprobs")
        return StreamChunk(
            message.get("content") or message.get("response") or "",
            thinking,
            elapsed_s,
            (event.get("done_reason") or "stop") if done else None,
            _parse_usage(event) if done else None,
            _parse_timings(event) if done else None,
            event,
            calls,
            self._returned(has_calls=bool(calls), done=done) if self._thoughts else (),
            # Those of thinking are not part of the answer.
            logprobs=parse_tokens(tokens) if tokens and not thinking else (),
        )

    def _returned(self, *, has_calls: bool, done: bool) -> tuple[ReasoningBlock, ...]:
        """Return the thinking so far, if calls follow it or an answer with tools has ended."""
        if not has_calls and not (done and self._wants_thoughts):
            return ()
        block = ReasoningBlock({"thinking": "".join(self._thoughts)}, self._origin)
        self._thoughts = []
        return (block,)

    def _call(self, call: Mapping[str, Any]) -> ToolCall:
        """Parse a call. Calls are never split between events; old servers send no id."""
        function = call.get("function") or {}
        arguments = function.get("arguments")
        return ToolCall(
            self._ids.make_unique(call.get("id") or ""),
            function.get("name") or "",
            serialize_arguments(arguments) or "{}",
        )


def _parse_usage(event: Mapping[str, Any]) -> Usage:
    # Not always the length of the prompt: from 0.30 on, the count excludes cached tokens, and older
    # servers omit it if the whole prompt was cached.
    return Usage(event.get("prompt_eval_count"), event.get("eval_count"))


def _parse_timings(event: Mapping[str, Any]) -> EngineTimings:
    """Return the server's timings. Durations are in nanoseconds; those of zero are omitted."""
    load, prompt, generation = (
        event.get(name) for name in ("load_duration", "prompt_eval_duration", "eval_duration")
    )
    return EngineTimings(
        load_s=load / 1e9 if load else None,
        prompt_s=prompt / 1e9 if prompt else None,
        generation_s=generation / 1e9 if generation else None,
    )


def parse_embeddings(reply: Mapping[str, Any]) -> Embeddings:
    """
    Return the vectors of an answer; an invalid vector becomes NaN.

    Raises:
        ValueError: the list of vectors is missing.
    """
    vectors = reply.get("embeddings") or []
    if not isinstance(vectors, list):
        msg = "a response without a list of vectors"
        raise ValueError(msg)  # noqa: TRY004 (invalid data, not an invalid argument)
    return Embeddings.of_rows(vectors, Usage(reply.get("prompt_eval_count")))
