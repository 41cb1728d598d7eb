"""The protocol of batch jobs: each request is submitted once, whatever happens."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llm_magics._util.filesystem import FileLock
from llm_magics.errors import (
    AuthenticationError,
    JobError,
    LLMError,
    ProviderError,
    RateLimitError,
)
from llm_magics.providers.batches.service import BatchLimits
from llm_magics.runtime.storage.job_journal import Claim, Target
from tests.support.memory_batches import World

TEXTS = ["a", "b", "c"]


@pytest.fixture(params=[True, False], ids=["marks", "no marks"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """A service whose list shows our identifier, and one whose list does not."""
    return World(tmp_path, has_marks=request.param)


def test_results_are_stored_and_the_journal_shows_an_ended_job(world: World) -> None:
    """Each request is paid once; no input file remains."""
    run = world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert sorted(world.ledger.paid()) == TEXTS
    (job,) = world.journal().jobs()
    assert (job.state, job.rows, job.cost_usd) == ("ended", 3, pytest.approx(0.03))
    assert run.pending == 0
    assert not run.errors
    assert not world.ledger.files
    assert not list((world.folder / "jobs").iterdir())


def test_a_second_run_sends_only_new_rows(world: World) -> None:
    """Ten rows more submit ten requests."""
    world.go(TEXTS)
    world.go([*TEXTS, "d"])
    assert world.ledger.paid() == ["a", "b", "c", "d"]


def test_without_waiting_a_later_kernel_reads_the_results(world: World) -> None:
    """The first returns when the service has accepted the job."""
    run = world.go(TEXTS, wait=False)
    assert run.pending == 3
    assert world.answers(TEXTS) == [None] * 3
    assert [job.state for job in world.journal().jobs()] == ["running"]
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert len(world.ledger.batches) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("listed_after_s", [0.0, 55.0])
def test_a_lost_answer_to_the_create_is_not_paid_twice(
    world: World, when: str, listed_after_s: float
) -> None:
    """The service's list decides, also if the job shows late in it."""
    world.ledger.listed_after_s = listed_after_s
    world.ledger.faults["create"] = [when]
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert sorted(world.ledger.paid()) == TEXTS


def test_a_job_later_than_the_settle_time_is_the_only_one_paid_twice(tmp_path: Path) -> None:
    """The settle time is what the promise depends on."""
    world = World(tmp_path)
    world.settle_s, world.ledger.listed_after_s = 10.0, 1000.0
    world.ledger.faults["create"] = ["after"]
    world.go(TEXTS)
    assert sorted(world.ledger.paid()) == sorted(TEXTS * 2)


def test_the_list_must_answer_before_anything_is_submitted_again(world: World) -> None:
    """Hours without a network are survived."""
    world.ledger.faults["create"] = ["after"]
    world.ledger.faults["recent"] = ["before"] * 40
    world.ledger.faults["retrieve"] = ["before"] * 10
    world.go(TEXTS)
    assert sorted(world.ledger.paid()) == TEXTS
    assert world.answers(TEXTS) == ["A", "B", "C"]


def test_an_unknown_batch_makes_a_job_uncertain_until_it_has_ended(tmp_path: Path) -> None:
    """Without our identifier in the list, the results show whose a batch is."""
    world = World(tmp_path, has_marks=False)
    world.ledger.run_s = 5000.0
    other = World(tmp_path / "other", has_marks=False)
    other.ledger = world.ledger
    other.go(["x", "y", "z"], wait=False)
    world.ledger.faults["create"] = ["before"]
    states: set[str] = set()
    run, _ = world.run_of(TEXTS)

    async def work() -> None:
        async for _ in run.events():
            states.update(job.state for job in run._journal.jobs())

    asyncio.run(work())
    run._journal.close()
    assert "uncertain" in states
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert sorted(world.ledger.paid()) == [*TEXTS, "x", "y", "z"]


def test_forgetting_an_uncertain_job_submits_its_rows_again(tmp_path: Path) -> None:
    """The user may know better."""
    world = World(tmp_path, has_marks=False)
    world.ledger.faults["create"] = ["before"]
    with pytest.raises(JobError):
        world.go(TEXTS, timeout_s=0.0)
    (job,) = world.journal().jobs()
    assert job.state == "creating"
    world.journal().forget(job.id)
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]


def test_a_refused_job_is_an_error_and_its_rows_are_free(world: World) -> None:
    """Nothing was created."""
    world.ledger.faults["create"] = [ProviderError("bad model", status=400)]
    with pytest.raises(ProviderError, match="bad model"):
        world.go(TEXTS)
    assert [job.state for job in world.journal().jobs()] == ["dropped"]
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]


