"""
OpenAI's chat and completion formats, as used by OpenAI and by compatible services.

Source: https://platform.openai.com/docs/api-reference/chat, and llama.cpp's ``tools/server``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import repeat
from typing import Any

from llm_magics.documents import Attachment, Document, reject
from llm_magics.parameters import ModelParameters
from llm_magics.types import (
    ChatMessage,
    EngineTimings,
    StreamChunk,
    TokenLogprob,
    Usage,
)
from llm_magics.wire import logprobs, openai_reasoning
from llm_magics.wire.decoders import (
    DONE,
    EventChunkDecoder,
    InStreamError,
    ServerEvent,
    count_reasoning_tokens,
    decode_json,
    is_error_body,
)
from llm_magics.wire.schema_dialects import (
    OPENAI,
    Dialect,
    build_function,
    compile_schema,
)
from llm_magics.wire.thinking import EFFORT, ThinkingDialect, add_thinking
from llm_magics.wire.tool_calls import ToolCallAssembler, mark_tool_turns
from llm_magics.wire.web_search import (
    OPENROUTER_TOOL,
    SOURCE_FIELDS,
    ChatSources,
    count_chat_searches,
)


def build_chat_request(
    messages: Sequence[ChatMessage],
    model: str,
    parameters: ModelParameters,
    dialect: Dialect = OPENAI,
    thinking: ThinkingDialect = EFFORT,
) -> dict[str, Any]:
    """Return the body of ``POST /chat/completions``, in the service's dialects."""
    body = {
        "model": model,
        "messages": encode_messages(messages),
        **_build_chat_options(parameters, dialect),
        **build_tier(parameters),
        **_build_options(parameters),
    }
    if parameters.logprobs is not None:
        body = {**logprobs.build_fields(parameters.logprobs), **body}
    return add_thinking(body, thinking, parameters.reasoning)


def encode_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return the messages of a request. Images of a tool's result follow in a user message, as tools have none."""
    encoded: list[dict[str, Any]] = []
    pictures: list[dict[str, Any]] = []
    # Only the reasoning that is sent back depends on the turn.
    has_reasoning = any(message.reasoning_blocks for message in messages)
    tool_turns = mark_tool_turns(messages) if has_reasoning else repeat(False, len(messages))
    for message, uses_tools in zip(messages, tool_turns, strict=True):
        if message.role != "tool" and pictures:
            encoded.append({"role": "user", "content": pictures})
            pictures = []
        encoded.append(_encode_message(message, uses_tools=uses_tools))
        if message.role == "tool":
            pictures = pictures + _encode_images(message)
    return [*encoded, {"role": "user", "content": pictures}] if pictures else encoded


# The audio formats of the API, by media type.
_AUDIO_FORMATS = {"audio/wav": "wav", "audio/mpeg": "mp3"}


def _encode_images(message: ChatMessage) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": image.as_url}} for image in message.images]


def _encode_attachment(attachment: Attachment) -> dict[str, Any]:
    if isinstance(attachment, Document) and attachment.data:
        file = {"filename": attachment.file_name, "file_data": attachment.as_url}
        return {"type": "file", "file": file}
    kind = _AUDIO_FORMATS.get(attachment.media_type)
    if kind is None:
        raise reject(attachment, "The Chat Completions API")
    audio = {"data": attachment.base64, "format": kind}
    return {"type": "input_audio", "input_audio": audio}


