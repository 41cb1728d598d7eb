"""What an Ollama server's errors mean: by its words where they tell more than the status."""

from __future__ import annotations

import re
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
from llm_magics.providers.error_bodies import told_by
from llm_magics.secrets import redact
from llm_magics.wire.retry_after import retry_after_s

# What 0.24 says, what the llama-server of 0.30 says, and what it says of a text to embed.
_TOO_LONG = re.compile(
    r"exceeds the (?:context length|available context size)|input .{0,40}too large to process"
)

_TOKENS = re.compile(r"\((\d{1,9}) tokens\)")

# A suggested context has room for an answer, and is no larger than any model's.
_ROOM_FOR_ANSWER = 512
_LARGEST = 2**20

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
    told = told_by(said)  # from 0.30 on a JSON string inside ``error``
    if status is None:  # in a stream, of newer servers
        status = told.status
    words = redact(told.message).replace("registry.ollama.ai/library/", "").strip().rstrip(".")
    made, hint = _kind(words.lower(), status)
    if made is ContextLengthError:
        hint = _context_hint(words, provider)
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


def _context_hint(words: str, provider: str) -> str:
    """Return how to make room for a prompt; ``words`` may say how long it is."""
    length = max(map(int, _TOKENS.findall(words)), default=0)
    size = 8192
    while size < length + _ROOM_FOR_ANSWER and size < _LARGEST:
        size *= 2
    return (
        f"Raise the context: -p num_ctx={size} in a cell, lm.ask(…, num_ctx={size}), or "
        f"%llm config providers.{provider}.num_ctx {size}. "
        "Or shorten the prompt, or let the server cut it with truncate=True."
    )


def _kind(words: str, status: int | None) -> tuple[type[ProviderError], str | None]:
    if "does not support" in words:
        return UnsupportedError, "Use another model; %llm models shows what each can do."
    if _TOO_LONG.search(words):
        return ContextLengthError, None
    if status in (401, 403):
        return AuthenticationError, "Set OLLAMA_API_KEY."
    if status == 404 or "file does not exist" in words:
        return ModelNotFoundError, None
    if status in (429, 503):
        return RateLimitError, "Wait a little and run the cell again."
    return ProviderError, None
