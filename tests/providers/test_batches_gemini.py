"""The batch API of Gemini: inline and in files, hostile answers, and the official client."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from google import genai
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics import ChatMessage, ModelParameters
from llm_magics.errors import (
    AuthenticationError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    ResultsGoneError,
    UnsupportedError,
)
from llm_magics.providers import create_provider
from llm_magics.providers.batches import offline
from llm_magics.providers.batches.gemini import Batches
from llm_magics.providers.batches.service import BatchResult, BatchService, JobStatus, Submission
from llm_magics.usage import Usage
from llm_magics.wire import gemini_batches as wire
from tests.support.batch_answers import answer_to
from tests.support.batch_fakes import Answer
from tests.support.batch_services import (
    KEY,
    MARK,
    Running,
    results_of,
    running,
    submitted,
    uploaded,
    written,
)
from tests.support.examples import examples
from tests.support.fake_gemini import CHAT, EMBED, FakeGemini, camel, quota, refusal
from tests.support.fake_gemini_batches import FakeGeminiBatches
from tests.support.serving import Asked, Says, as_json, serving

T = TypeVar("T")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["gemini", "gemini-files"])
def one(request: pytest.FixtureRequest) -> Iterator[Running]:
    """The service, with inline jobs and with files."""
    with running(request.param) as started:
        yield started


@pytest.fixture
def files() -> Iterator[Running]:
    """The service with files."""
    with running("gemini-files") as started:
        yield started


def fake_of(one: Running) -> FakeGeminiBatches:
    """The service's fake."""
    assert isinstance(one.fake, FakeGeminiBatches)
    return one.fake


def ended(
    one: Running, tmp_path: Path, prompts: list[str]
) -> tuple[JobStatus, dict[str, BatchResult]]:
    """A job and its results after its end."""

    async def use(service: BatchService) -> tuple[JobStatus, dict[str, BatchResult]]:
        job = await submitted(service, tmp_path, prompts, model=CHAT)
        one.fake.clock.advance(200)
        return await service.retrieve(job.id), await results_of(service, job.id)

    return one.run(use)


def test_a_small_job_is_sent_in_a_body_and_a_large_one_as_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The results of a body are in a body, which is read at once."""
    monkeypatch.setattr(Batches, "inline_bytes", 1000)
    prompts = ["a" * 600, "b" * 600]
    with running("gemini") as started:
        ended(started, tmp_path, prompts[:1])
        assert [each.method for each in started.fake.asked] == ["POST", "GET", "GET", "GET"]
        started.fake.asked.clear()
        _, results = ended(started, tmp_path, prompts)
        paths = [urlsplit(each.path).path for each in started.fake.asked]
    (file,) = fake_of(started).files.values()
    job_path = f"/v1beta/{list(started.fake.jobs)[1]}"
    download = f"/download/v1beta/files/{job_path[8:].replace('/', '-')}:download"
    create = f"/v1beta/models/{CHAT}:batchGenerateContent"
    upload = "/upload/v1beta/files"
    assert paths == [upload, upload, create, job_path, job_path, download]
    assert file.about == {"displayName": MARK, "mimeType": "application/jsonl"}
    assert [json.loads(line)["key"] for line in file.content.splitlines()] == [
        f"{MARK}-0",
        f"{MARK}-1",
    ]
    assert all(result.body for result in results.values())


def test_requests_are_those_of_live_calls(one: Running, tmp_path: Path) -> None:
    """With system message, schema and parameters, under the names of the API."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    parameters = ModelParameters(max_tokens=99, temperature=0.5, schema=schema)

    async def use(service: BatchService) -> dict[str, Any]:
        live = await offline.chat_request_of(
            service.provider, [ChatMessage("user", "hi")], CHAT, parameters
        )
        options = {"max_tokens": 99, "temperature": 0.5, "schema": schema}
        await submitted(service, tmp_path, ["hi"], model=CHAT, **options)
        return live.body

    live = one.run(use)
    (job,) = one.fake.jobs.values()
    assert job.requests[0].body == live


