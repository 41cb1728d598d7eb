"""The services with batch jobs, each with its provider and its fake, for tests of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from llm_magics import ChatMessage, ModelParameters
from llm_magics.providers import create_provider
from llm_magics.providers.batches.offline import chat_request_of
from llm_magics.providers.batches.service import (
    BatchResult,
    BatchService,
    JobStatus,
    Submission,
)
from llm_magics.providers.remote import RemoteProvider
from tests.support.batch_fakes import BatchFake
from tests.support.batch_files import CHAT
from tests.support.fake_anthropic import CHAT as CLAUDE
from tests.support.fake_anthropic_batches import FakeAnthropicBatches
from tests.support.fake_gemini import CHAT as GEMINI
from tests.support.fake_gemini_batches import FakeGeminiBatches
from tests.support.fake_mistral_jobs import FakeJobs
from tests.support.fake_openai_batches import SERVICES, FakeBatches
from tests.support.fake_openrouter_batches import CHAT as OPENROUTER
from tests.support.fake_openrouter_batches import FakeOpenRouterBatches
from tests.support.serving import serving

T = TypeVar("T")

KEY = "a-key-of-the-test"
MARK = "k3JdmQ0pZs7TqXv1Lw9B"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """
    How a service is set up in a test.

    Attributes:
        name: the name of the service, and of its provider.
        create: creates its fake.
        settings: the settings of its provider, without address and key.
        path: the path of its address.
        model: the chat model of its fake.
        job_id: an identifier of a job in its form.
        traits: how it differs from OpenAI: ``ordered`` (results are in the order of the requests),
            ``whole`` (the results are in one body), ``no partial`` (a job that expires or is
            cancelled has no results) and ``no cancel``.
        inline_bytes: replaces the attribute of its class of this name.
    """

    name: str
    create: Callable[[], BatchFake]
    settings: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    model: str = CHAT
    job_id: str = "batch_1"
    traits: frozenset[str] = frozenset()
    inline_bytes: int | None = None


def _of_openai(name: str) -> Known:
    return Known(
        name=name,
        create=lambda: FakeBatches(name),
        settings={"profile": name},
        path=SERVICES[name].prefix,
    )


KNOWN = {
    **{name: _of_openai(name) for name in SERVICES},
    "mistral": Known(name="mistral", create=FakeJobs, settings={"profile": "mistral"}, path="/v1"),
    "openrouter": Known(
        name="openrouter",
        create=FakeOpenRouterBatches,
        settings={"profile": "openrouter"},
        path="/api/v1",
        model=OPENROUTER,
        traits=frozenset({"whole", "no cancel"}),
    ),
    "anthropic": Known(name="anthropic", create=FakeAnthropicBatches, model=CLAUDE),
    "gemini": Known(
        name="gemini",
        create=FakeGeminiBatches,
        path="/v1beta",
        model=GEMINI,
        job_id="batches/1",
        traits=frozenset({"ordered", "whole", "no partial"}),
    ),
    "gemini-files": Known(
        name="gemini",
        create=FakeGeminiBatches,
        path="/v1beta",
        model=GEMINI,
        job_id="batches/1",
        traits=frozenset({"ordered", "no partial"}),
        inline_bytes=0,
    ),
}


def provider_of(known: Known, url: str, **settings: Any) -> RemoteProvider:
    """A provider of the service whose fake is at ``url``, as if that was its own address."""
    given = {**known.settings, "api_key": KEY, **settings}
    kind = "openai" if "profile" in given else known.name
    provider = create_provider(kind, base_url=f"{url}{known.path}", **given)
    assert isinstance(provider, RemoteProvider)
    provider.name = known.name
    vars(provider)["own_address"] = provider.config.base_url
    if known.inline_bytes is not None:
        service = provider.batch_service()
        vars(service)["inline_bytes"] = known.inline_bytes
        vars(provider)["batch_service"] = lambda: service
    return provider


@dataclass(frozen=True, slots=True)
class Running:
    """A fake that is served, and how to use it."""

    known: Known
    fake: BatchFake
    url: str

    @asynccontextmanager
    async def service(self, **settings: Any) -> AsyncIterator[BatchService]:
        """The service's batch API, with a provider that is closed at the end."""
        async with provider_of(self.known, self.url, **settings) as provider:
            yield provider.batch_service()

    def run(self, do: Callable[[BatchService], Coroutine[Any, Any, T]], **settings: Any) -> T:
        """What ``do`` gives, called with the service."""

        async def use() -> T:
            async with self.service(**settings) as service:
                return await do(service)

        return asyncio.run(use())

    def now(self) -> datetime:
        """The time of the service."""
        return datetime.fromtimestamp(self.fake.clock(), UTC)


@contextmanager
def running(name: str) -> Iterator[Running]:
    """Serve the fake of a service."""
    known = KNOWN[name]
    fake = known.create()
    with serving(fake) as server:
        yield Running(known, fake, server.url)


async def written(
    service: BatchService,
    folder: Path,
    prompts: list[str],
    *,
    model: str = CHAT,
    mark: str = MARK,
    **parameters: Any,
) -> Submission:
    """A file with a live request for each prompt, not uploaded yet."""
    lines, path = folder / f"{mark}.jsonl", ""
    with lines.open("wb") as file:
        for number, prompt in enumerate(prompts):
            request = await chat_request_of(
                service.provider,
                [ChatMessage("user", prompt)],
                model,
                ModelParameters(**parameters),
            )
            path = request.path
            file.write(service.encode(f"{mark}-{number}", path, request.body) + b"\n")
    return Submission(mark=mark, path=path, model=model, lines=lines, count=len(prompts))


async def submitted(
    service: BatchService, folder: Path, prompts: list[str], **options: Any
) -> JobStatus:
    """A job for these prompts."""
    submission = await written(service, folder, prompts, **options)
    return await service.create(await uploaded(service, submission))


async def uploaded(service: BatchService, submission: Submission) -> Submission:
    """The submission with its file uploaded."""
    return replace(submission, input_id=await service.upload(submission))


async def results_of(service: BatchService, job_id: str) -> dict[str, BatchResult]:
    """The results of an ended job, by the identifiers of the requests, in the order of arrival."""
    status = await service.retrieve(job_id)
    assert status.state == "ended"
    return {result.custom_id: result async for result in service.results(status)}


async def recent(service: BatchService, since: datetime) -> list[JobStatus]:
    """All jobs of the list since a time."""
    return [status async for status in service.recent(since)]
