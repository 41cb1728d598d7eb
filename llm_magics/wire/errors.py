"""What a codec raises; the rooms above give it a name and a provider."""

from __future__ import annotations

from typing import Any

# What the code that reads an answer raises if the service sent something else than was agreed.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class InStreamError(Exception):
    """The service sent an error inside a stream that had begun with status 200."""

    def __init__(self, body: Any) -> None:
        super().__init__(str(body))
        self.body = body


def is_error(body: Any) -> bool:
    """
    Return whether ``body``, an event of a stream or a whole answer, is an error.

    Google sends its errors in a list, old vLLM servers as ``{"object": "error", …}``, gateways
    as ``{"detail": …}`` or ``{"message": …}``.
    """
    if isinstance(body, list):
        return any(is_error(each) for each in body)
    if not isinstance(body, dict):
        return False
    if body.get("error"):
        return True
    if "choices" in body:
        return False
    says = body.get("message") or body.get("detail")
    if body.get("object") == "error" or body.get("type") == "error":
        return bool(says)
    return bool(body.get("errors")) or bool(body.get("detail")) or _is_bare(body)


def _is_bare(body: dict[str, Any]) -> bool:
    """Whether it is a message with a code or status, and nothing else that an answer has."""
    named = {"code", "status", "status_code", "type", "statusCode"}
    has_name = any(body.get(name) is not None for name in named)
    return isinstance(body.get("message"), str) and has_name