def test_a_job_has_our_mark_counts_and_times(one: Running, tmp_path: Path) -> None:
    """The mark is the display name; counts are texts at the service; 48 hours are documented."""

    async def use(service: BatchService) -> list[JobStatus]:
        job = await submitted(service, tmp_path, ["a", "b", "c", "d"], model=CHAT)
        waiting = await service.retrieve(job.id)
        one.fake.clock.advance(60)
        half = await service.retrieve(job.id)
        one.fake.clock.advance(100)
        return [job, waiting, half, await service.retrieve(job.id)]

    start = one.now()
    job, waiting, half, done = one.run(use)
    assert {each.mark for each in (job, waiting, half, done)} == {MARK}
    assert [each.state for each in (job, waiting, half, done)] == [
        "waiting",
        "waiting",
        "running",
        "ended",
    ]
    assert [each.done for each in (job, half, done)] == [0, 2, 4]
    assert {each.total for each in (job, half, done)} == {4}
    assert job.created is not None
    assert abs(job.created - start) < timedelta(seconds=1)
    assert job.expires == job.created + timedelta(hours=48)
    assert (half.outcome, done.outcome) == ("", "succeeded")


@pytest.mark.parametrize(
    ("error", "kind", "retryable", "is_expired"),
    [
        ({"code": 3, "message": "bad"}, ProviderError, False, False),
        (
            {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"},
            ProviderError,
            False,
            False,
        ),
        ({"code": 5, "message": "no"}, ModelNotFoundError, False, False),
        ({"code": 8, "message": "busy"}, RateLimitError, True, False),
        ({"code": 13, "message": "oops"}, ProviderError, True, False),
        ({"code": 14, "message": "oops"}, ProviderError, True, False),
        ({"code": 16, "message": "who"}, AuthenticationError, False, False),
        ({"code": 1, "message": "stopped"}, ProviderError, True, True),
        ({"message": "no code"}, ProviderError, False, False),
        ({"code": [], "message": "odd code"}, ProviderError, False, False),
    ],
)
def test_an_error_of_a_request_is_that_of_a_live_call(
    files: Running, tmp_path: Path, error: Any, kind: type, retryable: bool, is_expired: bool
) -> None:
    """Results name the codes of gRPC, live errors those of HTTP."""
    files.fake.answer = lambda _: Answer(error, 500)
    job, results = ended(files, tmp_path, ["a"])
    (result,) = results.values()
    assert type(result.error) is kind
    assert result.error.retryable == retryable
    assert error["message"] in str(result.error)
    assert (result.is_expired, result.body) == (is_expired, None)
    assert (job.done, job.failed) == (1, 1)


def test_a_blocked_prompt_is_read_as_a_live_answer(one: Running, tmp_path: Path) -> None:
    """A response without candidates is an answer of the service, not an error of the job."""
    one.fake.answer = lambda _: Answer({"promptFeedback": {"blockReason": "SAFETY"}})
    _, results = ended(one, tmp_path, ["a"])
    (result,) = results.values()
    assert result.body == {"promptFeedback": {"blockReason": "SAFETY"}}


def test_a_failed_job_has_the_reason(files: Running, tmp_path: Path) -> None:
    """Its rows have no results; the job's error says why."""
    files.fake.change_fate(invalid="Failed to parse line 3.")
    job, results = ended(files, tmp_path, ["a"])
    assert (job.state, job.outcome, job.error) == ("ended", "failed", "Failed to parse line 3.")
    assert results == {}
    assert not job.is_queue_full


@pytest.mark.parametrize("code", [8, 429])
def test_a_job_that_exceeds_a_quota_can_be_created_again(code: int) -> None:
    """Other jobs fill the queue; this one is not at fault."""
    operation = {
        "name": "batches/1",
        "done": True,
        "metadata": {"state": "BATCH_STATE_FAILED"},
        "error": {"code": code, "message": "Too many enqueued tokens."},
    }
    provider = create_provider("gemini", api_key=KEY)
    service = provider.batch_service()
    assert isinstance(service, Batches)
    assert service._status(operation).is_queue_full


@pytest.mark.parametrize(
    ("operation", "state"),
    [
        ({"metadata": {"state": "BATCH_STATE_PENDING"}}, "waiting"),
        ({"metadata": {"state": "JOB_STATE_QUEUED"}}, "waiting"),
        ({"metadata": {"state": "JOB_STATE_RUNNING"}}, "running"),
        ({"metadata": {"state": "JOB_STATE_CANCELLING"}}, "cancelling"),
        ({"metadata": {"state": "BATCH_STATE_UNSPECIFIED"}}, "running"),
        ({"metadata": {"state": "BATCH_STATE_HIBERNATING"}}, "running"),
        ({"metadata": {}}, "running"),
        ({}, "running"),
        ({"metadata": {"state": "BATCH_STATE_SUCCEEDED"}}, "running"),
        ({"metadata": {"state": "BATCH_STATE_SUCCEEDED"}, "done": True}, "ended"),
        ({"metadata": {"state": "JOB_STATE_SUCCEEDED", "output": {"responsesFile": "files/a"}}}, "ended"),
        ({"metadata": {"state": "BATCH_STATE_CANCELLED"}}, "ended"),
        ({"metadata": {"state": "BATCH_STATE_EXPIRED"}}, "ended"),
        ({"metadata": {"state": "JOB_STATE_PARTIALLY_SUCCEEDED"}}, "ended"),
        ({"done": True}, "ended"),
    ],
)  # fmt: skip
def test_states_are_read_in_both_spellings(operation: dict[str, Any], state: str) -> None:
    """An unknown state goes on; a success without results yet is not the end."""
    service = create_provider("gemini", api_key=KEY).batch_service()
    assert isinstance(service, Batches)
    assert service._status({"name": "batches/1", **operation}).state == state


@pytest.mark.parametrize(
    "name",
    ["files/../models", "files/a/b", "files/a?alt=json", "../files/a", "batches/..", "files/", 7],
)
def test_names_that_lead_elsewhere_are_errors(files: Running, tmp_path: Path, name: Any) -> None:
    """A name of the service becomes a part of an address, so it must be a plain name."""
    output = {"responsesFile": name}
    says = as_json({"name": "batches/1", "done": True, "response": output})
    files.fake.fail(method="GET", says=says)

    async def use(service: BatchService) -> JobStatus:
        return await service.retrieve("batches/1")

    with pytest.raises(ProviderError, match="invalid response"):
        files.run(use)
    assert len(files.fake.asked) == 1


@pytest.mark.parametrize("job_id", ["", "1", "batches/../models/m", "batches/1?x", "files/1/.."])
def test_an_identifier_that_leads_elsewhere_is_not_asked_for(files: Running, job_id: str) -> None:
    """An identifier from a journal is checked as well."""
    for name in ("retrieve", "cancel", "discard"):

        async def use(service: BatchService, name: str = name) -> None:
            await getattr(service, name)(job_id)

        with pytest.raises(ProviderError):
            files.run(use)
    assert files.fake.asked == []


def test_an_upload_goes_to_the_own_host(files: Running, tmp_path: Path) -> None:
    """Whatever host the service names."""
    fake_of(files).upload_host = "https://evil.example"
    ended(files, tmp_path, ["a"])
    start, upload, *_ = files.fake.asked
    assert start.headers["x-goog-upload-command"] == "start"
    assert upload.headers["x-goog-upload-command"] == "upload, finalize"
    assert upload.headers["host"] == start.headers["host"]
    assert "upload_id=" in upload.path


@pytest.mark.parametrize("address", ["", "nowhere", "https://x.invalid"])
def test_an_upload_without_an_address_can_be_tried_again(
    files: Running, tmp_path: Path, address: str
) -> None:
    """Nothing was paid for it."""
    says = as_json({})
    says.headers["X-Goog-Upload-URL"] = address
    files.fake.fail(path="upload", says=says)
    with pytest.raises(ProviderError, match="upload") as caught:
        ended(files, tmp_path, ["a"])
    assert caught.value.retryable
    assert files.fake.jobs == {}


def test_an_upload_that_breaks_off_can_be_tried_again(files: Running, tmp_path: Path) -> None:
    """No job exists, and the file is uploaded from its beginning."""
    files.fake.fail(path="upload_id", when="before")
    with pytest.raises(ProviderError) as caught:
        ended(files, tmp_path, ["a"])
    assert caught.value.retryable
    _, results = ended(files, tmp_path, ["a"])
    assert len(results) == 1
    assert len(files.fake.jobs) == 1


def test_an_input_file_is_deleted_and_a_missing_one_is_no_error(
    files: Running, tmp_path: Path
) -> None:
    """The Files API says 403 of a file that is not there."""

    async def use(service: BatchService) -> None:
        submission = await written(service, tmp_path, ["a"], model=CHAT)
        name = await service.upload(submission)
        assert list(fake_of(files).files) == [name]
        await service.discard(name)
        assert fake_of(files).files == {}
        await service.discard(name)

    files.run(use)


def test_a_file_that_is_gone_refuses_the_job(files: Running, tmp_path: Path) -> None:
    """Uploads are kept for 48 hours; the error has a status, so that nothing was created."""

    async def use(service: BatchService) -> None:
        submission = await written(service, tmp_path, ["a"], model=CHAT)
        name = await service.upload(submission)
        fake_of(files).clock.advance(48 * 3600)
        await service.create(type(submission)(**{**_fields(submission), "input_id": name}))

    with pytest.raises(ProviderError) as caught:
        files.run(use)
    assert caught.value.status == 403
    assert files.fake.jobs == {}


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def test_a_wrong_key_is_not_taken_for_a_missing_file(files: Running) -> None:
    """Both are 403 at the service, but results are not given up for a key."""
    files.fake.fail(path="download", says=refusal("PERMISSION_DENIED", "Key not valid.", 403))
    status = JobStatus(id="batches/1", state="ended", results=("files/a",), outcome="succeeded")

    async def use(service: BatchService) -> None:
        [each async for each in service.results(status)]

    with pytest.raises(AuthenticationError):
        files.run(use)
    with pytest.raises(ResultsGoneError, match="files/a"):
        files.run(use)


def test_a_success_without_results_is_gone(files: Running) -> None:
    """The service says that it has succeeded, and has nothing to read."""
    status = JobStatus(id="batches/1", state="ended", outcome="succeeded")

    async def use(service: BatchService, status: JobStatus = status) -> list[BatchResult]:
        return [each async for each in service.results(status)]

    with pytest.raises(ResultsGoneError):
        files.run(use)
    failed = JobStatus(id="batches/1", state="ended", outcome="failed")
    assert files.run(lambda service: use(service, failed)) == []


def test_damaged_results_in_a_body_cost_no_other_result(tmp_path: Path) -> None:
    """They are an error after all others."""
    good = {"metadata": {"key": f"{MARK}-0"}, "response": {"candidates": [{}]}}
    inlined = [{}, good, 7, {"metadata": {"key": "x"}}]
    output = {"inlinedResponses": {"inlinedResponses": inlined}}
    says = as_json({"name": "batches/1", "done": True, "response": output})

    async def use(service: BatchService) -> list[Any]:
        found: list[Any] = []
        try:
            async for each in service.results(await service.retrieve("batches/1")):
                found += [each.custom_id]
        except ProviderError as error:
            found += [error.code]
        return found

    with running("gemini") as started:
        started.fake.fail(says=says, times=2)
        assert started.run(use) == [f"{MARK}-0", "invalid_results"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"batch": {"inputConfig": {"fileName": "files/a"}}}, "display_name: required"),
        ({"batch": {"displayName": "a", "inputConfig": {}}}, "oneof"),
        ({"batch": {"displayName": "a", "inputConfig": {"requests": {"requests": []}}}}, "is empty"),
        ({"batch": {"displayName": "a", "metadata": {}}}, 'Unknown name "metadata" at \'batch\''),
        ({"requests": []}, 'Unknown name "requests"'),
    ],
)  # fmt: skip
def test_the_fake_refuses_what_the_service_refuses(files: Running, body: Any, words: str) -> None:
    """A job that is built in another way would be found by these tests."""

    async def use(service: BatchService) -> None:
        path = f"/models/{CHAT}:batchGenerateContent"
        await service.provider._object("POST", path, body)

    with pytest.raises(ProviderError, match=words) as caught:
        files.run(use)
    assert caught.value.status == 400


