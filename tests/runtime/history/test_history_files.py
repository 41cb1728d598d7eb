"""The files of the history: several processes, kills, damage, limits, versions."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_magics.runtime.history import database, queries, retention, schema, writer
from llm_magics.runtime.history.entries import (
    Details,
    Origin,
    encode_entry,
)
from llm_magics.runtime.history.retention import Limits
from llm_magics.runtime.history.writer import History
from llm_magics.runtime.response import Response
from llm_magics.types import ChatMessage
from tests.support.runs import run_at

LIMITS = Limits(max_bytes=2_000_000_000, max_days=730)

NEW_HISTORY = """
import sys
from pathlib import Path
from tests.runtime.history.test_history_files import LIMITS, add
from llm_magics.runtime.history.writer import History

history = History(Path(sys.argv[1]), LIMITS)
for number in range(int(sys.argv[2])):
    add(history, f"question {sys.argv[3]}-{number}")
    print(number, flush=True)
"""


def add(history: History, text: str, moment: datetime | None = None) -> None:
    """Store a call with a prompt."""
    answer = Response(f"answer to {text}", messages=(ChatMessage("user", text),))
    history.add(run_at(moment or datetime.now(UTC)), answer, Details())


def store(history: History, *texts: str) -> None:
    """Store calls one after the other, and close the history."""
    for text in texts:
        add(history, text)
        history.flush(30)
    history.close()


def prompts(path: Path) -> list[str]:
    """The prompts in the history."""
    return queries.query(path, "SELECT prompt FROM runs ORDER BY time, id")["prompt"].tolist()


@pytest.fixture
def new_history(tmp_path: Path) -> Iterator[Callable[..., History]]:
    """Opens histories in one file, as kernels do."""
    opened: list[History] = []

    def create(limits: Limits = LIMITS, clock: Callable[[], float] = time.time) -> History:
        opened.append(History(tmp_path / "history.sqlite", limits, clock=clock))
        return opened[-1]

    yield create
    for history in opened:
        history.close()


def start(path: Path, count: int, name: str) -> subprocess.Popen[str]:
    """Start a process that stores calls, and prints the number of each when it has returned."""
    command = [sys.executable, "-c", NEW_HISTORY, str(path), str(count), name]
    folder = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_killed_kernel_loses_nothing_that_has_returned(
    tmp_path: Path, new_history: Callable[..., History]
) -> None:
    """The next kernel stores what it has left."""
    path = tmp_path / "history.sqlite"
    process = start(path, 1_000_000, "a")
    assert process.stdout is not None
    returned = [process.stdout.readline() for _ in range(300)]
    process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    returned += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    last = max(int(line) for line in returned if line.endswith("\n"))
    history = new_history()
    add(history, "next")
    history.flush(30)
    assert {f"question a-{number}" for number in range(last + 1)} <= set(prompts(path))


def test_four_kernels_store_all_calls(tmp_path: Path) -> None:
    """Each of them, once."""
    path = tmp_path / "history.sqlite"
    processes = [start(path, 50, name) for name in "abcd"]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    history = History(path, LIMITS)  # what a process has not stored at its end is stored now
    add(history, "last")
    assert history.flush(30)
    history.close()
    found = prompts(path)
    assert sorted(found) == sorted(
        ["last", *(f"question {name}-{number}" for name in "abcd" for number in range(50))]
    )


def test_threads_share_a_history(tmp_path: Path, new_history: Callable[..., History]) -> None:
    """Each call is stored once."""
    history = new_history()
    threads = [
        threading.Thread(target=lambda n=n: [add(history, f"{n}-{i}") for i in range(25)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert history.flush(30)
    assert len(set(prompts(history.path))) == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_has_a_file_of_its_own(new_history: Callable[..., History]) -> None:
    """It does not write into that of its parent."""
    history = new_history()
    add(history, "parent")
    history.flush(30)
    if (child := os.fork()) == 0:
        try:
            add(history, "child")
            os._exit(0 if history.flush(30) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    add(history, "parent again")
    assert history.flush(30)
    assert sorted(prompts(history.path)) == ["child", "parent", "parent again"]


@pytest.mark.parametrize("damage", [b"no database at all" * 100, None])
def test_a_damaged_file_is_set_aside(
    tmp_path: Path, new_history: Callable[..., History], damage: bytes | None
) -> None:
    """A new one is created, with a warning; the calls go on."""
    first = new_history()
    for number in range(50):
        add(first, f"question {number}")
    first.flush(30)
    first.close()
    content = damage or first.path.read_bytes()[:4096] + bytes(60_000)
    first.path.write_bytes(content)
    second = new_history()
    with pytest.warns(UserWarning, match="damaged"):
        store(second, "after")
    assert prompts(second.path) == ["after"]
    assert list(tmp_path.glob("history.sqlite.damaged-*"))


def test_a_locked_file_is_tried_again(
    new_history: Callable[..., History], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls are stored when it is free; without a warning."""
    monkeypatch.setattr(writer, "_REST_S", 0.05)
    monkeypatch.setattr(database, "_BUSY_S", 0.05)
    history = new_history()
    add(history, "before")
    assert history.flush(30)
    with closing(sqlite3.connect(history.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        add(history, "while it is locked")
        assert not history.flush(0.3)
        other.execute("ROLLBACK")
    assert history.flush(30)
    assert prompts(history.path) == ["before", "while it is locked"]


def test_damage_while_it_is_used_costs_no_call(new_history: Callable[..., History]) -> None:
    """The file is set aside, and the calls from then on are in the new one."""
    history = new_history()
    add(history, "before")
    assert history.flush(30)
    with closing(sqlite3.connect(history.path)) as other:
        other.execute("DROP TABLE uses")
        other.commit()
    with pytest.warns(UserWarning, match="damaged"):
        store(history, "after")
    assert prompts(history.path) == ["after"]


def test_a_file_of_another_program_is_left_alone(
    tmp_path: Path, new_history: Callable[..., History]
) -> None:
    """The history is off, with one warning."""
    with sqlite3.connect(tmp_path / "history.sqlite") as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    history = new_history()
    with pytest.warns(UserWarning, match="another program") as caught:
        store(history, "a", "b", "c")
    assert len(caught) == 1
    with sqlite3.connect(history.path) as connection:
        assert connection.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
    connection.close()


def test_a_file_of_a_newer_version_is_left_alone(new_history: Callable[..., History]) -> None:
    """The history is off, with a warning."""
    first = new_history()
    add(first, "a")
    first.flush(30)
    first.close()
    with sqlite3.connect(first.path) as connection:
        connection.execute("PRAGMA user_version = 1000")
    connection.close()
    second = new_history()
    with pytest.warns(UserWarning, match="newer version"):
        store(second, "b")
    assert prompts(first.path) == ["a"]


def test_an_old_file_is_migrated(
    new_history: Callable[..., History], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its rows, by the steps from its version on."""
    first = new_history()
    add(first, "old")
    first.flush(30)
    first.close()
    newest = max(schema.MIGRATIONS) + 1
    step = "ALTER TABLE run ADD COLUMN rating REAL;\nUPDATE run SET rating = 1;\n"
    monkeypatch.setitem(schema.MIGRATIONS, newest, step)
    second = new_history()
    add(second, "new")
    second.flush(30)
    second.close()
    with sqlite3.connect(first.path) as connection:
        rows = connection.execute("SELECT rating FROM run ORDER BY serial").fetchall()
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    assert rows == [(1.0,), (None,)]
    assert version == newest + 1


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    """The call does not fail."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    history = History(tmp_path / "file" / "history.sqlite", LIMITS)
    with pytest.warns(UserWarning, match="history") as caught:
        store(history, "a", "b", "c")
    assert len(caught) == 1


def test_old_calls_are_deleted(new_history: Callable[..., History]) -> None:
    """Those older than the limit, with their contents."""
    history = new_history(Limits(max_bytes=2_000_000_000, max_days=30))
    now = datetime.now(UTC)
    for days in (40, 31, 29, 0):
        add(history, f"{days} days", now - timedelta(days=days))
    history.flush(30)
    history.close()
    assert prompts(history.path) == ["29 days", "0 days"]


def test_the_oldest_calls_are_deleted_from_a_large_file(
    new_history: Callable[..., History],
) -> None:
    """Until it is smaller than the limit; the newest ones stay."""
    first = new_history()
    start = datetime.now(UTC) - timedelta(hours=1)
    for number in range(600):
        add(first, f"{number} {os.urandom(800).hex()}", start + timedelta(seconds=number))
    first.flush(60)
    first.close()
    second = new_history(Limits(max_bytes=1_000_000, max_days=730))
    add(second, "newest")
    second.flush(60)
    second.close()
    found = prompts(second.path)
    assert second.path.stat().st_size < 1_000_000
    assert 50 < len(found) < 500
    assert found[-1] == "newest"
    assert [int(each.split()[0]) for each in found[:-1]] == list(range(600 - len(found) + 1, 600))
    with sqlite3.connect(second.path) as connection:
        assert database.size_bytes(connection) < 1_000_000
        connection.execute("INSERT INTO search (search) VALUES ('integrity-check')")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        unused = "SELECT count(*) FROM contents WHERE serial NOT IN (SELECT content FROM uses)"
        assert connection.execute(unused).fetchone() == (0,)
    connection.close()
    assert retention.forget(second.path, None) == len(found)
    assert second.path.stat().st_size < 100_000


def test_a_network_folder_has_no_write_ahead_log(
    new_history: Callable[..., History], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs memory that machines do not share."""
    monkeypatch.setattr(database, "is_on_network", lambda path: True)
    history = new_history()
    add(history, "a")
    history.flush(30)
    with sqlite3.connect(history.path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()
    assert prompts(history.path) == ["a"]


def test_damaged_lines_are_skipped(tmp_path: Path, new_history: Callable[..., History]) -> None:
    """An interrupted write at the end of a file, and bytes that are not an entry."""
    folder = tmp_path / "history.sqlite.new" / "123-abc"
    folder.mkdir(parents=True)
    good = encode_entry(
        run_at(datetime.now(UTC)), Response("a"), Details(), Origin(), with_contents=True
    )
    (folder / "runs.jsonl").write_bytes(b"\xff\xfe\n{}\n[1]\n" + good + good[: len(good) // 2])
    history = new_history()
    add(history, "b")
    assert history.flush(30)
    assert len(prompts(history.path)) == 2
    assert not folder.exists()
