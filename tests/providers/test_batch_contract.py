"""What every service with batch jobs does, against a fake that follows its documents."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics.providers import create_provider
from llm_magics.providers.batches.offline import chat_chunks_of
from llm_magics.providers.batches.service import BatchResult, BatchService, JobStatus
from tests.support.batch_answers import answer_to
from tests.support.batch_fakes import Answer, Request
from tests.support.batch_services import (
    KNOWN,
    MARK,
    Running,
    recent,
    results_of,
    running,
    submitted,
    uploaded,
    written,
)
from tests.support.serving import as_json

PROMPTS = [f"prompt {number}" for number in range(12)]
FAILING = Answer({"error": {"message": "The model is broken.", "type": "server_error", "code": None}}, 500)  # fmt: skip


@pytest.fixture(params=sorted(KNOWN))
def one(request: pytest.FixtureRequest) -> Iterator[Running]:
    """Each service in turn."""
    with running(request.param) as started:
        yield started


def creations(one: Running) -> int:
    """The number of jobs that the service has."""
    return len(one.fake.jobs)


def test_a_job_runs_from_its_creation_to_its_results(one: Running, tmp_path: Path) -> None:
    """Each request has its own answer, whatever the order of the results is."""

    async def use(service: BatchService) -> None:
        created = await submitted(service, tmp_path, PROMPTS, model=one.known.model)
        assert created.state in ("waiting", "running")
        assert created.outcome == ""
        assert created.created is not None
        assert abs(created.created - one.now()) < timedelta(seconds=1.1)
        assert created.expires is None or created.expires > created.created
        assert created.error == ""
        one.fake.clock.advance(60)
        half = await service.retrieve(created.id)
        assert (half.id, half.state) == (created.id, "running")
        assert half.results == ()
        one.fake.clock.advance(60)
        ended = await service.retrieve(created.id)
        assert ended.state == "ended"
        assert ended.outcome
        found = await results_of(service, created.id)
        assert sorted(found) == sorted(f"{MARK}-{number}" for number in range(12))
        is_ordered = list(found) == [f"{MARK}-{number}" for number in range(12)]
        assert is_ordered == ("ordered" in one.known.traits)
        for number, prompt in enumerate(PROMPTS):
            result = found[f"{MARK}-{number}"]
            assert result.error is None
            assert result.body is not None
            chunks = await chat_chunks_of(
                service.provider,
                [ChatMessage("user", prompt)],
                one.known.model,
                ModelParameters(),
                result.body,
            )
            assert "".join(chunk.text for chunk in chunks) == answer_to(prompt)

    one.run(use)
    assert len(one.fake.billed()) == 12


def test_requests_that_fail_have_the_errors_of_live_requests(one: Running, tmp_path: Path) -> None:
    """A few, and then all of a job, which then has no output."""

    def answer(request: Request) -> Answer:
        is_bad = any(f"prompt {number}" in str(request.body) for number in failing)
        return FAILING if is_bad else one.fake.usual_answer(request)

    one.fake.answer = answer

    async def use(service: BatchService) -> dict[str, Any]:
        created = await submitted(service, tmp_path, PROMPTS[:4], model=one.known.model)
        one.fake.clock.advance(1000)
        return await results_of(service, created.id)

    for failing in ([2], [0, 1, 2, 3]):
        found = one.run(use)
        wrong = sorted(int(name.partition("-")[2]) for name in found if found[name].error)
        assert wrong == failing
        for number in wrong:
            result = found[f"{MARK}-{number}"]
            assert isinstance(result.error, errors.ProviderError)
            assert "The model is broken" in str(result.error)
            assert result.body is None
            assert not result.is_expired
        one.fake.clock.advance(1)


def check_partial(one: Running, found: dict[str, BatchResult]) -> None:
    """The results of a job that was not finished: answers, and requests that are free."""
    good = [name for name, result in found.items() if result.body is not None]
    if "no partial" in one.known.traits:
        assert found == {}
    else:
        assert 0 < len(good) == len(one.fake.billed()) < 12
    assert all(result.is_expired for name, result in found.items() if name not in good)


def test_an_expired_job_has_the_results_until_then(one: Running, tmp_path: Path) -> None:
    """The others are expired, which is free, or are left out."""
    one.fake.change_fate(run_s=200_000.0)

    async def use(service: BatchService) -> dict[str, Any]:
        created = await submitted(service, tmp_path, PROMPTS, model=one.known.model)
        one.fake.clock.advance(300_000)
        return await results_of(service, created.id)

    check_partial(one, one.run(use))


def test_a_job_is_cancelled_and_keeps_its_results(one: Running, tmp_path: Path) -> None:
    """Cancelling it again, or when it has ended, is not an error."""
    if "no cancel" in one.known.traits:
        with pytest.raises(errors.UnsupportedError, match="cancel"):
            one.run(lambda service: service.cancel(one.known.job_id))
        return

    async def use(service: BatchService) -> dict[str, Any]:
        created = await submitted(service, tmp_path, PROMPTS, model=one.known.model)
        one.fake.clock.advance(60)
        await service.cancel(created.id)
        assert (await service.retrieve(created.id)).state != "ended"
        await service.cancel(created.id)
        one.fake.clock.advance(60)
        await service.cancel(created.id)
        return await results_of(service, created.id)

    check_partial(one, one.run(use))


def test_the_list_has_all_recent_jobs_from_all_pages(one: Running, tmp_path: Path) -> None:
    """With our identifier if the service keeps it; those that are older are left out."""

    async def use(service: BatchService) -> None:
        old = await submitted(service, tmp_path, ["old"], model=one.known.model, mark="o" * 20)
        one.fake.clock.advance(500)
        since = one.now()
        marks = []
        for number in range(45):
            one.fake.clock.advance(0.2)
            marks.append(f"m{number:019d}")
            await submitted(service, tmp_path, ["a"], model=one.known.model, mark=marks[-1])
        listed = await recent(service, since)
        ids = [job_id for job_id in one.fake.jobs if job_id != old.id]
        assert Counter(status.id for status in listed) == Counter(ids)
        if service.has_marks:
            assert sorted(str(status.mark) for status in listed) == marks
        everything = await recent(service, since - timedelta(seconds=1000))
        assert {status.id for status in everything} == {*ids, old.id}

    one.run(use)


def test_a_job_that_is_listed_late_is_found_later(one: Running, tmp_path: Path) -> None:
    """The list may lag behind the creation."""
    one.fake.change_fate(listing_delay_s=30.0)

    async def use(service: BatchService) -> None:
        since = one.now()
        created = await submitted(service, tmp_path, ["a"], model=one.known.model)
        assert await recent(service, since) == []
        one.fake.clock.advance(31)
        assert [status.id for status in await recent(service, since)] == [created.id]

    one.run(use)


def test_a_creation_is_never_repeated(one: Running, tmp_path: Path) -> None:
    """Whether its answer is lost or it is refused; the error says which it was."""

    async def use(service: BatchService) -> None:
        for when, count in (("before", 0), ("after", 1)):
            submission = await written(service, tmp_path, ["a"], model=one.known.model)
            submission = await uploaded(service, submission)
            one.fake.fail(method="POST", when=when)
            before = len(one.fake.asked)
            with pytest.raises(errors.ConnectionError) as caught:
                await service.create(submission)
            assert caught.value.status is None
            assert len(one.fake.asked) == before + 1
            assert creations(one) == count
        busy = as_json({"error": {"message": "Overloaded.", "type": "server_error"}}, 503)
        one.fake.fail(method="POST", says=busy)
        with pytest.raises(errors.ProviderError) as failed:
            await service.create(submission)
        assert failed.value.status == 503

    one.run(use)


def test_results_that_are_deleted_are_gone(one: Running, tmp_path: Path) -> None:
    """The error has its own class, so that the rows can be submitted again."""

    async def use(service: BatchService) -> None:
        created = await submitted(service, tmp_path, ["a"], model=one.known.model)
        one.fake.clock.advance(1000)
        status = await service.retrieve(created.id)
        one.fake.clock.advance(60 * 86_400)
        with pytest.raises(errors.ResultsGoneError):
            [result async for result in service.results(status)]

    one.run(use)


async def read_until_broken(service: BatchService, status: JobStatus) -> list[str]:
    """The identifiers of the results that arrive before the connection breaks."""
    read: list[str] = []
    try:
        async for result in service.results(status):
            read.append(result.custom_id)  # noqa: PERF401 (the list is needed after the error)
    except errors.ConnectionError:
        return read
    pytest.fail("the connection did not break")


def test_a_download_that_breaks_is_a_broken_connection(one: Running, tmp_path: Path) -> None:
    """What was read before is not lost, and reading it again gives all."""

    async def use(service: BatchService) -> None:
        created = await submitted(service, tmp_path, PROMPTS * 40, model=one.known.model)
        one.fake.clock.advance(1000)
        status = await service.retrieve(created.id)
        one.fake.fail(method="GET", when="middle")
        read = await read_until_broken(service, status)
        assert len(read) < 480
        assert bool(read) == ("whole" not in one.known.traits)
        assert len(await results_of(service, created.id)) == 480

    one.run(use)


def test_a_wrong_key_is_named_and_nothing_is_created(one: Running, tmp_path: Path) -> None:
    """For every operation."""

    async def use(service: BatchService) -> None:
        submission = await written(service, tmp_path, ["a"], model=one.known.model)
        for operation in (
            service.create(submission),
            service.retrieve(one.known.job_id),
            recent(service, one.now()),
            *([] if "no cancel" in one.known.traits else [service.cancel(one.known.job_id)]),
        ):
            with pytest.raises(errors.AuthenticationError) as caught:
                await operation
            assert "another-key" not in f"{caught.value} {caught.value.hint}"

    one.run(use, api_key="another-key")
    assert creations(one) == 0


def test_the_total_timeout_does_not_end_a_long_transfer(one: Running, tmp_path: Path) -> None:
    """It is for answers, and an upload or a download may take hours."""

    async def use(service: BatchService) -> int:
        created = await submitted(service, tmp_path, PROMPTS, model=one.known.model)
        one.fake.clock.advance(1000)
        return len(await results_of(service, created.id))

    assert one.run(use, total_s=0.000_001) == 12


def test_an_account_does_not_reveal_the_key(one: Running) -> None:
    """It differs by key and is the same for the same key."""

    async def account(service: BatchService) -> str:
        return service.account

    first, again = one.run(account), one.run(account)
    assert first == again != one.run(account, api_key="another-key")
    assert "a-key-of-the-test" not in first


def test_an_interrupt_ends_a_download(one: Running, tmp_path: Path) -> None:
    """The connection is closed, and the results can be read again."""

    async def use(service: BatchService) -> None:
        created = await submitted(service, tmp_path, PROMPTS, model=one.known.model)
        one.fake.clock.advance(1000)
        status = await service.retrieve(created.id)
        results = service.results(status)
        await anext(results)
        task = asyncio.ensure_future(results.aclose())
        with suppress(asyncio.CancelledError):
            await task
        assert len(await results_of(service, created.id)) == 12

    one.run(use)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("openai", {"choices": [{"message": {"content": "half an"}}]}),
        ("anthropic", {"content": [{"type": "text", "text": "half an"}], "stop_reason": None}),
        ("gemini", {"candidates": [{"content": {"parts": [{"text": "half an"}]}}]}),
    ],
)
def test_a_result_without_a_finish_reason_is_an_error(name: str, body: dict[str, Any]) -> None:
    """It may be incomplete, so it is not stored as an answer."""
    provider: Any = create_provider(name, api_key="a-key-of-the-test")
    messages, parameters = [ChatMessage("user", "hi")], ModelParameters()
    with pytest.raises(errors.ProviderError, match="finish reason"):
        asyncio.run(chat_chunks_of(provider, messages, "m", parameters, body))
