"""Prompts for rows in batch jobs: submitted once, at the batch price, stored as live answers are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.dataframes.batch_job import BatchJob
from llm_magics.host import TerminalHost, install_host
from llm_magics.runtime.jobs.control import stopped_waiting
from llm_magics.runtime.session import session
from tests.support.batch_answers import prompt_of
from tests.support.batch_fakes import Answer, Request
from tests.support.row_batches import MODEL, RowService, row_service

PROMPT = "Sum up {{ text }}"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[RowService]:
    """The provider ``lab``, with batch jobs, live chats and a price."""
    with row_service(monkeypatch) as fake:
        yield fake


def frame_of(*texts: Any) -> pd.DataFrame:
    """A frame with these texts."""
    return pd.DataFrame({"text": list(texts)})


def forget_answers() -> None:
    """Delete the cached answers; the journal stays."""
    session.answer_cache.clear()


def says(service: RowService, texts: dict[str, str], **finish: Any) -> None:
    """Let the model answer prompts that end with a key by another text."""
    usual = service.batches.usual_answer

    def answer(request: Request) -> Answer:
        found = usual(request)
        prompt = prompt_of(request.body)
        text = next((text for key, text in texts.items() if prompt.endswith(key)), None)
        if text is not None:
            choice = found.body["choices"][0]
            choice["message"]["content"] = text
            choice |= finish
        return found

    service.batches.answer = answer


def test_a_column_is_filled_by_one_job(service: RowService) -> None:
    """Equal rows are submitted once, missing ones not, and the next run reads the cache."""
    frame = frame_of("a", "b", "a", None)
    assert frame.llm.prompt(PROMPT, batch=True) is frame
    assert frame["answer"].tolist() == [
        "answer to: Sum up a",
        "answer to: Sum up b",
        "answer to: Sum up a",
        None,
    ]
    assert str(frame.llm.report) == "3 ok · 1 missing"
    assert (frame.llm.report.sent, frame.llm.report.cached) == (2, 0)
    frame.llm.prompt(PROMPT, batch=True)
    assert service.submitted == [["Sum up a", "Sum up b"]]
    assert (frame.llm.report.sent, frame.llm.report.cached) == (0, 3)
    assert not service.live


def test_a_column_begins_live_and_ends_in_a_batch(service: RowService) -> None:
    """Both have the same keys and the same requests."""
    frame_of("a").llm.prompt(PROMPT, temperature=0, system="Be brief.")
    lm.prompt(["a", "b"], PROMPT, temperature=0.0, system="Be brief.", batch=True)
    assert (service.live, service.submitted) == (["Sum up a"], [["Sum up b"]])
    (job,) = service.batches.jobs.values()
    live, batched = service.asked_live[0], job.requests[0].body
    without = {name: value for name, value in live.items() if name != "stream_options"}
    without["messages"] = batched["messages"]
    assert without == batched


def test_a_column_begins_in_a_batch_and_ends_live(service: RowService) -> None:
    """Also with a schema; what is added later is asked alone."""
    texts = ["a", "b"]
    labels = ["good", "bad"]
    batched = lm.classify(texts, labels, batch=True)
    live = lm.classify([*texts, "c"], labels)
    assert live.tolist()[:2] == batched.tolist()
    assert batched.dtype == live.dtype == pd.CategoricalDtype(labels)
    assert len(service.live) == 1


def test_ten_added_rows_submit_ten(service: RowService) -> None:
    """A column is topped up."""
    texts = [f"text {number}" for number in range(20)]
    lm.prompt(texts[:10], PROMPT, batch=True)
    answers = lm.prompt(texts, PROMPT, batch=True)
    assert answers.tolist() == [f"answer to: Sum up {text}" for text in texts]
    assert [len(each) for each in service.submitted] == [10, 10]


def test_fresh_submits_again(service: RowService) -> None:
    """Also what is cached, and what an ended job has."""
    lm.prompt(["a"], PROMPT, batch=True)
    says(service, {"a": "new"})
    assert lm.prompt(["a"], PROMPT, batch=True, fresh=True).tolist() == ["new"]
    assert lm.prompt(["a"], PROMPT).tolist() == ["new"]
    assert len(service.submitted) == 2


def test_prompts_with_the_same_key_are_submitted_once(service: RowService) -> None:
    """Invalid characters are replaced in a request, so different texts may be equal there."""
    for fresh in (False, True):
        answers = lm.prompt(["a\ud800", "a\udfff"], PROMPT, batch=True, fresh=fresh)
        assert answers[0] == answers[1]
    assert [len(each) for each in service.submitted] == [1, 1]


def test_the_journal_quotes_no_prompt_and_no_answer(service: RowService) -> None:
    """It has only the kinds of the errors of rows."""
    usual = service.batches.usual_answer
    failures = {
        "private prompt": Answer({"error": {"message": "Cannot use 'private prompt'."}}, 400),
        "b": Answer({"choices": "private answer"}),
    }
    service.batches.answer = lambda request: failures.get(
        prompt_of(request.body).removeprefix("Sum up "), usual(request)
    )
    frame = frame_of(*failures, "c")
    with pytest.warns(UserWarning, match="2 failed"):
        frame.llm.prompt(PROMPT, batch=True)
    content = b"".join(path.read_bytes() for path in Path("cache").glob("jobs.sqlite*"))
    assert b"ProviderError" in content
    assert b"private" not in content


def test_extracted_fields_are_typed(service: RowService) -> None:
    """One request for each text, whatever the type of the column."""
    for dtype in ("object", "string", "str"):
        frame = pd.DataFrame({"text": pd.Series(["a", None, "b"], dtype=dtype)})
        frame.llm.extract("text", "name, age int", batch=True)
        assert frame["age"].dtype == "Int64"
        assert frame["name"].isna().tolist() == [False, True, False]
    assert len(service.submitted) == 1


@pytest.mark.parametrize(
    "rows", [pl.Series(["a", "b"]), pa.array(["a", "b"]), pl.DataFrame({"text": ["a", "b"]})]
)
def test_other_tables(service: RowService, rows: Any) -> None:
    """Columns and frames of polars and pyarrow are submitted as those of pandas."""
    answers = lm.prompt(rows, PROMPT, batch=True)
    assert answers.tolist() == ["answer to: Sum up a", "answer to: Sum up b"]


def test_a_row_that_fails_is_reported_and_submitted_alone(service: RowService) -> None:
    """The others have their answers."""
    usual = service.batches.usual_answer
    failure = Answer({"error": {"message": "Not that.", "code": "invalid_value"}}, 400)
    service.batches.answer = lambda request: (
        failure if prompt_of(request.body).endswith("b") else usual(request)
    )
    frame = frame_of("a", "b", "c")
    with pytest.warns(UserWarning, match="2 ok · 1 failed"):
        frame.llm.prompt(PROMPT, batch=True)
    report = frame.llm.report.frame()
    assert report.index.tolist() == [1]
    assert "Not that" in report.error[1]
    service.batches.answer = usual
    frame.llm.prompt(PROMPT, batch=True)
    assert service.submitted == [["Sum up a", "Sum up b", "Sum up c"], ["Sum up b"]]
    assert frame["answer"].notna().all()


def test_an_expired_job_keeps_its_results(service: RowService) -> None:
    """The rest of the rows is submitted again when the cell runs again."""
    service.batches.change_fate(run_s=200.0, expires_s=110.0)
    frame = frame_of("a", "b", "c", "d")
    with pytest.warns(UserWarning, match="2 ok · 2 failed"):
        frame.llm.prompt(PROMPT, batch=True)
    service.batches.change_fate(run_s=100.0, expires_s=86_400.0)
    frame.llm.prompt(PROMPT, batch=True)
    assert service.submitted[1] == ["Sum up c", "Sum up d"]
    assert str(frame.llm.report) == "4 ok"


@pytest.mark.parametrize(
    ("text", "finish", "outcome"),
    [
        ("cut of", {"finish_reason": "length"}, "cut"),
        ("", {"finish_reason": "content_filter"}, "refused"),
        (" ", {}, "empty"),
    ],
)
def test_incomplete_answers_have_the_outcomes_of_live_ones(
    service: RowService, text: str, finish: dict[str, Any], outcome: str
) -> None:
    """They are not stored, and are sent again, live too."""
    says(service, {"b": text}, **finish)
    frame = frame_of("a", "b")
    with pytest.warns(UserWarning, match=f"1 ok · 1 {outcome}"):
        frame.llm.prompt(PROMPT, batch=True)
    errors_in_batch = frame.llm.report.frame()["error"].tolist()
    with pytest.warns(UserWarning, match=f"1 ok · 1 {outcome}"):
        frame.llm.prompt(PROMPT)
    assert frame.llm.report.frame()["error"].tolist() == errors_in_batch
    assert service.live == ["Sum up b"]


def test_an_answer_that_is_cut_at_the_own_limit_is_used(service: RowService) -> None:
    """As in a live call; the next run reads it from the ended job for free."""
    says(service, {"b": "cut of"}, finish_reason="length")
    for _ in range(2):
        frame = frame_of("a", "b")
        frame.llm.prompt(PROMPT, max_tokens=3, batch=True)
        assert frame["answer"].tolist() == ["answer to: Sum up a", "cut of"]
        assert str(frame.llm.report) == "1 ok · 1 cut"
    assert len(service.submitted) == 1


# Schemas.


def test_one_percent_of_invalid_answers_is_corrected_live(service: RowService) -> None:
    """The correction follows the invalid answer; the rest joins the next batch."""
    texts = [f"text {number:03d}" for number in range(200)]
    says(service, {"003": "no JSON", "100": "{}", "150": "[]"})
    with pytest.warns(UserWarning, match="199 ok · 1 failed"):
        found = lm.extract(texts, "name", batch=True)
    corrections = [body for body in service.asked_live if len(body["messages"]) == 3]
    assert len(service.asked_live) == len(corrections) == 2
    assert [each["role"] for each in corrections[0]["messages"]] == ["user", "assistant", "user"]
    assert {each["messages"][1]["content"] for each in corrections} < {"no JSON", "{}", "[]"}
    (bad,) = found.llm.report.frame()["prompt"]
    service.batches.answer = service.batches.usual_answer
    assert lm.extract(texts, "name", batch=True)["name"].notna().all()
    assert service.submitted[1:] == [[bad]]
    assert len(service.live) == 2  # corrected answers are cached


def test_no_answer_is_corrected_without_retries(service: RowService) -> None:
    """The setting ``schema_retries`` counts here too."""
    lm.config.schema_retries = 0
    says(service, {"b": "no JSON"})
    with pytest.warns(UserWarning, match="1 ok · 1 failed"):
        found = lm.extract(["a", "b"], "name", batch=True)
    assert "JSON" in found.llm.report.frame()["error"].iloc[0]
    assert not service.live


def test_a_failed_correction_leaves_the_row_to_the_next_batch(service: RowService) -> None:
    """The model answers wrongly again."""
    says(service, {"b": "no JSON"})
    service.batches.fails = None
    real = service.batches.answer
    service.batches.answer = lambda request: (
        real(request)
        if len(request.body["messages"]) == 1
        else Answer({"error": {"message": "Overloaded.", "code": "x"}}, 400)
    )
    with pytest.warns(UserWarning, match="1 ok · 1 failed"):
        lm.extract(["a", "b"], "name", batch=True)
    assert len(service.live) == 1


# Money.


def test_the_cost_is_that_of_a_batch(service: RowService) -> None:
    """Summed over the rows, and logged as one run."""
    frame = frame_of("a", "b", "c")
    frame.llm.prompt(PROMPT, batch=True)
    (run,) = lm.runs().itertuples()
    usual_usd = (run.input_tokens * 1.0 + run.output_tokens * 4.0) / 1e6
    assert run.kind == "batch"
    assert run.cost_usd == pytest.approx(usual_usd / 2)
    assert frame.llm.report.cost_usd == pytest.approx(usual_usd / 2)
    (job,) = session.journal.jobs()
    assert job.cost_usd == pytest.approx(usual_usd / 2)


def test_an_answer_that_cannot_be_used_is_billed(service: RowService) -> None:
    """Its price is unknown, not zero; an error of the service is free."""
    with pytest.raises(errors.UnsupportedError, match="log probabilities"):
        lm.classify(["a"], ["x", "y"], batch=True, confidence=True)
    (run,) = session.runs
    assert run.cost_usd is None


def test_a_model_that_did_not_search_is_named_once(service: RowService) -> None:
    """As in live calls."""
    with pytest.warns(UserWarning, match="answered without a web search") as caught:
        lm.prompt(["a", "b"], PROMPT, batch=True, search=True)
    assert len(caught) == 1


def test_the_budget_must_allow_the_missing_rows(service: RowService) -> None:
    """Nothing is submitted otherwise; what was spent counts."""
    lm.config.budget = 0.000_01
    with pytest.raises(errors.BudgetError):
        lm.prompt(["a", "b"], PROMPT, batch=True)
    assert not service.submitted
    lm.config.budget = 1.0
    lm.prompt(["a", "b"], PROMPT, batch=True)
    spent = lm.runs()["cost_usd"].sum()
    assert session.budget.spent_usd == pytest.approx(spent)
    assert session.budget.left_usd == pytest.approx(1.0 - spent)


def test_a_job_under_way_reserves_its_estimate(service: RowService) -> None:
    """Until its results are read; then their cost counts, once."""
    lm.config.budget = 1.0
    job = lm.prompt(["a", "b"], PROMPT, batch=True, wait=False, max_tokens=1000)
    left = session.budget.left_usd
    assert left == pytest.approx(1.0 - 2 * 1000 * 2.0 / 1e6, abs=1e-4)
    job.result()
    spent = lm.runs()["cost_usd"].sum()
    assert session.budget.left_usd == pytest.approx(1.0 - spent)


class Asking(TerminalHost):
    """A user at the keyboard."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[str] = []

    def ask(self, question: str) -> str | None:
        self.asked.append(question)
        return self.answer


