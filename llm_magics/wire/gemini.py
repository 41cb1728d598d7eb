"""
The format of requests of Google's Gemini API; `llm_magics.wire.gemini_answers` reads the answers.

In a request, the roles of user and model alternate, all results of a batch of calls are in one
turn, and thought signatures are sent back unchanged in the part with which they arrived.

Sources (November 2026): https://ai.google.dev/api/generate-content,
https://ai.google.dev/gemini-api/docs/thought-signatures, /structured-output and /function-calling,
and google-genai 3.6.1.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from mimetypes import guess_type
from typing import Any
from urllib.parse import urlsplit

from llm_magics.attachments import Image, ReasoningBlock, Sound
from llm_magics.documents import TEXT_TYPES, Attachment, Document
from llm_magics.errors import ConfigurationError
from llm_magics.parameters import ModelParameters, Tool
from llm_magics.types import ChatMessage, ToolCall
from llm_magics.wire.gemini_thinking import encode_thinking, find_version, output_limit
from llm_magics.wire.logprobs import MAX_LOGPROBS
from llm_magics.wire.schema_dialects import GEMINI, compile_schema, convert_tool_schema
from llm_magics.wire.tool_calls import encode_arguments
from llm_magics.wire.web_search import GEMINI_TOOL

SIGNATURE = "thoughtSignature"

# Fields of parts other than text and calls; such parts are sent back as they arrived.
_OTHER_PARTS = frozenset(
    {"codeExecutionResult", "executableCode", "fileData", "inlineData", "toolCall", "toolResponse"}
)

# The documented signature for calls that another model made, which Gemini 3 and later require.
FOREIGN_SIGNATURE = "skip_thought_signature_validator"

# The user turn that is inserted before a conversation that starts with an answer.
_BLANK = {"text": "(blank)"}

# Parameters in `extra_body` that belong into `generationConfig`.
_CONFIG_FIELDS = frozenset(
    {
        "frequencyPenalty",
        "mediaResolution",
        "presencePenalty",
        "responseModalities",
        "thinkingConfig",
        "topK",
    }
)

_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def is_returned(part: Mapping[str, Any]) -> bool:
    """Return whether ``part`` of an answer must be sent back with it."""
    return bool(part.get(SIGNATURE)) or not _OTHER_PARTS.isdisjoint(part)


def build_request(
    messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
) -> dict[str, Any]:
    """Return the body of ``POST /models/MODEL:streamGenerateContent``."""
    body: dict[str, Any] = {"contents": _build_contents(messages, model)}
    system = "\n\n".join(
        each.content for each in messages if each.role == "system" and each.content.strip()
    )
    if system:
        body["systemInstruction"] = {"parts": [{"text": system}], "role": "user"}
    body |= _encode_tools(parameters)
    config = _encode_config(model, parameters) | encode_thinking(model, parameters)
    if config:
        body["generationConfig"] = config
    if parameters.tier:
        body["serviceTier"] = parameters.tier
    return _add_extra(body, parameters.extra_body)


def build_count_request(
    messages: Sequence[ChatMessage],
    model: str,
    parameters: ModelParameters,
    *,
    is_nested: bool = True,
) -> dict[str, Any]:
    """
    Return the body of ``POST /models/MODEL:countTokens``.

    Vertex AI counts the fields themselves; the Gemini API counts those of a nested request.
    """
    body = build_request(messages, model, parameters)
    counted = ("contents", "systemInstruction", "tools")
    request = {name: body[name] for name in counted if name in body}
    if not is_nested:
        return request
    return {"generateContentRequest": {"model": resource_name(model), **request}}


def build_embedding_request(
    texts: Sequence[str], model: str, dimensions: int | None = None
) -> dict[str, Any]:
    """Return the body of ``POST /models/MODEL:batchEmbedContents``."""
    options: dict[str, Any] = {} if dimensions is None else {"outputDimensionality": dimensions}
    name = resource_name(model)
    requests = [
        {"model": name, "content": {"parts": [{"text": text}], "role": "user"}, **options}
        for text in texts
    ]
    return {"requests": requests}


def resource_name(model: str) -> str:
    """
    Return the name of a model in addresses.

    >>> resource_name("gemini-3.8-flash"), resource_name("tunedModels/mine")
    ('models/gemini-3.8-flash', 'tunedModels/mine')
    """
    return model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"


def _encode_config(model: str, parameters: ModelParameters) -> dict[str, Any]:
    config: dict[str, Any] = {
        "temperature": parameters.temperature,
        "topP": parameters.top_p,
        "maxOutputTokens": output_limit(model, parameters),
        "seed": parameters.seed,
        "stopSequences": list(parameters.stop) or None,
    }
    config = {name: value for name, value in config.items() if value is not None}
    if parameters.logprobs is not None:
        config["responseLogprobs"] = True
        if parameters.logprobs:
            config["logprobs"] = min(parameters.logprobs, MAX_LOGPROBS)
    if parameters.schema is not None:
        compilation = compile_schema(parameters.schema, GEMINI)
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = (
            compilation.schema if compilation else dict(parameters.schema)
        )
    return config


def _add_extra(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """
    Add the user's own fields to ``body``; those of the configuration to the configuration.

    Their names may also be written in snake case, as in Python.
    """
    named = {_camel_case(name): value for name, value in extra.items()}
    own = {name: value for name, value in named.items() if name in _CONFIG_FIELDS}
    rest = {name: value for name, value in named.items() if name not in _CONFIG_FIELDS}
    if isinstance(config := rest.get("generationConfig", {}), Mapping) and (own or config):
        rest["generationConfig"] = {**body.get("generationConfig", {}), **own, **config}
    return {**body, **rest}


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def _encode_tools(parameters: ModelParameters) -> dict[str, Any]:
    tools: list[dict[str, Any]] = []
    if parameters.tools:
        tools.append({"functionDeclarations": [*map(_encode_tool, parameters.tools)]})
    if parameters.search:
        tools.append(dict(GEMINI_TOOL))
    if not tools:
        return {}
    config: dict[str, Any] = {}
    if parameters.tools and parameters.search:  # required to combine both
        config["includeServerSideToolInvocations"] = True
    if parameters.tools and (choice := parameters.tool_choice):
        calling: dict[str, Any] = {"mode": _MODES.get(choice, "ANY")}
        if choice not in _MODES:
            calling["allowedFunctionNames"] = [choice]
        config["functionCallingConfig"] = calling
    return {"tools": tools, **({"toolConfig": config} if config else {})}


def _encode_tool(tool: Tool) -> dict[str, Any]:
    declaration = {
        "name": tool.name,
        "description": tool.description,
        "parametersJsonSchema": convert_tool_schema(tool.parameters),
    }
    return {name: value for name, value in declaration.items() if value}


def _build_contents(messages: Sequence[ChatMessage], model: str) -> list[dict[str, Any]]:
    """Return the turns of ``messages``, with consecutive messages of one role merged."""
    contents: list[dict[str, Any]] = []
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    for message in messages:
        if message.role == "system":
            continue
        role = "model" if message.role == "assistant" else "user"
        parts = _encode_message(message, names, model)
        if role == "model" and _needs_signatures(model):
            _sign_first_call(parts)
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"parts": parts, "role": role})
    for content in contents:
        if content["role"] == "user":
            content["parts"].sort(key=lambda part: "functionResponse" not in part)
    if contents and contents[0]["role"] == "model":
        contents.insert(0, {"parts": [dict(_BLANK)], "role": "user"})
    return contents


def _encode_message(
    message: ChatMessage, names: Mapping[str, str], model: str
) -> list[dict[str, Any]]:
    if message.role == "assistant":
        return list(_encode_answer(message))
    if message.role == "tool":
        return _encode_result(message, names, model)
    media = (*message.attachments, *message.images)
    return [*map(_encode_media, media), *_text(message.content)]


def _text(text: str) -> list[dict[str, Any]]:
    return [{"text": text}] if text.strip() else []


def _encode_answer(message: ChatMessage) -> Iterator[dict[str, Any]]:
    """Yield text and calls of an answer, with signatures and other parts at their positions."""
    yield from map(_encode_media, (*message.attachments, *message.images))
    content, calls = message.content, message.tool_calls
    text_at = calls_at = 0
    for block in map(ReasoningBlock.of, message.reasoning_blocks):
        if "type" in block or not is_returned(block):
            continue  # of another service
        text_to, calls_to = block.at
        yield from _text(content[text_at:text_to])
        yield from map(_encode_call, calls[calls_at:calls_to])
        text_at, calls_at = max(text_at, text_to), max(calls_at, calls_to)
        if "functionCall" in block:
            if calls_at < len(calls):
                yield {**_encode_call(calls[calls_at]), SIGNATURE: block[SIGNATURE]}
                calls_at += 1
        elif "text" in block and not block.get("thought"):
            signed = str(block["text"])
            signed = signed if content.startswith(signed, text_at) else ""  # it was changed
            text_at += len(signed)
            yield {"text": signed, SIGNATURE: block[SIGNATURE]}
        else:
            yield dict(block)
    yield from _text(content[text_at:])
    yield from map(_encode_call, calls[calls_at:])


def _encode_call(call: ToolCall) -> dict[str, Any]:
    return {"functionCall": {"id": call.id, "args": encode_arguments(call), "name": call.name}}


def _encode_result(
    message: ChatMessage, names: Mapping[str, str], model: str
) -> list[dict[str, Any]]:
    """Return the parts with the result of a call; images are in it since Gemini 3."""
    call_id = message.tool_call_id
    result: dict[str, Any] = {
        "id": call_id,
        "name": names.get(call_id, call_id),
        "response": {"output": message.content},
    }
    images = [*map(_encode_media, message.images)]
    if images and (find_version(model) or (0, 0)) >= (3, 0):
        result["parts"], images = images, []
    return [{"functionResponse": result}, *images]


def encode_inline(data: bytes, media_type: str) -> dict[str, Any]:
    """Return the part with a file: an image, a document or audio."""
    return {
        "inlineData": {"data": base64.b64encode(data).decode(), "mimeType": media_type},
    }


def _encode_media(image: Attachment) -> dict[str, Any]:
    """Return the part of an image, a document or audio; they are accepted in the same place."""
    if isinstance(image, Sound):
        return encode_inline(image.data, image.media_type)
    if isinstance(image, Document) and image.data:
        text_type = "text/plain" if image.media_type in TEXT_TYPES else image.media_type
        return encode_inline(image.data, text_type)
    if image.url:
        media_type, _ = guess_type(urlsplit(image.url).path)
        if media_type is None:
            msg = (
                f"Gemini needs the type of the file at {image.url}, but its name has no extension."
            )
            raise ConfigurationError(msg, hint="Download it first, and pass its bytes or path.")
        return {"fileData": {"fileUri": image.url, "mimeType": media_type}}
    assert isinstance(image, Image)
    return encode_inline(image.data, _media_type(image))


def _media_type(image: Image) -> str:
    if image.data.startswith(b"%PDF-"):
        return "application/pdf"
    try:
        return image.media_type
    except ConfigurationError:
        try:
            return Sound(image.data).media_type
        except ConfigurationError:
            msg = "Unknown file format."
            hint = "Use PNG, JPEG, GIF, WebP, PDF, MP3, M4A, WAV, FLAC or Ogg."
            raise ConfigurationError(msg, hint=hint) from None


def _needs_signatures(model: str) -> bool:
    """Return whether ``model`` may refuse calls without a signature, as all do since Gemini 3."""
    version = find_version(model)
    return version is None or version >= (3, 0)


def _sign_first_call(parts: list[dict[str, Any]]) -> None:
    """Add the signature for foreign calls to the first call, if it has none."""
    first = next((part for part in parts if "functionCall" in part), None)
    if first is not None:
        first.setdefault(SIGNATURE, FOREIGN_SIGNATURE)


def has_signatures(body: Mapping[str, Any]) -> bool:
    """Return whether a request sends signatures of the service back."""
    return any(
        part.get(SIGNATURE, FOREIGN_SIGNATURE) != FOREIGN_SIGNATURE
        for content in body["contents"]
        for part in content["parts"]
    )


def remove_signatures(body: dict[str, Any]) -> None:
    """Remove all signatures, and mark the first call of each answer as foreign."""
    for content in body["contents"]:
        if content["role"] != "model":
            continue
        parts = [
            {name: value for name, value in part.items() if name != SIGNATURE}
            for part in content["parts"]
            if not part.get("thought")
        ]
        content["parts"] = [part for part in parts if part != {"text": ""}] or [dict(_BLANK)]
        _sign_first_call(content["parts"])


def move_system_message(body: dict[str, Any]) -> None:
    """Put the system message into the first turn, for models without system messages (Gemma)."""
    parts = body.pop("systemInstruction")["parts"]
    body["contents"][0]["parts"] = [*parts, *body["contents"][0]["parts"]]
