"""The history of calls: what is stored of a call, and how it is found again."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import llm_magics as lm
from llm_magics import past_runs
from llm_magics.errors import (
    ConfigurationError,
    HistoryError,
    ModelNotFoundError,
    ProviderError,
    UsageError,
)
from llm_magics.runtime.history.schema import VIEW_COLUMNS
from llm_magics.runtime.session import session
from llm_magics.secrets import register_secret
from llm_magics.settings.config import config
from tests.support.fake_openai import FakeOpenAI
from tests.support.serving import serving


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Path]:
    """A history in a file of its own, and the echo model."""
    path = tmp_path / "history.sqlite"
    config.history = path
    config.model = "echo/echo"
    yield path
    if session.history is not None:
        session.history.close()


def files_with(folder: Path, text: bytes) -> list[Path]:
    """The files below a folder that contain ``text``."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if text in path.read_bytes()]


def test_a_call_is_a_row(stored: Path) -> None:
    """With the columns of ``lm.runs()``, its prompt, answer and parameters."""
    lm.ask("Why is the sky blue?", temperature=0.5)
    row = lm.history().iloc[0]
    assert tuple(lm.history().columns) == VIEW_COLUMNS
    assert (row["prompt"], row["answer"]) == ("Why is the sky blue?", "Why is the sky blue?")
    assert (row["provider"], row["model"], row["kind"]) == ("echo", "echo/echo", "chat")
    assert set(lm.runs().columns) <= set(VIEW_COLUMNS)
    assert row["output_tokens"] == lm.runs()["output_tokens"].iloc[0]
    assert row["time"] == lm.runs()["time"].iloc[0]
    assert '"temperature":0.5' in row["parameters"]


def test_the_newest_call_comes_first(stored: Path) -> None:
    """``limit`` leaves out the oldest."""
    for number in range(5):
        lm.ask(f"question {number}")
    assert lm.history(limit=2)["prompt"].tolist() == ["question 4", "question 3"]
    assert len(lm.history(limit=None)) == 5


def test_where_selects_rows(stored: Path) -> None:
    """It is the rest of a query, with an order and a limit of its own if it has them."""
    for number in range(5):
        lm.ask(f"question {number}")
    found = lm.history(
        "WHERE model LIKE 'echo/%' AND prompt > 'question 2' ORDER BY prompt LIMIT 1"
    )
    assert found["prompt"].tolist() == ["question 3"]
    lm.ask("rate limit (order by date)")
    lm.ask("rate limit (of late)")
    found = lm.history("WHERE prompt LIKE '%rate limit%(o%'", limit=1)
    assert found["prompt"].tolist() == ["rate limit (of late)"]
    found = lm.history("WHERE id IN (SELECT id FROM runs ORDER BY time LIMIT 3)", limit=2)
    assert found["prompt"].tolist() == ["question 2", "question 1"]


@pytest.mark.parametrize(
    ("search", "count"),
    [("refund", 2), ("refund late", 1), ('"late refund"', 1), ("refund OR blue", 3), ("refu*", 2)],
)
def test_search_finds_words(stored: Path, search: str, count: int) -> None:
    """In prompts and answers, all of them; or a query of FTS5."""
    for text in ("Is this a late refund?", "A refund, please", "Why is the sky blue?", "it's"):
        lm.ask(text)
    assert len(lm.history(search=search)) == count


def test_search_takes_any_text(stored: Path) -> None:
    """Characters with a meaning in queries are searched as they are."""
    lm.ask("it's 5:30 - or later?")
    assert len(lm.history(search="it's 5:30 -")) == 1
    with pytest.raises(HistoryError):
        lm.history(search='"unclosed')
    with pytest.raises(UsageError):
        lm.history(search="  ")


def test_sql_is_a_query(stored: Path) -> None:
    """Of the table ``runs``; its result has the columns of the query."""
    lm.ask("a", model="echo/echo")
    found = lm.history(sql="SELECT model, count(*) AS calls FROM runs GROUP BY model")
    assert found.to_dict("records") == [{"model": "echo/echo", "calls": 1}]
    with pytest.raises(UsageError):
        lm.history("WHERE 1", sql="SELECT 1")


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM run",
        "UPDATE run SET cost_usd = 0",
        "DROP TABLE run",
        "ATTACH 'other.sqlite' AS other",
        "PRAGMA journal_mode = DELETE",
        "INSERT INTO search (search) VALUES ('delete-all')",
        "SELECT load_extension('x')",
        "SELECT * FROM nothing",
        "SELECT 1; DELETE FROM run",
        "",
    ],
)
def test_queries_change_nothing(stored: Path, sql: str) -> None:
    """What is not a single query of this file is an error."""
    lm.ask("a")
    with pytest.raises(HistoryError):
        lm.history(sql=sql)
    assert len(lm.history()) == 1


