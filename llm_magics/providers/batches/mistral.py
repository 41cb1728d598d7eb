"""
The batch API of Mistral.

Facts of November 2026: a workspace has at most 1,000,000 pending requests, and results do not expire
(https://docs.mistral.ai/studio-api/batch-processing); a file has at most 512 MB (mistralai 3.7.0,
files.py). Files are used for jobs of any size; inline requests, for fewer than 10,000, are not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from llm_magics.providers.batches import openai
from llm_magics.providers.batches.service import BatchLimits, JobState, JobStatus, Submission
from llm_magics.providers.model_lists import check_page_count
from llm_magics.wire.mistral_jobs import (
    JOBS,
    Job,
    job_path,
    list_path,
    parse_job,
    parse_page,
)
from llm_magics.wire.openai_batches import encode_request

_STATES: Mapping[str, JobState] = MappingProxyType(
    {
        "QUEUED": "waiting",
        "RUNNING": "running",
        "CANCELLATION_REQUESTED": "cancelling",
        "SUCCESS": "ended",
        "FAILED": "ended",
        "TIMEOUT_EXCEEDED": "ended",
        "CANCELLED": "ended",
    }
)

# The time after which a job expires; at most 7 days.
_TIMEOUT_HOURS = 24

_ERRORS_SHOWN = 3


class Batches(openai.Batches):
    """The batch API of Mistral: its files and results are as OpenAI's, its jobs are not."""

    limits = BatchLimits(requests=1_000_000, bytes=512_000_000)
    paths = frozenset({"/chat/completions", "/embeddings"})

    def encode(self, custom_id: str, path: str, body: Mapping[str, Any]) -> bytes:
        return encode_request(custom_id, "", body)

    async def create(self, submission: Submission) -> JobStatus:
        job = {
            "endpoint": f"{self.url_prefix}{submission.path}",
            "input_files": [submission.input_id],
            "model": submission.model,
            "metadata": {openai.MARK_KEY: submission.mark},
            "timeout_hours": _TIMEOUT_HOURS,
        }
        return self._read_job(await self._request("POST", JOBS, job))

    async def recent(self, since: datetime) -> AsyncGenerator[JobStatus, None]:
        oldest = since - timedelta(seconds=1)  # times of creation are whole seconds
        page = read = 0
        while True:
            check_page_count(page, self.provider.name)
            said = await self._request("GET", list_path(page, oldest))
            with self.provider._reading():
                jobs, total = parse_page(said)
            for job in jobs:
                yield _status(job)
            page, read = page + 1, read + len(jobs)
            if not jobs or read >= total:
                return

    async def retrieve(self, job_id: str) -> JobStatus:
        return self._read_job(await self._request("GET", job_path(job_id)))

    def _cancel_path(self, job_id: str) -> str:
        return job_path(job_id, "cancel")

    def _read_job(self, said: Any) -> JobStatus:
        with self.provider._reading():
            return _status(parse_job(said))


def _status(job: Job) -> JobStatus:
    """Return the state of a job."""
    state = _STATES.get(job.status, "running")
    has_failed = job.status == "FAILED"
    return JobStatus(
        id=job.id,
        state=state,
        mark=openai.as_mark(job.metadata.get(openai.MARK_KEY)),
        total=job.total,
        done=job.done,
        failed=job.failed,
        created=job.created,
        expires=job.created + timedelta(hours=_TIMEOUT_HOURS) if job.created else None,
        results=job.files if state == "ended" else (),
        outcome=job.status.lower() if state == "ended" else "",
        error="; ".join(job.errors[:_ERRORS_SHOWN]) if has_failed else "",
    )
