"""
The official clients as oracles of the batch APIs.

The same steps through their client and through ours, against the same fake, send the same requests,
each compared as a whole: method, path with its query, key, and the body or the parts of the form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import groq
import mistralai.client
import openai
import pytest
import together

from llm_magics.providers.batches.openai import MARK_KEY
from llm_magics.providers.batches.service import BatchService, Submission
from tests.support.batch_fakes import read_form
from tests.support.batch_services import KEY, MARK, Running, running, uploaded, written
from tests.support.serving import Asked

START = datetime(2026, 11, 20, tzinfo=UTC)
METADATA = {MARK_KEY: MARK}
CHAT_ENDPOINT = "/v1/chat/completions"


def compared(asked: Asked) -> dict[str, Any]:
    """All of a request that the service reads."""
    # Azure's own header; OpenAI's client sends the other too.
    key = asked.headers.get("api-key") or asked.headers["authorization"]
    kind = asked.headers.get("content-type", "").partition(";")[0]
    body: Any = None
    if kind == "multipart/form-data":
        body = read_form(asked)
    elif asked.body:
        body = asked.json()
    parts = urlsplit(asked.path)
    query = dict(parse_qsl(parts.query))
    return {
        "request": (asked.method, parts.path),
        "query": query,
        "key": key,
        "type": kind if asked.body else "",
        "body": body,
    }


@dataclass(frozen=True, slots=True)
class Steps:
    """What a client of a service does, in its words."""

    upload: Callable[[Any, bytes], str] | None
    create: Callable[[Any, str], str]
    retrieve: Callable[[Any, str], Any]
    listed: Callable[[Any, datetime], Any]
    cancel: Callable[[Any, str], Any]
    discard: Callable[[Any, str], Any]
    download: Callable[[Any, str], bytes]


def _openai_steps(**listing: Any) -> Steps:
    """The steps of OpenAI's client, whose methods the others repeat."""
    return Steps(
        upload=lambda client, data: (
            client.files.create(file=(f"{MARK}.jsonl", data), purpose="batch").id
        ),
        create=lambda client, file_id: (
            client.batches.create(
                input_file_id=file_id,
                endpoint=CHAT_ENDPOINT,
                completion_window="24h",
                metadata=METADATA,
            ).id
        ),
        retrieve=lambda client, job_id: client.batches.retrieve(job_id),
        listed=lambda client, _: list(client.batches.list(**listing)),
        cancel=lambda client, job_id: client.batches.cancel(job_id),
        discard=lambda client, file_id: client.files.delete(file_id),
        download=lambda client, file_id: client.files.content(file_id).read(),
    )


def _openai_client(url: str) -> Any:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)


def _azure_client(url: str) -> Any:
    address, headers = f"{url}/openai/v1", {"api-key": KEY}
    return openai.OpenAI(base_url=address, api_key=KEY, max_retries=0, default_headers=headers)


def _groq_client(url: str) -> Any:
    return groq.Groq(base_url=url, api_key=KEY, max_retries=0)


def _together_client(url: str) -> Any:
    # From 3.0 on, the version of the API is in its paths.
    address = url if int(together.__version__.partition(".")[0]) >= 3 else f"{url}/v1"
    return together.Together(base_url=address, api_key=KEY, max_retries=0)


def _mistral_client(url: str) -> Any:
    return mistralai.client.Mistral(server_url=url, api_key=KEY, retry_config=None)


TOGETHER = Steps(
    upload=None,  # its client first asks for an address in a storage; ours uses the documented upload
    create=lambda client, file_id: (
        client.batches.create(endpoint=CHAT_ENDPOINT, input_file_id=file_id).job.id
    ),
    retrieve=lambda client, job_id: client.batches.retrieve(job_id),
    listed=lambda client, _: client.batches.list(),
    cancel=lambda client, job_id: client.batches.cancel(job_id),
    discard=lambda client, file_id: client.files.delete(file_id),
    download=lambda client, file_id: client.files.content(file_id).read(),
)