def test_a_cost_above_the_limit_is_confirmed(service: RowService) -> None:
    """At the price of the batch, and only for the rows that no job has."""
    lm.config.confirm_above_usd = 0.001
    host = Asking("n")
    install_host(host)
    try:
        with pytest.raises(errors.DeclinedError):
            lm.prompt(["a", "b"], PROMPT, batch=True, max_tokens=1000)
        assert "$0.004" in host.asked[0]
        host.answer = "y"
        lm.prompt(["a", "b"], PROMPT, batch=True, wait=False, max_tokens=1000)
        lm.prompt(["a", "b"], PROMPT, batch=True, max_tokens=1000)
    finally:
        install_host(TerminalHost())
    assert len(host.asked) == 2
    assert len(service.submitted) == 1


def test_a_dry_run_names_the_rows_in_jobs(service: RowService) -> None:
    """It submits nothing, and estimates the rest at the price of the batch."""
    lm.prompt(["a"], PROMPT, batch=True, wait=False)
    live = lm.prompt(["a", "b", "c"], PROMPT, dry_run=True, max_tokens=100)
    lm.prompt(["b"], PROMPT, batch=True, wait=False, max_tokens=100)
    estimate = lm.prompt(["b", "c"], PROMPT, batch=True, dry_run=True, max_tokens=100)
    assert (estimate.rows, estimate.prompts, estimate.in_jobs) == (2, 1, 1)
    assert estimate.cost_usd == pytest.approx(live.cost_usd / 3 / 2, rel=0.05)
    assert "1 prompt already in batch jobs" in str(estimate)
    assert len(service.submitted) == 2


