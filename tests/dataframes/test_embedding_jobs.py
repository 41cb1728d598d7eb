"""``batch=True`` of ``lm.embed``, of columns and of ``%embed``: results, reports and interrupts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics.dataframes.batch_job import BatchJob
from tests.support.batch_answers import openai_answer
from tests.support.batch_fakes import Answer, Request
from tests.support.embedding_batches import MODEL, World, batch_price, embedding_world
from tests.support.fake_openai import unit

TEXTS = ["a fox", None, "a hen", "", "a fox"]
VECTORS = [unit("a fox"), None, unit("a hen"), None, unit("a fox")]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The service."""
    with embedding_world(monkeypatch) as world:
        yield world


@pytest.fixture
def frame() -> pd.DataFrame:
    """Three texts, two of them equal, and two rows without one."""
    return pd.DataFrame({"text": TEXTS})


def check(column: Any) -> None:
    """Compare vectors with the expected ones."""
    for vector, expected in zip(column, VECTORS, strict=True):
        if expected is None:
            assert vector is None or np.isnan(vector).all()
        else:
            assert vector == pytest.approx(np.array(expected, np.float32))


def refuse_hens(request: Request) -> Answer:
    """An answer to each text but hens."""
    if request.body["input"] == ["a hen"]:
        return Answer({"error": {"message": "No hens.", "code": "content_filter"}}, 400)
    return openai_answer(request)


def test_texts_of_all_kinds_of_calls(world: World, frame: pd.DataFrame) -> None:
    """The first call submits distinct texts, the others find their vectors."""
    check(lm.embed(TEXTS, MODEL, batch=True))
    check(asyncio.run(lm.aembed(TEXTS, MODEL, batch=True)))
    column = frame.text.llm.embed(model=MODEL, batch=True)
    check(column)
    assert frame.llm.embed("text", model=MODEL, batch=True) is frame
    check(frame["vector"])
    check(lm.embed(TEXTS, MODEL))
    assert world.sent() == ["a fox", "a hen"]
    assert not world.live


def test_the_report_is_that_of_a_live_call(world: World, frame: pd.DataFrame) -> None:
    """With the cost at the price of jobs."""
    world.fake.answer = refuse_hens
    with pytest.warns(UserWarning, match="1 failed"):
        frame.llm.embed("text", model=MODEL, batch=True)
    report = frame.llm.report
    assert {name: count for name, count in report.counts.items() if count} == {
        "ok": 2,
        "failed": 1,
        "missing": 1,
        "empty": 1,
    }
    assert (report.sent, report.cached, report.speed) == (1, 0, None)
    assert report.cost_usd == pytest.approx(batch_price(["a fox"]))
    bad = report.frame()
    assert bad.loc[2, "error"].startswith("ContentFilterError")
    world.fake.answer = openai_answer
    frame.llm.embed("text", model=MODEL, batch=True)
    check(frame["vector"])
    assert world.sent() == ["a fox", "a hen", "a hen"]


def test_errors_can_be_raised(world: World, frame: pd.DataFrame) -> None:
    """The other vectors are stored."""
    world.fake.answer = refuse_hens
    with pytest.raises(errors.ContentFilterError, match="No hens"):
        lm.embed(["a fox", "a hen"], MODEL, batch=True)
    with pytest.raises(errors.ContentFilterError):
        frame.text.llm.embed(model=MODEL, batch=True, on_error="raise")
    assert world.sent() == ["a fox", "a hen", "a hen"]


def test_without_waiting_there_is_a_job(world: World, frame: pd.DataFrame) -> None:
    """Its result is that of the same call with waiting."""
    job = lm.embed(TEXTS, MODEL, batch=True, wait=False)
    assert isinstance(job, BatchJob)
    assert job.ids == lm.jobs()["id"].tolist()
    check(job.result())
    assert job.status.cost_usd == pytest.approx(batch_price(["a fox", "a hen"]))
    frame.loc[5] = {"text": "a cow"}
    job = frame.llm.embed("text", model=MODEL, batch=True, wait=False)
    assert "vector" not in frame
    assert job.result() is frame
    check(frame["vector"].iloc[:5])
    frame.loc[6] = {"text": "a cat"}
    job = frame.text.llm.embed(model=MODEL, batch=True, wait=False)
    assert asyncio.run(lm.aembed(["a dog"], MODEL, batch=True, wait=False)).ids
    check(job.result()[:5])
    assert world.sent() == ["a fox", "a hen", "a cow", "a cat", "a dog"]
    assert lm.embed(TEXTS, MODEL, batch=True, wait=False).status.state == "stored"


