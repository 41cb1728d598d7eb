"""What the SQLite files of this package share: transactions, journal mode, damage, and closing after a fork."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Errors of a damaged or foreign file. All others are temporary: locked, full, read-only.
_DAMAGED = ("malformed", "not a database", "disk image", "no such table", "no such column")

# The interval between two attempts to set the journal mode, in seconds.
_RETRY_S = 0.01

# The endings of files that SQLite writes next to a database.
_COMPANIONS = ("-wal", "-shm", "-journal")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Open a transaction that immediately locks the database for writing; roll back on an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def set_journal_mode(connection: sqlite3.Connection, mode: str, timeout_s: float) -> None:
    """
    Set the journal mode, and wait while other connections use the database.

    SQLite itself does not wait if two connections change the mode of a new file at the same time.

    Raises:
        sqlite3.OperationalError: the database is still in use after ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(_RETRY_S)


def file_id(path: Path) -> tuple[int, int] | None:
    """Return what identifies a file even if another one replaces it under the same name."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def is_damaged(error: sqlite3.DatabaseError) -> bool:
    """Return whether an error is of a damaged or foreign file, and not temporary."""
    return any(words in str(error) for words in _DAMAGED)


def set_aside(path: Path, seconds: float) -> Path | None:
    """
    Rename a damaged file and its companions, so that a new one can be created.

    Returns:
        the new path; ``None`` if the file cannot be renamed, or another kernel has done so.
    """
    aside = path.with_name(f"{path.name}.damaged-{int(seconds)}")
    try:
        os.replace(path, aside)
    except OSError:
        return None
    for ending in _COMPANIONS:  # they belong to this file, and would damage the new one
        with suppress(OSError):
            os.replace(f"{path}{ending}", f"{aside}{ending}")
    return aside


def close_in(process: int, connection: sqlite3.Connection) -> None:
    """Close ``connection`` in the process that opened it, but not in a fork of it."""
    if process == os.getpid():
        connection.close()