def test_a_full_queue_is_waited_for(world: World) -> None:
    """A refused create for too many requests is sent again, and one that ends as such too."""
    world.ledger.faults["create"] = [RateLimitError("full", status=429, retry_after=400.0)]
    world.go(TEXTS)
    assert 400.0 in world.ledger.clock.slept
    assert sorted(world.ledger.paid()) == TEXTS


def test_an_account_without_credit_is_an_error_at_once(world: World) -> None:
    """Waiting does not help, so the run ends with the reason and frees the rows."""
    spent = RateLimitError("no credit", status=402, retryable=False)
    world.ledger.faults["create"] = [spent]
    began = world.ledger.clock.now()
    with pytest.raises(RateLimitError, match="no credit"):
        world.go(TEXTS)
    assert world.ledger.clock.now() - began < 10
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]


def test_a_job_that_ends_because_the_queue_was_full_is_submitted_again(world: World) -> None:
    """It was not processed, and so not paid."""
    world.ledger.next_fate = {"error": "too much is queued", "queue_full": True}
    run, _ = world.run_of(TEXTS)

    async def work() -> None:
        async for _ in run.events():
            if world.ledger.batches:
                world.ledger.next_fate = {}

    asyncio.run(work())
    run._journal.close()
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert len(world.ledger.batches) == 2


def test_failed_and_expired_rows_have_errors_and_are_submitted_alone(world: World) -> None:
    """The others are stored."""
    world.ledger.answer = lambda body: {
        "a": {"text": "A"},
        "b": ProviderError("refused"),
        "c": None,
        "d": "absent",
    }[body["text"]]
    run = world.go([*TEXTS, "d"])
    assert {number: str(error) for number, error in run.errors.items()} == {
        1: "refused",
        2: "The batch job ended before this row was processed.",
        3: "The service returned no result for this row (completed).",
    }
    assert world.answers(TEXTS) == ["A", None, None]
    world.ledger.answer = lambda body: {"text": body["text"].upper()}
    world.go([*TEXTS, "d"])
    assert world.answers([*TEXTS, "d"]) == ["A", "B", "C", "D"]
    assert [len(batch.lines) for batch in world.ledger.batches] == [4, 3]


def test_a_request_that_cannot_be_made_does_not_stop_the_others(world: World) -> None:
    """Its row has the error."""
    run, work = world.run_of(TEXTS)
    work.refused["b"] = LLMError("no such file")

    async def go() -> None:
        async for _ in run.events():
            pass

    asyncio.run(go())
    run._journal.close()
    assert {number: str(error) for number, error in run.errors.items()} == {1: "no such file"}
    assert world.answers(TEXTS) == ["A", None, "C"]


def test_jobs_are_split_by_the_caps(world: World) -> None:
    """By number of requests and by bytes."""
    service = world.service()
    service.limits = BatchLimits(requests=4, bytes=250)  # type: ignore[misc]
    texts = [f"text {number}" for number in range(10)]
    world.go(texts, service=service)
    sizes = [len(batch.lines) for batch in world.ledger.batches]
    assert sum(sizes) == 10
    assert max(sizes) <= 4
    assert len(sizes) > 3
    assert world.answers(texts) == [text.upper() for text in texts]


def test_a_row_larger_than_a_job_has_an_error(world: World) -> None:
    """It says what to do."""
    service = world.service()
    service.limits = BatchLimits(requests=4, bytes=250)  # type: ignore[misc]
    run = world.go(["a", "x" * 300], service=service)
    assert "batch=True" in str(run.errors[1].hint)
    assert world.answers(["a"]) == ["A"]


def test_another_account_is_told(world: World) -> None:
    """Its jobs cannot be read with this key, and are not paid again by accident."""
    world.go(TEXTS, wait=False)
    with pytest.raises(JobError, match="another account"):
        world.go(TEXTS, account="yours")
    assert len(world.ledger.batches) == 1


def test_a_new_key_of_the_same_account_reads_its_jobs(world: World) -> None:
    """The service answers it, so the account is the same."""
    world.go(TEXTS, wait=False)
    service = world.service("rotated")
    service.can_read_all = True
    world.go(TEXTS, service=service)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert len(world.ledger.batches) == 1


def test_an_error_of_one_job_does_not_wait_for_the_others(world: World) -> None:
    """They go on at the service, and a later run reads their results."""
    service = world.service()
    service.limits = BatchLimits(requests=1, bytes=1000)  # type: ignore[misc]
    # The polls of the other jobs advance the clock while the third is created in a thread.
    world.ledger.run_s = 20_000.0
    world.ledger.faults["create"] = ["", "", ProviderError("refused", status=400)]
    began = world.ledger.clock.now()
    with pytest.raises(ProviderError, match="refused"):
        world.go(TEXTS, service=service)
    assert world.ledger.clock.now() - began < 10_000.0
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert sorted(world.ledger.paid()) == TEXTS


