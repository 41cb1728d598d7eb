"""
The batch API of OpenRouter.

A job takes its requests in the body of its creation, for one model and one endpoint; its objects
are OpenAI's otherwise. It has no field for our identifier, the list shows no ``custom_id``, and a
job cannot be cancelled. Results are read page by page.

Sources (November 2026): https://openrouter.ai/docs/guides/features/batch-api (5,000 requests, 200 MB),
https://openrouter.ai/docs/batch-quickstart (kept for 30 days),
https://openrouter.ai/docs/api/api-reference/batch (all operations), and openrouter 1.3.84. The guide
of August 2026 names no address for pages of results, so the results in the job itself are read where
that address does not exist. Not found: whether an expired job has results, and its price then.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import urlencode

from llm_magics.errors import ProviderError, ResultsGoneError
from llm_magics.providers.batches import openai
from llm_magics.providers.batches.service import BatchLimits, BatchResult, JobStatus, Submission
from llm_magics.providers.batches.transfers import array_body
from llm_magics.providers.model_lists import check_page_count
from llm_magics.wire.decoders import DECODING_ERRORS
from llm_magics.wire.openai_batches import Batch, encode_request, item_path

# The statuses for results that do not exist.
_MISSING = frozenset({400, 404, 409, 410})


class Batches(openai.Batches):
    """
    The batch API of OpenRouter.

    Attributes:
        page: the number of results on a page, of at most 1,000; a page is in memory at once.
    """

    limits = BatchLimits(requests=5_000, bytes=199_000_000, retention_days=30)
    has_marks = False
    page: ClassVar[int] = 250

    def encode(self, custom_id: str, path: str, body: Mapping[str, Any]) -> bytes:
        return encode_request(custom_id, "", body)

    async def upload(self, submission: Submission) -> str:
        return ""

    def _job(self, submission: Submission) -> Any:
        # The service reads the body as it arrives, so that the requests must come last.
        with submission.lines.open("rb") as file:
            first = json.loads(file.readline())
        about = {
            "endpoint": f"{self.url_prefix}{submission.path}",
            "model": first["body"].get(
                "model", submission.model
            ),  # it must be that of the requests
            "completion_window": "24h",
        }
        before = json.dumps(about, separators=(",", ":")).encode()[:-1] + b',"requests":['
        return array_body(before, submission.lines, b"]}")

    def _status(self, batch: Batch, mark: str | None = None) -> JobStatus:
        status = super()._status(batch)
        return replace(status, results=(batch.id,) if status.state == "ended" else ())

    async def results(self, status: JobStatus) -> AsyncGenerator[BatchResult, None]:
        for job_id in status.results:
            try:
                async with aclosing(self._pages(job_id)) as pages:
                    async for page in pages:
                        for result in page:
                            yield result
            except ProviderError as error:
                if error.status not in _MISSING:
                    raise
                for result in await self._inline(job_id, status, error):
                    yield result

    async def _pages(self, job_id: str) -> AsyncGenerator[list[BatchResult], None]:
        """Yield the pages of the results of a job."""
        seen: set[str] = set()
        query = {"limit": str(self.page)}
        while True:
            path = f"{item_path('batches', job_id, 'results')}?{urlencode(query)}"
            said = await self._request("GET", path)
            with self.provider._reading(retryable=True):
                cursor = said.get("next_cursor")
                results = self._read(said["data"])
            yield results
            if not said.get("has_more") or not isinstance(cursor, str) or cursor in seen:
                return
            seen.add(cursor)
            check_page_count(len(seen), self.provider.name)
            query["cursor"] = cursor

    async def _inline(
        self, job_id: str, status: JobStatus, error: ProviderError
    ) -> list[BatchResult]:
        """Return the results in the job itself, for a service without pages of them."""
        try:
            said = await self._request("GET", item_path("batches", job_id))
        except ProviderError as failure:
            if failure.status not in _MISSING:
                raise
            said = {}
        rows = said.get("results") if isinstance(said, Mapping) else None
        if isinstance(rows, list):
            return self._read(rows)
        if status.outcome != "completed":
            return []  # it has failed, expired or been cancelled without results
        msg = f"{self.provider.name} no longer has the results of the batch job {job_id}."
        hint = f"It keeps them for {self.limits.retention_days} days. Run the cell again to submit the rows without an answer."
        raise ResultsGoneError(msg, hint=hint, provider=self.provider.name) from error

    def _read(self, rows: list[Any]) -> list[BatchResult]:
        """Return the results in rows; a row that is not a result costs no other."""
        results = []
        for each in rows:
            try:
                results.append(self._parse_result(each))
            except DECODING_ERRORS:
                continue
        return results

    async def cancel(self, job_id: str) -> None:
        self.provider._cannot("cancel batch jobs")

    async def discard(self, input_id: str) -> None:
        """Do nothing, because nothing is uploaded."""