@pytest.mark.parametrize("dimensions", [None, 3])
def test_vectors_of_a_job_equal_those_of_live_calls(
    one: Running, tmp_path: Path, dimensions: int | None
) -> None:
    """Shortened ones are normalised as live ones are; the tokens are counted."""
    texts = ["one", "two é", "three"]
    lines = tmp_path / "lines.jsonl"

    async def use(service: BatchService) -> list[tuple[list[float], Usage]]:
        requests = [service.embedding_request(text, EMBED, dimensions) for text in texts]
        lines.write_bytes(
            b"".join(
                service.encode(f"{MARK}-{number}", each.path, each.body) + b"\n"
                for number, each in enumerate(requests)
            )
        )
        (path,) = {each.path for each in requests}
        submission = Submission(mark=MARK, path=path, model=EMBED, lines=lines, count=3)
        submission = await uploaded(service, submission)
        job = await service.create(submission)
        one.fake.clock.advance(200)
        results = await results_of(service, job.id)
        bodies = [results[f"{MARK}-{number}"].body for number in range(3)]
        return [service.parse_vector(body) for body in bodies if body is not None]

    async def live(url: str) -> list[list[float]]:
        async with create_provider("gemini", base_url=url, api_key=KEY) as provider:
            if dimensions is None:
                return await provider.generate_embeddings(texts, EMBED)
            packed = await provider.generate_shortened(texts, EMBED, dimensions)
            flat = struct.unpack(f"<{len(packed.data) // 4}f", packed.data)
            size = packed.dimensions
            return [list(flat[at : at + size]) for at in range(0, len(flat), size)]

    vectors = one.run(use)
    with serving(FakeGemini()) as server:
        expected = asyncio.run(live(server.url))
    assert [vector for vector, _ in vectors] == [pytest.approx(each) for each in expected]
    assert all((usage.input_tokens or 0) > 0 for _, usage in vectors)


