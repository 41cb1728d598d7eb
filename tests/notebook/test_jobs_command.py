"""``lm.jobs()`` and ``%llm jobs``: the table, cancelling and forgetting."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics.notebook.commands import jobs as command
from llm_magics.notebook.completion import find_candidates
from llm_magics.providers.openai import OpenAIProvider
from llm_magics.runtime.jobs import control
from llm_magics.runtime.jobs.table import job_table
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.job_journal import Claim, Mark, RowState, Target
from tests.support.memory_batches import Batch, Ledger, MemoryService

TYPES = {
    "id": "object",
    "service": "object",
    "model": "object",
    "kind": "object",
    "rows": "int64",
    "done": "int64",
    "failed": "int64",
    "cost_usd": "float64",
    "submitted": "datetime64[us, UTC]",
    "expires": "datetime64[us, UTC]",
    "state": "object",
    "note": "object",
    "service_id": "object",
}


class Answers:
    """The answers of a user who is asked."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.questions: list[str] = []

    def ask(self, question: str) -> str | None:
        self.questions.append(question)
        return self.answers.pop(0)


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """The batches at OpenAI, for the account of the key in the settings."""
    lm.config.providers = {"openai": {"api_key": "k"}}
    ledger = Ledger()
    monkeypatch.setattr(OpenAIProvider, "batch_service", lambda self: MemoryService(ledger))
    return ledger


def add(ledger: Ledger, name: str, rows: int = 2, *, account: str = "mine", **facts: Any) -> str:
    """Add a job that runs, with an identifier of 20 characters."""
    job_id = name.ljust(20, "0")
    keys = [f"{name}{number}".encode().rjust(32) for number in range(rows)]
    target = Target(
        provider="openai",
        address="https://api.openai.com/v1",
        account=account,
        model="gpt-5",
        kind="chat",
        path="/chat/completions",
    )
    assert session.journal.claim([Claim(id=job_id, keys=keys)], target, 1_795_000_000.0)
    session.journal.note_creating(job_id, 1_795_000_000.25)
    session.journal.note_created(job_id, f"batch-{name}", None)
    lines: list[dict[str, Any]] = [{}] * rows
    ledger.batches.append(
        Batch(id=f"batch-{name}", mark=job_id, created=ledger.clock.now(), lines=lines, run_s=100, **facts)
    )  # fmt: skip
    return job_id


def test_without_jobs_the_columns_have_their_types() -> None:
    """No file is created."""
    table = lm.jobs()
    assert table.dtypes.astype(str).to_dict() == TYPES
    assert "No batch jobs yet" in repr(table)
    assert not session.journal.path.exists()


def test_a_row_for_each_job(ledger: Ledger) -> None:
    """The latest first; those that run are refreshed and can end."""
    first, second = add(ledger, "first"), add(ledger, "second", 4)
    ledger.clock.time += 50
    table = lm.jobs()
    assert table["id"].tolist() == [second, first]
    assert table.dtypes.astype(str).to_dict() == TYPES
    row = table.iloc[0].to_dict()
    assert (row["service"], row["model"], row["kind"]) == ("openai", "gpt-5", "chat")
    assert (row["rows"], row["done"], row["failed"], row["cost_usd"]) == (4, 2, 0, 0.0)
    assert (row["state"], row["note"], row["service_id"]) == ("running", None, "batch-second")
    assert row["submitted"].timestamp() == 1_795_000_000.25
    assert row["expires"].timestamp() == 1_795_086_400
    ledger.clock.time += 51
    record = session.journal.job(first)
    session.journal.mark(record, [Mark(number=0, state=RowState.STORED, cost_usd=0.25)])
    table = asyncio.run(lm.ajobs())
    assert table["state"].tolist() == ["ended", "ended"]
    assert table["cost_usd"].tolist() == [0.0, 0.25]