def test_an_interrupt_stops_the_waiting_alone(
    world: World, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the job, and the next call reads it."""
    world.fake.change_fate(run_s=30_000.0)  # it has not ended when the interrupt arrives

    def finish(runner: Any) -> None:
        for _ in runner._events:
            if world.fake.jobs:
                raise KeyboardInterrupt

    for call in (
        lambda: frame.llm.embed("text", model=MODEL, batch=True),
        lambda: lm.embed(TEXTS, MODEL, batch=True),
    ):
        with monkeypatch.context() as patched:
            patched.setattr("llm_magics._async.sync.SyncRunner.finish", finish)
            with pytest.raises(errors.Interrupted, match=r"The batch job \w+ goes on") as caught:
                call()
        assert "%llm jobs cancel" in (caught.value.hint or "")
        assert "0 of 5 rows are embedded" in str(caught.value)
    frame.llm.embed("text", model=MODEL, batch=True)
    check(frame["vector"])
    assert world.sent() == ["a fox", "a hen"]


def test_a_job_that_takes_too_long(world: World) -> None:
    """The setting ``batch_timeout`` ends the waiting; the job goes on."""
    lm.config.batch_timeout = 50
    world.fake.change_fate(run_s=300.0)
    with pytest.raises(errors.JobError, match="it goes on"):
        lm.embed(TEXTS, MODEL, batch=True)
    lm.config.batch_timeout = 1000
    check(lm.embed(TEXTS, MODEL, batch=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wait": False}, "wait=False needs batch=True"),
        ({"batch": 1}, "Invalid value for batch: 1"),
        ({"batch": True, "wait": "no"}, "Invalid value for wait"),
        ({"batch": True, "concurrency": 2}, "concurrency has no effect"),
        ({"batch": True, "batch_size": 2}, "batch_size has no effect"),
    ],
)
def test_mistakes(frame: pd.DataFrame, options: dict[str, Any], message: str) -> None:
    """Nothing is sent."""
    with pytest.raises(errors.UsageError, match=message):
        lm.embed(TEXTS, "echo/echo", **options)
    with pytest.raises(errors.UsageError, match=message):
        frame.llm.embed("text", model="echo/echo", **options)
    with pytest.raises(errors.UsageError, match=message):
        frame.text.llm.embed(model="echo/echo", **options)


def test_the_magics_embed_in_jobs(
    shell: InteractiveShell,
    world: World,
    frame: pd.DataFrame,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With and without waiting; a dry run shows the price of jobs and what they have."""
    shell.user_ns["df"] = frame
    shell.run_line_magic("embed", f"df.text --model {MODEL} --batch --dry-run")
    assert "0 already stored · 2 to send to openai/embedding-model" in capsys.readouterr().out
    assert not world.fake.jobs
    job = shell.run_line_magic(
        "embed", f"df.text --model {MODEL} --batch --no-wait --into vector -o v"
    )
    assert isinstance(job, BatchJob)
    assert "v" not in shell.user_ns
    shell.user_ns["texts"] = [*TEXTS, "a cow"]
    shell.run_line_magic("embed", f"texts --model {MODEL} --batch --dry-run")
    assert "0 already stored · 2 in batch jobs · 1 to send" in capsys.readouterr().out
    assert job.result() is None
    check(frame["vector"])
    check(shell.user_ns["v"])
    shell.run_cell_magic("embed", f"--model {MODEL} --batch -o cell", "a fox\na hen")
    assert shell.user_ns["cell"]["vector"][1] == pytest.approx(np.array(unit("a hen"), np.float32))
    with pytest.raises(errors.UsageError, match="needs batch"):
        shell.run_line_magic("embed", f"df.text --model {MODEL} --no-wait")
    assert world.sent() == ["a fox", "a hen"]


def test_an_expensive_job_needs_a_confirmation(world: World, frame: pd.DataFrame) -> None:
    """At the price of jobs, without what is stored or in a job."""
    lm.config.prices = {MODEL: {"input_usd": 1e6}}
    with pytest.raises(errors.UsageError, match=r"Nothing was sent") as caught:
        frame.llm.embed("text", model=MODEL, batch=True)
    assert "2 texts" in str(caught.value)
    frame.llm.embed("text", model=MODEL, batch=True, wait=False, yes=True)
    frame.llm.embed("text", model=MODEL, batch=True)
    check(frame["vector"])
