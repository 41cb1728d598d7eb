"""
The format of Anthropic's Message Batches API.

A batch takes ``{"requests": [{"custom_id", "params"}]}``; its results are JSON lines in any order.
Sources (November 2026): https://platform.claude.com/docs/en/build-with-claude/batch-processing,
https://platform.claude.com/docs/en/api/creating-message-batches, and anthropic 2.14.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from llm_magics.wire.batch_lines import encode_line, parse_count, parse_identifier, parse_time

BATCHES = "/v1/messages/batches"

# The body of the request that creates a batch, before and after its requests.
BEFORE_REQUESTS, AFTER_REQUESTS = b'{"requests":[', b"]}"

_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageBatch:
    """
    A batch as the service describes it.

    Attributes:
        id: its identifier.
        status: ``in_progress``, ``canceling`` or ``ended``.
        created, expires: the times of its creation, and until which the service tries.
        total: the number of its requests.
        done: the number of those that are no longer processed, which includes ``failed``.
        failed: the number of those without an answer.
        results_url: the address of its results, once it has ended.
        outcome: ``ended``, ``canceled``, ``expired`` or ``archived`` (its results are deleted);
            empty while it runs.
    """

    id: str
    status: str
    created: datetime | None
    expires: datetime | None
    total: int
    done: int
    failed: int
    results_url: str
    outcome: str


@dataclass(frozen=True, slots=True)
class MessageResult:
    """
    One line of the results.

    Attributes:
        custom_id: the identifier of the request.
        kind: ``succeeded``, ``errored``, ``canceled`` or ``expired``.
        content: the message or the body of the error; empty for the other kinds.
    """

    custom_id: str
    kind: str
    content: Mapping[str, Any]


def encode_request(custom_id: str, body: Mapping[str, Any]) -> bytes:
    """
    Return a live request as one request of a batch, which cannot be streamed.

    >>> encode_request("a-0", {"model": "m", "stream": True})
    b'{"custom_id":"a-0","params":{"model":"m"}}'
    """
    params = {name: value for name, value in body.items() if name != "stream"}
    return encode_line({"custom_id": custom_id, "params": params})


def batch_path(batch_id: str, action: str = "") -> str:
    """
    Return the path of a batch, or of an action on it.

    >>> batch_path("msgbatch_1", "cancel")
    '/v1/messages/batches/msgbatch_1/cancel'
    """
    return f"{BATCHES}/{quote(batch_id, safe='')}{f'/{action}' if action else ''}"


def list_path(limit: int, after: str = "") -> str:
    """Return the path of a page of the list, which begins with the latest batches."""
    start = f"&after_id={quote(after, safe='')}" if after else ""
    return f"{BATCHES}?limit={limit}{start}"


def parse_batch(said: Mapping[str, Any]) -> MessageBatch:
    """
    Return the batch in ``said``.

    Raises:
        KeyError, TypeError: it is not a batch.
    """
    batch_id, status = parse_identifier(said["id"]), said["processing_status"]
    if not isinstance(status, str):
        msg = "a batch without a status"
        raise TypeError(msg)
    counts = {name: parse_count(said["request_counts"].get(name)) for name in _COUNTS}
    total = sum(counts.values())
    url = said.get("results_url")
    return MessageBatch(
        id=batch_id,
        status=status,
        created=parse_time(said.get("created_at")),
        expires=parse_time(said.get("expires_at")),
        total=total,
        done=total - counts["processing"],
        failed=counts["errored"] + counts["canceled"] + counts["expired"],
        results_url=url if isinstance(url, str) else "",
        outcome=_outcome(said, counts) if status == "ended" else "",
    )


def _outcome(said: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    if said.get("archived_at"):
        return "archived"
    if said.get("cancel_initiated_at"):
        return "canceled"
    return "expired" if counts["expired"] else "ended"


def parse_result(line: Mapping[str, Any]) -> MessageResult:
    """
    Return the result in a line.

    Raises:
        KeyError, TypeError: it is not a result.
    """
    custom_id, result = line["custom_id"], line["result"]
    kind = result["type"]
    content = {"succeeded": "message", "errored": "error"}.get(kind)
    found = result[content] if content else {}
    if not isinstance(custom_id, str) or not isinstance(found, Mapping):
        msg = "a result without an identifier or content"
        raise TypeError(msg)
    return MessageResult(custom_id, str(kind), found)
