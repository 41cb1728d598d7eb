"""Mistral's batch jobs: files, states and lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_magics import errors
from llm_magics.providers.batches.service import BatchService, JobStatus
from tests.support.batch_fakes import Answer
from tests.support.batch_services import (
    MARK,
    Running,
    recent,
    results_of,
    running,
    submitted,
    uploaded,
    written,
)
from tests.support.fake_mistral_jobs import FakeJobs
from tests.support.serving import as_json


@pytest.fixture
def one() -> Iterator[Running]:
    """Mistral."""
    with running("mistral") as started:
        yield started


def fake_of(one: Running) -> FakeJobs:
    """The fake with its own attributes."""
    assert isinstance(one.fake, FakeJobs)
    return one.fake


def test_a_job_names_its_file_its_model_and_our_identifier(one: Running, tmp_path: Path) -> None:
    """Metadata has keys of at most 32 characters; lines have no method and no URL."""

    async def use(service: BatchService) -> JobStatus:
        return await submitted(service, tmp_path, ["a"], seed=7)

    created = one.run(use)
    (job,) = one.fake.jobs.values()
    (file,) = fake_of(one).files.values()
    assert {name: job.facts[name] for name in job.facts if name != "errors"} == {
        "endpoint": "/v1/chat/completions",
        "input_files": [file.id],
        "model": "chat-model",
        "metadata": {"llm_magics_job": MARK},
        "timeout_hours": 24,
    }
    assert file.data.startswith(b'{"custom_id":"%s-0","body":{' % MARK.encode())
    assert job.requests[0].body["random_seed"] == 7
    assert created.mark == MARK
    assert created.created is not None
    assert created.expires == created.created + timedelta(hours=24)


def test_states_and_counts_are_those_of_the_service(one: Running, tmp_path: Path) -> None:
    """From queued to its end."""
    one.fake.answer = lambda request: (
        Answer({"object": "error", "message": "Too long.", "type": "invalid_request", "code": 3051}, 422)
        if "prompt 1" in str(request.body)
        else one.fake.usual_answer(request)
    )  # fmt: skip

    async def use(service: BatchService) -> None:
        created = await submitted(service, tmp_path, [f"prompt {n}" for n in range(10)])
        assert (created.state, created.total, created.done) == ("waiting", 10, 0)
        one.fake.clock.advance(60)
        half = await service.retrieve(created.id)
        assert (half.state, half.done, half.failed) == ("running", 5, 1)
        one.fake.clock.advance(60)
        last = await service.retrieve(created.id)
        assert (last.state, last.outcome, last.done, last.failed) == ("ended", "success", 10, 1)
        result = (await results_of(service, created.id))[f"{MARK}-1"]
        assert isinstance(result.error, errors.ProviderError)
        assert result.error.status == 422
        assert "Too long" in str(result.error)

    one.run(use)


@pytest.mark.parametrize(
    ("fate", "outcome"),
    [({"run_s": 1e6}, "timeout_exceeded"), ({"invalid": "The file is not valid."}, "failed")],
)
def test_other_ends_of_a_job(
    one: Running, tmp_path: Path, fate: dict[str, Any], outcome: str
) -> None:
    """One that takes too long, and one that is refused with a reason."""
    one.fake.change_fate(**fate)

    async def use(service: BatchService) -> JobStatus:
        created = await submitted(service, tmp_path, ["a", "b"])
        one.fake.clock.advance(90_000)
        return await service.retrieve(created.id)

    last = one.run(use)
    assert (last.state, last.outcome) == ("ended", outcome)
    assert last.error == fate.get("invalid", "")


def test_errors_of_a_job_are_counted(one: Running) -> None:
    """The first three, each with its number of occurrences."""
    listed = [
        {"message": "Too long.", "count": 3},
        {"message": "Wrong."},
        {"count": 1},
        {"message": "x"},
    ]
    one.fake.fail(says=as_json({"id": "b1", "status": "FAILED", "errors": listed}))
    status = one.run(lambda service: service.retrieve("b1"))
    assert status.error == "Too long. (3 times); Wrong.; no reason given"
    assert status.expires is None


def test_a_list_with_smaller_pages_is_read_to_its_end(one: Running, tmp_path: Path) -> None:
    """The service may send fewer jobs on a page than it was asked for; new ones are at the end."""
    fake_of(one).max_page = 7

    async def use(service: BatchService) -> None:
        submission = await uploaded(service, await written(service, tmp_path, ["a"]))
        since = one.now() + timedelta(seconds=50)
        for _ in range(30):
            one.fake.clock.advance(10)
            await service.create(submission)
        listed = await recent(service, since)
        assert [status.created for status in listed] == sorted(
            status.created for status in listed if status.created
        )
        assert len(listed) in (26, 27)

    one.run(use)
    assert {asked.path.partition("&")[0] for asked in one.fake.asked[-4:]} == {
        f"/v1/batch/jobs?page={page}" for page in range(4)
    }


def test_more_pending_requests_than_a_workspace_may_have_are_refused(
    one: Running, tmp_path: Path
) -> None:
    """The refusal has a status, which tells the caller that nothing was created."""
    fake_of(one).max_pending = 3

    async def use(service: BatchService) -> None:
        submission = await uploaded(service, await written(service, tmp_path, ["a", "b"]))
        await service.create(submission)
        with pytest.raises(errors.ProviderError, match="pending") as caught:
            await service.create(replace(submission, mark="x" * 20))
        assert caught.value.status is not None
        assert 400 <= caught.value.status < 500
        one.fake.clock.advance(1000)
        await service.create(submission)

    one.run(use)
    assert len(one.fake.jobs) == 2
