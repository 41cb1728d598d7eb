"""
What a refusal over HTTP means, whoever refuses: the part that all services have in common.

A service's own type and code count first. Statuses lie: a missing model is 404 in one of
OpenAI's interfaces and 400 in another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from llm_magics.errors import (
    AuthenticationError,
    ConfigurationError,
    ContentFilterError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    UnsupportedError,
)
from llm_magics.providers.error_bodies import Told, told_by
from llm_magics.providers.error_words import (
    MOST_READ,
    is_missing_model,
    is_too_large_for_tier,
    is_too_long,
)
from llm_magics.secrets import redact
from llm_magics.wire.retry_after import retry_after_s

_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    402: RateLimitError,
    403: AuthenticationError,
    404: ModelNotFoundError,
    413: ContextLengthError,
    429: RateLimitError,
    501: UnsupportedError,
    529: RateLimitError,
}

_HINTS: dict[type[ProviderError], str] = {
    AuthenticationError: "Check the provider's key.",
    ConfigurationError: "Check the provider's base_url.",
    ContentFilterError: "Word it differently; the service will not answer this.",
    ContextLengthError: "Shorten the prompt, or use a model with a longer context.",
    ModelNotFoundError: "List what there is with %llm models.",
    RateLimitError: "Wait a little and run the cell again.",
    UnsupportedError: "Use another model; %llm models shows what each can do.",
}

# llama.cpp says so where a model was given no eyes.
_CANNOT_SEE = "image input is not supported"

# Codes and types by which services say that they have too much to do, with whatever status.
_OVERLOADED = frozenset(
    {
        "engine_overloaded",
        "engine_overloaded_error",
        "overloaded",
        "overloaded_error",
        "server_is_overloaded",
        "server_overloaded",
        "slow_down",
    }
)
_STATUS_OVERLOADED = 529

_NO_STATUSES: Mapping[str, int] = MappingProxyType({})

_SPENT_HINT = "Fill up the account; asking again does not help."
_TOO_LARGE_HINT = (
    "Shorten the prompt or lower max_tokens, or raise the account's limit; "
    "asking again does not help."
)

# Asking again later may help, though the caller need not change anything.
_PASSING = frozenset({408, 409, 425, 529})


def classified(  # noqa: PLR0913 (a refusal, and whom it concerns)
    body: Any,
    status: int | None,
    headers: Mapping[str, str],
    *,
    provider: str,
    model: str,
    by_code: Mapping[str, type[ProviderError]],
    statuses: Mapping[str, int] = _NO_STATUSES,
    spent: frozenset[str] = frozenset(),
    request_id: str = "x-request-id",
) -> ProviderError:
    """
    The error that a refusal stands for.

    Args:
        by_code: what the service's own codes and types mean.
        statuses: the status that an error inside a stream would have had, by its type.
        spent: those that mean an empty account, where asking again is of no use.
        request_id: the header that names the request.
    """
    told = told_by(body)
    names = (str(told.kind), str(told.code))
    meant = (
        status or told.status or next((statuses[each] for each in names if each in statuses), None)
    )
    if meant is None and not _OVERLOADED.isdisjoint(names):
        meant = _STATUS_OVERLOADED
    is_spent = meant == 402 or bool(spent & {str(told.code), str(told.kind)})
    is_too_large = not is_spent and is_too_large_for_tier(told.message, meant)
    made = RateLimitError if is_spent or is_too_large else _kind(told, body, meant, by_code)
    retryable = made.retryable or (meant or 0) >= 500 or meant in _PASSING
    if meant == 501 or made in (ContextLengthError, ModelNotFoundError, UnsupportedError):
        retryable = False
    hint = _SPENT_HINT if is_spent else _TOO_LARGE_HINT if is_too_large else _HINTS.get(made)
    return made(
        f"{provider}{f'/{model}' if model else ''}: {_words(told, meant, headers)}.",
        hint=hint,
        provider=provider,
        model=model,
        status=meant,
        code=told.code if told.code is not None else told.kind,
        request_id=headers.get(request_id),
        # Some send it with success too, and an error inside a stream is one of those.
        retry_after=retry_after_s(headers) if status else None,
        retryable=retryable and not is_spent and not is_too_large and not _is_forbidden(headers),
        body=body,
    )


def _kind(
    told: Told, body: Any, status: int | None, by_code: Mapping[str, type[ProviderError]]
) -> type[ProviderError]:
    for name in (told.code, told.kind):
        if str(name) in by_code:
            return by_code[str(name)]
        if str(name) in _OVERLOADED:
            return RateLimitError
    if status is not None and (300 <= status < 400 or (status == 404 and isinstance(body, str))):
        return ConfigurationError  # another server's page, or nobody's
    return _by_words(told.message, status) or _BY_STATUS.get(status or 0, ProviderError)


def _by_words(message: str, status: int | None) -> type[ProviderError] | None:
    if is_too_long(message, status):
        return ContextLengthError
    if message.startswith(_CANNOT_SEE):
        return UnsupportedError
    return ModelNotFoundError if is_missing_model(message, status) else None


def _words(told: Told, status: int | None, headers: Mapping[str, str]) -> str:
    if status is not None and 300 <= status < 400:
        return f"the address redirects to {headers.get('location', 'another')}"
    text = told.message[:MOST_READ]
    text = re.sub(r"<[^>]*>", " ", text) if text.lstrip().startswith("<") else text
    return redact(" ".join(text.split())).rstrip(".")[:300] or f"status {status}"


def _is_forbidden(headers: Mapping[str, str]) -> bool:
    """Whether the service itself says that asking again is of no use."""
    return headers.get("x-should-retry", "").lower() == "false"
