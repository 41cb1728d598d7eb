"""
A server for each service with an OpenAI-compatible API, as strict as the service itself.

What each accepts and answers is written here from its documentation, not from the data file, so
that a mistake in the file is found. An unknown parameter is refused with the service's own error.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.fake_openai import unit
from tests.support.schema_rules import sample
from tests.support.serving import Asked, Says, as_json, chat_event

KEY = "a-key-of-the-test"
CHAT, EMBEDDING = "chat-model", "embedding-model"

# The parameters of OpenAI's API that most services accept.
_USUAL = frozenset(
    ["frequency_penalty", "logit_bias", "logprobs", "max_tokens", "messages", "model", "n",
     "parallel_tool_calls", "presence_penalty", "response_format", "seed", "stop", "stream",
     "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user"]
)  # fmt: skip


def _openai_error(message: str, code: Any, status: int) -> Says:
    kind = "invalid_request_error"
    return as_json(
        {"error": {"message": message, "type": kind, "code": code, "param": None}}, status
    )


def _cloudflare_error(message: str, code: Any, status: int) -> Says:
    codes = {"missing": 5007, "key": 10000, "parameter": 5006}
    error = {"message": message, "code": codes[code]}
    return as_json({"success": False, "errors": [error], "messages": [], "result": {}}, status)


def _google_error(message: str, code: Any, status: int) -> Says:
    names = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND"}
    error = {"code": status, "message": message, "status": names[status]}
    return as_json([{"error": error}], status)


def _databricks_error(message: str, code: Any, status: int) -> Says:
    codes = {"missing": "RESOURCE_DOES_NOT_EXIST", "key": 403, "parameter": "BAD_REQUEST"}
    return as_json({"error_code": codes[code], "message": message}, status)


def _flat_error(message: str, code: Any, status: int) -> Says:
    return as_json({"id": "8d2f", "message": message}, status)


def _github_error(message: str, code: Any, status: int) -> Says:
    codes = {"missing": "unknown_model", "key": "unauthorized", "parameter": "BadRequest"}
    error = {"code": codes[code], "message": message, "details": message}
    return as_json({"error": error}, status)


def _zai_error(message: str, code: Any, status: int) -> Says:
    codes = {"missing": "1211", "key": "1000", "parameter": "1210"}
    return as_json({"error": {"code": codes[code], "message": message}}, status)


def _xai_error(message: str, code: Any, status: int) -> Says:
    return as_json({"code": "Client specified an invalid argument", "error": message}, status)


def _problem(message: str, code: Any, status: int) -> Says:
    return as_json({"status": status, "title": "Error", "detail": message}, status)


def _azure_error(message: str, code: Any, status: int) -> Says:
    codes = {"missing": "DeploymentNotFound", "key": "401", "parameter": "unknown_parameter"}
    return as_json({"error": {"code": codes[code], "message": message}}, status)


def _openai_list(said: list[str]) -> Any:
    return {"object": "list", "data": [{"id": name, "object": "model"} for name in said]}


def _cohere_list(said: list[str]) -> Any:
    kinds = {CHAT: ["chat"], EMBEDDING: ["embed"]}
    models = [{"name": name, "endpoints": kinds[name], "context_length": 4096.0} for name in said]
    return {"models": [*models, {"name": "rerank-v4", "endpoints": ["rerank"]}]}


def _cloudflare_list(said: list[str]) -> Any:
    tasks = {CHAT: "Text Generation", EMBEDDING: "Text Embeddings"}
    facts = [{"property_id": "context_window", "value": "4096"}]
    models: list[Any] = [
        {"name": name, "task": {"name": tasks[name]}, "properties": facts} for name in said
    ]
    models.append({"name": "@cf/x/whisper", "task": {"name": "Automatic Speech Recognition"}})
    return {"success": True, "errors": [], "result": models}


def _databricks_list(said: list[str]) -> Any:
    tasks = {CHAT: "llm/v1/chat", EMBEDDING: "llm/v1/embeddings"}
    endpoints: list[Any] = [{"name": name, "task": tasks[name]} for name in said]
    return {"endpoints": [*endpoints, {"name": "churn-model", "state": {"ready": "READY"}}]}


def _github_list(said: list[str]) -> Any:
    kinds = {CHAT: ["text"], EMBEDDING: ["embeddings"]}
    return [
        {
            "id": name,
            "supported_input_modalities": ["text"],
            "supported_output_modalities": kinds[name],
            "limits": {"max_input_tokens": 4096, "max_output_tokens": 1024},
        }
        for name in said
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Documented:
    """
    What the documentation of a service says.

    Attributes:
        chat: the address of its chat API, with the parts of `PARTS`.
        models: the address of its list of models; empty if it has none.
        has_embeddings: whether it has OpenAI's embeddings API.
        max_texts: the maximum number of texts in one request for embeddings.
        has_tools: whether its models can call tools.
        without: the usual parameters that it does not accept.
        more: parameters that it accepts in addition.
        header: the header for the key, and its value.
        error: makes its errors, of a message, a kind and a status.
        missing, bad_key: its message and status for a missing model and a wrong key.
        listed: makes its list of models.
        sends_usage: whether usage is sent without being asked for.
        content_is_object: whether an answer with a schema is a JSON object instead of a text.
    """

    chat: str
    models: str = ""
    has_embeddings: bool = False
    max_texts: int = 2048
    has_tools: bool = True
    without: frozenset[str] = frozenset()
    more: frozenset[str] = frozenset({"reasoning_effort"})
    header: tuple[str, str] = ("authorization", f"Bearer {KEY}")
    error: Callable[[str, Any, int], Says] = _openai_error
    missing: tuple[str, int] = ("The model `{}` does not exist or you do not have access.", 404)
    bad_key: tuple[str, int] = ("Invalid API key provided.", 401)
    listed: Callable[[list[str]], Any] = _openai_list
    sends_usage: bool = False
    content_is_object: bool = False


# The parts of addresses in the tests, as variables of the environment or as settings.
VARIABLES = {
    "AWS_REGION": "eu-central-1",
    "AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com/",
    "CLOUDFLARE_ACCOUNT_ID": "0123abcd",
    "DATABRICKS_HOST": "https://adb-12.3.azuredatabricks.net",
    "SNOWFLAKE_ACCOUNT": "MyOrg-My_Account",
}
SETTINGS = {"huggingface-endpoint": {"host": "abc.us-east-1.aws.endpoints.huggingface.cloud"}}

_NEWER = {"without": frozenset({"max_tokens"}), "more": frozenset({"max_completion_tokens", "reasoning_effort"})}  # fmt: skip
_BEDROCK = "https://bedrock-runtime.eu-central-1.amazonaws.com/openai/v1"
_MANTLE = "https://bedrock-mantle.eu-central-1.api.aws/v1"
_CLOUDFLARE = "https://api.cloudflare.com/client/v4/accounts/0123abcd/ai"
_TEMPLATE = frozenset({"chat_template_kwargs"})


def _at(base: str, **more: Any) -> Documented:
    """A service whose paths are as in OpenAI's API."""
    return Documented(chat=f"{base}/chat/completions", models=f"{base}/models", **more)


