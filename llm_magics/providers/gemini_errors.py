"""
Map errors of Google's APIs to exceptions.

A body is ``{"error": {"code", "message", "status", "details"}}``, also in a list. The details name
the reason, the violated quotas and the delay before a retry.
Source: https://ai.google.dev/gemini-api/docs/troubleshooting and
https://cloud.google.com/apis/design/errors (November 2026).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llm_magics.errors import (
    AuthenticationError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    UnsupportedError,
)
from llm_magics.providers import error_mapping
from llm_magics.providers.error_bodies import parse_error

_BY_STATUS: dict[str, type[ProviderError]] = {
    "NOT_FOUND": ModelNotFoundError,
    "PERMISSION_DENIED": AuthenticationError,
    "RESOURCE_EXHAUSTED": RateLimitError,
    "UNAUTHENTICATED": AuthenticationError,
}

# The equivalent status of an error inside a stream without a code.
_STATUS_OF = {
    "DEADLINE_EXCEEDED": 504,
    "INTERNAL": 500,
    "INVALID_ARGUMENT": 400,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
}

# Messages about something that the model cannot do at all.
_NOT_ENABLED = re.compile(
    r"\b(?:is|are) not (?:enabled|supported) (?:for|by) (?:this model|models/)"
    r"|only works in thinking mode|does not support",
    re.IGNORECASE,
)

_DELAY = re.compile(r"(\d+(?:\.\d+)?)s")

_SPENT = re.compile(r"credits? (?:are|is) depleted|exceeded .{0,40}spend", re.IGNORECASE)
_SPENT_HINT = "Add credit to the account; retrying does not help."
_DAILY_HINT = "The quota of today is used up: use another model, or a key with a higher quota."


def map_gemini_error(
    body: Any, status: int | None, headers: Mapping[str, str], *, provider: str, model: str
) -> ProviderError:
    """Return the exception for an error response; ``status`` is ``None`` inside a stream."""
    details = parse_error(body)
    named = _details_of(body)
    by_code = _BY_STATUS
    if any(str(each.get("reason")).startswith("API_KEY_") for each in named):
        # A wrong key is reported as an invalid argument.
        by_code = {**_BY_STATUS, "INVALID_ARGUMENT": AuthenticationError}
    elif _NOT_ENABLED.search(error_mapping.unquoted(details.message)):
        by_code = {**_BY_STATUS, "INVALID_ARGUMENT": UnsupportedError}
    error = error_mapping.map_error(
        body, status, headers, provider=provider, model=model, by_code=by_code, statuses=_STATUS_OF
    )
    error.code = details.kind or error.code
    if isinstance(error, RateLimitError):
        _add_quota(error, named, details.message)
    return error


def _add_quota(error: RateLimitError, named: list[Mapping[str, Any]], message: str) -> None:
    """Add the delay before a retry, or that a retry does not help."""
    violations = [
        str(violation.get("quotaId"))
        for each in named
        for violation in _objects(each.get("violations"))
    ]
    if _SPENT.search(message):
        error.retryable, error.hint = False, _SPENT_HINT
    elif any("PerDay" in quota for quota in violations):
        error.retryable, error.hint = False, _DAILY_HINT
    elif error.retry_after is None:
        delays = (_DELAY.fullmatch(str(each.get("retryDelay"))) for each in named)
        error.retry_after = next((float(found[1]) for found in delays if found), None)


def _details_of(body: Any) -> list[Mapping[str, Any]]:
    """Return the objects in ``details`` of an error."""
    if isinstance(body, list):
        body = next((each for each in body if isinstance(each, Mapping)), None)
    error = body.get("error") if isinstance(body, Mapping) else None
    details = error.get("details") if isinstance(error, Mapping) else None
    return _objects(details)


def _objects(listed: Any) -> list[Mapping[str, Any]]:
    """Return the objects in a list; none if a service sent something else."""
    listed = listed if isinstance(listed, list) else ()
    return [each for each in listed if isinstance(each, Mapping)]
