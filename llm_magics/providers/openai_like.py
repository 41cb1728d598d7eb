"""What the errors of every service that speaks OpenAI's formats have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_magics.errors import (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    UnsupportedError,
)
from llm_magics.secrets import scrub
from llm_magics.transport import Reply
from llm_magics.wire import openai_chat
from llm_magics.wire.retry_after import retry_after_s

# By the service's own type or code. Statuses lie: a missing model is 404 in one of OpenAI's
# interfaces and 400 in another.
_BY_CODE: dict[str, type[ProviderError]] = {
    "DeploymentNotFound": ModelNotFoundError,
    "authentication_error": AuthenticationError,
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "context_length_exceeded": ContextLengthError,
    "exceed_context_size_error": ContextLengthError,
    "insufficient_quota": RateLimitError,
    "invalid_api_key": AuthenticationError,
    "model_not_found": ModelNotFoundError,
    "moderation_blocked": ContentFilterError,
    "not_found_error": ModelNotFoundError,
    "not_supported_error": UnsupportedError,
    "rate_limit_exceeded": RateLimitError,
}

_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: ModelNotFoundError,
    429: RateLimitError,
}

_HINTS: dict[type[ProviderError], str] = {
    AuthenticationError: "Check the provider's key.",
    ContentFilterError: "Word it differently; the service will not answer this.",
    ContextLengthError: "Shorten the prompt, or use a model with a longer context.",
    ModelNotFoundError: "List what there is with %llm models.",
    RateLimitError: "Wait a little and run the cell again.",
}

# Asking again costs nothing and gives nothing: the account has to be filled up first.
_SPENT = "insufficient_quota"


def error_of(reply: Reply, provider: str, model: str) -> ProviderError:
    """The error that a reply with an error status stands for."""
    return classified(reply.json(), reply.status, provider, model, reply.headers)


def classified(
    body: Any,
    status: int | None,
    provider: str,
    model: str,
    headers: Mapping[str, str] | None = None,
) -> ProviderError:
    """The error that a body stands for: by its own type and code first, by its status second."""
    headers = headers or {}
    message, code, kind = openai_chat.error_of(body)
    made = _BY_CODE.get(str(kind)) or _BY_CODE.get(str(code)) or _BY_STATUS.get(status or 0)
    made = made or ProviderError
    spent = _SPENT in (code, kind)
    words = scrub(message).strip().rstrip(".")[:300] or f"status {status}"
    return made(
        f"{provider}/{model}: {words}.",
        hint="Fill up the account; asking again does not help." if spent else _HINTS.get(made),
        provider=provider,
        model=model,
        status=status,
        code=code,
        request_id=headers.get("x-request-id"),
        retry_after=retry_after_s(headers),
        retryable=not spent and (made.retryable or (status or 0) >= 500),
        body=body,
    )
