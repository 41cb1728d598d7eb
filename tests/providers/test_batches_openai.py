"""The batch APIs of OpenAI, Azure, Groq and Together: where they differ, and what they refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics.providers import model_lists
from llm_magics.providers.batches import azure
from llm_magics.providers.batches.offline import chat_chunks_of, chat_request_of
from llm_magics.providers.batches.service import BatchService, JobStatus
from llm_magics.providers.openai import OpenAIProvider
from tests.support.batch_answers import answer_to, tokens_in
from tests.support.batch_fakes import Answer, Fault, Request
from tests.support.batch_files import CHAT, EMBEDDING
from tests.support.batch_services import (
    KEY,
    MARK,
    Running,
    recent,
    results_of,
    running,
    submitted,
    uploaded,
    written,
)
from tests.support.fake_openai_batches import FakeBatches
from tests.support.serving import Asked, as_json

HI = [ChatMessage("user", "hi")]
PARAMETERS = ModelParameters()


@pytest.fixture
def one() -> Iterator[Running]:
    """OpenAI."""
    with running("openai") as started:
        yield started


def fake_of(one: Running) -> FakeBatches:
    """The fake with its own attributes."""
    assert isinstance(one.fake, FakeBatches)
    return one.fake


async def ended(one: Running, service: BatchService, created: JobStatus) -> JobStatus:
    """The job after its end."""
    one.fake.clock.advance(1000)
    return await service.retrieve(created.id)


def test_lines_are_the_live_requests_that_are_not_streamed(one: Running, tmp_path: Path) -> None:
    """In a file that is named by our identifier, for an endpoint that the job names too."""

    async def use(service: BatchService) -> dict[str, Any]:
        await submitted(service, tmp_path, ["hi"], temperature=0.5, max_tokens=7)
        provider, parameters = service.provider, ModelParameters(temperature=0.5, max_tokens=7)
        return (await chat_request_of(provider, HI, CHAT, parameters)).body

    live = one.run(use)
    (job,) = one.fake.jobs.values()
    (file,) = fake_of(one).files.values()
    plain = {
        name: value for name, value in live.items() if name not in ("stream", "stream_options")
    }
    assert job.requests == [Request(f"{MARK}-0", "/chat/completions", plain)]
    assert (file.name, file.purpose) == (f"{MARK}.jsonl", "batch")
    assert job.facts["endpoint"] == "/v1/chat/completions"
    assert job.facts["metadata"] == {"llm_magics_job": MARK}


def test_a_job_shows_the_counts_and_times_of_the_service(one: Running, tmp_path: Path) -> None:
    """While it runs and at its end; failed requests are counted twice, as in the interface."""
    one.fake.answer = lambda request: (
        Answer({"error": {"message": "no"}}, 400)
        if "prompt 1" in str(request.body)
        else one.fake.usual_answer(request)
    )

    async def use(service: BatchService) -> None:
        created = await submitted(service, tmp_path, [f"prompt {n}" for n in range(10)])
        assert (created.state, created.total, created.done) == ("waiting", None, 0)
        assert created.created is not None
        assert created.expires == created.created + timedelta(hours=24)
        one.fake.clock.advance(60)
        half = await service.retrieve(created.id)
        assert (half.state, half.total, half.done, half.failed) == ("running", 10, 5, 1)
        last = await ended(one, service, created)
        assert (last.outcome, last.total, last.done, last.failed) == ("completed", 10, 10, 1)
        assert len(last.results) == 2

    one.run(use)


def test_a_job_whose_requests_all_failed_has_no_output(one: Running, tmp_path: Path) -> None:
    """It is completed, with a file of errors alone."""
    refusal = {"error": {"message": "Slow down.", "type": "requests", "code": "rate_limit_exceeded"}}  # fmt: skip
    one.fake.answer = lambda request: Answer(refusal, 429)

    async def use(service: BatchService) -> None:
        created = await submitted(service, tmp_path, ["a", "b"])
        last = await ended(one, service, created)
        assert (last.outcome, last.error) == ("completed", "")
        assert last.results == (f"file-errors-{created.id}",)
        for result in (await results_of(service, created.id)).values():
            assert isinstance(result.error, errors.RateLimitError)
            assert result.error.request_id
            assert result.error.status == 429

    one.run(use)


def test_too_much_that_is_queued_can_be_submitted_again(one: Running, tmp_path: Path) -> None:
    """Any other reason for a failed validation is final, and names its line."""
    one.fake.change_fate(invalid="token_limit_exceeded")

    async def use(service: BatchService) -> None:
        created = await submitted(service, tmp_path, ["a"])
        full = await ended(one, service, created)
        assert (full.state, full.outcome, full.is_queue_full) == ("ended", "failed", True)
        assert "token limit" in full.error
        assert [result async for result in service.results(full)] == []
        one.fake.change_fate(invalid="")
        submission = await written(service, tmp_path, ["a"])
        line = submission.lines.read_bytes()
        submission.lines.write_bytes(line + line)
        created = await service.create(await uploaded(service, submission))
        wrong = await ended(one, service, created)
        assert (wrong.outcome, wrong.is_queue_full) == ("failed", False)
        assert wrong.error.startswith("line 2: The custom_id")

    one.run(use)
    assert one.fake.billed() == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"custom_id": "a"', "invalid_json_line"),
        (b'{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"m"}}', "url_mismatch"),
        (b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","stream":true}}', "invalid_request"),
        (b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}', "mismatched_model"),
        (b'{"custom_id":"%s","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}' % (b"a" * 65), "invalid_custom_id"),
        (b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m"},"x":1}', "invalid_request"),
    ],
)  # fmt: skip
def test_the_fake_refuses_lines_as_the_service_does(
    one: Running, tmp_path: Path, line: bytes, code: str
) -> None:
    """So that a mistake in ours would fail the other tests."""

    async def use(service: BatchService) -> None:
        submission = await written(service, tmp_path, ["a"])
        with submission.lines.open("ab") as file:
            file.write(line + b"\n")
        await service.create(await uploaded(service, submission))

    one.run(use)
    (job,) = one.fake.jobs.values()
    assert code in [each["code"] for each in job.facts["errors"]]


def test_a_refused_creation_is_the_error_of_the_provider(one: Running, tmp_path: Path) -> None:
    """It has the status that tells the caller that nothing was created."""

    async def use(service: BatchService) -> None:
        submission = await written(service, tmp_path, ["a"])
        with pytest.raises(errors.ProviderError, match="No such File") as caught:
            await service.create(replace(submission, input_id="file-missing"))
        assert caught.value.status == 404

    one.run(use)
    assert one.fake.jobs == {}


def test_the_list_is_read_only_until_it_is_old(one: Running) -> None:
    """It begins with the latest jobs, a hundred on a page; jobs of others have no identifier."""
    for number in range(350):
        facts = {"endpoint": "/v1/chat/completions", "input_file_id": "f", "errors": []}
        metadata = {"llm_magics_job": "their own", "a": "b"}
        one.fake.add_job(f"batch_{number}", "account", [], **facts, metadata=metadata)
        one.fake.clock.advance(10)

    async def use(service: BatchService) -> list[JobStatus]:
        return await recent(service, one.now() - timedelta(seconds=1205))

    listed = one.run(use)
    assert len(listed) in (120, 121)
    assert {status.mark for status in listed} == {None}
    pages = [asked.path.partition("?")[2] for asked in one.fake.asked]
    assert pages[0] == "limit=100"
    assert len(pages) == 3  # two with recent jobs, and one that is older
    assert pages[1:] == ["limit=100&after=batch_250", "limit=100&after=batch_150"]


def test_a_list_in_another_order_is_read_to_its_end(tmp_path: Path) -> None:
    """The order of Groq's list is not documented; here all old jobs come first."""
    with running("groq") as one:

        async def use(service: BatchService) -> list[str]:
            submission = await uploaded(service, await written(service, tmp_path, ["a"]))
            for _ in range(41):
                await service.create(submission)
            one.fake.clock.advance(100)
            created = await service.create(submission)
            assert created.id == list(one.fake.jobs)[-1]
            return [status.id for status in await recent(service, one.now())]

        assert one.run(use) == [list(one.fake.jobs)[-1]]


