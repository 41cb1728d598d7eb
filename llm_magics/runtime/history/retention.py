"""Deletion of runs: by age, by size, and on request."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from llm_magics._util.text import reason_of
from llm_magics.errors import HistoryError
from llm_magics.runtime.history.database import (
    delete_all,
    delete_runs,
    open_history,
    release_space,
    size_bytes,
)

# The runs that are deleted in one transaction, so that other kernels wait for a moment only.
_STEP = 500

# A deletion because of the size continues to this share of the limit, in a few rounds.
_SLACK, _ROUNDS = 0.9, 4


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the history: its size in bytes and its age in days."""

    max_bytes: int
    max_days: float


def enforce(connection: sqlite3.Connection, limits: Limits, now: float) -> int:
    """Delete the runs that exceed the limits, oldest first; return their number."""
    oldest = datetime.fromtimestamp(now, UTC) - timedelta(days=limits.max_days)
    count = _delete(connection, "WHERE time < ?", (f"{oldest:%Y-%m-%d %H:%M:%S}",))
    if count:
        release_space(connection)
    for _ in range(_ROUNDS):
        size = size_bytes(connection)
        if size <= limits.max_bytes:
            break
        # The size is known only afterwards, because the index has to be merged.
        runs = connection.execute("SELECT count(*) FROM run").fetchone()[0]
        surplus = math.ceil(runs * (1 - _SLACK * limits.max_bytes / size))
        count += _delete(connection, "", (), surplus)
        release_space(connection)
    return count


def _delete(
    connection: sqlite3.Connection,
    where: str,
    values: tuple[str, ...],
    limit: float = math.inf,
) -> int:
    """Delete the oldest runs, at most ``limit``, and return their number."""
    count = 0
    while count < limit:
        query = f"SELECT serial FROM run {where} ORDER BY time LIMIT ?"  # noqa: S608 (constants)
        step = min(_STEP, limit - count)
        serials = [row[0] for row in connection.execute(query, (*values, step))]
        if not serials:
            break
        delete_runs(connection, serials)
        count += len(serials)
    return count


def forget(path: Path, ids: Sequence[str] | None) -> int:
    """
    Delete runs and their contents; return their number.

    Args:
        path: the history.
        ids: the identifiers of the runs; ``None`` deletes all.

    Raises:
        HistoryError: the file cannot be changed.
    """
    try:
        with closing(open_history(path)) as connection:
            count = delete_all(connection) if ids is None else _forget(connection, ids)
            release_space(connection)
    except (sqlite3.Error, OSError) as error:
        msg = f"Could not change the history {path}: {reason_of(error)}."
        raise HistoryError(msg, hint="Check the permissions of the file and its folder.") from None
    return count


def _forget(connection: sqlite3.Connection, ids: Sequence[str]) -> int:
    count = 0
    for start in range(0, len(ids), _STEP):
        step = ids[start : start + _STEP]
        marks = ", ".join("?" * len(step))
        query = f"SELECT serial FROM run WHERE id IN ({marks})"  # noqa: S608 (marks)
        serials = [row[0] for row in connection.execute(query, step)]
        delete_runs(connection, serials)
        count += len(serials)
    return count