@pytest.mark.parametrize(
    "body", [{}, {"embedding": {}}, {"embedding": None}, {"embedding": {"values": "a"}}]
)
def test_a_result_without_a_vector_is_an_error(files: Running, body: Any) -> None:
    """It is an error of its row."""

    async def use(service: BatchService) -> None:
        service.parse_vector(body)

    with pytest.raises(ProviderError, match="invalid response"):
        files.run(use)


def test_a_full_queue_is_a_rate_limit(one: Running, tmp_path: Path) -> None:
    """The creation was refused, and can be tried again after the delay."""
    one.fake.fail(path="batchGenerate", says=quota())
    with pytest.raises(RateLimitError) as caught:
        ended(one, tmp_path, ["a"])
    assert (caught.value.status, caught.value.retry_after) == (429, 7.0)
    assert one.fake.jobs == {}


def test_a_missing_model_is_named(one: Running, tmp_path: Path) -> None:
    """With the models of the service in the hint; the creation itself is sent once."""

    async def use(service: BatchService) -> None:
        submission = await written(service, tmp_path, ["a"], model="gemini-3.8-falsh")
        await service.create(
            type(submission)(
                **{**_fields(submission), "input_id": await service.upload(submission)}
            )
        )

    with pytest.raises(ModelNotFoundError, match="falsh"):
        one.run(use)
    assert sum("batchGenerate" in path for path in one.fake.paths("POST")) == 1


