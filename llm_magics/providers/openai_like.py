"""What the errors of every service that speaks OpenAI's formats have in common."""

from __future__ import annotations

from typing import Any

from llm_magics.errors import (
    AuthenticationError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    UnsupportedError,
)
from llm_magics.secrets import scrub
from llm_magics.transport import Reply
from llm_magics.wire import openai_chat

_BY_TYPE: dict[str, type[ProviderError]] = {
    "authentication_error": AuthenticationError,
    "context_length_exceeded": ContextLengthError,
    "exceed_context_size_error": ContextLengthError,
    "model_not_found": ModelNotFoundError,
    "not_supported_error": UnsupportedError,
}

_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: ModelNotFoundError,
    429: RateLimitError,
}

_HINTS: dict[type[ProviderError], str] = {
    ContextLengthError: "Shorten the prompt, or use a model with a longer context.",
    AuthenticationError: "Check the provider's key.",
    ModelNotFoundError: "List what there is with %llm models.",
    RateLimitError: "Wait a little and run the cell again.",
}


def error_of(reply: Reply, provider: str, model: str) -> ProviderError:
    """The error that a reply with an error status stands for."""
    return classified(reply.json(), reply.status, provider, model)


def classified(body: Any, status: int | None, provider: str, model: str) -> ProviderError:
    """The error that a body stands for: by its own type and code first, by its status second."""
    message, code, kind = openai_chat.error_of(body)
    made = _BY_TYPE.get(str(kind)) or _BY_TYPE.get(str(code)) or _BY_STATUS.get(status or 0)
    made = made or ProviderError
    said = f"{provider}/{model}: {scrub(message).strip().rstrip('.')[:300] or f'status {status}'}."
    return made(
        said,
        hint=_HINTS.get(made),
        provider=provider,
        model=model,
        status=status,
        code=code,
        retryable=made.retryable or (status or 0) >= 500,
        body=body,
    )