SERVICES: dict[str, Documented] = {
    "azure": _at(
        "https://mine.openai.azure.com/openai/v1",
        has_embeddings=True,
        header=("api-key", KEY),
        error=_azure_error,
        **_NEWER,
    ),
    "bedrock": Documented(chat=f"{_BEDROCK}/chat/completions", **_NEWER),  # type: ignore[arg-type]
    "bedrock-mantle": _at(_MANTLE, **_NEWER),
    "cerebras": _at("https://api.cerebras.ai/v1"),
    "cloudflare": Documented(
        chat=f"{_CLOUDFLARE}/v1/chat/completions",
        models=f"{_CLOUDFLARE}/models/search?per_page=1000",
        has_embeddings=True,
        max_texts=100,
        error=_cloudflare_error,
        missing=("AiError: AiError: No such model {} or task", 400),
        bad_key=("Authentication error", 401),
        listed=_cloudflare_list,
        content_is_object=True,
    ),
    "cohere": Documented(
        chat="https://api.cohere.ai/compatibility/v1/chat/completions",
        models="https://api.cohere.ai/v1/models?page_size=1000",
        has_embeddings=True,
        max_texts=96,
        without=frozenset(
            ["logit_bias", "n", "parallel_tool_calls", "stream_options", "tool_choice",
             "top_logprobs", "user"]
        ),
        error=_flat_error,
        missing=("model '{}' not found, make sure the correct model ID was used", 404),
        bad_key=("invalid api token", 401),
        listed=_cohere_list,
        sends_usage=True,
    ),
    "dashscope": _at(
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        has_embeddings=True,
        max_texts=10,
        more=frozenset({"enable_thinking", "thinking_budget"}),
    ),
    "databricks": Documented(
        chat="https://adb-12.3.azuredatabricks.net/serving-endpoints/chat/completions",
        models="https://adb-12.3.azuredatabricks.net/api/2.0/serving-endpoints",
        has_embeddings=True,
        max_texts=150,
        without=frozenset({"seed", "stream_options", "user"}),
        error=_databricks_error,
        missing=("The given endpoint does not exist, please retry after checking {}.", 404),
        bad_key=("Invalid access token. [ReqId: 1]", 403),
        listed=_databricks_list,
        sends_usage=True,
    ),
    "deepseek": _at("https://api.deepseek.com/v1", more=frozenset({"thinking", "reasoning_effort"})),
    "fireworks": _at("https://api.fireworks.ai/inference/v1", has_embeddings=True),
    "gemini": _at(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        has_embeddings=True,
        max_texts=100,
        without=frozenset({"seed"}),
        error=_google_error,
        missing=("models/{} is not found for API version v1main.", 404),
        bad_key=("API key not valid. Please pass a valid API key.", 400),
        listed=lambda said: _openai_list([f"models/{name}" for name in said]),
    ),
    "github": Documented(
        chat="https://models.github.ai/inference/chat/completions",
        models="https://models.github.ai/catalog/models",
        has_embeddings=True,
        error=_github_error,
        missing=("Unknown model: {}", 404),
        bad_key=("Bad credentials", 401),
        listed=_github_list,
    ),
    "groq": _at("https://api.groq.com/openai/v1"),
    "huggingface-endpoint": _at(
        "https://abc.us-east-1.aws.endpoints.huggingface.cloud/v1",
        has_embeddings=True,
        max_texts=32,
        more=_TEMPLATE,
    ),
    "llamacpp": _at("http://127.0.0.1:8080/v1", has_embeddings=True, more=_TEMPLATE),
    "mistral": _at(
        "https://api.mistral.ai/v1",
        has_embeddings=True,
        without=frozenset({"seed", "stream_options"}),
        more=frozenset({"random_seed", "reasoning_effort"}),
        missing=("Invalid model: {}", 404),
        sends_usage=True,
    ),
    "moonshot": _at(
        "https://api.moonshot.ai/v1",
        without=frozenset({"max_tokens"}),
        more=frozenset({"max_completion_tokens", "thinking"}),
    ),
    "nvidia": _at(
        "https://integrate.api.nvidia.com/v1",
        has_embeddings=True,
        more=_TEMPLATE,
        error=_problem,
        missing=("Function for {}: Not found for account 'x'", 404),
        bad_key=("Authentication failed", 401),
    ),
    "openrouter": _at(
        "https://openrouter.ai/api/v1", has_embeddings=True, more=frozenset({"reasoning"})
    ),
    "perplexity": Documented(
        chat="https://api.perplexity.ai/chat/completions",
        has_tools=False,
        without=frozenset(
            ["logit_bias", "parallel_tool_calls", "seed", "stop", "stream_options", "tool_choice",
             "tools"]
        ),
        missing=("Invalid model '{}'. Permitted models are in the documentation.", 400),
        sends_usage=True,
    ),
    "sambanova": _at(
        "https://api.sambanova.ai/v1",
        has_embeddings=True,
        without=frozenset({"seed"}),
        more=_TEMPLATE,
    ),
    "snowflake": Documented(
        chat="https://myorg-my-account.snowflakecomputing.com/api/v2/cortex/v1/chat/completions",
        models="https://myorg-my-account.snowflakecomputing.com/api/v2/cortex/models",
        without=frozenset({"max_tokens", "seed"}),
        more=frozenset({"max_completion_tokens", "reasoning_effort"}),
        error=_flat_error,
        missing=("unknown model {}", 400),
        listed=lambda said: {"models": said},
    ),
    "together": _at(
        "https://api.together.xyz/v1",
        has_embeddings=True,
        listed=lambda said: [{"id": name, "type": "chat"} for name in said],
    ),
    "vllm": _at("http://127.0.0.1:8000/v1", has_embeddings=True, more=_TEMPLATE),
    "xai": _at(
        "https://api.x.ai/v1",
        error=_xai_error,
        missing=("The model {} does not exist or your team does not have access to it.", 404),
        bad_key=("Incorrect API key provided: a-***.", 400),
    ),
    "zai": _at(
        "https://api.z.ai/api/paas/v4",
        without=frozenset({"seed"}),
        more=frozenset({"thinking"}),
        error=_zai_error,
        missing=("Unknown Model, please check the model code: {}", 400),
        bad_key=("Authentication Failed", 401),
    ),
}  # fmt: skip