BATCH = {"id": "b1", "status": "in_progress", "created_at": 1_795_000_000}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"status": "finalizing"}, {"state": "running", "outcome": ""}),
        ({"status": "paused"}, {"state": "running", "outcome": ""}),
        ({"output_file_id": "f1"}, {"state": "running", "results": ()}),
        ({"status": "cancelling"}, {"state": "cancelling"}),
        (
            {"status": "completed", "output_file_id": "f1", "errors": [{"message": "line 4 is wrong"}]},
            {"state": "ended", "results": ("f1",), "error": ""},
        ),
        (
            {"status": "failed", "errors": {"data": [{"code": str(n), "message": f"m{n}"} for n in range(9)]}},
            {"outcome": "failed", "error": "m0; m1; m2", "is_queue_full": False},
        ),
        ({"metadata": {"llm_magics_job": MARK}}, {"mark": MARK}),
        ({"job_deadline": "2026-11-20T00:00:00Z"}, {"expires": datetime(2026, 11, 20, tzinfo=UTC)}),
        ({"metadata": {"llm_magics_job": f"{MARK}x"}}, {"mark": None}),
        ({"request_counts": {"total": None, "completed": None, "failed": None}}, {"total": None, "done": 0}),
    ],
)  # fmt: skip
def test_a_job_is_read(one: Running, said: dict[str, Any], expected: dict[str, Any]) -> None:
    """A state that is not known is not an end: the job is asked for again later."""
    one.fake.fail(method="GET", says=as_json({**BATCH, **said}))
    status = one.run(lambda service: service.retrieve("b1"))
    assert {name: getattr(status, name) for name in expected} == expected