def test_the_display_is_compact(ledger: Ledger) -> None:
    """At most eight columns; notes replace columns only if there are any."""
    add(ledger, "first")
    assert repr(lm.jobs()).splitlines()[0].split() == [
        "id", "service", "model", "state", "rows", "done", "failed", "cost_usd",
    ]  # fmt: skip
    add(ledger, "second", outcome="expired")
    ledger.clock.time += 101
    shown = repr(lm.jobs()).splitlines()
    assert shown[0].split()[-1] == "note"
    assert shown[1].split()[-1] == "expired"
    assert "completed" not in shown[2]


def test_a_service_that_does_not_answer_keeps_the_known_state(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job for itself, all at the same time; the reason is in the note."""
    add(ledger, "broken")
    add(ledger, "foreign", account="theirs")
    add(ledger, "good")
    running = SimpleNamespace(now=0, most=0)
    retrieve = MemoryService.retrieve

    async def slow(self: MemoryService, job_id: str) -> Any:
        running.now += 1
        running.most = max(running.most, running.now)
        await asyncio.sleep(0.001)
        running.now -= 1
        if job_id == "batch-broken":
            msg = "The connection was lost."
            raise errors.ConnectionError(msg)
        return await retrieve(self, job_id)

    monkeypatch.setattr(MemoryService, "retrieve", slow)
    table = lm.jobs().set_index("service_id")
    assert running.most == 2
    assert table.loc["batch-broken", "note"] == "The connection was lost."
    assert "another account" in table.loc["batch-foreign", "note"]
    assert table["note"].isna()["batch-good"]
    assert set(table["state"]) == {"running"}

    async def silent(self: MemoryService, job_id: str) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(MemoryService, "retrieve", silent)
    monkeypatch.setattr(control, "_LOOK_S", 0.01)
    assert "did not answer" in lm.jobs()["note"].iloc[0]


def test_cancelling_says_that_what_was_done_is_billed(
    shell: InteractiveShell, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the beginning of our identifier or of the service's."""
    add(ledger, "first")
    add(ledger, "second")
    assert shell.run_line_magic("llm", "jobs cancel fi") is None
    said = capsys.readouterr().out
    assert "What was done until now is billed" in said
    assert [each.cancelled for each in ledger.batches] == [True, False]
    shell.run_line_magic("llm", "jobs cancel batch-second  # both")
    assert ledger.batches[1].cancelled
    assert shell.run_line_magic("llm", "jobs")["state"].tolist() == ["ended", "ended"]
    with pytest.raises(errors.JobError, match="has ended"):
        shell.run_line_magic("llm", "jobs cancel first")


def test_a_job_that_was_just_submitted_is_not_dropped(ledger: Ledger) -> None:
    """Its results are paid for; the caller has read its state too early."""
    record = session.journal.job(add(ledger, "first"))
    before = dataclasses.replace(record, state="prepared")
    with pytest.raises(errors.JobError, match="just submitted"):
        asyncio.run(control.cancel_job(session, before))
    assert session.journal.job(record.id).state == "running"


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("jobs cancle first", "does not have the action 'cancle'", "Did you mean cancel?"),
        ("jobs first", "does not have the action", "cancel, forget"),
        ("jobs cancel", "takes the id of one job", "%llm jobs"),
        ("jobs forget first second", "takes the id of one job", "%llm jobs"),
        ("jobs cancel firts000000000000000", "Unknown batch job", "Did you mean first0"),
        ("jobs forget nothing", "Unknown batch job", "%llm jobs"),
        ("jobs cancel f", "Several batch jobs", "Use one of: "),
        ("jobs forget ''", "Unknown batch job", "%llm jobs"),
        ("jobs forget first --ye", "no flag --ye", "--yes"),
    ],
)
def test_mistakes(
    shell: InteractiveShell, ledger: Ledger, line: str, message: str, hint: str
) -> None:
    """The error says what to write; nothing is cancelled or forgotten."""
    add(ledger, "first")
    add(ledger, "further")
    with pytest.raises(errors.LLMError, match=message) as caught:
        shell.run_line_magic("llm", line)
    assert hint in (caught.value.hint or "")
    assert len(session.journal.jobs()) == 2
    assert not any(each.cancelled for each in ledger.batches)


