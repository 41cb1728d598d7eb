"""
Ollama's own format: one JSON object a line.

Source: ``api/types.go`` and ``docs/api.md`` of ollama, and traffic of a 0.24 server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_magics.media import ToolCall
from llm_magics.types import (
    ChatMessage,
    Embeddings,
    EngineTimings,
    ModelParameters,
    StreamChunk,
    Usage,
)
from llm_magics.wire.decoding import decoded
from llm_magics.wire.errors import InStreamError
from llm_magics.wire.lines import NewlineSplitter
from llm_magics.wire.schema_dialects import GRAMMAR, compiled, tool_parameters

# Ours to Ollama's names; they go into "options".
_OPTIONS = {
    "temperature": "temperature",
    "max_tokens": "num_predict",
    "top_p": "top_p",
    "seed": "seed",
}


def chat_request(
    messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
) -> dict[str, Any]:
    """The body of ``POST /api/chat``."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    return {
        "model": model,
        "messages": [_message(message, names) for message in messages],
        **_tools(parameters),
        **_common(parameters),
    }


def generate_request(prompt: str, model: str, parameters: ModelParameters) -> dict[str, Any]:
    """The body of ``POST /api/generate``, for the raw continuation of a text."""
    return {"model": model, "prompt": prompt, "raw": True, **_common(parameters)}


def embed_request(
    texts: Sequence[str], model: str, dimensions: int | None = None, *, truncate: bool = False
) -> dict[str, Any]:
    """
    Return the body of ``POST /api/embed``.

    The server refuses a text that is longer than the model reads, unless ``truncate``.
    """
    body = {"model": model, "input": list(texts), "truncate": truncate}
    return body if dimensions is None else {**body, "dimensions": dimensions}


def _message(message: ChatMessage, names: Mapping[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        made["images"] = [image.base64 for image in message.images]
    if message.tool_calls:
        made["tool_calls"] = [
            {"function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        made["tool_name"] = names.get(message.tool_call_id, message.tool_call_id)
    return made


def _tools(parameters: ModelParameters) -> dict[str, Any]:
    if not parameters.tools:
        return {}
    functions = [
        {**tool.as_dict(), "parameters": tool_parameters(tool.parameters)}
        for tool in parameters.tools
    ]
    return {"tools": [{"type": "function", "function": each} for each in functions]}


def _common(parameters: ModelParameters) -> dict[str, Any]:
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
    body |= _within_context(extra)
    if parameters.schema is not None:
        made = compiled(parameters.schema, GRAMMAR)
        body["format"] = made.schema if made else dict(parameters.schema)
    if parameters.reasoning is not None:
        body["think"] = parameters.reasoning
    return {**body, **extra}


def _within_context(extra: Mapping[str, Any]) -> dict[str, bool]:
    """
    Refuse what does not fit into the context, unless ``extra`` asks for a cut.

    By default the server drops the oldest messages or the end of a prompt (``truncate``), and
    the oldest tokens while it generates (``shift``), without saying so.
    """
    if extra.get("truncate"):
        return {}
    return {"truncate": False, "shift": False}


class ChunkDecoder:
    """The bytes of a streamed answer into chunks, of chat and generate alike."""

    def __init__(self) -> None:
        self._lines = NewlineSplitter()
        self._calls = 0
        self.finished = False

    def feed(self, data: bytes, elapsed_s: float) -> Iterator[StreamChunk]:
        """The chunks that ``data``, read at ``elapsed_s``, completes."""
        return self._chunks(self._lines.feed(data), elapsed_s)

    def flush(self, elapsed_s: float) -> Iterator[StreamChunk]:
        """What is left when the stream has ended."""
        return self._chunks(self._lines.flush(), elapsed_s)

    def whole(self, body: dict[str, Any], elapsed_s: float) -> list[StreamChunk]:
        """The chunks of an answer that came as one JSON body."""
        return [self._chunk(body, elapsed_s)]

    def _chunks(self, lines: Sequence[bytes], elapsed_s: float) -> Iterator[StreamChunk]:
        for line in lines:
            if line.strip():
                yield self._chunk(decoded(line), elapsed_s)

    def _chunk(self, event: dict[str, Any], elapsed_s: float) -> StreamChunk:
        if "error" in event:
            raise InStreamError(event)
        message = event.get("message") or event
        done = bool(event.get("done"))
        self.finished = self.finished or done
        return StreamChunk(
            message.get("content") or message.get("response") or "",
            message.get("thinking") or "",
            elapsed_s,
            (event.get("done_reason") or "stop") if done else None,
            _usage(event) if done else None,
            _timings(event) if done else None,
            event,
            tuple(self._call(call) for call in message.get("tool_calls") or ()),
        )

    def _call(self, call: Mapping[str, Any]) -> ToolCall:
        """A call always comes whole; old servers give it no id."""
        function = call.get("function") or {}
        self._calls += 1
        arguments = function.get("arguments")
        return ToolCall(
            call.get("id") or f"call_{self._calls}",
            function.get("name") or "",
            arguments if isinstance(arguments, str) else json.dumps(arguments or {}),
        )


def _usage(event: Mapping[str, Any]) -> Usage:
    # Not the length of the prompt: from 0.30 on the count leaves out what came from the server's
    # cache, and older servers leave the count out where the whole prompt was cached.
    return Usage(event.get("prompt_eval_count"), event.get("eval_count"))


def _timings(event: Mapping[str, Any]) -> EngineTimings:
    """Durations come in nanoseconds, and are left out where they are nought."""
    load, prompt, generation = (
        event.get(name) for name in ("load_duration", "prompt_eval_duration", "eval_duration")
    )
    return EngineTimings(
        load_s=load / 1e9 if load else None,
        prompt_s=prompt / 1e9 if prompt else None,
        generation_s=generation / 1e9 if generation else None,
    )


def embeddings_of(reply: Mapping[str, Any]) -> Embeddings:
    """
    The vectors of an answer; one that cannot be read becomes NaN.

    Raises:
        ValueError: there is no list of vectors.
    """
    vectors = reply.get("embeddings") or []
    if not isinstance(vectors, list):
        msg = "an answer without a list of vectors"
        raise ValueError(msg)  # noqa: TRY004 (of what was sent, not of an argument)
    return Embeddings.of_rows(vectors, Usage(reply.get("prompt_eval_count")))
