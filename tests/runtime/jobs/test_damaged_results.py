"""Jobs whose results are damaged, or are deleted while they are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llm_magics.providers import create_provider
from tests.support import kills
from tests.support.batch_fakes import Answer, Fault
from tests.support.batch_services import KEY
from tests.support.fake_openai_batches import FakeBatches
from tests.support.serving import Asked, as_json, serving


def rows_without_answer(folder: Path, fake: FakeBatches, clock: kills.SharedClock) -> list[int]:
    """The rows without an answer after a run to its end."""

    async def use(url: str) -> list[int]:
        address = f"{url}/v1"
        async with create_provider(
            "openai", base_url=address, api_key=KEY, profile="openai"
        ) as provider:
            work = kills.RowWork(provider, "chat-model", folder)
            await kills._to_the_end(kills._job_run(work, folder, kills.SharedTime(clock)))
            return kills._missing(work)

    with serving(fake) as server:
        return asyncio.run(use(server.url))


@pytest.fixture
def clock(tmp_path: Path) -> kills.SharedClock:
    """The time of the service and of the runs."""
    return kills.SharedClock(tmp_path / "clock")


def damaging(
    fake: FakeBatches, damage: Callable[[bytes], bytes]
) -> Callable[[Asked], Fault | None]:
    """A fault that changes the content of each file with results."""

    def fails(asked: Asked) -> Fault | None:
        if not asked.path.endswith("/content"):
            return None
        says = fake.process(asked)
        return Fault(says=replace(says, pieces=[damage(b"".join(says.pieces))]))

    return fails


def test_a_line_that_stays_damaged_costs_its_own_row(
    tmp_path: Path, clock: kills.SharedClock
) -> None:
    """It is read twice, and the run ends; the next run submits that row alone."""
    fake = FakeBatches("openai", clock=clock)  # type: ignore[arg-type]
    fake.fails = damaging(fake, lambda content: b"{half" + content[content.index(b"\n") :])
    assert len(rows_without_answer(tmp_path, fake, clock)) == 1
    assert sum(path.endswith("/content") for path in fake.paths()) == 2
    fake.fails = None
    assert rows_without_answer(tmp_path, fake, clock) == []
    assert len(fake.billed()) == kills.ROWS + 1


def test_results_of_other_numbers_belong_to_no_row(
    tmp_path: Path, clock: kills.SharedClock
) -> None:
    """A number is written in one way only, and may have any length."""
    fake = FakeBatches("openai", clock=clock)  # type: ignore[arg-type]

    def misnumbered(content: bytes) -> bytes:
        result = json.loads(content.splitlines()[0])
        mark = result["custom_id"].rpartition("-")[0]
        foreign = ("9" * 5000, "01", "\u0661", "", f"{kills.ROWS}", "²")
        lines = [{**result, "custom_id": f"{mark}-{number}"} for number in foreign]
        return b"".join(json.dumps(each).encode() + b"\n" for each in lines) + content

    fake.fails = damaging(fake, misnumbered)
    assert rows_without_answer(tmp_path, fake, clock) == []
    assert len(fake.billed()) == kills.ROWS


def test_the_state_of_another_job_is_not_believed(
    tmp_path: Path, clock: kills.SharedClock
) -> None:
    """It has ended without results, but the rows are in a job that runs."""
    fake = FakeBatches("openai", clock=clock)  # type: ignore[arg-type]
    other = as_json({"id": "batch_other", "status": "completed"})
    fake.fail(method="GET", path="/batches/batch_", says=other, times=2)
    assert rows_without_answer(tmp_path, fake, clock) == []
    assert len(fake.billed()) == kills.ROWS


def test_an_answer_counts_before_an_error_for_the_same_row(
    tmp_path: Path, clock: kills.SharedClock
) -> None:
    """The answer is paid, so the row is not submitted again."""
    fake = FakeBatches("openai", clock=clock)  # type: ignore[arg-type]

    def doubled(content: bytes) -> bytes:
        result = json.loads(content.splitlines()[0])
        error = {**result, "response": None, "error": {"code": "x", "message": "No."}}
        line = json.dumps(error).encode() + b"\n"
        return line + content + line

    fake.fails = damaging(fake, doubled)
    assert rows_without_answer(tmp_path, fake, clock) == []
    assert len(fake.billed()) == kills.ROWS


def test_a_damaged_line_beyond_the_rows_costs_nothing(
    tmp_path: Path, clock: kills.SharedClock
) -> None:
    """All rows have their answers, so the results are not read again."""
    fake = FakeBatches("openai", clock=clock)  # type: ignore[arg-type]
    fake.fails = damaging(fake, lambda content: content + b"{half")
    assert rows_without_answer(tmp_path, fake, clock) == []
    assert sum(path.endswith("/content") for path in fake.paths()) == 1
    assert len(fake.billed()) == kills.ROWS


def test_answers_that_were_read_are_kept_if_the_errors_are_deleted(
    tmp_path: Path, clock: kills.SharedClock
) -> None:
    """The service deletes its two files one after the other."""
    fake = FakeBatches("openai", clock=clock)  # type: ignore[arg-type]
    fake.answer = lambda request: (
        Answer({"error": {"message": "No."}}, 400)
        if request.custom_id.endswith("-1")
        else fake.usual_answer(request)
    )
    missing = as_json({"error": {"message": "No such File object."}}, 404)
    fake.fails = lambda asked: Fault(says=missing) if "/file-errors-" in asked.path else None
    assert rows_without_answer(tmp_path, fake, clock) == [1]