def test_forgetting_explains_what_will_be_paid_again(
    shell: InteractiveShell,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a yes, the job stays."""
    first = add(ledger, "first", 3)
    user = Answers(None, "n", "y")
    monkeypatch.setattr(command, "current_host", lambda: user)
    with pytest.raises(errors.UsageError, match="not interactive") as caught:
        shell.run_line_magic("llm", "jobs forget first")
    assert caught.value.hint == f"Allow it with: %llm jobs forget {first} --yes"
    with pytest.raises(errors.DeclinedError):
        shell.run_line_magic("llm", "jobs forget first")
    assert len(session.journal.jobs()) == 1
    shell.run_line_magic("llm", "jobs forget first")
    assert "3 rows will be submitted and paid again" in user.questions[0]
    assert "may still run" in user.questions[0]
    assert not session.journal.jobs()
    assert "Forgot first" in capsys.readouterr().out


def test_forgetting_a_job_that_was_read_needs_no_question(
    shell: InteractiveShell, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And neither does one that was not submitted; its files are deleted."""
    user = Answers("n")
    monkeypatch.setattr(command, "current_host", lambda: user)
    read, dropped, unread = add(ledger, "read", 1), add(ledger, "dropped"), add(ledger, "unread")
    session.journal.mark(session.journal.job(read), [Mark(number=0, state=RowState.STORED)])
    session.journal.note_ended(read, "completed", 1, 0)
    session.journal.drop(dropped, "Refused.")
    session.journal.note_ended(unread, "completed", 2, 0)
    folder = session.journal.path.parent / "jobs" / dropped
    folder.mkdir(parents=True)
    Path(folder, "lines.jsonl").write_text("{}", encoding="utf-8")
    shell.run_line_magic("llm", f"jobs forget {read}")
    shell.run_line_magic("llm", f"jobs forget {dropped}")
    assert not folder.exists()
    assert not user.questions
    with pytest.raises(errors.DeclinedError):
        shell.run_line_magic("llm", f"jobs forget {unread}")
    assert "has results that were not read" in user.questions[0]
    shell.run_line_magic("llm", f"jobs forget {unread} --yes")
    assert not session.journal.jobs()


def test_tab_completes_actions_and_jobs(ledger: Ledger) -> None:
    """Only a job that runs can be cancelled; nothing is created while completing."""
    assert find_candidates("%llm", "jobs cancel ") == ("job", [], "")
    assert not session.journal.path.exists()
    first, ended = add(ledger, "first"), add(ledger, "ended")
    session.journal.note_ended(ended, "completed", 2, 0)
    assert list(find_candidates("%llm", "jobs ").names) == ["cancel", "forget"]
    assert find_candidates("%llm", "jobs cancel fi") == ("job", [first], "fi")
    assert list(find_candidates("%llm", "jobs forget ").names) == [ended, first]
    assert list(find_candidates("%llm", "jobs forget first ").names) == []
    assert list(find_candidates("%llm", "jobs forget --").names) == ["--yes"]


def test_a_table_of_unusual_jobs(ledger: Ledger) -> None:
    """A job without a price, one that was not submitted, and one of an unknown end."""
    add(ledger, "first", 1)
    record = session.journal.jobs()[0]
    session.journal.mark(record, [Mark(number=0, state=RowState.STORED, cost_usd=None)])
    session.journal.note_ended(record.id, "JOB_STATE_SUCCEEDED", 1, 0)
    table = job_table([control.Look(each) for each in session.journal.jobs()])
    assert table["cost_usd"].isna().all()
    assert table["note"].isna().all()
    session.journal.drop(record.id, "It was refused.")
    assert lm.jobs()["note"].tolist() == ["It was refused."]
