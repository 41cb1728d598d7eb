"""
Map an HTTP error to an exception: the rules that are common to all services.

A service's own error type and code take precedence over the status, which is unreliable: a missing
model is 404 in one of OpenAI's APIs and 400 in another. Without a code, the text of the message
decides, by patterns for each service.

A message may quote the prompt, which may contain any text. Quoted phrases are therefore ignored,
and most patterns apply only with a status that means that the request is at fault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
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
from llm_magics.http import find_request_id
from llm_magics.providers.error_bodies import ErrorDetails, parse_error
from llm_magics.secrets import redact

# Durations as OpenAI and Groq write them: "20ms", "7.66s", "6m0s", "1h2m3s".
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")

# A larger number is a timestamp in seconds or milliseconds since 1970, not a duration.
_MOMENT_S, _MOMENT_MS = 1e9, 1e11


def parse_retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """
    Return the delay in seconds, or ``None`` if the service does not specify one.

    The headers are ``retry-after-ms``, ``retry-after`` in seconds or as a date (RFC 9110, section
    10.2.3), and ``x-ratelimit-reset-…`` of a used-up limit. Use it only for errors: some services
    send these headers with successful responses too.
    """
    milliseconds = _parse_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    now = now or datetime.now(UTC)
    value = headers.get("retry-after")
    seconds = _parse_number(value)
    if seconds is not None:
        return seconds
    return _seconds_until(value, now) if value else _reset_s(headers, now)


def _seconds_until(text: str, now: datetime) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def _reset_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds until the last of the used-up limits is reset; ``None`` if unknown."""
    names = ["", *(f"-{limit}" for limit in _LIMITS)]
    resets = [
        _parse_duration(headers.get(f"x-ratelimit-reset{name}"), now)
        for name in names
        if _parse_number(headers.get(f"x-ratelimit-remaining{name}")) == 0
    ]
    return max((seconds for seconds in resets if seconds is not None), default=None)


def _parse_duration(text: str | None, now: datetime) -> float | None:
    number = _parse_number(text)
    if number is not None:
        if number < _MOMENT_S:
            return number
        moment = number / 1000 if number > _MOMENT_MS else number
        return max(0.0, moment - now.timestamp())
    compact = (text or "").replace(" ", "")
    parts = _PART.findall(compact)
    if not parts or "".join(amount + unit for amount, unit in parts) != compact:
        return None
    return sum(float(amount) * _UNITS[unit] for amount, unit in parts)


def _parse_number(text: str | None) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < float("inf") else None


# The rest of a longer message is not read: it may be a web page.
MAX_MESSAGE_CHARS = 4000

# Statuses that mean that the request is at fault. An error inside a stream has no status.
_REQUEST_STATUSES = frozenset({None, 400, 404, 413, 422})

# Statuses whose meaning does not depend on the message.
_DEFINITE_STATUSES = frozenset({401, 402, 403, 429, 529})

_COUNT = r"\(?[\d,._]+\)?"

# Messages about a full context that local servers send with status 500 or inside a stream.
_FULL_CONTEXT = re.compile(
    r"trying to keep the first \d+ tokens"  # LM Studio
    r"|tokens to keep from the initial prompt is greater than the context length"  # LM Studio
    r"|cannot truncate prompt with n_keep"  # LM Studio
    r"|context size has been exceeded"  # llama.cpp and LM Studio, in the middle of an answer
    r"|exceeds? the available context size"  # llama.cpp
    rf"|input {_COUNT} tokens\)? is (?:larger than the max context size|too large)"  # llama.cpp
    r"|input .{0,30}too large to process"  # llama.cpp's embeddings
    r"|prompt too long; exceeded max context length"  # Ollama
    r"|the (?:input length|prompt) exceeds the context length",  # Ollama
    re.IGNORECASE,
)

