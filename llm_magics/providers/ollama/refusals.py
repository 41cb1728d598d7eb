"""What an Ollama server's errors mean: by its words where they tell more than the status."""

from __future__ import annotations

import json
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
from llm_magics.secrets import scrub
from llm_magics.wire.retry_after import retry_after_s

# What 0.24 says, what the llama-server of 0.30 says, and what it says of a text to embed.
_TOO_LONG = re.compile(
    r"exceeds the (?:context length|available context size)|input .{0,40}too large to process"
)

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
    error, inside = _unwrapped(said)
    if status is None:  # in a stream, of newer servers
        status = inside
    text = error.get("message", error) if isinstance(error, dict) else error
    words = scrub(str(text)).replace("registry.ollama.ai/library/", "").strip().rstrip(".")
    made, hint = _kind(words.lower(), status)
    if made is ContextLengthError:
        hint = _context_hint(error, provider)
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


def _unwrapped(said: Any) -> tuple[Any, int | None]:
    """
    Return what an error body holds, and the status that it names.

    From 0.30 on the error of the model's own server is a JSON string inside ``error``.
    """
    status = None
    for _ in range(3):  # a proxy may have wrapped it once more
        if isinstance(said, str) and said.lstrip().startswith("{"):
            try:
                said = json.loads(said)
            except (ValueError, RecursionError):
                break
        if not isinstance(said, dict):
            break
        named = next((said[key] for key in ("status", "code") if type(said.get(key)) is int), None)
        status = status or named
        if "error" not in said:
            break
        said = said["error"]
    return said, status


def _context_hint(error: Any, provider: str) -> str:
    """Return how to make room for a prompt; ``error`` may say how long it is."""
    length = error.get("n_prompt_tokens") if isinstance(error, dict) else None
    size = 8192
    while type(length) is int and size < length + _ROOM_FOR_ANSWER and size < _LARGEST:
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
