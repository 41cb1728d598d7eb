"""
Mistral's format of batch jobs. Lines of requests and results are as OpenAI's, without method and URL.

Sources (November 2026): https://docs.mistral.ai/studio-api/batch-processing and mistralai 3.7.0,
models/batchjob.py and models/createbatchjobrequest.py. The lines of results are not documented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from llm_magics.wire.batch_lines import parse_count, parse_time

JOBS = "/batch/jobs"

# The number of jobs on a page of the list.
PAGE_SIZE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """
    A job as the service describes it.

    Attributes:
        id: its identifier.
        status: ``QUEUED``, ``RUNNING``, ``SUCCESS``, ``FAILED``, ``TIMEOUT_EXCEEDED``,
            ``CANCELLATION_REQUESTED`` or ``CANCELLED``.
        created: the time of its creation.
        total, done, failed: numbers of requests; ``done`` includes ``failed``.
        files: the identifiers of the files with its results: outputs, then errors.
        metadata: what we attached to it.
        errors: what went wrong.
    """

    id: str
    status: str
    created: datetime | None = None
    total: int | None = None
    done: int = 0
    failed: int = 0
    files: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    errors: tuple[str, ...] = ()


def job_path(job_id: str, action: str = "") -> str:
    """
    Return the path of a job, or of an action on it.

    >>> job_path("b1", "cancel")
    '/batch/jobs/b1/cancel'
    """
    return f"{JOBS}/{quote(job_id, safe='')}{f'/{action}' if action else ''}"


def list_path(page: int, created_after: datetime) -> str:
    """Return the path of a page of the jobs created after a time, the oldest first."""
    query = {
        "page": page,
        "page_size": PAGE_SIZE,
        "created_after": created_after.isoformat(),
        "order_by": "created",
    }
    return f"{JOBS}?{urlencode(query)}"


def parse_job(said: Mapping[str, Any]) -> Job:
    """
    Return the job in ``said``.

    Raises:
        KeyError, TypeError: it is not a job.
    """
    job_id, status = said["id"], said["status"]
    if not isinstance(job_id, str) or not job_id or not isinstance(status, str):
        msg = "a job without an id or a status"
        raise TypeError(msg)
    metadata = said.get("metadata")
    files = (said.get("output_file"), said.get("error_file"))
    errors = [each for each in said.get("errors") or () if isinstance(each, Mapping)]
    failed = parse_count(said.get("failed_requests"))
    return Job(
        id=job_id,
        status=status,
        created=parse_time(said.get("created_at")),
        total=parse_count(said.get("total_requests")) or None,
        done=parse_count(said.get("succeeded_requests")) + failed,
        failed=failed,
        files=tuple(each for each in files if isinstance(each, str) and each),
        metadata=metadata if isinstance(metadata, Mapping) else {},
        errors=tuple(_describe(each) for each in errors),
    )


def _describe(error: Mapping[str, Any]) -> str:
    """Return the message of an error, and its number of occurrences."""
    message = str(error.get("message") or "no reason given")
    count = parse_count(error.get("count"))
    return f"{message} ({count} times)" if count > 1 else message


def parse_page(said: Mapping[str, Any]) -> tuple[list[Job], int]:
    """
    Return the jobs of one page of the list, and the number of jobs on all pages.

    Raises:
        AttributeError, KeyError, TypeError: it is not such a page.
    """
    return [parse_job(each) for each in said.get("data") or ()], parse_count(said["total"])