_TOO_LONG = re.compile(
    # OpenAI, Azure, vLLM, DeepSeek, OpenRouter, Mistral, SGLang, Fireworks
    r"maximum context length"
    r"|context length exceeded|exceed\w* (?:the |this |its |your )?(?:model'?s? )?context length"
    r"|context window|exceeds? the (?:available )?context"
    r"|(?:longer|larger|greater) than the (?:model'?s? )?(?:context|maximum (?:model|context|input)) length"
    r"|exceeds? (?:the )?(?:model'?s? )?max(?:imum)?[ _](?:model|context|input|prompt|sequence)[ _]len"
    r"|maximum prompt length is"  # xAI
    r"|maximum allowed input length"
    r"|input tokens exceed the configured limit"  # OpenAI, Azure
    # OpenAI's embeddings
    rf"|requested {_COUNT} tokens, max {_COUNT} tokens per request"
    # Anthropic
    r"|(?:prompt|input|request) is too long|exceed context limit"
    # Google
    r"|input token count.{0,40}(?:exceeds? the maximum|but (?:the )?model supports)"
    # Groq, Cerebras
    r"|reduce the length of (?:the|your) (?:messages|prompt|input)"
    # TGI, TEI, Together
    r"|inputs` tokens \+ `max_new_tokens` must be|`inputs` must have less than"
    # Mistral's embeddings, Voyage
    rf"|has {_COUNT} tokens, exceeding|max allowed tokens per submitted batch"
    # Cohere, Bedrock
    r"|too many (?:input )?tokens(?!.{0,40}(?:wait|per (?:minute|day)|try again))"
    # Cloudflare, Copilot, Moonshot, watsonx, DashScope
    r"|exceeded this model context window"
    r"|prompt token count of|exceeded model token limit|token limit exceeded"
    r"|cannot exceed the total tokens limit|range of input length should be"
    # similar messages of other services
    r"|exceeds? the max(?:imum)? (?:number of )?(?:input |prompt |context )?tokens?\b"
    r"|prompt too long",
    re.IGNORECASE,
)

_NO_SUCH_MODEL = re.compile(
    r"model\b.{0,80}\b(?:does not exist|not found|is not supported by any provider)"
    r"|not a valid model"
    # GitHub, Snowflake, Cloudflare, Perplexity, Z.ai, Bedrock
    r"|^(?:\w+: ){0,2}(?:unknown|no such) model\b|^invalid model '"
    r"|model identifier is invalid",
    re.IGNORECASE,
)

# xAI and Google answer an invalid key with the status 400.
_INVALID_KEY = re.compile(r"^(?:incorrect api key|api key not valid)\b", re.IGNORECASE)

# A single request above the account's limit per minute, or above its tier.
_TOO_LARGE_FOR_TIER = re.compile(
    r"^\W*request too large for .{0,300}\b(?:tokens|requests) per|^\W*request too large for model"
    r"|long context beta is not yet available|usage is required for long context",
    re.IGNORECASE | re.DOTALL,
)
_LIMIT_AND_REQUESTED = re.compile(
    r"\bper (?:min|day|hour|minute)\b.{0,40}\blimit:? ([\d,]+).{0,60}?\brequested:? ([\d,]+)",
    re.IGNORECASE | re.DOTALL,
)

_QUOTED = re.compile(
    r"```.*?```|“[^”]*”|«[^»]*»"
    r'|(?<!\w)"[^"]*\s[^"]*"(?!\w)'
    r"|(?<!\w)'[^']*\s[^']*'(?!\w)"
    r"|(?<!\w)`[^`]*\s[^`]*`(?!\w)",
    re.DOTALL,
)


def unquoted(message: str) -> str:
    """Return the beginning of ``message`` without quoted phrases."""
    return _QUOTED.sub(" … ", message[:MAX_MESSAGE_CHARS])


def is_too_long(message: str, status: int | None) -> bool:
    """Return whether ``message`` means that the prompt exceeds the model's context."""
    if status in _DEFINITE_STATUSES:
        return False
    words = unquoted(message)
    if _FULL_CONTEXT.search(words):
        return True
    return status in _REQUEST_STATUSES and bool(_TOO_LONG.search(words))


def is_missing_model(message: str, status: int | None) -> bool:
    """Return whether ``message`` means that the model does not exist."""
    blames = status is not None and status in _REQUEST_STATUSES
    return blames and bool(_NO_SUCH_MODEL.search(message[:MAX_MESSAGE_CHARS]))


def is_too_large_for_tier(message: str, status: int | None) -> bool:
    """
    Return whether a single request exceeds the account's limit per minute.

    This is a rate limit for which retrying does not help.
    """
    if status not in {*_REQUEST_STATUSES, 429}:
        return False
    words = unquoted(message)
    if _TOO_LARGE_FOR_TIER.search(words):
        return True
    found = _LIMIT_AND_REQUESTED.search(words)
    if found is None:
        return False
    limit, requested = (int(each.replace(",", "") or 0) for each in found.groups())
    return requested > limit > 0


_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    402: RateLimitError,
    403: AuthenticationError,
    404: ModelNotFoundError,
    413: ContextLengthError,
    429: RateLimitError,
    498: RateLimitError,  # Groq, if its tier flex is full
    501: UnsupportedError,
    529: RateLimitError,
}

_HINTS: dict[type[ProviderError], str] = {
    AuthenticationError: "Check the API key of the provider.",
    ConfigurationError: "Check the provider's base_url.",
    ContentFilterError: "Rephrase the prompt; the service declined this one.",
    ContextLengthError: "Shorten the prompt, or use a model with a longer context.",
    ModelNotFoundError: "List the available models with %llm models.",
    RateLimitError: "Wait a moment and run the cell again.",
    UnsupportedError: "Use another model; %llm models lists their capabilities.",
}