def test_without_waiting_a_full_queue_is_an_error(world: World) -> None:
    """Its rows are free."""
    world.ledger.faults["create"] = [RateLimitError("full", status=429)]
    with pytest.raises(RateLimitError):
        world.go(TEXTS, wait=False)
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]


def test_a_clock_that_is_hours_fast_finds_its_job(world: World) -> None:
    """The service's list has its own times."""
    world.ledger.faults["create"] = ["after"]
    run, _ = world.run_of(TEXTS)

    async def work() -> None:
        async for _ in run.events():
            for batch in world.ledger.batches:
                batch.created = min(batch.created, 1_795_000_000.0 - 5 * 3600)

    asyncio.run(work())
    run._journal.close()
    assert sorted(world.ledger.paid()) == TEXTS


def test_a_folder_that_cannot_be_written_is_an_error(world: World) -> None:
    """Nothing is sent."""
    world.folder.mkdir(parents=True, exist_ok=True)
    (world.folder / "jobs").write_text("a file in place of the folder", encoding="utf-8")
    with pytest.raises(JobError, match="Could not write"):
        world.go(TEXTS)
    assert not world.ledger.asked


def test_a_timeout_leaves_the_job_running(world: World) -> None:
    """The next run reads its results."""
    world.ledger.run_s = 10_000.0
    with pytest.raises(JobError, match="has not ended in time"):
        world.go(TEXTS, timeout_s=500.0)
    world.ledger.clock.time += 10_000.0
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert len(world.ledger.batches) == 1


def test_an_interrupt_leaves_the_job_running(world: World) -> None:
    """Closing the events ends nothing at the service, and frees the lock."""
    run, _ = world.run_of(TEXTS)

    async def work() -> None:
        events = run.events()
        async for _ in events:
            if world.ledger.batches:
                break
        await events.aclose()

    asyncio.run(work())
    run._journal.close()
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert len(world.ledger.batches) == 1


def test_two_kernels_submit_once(world: World) -> None:
    """The second one watches the first, and both have the answers."""
    first, _ = world.run_of(TEXTS)
    second, _ = world.run_of(TEXTS)

    async def work() -> None:
        async def go(run: object) -> None:
            async for _ in run.events():  # type: ignore[attr-defined]
                pass

        await asyncio.gather(go(first), go(second))

    asyncio.run(work())
    for run in (first, second):
        run._journal.close()
        assert run.pending == 0
    assert sorted(world.ledger.paid()) == TEXTS


def test_results_that_left_the_cache_are_read_again(world: World) -> None:
    """They are paid for, and still at the service."""
    world.go(TEXTS)
    world.store.clear()
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert len(world.ledger.batches) == 1


def test_results_that_are_gone_are_errors_and_then_submitted_again(world: World) -> None:
    """The second run pays for them."""
    world.go(TEXTS)
    world.store.clear()
    world.ledger.batches[0].deleted = True
    run = world.go(TEXTS)
    assert len(run.errors) == 3
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert len(world.ledger.batches) == 2


def test_fresh_submits_again(world: World) -> None:
    """But joins a job that is under way."""
    world.go(TEXTS)
    world.store.clear()
    world.go(TEXTS, is_fresh=True)
    assert len(world.ledger.batches) == 2
    world.store.clear()
    world.go(["e"], wait=False)
    world.go(["e"], is_fresh=True)
    assert len(world.ledger.batches) == 3


def test_fresh_reads_an_ended_job_whose_results_are_unread(world: World) -> None:
    """They are paid, also if the list of jobs has noted the end before."""
    world.go(TEXTS, is_fresh=True, wait=False)
    world.ledger.clock.time += world.ledger.run_s
    journal = world.journal()
    (job,) = journal.jobs()
    journal.note_ended(job.id, "completed", 3, 0)
    journal.close()
    world.go(TEXTS, is_fresh=True)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert len(world.ledger.batches) == 1


def test_a_kernel_that_ended_before_the_create_frees_its_rows(world: World) -> None:
    """Nothing was paid."""
    journal = world.journal()
    target = Target(
        provider="memory", address="memory:", account="mine", model="upper", kind="chat", path="/"
    )
    _, work = world.run_of(TEXTS)
    keys = [work.key(number) for number in range(3)]
    assert journal.claim([Claim(id="x" * 20, keys=keys)], target, world.ledger.clock.now())
    assert not journal.claim([Claim(id="y" * 20, keys=keys)], target, world.ledger.clock.now())
    journal.close()
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert sorted(world.ledger.paid()) == TEXTS


