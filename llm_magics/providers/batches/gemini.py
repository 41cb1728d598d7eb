"""
The batch API of the Gemini API, not of Vertex AI.

A few requests are sent in the body that creates a job, and its results are in the body of the ended
job. More are uploaded as a file, and the results are a file too, which is read line by line. Our
identifier is the job's display name, which the list contains.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit, urlunsplit

from llm_magics.errors import ProviderError, ResultsGoneError
from llm_magics.providers.batches.offline import LiveRequest
from llm_magics.providers.batches.service import (
    BatchLimits,
    BatchResult,
    BatchService,
    JobState,
    JobStatus,
    Submission,
)
from llm_magics.providers.batches.transfers import (
    INVALID_RESULTS,
    download_results,
    file_body,
    without_deadline,
)
from llm_magics.providers.gemini import GeminiProvider
from llm_magics.providers.model_lists import check_page_count
from llm_magics.usage import Usage
from llm_magics.wire import gemini_batches as wire
from llm_magics.wire.decoders import DECODING_ERRORS
from llm_magics.wire.gemini import build_embedding_request
from llm_magics.wire.gemini_answers import parse_embeddings

_PAGE = 100

# A job ends after 48 hours without results (the guide to the batch API, November 2026).
_LIFETIME = timedelta(hours=48)

_STATES: dict[str, JobState] = {
    "PENDING": "waiting",
    "QUEUED": "waiting",
    "CANCELLING": "cancelling",
}

# The methods for jobs of live methods other than those for chats.
_METHODS = {"embedContent": "asyncBatchEmbedContent"}

# Vectors whose length differs from 1 by more are shortened ones, which live calls normalise.
_UNNORMALISED = 0.001

# The statuses for a file that does not exist: the Files API answers 403 in place of 404.
_MISSING = frozenset({403, 404})


class Batches(BatchService):
    """
    The batch API of the Gemini API.

    A maximum number of requests and the time for which results are kept were not found in its
    documents. A path names the model, so ``paths`` is empty.

    Attributes:
        inline_bytes: the largest job that is sent in a body. The service takes 20 MB, but then the
            results are in one body too, which is read at once; larger jobs are sent as files.
    """

    # https://ai.google.dev/gemini-api/docs/rate-limits (November 2026): 2 GB, 100 jobs
    limits = BatchLimits(requests=100_000, bytes=2_000_000_000, jobs=100)
    inline_bytes: ClassVar[int] = 2_000_000

    provider: GeminiProvider

    def encode(self, custom_id: str, path: str, body: Mapping[str, Any]) -> bytes:
        return wire.encode_request(custom_id, body)

    async def upload(self, submission: Submission) -> str:
        size = submission.lines.stat().st_size
        if size <= self.inline_bytes:
            return ""
        provider = self._patient
        about = {"file": {"displayName": submission.mark, "mimeType": wire.LINES_TYPE}}
        started = await provider._send(
            "POST",
            self._media_address("upload", "/files"),
            about,
            headers=wire.upload_headers(size),
        )
        address = self._upload_address(started.headers.get("x-goog-upload-url", ""))
        body = file_body(submission.lines, wire.LINES_TYPE)
        command = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
        reply = await provider._send("POST", address, body, headers=command)
        said = await provider._object_in(reply.json(), reply, "")
        with provider._reading(retryable=True):
            return wire.parse_name(said["file"]["name"])

    async def create(self, submission: Submission) -> JobStatus:
        if submission.input_id:
            body = wire.build_batch(submission.mark, file=submission.input_id)
        else:
            body = wire.build_batch(submission.mark, lines=_lines(submission.lines))
        resource, _, live = submission.path.partition(":")
        path = f"{resource}:{_METHODS.get(live, 'batchGenerateContent')}"
        return self._status(await self._patient._object("POST", path, body, submission.model))

    async def recent(self, since: datetime) -> AsyncGenerator[JobStatus, None]:
        seen: set[str] = set()
        path = f"/batches?pageSize={_PAGE}"
        while True:
            page = await self._patient._object("GET", path)
            with self.provider._reading():
                batches, token = wire.parse_page(page)
            for batch in batches:  # their order is not documented
                if batch.created is None or batch.created >= since:
                    yield self._as_status(batch)
            if not token or token in seen:
                return
            seen.add(token)
            check_page_count(len(seen), self.provider.name)
            path = f"/batches?pageSize={_PAGE}&pageToken={quote(token, safe='')}"

    async def retrieve(self, job_id: str) -> JobStatus:
        return self._status(await self._operation(job_id))

    async def results(self, status: JobStatus) -> AsyncGenerator[BatchResult, None]:
        for name in status.results:
            found = self._results_in(name) if name.startswith("files/") else self._inlined(name)
            async with aclosing(found) as results:
                async for result in results:
                    yield result
        if not status.results and status.outcome == "succeeded":
            raise self._gone(status.id)

    async def _results_in(self, file: str) -> AsyncGenerator[BatchResult, None]:
        """Yield the results in a file, as they arrive."""
        url = self._media_address("download", f"/{file}:download?alt=media")
        try:
            async with aclosing(download_results(self.provider, url, self._result)) as results:
                async for result in results:
                    yield result
        except ProviderError as error:
            if error.status not in _MISSING or not _is_about_file(error):
                raise
            raise self._gone(file) from error

    async def _inlined(self, job_id: str) -> AsyncGenerator[BatchResult, None]:
        """Yield the results in the body of a job."""
        count = damaged = 0
        for each in wire.inlined_responses(await self._operation(job_id)):
            count += 1
            try:
                result = self._result(each)
            except DECODING_ERRORS:
                damaged += 1
                continue
            yield result
        if not count:
            raise self._gone(job_id)
        if damaged:
            msg = f"{self.provider.name} sent {damaged} results that are not results."
            raise ProviderError(msg, provider=self.provider.name, code=INVALID_RESULTS)

    async def cancel(self, job_id: str) -> None:
        try:
            await self._patient._object("POST", f"{self._job_path(job_id)}:cancel", {})
        except ProviderError as error:
            # It may have ended in the meantime.
            is_refusal = error.status is not None and 400 <= error.status < 500
            if not is_refusal or (await self.retrieve(job_id)).state != "ended":
                raise

    def embedding_request(self, text: str, model: str, dimensions: int | None) -> LiveRequest:
        model = self.provider.bare(model)
        (request,) = build_embedding_request([text], model, dimensions)["requests"]
        return LiveRequest(self.provider._path(model, "embedContent"), request)

    def parse_vector(self, body: Mapping[str, Any]) -> tuple[list[float], Usage]:
        with self.provider._reading():
            vectors = parse_embeddings({**body, "embeddings": [body["embedding"]]})
            vector = vectors[0]
            if not vector or math.isnan(vector[0]):
                msg = "a vector without numbers"
                raise ValueError(msg)
        # gemini-embedding-001 normalises only its full vectors.
        length = math.sqrt(sum(value * value for value in vector))
        if length and abs(length - 1) > _UNNORMALISED:
            vector = [value / length for value in vector]
        return vector, vectors.usage or Usage()

    async def discard(self, input_id: str) -> None:
        try:
            with self.provider._reading():
                path = f"/{wire.parse_name(input_id)}"
            await self._patient._object("DELETE", path)
        except ProviderError as error:
            if error.status not in _MISSING:
                raise

    @property
    def _patient(self) -> GeminiProvider:
        """The provider without a total timeout."""
        return without_deadline(self.provider)

    async def _operation(self, job_id: str) -> dict[str, Any]:
        """Return a job, which may contain the error with which it failed."""
        reply = await self._patient._send("GET", self._job_path(job_id))
        said = reply.json()
        if isinstance(said, dict) and "name" in said:
            return said
        return await self.provider._object_in(said, reply, "")

    def _job_path(self, job_id: str) -> str:
        with self.provider._reading():
            return f"/{wire.parse_name(job_id)}"

    def _media_address(self, kind: str, path: str) -> str:
        """Return an address of uploads or downloads; these words precede the API's version."""
        base, _, version = self.provider._transport.base_url.rpartition("/")
        return f"{base}/{kind}/{version}{path}"

    def _upload_address(self, url: str) -> str:
        """
        Return the address of an upload at the provider's own host, whatever host ``url`` names.

        The key is sent nowhere else, and an upload passes through the same proxy as a request.
        """
        own, named = urlsplit(self.provider._transport.base_url), urlsplit(url)
        if not named.path.startswith("/"):
            msg = f"{self.provider.name} named no address for the upload."
            raise ProviderError(msg, provider=self.provider.name, retryable=True)
        return urlunsplit((own.scheme, own.netloc, named.path, named.query, ""))

    def _status(self, said: Mapping[str, Any]) -> JobStatus:
        with self.provider._reading():
            return self._as_status(wire.parse_batch(said))

    def _as_status(self, batch: wire.GeminiBatch) -> JobStatus:
        is_ended = batch.is_ended
        results: tuple[str, ...] = ()
        if is_ended and batch.responses_file:
            results = (batch.responses_file,)
        elif is_ended and batch.has_responses:
            results = (batch.name,)
        return JobStatus(
            id=batch.name,
            state="ended" if is_ended else _STATES.get(batch.state, "running"),
            mark=batch.display_name,
            total=batch.total or None,
            done=batch.done,
            failed=batch.failed,
            created=batch.created,
            expires=batch.created + _LIFETIME if batch.created else None,
            results=results,
            outcome=batch.state.lower() if is_ended else "",
            error=batch.error if is_ended else "",
            is_queue_full=is_ended and batch.is_exhausted,
        )

    def _result(self, line: Any) -> BatchResult:
        found = wire.parse_result(line)
        if found.response is not None:
            return BatchResult(custom_id=found.key, body=found.response)
        error = self.provider._error(found.error, None, {}, "")
        if found.is_cancelled:
            error.retryable = True
        return BatchResult(custom_id=found.key, error=error, is_expired=found.is_cancelled)

    def _gone(self, name: str) -> ResultsGoneError:
        msg = f"{self.provider.name} no longer has the results of the batch job: {name}."
        hint = "Run the cell again to submit the rows without an answer."
        return ResultsGoneError(msg, hint=hint, provider=self.provider.name)


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def _is_about_file(error: ProviderError) -> bool:
    """Return whether an error is about a missing file, and not about the key."""
    return error.status == 404 or "may not exist" in str(error)
