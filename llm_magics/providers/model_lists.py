"""
Parse the lists of models of services, which have many forms.

Sources: https://docs.cohere.com/reference/list-models,
https://docs.github.com/rest/models/catalog,
https://docs.databricks.com/api/workspace/servingendpoints/list,
https://developers.cloudflare.com/api/resources/ai/subresources/models/methods/list and
https://docs.snowflake.com/en/developer-guide/snowflake-rest-api (November 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llm_magics.errors import ProviderError
from llm_magics.providers.base import ModelInfo
from llm_magics.wire.decoders import DECODING_ERRORS

Parser = Callable[[Mapping[str, Any]], ModelInfo | None]


# A list has at most this many pages. A server that always names another one would never end.
_MAX_PAGES = 1000


def check_page_count(count: int, provider: str) -> None:
    """
    Check that a list of ``provider`` may have more than ``count`` pages.

    Raises:
        ProviderError: it is too long.
    """
    if count >= _MAX_PAGES:
        msg = f"{provider} lists more than {_MAX_PAGES} pages of one list."
        raise ProviderError(msg, hint="Check the provider's base_url.", provider=provider)


def parse_models(
    said: Any, form: str = "openai", parse: Parser | None = None
) -> list[ModelInfo] | None:
    """
    Return the models in the reply ``said``, sorted by name; ``None`` if it has another form.

    Args:
        form: the service's form of the list, a key of `FORMATS`.
        parse: the parser of one model; by default that of ``form``.
    """
    field, usual = FORMATS[form]
    parse = parse or usual
    models = said.get(field) if isinstance(said, Mapping) else said
    if form == "snowflake" and isinstance(models, list):
        models = [{"name": each} if isinstance(each, str) else each for each in models]
    if not isinstance(models, list) or not all(isinstance(each, Mapping) for each in models):
        return None
    found = (_parse_or_name(model, parse) for model in models)
    return sorted((info for info in found if info is not None), key=lambda info: info.name)


def _parse_or_name(model: Mapping[str, Any], parse: Parser) -> ModelInfo | None:
    """Return what ``parse`` does; only the name if a fact has an unexpected form."""
    try:
        return parse(model)
    except DECODING_ERRORS:
        name = model.get("id") or model.get("name")
        if not isinstance(name, str):
            raise
        return ModelInfo(name)


# The fields with the context length: OpenRouter and Together, vLLM, Groq, Mistral.
_CONTEXT_FIELDS = ("context_length", "max_model_len", "context_window", "max_context_length")

# Mistral's flags, and OpenRouter's names of parameters.
_FLAGS = {"completion_chat": "chat", "function_calling": "tools", "vision": "vision"}
_INPUTS = {"image": "vision", "file": "documents", "audio": "audio"}
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
        max_output_tokens=_token_count(model.get("max_completion_tokens")),
    )


def _context_length(model: Mapping[str, Any]) -> int | None:
    meta = model.get("meta") or {}  # llama.cpp: the configured context, then the model's
    lengths = [model.get(name) for name in _CONTEXT_FIELDS] + [
        meta.get("n_ctx"),
        meta.get("n_ctx_train"),
    ]
    return next((_token_count(length) for length in lengths if length), None)


def _token_count(value: Any) -> int | None:
    """Return a limit, which may be a float or a string, as an int; ``None`` without one."""
    return int(value) if value else None


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
    inputs = (model.get("architecture") or {}).get("input_modalities") or ()
    found += [capability for name, capability in _INPUTS.items() if name in inputs]
    return tuple(dict.fromkeys(found))


def _per_million(usd_per_token: Any) -> float | None:
    """Convert a price, a string in dollars per token; -1 means that the price varies."""
    try:
        price = float(usd_per_token) * 1e6
    except (TypeError, ValueError):
        return None
    return round(price, 6) if price >= 0 else None


def _parse_cohere(model: Mapping[str, Any]) -> ModelInfo | None:
    names = {"chat": "chat", "embed": "embeddings"}
    can = [names[each] for each in model.get("endpoints") or () if each in names]
    if not can:
        return None  # rerank and classify models
    can += ["vision"] if "vision" in (model.get("features") or ()) else []
    context = _token_count(model.get("context_length"))  # a float
    return ModelInfo(model["name"], tuple(can), context)


_DATABRICKS_TASKS = {
    "llm/v1/chat": "chat",
    "llm/v1/completions": "completion",
    "llm/v1/embeddings": "embeddings",
}


def _parse_databricks(endpoint: Mapping[str, Any]) -> ModelInfo | None:
    task = _DATABRICKS_TASKS.get(endpoint.get("task") or "")
    return ModelInfo(endpoint["name"], (task,)) if task else None  # others serve other models


_CLOUDFLARE_TASKS = {"Text Generation": "chat", "Text Embeddings": "embeddings"}


def _parse_cloudflare(model: Mapping[str, Any]) -> ModelInfo | None:
    task = _CLOUDFLARE_TASKS.get((model.get("task") or {}).get("name") or "")
    if task is None:
        return None
    facts = {each.get("property_id"): each.get("value") for each in model.get("properties") or ()}
    can = [task] + (["tools"] if facts.get("function_calling") == "true" else [])
    context = str(facts.get("context_window") or "")
    return ModelInfo(model["name"], tuple(can), int(context) if context.isdecimal() else None)


def _parse_github(model: Mapping[str, Any]) -> ModelInfo:
    limits = model.get("limits") or {}
    is_embedding = "embeddings" in (model.get("supported_output_modalities") or ())
    can = ["embeddings" if is_embedding else "chat"]
    can += ["vision"] if "image" in (model.get("supported_input_modalities") or ()) else []
    can += ["tools"] if "tool-calling" in (model.get("capabilities") or ()) else []
    read = _token_count(limits.get("max_input_tokens"))
    written = _token_count(limits.get("max_output_tokens"))
    return ModelInfo(model["id"], tuple(can), read, max_output_tokens=written)


def _parse_gemini(model: Mapping[str, Any]) -> ModelInfo:
    return parse_model({**model, "id": str(model["id"]).removeprefix("models/")})


# The field with the models, and the parser of one, by the form of a service's list.
FORMATS: Mapping[str, tuple[str, Parser]] = {
    "cloudflare": ("result", _parse_cloudflare),
    "cohere": ("models", _parse_cohere),
    "databricks": ("endpoints", _parse_databricks),
    "gemini": ("data", _parse_gemini),
    "github": ("data", _parse_github),
    "openai": ("data", parse_model),
    "snowflake": ("models", lambda model: ModelInfo(model["name"], ("chat",))),
}
