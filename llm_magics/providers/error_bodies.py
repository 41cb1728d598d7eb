"""
Parse the body of an error: its message, code, type and status, in every known shape.

Services wrap an error in ``error``, ``errors``, ``detail`` or a list. Gateways put the error of the
upstream service, as JSON text, into their own message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_magics.errors import (
    AuthenticationError,
    ConnectionError,
    ContentFilterError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
)

# Nested errors below this level are not read.
_MAX_LEVELS = 6

# The rest of a longer text is not searched for JSON, because it may be a web page.
_MAX_CHARS = 100_000

# The fields of a validation error that repeat the request. They are left out: they may be private.
_REQUEST_FIELDS = frozenset({"input", "ctx", "url"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetails:
    """The message of an error, with the code, type and status that its body names."""

    message: str
    code: str | int | None = None
    kind: str | None = None
    status: int | None = None


def parse_error(body: Any) -> ErrorDetails:
    """Return the details in the body of an error, which may have any shape."""
    return _parse(body, 0)


def _parse(body: Any, level: int) -> ErrorDetails:
    if isinstance(body, str):
        return _parse_text(body, level)
    body = _first_error(body)
    if not isinstance(body, Mapping):
        return ErrorDetails(message=str(body))
    error = body.get("error", body)
    if not error and body.get("errors"):  # Cloudflare's
        error = body["errors"]
    if error is body and "message" not in body and "detail" not in body and body.get("errors"):
        error = body["errors"]
    if isinstance(error, str) and level < _MAX_LEVELS:
        inner = _load_json(error)
        if inner is not None:
            return _complete(_parse(inner, level + 1), body)
    error = _first_error(error)
    if not isinstance(error, Mapping):
        return _parse_flat(error, body)
    return _complete(_parse_object(error, level), body if error is not body else {})


def _parse_object(error: Mapping[str, Any], level: int) -> ErrorDetails:
    """Return the details of an error object; for a gateway, those of the upstream service."""
    said = next((error[name] for name in _MESSAGES if error.get(name)), error)
    if level < _MAX_LEVELS:
        behind = _upstream_error(error, said)
        if behind is not None:
            details = _parse(behind, level + 1)
            own = (
                said
                if isinstance(said, str) and said != behind and _load_json(said) is None
                else ""
            )
            message = f"{own}: {details.message}" if own else details.message
            return _complete(replace(details, message=message), error)
    code = error.get("code", error.get("error_code"))  # Databricks, Snowflake
    code = code if isinstance(code, str | int) else None
    kind = error.get("type") or error.get("error_type")
    if kind is None and isinstance(error.get("status"), str):
        kind = error["status"]  # Google's: INVALID_ARGUMENT, UNAVAILABLE …
    return ErrorDetails(
        message=_message_text(said),
        code=code,
        kind=str(kind) if kind else None,
        status=_status_of(error),
    )


_MESSAGES = ("message", "detail", "error_message", "error_description", "msg", "Message")


def _upstream_error(error: Mapping[str, Any], said: Any) -> Any:
    """Return the upstream error that a gateway passes on; ``None`` if there is none."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None  # OpenRouter's
    if raw:
        return _load_json(raw) or raw if isinstance(raw, str) else raw
    if isinstance(said, str):
        return _load_json(said) or _load_json(said[max(0, said.find("{")) :], "error")
    if isinstance(said, Mapping) and any(name in said for name in ("error", "message")):
        return said
    return None


def _parse_text(text: str, level: int) -> ErrorDetails:
    inner = _load_json(text) if level < _MAX_LEVELS else None
    return ErrorDetails(message=text) if inner is None else _parse(inner, level + 1)


def _parse_flat(error: Any, body: Mapping[str, Any]) -> ErrorDetails:
    """Return the details of a body whose ``error`` is a text, a list or a flag."""
    extra = body.get("message")
    words = _message_text(error) if isinstance(error, str | list) else str(error)
    if isinstance(extra, str):
        words = extra if isinstance(error, bool) else f"{words}: {extra}"
    code = body.get("code")
    kind = body.get("error_type")
    return ErrorDetails(
        message=words,
        code=code if isinstance(code, str | int) and not isinstance(code, bool) else None,
        kind=str(kind) if kind else None,
        status=_status_of(body),
    )


