"""
OpenAI's format of batch jobs, which Azure, Groq and Together use with small differences.

Sources (November 2026): https://developers.openai.com/api/docs/guides/batch and openai 3.57.0;
https://learn.microsoft.com/azure/foundry/openai/how-to/batch (times are also text there, and states
capitalised); https://console.groq.com/docs/batch (``errors`` is also a list there);
https://docs.together.ai/docs/inference/batch/tutorial and together 2.36.0 (states in capitals,
``error`` is text); https://openrouter.ai/docs/batch-quickstart (``error`` is an object).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from llm_magics.wire.batch_lines import encode_line, parse_count, parse_identifier, parse_time

# The parameters of a live request that are refused in a job.
_STREAMING = ("stream", "stream_options")

# What a service says of a request that it has not processed; it is not billed.
UNPROCESSED = frozenset({"batch_expired", "batch_cancelled"})

# Too much is queued: the same job can be created again when another has ended.
QUEUE_FULL = "token_limit_exceeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """
    A job as the service describes it.

    Attributes:
        id: its identifier.
        status: one of OpenAI's words: ``validating``, ``in_progress``, ``completed`` …
        created, expires: the times of its creation, and until which the service tries.
        total, completed, failed: numbers of requests; ``total`` is ``None`` if it is not counted.
        files: the identifiers of the files with its results: outputs, then errors.
        metadata: what we attached to it.
        input_id: the identifier of the file with its requests.
        errors: why it was refused, as code and message.
    """

    id: str
    status: str
    created: datetime | None = None
    expires: datetime | None = None
    total: int | None = None
    completed: int = 0
    failed: int = 0
    files: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    input_id: str = ""
    errors: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultLine:
    """
    One line of a file with results.

    Attributes:
        custom_id: the identifier of the request.
        status: the status of the response; 0 if there was none.
        body: the body of the response, or the error in place of one.
        request_id: the service's identifier of the response.
        code: the code of an error in place of a response.
    """

    custom_id: str
    status: int = 0
    body: Any = None
    request_id: str = ""
    code: str = ""


def encode_request(custom_id: str, url: str, body: Mapping[str, Any]) -> bytes:
    """
    Return a live request as one line of the file, not streamed.

    With an empty ``url``, the line has no URL and no method; the job has the URL.

    >>> encode_request("a-0", "/v1/embeddings", {"input": ["hi"], "stream": True})
    b'{"custom_id":"a-0","method":"POST","url":"/v1/embeddings","body":{"input":["hi"]}}'
    """
    target = {"method": "POST", "url": url} if url else {}
    plain = {name: value for name, value in body.items() if name not in _STREAMING}
    return encode_line({"custom_id": custom_id, **target, "body": plain})


def item_path(kind: str, item_id: str, action: str = "") -> str:
    """
    Return the path of a file or a job, or of an action on it.

    >>> item_path("batches", "batch_1", "cancel")
    '/batches/batch_1/cancel'
    """
    return f"/{kind}/{quote(item_id, safe='')}{f'/{action}' if action else ''}"


def list_path(query: Mapping[str, Any]) -> str:
    """Return the path of a page of the list of jobs."""
    return f"/batches?{urlencode(query)}" if query else "/batches"


def parse_batch(said: Mapping[str, Any]) -> Batch:
    """
    Return the job in ``said``.

    Raises:
        KeyError, TypeError: it is not a job.
    """
    batch_id, status = parse_identifier(said["id"]), said["status"]
    if not isinstance(status, str):
        msg = "a job without a status"
        raise TypeError(msg)
    counts = said.get("request_counts") or {}
    metadata = said.get("metadata")
    files = (said.get("output_file_id"), said.get("error_file_id"))
    return Batch(
        id=batch_id,
        status=_status(status),
        created=parse_time(said.get("created_at")),
        expires=parse_time(said.get("expires_at") or said.get("job_deadline")),
        total=parse_count(counts.get("total")) or None,
        completed=parse_count(counts.get("completed")),
        failed=parse_count(counts.get("failed")),
        files=tuple(parse_identifier(each) for each in files if each),
        metadata=metadata if isinstance(metadata, Mapping) else {},
        input_id=str(said.get("input_file_id") or ""),
        errors=_parse_errors(said.get("errors") or said.get("error")),
    )


def _status(word: str) -> str:
    """
    Return a state in OpenAI's spelling.

    >>> [_status(each) for each in ("Validating", "IN_PROGRESS", "InProgress", "cancelled")]
    ['validating', 'in_progress', 'in_progress', 'cancelled']
    """
    plain = word.lower().replace("_", "")
    return "in_progress" if plain == "inprogress" else plain


def _parse_errors(said: Any) -> tuple[tuple[str, str], ...]:
    """Return code and message of each error of a job."""
    if isinstance(said, str):
        return (("", said),) if said else ()
    listed = said.get("data", [said]) if isinstance(said, Mapping) else said
    found = [each for each in listed or () if isinstance(each, Mapping)]
    return tuple((str(each.get("code") or ""), _describe(each)) for each in found)


def _describe(error: Mapping[str, Any]) -> str:
    """Return the message of an error, with the number of its line."""
    message = str(error.get("message") or error.get("code") or "no reason given")
    line = error.get("line")
    return f"line {line}: {message}" if type(line) is int else message


def parse_page(said: Any) -> tuple[list[Batch], dict[str, str]]:
    """
    Return the jobs of one page of the list, and the query of the next; empty if it is the last one.

    Raises:
        AttributeError, KeyError, TypeError: it is not such a page.
    """
    if isinstance(said, list):  # Together's list has one page
        return [parse_batch(each) for each in said], {}
    batches = [parse_batch(each) for each in said.get("data") or ()]
    cursor = (said.get("paging") or {}).get("next_cursor")
    if isinstance(cursor, str) and cursor:  # Groq
        return batches, {"cursor": cursor}
    return batches, {"after": batches[-1].id} if said.get("has_more") and batches else {}


def parse_result(line: Mapping[str, Any]) -> ResultLine:
    """
    Return the result in a line of the outputs or of the errors.

    Raises:
        KeyError, TypeError: it is not a result.
    """
    custom_id = line["custom_id"]
    if not isinstance(custom_id, str):
        msg = "a result without an identifier"
        raise TypeError(msg)
    response, error = line.get("response"), line.get("error")
    if isinstance(response, Mapping) and response.get("body") is not None:
        return ResultLine(
            custom_id=custom_id,
            status=parse_count(response.get("status_code")) or 200,
            body=response["body"],
            request_id=str(response.get("request_id") or ""),
        )
    if not error:
        msg = "a result without a response or an error"
        raise TypeError(msg)
    body = error if isinstance(error, Mapping) else {"message": str(error)}
    status = response.get("status_code") if isinstance(response, Mapping) else None
    return ResultLine(
        custom_id=custom_id,
        status=parse_count(status),
        body={"error": body},
        code=str(body.get("code") or ""),
    )
