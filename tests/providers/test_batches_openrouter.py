"""OpenRouter's batch API: requests in one body, pages of results, and the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openrouter
import pytest
from openrouter.utils import RetryConfig

from llm_magics.errors import ProviderError, ResultsGoneError
from llm_magics.providers import create_provider
from llm_magics.providers.batches.openrouter import Batches
from llm_magics.providers.batches.service import BatchResult, BatchService, JobStatus
from tests.support.batch_services import (
    KEY,
    MARK,
    Running,
    results_of,
    running,
    submitted,
    written,
)
from tests.support.fake_openrouter_batches import CHAT, FakeOpenRouterBatches, refused
from tests.support.serving import as_json

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def one() -> Iterator[Running]:
    """The service."""
    with running("openrouter") as started:
        yield started


def fake_of(one: Running) -> FakeOpenRouterBatches:
    """The service's fake."""
    assert isinstance(one.fake, FakeOpenRouterBatches)
    return one.fake


def ended(one: Running, tmp_path: Path, prompts: list[str]) -> dict[str, BatchResult]:
    """The results of a job."""

    async def use(service: BatchService) -> dict[str, BatchResult]:
        job = await submitted(service, tmp_path, prompts, model=CHAT)
        one.fake.clock.advance(200)
        return await results_of(service, job.id)

    return one.run(use)


def test_requests_come_last_in_the_body(one: Running, tmp_path: Path) -> None:
    """The service reads the body as it arrives, and refuses another order."""
    ended(one, tmp_path, ["a é", "b"])
    body = json.loads(one.fake.asked[0].body)
    assert list(body) == ["endpoint", "model", "completion_window", "requests"]
    assert (body["endpoint"], body["model"]) == ("/v1/chat/completions", CHAT)
    assert [each["custom_id"] for each in body["requests"]] == [f"{MARK}-0", f"{MARK}-1"]
    assert all(set(each) == {"custom_id", "body"} for each in body["requests"])
    assert not any("stream" in each["body"] for each in body["requests"])