def _complete(details: ErrorDetails, outer: Mapping[str, Any]) -> ErrorDetails:
    """Complete ``details`` with the code, type and status of the ``outer`` object."""
    code = outer.get("code", outer.get("error_code"))
    kind = outer.get("error_type")
    return ErrorDetails(
        message=details.message,
        code=details.code if details.code is not None or not isinstance(code, str | int) else code,
        kind=details.kind or (kind if isinstance(kind, str) else None),
        status=details.status if details.status is not None else _status_of(outer),
    )


def _first_error(value: Any) -> Any:
    """Return the first object in a list (Google sends its errors in one), or ``value`` itself."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        objects = [each for each in value if isinstance(each, Mapping)]
        if objects and "loc" not in objects[0]:
            return objects[0]
    return value


def _before_json(text: str) -> str:
    """Return the text before the JSON object that ends ``text``: the gateway's own message."""
    start = text.find("{", 0, _MAX_CHARS)
    if start < 0 or _load_json(text[start:], "error") is None:
        return "" if _load_json(text) is not None else text
    return text[:start].strip(" -:\n") if start else ""


def _load_json(text: str, needed: str = "") -> Any:
    """Parse ``text`` as a JSON object or list; ``None`` if it is neither or lacks ``needed``."""
    bare = text[:_MAX_CHARS].strip()
    if not bare.startswith(("{", "[")):
        return None
    try:
        found = json.loads(bare)
    except (ValueError, RecursionError):
        return None
    is_error = isinstance(found, dict) or (
        isinstance(found, list) and any(isinstance(each, dict) for each in found)
    )
    has_name = not needed or (isinstance(found, dict) and needed in found)
    return found if found and is_error and has_name else None


def _message_text(said: Any) -> str:
    """Return a message as text; validation errors with field and message, without the input."""
    if isinstance(said, str):
        return said
    if (
        isinstance(said, Mapping)
        and set(said) == {"detail"}
        and _is_validation_list(said["detail"])
    ):
        said = said["detail"]  # Mistral's
    if _is_validation_list(said):
        return "; ".join(_format_validation_error(each) for each in said)
    if isinstance(said, list) and all(isinstance(each, str) for each in said):
        return str(said)
    return json.dumps(_remove_input(said), default=str)


def _is_validation_list(said: Any) -> bool:
    return (
        isinstance(said, list)
        and bool(said)
        and all(isinstance(each, Mapping) and "loc" in each and "msg" in each for each in said)
    )


def _format_validation_error(each: Mapping[str, Any]) -> str:
    location = each["loc"]
    where = ".".join(map(str, location)) if isinstance(location, list | tuple) else str(location)
    return f"{where}: {each['msg']}"


def _remove_input(said: Any) -> Any:
    if isinstance(said, list):
        return [_remove_input(each) for each in said]
    if isinstance(said, Mapping) and "msg" in said:
        return {name: value for name, value in said.items() if name not in _REQUEST_FIELDS}
    return said


def _status_of(error: Mapping[str, Any]) -> int | None:
    """Return the HTTP status that an error object contains, as a number or as digits."""
    for name in ("status_code", "code", "status"):
        value = error.get(name)
        if isinstance(value, str) and len(value) == 3 and value.isdecimal():
            value = int(value)
        if type(value) is int and 400 <= value < 600:
            return value
    return None


# Errors that are not about a parameter or the schema of a request.
_OTHER_ERRORS = (
    AuthenticationError,
    ConnectionError,
    ContentFilterError,
    ContextLengthError,
    ModelNotFoundError,
    RateLimitError,
)


def is_other_error(error: ProviderError) -> bool:
    """Return whether an error cannot be about a parameter or the schema of its request."""
    return isinstance(error, _OTHER_ERRORS)


def error_text(error: ProviderError) -> str:
    """Return the words of an error in which a refused parameter or schema is named."""
    details = parse_error(error.body)
    body = error.body.get("error") if isinstance(error.body, Mapping) else None
    parameter = body.get("param") if isinstance(body, Mapping) else None
    return " ".join(
        str(each) for each in (details.message[:2000], details.code, parameter, error) if each
    )
