"""
A cache of answers in SQLite, by a digest of everything that determines them.

The SQLite file uses a write-ahead log: several kernels can read and write it concurrently, and a
kernel that is killed while writing leaves it intact. Values are bytes, never pickles. When the file
exceeds its limit, the least recently used values are deleted. The cache must never make a call
fail: a damaged file is renamed, and a locked or full disk is ignored. Each value is stored with a
checksum of its key and itself; a damaged value is deleted.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from llm_magics._util.text import reason_of
from llm_magics.host import warn
from llm_magics.runtime.storage.sqlite_files import (
    close_in,
    file_id,
    is_damaged,
    set_aside,
    set_journal_mode,
    transaction,
)

_T = TypeVar("_T")

# The overhead of a value, in bytes: its key, its row and their index entries.
_ROW_BYTES = 120

# An eviction continues to this share of the limit, so that not every new value causes another one.
_SLACK = 0.9

# The maximum time to wait for another kernel's write, in seconds, when writing and when reading.
_BUSY_S, _READ_S = 5.0, 0.25

# The time for which an unusable file is not tried again, in seconds.
_REST_S = 60.0

# The precision of the time of last use, in seconds, so that not every read causes a write.
_USED_STEP_S = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (
    key BLOB PRIMARY KEY, used REAL NOT NULL, size INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS by_use ON kept (used, size);
CREATE TABLE IF NOT EXISTS total (id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER NOT NULL);
INSERT OR IGNORE INTO total VALUES (1, 0);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON kept BEGIN
    UPDATE total SET size = size + NEW.size; END;
CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON kept BEGIN
    UPDATE total SET size = size - OLD.size; END;
"""

_FROM_THE_START = "SELECT key, used, value FROM kept ORDER BY rowid"
_FROM_THE_END = f"{_FROM_THE_START} DESC"
_RECOUNT = "UPDATE kept SET size = length(value) + ? WHERE size IS NOT length(value) + ?"

# The prefix of a stored value, and the size of the checksum after it.
_SEAL, _SUM_BYTES = b"\x02", 8

# The version of the format. Values of version 0 have no checksums.
_VERSION = 2

# The number of values of version 0 that are converted in one transaction.
_STEP = 500


@dataclass(frozen=True, slots=True)
class CacheSize:
    """The number of stored values, and their size."""

    entries: int
    bytes: int


