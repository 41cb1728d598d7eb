"""The differences between services with OpenAI-compatible APIs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from llm_magics.http import KeyHeader
from llm_magics.providers.base import ModelInfo
from llm_magics.wire.schema_dialects import (
    CEREBRAS,
    GRAMMAR,
    JSON_OBJECT,
    OPENAI,
    PLAIN,
    UNKNOWN,
    Dialect,
)

_BEARER = KeyHeader()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceProfile:
    """
    How one service differs from most others; the defaults suit most servers.

    Attributes:
        base_url: its address, if it has only one.
        hosts: the ends of host names by which it is recognised.
        key_variable: the environment variable in which its users keep their key.
        key_header: the header for the key.
        names: its names of parameters, by OpenAI's older names; ``""`` if it lacks a parameter.
        encoding_format: the format of vectors; not every service supports base64.
        schema: ``json_schema``, or ``json_object`` if it does not support schemas: the answer is
            then JSON, and only our own validation checks whether it matches the schema.
        dialect: the subset of JSON schemas that it accepts.
        strict_models: parts of the names of models that support strict schemas; ``None`` if all do.
        reasoning: the parameter for the reasoning effort, which also determines its form.
    """

    base_url: str = ""
    hosts: tuple[str, ...] = ()
    key_variable: str = ""
    key_header: KeyHeader = _BEARER
    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    encoding_format: str = "float"
    schema: Literal["json_schema", "json_object"] = "json_schema"
    dialect: Dialect = PLAIN
    strict_models: tuple[str, ...] | None = None
    reasoning: Literal["reasoning_effort", "reasoning"] = "reasoning_effort"

    def adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        """Convert ``body``, a request with OpenAI's parameter names, to this service's names."""
        adapted = dict(body)
        for usual, own in self.names.items():
            value = adapted.pop(usual, None)
            if own and value is not None:
                adapted[own] = value
        if self.schema == "json_object" and "response_format" in adapted:
            adapted["response_format"] = {"type": "json_object"}
        self._loosen(adapted)
        if self.reasoning == "reasoning" and "reasoning_effort" in adapted:
            adapted["reasoning"] = {"effort": adapted.pop("reasoning_effort")}
        return adapted

    def _loosen(self, body: dict[str, Any]) -> None:
        """Remove ``strict`` if the model has no strict mode."""
        schema_format = (body.get("response_format") or {}).get("json_schema")
        if self.strict_models is None or not isinstance(schema_format, dict):
            return
        if not any(part in str(body.get("model")) for part in self.strict_models):
            loose = {name: value for name, value in schema_format.items() if name != "strict"}
            body["response_format"] = {"type": "json_schema", "json_schema": loose}


_NEWER_NAMES = MappingProxyType({"max_tokens": "max_completion_tokens"})

PROFILES: Mapping[str, ServiceProfile] = {
    "openai": ServiceProfile(
        base_url="https://api.openai.com/v1",
        hosts=("api.openai.com",),
        key_variable="OPENAI_API_KEY",
        names=_NEWER_NAMES,
        dialect=OPENAI,
        encoding_format="base64",
    ),
    "azure": ServiceProfile(
        hosts=(".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"),
        key_variable="AZURE_OPENAI_API_KEY",
        key_header=KeyHeader("api-key", ""),
        names=_NEWER_NAMES,
        encoding_format="base64",
    ),
    "cerebras": ServiceProfile(
        base_url="https://api.cerebras.ai/v1",
        hosts=("api.cerebras.ai",),
        key_variable="CEREBRAS_API_KEY",
        dialect=CEREBRAS,
    ),
    "deepseek": ServiceProfile(
        base_url="https://api.deepseek.com/v1",
        hosts=("api.deepseek.com",),
        key_variable="DEEPSEEK_API_KEY",
        schema="json_object",
        dialect=JSON_OBJECT,
    ),
    "groq": ServiceProfile(
        base_url="https://api.groq.com/openai/v1",
        hosts=("api.groq.com",),
        key_variable="GROQ_API_KEY",
        strict_models=("gpt-oss",),
    ),
    "llamacpp": ServiceProfile(
        base_url="http://127.0.0.1:8080/v1", key_variable="LLAMA_API_KEY", dialect=GRAMMAR
    ),
    "mistral": ServiceProfile(
        base_url="https://api.mistral.ai/v1",
        hosts=("api.mistral.ai",),
        key_variable="MISTRAL_API_KEY",
        names=MappingProxyType({"seed": "random_seed", "stream_options": ""}),
    ),
    "openrouter": ServiceProfile(
        base_url="https://openrouter.ai/api/v1",
        hosts=("openrouter.ai",),
        key_variable="OPENROUTER_API_KEY",
        reasoning="reasoning",
    ),
    "together": ServiceProfile(
        base_url="https://api.together.xyz/v1",
        hosts=("api.together.xyz",),
        key_variable="TOGETHER_API_KEY",
    ),
    "vllm": ServiceProfile(
        base_url="http://127.0.0.1:8000/v1", key_variable="VLLM_API_KEY", dialect=GRAMMAR
    ),
    "other": ServiceProfile(dialect=UNKNOWN),
}


def find_profile(base_url: str) -> ServiceProfile:
    """Return the profile of the service at ``base_url``, by its host."""
    host = urlsplit(base_url).hostname or ""
    for profile in PROFILES.values():
        for end in profile.hosts:
            if host == end or (end.startswith(".") and host.endswith(end)):
                return profile
    return PROFILES["other"]


# The fields with the context length: OpenRouter and Together, vLLM, Groq, Mistral.
_CONTEXT_FIELDS = ("context_length", "max_model_len", "context_window", "max_context_length")

# Mistral's flags, and OpenRouter's names of parameters.
_FLAGS = {"completion_chat": "chat", "function_calling": "tools", "vision": "vision"}
_PARAMETERS = {"tools": "tools", "structured_outputs": "schema", "reasoning": "reasoning"}


def parse_model(model: Mapping[str, Any]) -> ModelInfo:
    """Return what the service reports about a model; unknown facts are ``None``, never guessed."""
    price = model.get("pricing") or {}
    return ModelInfo(
        model["id"],
        _capabilities(model),
        _context_length(model),
        input_usd=_per_million(price.get("prompt")),
        output_usd=_per_million(price.get("completion")),
        max_output_tokens=model.get("max_completion_tokens"),
    )


def _context_length(model: Mapping[str, Any]) -> int | None:
    meta = model.get("meta") or {}  # llama.cpp: the configured context, then the model's
    lengths = [model.get(name) for name in _CONTEXT_FIELDS] + [
        meta.get("n_ctx"),
        meta.get("n_ctx_train"),
    ]
    return next((int(length) for length in lengths if length), None)


def _capabilities(model: Mapping[str, Any]) -> tuple[str, ...]:
    flags = model.get("capabilities") or {}
    flags = flags if isinstance(flags, Mapping) else {}
    found = [capability for flag, capability in _FLAGS.items() if flags.get(flag)]
    taken = model.get("supported_parameters")
    if taken is not None:
        found += [
            "chat",
            *(capability for name, capability in _PARAMETERS.items() if name in taken),
        ]
    if "image" in ((model.get("architecture") or {}).get("input_modalities") or ()):
        found.append("vision")
    return tuple(dict.fromkeys(found))


def _per_million(usd_per_token: Any) -> float | None:
    """Convert a price, a string in dollars per token; -1 means that the price varies."""
    try:
        price = float(usd_per_token) * 1e6
    except (TypeError, ValueError):
        return None
    return round(price, 6) if price >= 0 else None