@pytest.mark.parametrize(
    "said", ["<html>", [], {"id": "", "status": "x"}, {"id": "b", "status": 1}]
)
def test_what_is_not_a_job_is_an_error(one: Running, said: Any) -> None:
    """Without a status, so that a job that was just created counts as uncertain."""
    one.fake.fail(method="GET", says=as_json(said))
    with pytest.raises(errors.ProviderError, match="invalid response") as caught:
        one.run(lambda service: service.retrieve("b1"))
    assert caught.value.status is None


def test_a_page_that_names_itself_as_the_next_ends_the_list() -> None:
    """A list whose cursor does not move would be read forever; an empty page may not be the last."""
    pages: list[Any] = [
        {"data": [BATCH], "paging": {"next_cursor": "c1"}},
        {"data": [], "paging": {"next_cursor": "c2"}},
        {"data": [{**BATCH, "id": "b2"}], "paging": {"next_cursor": "c2"}},
    ]
    with running("groq") as one:
        for page in pages:
            one.fake.fail(method="GET", says=as_json(page))
        listed = one.run(lambda service: recent(service, one.now()))
        assert [status.id for status in listed] == ["b1", "b2"]
        queries = [asked.path.partition("?")[2] for asked in one.fake.asked]
    assert queries == ["", "cursor=c1", "cursor=c2"]