@dataclass
class FakeService:
    """Answers as the service ``name`` does; paths are those of its addresses."""

    name: str
    facts: Documented = field(init=False)

    def __post_init__(self) -> None:
        self.facts = SERVICES[self.name]

    def __call__(self, asked: Asked) -> Says:
        facts = self.facts
        header, value = facts.header
        if asked.headers.get(header) != value:
            message, status = facts.bad_key
            return facts.error(message, "key", status)
        models = [CHAT, EMBEDDING] if facts.has_embeddings else [CHAT]
        if facts.models and asked.path == path_of(facts.models) and asked.method == "GET":
            return as_json(facts.listed(models))
        if asked.path == path_of(facts.chat):
            return self.refused(asked.json(), CHAT) or self.chat(asked.json())
        is_embedding = asked.path == path_of(facts.chat).replace(
            "/chat/completions", "/embeddings"
        )
        if is_embedding and facts.has_embeddings:
            return self.refused(asked.json(), EMBEDDING) or self.embeddings(asked.json())
        return Says([b"404 page not found"], 404, "text/plain")

    def refused(self, body: dict[str, Any], model: str) -> Says | None:
        """The service's error for an unknown model or parameter."""
        facts = self.facts
        if body["model"] != model:
            message, status = facts.missing
            return facts.error(message.format(body["model"]), "missing", status)
        known = (_USUAL | facts.more) - facts.without
        if model == EMBEDDING:
            known = frozenset({"model", "input", "encoding_format"})
        for name in body.keys() - known:
            return facts.error(f"Unrecognized request argument: {name}", "parameter", 400)
        return None

    def chat(self, body: dict[str, Any]) -> Says:
        """A stream with a tool call, an answer that fits the schema, or three words."""
        events = []
        if body.get("tools"):
            call = {"name": body["tools"][0]["function"]["name"], "arguments": '{"city": "Rome"}'}
            piece = {"index": 0, "id": "call_1", "type": "function", "function": call}
            choice = {"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}
            events.append(chat_event(choices=[choice]))
        elif "response_format" in body:
            events += self.fitting(body["response_format"])
        else:
            events += [chat_event(word) for word in ("one", " two", " three")]
        events.append(chat_event(finish_reason="tool_calls" if body.get("tools") else "stop"))
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        if self.facts.sends_usage or body.get("stream_options", {}).get("include_usage"):
            events.append(chat_event(choices=[], usage=usage))
        return Says([*events, b"data: [DONE]\n\n"])

    def fitting(self, format_: dict[str, Any]) -> list[bytes]:
        """An answer that fits the schema, or any JSON object."""
        schema = format_.get("json_schema", {}).get("schema")
        answer = sample(schema) if schema else {"city": "Rome"}
        if not self.facts.content_is_object:
            return [chat_event(json.dumps(answer))]
        choice = {"index": 0, "delta": {"content": answer}, "finish_reason": None}
        return [chat_event(choices=[choice])]

    def embeddings(self, body: dict[str, Any]) -> Says:
        """One vector a text."""
        assert body["encoding_format"] in ("float", "base64")
        if len(body["input"]) > self.facts.max_texts:
            return self.facts.error("too many texts in one request", "parameter", 400)
        data = [{"index": n, "embedding": unit(text)} for n, text in enumerate(body["input"])]
        return as_json({"data": data, "usage": {"prompt_tokens": 4, "total_tokens": 4}})


def path_of(address: str) -> str:
    """The path and the query of an address."""
    return "/" + address.partition("://")[2].partition("/")[2]