def test_contents_are_stored_once(stored: Path) -> None:
    """The system message of many calls, and equal prompts and answers."""
    for number in range(10):
        lm.ask(f"question {number % 2}", system="You are helpful. " * 50)
    assert len(lm.history()) == 10
    with sqlite3.connect(stored) as connection:
        assert connection.execute("SELECT count(*) FROM contents").fetchone()[0] <= 5
    connection.close()


def test_contents_can_be_left_out(stored: Path) -> None:
    """With ``history_contents`` off, only figures are stored."""
    config.history_contents = False
    lm.ask("a secret question")
    row = lm.history().iloc[0]
    assert pd.isna(row["prompt"])
    assert pd.isna(row["answer"])
    assert row["output_tokens"] > 0
    with pytest.raises(HistoryError):
        lm.response(row["id"])


def test_without_contents_no_text_is_stored(stored: Path) -> None:
    """Parameters that are numbers are; schemas, stop texts and fields of the body are contents."""
    config.history_contents = False
    schema = {"type": "object", "properties": {"zymurgy": {"type": "string"}}}
    lm.ask(
        '{"zymurgy": "a"}',
        temperature=0.5,
        stop=["zymurgies"],
        schema=schema,
        extra_body={"metadata": {"zymurgy": "zymurgy"}},
    )
    assert lm.history()["parameters"].tolist() == ['{"temperature":0.5}']
    assert session.history is not None
    session.history.close()
    assert not files_with(stored.parent, b"zymurgy")


def test_without_contents_an_error_is_its_type(stored: Path) -> None:
    """Its message may quote the prompt."""
    config.history_contents = False
    with pytest.raises(ModelNotFoundError):
        lm.ask("a", model="echo/zymurgy")
    assert lm.history()["error"].tolist() == ["ModelNotFoundError"]


@pytest.mark.parametrize("name", ["x-request-id", "request-id"])
def test_the_identifier_of_the_request_is_a_column(stored: Path, name: str) -> None:
    """Of answers and of errors, from the headers; it is in the answer too."""
    fake = FakeOpenAI()
    with serving(lambda asked: replace(fake(asked), headers={name: "request-1"})) as server:
        config.providers = {
            "near": {"type": "openai", "base_url": server.url, "api_key": "a-key-of-the-test"}
        }
        assert lm.ask("a", model="near/gpt-test").request_id == "request-1"
        with pytest.raises(ModelNotFoundError):
            lm.ask("a", model="near/nothing")
        rows = lm.history()
    assert rows["request_id"].tolist() == ["request-1", "request-1"]
    assert lm.response(rows["id"].iloc[1]).request_id == "request-1"


def test_no_key_is_stored(stored: Path, tmp_path: Path) -> None:
    """Neither a registered one nor one with the format of a key, and no headers."""
    register_secret("correct-horse-battery")
    lm.ask(
        "My keys: correct-horse-battery, sk-abcdefghijklmnopqrstuvwxyz",
        extra_headers={"X-Tenant-Key": "tenant-key-12345678"},
    )
    assert "****" in lm.history()["prompt"].iloc[0]
    assert session.history is not None
    session.history.close()
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    with sqlite3.connect(stored) as connection:
        content += str(connection.execute("SELECT * FROM run").fetchall()).encode()
    connection.close()
    for key in (b"correct-horse", b"sk-abcdef", b"tenant-key", b"X-Tenant-Key"):
        assert key not in content


def test_errors_are_rows(stored: Path) -> None:
    """With their message; the call raises as always."""
    config.providers = {
        "closed": {"type": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "k"}
    }
    config.retries = 0
    with pytest.raises(ProviderError):
        lm.ask("a", model="closed/gpt")
    row = lm.history().iloc[0]
    assert row["finish_reason"] == "error"
    assert row["error"]


def test_cached_answers_are_rows(stored: Path) -> None:
    """They are marked, and cost nothing."""
    config.cache = True
    lm.ask("a")
    lm.ask("a")
    assert lm.history()["cached"].tolist() == [True, False]


def test_rows_of_a_frame_are_calls(stored: Path) -> None:
    """Each row that is sent is a row of the history, too."""
    frame = pd.DataFrame({"text": ["a", "b", "a"]})
    frame.llm.prompt("{{ text }}")
    assert sorted(lm.history()["prompt"]) == ["a", "b"]