@pytest.mark.parametrize("name", ["groq", "mistral"])
def test_a_list_without_an_end_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that always has another page would be asked forever."""
    monkeypatch.setattr(model_lists, "_MAX_PAGES", 5)
    with running(name) as one:

        def page(asked: Asked) -> Fault:
            count = len(one.fake.asked)
            listed = {"data": [{**BATCH, "status": "RUNNING"}], "total": 10**9}
            return Fault(says=as_json({**listed, "paging": {"next_cursor": f"c{count}"}}))

        one.fake.fails = page
        with pytest.raises(errors.ProviderError, match="5 pages"):
            one.run(lambda service: recent(service, one.now()))
        assert len(one.fake.asked) == 5


def test_a_job_without_a_time_is_listed(one: Running) -> None:
    """It may be recent; a page without jobs is the last one, whatever it says."""
    page = {"data": [{"id": "b1", "status": "validating"}], "has_more": True}
    one.fake.fail(method="GET", says=as_json(page))
    one.fake.fail(method="GET", says=as_json({"data": [], "has_more": True}))
    listed = one.run(lambda service: recent(service, one.now()))
    assert [status.id for status in listed] == ["b1"]
    assert one.fake.faults[-1].times == 0


def test_a_request_that_expired_may_be_sent_again(one: Running, tmp_path: Path) -> None:
    """Its error is retryable, although it has no status."""
    one.fake.change_fate(run_s=1e9)

    async def use(service: BatchService) -> None:
        created = await submitted(service, tmp_path, ["a"])
        one.fake.clock.advance(90_000)
        (result,) = (await results_of(service, created.id)).values()
        assert result.is_expired
        assert isinstance(result.error, errors.ProviderError)
        assert (result.error.code, result.error.retryable) == ("batch_expired", True)

    one.run(use)


def test_results_arrive_from_both_files_although_a_line_is_damaged(
    one: Running, tmp_path: Path
) -> None:
    """The error names the line, after all other results."""

    async def use(service: BatchService) -> None:
        created = await submitted(service, tmp_path, ["a", "b", "c"])
        status = await ended(one, service, created)
        whole = fake_of(one).content(status.results[0], "account")
        first, *others = b"".join(whole.pieces).splitlines(keepends=True)
        one.fake.fail(method="GET", says=replace(whole, pieces=[first, b"{not json}\n", *others]))
        read = []
        with pytest.raises(errors.ProviderError, match="line 2"):
            await collect(service, status, read)
        assert len(read) == 3

    one.run(use)


async def collect(service: BatchService, status: JobStatus, into: list[str]) -> None:
    """Append the identifiers of the results."""
    async for result in service.results(status):
        into.append(result.custom_id)  # noqa: PERF401 (an error may come between)


def test_a_failed_download_is_not_a_deleted_file(one: Running, tmp_path: Path) -> None:
    """Only a file that the service no longer lists is."""

    async def use(service: BatchService) -> None:
        created = await submitted(service, tmp_path, ["a"])
        status = await ended(one, service, created)
        one.fake.fail(method="GET", says=as_json({"error": {"message": "Busy."}}, 503))
        with pytest.raises(errors.ProviderError) as caught:
            await collect(service, status, [])
        assert not isinstance(caught.value, errors.ResultsGoneError)
        assert caught.value.retryable
        missing = as_json({"error": {"message": "No such File object."}}, 404)
        one.fake.fail(method="GET", says=missing)
        with pytest.raises(errors.ProviderError, match="did not send it") as caught:
            await collect(service, status, [])
        assert not isinstance(caught.value, errors.ResultsGoneError)
        assert caught.value.retryable
        one.fake.clock.advance(31 * 86_400)
        one.fake.fail(path="/files/[^/]*$", says=as_json({"error": {"message": "Busy."}}, 503))
        with pytest.raises(errors.ProviderError, match="Busy"):
            await collect(service, status, [])
        with pytest.raises(errors.ResultsGoneError) as gone:
            await collect(service, status, [])
        assert "30 days" in str(gone.value.hint)

    one.run(use)


def test_a_running_job_that_refuses_to_be_cancelled_is_an_error(
    one: Running, tmp_path: Path
) -> None:
    """One that has ended in the meantime is not."""

    async def use(service: BatchService) -> None:
        created = await submitted(service, tmp_path, ["a"])
        one.fake.fail(method="POST", says=as_json({"error": {"message": "No."}}, 409))
        with pytest.raises(errors.ProviderError, match="No"):
            await service.cancel(created.id)
        await ended(one, service, created)
        await service.cancel(created.id)
        with pytest.raises(errors.ProviderError, match="No batch found"):
            await service.cancel("batch_missing")

    one.run(use)


def test_an_uploaded_file_is_discarded_once(one: Running, tmp_path: Path) -> None:
    """A missing one is not an error; another error is."""

    async def use(service: BatchService) -> None:
        submission = await uploaded(service, await written(service, tmp_path, ["a"]))
        await service.discard(submission.input_id)
        assert fake_of(one).files == {}
        await service.discard(submission.input_id)
        one.fake.fail(method="DELETE", says=as_json({"error": {"message": "Busy."}}, 500))
        with pytest.raises(errors.ProviderError, match="Busy"):
            await service.discard(submission.input_id)

    one.run(use)


@pytest.mark.parametrize(("name", "format_"), [("openai", "base64"), ("mistral", "float")])
def test_vectors_are_those_of_the_live_call(name: str, format_: str, tmp_path: Path) -> None:
    """One text a line, in the format of the live call, with the tokens of each."""
    texts = ["one", "two é", ""]
    with running(name) as one:

        async def use(service: BatchService) -> list[tuple[list[float], Any]]:
            lines = tmp_path / "lines.jsonl"
            requests = [service.embedding_request(text, EMBEDDING, None) for text in texts]
            assert {request.path for request in requests} == {"/embeddings"}
            assert "/embeddings" in service.paths
            with lines.open("wb") as file:
                for number, request in enumerate(requests):
                    file.write(
                        service.encode(f"{MARK}-{number}", request.path, request.body) + b"\n"
                    )
            submission = await written(service, tmp_path, ["a"])
            submission = replace(
                submission, lines=lines, path="/embeddings", model=EMBEDDING, count=3
            )
            created = await service.create(await uploaded(service, submission))
            one.fake.clock.advance(1000)
            found = await results_of(service, created.id)
            bodies = [found[f"{MARK}-{number}"].body for number in range(3)]
            return [service.parse_vector(body or {}) for body in bodies]

        async def live(service: BatchService) -> list[list[float]]:
            return await service.provider.generate_embeddings(texts, EMBEDDING)

        vectors = one.run(use)
        assert [vector for vector, _ in vectors] == one.run(live)
        assert [usage.input_tokens for _, usage in vectors] == [
            tokens_in([text]) for text in texts
        ]
        (job,) = one.fake.jobs.values()
        assert job.requests[0].body == {"model": EMBEDDING, "input": ["one"], "encoding_format": format_}  # fmt: skip


def test_a_vector_that_is_none_is_an_error(one: Running) -> None:
    """As in a live call: an error in place of an answer, none, or several."""

    async def use(service: BatchService) -> None:
        profile = service.provider.profile
        vars(service.provider)["profile"] = replace(profile, refuses=frozenset({"dimensions"}))
        with pytest.raises(errors.UnsupportedError, match="shorten vectors"):
            service.embedding_request("a", "m", 8)
        vars(service.provider)["profile"] = profile
        shortened = service.embedding_request("a", "openai/x", 8)
        assert shortened.body["dimensions"] == 8
        for body, message in (
            ({"error": {"message": "No."}}, "No"),
            ({}, "invalid response"),
            ({"data": []}, "0 vectors for 1 texts"),
            ({"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0]}]}, "2 vectors for 1"),
        ):  # fmt: skip
            with pytest.raises(errors.ProviderError, match=message):
                service.parse_vector(body)

    one.run(use)


@pytest.mark.parametrize("name", ["azure", "groq", "together"])
def test_services_without_embeddings_in_jobs_say_so(name: str) -> None:
    """The error names the services that have them."""

    async def use(service: BatchService) -> None:
        assert "/embeddings" not in service.paths
        with pytest.raises(errors.UnsupportedError, match="embed") as caught:
            service.embedding_request("a", "m", None)
        assert name not in str(caught.value.hint)

    with running(name) as one:
        one.run(use)


@pytest.mark.parametrize("name", ["openai", "azure"])
def test_jobs_for_the_responses_api(name: str, tmp_path: Path) -> None:
    """With the requests and the answers of that API."""

    async def use(service: BatchService) -> str:
        created = await submitted(service, tmp_path, ["hello"])
        one.fake.clock.advance(1000)
        (result,) = (await results_of(service, created.id)).values()
        assert result.body is not None
        chunks = await chat_chunks_of(
            service.provider, [ChatMessage("user", "hello")], CHAT, PARAMETERS, result.body
        )
        return "".join(chunk.text for chunk in chunks)

    with running(name) as one:
        assert one.run(use, api="responses") == answer_to("hello")
        (job,) = one.fake.jobs.values()
        assert job.facts["endpoint"] == "/v1/responses"


def test_azure_waits_until_the_file_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job before that would be refused; a file that cannot be used is an error."""
    with running("azure") as one:
        fake_of(one).processing_s = 20.0
        waited: list[float] = []

        async def sleep(seconds: float) -> None:
            waited.append(seconds)
            one.fake.clock.advance(seconds)

        monkeypatch.setattr(azure, "sleep", sleep)

        async def use(service: BatchService) -> None:
            created = await submitted(service, tmp_path, ["a"])
            assert created.state == "waiting"
            one.fake.fail(method="GET", says=as_json({"id": "file-1", "status": "Processed"}))
            before = len(waited)
            await uploaded(service, await written(service, tmp_path, ["a"]))
            assert len(waited) == before
            fake_of(one).processing_s = 1e6
            submission = await written(service, tmp_path, ["a"])
            with pytest.raises(errors.ProviderError, match="its state is 'pending'"):
                await service.upload(submission)
            one.fake.fail(method="GET", says=as_json({"id": "file-1", "status": "error"}))
            with pytest.raises(errors.ProviderError, match="its state is 'error'"):
                await service.upload(submission)

        one.run(use)
    assert waited[:5] == [1, 2, 4, 8, 15]


