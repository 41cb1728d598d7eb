"""
The interface of a service's batch API.

A *job* is a batch that a service has accepted. Its requests are written to a file first, one line
each, so that a million of them need no memory. `BatchService.create` is the only step that costs
money and cannot be undone; the caller never repeats it before `BatchService.recent` shows that the
service has no such job.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from llm_magics.errors import ProviderError
from llm_magics.providers.batches.offline import LiveRequest
from llm_magics.providers.identity import describe_identity
from llm_magics.providers.remote import RemoteProvider
from llm_magics.usage import Usage

JobState = Literal["waiting", "running", "cancelling", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """
    The caps of a service for one job.

    Attributes:
        requests: the number of requests.
        bytes: the size of the file or body.
        inputs: the number of texts to embed; by default as many as ``requests``.
        jobs: the number of jobs that may run at the same time; ``None`` if it is not limited.
        retention_days: the days after which results are deleted; ``None`` if not documented.
    """

    requests: int
    bytes: int
    inputs: int | None = None
    jobs: int | None = None
    retention_days: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """
    One job to create.

    Attributes:
        mark: our identifier of the job, 20 letters and digits. Every ``custom_id`` is ``MARK-N``.
        path: the path of the live request (``/chat/completions``, ``/embeddings`` …).
        model: the model's name at the service.
        lines: the file with one request per line, as `BatchService.encode` returned them.
        count: the number of lines.
        input_id: what `BatchService.upload` returned.
    """

    mark: str
    path: str
    model: str
    lines: Path
    count: int
    input_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """
    A job as the service describes it.

    Attributes:
        id: the service's identifier.
        state: ``ended`` for every final state.
        mark: our identifier, if the service's list contains it; otherwise ``None``.
        total, done, failed: the service's own counts of requests; ``done`` includes ``failed``.
        created, expires: times of creation, and until which the service tries.
        results: what `BatchService.results` needs to read the results: ids or addresses.
        outcome: the service's word for the final state (``completed``, ``expired`` …).
        error: why the service refused the whole job after its creation, if it did.
        is_queue_full: whether it did because too much is queued; it can be created again later.
    """

    id: str
    state: JobState
    mark: str | None = None
    total: int | None = None
    done: int = 0
    failed: int = 0
    created: datetime | None = None
    expires: datetime | None = None
    results: tuple[str, ...] = ()
    outcome: str = ""
    error: str = ""
    is_queue_full: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """
    The result of one request: the ``body`` of a live response, or an ``error``.

    Attributes:
        custom_id: the identifier of the request.
        body: the response's JSON object, as an answer that is not streamed.
        error: the reason for a missing answer.
        is_expired: whether the request was not processed in time, or was cancelled: it is free.
    """

    custom_id: str
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    error: ProviderError | None = None
    is_expired: bool = False


class BatchService(ABC):
    """
    The batch API of one service, for one provider.

    Attributes:
        limits: the caps for one job.
        has_marks: whether `recent` returns our identifier. Without it, a job is recognised by its
            size and, after its end, by the ``custom_id`` of its results.
        paths: the live paths whose requests the service accepts in a job.
    """

    limits: ClassVar[BatchLimits]
    has_marks: ClassVar[bool] = True
    paths: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, provider: RemoteProvider) -> None:
        self.provider = provider

    @property
    def account(self) -> str:
        """A digest of the address and the key, which does not reveal the key."""
        config = self.provider.config
        key = config.api_key.reveal() if config.api_key else ""
        identity = describe_identity(config.token_provider) if config.token_provider else ""
        parts = f"{self.provider.address}\0{key}\0{identity}".encode()
        return hashlib.blake2b(parts, digest_size=8, person=b"llm_magics job").hexdigest()

    @abstractmethod
    def encode(self, custom_id: str, path: str, body: Mapping[str, Any]) -> bytes:
        """Return a live request as one line (without its end), not streamed."""

    async def upload(self, submission: Submission) -> str:
        """Upload the lines if the service requires a file, and return its id. Uploads are free."""
        return ""

    @abstractmethod
    async def create(self, submission: Submission) -> JobStatus:
        """
        Create the job: one request, which is never repeated here.

        Raises:
            ProviderError: with a ``status`` from 400 to 499 other than 408, the service has
                refused it; after any other error it may or may not exist.
        """

    @abstractmethod
    def recent(self, since: datetime) -> AsyncGenerator[JobStatus, None]:
        """Yield the account's jobs created at ``since`` or later, from all pages of the list."""

    @abstractmethod
    async def retrieve(self, job_id: str) -> JobStatus:
        """Return the state of a job."""

    async def look_at(self, job_id: str) -> JobStatus:
        """
        Return the state of a job, and make sure that it is the state of this job.

        Raises:
            ProviderError: the service has answered with another job.
        """
        status = await self.retrieve(job_id)
        if status.id != job_id:
            msg = f"{self.provider.name} described another batch than {job_id}."
            raise ProviderError(msg, provider=self.provider.name, retryable=True)
        return status

    @abstractmethod
    def results(self, status: JobStatus) -> AsyncGenerator[BatchResult, None]:
        """
        Yield the results of an ended job as they arrive, in any order, from all of its files.

        Raises:
            ResultsGoneError: the service has deleted them.
        """

    @abstractmethod
    async def cancel(self, job_id: str) -> None:
        """Cancel a job. What was done until then is billed, and has results."""

    def embedding_request(self, text: str, model: str, dimensions: int | None) -> LiveRequest:
        """Return the live request for the vector of one text."""
        self.provider._cannot("embed in batch jobs", "openai, gemini, mistral, openrouter")

    def parse_vector(self, body: Mapping[str, Any]) -> tuple[list[float], Usage]:
        """Return the vector in the body of a result, and the tokens that it used."""
        self.provider._cannot("embed in batch jobs", "openai, gemini, mistral, openrouter")

    async def discard(self, input_id: str) -> None:  # noqa: B027 (many need no file)
        """Delete an uploaded file that no job uses; a missing one is not an error."""
