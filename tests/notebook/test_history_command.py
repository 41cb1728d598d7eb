"""``%llm history``, ``%llm cost`` of past calls, and the note about the history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics.errors import HistoryError, UsageError
from llm_magics.runtime.session import session
from llm_magics.settings.config import config
from tests.support.kernels import Kernel


@pytest.fixture
def asked(shell: InteractiveShell, tmp_path: Path) -> Iterator[InteractiveShell]:
    """A shell with a history of three calls."""
    config.history = tmp_path / "history.sqlite"
    for text in ("Why is the sky blue?", "A refund, please", "Another refund"):
        lm.ask(text)
    yield shell
    assert session.history is not None
    session.history.close()


def prompts(shell: InteractiveShell, line: str) -> list[str]:
    """The prompts that a line of ``%llm history`` returns."""
    found = shell.run_line_magic("llm", f"history {line}".strip())
    return list(found["prompt"])


def test_history_lists_calls(asked: InteractiveShell) -> None:
    """The newest first."""
    assert prompts(asked, "") == ["Another refund", "A refund, please", "Why is the sky blue?"]


def test_history_takes_words_and_queries(asked: InteractiveShell) -> None:
    """Words are searched; WHERE, SELECT and an id select rows."""
    assert prompts(asked, "refund") == ["Another refund", "A refund, please"]
    assert prompts(asked, "WHERE prompt LIKE 'Why%'") == ["Why is the sky blue?"]
    assert prompts(asked, "SELECT prompt FROM runs WHERE answer LIKE 'A%' LIMIT 1")
    run = lm.history(search="sky")["id"].iloc[0]
    assert prompts(asked, run) == ["Why is the sky blue?"]
    assert prompts(asked, "where prompt like 'Why%'") == ["Why is the sky blue?"]
    assert prompts(asked, "order by prompt limit 1") == ["A refund, please"]
    with pytest.raises(HistoryError):
        prompts(asked, "WHERE nonsense")


@pytest.mark.parametrize(
    "words", ["where is my parcel", "order status", "with love", "select two of them"]
)
def test_words_of_sql_are_words(asked: InteractiveShell, words: str) -> None:
    """A search begins like a query, but has none of its signs."""
    lm.ask(f"{words}, please")
    assert prompts(asked, words) == [f"{words}, please"]


def test_history_forgets(asked: InteractiveShell) -> None:
    """What a query selects, or all; never all by mistake."""
    with pytest.raises(UsageError):
        asked.run_line_magic("llm", "history forget")
    with pytest.raises(UsageError):
        asked.run_line_magic("llm", "history forget SELECT model FROM runs")
    asked.run_line_magic("llm", "history forget refund")
    assert prompts(asked, "") == ["Why is the sky blue?"]
    asked.run_line_magic("llm", "history forget all")
    assert prompts(asked, "") == []


def test_history_is_exported(asked: InteractiveShell, tmp_path: Path) -> None:
    """To a Parquet file."""
    asked.run_line_magic("llm", "history export runs.parquet")
    assert pq.read_table(tmp_path / "runs.parquet").num_rows == 3
    with pytest.raises(UsageError):
        asked.run_line_magic("llm", "history export")


@pytest.mark.parametrize("period", ["week", "month", "by month", "by model"])
def test_cost_adds_up_past_calls(asked: InteractiveShell, period: str) -> None:
    """Of all sessions, by day or month and model, or by model."""
    found = asked.run_line_magic("llm", f"cost {period}")
    assert found["calls"].tolist() == [3]
    assert found["model"].tolist() == ["echo/echo"]


def test_an_unknown_period_is_an_error(asked: InteractiveShell) -> None:
    """It names those that exist."""
    with pytest.raises(UsageError, match="month"):
        asked.run_line_magic("llm", "cost year")


@pytest.mark.kernel
def test_the_first_call_says_where_calls_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, with how to turn it off, and only in a notebook that a user watches."""
    monkeypatch.setenv("LLM_MAGICS_HISTORY", str(tmp_path / "history.sqlite"))
    monkeypatch.setenv("LLM_MAGICS_MODEL", "echo/echo")
    with Kernel(tmp_path, watched=True) as kernel:
        kernel.run("%load_ext llm_magics")
        first = kernel.run("import llm_magics as lm; answer = lm.ask('a')")
        second = kernel.run("answer = lm.ask('b')")
        assert "history: off" in first.text
        assert first.lasting == []
        assert second.text == ""
        stored = kernel.run("print(len(lm.history()), lm.history()['cell'].tolist())")
        assert stored.text == "2 [3, 2]"
    (tmp_path / "history.sqlite").unlink()
    with Kernel(tmp_path) as kernel:
        kernel.run("%load_ext llm_magics")
        assert kernel.run("import llm_magics as lm; answer = lm.ask('a')").text == ""