# Waiting.


def test_without_waiting_a_job_is_returned(service: RowService) -> None:
    """Its result is what the waiting call returns; it can be read again."""
    frame = frame_of("a", "b")
    job = frame.llm.prompt(PROMPT, batch=True, wait=False, into="summary")
    assert isinstance(job, BatchJob)
    assert "summary" not in frame
    (job_id,) = job.ids
    assert job.status.state == "running"
    assert repr(job) == f"<BatchJob {job_id}: running · 0 of 2 requests done>"
    service.batches.clock.advance(60)
    assert (job.status.rows, job.status.done, job.status.failed) == (2, 1, 0)
    assert job.result() is frame
    assert frame["summary"].tolist() == ["answer to: Sum up a", "answer to: Sum up b"]
    assert job.status.state == "ended"
    assert job.status.cost_usd == pytest.approx(lm.runs()["cost_usd"].sum())
    assert job.result() is frame
    assert len(service.submitted) == 1


def test_a_stored_column_has_no_job(service: RowService) -> None:
    """The handle gives its rows at once."""
    lm.prompt(["a"], PROMPT, batch=True)
    job = lm.prompt(["a"], PROMPT, batch=True, wait=False)
    assert (job.ids, job.status.state) == ([], "stored")
    job.wait()
    job.cancel()
    assert job.result().tolist() == ["answer to: Sum up a"]


