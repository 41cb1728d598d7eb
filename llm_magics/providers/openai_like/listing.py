"""What the lists of OpenAI's look-alikes tell of their models, each in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_magics.providers.base import ModelInfo

# Where the context length stands: OpenRouter and Together, vLLM, Groq, Mistral.
_CONTEXT = ("context_length", "max_model_len", "context_window", "max_context_length")

# Mistral's flags, and OpenRouter's names of parameters.
_FLAGS = {"completion_chat": "chat", "function_calling": "tools", "vision": "vision"}
_PARAMETERS = {"tools": "tools", "structured_outputs": "schema", "reasoning": "reasoning"}


def described(model: Mapping[str, Any]) -> ModelInfo:
    """What is told of a model; what is not told is ``None``, and not guessed."""
    price = model.get("pricing") or {}
    return ModelInfo(
        model["id"],
        _abilities(model),
        _context(model),
        input_usd=_per_million(price.get("prompt")),
        output_usd=_per_million(price.get("completion")),
        longest_answer=model.get("max_completion_tokens"),
    )


def _context(model: Mapping[str, Any]) -> int | None:
    meta = model.get("meta") or {}  # llama.cpp's: what it was started with, not what it could
    told = [model.get(name) for name in _CONTEXT] + [meta.get("n_ctx"), meta.get("n_ctx_train")]
    return next((int(length) for length in told if length), None)


def _abilities(model: Mapping[str, Any]) -> tuple[str, ...]:
    flags = model.get("capabilities") or {}
    flags = flags if isinstance(flags, Mapping) else {}
    found = [ability for flag, ability in _FLAGS.items() if flags.get(flag)]
    taken = model.get("supported_parameters")
    if taken is not None:
        found += ["chat", *(ability for name, ability in _PARAMETERS.items() if name in taken)]
    if "image" in ((model.get("architecture") or {}).get("input_modalities") or ()):
        found.append("vision")
    return tuple(dict.fromkeys(found))


def _per_million(usd_per_token: Any) -> float | None:
    """Prices come as texts of dollars a token; -1 stands for one that changes."""
    try:
        price = float(usd_per_token) * 1e6
    except (TypeError, ValueError):
        return None
    return round(price, 6) if price >= 0 else None