def test_polls_become_rare_and_obey_the_service(world: World) -> None:
    """From 2 s to 5 min, and as late as Retry-After asks."""
    world.ledger.run_s = 20_000.0
    world.ledger.faults["retrieve"] = [RateLimitError("slow down", status=429, retry_after=777.0)]
    world.go(TEXTS)
    slept = world.ledger.clock.slept
    assert slept[0] == 777.0
    assert 1.8 <= min(slept) <= 3.5
    assert 270.0 <= max(set(slept) - {777.0}) <= 330.0
    assert world.ledger.asked.count("retrieve") < 90


def test_a_wrong_key_ends_the_wait_and_loses_nothing(world: World) -> None:
    """The job goes on."""
    world.ledger.faults["retrieve"] = [AuthenticationError("expired key", status=401)]
    with pytest.raises(AuthenticationError):
        world.go(TEXTS)
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert len(world.ledger.batches) == 1


def test_a_batch_that_seems_missing_for_a_moment_is_not_lost(world: World) -> None:
    """Some services answer 404 for a batch that exists."""
    world.ledger.faults["retrieve"] = [ProviderError("not found", status=404)] * 3
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]


def test_a_deleted_batch_is_an_error_of_its_rows(world: World) -> None:
    """After ten minutes of the same answer, whether it can be tried again or not."""
    for is_retryable in (False, True):
        missing = ProviderError("not found", status=404, retryable=is_retryable)
        world.go(TEXTS, wait=False)
        world.ledger.faults["retrieve"] = [missing] * 1000
        began = world.ledger.clock.now()
        run = world.go(TEXTS)
        assert len(run.errors) == 3
        assert 600 <= world.ledger.clock.now() - began < 1200
        world.ledger.faults.clear()


def test_an_ended_batch_that_seems_missing_for_a_moment_is_not_lost(world: World) -> None:
    """A later kernel reads its results, though the service first does not find the batch."""
    world.go(TEXTS)
    world.store.clear()
    world.ledger.faults["retrieve"] = [ProviderError("not found", status=404)] * 3
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]
    assert len(world.ledger.batches) == 1


def test_results_that_stay_missing_are_gone_after_ten_minutes(world: World) -> None:
    """A service that always answers 404 is not asked for a day."""
    missing = ProviderError("not found", status=404, retryable=True)
    world.ledger.faults["results"] = [missing] * 1000
    began = world.ledger.clock.now()
    run = world.go(TEXTS)
    assert len(run.errors) == 3
    assert world.ledger.clock.now() - began < 1500


def test_a_lost_connection_in_the_results_is_continued(world: World) -> None:
    """No row is stored twice or lost."""
    world.ledger.faults["results"] = ["after", "before"]
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]


def test_the_journal_has_no_key_and_no_prompt(world: World) -> None:
    """Only digests."""
    world.go(["a secret prompt"])
    content = b"".join(path.read_bytes() for path in world.folder.glob("jobs.sqlite*"))
    assert b"memory" in content
    assert b'{"text"' not in content


def test_a_journal_with_columns_of_a_later_version_is_read(world: World) -> None:
    """Two versions can share a cache folder."""
    world.go(TEXTS, wait=False)
    with closing(sqlite3.connect(world.folder / "jobs.sqlite")) as connection:
        connection.execute("ALTER TABLE jobs ADD COLUMN of_a_later_version TEXT")
    world.go(TEXTS)
    assert world.answers(TEXTS) == ["A", "B", "C"]


def test_prompts_are_on_the_disk_only_until_they_are_submitted(world: World) -> None:
    """Not while a job runs, and not after a notebook was killed; another one may be writing."""
    jobs = world.folder / "jobs"
    for name in ("killed", "writing"):
        (jobs / name).mkdir(parents=True)
        (jobs / name / "lines.jsonl").write_text("a private prompt")
    lock = FileLock.try_acquire(jobs / "writing")
    assert lock is not None
    run, _ = world.run_of(TEXTS)
    states: dict[str, set[int]] = {}

    async def work() -> None:
        async for _ in run.events():
            for job in run._journal.jobs():
                states.setdefault(job.state, set()).add(len([*jobs.glob("*/lines.jsonl")]))

    asyncio.run(work())
    run._journal.close()
    lock.release()
    assert states["running"] == {1}
    assert [path.name for path in jobs.iterdir()] == ["writing"]
