"""Parse the lists of models of OpenAI-compatible services, which describe models differently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_magics.providers.base import ModelInfo

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
