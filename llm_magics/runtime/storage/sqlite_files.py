"""What the SQLite files of this package share: transactions, damage, and closing after a fork."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Errors of a damaged or foreign file. All others are temporary: locked, full, read-only.
_DAMAGED = ("malformed", "not a database", "disk image", "no such table", "no such column")

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