def test_azure_says_that_its_older_api_has_no_jobs() -> None:
    """There the path of a request contains the deployment."""
    with running("azure") as one, pytest.raises(errors.UnsupportedError, match="api_version"):
        one.run(lambda service: asyncio.sleep(0, service), api_version="2024-10-21")


def test_together_is_asked_for_the_name_of_the_input_file(tmp_path: Path) -> None:
    """Its jobs have no metadata; without the file, or with another name, the job has no identifier."""
    with running("together") as one:

        async def use(service: BatchService) -> list[str | None]:
            marks = []
            since = one.now()
            submission = await uploaded(service, await written(service, tmp_path, ["a"]))
            await service.create(submission)
            files = fake_of(one).files
            for name in (f"{MARK}.jsonl", "reviews.jsonl", ""):
                files[submission.input_id].name = name
                marks += [status.mark for status in await recent(service, since)]
            await service.discard(submission.input_id)
            marks += [status.mark for status in await recent(service, since)]
            one.fake.fail(path="/batches", says=as_json([{"id": "b1", "status": "COMPLETED"}]))
            marks += [status.mark for status in await recent(service, since)]
            one.fake.fail(path="/files/", says=as_json({"error": {"message": "Busy."}}, 503))
            with pytest.raises(errors.ProviderError, match="Busy"):
                await recent(service, since)
            return marks

        assert one.run(use) == [MARK, None, None, None, None]
        assert not [path for path in one.fake.paths() if path.endswith("/files/")]


