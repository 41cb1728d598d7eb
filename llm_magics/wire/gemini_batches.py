"""
The format of the batch API of the Gemini API.

A job takes its requests in the body of its creation, or in a file of JSON lines; its results have
the same form. It is described by a long-running operation, with the job in ``metadata`` and, at the
end, the results or their file in ``response``.

Sources (November 2026): https://ai.google.dev/gemini-api/docs/batch-api,
https://ai.google.dev/api/batch-api, https://ai.google.dev/api/files, and google-genai 3.6.1. The guide
names states ``JOB_STATE_…``, the API ``BATCH_STATE_…``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from llm_magics.wire.batch_lines import encode_line, parse_count, parse_time

LINES_TYPE = "application/jsonl"

# A job's identifier is ``batches/ID``, a file's ``files/ID``; both become parts of addresses.
_NAME = re.compile(r"(?:batches|files)/[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

_ENDED = frozenset({"CANCELLED", "EXPIRED", "FAILED", "PARTIALLY_SUCCEEDED", "SUCCEEDED"})

# The names of the codes in an error of a request (https://google.aip.dev/193, google.rpc.Code).
_CODES: dict[Any, str] = {
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}

_CANCELLED, _EXHAUSTED = "CANCELLED", "RESOURCE_EXHAUSTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeminiBatch:
    """
    A job as the service describes it.

    Attributes:
        name: its identifier, ``batches/ID``.
        state: its state without a prefix, such as ``RUNNING``.
        is_ended: whether it is final.
        display_name: the name that we gave to it.
        created: the time of its creation.
        total, done, failed: numbers of requests; ``done`` includes ``failed``.
        responses_file: the file with its results, ``files/ID``; empty if it has none.
        has_responses: whether the results are in the same body.
        error: why it failed.
        is_exhausted: whether it failed because a quota is used up.
    """

    name: str
    state: str
    is_ended: bool
    display_name: str | None
    created: datetime | None
    total: int
    done: int
    failed: int
    responses_file: str
    has_responses: bool
    error: str
    is_exhausted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GeminiResult:
    """The key of a request, and its response or the body of its error."""

    key: str
    response: Mapping[str, Any] | None
    error: Mapping[str, Any]
    is_cancelled: bool


def encode_request(key: str, body: Mapping[str, Any]) -> bytes:
    """
    Return a live request as a line of an input file.

    >>> encode_request("a-0", {"contents": []})
    b'{"key":"a-0","request":{"contents":[]}}'
    """
    return encode_line({"key": key, "request": dict(body)})


def build_batch(
    display_name: str, *, file: str = "", lines: Iterable[bytes] = ()
) -> dict[str, Any]:
    """
    Return the body that creates a job from an uploaded file, or else from lines of one.

    >>> build_batch("a", file="files/f")
    {'batch': {'displayName': 'a', 'inputConfig': {'fileName': 'files/f'}}}
    >>> build_batch("a", lines=[b'{"key":"a-0","request":{}}'])["batch"]["inputConfig"]
    {'requests': {'requests': [{'request': {}, 'metadata': {'key': 'a-0'}}]}}
    """
    source: dict[str, Any] = {"fileName": file}
    if not file:
        values = map(json.loads, lines)
        requests = [
            {"request": each["request"], "metadata": {"key": each["key"]}} for each in values
        ]
        source = {"requests": {"requests": requests}}
    return {"batch": {"displayName": display_name, "inputConfig": source}}


def upload_headers(size: int) -> dict[str, str]:
    """Return the headers of the request that starts the upload of an input file."""
    return {
        "X-Goog-Upload-Protocol": "resumable",
        "X-Goog-Upload-Command": "start",
        "X-Goog-Upload-Header-Content-Length": str(size),
        "X-Goog-Upload-Header-Content-Type": LINES_TYPE,
    }


def parse_name(value: Any) -> str:
    """
    Return the identifier of a job or a file.

    Raises:
        TypeError, ValueError: it has another form, and could lead to another address.
    """
    if _NAME.fullmatch(value) is None:
        msg = f"an invalid name: {value[:60]!r}"
        raise ValueError(msg)
    return str(value)


def parse_batch(said: Mapping[str, Any]) -> GeminiBatch:
    """
    Return the job in an operation.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is not a job.
    """
    facts = said.get("metadata") or {}
    counts = facts.get("batchStats") or {}
    state = str(facts.get("state") or "").removeprefix("JOB_STATE_").removeprefix("BATCH_STATE_")
    files = [each["responsesFile"] for each in _outputs(said) if each.get("responsesFile")]
    has_responses = any("inlinedResponses" in each for each in _outputs(said))
    is_done = bool(said.get("done"))
    failed = parse_count(counts.get("failedRequestCount"))
    error = said.get("error") or {}
    code = error.get("code", 0)
    name = facts.get("displayName")
    return GeminiBatch(
        name=parse_name(said["name"]),
        state=state,
        # The results may be missing for a moment after it has succeeded.
        is_ended=is_done
        or (state in _ENDED and (state != "SUCCEEDED" or bool(files) or has_responses)),
        display_name=name if isinstance(name, str) else None,
        created=parse_time(facts.get("createTime")),
        total=parse_count(counts.get("requestCount")),
        done=parse_count(counts.get("successfulRequestCount")) + failed,
        failed=failed,
        responses_file=parse_name(files[0]) if files else "",
        has_responses=has_responses,
        error=str(error.get("message") or error or ""),
        is_exhausted=code == 429 or _CODES.get(code) == _EXHAUSTED,
    )


def _outputs(said: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the objects that may contain the results, or the name of their file."""
    for each in (said.get("response"), (said.get("metadata") or {}).get("output")):
        if isinstance(each, Mapping):
            yield each


def inlined_responses(said: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the results in an operation."""
    for each in _outputs(said):
        found = each.get("inlinedResponses")
        if isinstance(found, Mapping):
            found = found.get("inlinedResponses")
        if isinstance(found, list):
            yield from found
            return


def parse_result(line: Mapping[str, Any]) -> GeminiResult:
    """
    Return a result, from a line of a file or from an operation.

    Raises:
        AttributeError, KeyError, TypeError: it is not a result.
    """
    key = line["key"] if "key" in line else line["metadata"]["key"]
    response, error = line.get("response"), line.get("error")
    if not isinstance(key, str) or not isinstance(response or error, Mapping):
        msg = "a result without a key or content"
        raise TypeError(msg)
    if isinstance(response, Mapping) and response:
        return GeminiResult(key=key, response=response, error={}, is_cancelled=False)
    assert isinstance(error, Mapping)
    name = _CODES.get(error["code"]) if type(error.get("code")) is int else None
    if name is not None:  # as in the error of a live call
        error = {"status": name, **{each: error[each] for each in error if each != "code"}}
    return GeminiResult(
        key=key, response=None, error={"error": error}, is_cancelled=name == _CANCELLED
    )


def parse_page(said: Mapping[str, Any]) -> tuple[list[GeminiBatch], str]:
    """
    Return the jobs of one page of the list, and the token of the next page.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is not such a page.
    """
    token = said.get("nextPageToken")
    batches = [parse_batch(each) for each in said.get("operations") or ()]
    return batches, token if isinstance(token, str) else ""