class Cache:
    """
    A cache of bytes by key, in a file that is created on first use.

    It can be used from several threads and processes.
    """

    def __init__(
        self, path: Path, bound_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self._bound_bytes = bound_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._close: Callable[[], None] | None = None
        self._process = 0
        self._file: tuple[int, int] | None = None
        self._is_off = False
        self._rests_until = 0.0
        # Why the file could not be used last.
        self.problem = ""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of ``key``; ``None`` if it is not stored."""
        return self.get_all([key]).get(key)

    def get_all(self, keys: Iterable[bytes], timeout_s: float = _READ_S) -> dict[bytes, bytes]:
        """Return the values of those ``keys`` that are stored."""
        # While another thread holds the lock for writing longer than that, nothing is found.
        return self._run(lambda connection: self._find(connection, keys), {}, timeout_s)

    def put(self, key: bytes, value: bytes) -> None:
        """Store ``value`` under ``key``."""
        self.put_all([(key, value)])

    def put_all(self, values: Iterable[tuple[bytes, bytes]]) -> bool:
        """Store several values in one transaction; return whether they are stored."""
        now = self._clock()
        rows = [(key, now, len(value) + _ROW_BYTES, _seal(key, value)) for key, value in values]

        def put(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                # Not REPLACE, which would delete a row without running its trigger.
                connection.executemany("DELETE FROM kept WHERE key = ?", [row[:1] for row in rows])
                connection.executemany("INSERT INTO kept VALUES (?, ?, ?, ?)", rows)
                self._evict(connection)
            return True

        return self._run(put, False)

    def clear(self) -> CacheSize:
        """Delete all values; return their number and size."""
        size = self.size()

        def clear(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.execute("DELETE FROM kept")
            connection.execute("VACUUM")

        self._run(clear, None)
        return size

    def size(self) -> CacheSize:
        """Return the number and the size of the stored values."""
        query = "SELECT (SELECT count(*) FROM kept), size FROM total"
        return self._run(
            lambda connection: CacheSize(*connection.execute(query).fetchone()), CacheSize(0, 0)
        )

    def close(self) -> None:
        """Close the file; it is opened again on the next use."""
        with self._lock:
            self._close_connection()

    def _evict(self, connection: sqlite3.Connection) -> None:
        size = connection.execute("SELECT size FROM total").fetchone()[0]
        if size <= self._bound_bytes:
            return
        # Count again, because a damaged count could cause the deletion of all values.
        connection.execute(_RECOUNT, (_ROW_BYTES, _ROW_BYTES))
        connection.execute("UPDATE total SET size = (SELECT ifnull(sum(size), 0) FROM kept)")
        size = connection.execute("SELECT size FROM total").fetchone()[0]
        if size <= self._bound_bytes:
            return
        surplus = size - int(self._bound_bytes * _SLACK)
        oldest = connection.execute("SELECT rowid, size FROM kept ORDER BY used")
        going = []
        for row, row_size in oldest:
            going.append((row,))
            surplus -= row_size
            if surplus <= 0:
                break
        connection.executemany("DELETE FROM kept WHERE rowid = ?", going)

    @staticmethod
    def _note_use(connection: sqlite3.Connection, keys: list[bytes], now: float) -> None:
        """Record the time of use, without waiting for another kernel's write."""
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            with transaction(connection):
                connection.executemany(
                    "UPDATE kept SET used = ? WHERE key = ?", [(now, key) for key in keys]
                )
        except sqlite3.OperationalError:
            pass

    def _find(self, connection: sqlite3.Connection, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        stale: list[bytes] = []
        damaged: list[bytes] = []
        now = self._clock()
        for key in keys:
            row = connection.execute("SELECT value, used FROM kept WHERE key = ?", (key,))
            for sealed, used in row.fetchall():
                value = _unseal(key, sealed)
                if value is None:
                    if _is_damaged_value(key, sealed):
                        damaged.append(key)
                    continue
                found[key] = value
                if not isinstance(used, float) or not 0 <= now - used <= _USED_STEP_S:
                    stale.append(key)
        if damaged:
            found |= self._drop_damaged(connection, damaged)
        if stale:
            self._note_use(connection, stale, now)
        return found

    def _drop_damaged(
        self, connection: sqlite3.Connection, keys: list[bytes]
    ) -> dict[bytes, bytes]:
        """Delete damaged values, and return those that are intact after repairing the index."""
        found: dict[bytes, bytes] = {}
        with transaction(connection):
            connection.execute("REINDEX kept")
            for key in keys:
                row = connection.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
                value = _unseal(key, row[0]) if row else None
                if value is None:
                    connection.execute("DELETE FROM kept WHERE key = ?", (key,))
                else:
                    found[key] = value
        lost = len(keys) - len(found)
        if lost:
            warn(
                f"{lost:,} cached answers in {self.path} were damaged and removed; "
                "they will be requested again."
            )
        return found

    def _run(
        self, work: Callable[[sqlite3.Connection], _T], otherwise: _T, timeout_s: float = _BUSY_S
    ) -> _T:
        """Return the result of ``work``; ``otherwise`` if the file is not usable."""
        if self._clock() < self._rests_until or not self._lock.acquire(timeout=timeout_s):
            self.problem = self.problem or "it is busy"
            return otherwise
        try:
            try:
                connection = self._opened(timeout_s)
                connection.execute(f"PRAGMA busy_timeout = {int(timeout_s * 1000)}")
                return work(connection)
            except sqlite3.DatabaseError as error:
                self.problem = reason_of(error)
                is_mine = self._file == file_id(self.path)
                self._close_connection()
                if not is_damaged(error):
                    self._disable(error)
                elif is_mine:  # otherwise another kernel has already replaced it
                    self._set_aside(error)
            except OSError as error:
                self._close_connection()
                self._disable(error)
        finally:
            self._lock.release()
        return otherwise

    def _opened(self, timeout_s: float) -> sqlite3.Connection:
        if self._connection is None or self._process != os.getpid():  # also after a fork
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=timeout_s, isolation_level=None, check_same_thread=False
            )
            self._connection, self._process = connection, os.getpid()
            # Closed when the cache is garbage collected, at the latest when Python exits.
            self._close = weakref.finalize(self, close_in, self._process, connection)
            self._file = file_id(self.path)
            _refuse_foreign(connection)
            self.path.chmod(0o600)  # prompts are private
            set_journal_mode(connection, "WAL", timeout_s)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA journal_size_limit = 8000000")
            connection.executescript(_SCHEMA)
            _migrate(connection)
        return self._connection

    def _close_connection(self) -> None:
        if self._close is not None:
            self._close()
        self._connection = self._close = None

    def _set_aside(self, error: Exception) -> None:
        aside = set_aside(self.path, self._clock())
        if aside is None:
            return
        saved = self._restore_from(aside)
        warn(
            f"The cache {self.path} is damaged ({reason_of(error)}). It was renamed to {aside.name}, "
            f"and a new one was created{f' with its {saved:,} intact answers' if saved else ''}."
        )

    def _restore_from(self, aside: Path) -> int:
        """Copy the intact values of a damaged file to the new one, and return their number."""
        intact: dict[bytes, tuple[float, bytes]] = {}
        with suppress(sqlite3.Error, OSError), closing(sqlite3.connect(aside)) as damaged:
            for query in (_FROM_THE_START, _FROM_THE_END):  # each query reads up to the damage
                with suppress(sqlite3.Error):
                    for key, used, sealed in damaged.execute(query):
                        if _unseal(key, sealed) is not None:
                            intact[key] = (used, sealed)
        saved = [
            (key, used, len(sealed) + _ROW_BYTES, sealed) for key, (used, sealed) in intact.items()
        ]
        if not saved:
            return 0
        try:
            connection = self._opened(_BUSY_S)
            with transaction(connection):
                connection.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?, ?, ?)", saved)
        except (sqlite3.Error, OSError):
            self._close_connection()
            return 0
        return len(saved)

    def _disable(self, error: Exception) -> None:
        self._rests_until = self._clock() + _REST_S
        self.problem = reason_of(error)
        if not self._is_off:  # warn only once
            self._is_off = True
            warn(f"Could not use the cache {self.path}: {reason_of(error)}.")