def test_a_past_answer_is_a_response(stored: Path) -> None:
    """With its text, messages, usage and times."""
    answer = lm.ask("Why?", system="Be brief.", model="echo/echo")
    past = lm.response(lm.history()["id"].iloc[0])
    assert (past.text, past.model, past.finish_reason) == (answer.text, answer.model, "stop")
    assert past.messages == answer.messages
    assert past.usage == answer.usage
    assert past.timing == answer.timing


def test_a_past_call_is_sent_again(stored: Path) -> None:
    """With its messages and parameters, or with others."""
    lm.ask("one", thread="talk", system="Be brief.", temperature=0.5)
    lm.ask("two", thread="talk", system="Be brief.", temperature=0.5)
    again = lm.rerun(lm.history()["id"].iloc[0], temperature=0.1)
    assert [message.content for message in again.messages] == ["Be brief.", "one", "one", "two"]
    rows = lm.history()
    assert '"temperature":0.1' in rows["parameters"].iloc[0]
    assert not rows["cached"].iloc[0]


def test_a_call_with_files_cannot_be_sent_again(stored: Path) -> None:
    """Files are stored as digests."""
    image = b"\x89PNG\r\n\x1a\n" + bytes(100)
    lm.ask("What is this?", attachments=[b"a,b\n1,2\n"])
    with pytest.raises(UsageError):
        lm.rerun(lm.history()["id"].iloc[0])
    assert not files_with(stored.parent, image)


def test_an_unknown_run_is_an_error(stored: Path) -> None:
    """It names the column with the identifiers."""
    lm.ask("a")
    with pytest.raises(HistoryError, match="id"):
        lm.response("nothing")


def test_without_a_history_the_error_says_how_to_get_one(tmp_path: Path) -> None:
    """If it is off, or there were no calls."""
    with pytest.raises(HistoryError, match="config history on"):
        lm.history()
    config.history = tmp_path / "none.sqlite"
    with pytest.raises(HistoryError, match=r"none\.sqlite"):
        lm.history()


def test_what_is_forgotten_is_gone(stored: Path) -> None:
    """From the rows, the contents, the full-text index and the bytes of the file."""
    for number in range(20):
        lm.ask(f"public question {number}")
    lm.ask("the unspeakable zymurgy")
    lm.ask("public question 3")
    ids = lm.history(search="zymurgy")["id"].tolist()
    assert past_runs.forget(ids) == 1
    assert lm.history(search="zymurgy").empty
    assert len(lm.history(search="public")) == 21
    assert session.history is not None
    session.history.close()
    assert not files_with(stored.parent, b"zymurgy")


def test_all_can_be_forgotten(stored: Path) -> None:
    """And the history goes on."""
    lm.ask("a")
    assert past_runs.forget(None) == 1
    assert lm.history().empty
    lm.ask("b")
    assert lm.history(search="b")["prompt"].tolist() == ["b"]


def test_parquet_has_all_rows(stored: Path, tmp_path: Path) -> None:
    """With the columns and types of the history."""
    for number in range(3):
        lm.ask(f"question {number}")
    assert past_runs.export(tmp_path / "runs.parquet") == 3
    table = pq.read_table(tmp_path / "runs.parquet")
    assert table.column_names == list(VIEW_COLUMNS)
    assert table["prompt"].to_pylist() == ["question 0", "question 1", "question 2"]
    assert str(table["time"].type) == "timestamp[us, tz=UTC]"


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_others_cannot_read_it(stored: Path) -> None:
    """The file and what is beside it have no permissions for other users."""
    lm.ask("a")
    assert session.history is not None
    assert session.history.flush(30)
    paths = [stored, *stored.parent.glob(f"{stored.name}*"), *stored.parent.glob("*.new/**/*")]
    assert all(path.stat().st_mode & 0o077 == 0 for path in paths)


def test_a_project_cannot_move_or_empty_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings file stores calls in its own folder only, and sets no limits for others."""
    monkeypatch.delenv("LLM_MAGICS_HISTORY")
    (tmp_path / ".git").mkdir()
    (tmp_path / "llm_magics.yaml").write_text(
        "history: ../elsewhere.sqlite\nhistory_days: 1\nmodel: echo/echo\n", encoding="utf-8"
    )
    config.reload()
    with pytest.raises(ConfigurationError, match="outside"):
        session.history  # noqa: B018 (evaluated for its error)
    with pytest.warns(UserWarning, match="outside"):
        answer = lm.ask("a paid answer")
    assert answer.text == "a paid answer"
    (tmp_path / "llm_magics.yaml").write_text(
        "history: calls.sqlite\nhistory_days: 1\n", encoding="utf-8"
    )
    config.reload()
    assert session.history is not None
    assert session.history.limits.max_days == 730