def test_vertex_and_the_compatible_api_have_no_jobs_here() -> None:
    """Vertex AI has another API, and the compatible one is not Gemini's."""
    assert isinstance(create_provider("gemini", api_key=KEY).batch_service(), Batches)
    vertex = "https://aiplatform.googleapis.com/v1/publishers/google"
    for options in ({"api": "openai"}, {"base_url": vertex}):
        provider = create_provider("gemini", api_key=KEY, **options)
        with pytest.raises(UnsupportedError, match="batch jobs"):
            provider.batch_service()


def theirs(url: str) -> genai.Client:
    """The official client, without retries."""
    options = types.HttpOptions(
        base_url=url, api_version="v1beta", retry_options=types.HttpRetryOptions(attempts=1)
    )
    return genai.Client(api_key=KEY, http_options=options)


def essence(asked: Asked, *, names: str = "") -> tuple[Any, ...]:
    """All that counts of a request, without the names that the service has chosen."""
    body = asked.body
    if "upload_id" not in asked.path:
        body = named(json.loads(body or b"{}"))
    parts = urlsplit(asked.path)
    path = parts.path.removeprefix("/download") if "download" in parts.path else parts.path
    query = "" if "upload_id" in parts.query else parts.query
    wanted = ("x-goog-api-key", *(names.split()))
    return asked.method, path, query, {name: asked.headers.get(name) for name in wanted}, body