def _encode_message(message: ChatMessage, *, uses_tools: bool = False) -> dict[str, Any]:
    encoded: dict[str, Any] = {"role": message.role, "content": message.content}
    if (message.images or message.attachments) and message.role != "tool":
        text = [{"type": "text", "text": message.content}] if message.content else []
        files = map(_encode_attachment, message.attachments)
        encoded["content"] = [*text, *files, *_encode_images(message)]
    if message.reasoning_blocks:
        encoded |= openai_reasoning.build_message_fields(message, uses_tools=uses_tools)
    if message.tool_calls:
        encoded["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments_text or "{}"},
                **openai_reasoning.build_call_fields(message, call.id),
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        encoded["tool_call_id"] = message.tool_call_id
    return encoded


def build_tier(parameters: ModelParameters) -> dict[str, str]:
    """Return the parameter for the tier, if one is requested."""
    return {"service_tier": parameters.tier} if parameters.tier else {}


def build_schema_format(schema: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Return the name, the schema and the ``strict`` flag of an answer format."""
    compilation = compile_schema(schema, dialect)
    format_: dict[str, Any] = {
        "name": "answer",
        "schema": compilation.schema if compilation else dict(schema),
    }
    return {**format_, "strict": True} if compilation and compilation.is_strict else format_


def _build_chat_options(parameters: ModelParameters, dialect: Dialect) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    tools: list[dict[str, Any]] = [
        {"type": "function", "function": build_function(tool)} for tool in parameters.tools
    ]
    if parameters.search:
        tools.append(dict(OPENROUTER_TOOL))
    if tools:
        fields["tools"] = tools
    choice = parameters.tool_choice
    if choice:
        named = {"type": "function", "function": {"name": choice}}
        fields["tool_choice"] = choice if choice in ("auto", "none", "required") else named
    if parameters.schema is not None:
        format_ = build_schema_format(parameters.schema, dialect)
        fields["response_format"] = {"type": "json_schema", "json_schema": format_}
    return fields


def build_completion_request(
    prompt: str, model: str, parameters: ModelParameters
) -> dict[str, Any]:
    """Return the body of ``POST /completions``."""
    body = {"model": model, "prompt": prompt, **_build_options(parameters)}
    return body if parameters.logprobs is None else {"logprobs": parameters.logprobs, **body}


def _build_options(parameters: ModelParameters) -> dict[str, Any]:
    options = {
        "temperature": parameters.temperature,
        "max_tokens": parameters.max_tokens,
        "top_p": parameters.top_p,
        "seed": parameters.seed,
        "stop": list(parameters.stop) or None,
    }
    return {
        "stream": True,
        "stream_options": {"include_usage": True},
        **{name: value for name, value in options.items() if value is not None},
        **parameters.extra_body,
    }


class ChunkDecoder(EventChunkDecoder):
    """
    Decodes the bytes of a streamed answer to chunks, both for chats and for completions.

    ``finished`` is true after the service has marked the answer as complete.
    """

    def __init__(
        self, names: Collection[str] = (), taken: Iterable[str] = (), origin: str = ""
    ) -> None:
        """
        Prepare for one answer.

        Args:
            names: the tools that the answer may call.
            taken: the ids of earlier calls in the conversation.
            origin: the service and model, with which reasoning blocks are marked.
        """
        super().__init__()
        self._calls = ToolCallAssembler(names, taken)
        self._thoughts = openai_reasoning.ReasoningCollector(origin, has_tools=bool(names))
        self._is_refused = False
        self._tier: str | None = None
        self._sources = ChatSources()

    def flush(self, elapsed_s: float) -> Iterator[StreamChunk]:
        """Yield the remaining chunks at the end of the stream."""
        with suppress(ValueError):  # an unfinished event is not JSON
            yield from super().flush(elapsed_s)
        yield from self._left_over(elapsed_s)

    def decode_body(self, body: dict[str, Any], elapsed_s: float) -> list[StreamChunk]:
        """Return the chunks of an answer that is not streamed but one JSON body."""
        if not isinstance(body.get("choices"), list):
            raise InStreamError(body)
        self.finished = True
        return [self._chunk(body, elapsed_s), *self._left_over(elapsed_s)]

    def _left_over(self, elapsed_s: float) -> list[StreamChunk]:
        """Return the last chunks of an answer without a finish reason: calls, or a refusal."""
        calls, reason = self._calls.take(), "refusal" if self._is_refused else None
        blocks = self._thoughts.take(self._calls.extras)
        citations = self._sources.take()
        if not calls and not reason and not blocks and not citations:
            return []
        last = StreamChunk("", "", elapsed_s, reason, None, None, None, calls, blocks)
        return [last._replace(citations=citations)]

    def _read(self, event: ServerEvent, elapsed_s: float) -> StreamChunk | None:
        if event.data.startswith(DONE):
            self.finished = True
            return None
        body = decode_json(event.data) if event.data.strip() else None
        if is_error_body(body) or (event.name == b"error" and body):
            if not isinstance(body, dict) or not body.get("choices"):
                raise InStreamError(body)
            chunk = self._chunk(body, elapsed_s)  # the last piece of the answer, with the error
            self.finished, self.failure = True, body
            return chunk
        if not isinstance(body, dict):
            return None
        return self._chunk(body, elapsed_s)

    def _fail(self, error: Any) -> None:
        """Store the error of a choice, as OpenRouter sends it, to raise it after the chunk."""
        self.finished = True
        self.failure = {"error": error}

    def _add_calls(self, delta: Mapping[str, Any]) -> bool:
        """Add the pieces of tool calls in ``delta``, and return whether there are any."""
        pieces = list(delta.get("tool_calls") or ())
        if old := delta.get("function_call"):  # deprecated form of tool calls
            pieces += [{"function": old}] if old.get("name") or old.get("arguments") else []
        for call in pieces:
            function = call.get("function") or call
            index, call_id = call.get("index"), call.get("id")
            name, arguments = function.get("name"), function.get("arguments")
            self._calls.add(
                index, call_id, name, arguments, openai_reasoning.extract_call_fields(call)
            )
        return bool(pieces)

    def _beside_content(
        self, choice: Mapping[str, Any], delta: Mapping[str, Any], text: str, thought: str
    ) -> tuple[str, str, str]:
        """Read the refusal, thinking and calls of a delta; return text, reasoning and kind."""
        piece = ""
        if refusal := delta.get("refusal"):
            self._is_refused, text = True, text or refusal
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or thought
        if not reasoning and delta.get("reasoning_details"):
            reasoning, piece = _join_details(delta["reasoning_details"])
        if not self._thoughts.known.isdisjoint(delta):
            self._thoughts.add(delta, is_whole="message" in choice)
        if delta.get("annotations"):
            self._sources.annotate(delta["annotations"])
        has_calls = delta.get("tool_calls") or delta.get("function_call")
        if has_calls and self._add_calls(delta):
            piece = "tool_call"
        return text, reasoning, piece

    def _chunk(self, event: dict[str, Any], elapsed_s: float) -> StreamChunk:
        text = reasoning = piece = ""
        finish_reason = None
        tokens: tuple[TokenLogprob, ...] = ()
        for choice in event.get("choices") or ():
            if choice.get("index"):  # additional answers to the prompt are ignored
                continue
            delta = choice.get("delta") or choice.get("message") or choice
            text, thought = _split_content(delta.get("content"))
            text = text or delta.get("text") or ""
            self._sources.text.append(text)
            finish_reason = choice.get("finish_reason")
            reasoning = thought
            if not _BESIDE_CONTENT.isdisjoint(delta):
                text, reasoning, piece = self._beside_content(choice, delta, text, thought)
            # Those of thinking are not part of the answer.
            if choice.get("logprobs") is not None and (text or not reasoning):
                tokens = logprobs.parse_choice(choice, text)
            error = choice.get("error") or (finish_reason == "error" and delta.get("error"))
            if error:
                self._fail(error)
        if finish_reason:
            self.finished = True
            if self._is_refused:
                finish_reason, self._is_refused = "refusal", False
        if not SOURCE_FIELDS.isdisjoint(event):
            self._sources.add(event)
        usage = event.get("usage")
        self._tier = event.get("service_tier") or self._tier
        timings = event.get("timings") or event.get("stats")
        calls = self._calls.take() if finish_reason else ()
        chunk = StreamChunk(
            text,
            reasoning,
            elapsed_s,
            finish_reason,
            _parse_usage(usage, self._tier) if usage else None,
            _parse_timings(timings) if timings else None,
            event,
            calls,
            self._thoughts.take(self._calls.extras) if finish_reason else (),
            piece,
            logprobs=tokens,
        )
        citations = self._sources.take() if finish_reason else ()
        return chunk._replace(citations=citations) if citations else chunk


# The fields of a delta other than its content. Most deltas have none; one check is faster than
# several.
_BESIDE_CONTENT = openai_reasoning.ReasoningCollector.known | {
    "annotations", "refusal", "reasoning", "reasoning_content", "reasoning_details", "tool_calls",
    "function_call",
}  # fmt: skip

# The types of parts in a list of content; any other list is an answer in JSON.
_PARTS = frozenset(
    ["text", "output_text", "thinking", "refusal", "reference", "tool_reference", "image_url",
     "document_url", "input_audio", "file"]
)  # fmt: skip


def _split_content(content: Any) -> tuple[str, str]:
    """
    Return the text and the thinking in the content of a delta or message.

    Mistral sends a list of both; Cloudflare sends an answer with a schema as the JSON value itself.
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


def _join_details(details: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """
    Return the text of OpenRouter's reasoning details, and ``summary`` if all of it are summaries.

    Encrypted reasoning has no text.
    """
    texts = [each.get("text") or "" for each in details]
    summaries = [each.get("summary") or "" for each in details]
    words = "".join(text or summary for text, summary in zip(texts, summaries, strict=True))
    return words, "summary" if any(summaries) and not any(texts) else ""


def _parse_usage(usage: Mapping[str, Any], tier: str | None) -> Usage:
    details = usage.get("prompt_tokens_details") or {}
    # DeepSeek and Moonshot have the cached tokens outside the details.
    outside = usage.get("prompt_cache_hit_tokens", usage.get("cached_tokens"))
    cached = details.get("cached_tokens", outside)
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    thought = count_reasoning_tokens(usage)
    if thought and usage.get("total_tokens") == (read or 0) + (written or 0) + thought:
        written = (written or 0) + thought  # xAI excludes them from the answer's tokens
    return Usage(read, written, cached, None, thought, tier, count_chat_searches(usage))


def _parse_timings(timings: Mapping[str, Any]) -> EngineTimings:
    """Return the server's timings: llama.cpp's are in milliseconds, LM Studio's in seconds."""
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
