"""What an Ollama server's errors mean: by its words where they tell more than the status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_magics.errors import (
    AuthenticationError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    UnsupportedError,
)
from llm_magics.providers import refusals
from llm_magics.secrets import scrub
from llm_magics.wire.retry_after import retry_after_s

# Parts of what the server says with status 500 when the caller is at fault.
_CALLERS_FAULT = ("option ", "invalid format", "invalid json schema", "must be of type")


def classified(
    said: Any, status: int | None, headers: Mapping[str, str], provider: str, model: str
) -> ProviderError:
    """The error that the server's words and status stand for."""
    if isinstance(said, str) and said.lstrip().startswith("<"):  # no word of Ollama's
        return refusals.classified(
            said, status, headers, provider=provider, model=model, by_code={}
        )
    text = said.get("error", said) if isinstance(said, dict) else said
    text = text.get("message", text) if isinstance(text, dict) else text
    inside = said.get("status") if isinstance(said, dict) else None
    if status is None and isinstance(inside, int):  # in a stream, of newer servers
        status = inside
    words = scrub(str(text)).replace("registry.ollama.ai/library/", "").strip().rstrip(".")
    made, hint = _kind(words.lower(), status)
    callers_fault = any(part in words.lower() for part in _CALLERS_FAULT)
    retryable = made.retryable or (
        (status is None or status >= 500 or status == 408) and not callers_fault
    )
    return made(
        f"{provider}{f'/{model}' if model else ''}: {words[:300] or f'status {status}'}.",
        hint=hint,
        provider=provider,
        model=model,
        status=status,
        retry_after=retry_after_s(headers),
        retryable=retryable and made not in (ModelNotFoundError, ContextLengthError),
        body=said,
    )


def _kind(words: str, status: int | None) -> tuple[type[ProviderError], str | None]:
    if "does not support" in words:
        return UnsupportedError, "Use another model; %llm models shows what each can do."
    if "exceeds the context length" in words:
        return ContextLengthError, "Shorten the prompt, or raise num_ctx."
    if status in (401, 403):
        return AuthenticationError, "Set OLLAMA_API_KEY."
    if status == 404 or "file does not exist" in words:
        return ModelNotFoundError, None
    if status in (429, 503):
        return RateLimitError, "Wait a little and run the cell again."
    return ProviderError, None
