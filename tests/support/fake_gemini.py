"""
Google's Gemini API without models: documented shapes and refusals.

It checks what it is sent as the service does; its text is made up from the prompt. Sources
(November 2026): https://ai.google.dev/api, google-genai 3.6.1, and the messages in public issues of
googleapis/python-genai, pydantic/pydantic-ai and vercel/ai.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.fake_openai import FakeOpenAI
from tests.support.schema_rules import sample, wrong_for_gemini
from tests.support.serving import Asked, Says, as_json

CHAT = "gemini-3.8-flash"
EMBED = "gemini-embedding-001"
KEY = "a-key-of-the-test"
_CHATS = ("generateContent", "countTokens")
# What each model can do, and whether it thinks.
MODELS: dict[str, tuple[tuple[str, ...], bool]] = {
    CHAT: (_CHATS, True),
    "gemini-2.0-flash": (_CHATS, False),
    "gemini-2.5-flash": (_CHATS, True),
    "gemini-2.5-pro": (_CHATS, True),
    "gemini-3.1-flash-lite": (_CHATS, True),
    "gemini-3.8-live": (("bidiGenerateContent",), True),
    EMBED: (("embedContent", "batchEmbedContents"), False),
    "gemini-embedding-2": (("embedContent", "batchEmbedContents"), False),
    "gemma-3-27b-it": (_CHATS, False),
    "imagen-4.0-generate-001": (("predict",), False),
}
USED = sorted(name for name, (methods, _) in MODELS.items() if {"generateContent", "embedContent"} & {*methods})  # fmt: skip
FOREIGN = "skip_thought_signature_validator"

# The names of the fields of each message; a value that is a message is named after the colon.
_ANY: dict[str, str] = {"*": ""}
_MESSAGES: dict[str, dict[str, str]] = {
    "request": {
        "model": "", "contents": "content", "systemInstruction": "content", "tools": "tool",
        "toolConfig": "toolConfig", "safetySettings": "any", "generationConfig": "config",
        "cachedContent": "", "serviceTier": "", "labels": "any",
    },
    "count": {"contents": "content", "generateContentRequest": "request"},
    "embed": {"requests": "embedding"},
    "embedding": {"model": "", "content": "content", "taskType": "", "title": "", "outputDimensionality": ""},
    "content": {"role": "", "parts": "part"},
    "part": {
        "text": "", "thought": "", "thoughtSignature": "", "inlineData": "blob", "fileData": "file",
        "functionCall": "call", "functionResponse": "response", "executableCode": "any",
        "codeExecutionResult": "any", "toolCall": "any", "toolResponse": "any", "mediaResolution": "any",
        "videoMetadata": "any",
    },
    "blob": {"mimeType": "", "data": ""},
    "file": {"mimeType": "", "fileUri": ""},
    "call": {"id": "", "name": "", "args": "any"},
    "response": {"id": "", "name": "", "response": "any", "parts": "part", "willContinue": "", "scheduling": ""},
    "tool": {"functionDeclarations": "declaration", "googleSearch": "any", "codeExecution": "any", "urlContext": "any"},
    "declaration": {
        "name": "", "description": "", "parameters": "any", "parametersJsonSchema": "any",
        "response": "any", "responseJsonSchema": "any", "behavior": "",
    },
    "toolConfig": {
        "functionCallingConfig": "calling", "retrievalConfig": "any", "includeServerSideToolInvocations": "",
    },
    "calling": {"mode": "", "allowedFunctionNames": ""},
    "config": {
        "stopSequences": "", "responseMimeType": "", "responseSchema": "any", "responseJsonSchema": "any",
        "responseModalities": "", "candidateCount": "", "maxOutputTokens": "", "temperature": "", "topP": "",
        "topK": "", "seed": "", "presencePenalty": "", "frequencyPenalty": "", "responseLogprobs": "",
        "logprobs": "", "speechConfig": "any", "thinkingConfig": "thinking", "imageConfig": "any",
        "mediaResolution": "",
    },
    "thinking": {"includeThoughts": "", "thinkingBudget": "", "thinkingLevel": ""},
    "create": {"batch": "batch"},
    "create embeddings": {"batch": "batch of embeddings"},
    "batch of embeddings": {"displayName": "", "inputConfig": "input of embeddings", "model": "", "priority": ""},
    "input of embeddings": {"fileName": "", "requests": "inlined embeddings"},
    "inlined embeddings": {"requests": "item of embeddings"},
    "item of embeddings": {"request": "embedding", "metadata": "any"},
    "batch": {"displayName": "", "inputConfig": "input", "model": "", "priority": ""},
    "input": {"fileName": "", "requests": "inlined"},
    "inlined": {"requests": "item"},
    "item": {"request": "request", "metadata": "any"},
    "any": _ANY,
}  # fmt: skip
_DATA = {"text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult", "toolCall", "toolResponse"}  # fmt: skip

# The levels of thinking, or the least and the largest budget and whether it may be 0.
LEVELS = {CHAT: {"LOW", "MEDIUM", "HIGH"}, "gemini-3.1-flash-lite": {"MINIMAL", "LOW", "MEDIUM", "HIGH"}}  # fmt: skip
BUDGETS = {"gemini-2.5-flash": (1, 24_576, True), "gemini-2.5-pro": (128, 32_768, False)}


def refusal(status: str, message: str, code: int, *details: dict[str, Any]) -> Says:
    """A refusal in Google's shape."""
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = list(details)
    return as_json({"error": error}, code)