def _checksum(key: bytes, value: bytes) -> bytes:
    return blake2b(
        value, digest_size=_SUM_BYTES, key=blake2b(key, digest_size=32).digest()
    ).digest()


def _seal(key: bytes, value: bytes) -> bytes:
    """Return ``value`` in its stored form, after its checksum."""
    return _SEAL + _checksum(key, value) + value


def _unseal(key: object, sealed: object) -> bytes | None:
    """Return the value in ``sealed``; ``None`` if it is not what was stored under ``key``."""
    if not isinstance(key, bytes) or not isinstance(sealed, bytes):
        return None
    start = len(_SEAL) + _SUM_BYTES
    value = sealed[start:]
    return value if sealed[:start] == _SEAL + _checksum(key, value) else None


def _is_damaged_value(key: bytes, sealed: object) -> bool:
    """Return whether a value was stored by this class and has changed since."""
    if not isinstance(sealed, bytes):
        return False
    return sealed.startswith(_SEAL) or _unseal(key, _SEAL + sealed[1:]) is not None


def _refuse_foreign(connection: sqlite3.Connection) -> None:
    """
    Check that the database is not another program's.

    Raises:
        OSError: it is.
    """
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if names and "kept" not in names:
        msg = "it is the database of another program"
        raise OSError(msg)


def _migrate(connection: sqlite3.Connection) -> None:
    """Add checksums to the values of the first version."""
    if connection.execute("PRAGMA user_version").fetchone()[0] >= _VERSION:
        return
    last = -1
    while True:
        with transaction(connection):
            rows = connection.execute(
                "SELECT rowid, key, value FROM kept WHERE rowid > ? ORDER BY rowid LIMIT ?",
                (last, _STEP),
            ).fetchall()
            if not rows:
                connection.execute(
                    "UPDATE total SET size = (SELECT ifnull(sum(size), 0) FROM kept)"
                )
                connection.execute(f"PRAGMA user_version = {_VERSION}")
                return
            # Another kernel may have started the migration.
            old = [
                (_seal(key, value), len(value) + len(_SEAL) + _SUM_BYTES + _ROW_BYTES, row)
                for row, key, value in rows
                if isinstance(value, bytes) and _unseal(key, value) is None
            ]
            connection.executemany("UPDATE kept SET value = ?, size = ? WHERE rowid = ?", old)
            last = rows[-1][0]
