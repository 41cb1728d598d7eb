"""
Anthropic's Message Batches API.

A batch has no field for our identifier, and the list shows no ``custom_id``: only the results, which
exist after the end, tell whose a batch is.

The service may answer 404 for a batch that exists, as it did in April 2026
(https://github.com/anthropics/anthropic-sdk-python/issues/1432). So a 404 is an error that can be
tried again; results count as deleted only if the batch itself says that it is archived.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any

from llm_magics.errors import ProviderError, ResultsGoneError
from llm_magics.providers.batches.service import (
    BatchLimits,
    BatchResult,
    BatchService,
    JobState,
    JobStatus,
    Submission,
)
from llm_magics.providers.batches.transfers import (
    array_body,
    download_results,
    own_address,
    without_deadline,
)
from llm_magics.providers.model_lists import check_page_count
from llm_magics.providers.remote import RemoteProvider
from llm_magics.wire import anthropic_batches as wire

_PAGE = 100

_STATES: dict[str, JobState] = {"canceling": "cancelling", "ended": "ended"}

_FREE = {
    "canceled": "The request was canceled before it was processed.",
    "expired": "The request expired before it was processed.",
}


class Batches(BatchService):
    """The Message Batches of Anthropic."""

    # https://platform.claude.com/docs/en/build-with-claude/batch-processing (November 2026): 256 MB,
    # which includes what is around the requests
    limits = BatchLimits(requests=100_000, bytes=255_000_000, retention_days=29)
    has_marks = False
    paths = frozenset({"/v1/messages"})

    def encode(self, custom_id: str, path: str, body: Mapping[str, Any]) -> bytes:
        return wire.encode_request(custom_id, body)

    async def create(self, submission: Submission) -> JobStatus:
        body = array_body(wire.BEFORE_REQUESTS, submission.lines, wire.AFTER_REQUESTS)
        return self._status(await self._patient._object("POST", wire.BATCHES, body))

    async def recent(self, since: datetime) -> AsyncGenerator[JobStatus, None]:
        after = ""
        seen: set[str] = set()
        while True:
            page = await self._patient._object("GET", wire.list_path(_PAGE, after))
            with self.provider._reading():
                batches = [self._status(each) for each in page["data"]]
            for status in batches:
                if status.created is None or status.created >= since:
                    yield status
            after = str(page.get("last_id") or "")
            oldest = batches[-1].created if batches else None
            is_older = oldest is not None and oldest < since  # it begins with the latest
            if not page.get("has_more") or is_older or not after or after in seen:
                return
            seen.add(after)
            check_page_count(len(seen), self.provider.name)

    async def retrieve(self, job_id: str) -> JobStatus:
        try:
            return self._status(await self._patient._object("GET", wire.batch_path(job_id)))
        except ProviderError as error:
            if error.status == 404:
                raise self._missing(error) from None
            raise

    async def results(self, status: JobStatus) -> AsyncGenerator[BatchResult, None]:
        self._check_archive(status)
        if not status.results:
            msg = f"{self.provider.name} has ended the batch {status.id}, but named no results."
            raise ProviderError(msg, provider=self.provider.name, retryable=True)
        url = own_address(self.provider, status.results[0])
        try:
            async with aclosing(download_results(self.provider, url, self._result)) as results:
                async for result in results:
                    yield result
        except ProviderError as error:
            if error.status != 404:
                raise
            self._check_archive(await self.retrieve(status.id))
            raise self._missing(error) from None

    async def cancel(self, job_id: str) -> None:
        try:
            await self._patient._object("POST", wire.batch_path(job_id, "cancel"))
        except ProviderError as error:
            # It may have ended in the meantime.
            is_refusal = error.status is not None and 400 <= error.status < 500
            if not is_refusal or (await self.retrieve(job_id)).state != "ended":
                raise

    @property
    def _patient(self) -> RemoteProvider:
        """The provider without a total timeout."""
        return without_deadline(self.provider)

    def _status(self, said: Mapping[str, Any]) -> JobStatus:
        with self.provider._reading():
            batch = wire.parse_batch(said)
        return JobStatus(
            id=batch.id,
            state=_STATES.get(batch.status, "running"),
            total=batch.total,
            done=batch.done,
            failed=batch.failed,
            created=batch.created,
            expires=batch.expires,
            results=(batch.results_url,) if batch.results_url else (),
            outcome=batch.outcome,
        )

    def _result(self, line: Any) -> BatchResult:
        found = wire.parse_result(line)
        if found.kind == "succeeded":
            return BatchResult(custom_id=found.custom_id, body=found.content)
        if found.kind in _FREE:
            error = ProviderError(_FREE[found.kind], provider=self.provider.name, code=found.kind)
            error.retryable = True
        elif found.kind == "errored":
            error = self.provider._error(found.content, None, {}, "")
        else:
            msg = f"{self.provider.name} sent a result of the unknown type {found.kind[:40]!r}."
            error = ProviderError(msg, provider=self.provider.name)
        return BatchResult(custom_id=found.custom_id, error=error, is_expired=found.kind in _FREE)

    def _check_archive(self, status: JobStatus) -> None:
        if status.outcome == "archived":
            msg = (
                f"{self.provider.name} has deleted the results of the batch {status.id}: it keeps "
                f"them for {self.limits.retention_days} days."
            )
            raise ResultsGoneError(msg, provider=self.provider.name)

    def _missing(self, error: ProviderError) -> ProviderError:
        details = {**error.details(), "model": None, "retryable": True}
        hint = (
            "It may have been deleted. The service sometimes also says this of existing batches."
        )
        return ProviderError(str(error), hint=hint, **details)