# llama.cpp's message for a model without a vision projector.
_NO_IMAGE_INPUT = "image input is not supported"

# Ollama's message for a missing capability, in each of its APIs.
_NO_CAPABILITY = re.compile(
    r"^(?:\S+|this model) does not support (?:chat|completion|embeddings|generate|insert|thinking|tools|vision)\b",
    re.IGNORECASE,
)

# Error codes and types that mean that the service is overloaded, whatever the status.
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

_SPENT_HINT = "Add credit to the account; retrying does not help."
_TOO_LARGE_HINT = (
    "Shorten the prompt, lower max_tokens, or raise the account's limit; retrying does not help."
)

# Statuses for which a retry of the unchanged request may succeed.
_RETRYABLE_STATUSES = frozenset({408, 409, 425, 529})


def map_error(  # noqa: PLR0913 (the properties of one error)
    body: Any,
    status: int | None,
    headers: Mapping[str, str],
    *,
    provider: str,
    model: str,
    by_code: Mapping[str, type[ProviderError]],
    statuses: Mapping[str, int] = _NO_STATUSES,
    spent: frozenset[str] = frozenset(),
) -> ProviderError:
    """
    Return the exception for an error response.

    Args:
        by_code: the exception types for the service's own error codes and types.
        statuses: the equivalent status of an error inside a stream, by its type.
        spent: the codes and types for an account without credit, for which retrying does not help.
    """
    details = parse_error(body)
    names = (str(details.kind), str(details.code))
    effective_status = (
        status
        or details.status
        or next((statuses[each] for each in names if each in statuses), None)
    )
    if effective_status is None and not _OVERLOADED.isdisjoint(names):
        effective_status = _STATUS_OVERLOADED
    is_spent = effective_status == 402 or bool(spent & {str(details.code), str(details.kind)})
    is_too_large = not is_spent and is_too_large_for_tier(details.message, effective_status)
    error_type = (
        RateLimitError
        if is_spent or is_too_large
        else _error_type(details, body, effective_status, by_code)
    )
    retryable = (
        error_type.retryable
        or (effective_status or 0) >= 500
        or effective_status in _RETRYABLE_STATUSES
    )
    if effective_status == 501 or error_type in (
        ContextLengthError,
        ModelNotFoundError,
        UnsupportedError,
    ):
        retryable = False
    hint = _SPENT_HINT if is_spent else _TOO_LARGE_HINT if is_too_large else _HINTS.get(error_type)
    return error_type(
        f"{provider}{f'/{model}' if model else ''}: {_message_text(details, effective_status, headers)}.",
        hint=hint,
        provider=provider,
        model=model,
        status=effective_status,
        code=details.code if details.code is not None else details.kind,
        request_id=find_request_id(headers),
        # Some services send it with successful responses too, such as one whose stream contains an
        # error.
        retry_after=parse_retry_after(headers) if status else None,
        retryable=retryable and not is_spent and not is_too_large and not _forbids_retry(headers),
        body=body,
    )


def _error_type(
    details: ErrorDetails,
    body: Any,
    status: int | None,
    by_code: Mapping[str, type[ProviderError]],
) -> type[ProviderError]:
    for name in (details.code, details.kind):
        if str(name) in by_code:
            return by_code[str(name)]
        if str(name) in _OVERLOADED:
            return RateLimitError
    if status is not None and (300 <= status < 400 or (status == 404 and isinstance(body, str))):
        return ConfigurationError  # a page of another server
    return _type_from_message(details.message, status) or _BY_STATUS.get(
        status or 0, ProviderError
    )


def _type_from_message(message: str, status: int | None) -> type[ProviderError] | None:
    if is_too_long(message, status):
        return ContextLengthError
    if message.startswith(_NO_IMAGE_INPUT):
        return UnsupportedError
    if status in _REQUEST_STATUSES and _INVALID_KEY.match(message):
        return AuthenticationError
    if status in _REQUEST_STATUSES and _NO_CAPABILITY.match(message):
        return UnsupportedError
    return ModelNotFoundError if is_missing_model(message, status) else None


def _message_text(details: ErrorDetails, status: int | None, headers: Mapping[str, str]) -> str:
    if status is not None and 300 <= status < 400:
        return f"the address redirects to {headers.get('location', 'another')}"
    text = details.message[:MAX_MESSAGE_CHARS]
    text = re.sub(r"<[^>]*>", " ", text) if text.lstrip().startswith("<") else text
    return redact(" ".join(text.split())).rstrip(".")[:300] or f"status {status}"


def _forbids_retry(headers: Mapping[str, str]) -> bool:
    """Return whether the service says that retrying does not help."""
    return headers.get("x-should-retry", "").lower() == "false"
