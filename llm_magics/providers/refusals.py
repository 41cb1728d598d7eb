"""
What a refusal over HTTP means, whoever refuses: the part that all services have in common.

A service's own type and code count first. Statuses lie: a missing model is 404 in one of
OpenAI's interfaces and 400 in another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
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
from llm_magics.secrets import scrub
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

# Words that many services share where they have no code. They count only with a status that
# blames the caller: an error may repeat the prompt, and that may say anything.
_BY_WORDS: tuple[tuple[re.Pattern[str], type[ProviderError]], ...] = (
    (
        re.compile(
            r"maximum context length|context length exceeded|prompt is too long"
            r"|exceeds? the (?:available )?context|context window|too many tokens"
            r"|input is too long|reduce the length of the messages",
            re.IGNORECASE,
        ),
        ContextLengthError,
    ),
    (
        re.compile(
            r"model\b.{0,80}\b(?:does not exist|not found|is not supported by any provider)"
            r"|not a valid model",
            re.IGNORECASE,
        ),
        ModelNotFoundError,
    ),
)
# llama.cpp calls it a server error that a text is longer than its embedding model reads …
_TOO_LONG = re.compile(r"input .{0,30}too large to process")
# … and that its model was given no eyes.
_CANNOT_SEE = "image input is not supported"

# More of an error's text is not read: it may be a whole web page, or worse.
_MOST_READ = 4000

_CALLERS_FAULT = frozenset({400, 404, 413, 422})
_NO_STATUSES: Mapping[str, int] = MappingProxyType({})

# Asking again later may help, though the caller need not change anything.
_PASSING = frozenset({408, 409, 425, 529})


@dataclass(frozen=True, slots=True)
class Told:
    """What a refusal says: in words, and by the service's own code and type."""

    message: str
    code: str | int | None = None
    kind: str | None = None
    status: int | None = None


def told_by(body: Any) -> Told:
    """What an error's body says, whatever shape it has."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        beside = body.get("message") if isinstance(body, Mapping) else None
        words = f"{error}: {beside}" if isinstance(beside, str) else str(error)
        status = body.get("status") if isinstance(body, Mapping) else None
        kind = body.get("error_type") if isinstance(body, Mapping) else None
        return Told(words, None, kind, status if _is_status(status) else None)
    message = error.get("message") or error.get("detail") or error
    words = message if isinstance(message, str) else json.dumps(message, default=str)
    code = error.get("code")
    status = next((s for s in (error.get("status_code"), code) if _is_status(s)), None)
    code = code if isinstance(code, str | int) else None
    kind = error.get("type") or error.get("error_type")
    return Told(words, code, str(kind) if kind else None, status)


def _is_status(value: object) -> bool:
    return type(value) is int and 400 <= value < 600


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
    meant = status or told.status or statuses.get(str(told.kind)) or statuses.get(str(told.code))
    is_spent = meant == 402 or bool(spent & {str(told.code), str(told.kind)})
    made = RateLimitError if is_spent else _kind(told, body, meant, by_code)
    retryable = made.retryable or (meant or 0) >= 500 or meant in _PASSING
    if meant == 501 or made in (ContextLengthError, ModelNotFoundError, UnsupportedError):
        retryable = False
    return made(
        f"{provider}{f'/{model}' if model else ''}: {_words(told, meant, headers)}.",
        hint="Fill up the account; asking again does not help." if is_spent else _HINTS.get(made),
        provider=provider,
        model=model,
        status=meant,
        code=told.code if told.code is not None else told.kind,
        request_id=headers.get(request_id),
        # Some send it with success too, and an error inside a stream is one of those.
        retry_after=retry_after_s(headers) if status else None,
        retryable=retryable and not is_spent and not _is_forbidden(headers),
        body=body,
    )


def _kind(
    told: Told, body: Any, status: int | None, by_code: Mapping[str, type[ProviderError]]
) -> type[ProviderError]:
    for name in (told.code, told.kind):
        if str(name) in by_code:
            return by_code[str(name)]
    if status is not None and (300 <= status < 400 or (status == 404 and isinstance(body, str))):
        return ConfigurationError  # another server's page, or nobody's
    if _TOO_LONG.match(told.message):
        return ContextLengthError
    if told.message.startswith(_CANNOT_SEE):
        return UnsupportedError
    if status in _CALLERS_FAULT:
        for pattern, made in _BY_WORDS:
            if pattern.search(told.message[:_MOST_READ]):
                return made
    return _BY_STATUS.get(status or 0, ProviderError)


def _words(told: Told, status: int | None, headers: Mapping[str, str]) -> str:
    if status is not None and 300 <= status < 400:
        return f"the address redirects to {headers.get('location', 'another')}"
    text = told.message[:_MOST_READ]
    text = re.sub(r"<[^>]*>", " ", text) if text.lstrip().startswith("<") else text
    return scrub(" ".join(text.split())).rstrip(".")[:300] or f"status {status}"


def _is_forbidden(headers: Mapping[str, str]) -> bool:
    """Whether the service itself says that asking again is of no use."""
    return headers.get("x-should-retry", "").lower() == "false"