MISTRAL = Steps(
    upload=lambda client, data: (
        client.files.upload(
            file={
                "file_name": f"{MARK}.jsonl",
                "content": data,
                "content_type": "application/octet-stream",
            },
            purpose="batch",
        ).id
    ),
    create=lambda client, file_id: (
        client.batch.jobs.create(
            endpoint=CHAT_ENDPOINT,
            input_files=[file_id],
            model="chat-model",
            metadata=METADATA,
            timeout_hours=24,
        ).id
    ),
    retrieve=lambda client, job_id: client.batch.jobs.get(job_id=job_id),
    listed=lambda client, since: client.batch.jobs.list(
        page=0, page_size=100, created_after=since, order_by="created"
    ),
    cancel=lambda client, job_id: client.batch.jobs.cancel(job_id=job_id),
    discard=lambda client, file_id: client.files.delete(file_id=file_id),
    download=lambda client, file_id: client.files.download(file_id=file_id).read(),
)

CLIENTS: dict[str, tuple[Callable[[str], Any], Steps]] = {
    "openai": (_openai_client, _openai_steps(limit=100)),
    "azure": (_azure_client, _openai_steps(limit=100)),
    "groq": (_groq_client, _openai_steps()),
    "together": (_together_client, TOGETHER),
    "mistral": (_mistral_client, MISTRAL),
}


async def our_steps(one: Running, service: BatchService, submission: Submission) -> None:
    """All operations, in the order of `their_steps`."""
    submission = await uploaded(service, submission)
    created = await service.create(submission)
    await service.retrieve(created.id)
    _ = [status async for status in service.recent(START)]
    one.fake.clock.advance(1000)
    ended = await service.retrieve(created.id)
    async for _result in service.results(ended):
        pass
    other = await service.create(submission)
    await service.cancel(other.id)
    await service.discard(submission.input_id)


def their_steps(one: Running, client: Any, steps: Steps, data: bytes, file_id: str) -> None:
    """All operations of an official client."""
    if steps.upload is not None:
        file_id = steps.upload(client, data)
    job_id = steps.create(client, file_id)
    steps.retrieve(client, job_id)
    steps.listed(client, START - timedelta(seconds=1))
    one.fake.clock.advance(1000)
    ended = steps.retrieve(client, job_id)
    names = ("output_file_id", "error_file_id", "output_file", "error_file")
    for result_id in filter(None, (getattr(ended, name, None) for name in names)):
        steps.download(client, result_id)
    steps.cancel(client, steps.create(client, file_id))
    steps.discard(client, file_id)


def compared_all(one: Running) -> list[dict[str, Any]]:
    """All requests, with the identifiers of files and jobs replaced by their kinds."""

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            for job_id in one.fake.jobs:
                value = value.replace(job_id, "JOB")
            is_file = value.startswith("file-") and "JOB" not in value
            return "FILE" if is_file else value
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return (
            {key: plain(each) for key, each in value.items()} if isinstance(value, dict) else value
        )

    def path(request: dict[str, Any]) -> dict[str, Any]:
        method, place = request["request"]
        place = "/".join(plain(part) for part in place.split("/"))
        return {**{key: plain(each) for key, each in request.items()}, "request": (method, place)}

    return [path(compared(asked)) for asked in one.fake.asked]


@pytest.mark.parametrize("name", sorted(CLIENTS))
def test_requests_are_those_of_the_official_client(name: str, tmp_path: Path) -> None:
    """Of each operation, in the same order."""
    create_client, steps = CLIENTS[name]
    with running(name) as one:

        async def use(service: BatchService) -> tuple[bytes, str]:
            submission = await written(service, tmp_path, ["a", "b é"])
            await our_steps(one, service, submission)
            ours.extend(compared_all(one))
            return submission.lines.read_bytes(), await service.upload(submission)

        ours: list[dict[str, Any]] = []
        data, file_id = one.run(use)
        one.fake.asked.clear()
        with create_client(one.url) as client:
            their_steps(one, client, steps, data, file_id)
        theirs = compared_all(one)
    if name == "azure":  # ours also asks whether the file can be used
        assert ours.pop(1)["request"] == ("GET", "/openai/v1/files/FILE")
    if name == "together":
        assert ours.pop(0)["request"] == ("POST", "/v1/files/upload")
    if name == "mistral":  # theirs sends the defaults
        assert theirs[0]["body"].pop("visibility").data == b"workspace"
        assert theirs[3]["query"].pop("created_by_me") == "false"
        moments = [datetime.fromisoformat(each[3]["query"].pop("created_after")) for each in (ours, theirs)]  # fmt: skip
        assert moments[0] == moments[1]
    assert ours == theirs