def named(value: Any) -> Any:
    """The same with the names that the service documents."""
    if isinstance(value, list):
        return [named(each) for each in value]
    if isinstance(value, dict):
        return {camel(name): named(each) for name, each in value.items()}
    return value


def requests_of(one: Running, do: Callable[[], Any], **options: Any) -> list[tuple[Any, ...]]:
    """The requests that ``do`` sends."""
    start = len(one.fake.asked)
    do()
    return [essence(each, **options) for each in one.fake.asked[start:]]


def ours(
    one: Running, do: Callable[[BatchService], Coroutine[Any, Any, Any]]
) -> Callable[[], Any]:
    """A call of our service."""
    return lambda: one.run(do)


def test_the_official_client_sends_the_same_inline_job(tmp_path: Path) -> None:
    """Whole bodies: name, requests with their keys, and the model in the address."""
    with running("gemini") as one, theirs(one.url) as client:

        async def create(service: BatchService) -> None:
            await submitted(service, tmp_path, ["a é", "b"], model=CHAT, temperature=0.5)

        ours_sent = requests_of(one, ours(one, create))
        source = [
            {
                "contents": [{"parts": [{"text": text}], "role": "user"}],
                "config": {"temperature": 0.5},
                "metadata": {"key": f"{MARK}-{number}"},
            }
            for number, text in enumerate(["a é", "b"])
        ]
        config = {"display_name": MARK}
        theirs_sent = requests_of(
            one, lambda: client.batches.create(model=CHAT, src=source, config=config)
        )
    assert ours_sent == theirs_sent


def test_the_official_client_sends_the_same_requests_for_a_file(
    files: Running, tmp_path: Path
) -> None:
    """The upload in two steps, the job of a file, and everything after it."""
    names = "x-goog-upload-protocol x-goog-upload-command x-goog-upload-offset x-goog-upload-header-content-length x-goog-upload-header-content-type content-length"
    lines = tmp_path / f"{MARK}.jsonl"
    ids: list[str] = []

    async def upload(service: BatchService) -> None:
        submission = await written(service, tmp_path, ["a é"], model=CHAT)
        ids.append(await service.upload(submission))

    with theirs(files.url) as client:
        sent = requests_of(files, ours(files, upload), names=names)
        upload_config = types.UploadFileConfig(mime_type="application/jsonl", display_name=MARK)
        expected = requests_of(
            files, lambda: client.files.upload(file=lines, config=upload_config), names=names
        )
        (ours_start, ours_upload), (start, uploaded) = sent, expected
        # Their first body names the size as well; their second request repeats headers of the
        # first, which are not documented there, and has no key.
        assert str(start[4]["file"].pop("sizeBytes")) == ours_start[3][names.split()[3]]
        for each in (ours_start, start):
            del each[3]["content-length"]
        for each in (ours_upload, uploaded):
            for name in ("x-goog-api-key", *names.split()):
                if name.startswith("x-goog-upload-header") or name.endswith(("protocol", "key")):
                    del each[3][name]
        assert ours_start == start
        assert ours_upload == uploaded

        async def create(service: BatchService) -> str:
            submission = await written(service, tmp_path, ["a é"], model=CHAT)
            full = type(submission)(**{**_fields(submission), "input_id": ids[0]})
            return (await service.create(full)).id

        job = files.run(create)
        sent = [essence(files.fake.asked[-1])]
        config = {"display_name": MARK}
        their_job = client.batches.create(model=CHAT, src=ids[0], config=config)
        assert [essence(files.fake.asked[-1])] == sent
        assert their_job.display_name == MARK
        files.fake.clock.advance(200)

        async def follow(service: BatchService) -> None:
            await results_of(service, job)

        sent = requests_of(files, ours(files, follow))

        def follow_theirs() -> None:
            state = client.batches.get(name=job)
            assert state.state == types.JobState.JOB_STATE_SUCCEEDED
            assert state.dest is not None
            content = client.files.download(file=str(state.dest.file_name))
            (line,) = content.splitlines()
            assert answer_to("a é") in line.decode()

        assert requests_of(files, follow_theirs) == sent

        async def end(service: BatchService) -> None:
            await service.discard(ids[0])

        sent = requests_of(files, ours(files, end))
        client.files.upload(file=lines, config=upload_config)
        (left, *_) = fake_of(files).files
        expected = requests_of(files, lambda: client.files.delete(name=left))
        assert sent[0][0] == expected[0][0] == "DELETE"
        assert sent[0][1] == f"/v1beta/{ids[0]}"
        assert expected[0][1] == f"/v1beta/{left}"