def invalid(message: str, *details: dict[str, Any]) -> Says:
    """A refusal of an invalid request."""
    return refusal("INVALID_ARGUMENT", message, 400, *details)


def wrong_key() -> Says:
    """What the service says of a wrong key."""
    reason = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
        "metadata": {"service": "generativelanguage.googleapis.com"},
    }
    return invalid("API key not valid. Please pass a valid API key.", reason)


def quota(delay: str = "7s", per: str = "Minute") -> Says:
    """A used-up quota."""
    return refusal(
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details.",
        429,
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": f"GenerateRequestsPer{per}PerProjectPerModel-FreeTier"}],
        },
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    )


def event(body: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return f"data: {json.dumps(body)}\r\n\r\n".encode()


def unknown_names(value: Any, message: str, path: str = "") -> Iterator[str]:
    """What the service says of fields that a message does not have."""
    fields = _MESSAGES[message]
    if fields is _ANY or not isinstance(value, dict | list):
        return
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from unknown_names(each, message, f"{path}[{number}]")
        return
    for name, inner in value.items():
        if name not in fields:
            at = f" at '{path}'" if path else ""
            yield f'Invalid JSON payload received. Unknown name "{name}"{at}: Cannot find field.'
        elif fields[name]:
            yield from unknown_names(inner, fields[name], f"{path}.{name}" if path else name)


def documented(value: Any, message: str) -> Any:
    """A message with the documented names; the service also accepts them in snake case."""
    if isinstance(value, list):
        return [documented(each, message) for each in value]
    fields = _MESSAGES[message]
    if fields is _ANY or not isinstance(value, dict):
        return value
    renamed = {camel(name): inner for name, inner in value.items()}
    return {
        name: documented(inner, fields[name]) if fields.get(name) else inner
        for name, inner in renamed.items()
    }


def camel(name: str) -> str:
    """The name of a field in JSON."""
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def version(model: str) -> float:
    """The version in a model's name; 0 without one."""
    number = model.removeprefix("gemini-").partition("-")[0]
    return float(number) if number.replace(".", "").isdigit() else 0.0


class FakeGemini:
    """
    Call it with a request.

    With ``cities`` it calls the tool ``weather`` for each of them. With ``signs_text`` the last
    piece of a text has its signature; otherwise an empty piece after it has it. Its models think
    only where they are asked to.
    """

    def __init__(
        self,
        *,
        key: str = KEY,
        page: int = 3,
        cities: tuple[str, ...] = (),
        signs_text: bool = False,
        has_ids: bool = True,
    ) -> None:
        self.key = key
        self.page = page
        self.cities = cities
        self.signs_text = signs_text
        self.has_ids = has_ids
        self.issued: dict[str, dict[str, Any]] = {}

    def __call__(self, asked: Asked) -> Says:  # noqa: PLR0911 (one case each)
        parts = urlsplit(asked.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert "key" not in query, "the key is in the address"
        if parts.path.startswith("/v1beta/openai/"):
            return self.compatible(asked)
        given = asked.headers.get("x-goog-api-key")
        if given is None:
            return refusal("PERMISSION_DENIED", "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer identity to call this API.", 403)  # fmt: skip
        if given != self.key:
            return wrong_key()
        if parts.path == "/v1beta/models" and asked.method == "GET":
            return self.models(query)
        resource, _, method = parts.path.rpartition(":")
        model = unquote(resource).removeprefix("/v1beta/models/")
        wanted = "generateContent" if method == "streamGenerateContent" else method
        if asked.method != "POST" or wanted not in MODELS.get(model, ((), False))[0]:
            message = f"models/{model} is not found for API version v1beta, or is not supported for {wanted}. Call ListModels to see the list of available models and their supported methods."
            return refusal("NOT_FOUND", message, 404)
        methods = {"batchEmbedContents": self.vectors, "countTokens": self.count}
        if method in methods:
            return methods[method](asked.json(), model)
        return self.chat(asked.json(), model, is_streamed=query.get("alt") == "sse")

    def chat(self, body: dict[str, Any], model: str, *, is_streamed: bool) -> Says:
        """An answer, in one piece or as a stream."""
        body = documented(body, "request")
        if (wrong := self.wrong(body, model)) is not None:
            return invalid(wrong)
        chunks = self.answer(body, model)
        if is_streamed:
            return Says([event(each) for each in chunks], gap_s=0.002 if len(chunks) > 100 else 0)
        return as_json(joined(chunks))

    def compatible(self, asked: Asked) -> Says:
        """The same models by OpenAI's format."""
        if asked.headers.get("authorization") != f"Bearer {self.key}":
            return as_json([json.loads(wrong_key().pieces[0])], 400)
        path = asked.path.removeprefix("/v1beta/openai")
        if path == "/models":
            data = [{"id": f"models/{name}", "object": "model"} for name in USED]
            return as_json({"object": "list", "data": data})
        return FakeOpenAI()(Asked(asked.method, path, asked.headers, asked.body))

    def models(self, query: dict[str, str]) -> Says:
        """The list in pages of ``page``, whatever was asked for."""
        unknown = set(query) - {"pageSize", "pageToken"}
        if unknown or int(query.get("pageSize", "50")) > 1000:
            return invalid(f"Invalid request: {sorted(unknown)}")
        start = int(base64.b64decode(query["pageToken"])) if "pageToken" in query else 0
        listed = []
        for name, (methods, thinks) in list(MODELS.items())[start : start + self.page]:
            model = {"name": f"models/{name}", "version": "001", "displayName": name.title(), "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536, "supportedGenerationMethods": list(methods)}  # fmt: skip
            listed.append(model | ({"thinking": True} if thinks else {}))
        said: dict[str, Any] = {"models": listed}
        if start + self.page < len(MODELS):
            said["nextPageToken"] = base64.b64encode(str(start + self.page).encode()).decode()
        return as_json(said)

    def count(self, body: dict[str, Any], model: str) -> Says:
        if (wrong := next(unknown_names(body, "count"), None)) is not None:
            return invalid(wrong)
        request = body.get("generateContentRequest", body)
        if request is not body and request.get("model") != f"models/{model}":
            return invalid("* CountTokensRequest.generate_content_request.model: unexpected model name format\n")  # fmt: skip
        if (wrong := self.wrong_contents(request, model)) is not None:
            return invalid(wrong)
        return as_json({"totalTokens": len(json.dumps(request["contents"]).split())})

    def vectors(self, body: dict[str, Any], model: str) -> Says:
        """Vectors of the texts; normalised only at full length, as those of gemini-embedding-001."""
        if (wrong := next(unknown_names(body, "embed"), None)) is not None:
            return invalid(wrong)
        requests = body["requests"]
        if len(requests) > 100:
            return invalid("* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch\n")  # fmt: skip
        embeddings = []
        for request in requests:
            if request.get("model") != f"models/{model}":
                return invalid("* BatchEmbedContentsRequest.requests[0].model: unexpected model name format\n")  # fmt: skip
            text = "".join(part["text"] for part in request["content"]["parts"])
            if not text:
                return invalid("* BatchEmbedContentsRequest.requests[0].content: Content is empty\n")  # fmt: skip
            draw = random.Random(text)
            values = [draw.uniform(-1, 1) for _ in range(8)]
            length = sum(value * value for value in values) ** 0.5
            wanted = request.get("outputDimensionality", 8)
            embeddings.append({"values": [value / length for value in values][:wanted]})
        tokens = sum(len(json.dumps(each["content"]).split()) for each in requests)
        return as_json({"embeddings": embeddings, "usageMetadata": {"promptTokenCount": tokens}})

    def wrong(self, body: dict[str, Any], model: str) -> str | None:
        """What the service finds wrong with a request, in its words."""
        unknown = next(unknown_names(body, "request"), None)
        config = body.get("generationConfig", {})
        return (
            unknown
            or self.wrong_contents(body, model)
            or wrong_tools(body, model)
            or wrong_thinking(config.get("thinkingConfig", {}), model)
            or wrong_config(config, model)
        )

    def wrong_contents(self, body: dict[str, Any], model: str) -> str | None:
        if "systemInstruction" in body and model.startswith("gemma-3"):
            return f"Developer instruction is not enabled for models/{model}"
        if not body.get("contents"):
            return "* GenerateContentRequest.contents: contents is not specified\n"
        return next(self.complaints(body["contents"], model), None)

    def complaints(self, contents: list[dict[str, Any]], model: str) -> Iterator[str]:
        for place, content in enumerate(contents):
            if content.get("role") not in ("user", "model"):
                yield "Please use a valid role: user, model."
            if not content.get("parts"):
                yield f"* GenerateContentRequest.contents[{place}].parts: contents.parts must not be empty.\n"
            for number, part in enumerate(content["parts"]):
                if len(_DATA & set(part)) != 1:
                    yield f"* GenerateContentRequest.contents[{place}].parts[{number}].data: required oneof field 'data' must have one initialized field\n"
            yield from _of_calls(contents, place)
        yield from self.of_signatures(contents, model)

    def of_signatures(self, contents: list[dict[str, Any]], model: str) -> Iterator[str]:
        """Signatures of others, changed parts, and calls without one in the current turn."""
        texts = [
            n
            for n, each in enumerate(contents)
            if each["role"] == "user" and not any("functionResponse" in p for p in each["parts"])
        ]
        for place, content in enumerate(contents):
            calls = [part for part in content["parts"] if "functionCall" in part]
            for part in content["parts"]:
                signature = part.get("thoughtSignature", FOREIGN)
                plain = signature.replace("-", "+").replace("_", "/")  # either alphabet of base64
                if signature != FOREIGN and self.issued.get(plain) != without_id(part):
                    yield "Corrupted thought signature."
            is_current = place > max(texts, default=-1)
            if calls and is_current and version(model) >= 3 and "thoughtSignature" not in calls[0]:
                name = calls[0]["functionCall"]["name"]
                yield f"Function call is missing a thought_signature in functionCall parts. This is required for tools to work correctly, and missing thought_signature may lead to degraded model performance. Additional data, function call `default_api:{name}` , position {place}."

    def signed(self, part: dict[str, Any]) -> dict[str, Any]:
        """Return ``part`` with a signature that fits it alone."""
        text = json.dumps([len(self.issued), part], sort_keys=True)
        signature = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        self.issued[signature] = without_id(part)
        return {**part, "thoughtSignature": signature}

    def answer(self, body: dict[str, Any], model: str) -> list[dict[str, Any]]:
        """The chunks of an answer: thoughts where asked for, calls of ``weather``, or text."""
        config = body.get("generationConfig", {})
        thinking = config.get("thinkingConfig", {})
        last = body["contents"][-1]["parts"]
        is_off = thinking.get("thinkingBudget") == 0 or thinking.get("thinkingLevel") == "MINIMAL"
        thoughts = 5 if thinking and not is_off else 0
        pieces: list[list[dict[str, Any]]] = []
        if thoughts and thinking.get("includeThoughts"):
            pieces += [[{"text": text, "thought": True}] for text in ("Let me ", "think. \u2028é")]
        mode = body.get("toolConfig", {}).get("functionCallingConfig", {}).get("mode")
        is_told = any("functionResponse" in part for part in last)
        reason, tokens = "STOP", 9
        if self.cities and body.get("tools") and mode != "NONE" and not is_told:
            pieces += [[{"text": "Let me look."}], *([call] for call in self.calls(model))]
        else:
            words, reason = words_for(config, json.dumps(last))
            tokens = len(words)
            pieces += [[{"text": word}] for word in words]
            if version(model) >= 3:
                ends = self.signed({"text": words[-1] if self.signs_text else ""})
                pieces[-1:] = [[ends]] if self.signs_text else [pieces[-1], [ends]]
        return framed(pieces, reason, model, tokens=tokens, thoughts=thoughts)

    def calls(self, model: str) -> Iterator[dict[str, Any]]:
        """Calls of ``weather``; the first of a batch has the signature of all."""
        for number, city in enumerate(self.cities):
            call: dict[str, Any] = {"name": "weather", "args": {"city": city}}
            if self.has_ids:
                call["id"] = f"fc{len(self.issued)}_{number}"
            part = {"functionCall": call}
            yield self.signed(part) if number == 0 and version(model) >= 3 else part


def without_id(part: dict[str, Any]) -> dict[str, Any]:
    """What a signature vouches for."""
    bare = {name: value for name, value in part.items() if name != "thoughtSignature"}
    if "functionCall" in bare:
        call = bare["functionCall"]
        bare["functionCall"] = {"name": call["name"], "args": call.get("args", {})}
    return bare


def _of_calls(contents: list[dict[str, Any]], place: int) -> Iterator[str]:
    """Results of all calls are in the turn after them, and calls follow a turn of the user."""
    calls = [p["functionCall"] for p in contents[place]["parts"] if "functionCall" in p]
    if not calls:
        results = [p for p in contents[place]["parts"] if "functionResponse" in p]
        before = contents[place - 1]["parts"] if place else []
        if results and not any("functionCall" in part for part in before):
            yield "Please ensure that function response turn comes immediately after a function call turn."
        return
    if place == 0 or contents[place - 1]["role"] != "user":
        yield "Please ensure that function call turn comes immediately after a user turn or after a function response turn."
    if place + 1 == len(contents):
        return
    told = [p["functionResponse"] for p in contents[place + 1]["parts"] if "functionResponse" in p]
    if len(told) != len(calls):
        yield "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn."
    for call, result in zip(calls, told, strict=False):
        if call.get("id") != result.get("id") or call["name"] != result.get("name"):
            yield "Please ensure that function response parts match the function call parts."
        if not isinstance(result.get("response"), dict):
            yield "Invalid value at 'contents[0].parts[0].function_response.response' (type.googleapis.com/google.protobuf.Struct)"


def wrong_tools(body: dict[str, Any], model: str) -> str | None:
    """Names of tools that are not declared, and JSON with tools before Gemini 3."""
    declared = [each for tool in body.get("tools", ()) for each in tool.get("functionDeclarations", ())]  # fmt: skip
    names = {each["name"] for each in declared}
    calling = body.get("toolConfig", {}).get("functionCallingConfig", {})
    if calling.get("mode", "AUTO") not in ("AUTO", "ANY", "NONE", "VALIDATED"):
        return (
            f"Invalid value at 'tool_config.function_calling_config.mode': \"{calling['mode']}\""
        )
    if calling.get("allowedFunctionNames") and calling.get("mode") != "ANY":
        return "Please set allowed_function_names only when function calling mode is ANY."
    if set(calling.get("allowedFunctionNames", ())) - names:
        return "Allowed function names must be declared in tools."
    is_json = body.get("generationConfig", {}).get("responseMimeType") == "application/json"
    if declared and is_json and version(model) < 3:
        return "Function calling with a response mime type: 'application/json' is unsupported"
    return None


def wrong_thinking(  # noqa: PLR0911 (one case each)
    thinking: dict[str, Any], model: str
) -> str | None:
    """Levels and budgets that a model does not have."""
    budget, level = thinking.get("thinkingBudget"), thinking.get("thinkingLevel")
    if budget is not None and level is not None:
        return "You can only set only one of thinking budget and thinking level."
    if thinking and model not in LEVELS and model not in BUDGETS:
        return "Thinking is not enabled for this model"
    if level is not None and model in BUDGETS:
        return "Thinking level is not supported for this model."
    if level is not None and level not in LEVELS[model]:
        return f"Thinking level {level} is not supported for this model. Please retry with other thinking level."
    if budget is None or budget == -1:
        return None
    least, most, can_be_off = BUDGETS.get(model, (0, 0, False))
    if budget == 0 and not can_be_off:
        return "Budget 0 is invalid. This model only works in thinking mode."
    if budget and not least <= budget <= most:
        return f"The thinking budget {budget} is invalid. Please choose a value between {least} and {most}."
    return None


def wrong_config(config: dict[str, Any], model: str) -> str | None:
    """Values out of range, more than one candidate, and schemas that are not supported."""
    if config.get("candidateCount", 1) != 1:
        return "Only one candidate can be specified in the current model"
    if not 0 <= config.get("temperature", 0) <= 2:
        return "* GenerateContentRequest.generation_config.temperature: temperature must be in the range [0.0, 2.0].\n"
    if len(config.get("stopSequences", ())) > 5:
        return "* GenerateContentRequest.generation_config.stop_sequences: too many stop sequences (maximum 5)\n"
    schema = config.get("responseJsonSchema")
    if schema is not None and config.get("responseMimeType") != "application/json":
        return "Response schema is only supported with response mime type application/json."
    if config.get("responseMimeType") == "application/json" and model.startswith("gemma-3"):
        return f"JSON mode is not enabled for models/{model}"
    return None if schema is None else wrong_for_gemini(schema)


def words_for(config: dict[str, Any], prompt: str) -> tuple[list[str], str]:
    """The words of an answer, and why it ends."""
    if (schema := config.get("responseJsonSchema")) is not None:
        text = json.dumps(sample(schema))
        return [text[at : at + 3] for at in range(0, len(text), 3)], "STOP"
    draw = random.Random(prompt)
    longest = config.get("maxOutputTokens", 65_536)
    words = [
        f" word{draw.randrange(100)}" for _ in range(30 if longest >= 4096 else min(longest, 300))
    ]
    return words, "MAX_TOKENS" if longest < 300 else "STOP"


def framed(
    pieces: Sequence[list[dict[str, Any]]], reason: str, model: str, *, tokens: int, thoughts: int
) -> list[dict[str, Any]]:
    """The chunks around parts, with usage in each and the reason in the last."""
    chunks: list[dict[str, Any]] = []
    for number, parts in enumerate(pieces):
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
        usage = {"promptTokenCount": 7, "cachedContentTokenCount": 3, "totalTokenCount": 7}
        if number + 1 == len(pieces):
            candidate["finishReason"] = reason
            usage |= {"candidatesTokenCount": tokens, "totalTokenCount": 7 + tokens + thoughts}
            usage |= {"thoughtsTokenCount": thoughts} if thoughts else {}
        chunks.append({"candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": "r1"})  # fmt: skip
    return chunks


def joined(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The chunks of a stream as one answer, with neighbouring texts joined."""
    parts: list[dict[str, Any]] = []
    for chunk in chunks:
        for part in chunk["candidates"][0]["content"]["parts"]:
            plain = set(part) <= {"text", "thought"}
            if plain and parts and {**parts[-1], "text": ""} == {**part, "text": ""}:
                parts[-1]["text"] += part["text"]
            else:
                parts.append(dict(part))
    last = chunks[-1]
    candidate = {**last["candidates"][0], "content": {"parts": parts, "role": "model"}}
    return {**last, "candidates": [candidate]}