def test_a_warning_of_together_is_shown(tmp_path: Path) -> None:
    """It comes with a new job."""
    with running("together") as one:

        async def use(service: BatchService) -> None:
            submission = await uploaded(service, await written(service, tmp_path, ["a"]))
            said = json.loads(
                one.fake.process(replace_body(one, submission.input_id)).pieces[0].decode()
            )
            one.fake.fail(method="POST", says=as_json({**said, "warning": "Low credit."}, 201))
            with pytest.warns(UserWarning, match="together: Low credit"):
                created = await service.create(submission)
            assert created.id == said["job"]["id"]

        one.run(use)


def replace_body(one: Running, file_id: str) -> Any:
    """A request for a new job, as one that came in."""
    body = {"endpoint": "/v1/chat/completions", "input_file_id": file_id}
    return replace(one.fake.asked[-1], path="/v1/batches", body=json.dumps(body).encode())


def test_the_openai_provider_itself_has_jobs_and_an_unknown_server_has_none() -> None:
    """The service is found by the host of the address, or by the profile."""
    provider = OpenAIProvider({"api_key": KEY})
    assert type(provider.batch_service()).__module__ == "llm_magics.providers.batches.openai"
    other = OpenAIProvider({"api_key": KEY, "base_url": "http://127.0.0.1:9/v1"})
    with pytest.raises(errors.UnsupportedError, match="batch jobs"):
        other.batch_service()