def test_the_time_to_wait_is_limited(service: RowService) -> None:
    """The error names the job; the next call gets the rows."""
    lm.config.batch_timeout = 20
    with pytest.raises(errors.JobError, match=r"has not ended in time; it goes on"):
        lm.prompt(["a"], PROMPT, batch=True)
    job = lm.prompt(["a"], PROMPT, batch=True, wait=False)
    with pytest.raises(errors.JobError, match=r"has not ended in time"):
        job.wait(timeout=1)
    job.wait(timeout=1000)
    assert job.result().tolist() == ["answer to: Sum up a"]
    assert len(service.submitted) == 1
    with pytest.raises(errors.UsageError, match="timeout"):
        job.wait(timeout=-1)


def test_a_cancelled_job_gives_what_was_done(service: RowService) -> None:
    """The other rows have an error, and are submitted when the cell runs again."""
    job = lm.prompt(["a", "b"], PROMPT, batch=True, wait=False)
    service.batches.clock.advance(70)
    job.cancel()
    with pytest.warns(UserWarning, match="1 ok · 1 failed"):
        answers = job.result()
    assert answers.isna().tolist() == [False, True]
    assert lm.prompt(["a", "b"], PROMPT, batch=True).notna().all()
    assert service.submitted == [["Sum up a", "Sum up b"], ["Sum up b"]]


