"""
The batch API of OpenAI; Azure, Groq and Together have modules with their differences.

Facts of November 2026: a file has at most 50,000 requests, 50,000 texts to embed and 200 MB, all
for one model (openai 3.57.0, types/batch_create_params.py). Results are deleted after 30 days, and
a cancelled job may take 10 minutes to end (https://developers.openai.com/api/docs/guides/batch).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, ClassVar

from llm_magics.errors import ProviderError, ResultsGoneError
from llm_magics.http import Form
from llm_magics.providers.batches.offline import LiveRequest
from llm_magics.providers.batches.service import (
    BatchLimits,
    BatchResult,
    BatchService,
    JobState,
    JobStatus,
    Submission,
)
from llm_magics.providers.batches.transfers import download_results, without_deadline
from llm_magics.providers.model_lists import check_page_count
from llm_magics.providers.openai_compatible import OpenAICompatibleProvider
from llm_magics.usage import Usage
from llm_magics.wire.batch_lines import parse_identifier
from llm_magics.wire.openai_batches import (
    QUEUE_FULL,
    UNPROCESSED,
    Batch,
    encode_request,
    item_path,
    list_path,
    parse_batch,
    parse_page,
    parse_result,
)
from llm_magics.wire.openai_media import build_embedding_request, parse_embeddings

# The key under which a job's metadata has our identifier; Mistral allows 32 characters.
MARK_KEY = "llm_magics_job"

_MARK = re.compile(r"[A-Za-z0-9]{20}")

_STATES: Mapping[str, JobState] = MappingProxyType(
    {
        "validating": "waiting",
        "in_progress": "running",
        "finalizing": "running",
        "cancelling": "cancelling",
        "completed": "ended",
        "failed": "ended",
        "expired": "ended",
        "cancelled": "ended",
    }
)

# The statuses for the results of a job that are deleted, and for a job that cannot be cancelled.
_GONE = frozenset({404, 410})
_NOT_RUNNING = frozenset({400, 404, 409})

_ERRORS_SHOWN = 3


class Batches(BatchService):
    """
    The batch API of OpenAI.

    Attributes:
        url_prefix: what is before a live path in the URLs of requests and of jobs.
        purpose, upload_path: the purpose of the file, and the path to which it is uploaded.
        first_page: the query of the first page of the list.
        is_latest_first: whether the list is known to begin with the latest jobs.
    """

    limits = BatchLimits(requests=50_000, bytes=200_000_000, inputs=50_000, retention_days=30)
    paths = frozenset({"/chat/completions", "/responses", "/embeddings"})
    url_prefix: ClassVar[str] = "/v1"
    purpose: ClassVar[str] = "batch"
    upload_path: ClassVar[str] = "/files"
    first_page: ClassVar[Mapping[str, Any]] = MappingProxyType({"limit": 100})
    is_latest_first: ClassVar[bool] = True

    provider: OpenAICompatibleProvider

    def encode(self, custom_id: str, path: str, body: Mapping[str, Any]) -> bytes:
        return encode_request(custom_id, f"{self.url_prefix}{path}", body)

    async def upload(self, submission: Submission) -> str:
        said = await self._request("POST", self.upload_path, self._form(submission))
        with self.provider._reading():
            return parse_identifier(said["id"])

    def _form(self, submission: Submission) -> Form:
        file = (f"{submission.mark}.jsonl", submission.lines, "application/octet-stream")
        return Form({"purpose": self.purpose}, {"file": file})

    async def create(self, submission: Submission) -> JobStatus:
        said = await self._request("POST", "/batches", self._job(submission))
        with self.provider._reading():
            return self._status(self._parse_created(said))

    def _job(self, submission: Submission) -> dict[str, Any]:
        """Return the body of the request that creates a job."""
        return {
            "input_file_id": submission.input_id,
            "endpoint": f"{self.url_prefix}{submission.path}",
            "completion_window": "24h",
            "metadata": {MARK_KEY: submission.mark},
        }

    def _parse_created(self, said: Any) -> Batch:
        """Return the job in the answer to its creation."""
        return parse_batch(said)

    async def recent(self, since: datetime) -> AsyncGenerator[JobStatus, None]:
        oldest = since - timedelta(seconds=1)  # times of creation are whole seconds
        query, count = dict(self.first_page), 0
        while True:
            check_page_count(count, self.provider.name)
            said = await self._request("GET", list_path(query))
            with self.provider._reading():
                page, position = parse_page(said)
            fresh = [each for each in page if each.created is None or each.created > oldest]
            for batch in fresh:
                yield self._status(batch, await self._mark(batch))
            following = {**self.first_page, **position}
            is_past = self.is_latest_first and not fresh
            if not position or is_past or following == query:
                return
            query, count = following, count + 1

    async def _mark(self, batch: Batch) -> str | None:
        """Return our identifier of a job in the list."""
        return as_mark(batch.metadata.get(MARK_KEY))

    async def retrieve(self, job_id: str) -> JobStatus:
        said = await self._request("GET", item_path("batches", job_id))
        with self.provider._reading():
            return self._status(parse_batch(said))

    async def results(self, status: JobStatus) -> AsyncGenerator[BatchResult, None]:
        for file_id in status.results:
            path = self._path(item_path("files", file_id, "content"))
            found = download_results(self.provider, path, self._parse_result)
            try:
                async with aclosing(found) as results:
                    async for result in results:
                        yield result
            except ProviderError as error:
                if error.status not in _GONE:
                    raise
                raise await self._missing(file_id, error) from error

    async def _missing(self, file_id: str, error: ProviderError) -> ProviderError:
        """Return the error for results that were not found: a file that exists is not ready yet."""
        name = self.provider.name
        try:
            await self._request("GET", item_path("files", file_id))
        except ProviderError as other:
            if other.status not in _GONE:
                return other
        else:
            msg = f"{name} lists the file with the results, but did not send it."
            return ProviderError(msg, hint="Run the cell again.", provider=name, retryable=True)
        days = self.limits.retention_days
        hint = f"It keeps them for {days} days. " if days else ""
        hint += "Run the cell again to submit the rows without an answer."
        msg = f"{name} no longer has the results of the batch job."
        return ResultsGoneError(
            msg, hint=hint, provider=name, status=error.status, body=error.body
        )

    def _parse_result(self, line: Any) -> BatchResult:
        """Return the result in a line of a file."""
        found = parse_result(line)
        if found.status == 200 and isinstance(found.body, Mapping):
            return BatchResult(custom_id=found.custom_id, body=found.body)
        headers = {"x-request-id": found.request_id} if found.request_id else {}
        error = self.provider._error(found.body, found.status or None, headers, "")
        is_expired = found.code in UNPROCESSED
        if is_expired:
            error.retryable = True
        return BatchResult(custom_id=found.custom_id, error=error, is_expired=is_expired)

    async def cancel(self, job_id: str) -> None:
        try:
            await self._request("POST", self._cancel_path(job_id))
        except ProviderError as error:
            # It may have ended in the meantime.
            if error.status not in _NOT_RUNNING or (await self.retrieve(job_id)).state != "ended":
                raise

    def _cancel_path(self, job_id: str) -> str:
        return item_path("batches", job_id, "cancel")

    def embedding_request(self, text: str, model: str, dimensions: int | None) -> LiveRequest:
        if "/embeddings" not in self.paths:
            return super().embedding_request(text, model, dimensions)
        profile = self.provider.profile
        if dimensions is not None and "dimensions" in profile.refuses:
            self.provider._cannot("shorten vectors", "openai, ollama")
        model = self.provider.bare(model)
        body = build_embedding_request([text], model, profile.encoding_format, dimensions)
        return LiveRequest("/embeddings", body)

    def parse_vector(self, body: Mapping[str, Any]) -> tuple[list[float], Usage]:
        if body.get("error"):
            raise self.provider._error(body, None, {}, "")
        with self.provider._reading():
            vectors = parse_embeddings(body)
        self.provider._check_count(len(vectors), 1, str(body.get("model") or ""))
        return vectors[0], vectors.usage or Usage()

    async def discard(self, input_id: str) -> None:
        try:
            await self._request("DELETE", item_path("files", input_id))
        except ProviderError as error:
            if error.status not in _GONE:
                raise

    async def _request(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request, without a total timeout, and return the JSON value of the reply."""
        reply = await without_deadline(self.provider)._send(method, self._path(path), body)
        return reply.json()

    def _path(self, path: str) -> str:
        return self.provider._path(path, "")

    def _status(self, batch: Batch, mark: str | None = None) -> JobStatus:
        """Return the state of a job."""
        state = _STATES.get(batch.status, "running")
        has_failed = batch.status == "failed"
        messages = [message for _, message in batch.errors[:_ERRORS_SHOWN]]
        return JobStatus(
            id=batch.id,
            state=state,
            mark=mark or as_mark(batch.metadata.get(MARK_KEY)),
            total=batch.total,
            done=batch.completed + batch.failed,
            failed=batch.failed,
            created=batch.created,
            expires=batch.expires,
            results=batch.files if state == "ended" else (),
            outcome=batch.status if state == "ended" else "",
            error="; ".join(messages) if has_failed else "",
            is_queue_full=has_failed and any(code == QUEUE_FULL for code, _ in batch.errors),
        )


def as_mark(value: Any) -> str | None:
    """Return ``value`` if it has the form of our identifiers, otherwise ``None``."""
    return value if isinstance(value, str) and _MARK.fullmatch(value) else None