def test_results_are_read_page_by_page(
    one: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is in memory at once, and no more."""
    monkeypatch.setattr(Batches, "page", 3)
    results = ended(one, tmp_path, ["a"] * 8)
    assert len(results) == 8
    pages = [path for path in one.fake.paths("GET") if "/results?" in path]
    assert [path.partition("?")[2].startswith("limit=3") for path in pages] == [True] * 3
    assert ["cursor=" in path for path in pages] == [False, True, True]


def test_results_in_the_job_are_read_where_there_are_no_pages(
    one: Running, tmp_path: Path
) -> None:
    """The guide of August 2026 has no address for pages."""
    fake_of(one).has_pages = False
    results = ended(one, tmp_path, ["a", "b"])
    assert sorted(results) == [f"{MARK}-0", f"{MARK}-1"]
    assert all(result.body for result in results.values())


def test_a_failed_job_has_its_reason_and_no_results(one: Running, tmp_path: Path) -> None:
    """A job that is refused after its creation, such as for a picture, is not billed."""
    one.fake.change_fate(invalid="Request 0: images are not supported.")
    assert ended(one, tmp_path, ["a"]) == {}
    (job_id,) = one.fake.jobs

    async def use(service: BatchService) -> JobStatus:
        return await service.retrieve(job_id)

    status = one.run(use)
    assert (status.outcome, status.error) == ("failed", "Request 0: images are not supported.")


def test_results_are_gone_after_30_days(one: Running, tmp_path: Path) -> None:
    """They are deleted from the pages and from the job."""
    ended(one, tmp_path, ["a"])
    (job_id,) = one.fake.jobs
    one.fake.clock.advance(30 * 86_400)

    async def use(service: BatchService) -> None:
        await results_of(service, job_id)

    with pytest.raises(ResultsGoneError):
        one.run(use)
    one.fake.jobs[job_id].deleted = True
    gone = JobStatus(id=job_id, state="ended", outcome="completed", results=(job_id,))

    async def read(service: BatchService) -> None:
        [each async for each in service.results(gone)]

    with pytest.raises(ResultsGoneError):
        one.run(read)


def test_a_row_that_is_not_a_result_costs_no_other(one: Running) -> None:
    """Rows are read one by one."""
    good = {"custom_id": f"{MARK}-0", "response": {"status_code": 200, "body": {}}, "error": None}
    failed = {"custom_id": f"{MARK}-1", "response": None, "error": {"message": "no", "type": "x"}}
    says = as_json({"data": [1, {}, good, {"custom_id": 3}, failed], "has_more": False})
    one.fake.fail(says=says)
    status = JobStatus(id="batch_1", state="ended", results=("batch_1",))

    async def use(service: BatchService) -> list[tuple[str, bool]]:
        return [(each.custom_id, each.error is None) async for each in service.results(status)]

    assert one.run(use) == [(f"{MARK}-0", True), (f"{MARK}-1", False)]


@pytest.mark.parametrize("said", [{}, {"data": None}, {"data": 7}, []])
def test_a_page_of_another_form_is_an_error(one: Running, said: Any) -> None:
    """It can be read again."""
    one.fake.fail(says=as_json(said))
    status = JobStatus(id="batch_1", state="ended", results=("batch_1",), outcome="completed")

    async def use(service: BatchService) -> None:
        [each async for each in service.results(status)]

    with pytest.raises(ProviderError) as caught:
        one.run(use)
    assert caught.value.retryable


def test_pages_that_repeat_their_cursor_end(one: Running) -> None:
    """A service that always names the same page would never end."""
    one.fake.fail(says=as_json({"data": [], "has_more": True, "next_cursor": "x"}), times=9)
    status = JobStatus(id="batch_1", state="ended", results=("batch_1",))

    async def use(service: BatchService) -> list[BatchResult]:
        return [each async for each in service.results(status)]

    assert one.run(use) == []
    assert len(one.fake.asked) == 2


@pytest.mark.parametrize(
    ("status", "retryable"), [(402, False), (413, False), (422, False), (429, True)]
)
def test_a_refused_job_is_an_error_with_its_status(
    one: Running, tmp_path: Path, status: int, retryable: bool
) -> None:
    """Nothing was created, and the request was sent once."""
    one.fake.fail(method="POST", says=refused("no", status))
    with pytest.raises(ProviderError) as caught:
        ended(one, tmp_path, ["a"])
    assert (caught.value.status, caught.value.retryable) == (status, retryable)
    assert len(one.fake.asked) == 1


def test_the_service_is_found_by_its_name() -> None:
    """As the provider ``openrouter``."""
    service = create_provider("openrouter", api_key=KEY).batch_service()
    assert isinstance(service, Batches)
    assert not service.has_marks
    assert service.limits.requests == 5_000


# From a library of the client, on Python 3.12 and later.
@pytest.mark.filterwarnings(r"ignore:ast\.\w+ is deprecated:DeprecationWarning")
def test_the_official_client_sends_the_same_requests(one: Running, tmp_path: Path) -> None:
    """Creation, retrieval and list: whole paths, queries and bodies."""
    sent: dict[str, list[Any]] = {"ours": [], "theirs": []}

    def collect(whose: str) -> None:
        for asked in one.fake.asked:
            body = json.loads(asked.body) if asked.body else None
            sent[whose].append((asked.method, asked.path, asked.headers["authorization"], body))
        one.fake.asked.clear()

    async def use(service: BatchService) -> str:
        submission = await written(service, tmp_path, ["a é", "b"], model=CHAT)
        job = await service.create(submission)
        await service.retrieve(job.id)
        [each async for each in service.recent(LONG_AGO)]
        return job.id

    job_id = one.run(use)
    lines = [
        json.loads(line) for line in (tmp_path / f"{MARK}.jsonl").read_text("utf-8").splitlines()
    ]
    collect("ours")
    client = openrouter.OpenRouter(
        api_key=KEY,
        server_url=f"{one.url}/api/v1",
        retry_config=RetryConfig("none", None, False),  # type: ignore[arg-type]
    )
    with client:
        client.batch.create_batches(endpoint="/v1/chat/completions", model=CHAT, requests=lines)
        found = client.batch.get_batches(id=job_id)
        client.batch.list(limit=100)
    collect("theirs")
    assert sent["ours"] == sent["theirs"]
    assert found.id == job_id