def test_an_interrupt_leaves_the_job_running(
    service: RowService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says how to get the rows, and how to cancel the job."""
    lm.prompt(["a"], PROMPT)
    frame = frame_of("a", "b")

    with monkeypatch.context() as patched:
        patched.setattr("llm_magics._async.sync.SyncRunner.finish", _until_submitted(service))
        with pytest.raises(errors.Interrupted) as caught:
            frame.llm.prompt(PROMPT, batch=True)
    (record,) = session.journal.jobs()
    assert record.is_active
    assert str(caught.value).startswith("Stopped waiting: 1 of 2 rows are answered.")
    assert f"The batch job {record.id} goes on" in str(caught.value)
    assert f"%llm jobs cancel {record.id}" in (caught.value.hint or "")
    assert caught.value.partial["answer"].notna().tolist() == [True, False]
    frame.llm.prompt(PROMPT, batch=True)
    assert frame["answer"].notna().all()
    assert service.submitted == [["Sum up b"]]


def test_an_interrupt_names_only_jobs_that_go_on(service: RowService) -> None:
    """One that was not submitted, or has ended, does not go on."""
    (name,) = frame_of("a").llm.prompt(PROMPT, batch=True, wait=False).ids
    journal = session.journal

    def stopped() -> tuple[str, str]:
        error = stopped_waiting(session, "0 of 1 rows are answered", ["dropped", name], None)
        return str(error).partition(". ")[2], error.hint or ""

    assert stopped()[0] == f"The batch job {name} goes on."
    assert f"%llm jobs cancel {name}" in stopped()[1]
    journal.note_ended(name, "completed", 1, 0)
    assert stopped() == (
        f"The batch job {name} has ended.",
        "Run the cell again to read the results.",
    )
    journal.note_prepared(name, "")
    assert stopped() == (
        "No batch job was submitted.",
        "Run the cell again to submit the rows.",
    )


def _until_submitted(service: RowService) -> Any:
    """Interrupt as soon as a job exists."""

    def finish(runner: Any) -> None:
        for _ in runner._events:
            if service.batches.jobs:
                raise KeyboardInterrupt

    return finish


# Recordings.


def test_a_recording_replays_without_a_service(service: RowService, tmp_path: Path) -> None:
    """Answers of jobs are recorded as live ones are, also a corrected one."""
    path = tmp_path / "answers.jsonl"
    says(service, {"b": "no JSON"})
    lm.config.record = path
    usual = service.batches.usual_answer
    found = service.batches.answer
    service.batches.answer = lambda request: (
        found(request) if len(request.body["messages"]) == 1 else usual(request)
    )
    recorded = lm.extract(["a", "b"], "name", batch=True)
    lm.config.record = None
    forget_answers()
    service.batches.reset()
    service.live.clear()
    lm.config.replay, lm.config.replay_strict = path, True
    assert lm.extract(["a", "b"], "name", batch=True).equals(recorded)
    assert lm.extract(["a", "b"], "name").equals(recorded)
    with pytest.raises(errors.ReplayMissError):
        lm.extract(["c"], "name", batch=True)
    assert not service.batches.asked
    assert not service.live


# Errors.


def test_a_full_disk_is_not_taken_for_stored(
    service: RowService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says why; the next run reads the results again."""
    with monkeypatch.context() as patched:
        patched.setattr(session.answer_cache, "put_all", lambda values: False)
        session.answer_cache.problem = "the disk is full"
        with pytest.raises(errors.JobError, match="the disk is full"):
            lm.prompt(["a"], PROMPT, batch=True)
    assert lm.prompt(["a"], PROMPT, batch=True).tolist() == ["answer to: Sum up a"]
    assert len(service.submitted) == 1


def test_lost_answers_are_read_again(service: RowService) -> None:
    """After the cache is cleared, the ended job still has them."""
    lm.prompt(["a"], PROMPT, batch=True)
    forget_answers()
    assert lm.prompt(["a"], PROMPT, batch=True).tolist() == ["answer to: Sum up a"]
    assert len(service.submitted) == 1


def test_the_tier_of_an_alias_is_not_in_a_job(service: RowService) -> None:
    """The price is that of jobs, and live calls find the answer."""
    lm.config.aliases = {"cheap": {"model": MODEL, "tier": "flex", "service_tier": "flex"}}
    lm.prompt(["a"], PROMPT, model="cheap", batch=True)
    (job,) = service.batches.jobs.values()
    assert "service_tier" not in job.requests[0].body
    lm.prompt(["a"], PROMPT, model="cheap")
    assert not service.live


def test_answers_that_the_cache_lost_are_open(
    service: RowService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that is too small is named; the rows do not count as answered."""
    call = lm.prompt(["a", "b"], PROMPT, batch=True, wait=False)
    call.wait()
    forget_answers()
    with pytest.warns(UserWarning, match="no longer in .*answers.sqlite.*cache_mb"):
        answers = call.result()
    assert answers.isna().all()
    assert str(answers.llm.report) == "2 pending"
    assert lm.prompt(["a", "b"], PROMPT, batch=True).notna().all()
    assert len(service.submitted) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": True, "concurrency": 3}, "concurrency has no effect"),
        ({"batch": True, "tier": "flex"}, "tier has no effect"),
        ({"batch": "yes"}, "Invalid value for batch"),
        ({"wait": False}, "wait=False needs batch=True"),
        ({"batch": True, "wait": 1}, "Invalid value for wait"),
    ],
)
def test_mistakes(service: RowService, options: dict[str, Any], message: str) -> None:
    """Each is refused before anything is sent."""
    for call in (
        lambda: lm.prompt(["a"], PROMPT, **options),
        lambda: frame_of("a").llm.classify("text", ["x", "y"], **options),
        lambda: frame_of("a")["text"].llm.extract("name", **options),
    ):
        with pytest.raises(errors.UsageError, match=message):
            call()
    assert not service.batches.asked


def test_dask_names_pandas(service: RowService) -> None:
    """A partition is computed whenever Dask likes, so it cannot wait for a job."""
    frame = dd.from_pandas(frame_of("a", "b"), npartitions=2)
    for call in (
        lambda: frame.llm.prompt(PROMPT, batch=True, yes=True),
        lambda: frame.llm.classify("text", ["x", "y"], batch=True, yes=True),
    ):
        with pytest.raises(errors.UsageError, match="Dask") as caught:
            call()
        assert "pandas" in (caught.value.hint or "")


def test_a_provider_without_jobs_names_those_with_them() -> None:
    """Before anything is sent."""
    with pytest.raises(errors.UnsupportedError, match="batch jobs") as caught:
        lm.prompt(["a"], PROMPT, batch=True, model="echo/echo")
    assert "anthropic" in (caught.value.hint or "")


def test_a_job_is_for_the_first_model_of_a_route(service: RowService) -> None:
    """It does not fall back: a job cannot be submitted to several services."""
    lm.config.routes = {"any": [MODEL, "lab/other"]}
    assert lm.prompt(["a"], PROMPT, batch=True, model="any").tolist() == ["answer to: Sum up a"]
    (job,) = service.batches.jobs.values()
    assert job.requests[0].body["model"] == MODEL.removeprefix("lab/")


def test_documents_are_sent_as_in_a_live_call(service: RowService, tmp_path: Path) -> None:
    """A file that cannot be read fails its own row."""
    (tmp_path / "a.txt").write_text("Signed by Ada", encoding="utf-8")
    frame = pd.DataFrame({"file": ["a.txt", "missing.txt"]})
    options: dict[str, Any] = {"attachments": "file", "attachments_root": tmp_path}
    with pytest.warns(UserWarning, match="1 ok · 1 failed"):
        frame.llm.prompt("Who signed?", batch=True, **options)
    assert "Signed by Ada" in frame["answer"][0]
    assert "missing.txt" in frame.llm.report.frame()["error"].iloc[0]
    with pytest.warns(UserWarning, match="1 ok · 1 failed"):
        frame.llm.prompt("Who signed?", **options)
    assert not service.live


def test_the_answers_of_a_job_are_not_held_in_memory(service: RowService) -> None:
    """They are read from the cache when the column is built."""
    texts = [f"text {number}" for number in range(50)]
    frame = frame_of(*texts)
    frame.llm.prompt(PROMPT, batch=True)
    call = frame.llm.report._call
    assert not call._live
    assert not call._work._held
    assert [each.text for each in call.responses[10:12]] == frame["answer"][10:12].tolist()
    stored = session.answer_cache.get(call._work.key(10))
    assert json.loads(stored)["usage"]["service_tier"] == "batch"