def test_the_official_client_lists_and_cancels_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Pages, tokens and the cancellation of a job."""
    monkeypatch.setattr("llm_magics.providers.batches.gemini._PAGE", 2)
    with running("gemini") as one, theirs(one.url) as client:

        async def create(service: BatchService) -> str:
            return (await submitted(service, tmp_path, ["a"], model=CHAT)).id

        job = [one.run(create) for _ in range(5)][-1]

        async def listed(service: BatchService) -> None:
            assert len([each async for each in service.recent(LONG_AGO)]) == 5

        sent = requests_of(one, ours(one, listed))
        config = {"page_size": 2}
        assert requests_of(one, lambda: list(client.batches.list(config=config))) == sent
        assert len(sent) == 3

        async def cancel(service: BatchService) -> None:
            await service.cancel(job)

        sent = requests_of(one, ours(one, cancel))
        assert requests_of(one, lambda: client.batches.cancel(name=job)) == sent


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(50))
@given(st.dictionaries(st.text(), json_values, max_size=4), st.text(min_size=1))
def test_any_body_survives_its_line_and_its_job(body: dict[str, Any], key: str) -> None:
    """The same request is in a file and in a body."""
    line = wire.encode_request(key, body)
    assert b"\n" not in line
    assert json.loads(line) == {"key": key, "request": body}
    batch = wire.build_batch("a", lines=[line])["batch"]
    assert batch["inputConfig"]["requests"]["requests"] == [
        {"request": body, "metadata": {"key": key}}
    ]


_NAMES = ("name", "metadata", "response", "error", "done", "key", "operations", "inlinedResponses")


@settings(max_examples=examples(100))
@given(json_values | st.fixed_dictionaries({}, optional=dict.fromkeys(_NAMES, json_values)))
def test_any_value_is_read_or_an_expected_error(value: Any) -> None:
    """Nothing that a service may write raises an error that is not mapped."""
    for parse in (
        wire.parse_result,
        wire.parse_batch,
        wire.parse_page,
        wire.parse_name,
        lambda said: list(wire.inlined_responses(said)),
    ):
        try:
            parse(value)
        except (AttributeError, LookupError, TypeError, ValueError):
            continue


@settings(max_examples=examples(60))
@given(st.text(max_size=8), json_values, json_values)
def test_a_result_is_a_response_or_an_error(key: str, response: Any, error: Any) -> None:
    """Never both, and never neither."""
    try:
        found = wire.parse_result({"key": key, "response": response, "error": error})
    except (AttributeError, LookupError, TypeError, ValueError):
        return
    assert (found.response is None) == bool(found.error)
    assert found.key == key


def test_a_served_web_page_is_an_error_that_can_be_tried_again() -> None:
    """A proxy may answer in place of the service."""

    async def use(service: BatchService) -> None:
        await service.retrieve("batches/1")

    with (
        running("gemini") as one,
        serving(Says([b"<html>login</html>"], 200, "text/html")) as page,
    ):
        other = Running(one.known, one.fake, page.url)
        with pytest.raises(ProviderError, match="is not gemini") as caught:
            other.run(use)
    assert caught.value.retryable
