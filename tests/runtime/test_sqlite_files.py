"""What the cache, the history and the journal of jobs share: their SQLite files."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from llm_magics.runtime.history.database import open_history
from llm_magics.runtime.storage.answer_cache import Cache
from llm_magics.runtime.storage.job_journal import Journal
from llm_magics.runtime.storage.sqlite_files import set_journal_mode


def use_cache(path: Path) -> None:
    """Store an answer, and find it."""
    cache = Cache(path, 1_000_000)
    cache.put(b"k" * 32, b"{}")
    assert cache.get_all([b"k" * 32]) == {b"k" * 32: b"{}"}


def use_history(path: Path) -> None:
    """Open the history for writing."""
    open_history(path).close()


def use_journal(path: Path) -> None:
    """Read the jobs."""
    assert Journal(path).jobs() == []


@pytest.mark.parametrize("use", [use_cache, use_history, use_journal])
def test_a_new_file_that_another_kernel_opens_is_waited_for(
    use: Callable[[Path], None], tmp_path: Path
) -> None:
    """SQLite does not wait for another connection that is about to write to a new file."""
    path = tmp_path / "new.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    with closing(other):
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.2, other.execute, ["ROLLBACK"])
        release.start()
        try:
            use(path)
        finally:
            release.join()


def test_a_file_in_use_is_waited_for_until_the_timeout(tmp_path: Path) -> None:
    """Afterwards the error is SQLite's own."""
    path = tmp_path / "new.sqlite"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            set_journal_mode(connection, "WAL", 0.05)
