"""
A cache of answers in SQLite, by a digest of all that decides them.

The file is SQLite with a write-ahead log: several kernels read and write it at once, and one
that is killed in the middle of a write leaves it intact. Values are bytes, never pickles. When
it grows over its bound the values that were used least recently go. A cache must never be the
reason why a call fails: a damaged file is set aside, a busy or full disk is done without. Each
value is stored with a checksum over its key and itself: a damaged one is dropped.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from llm_magics._util.text import reason_of
from llm_magics.host import warn

_T = TypeVar("_T")

# The overhead of a value: its key, its row and their index entries.
_ROW_BYTES = 120

# An eviction goes on to this part of the bound, so that not every value after it evicts again.
_SLACK = 0.9

# How long another kernel's write is waited for, to write and to read.
_BUSY_S, _READ_S = 5.0, 0.25

# So long a file that cannot be used is left alone.
_REST_S = 60.0

# When a value was used is noted to this precision: reading must not mean writing.
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

# What a stored value begins with, and the size of the checksum behind it.
_SEAL, _SUM_BYTES = b"\x02", 8

# The version of the format: values of the first one, 0, have no checksums.
_VERSION = 2

# Values of the first version that are brought to this one in one transaction.
_STEP = 500

# Errors of a damaged or foreign file. Others are temporary: locked, full, read-only.
_DAMAGED = ("malformed", "not a database", "disk image", "no such table", "no such column")


@dataclass(frozen=True, slots=True)
class CacheSize:
    """How much is stored."""

    entries: int
    bytes: int


class Cache:
    """
    Bytes by key, in a file that is created on first use.

    Safe to use from several threads and processes.
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

    def get(self, key: bytes) -> bytes | None:
        """Return the value of ``key``, if it is stored."""
        return self.get_all([key]).get(key)

    def get_all(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the values of those ``keys`` that are stored."""
        # While another thread holds the lock for writing, nothing is found.
        return self._run(lambda connection: self._find(connection, keys), {}, _READ_S)

    def put(self, key: bytes, value: bytes) -> None:
        """Store ``value`` under ``key``."""
        self.put_all([(key, value)])

    def put_all(self, values: Iterable[tuple[bytes, bytes]]) -> None:
        """Store several values in one transaction."""
        now = self._clock()
        rows = [(key, now, len(value) + _ROW_BYTES, _seal(key, value)) for key, value in values]

        def put(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                # Not REPLACE, which would remove a row without its trigger.
                connection.executemany("DELETE FROM kept WHERE key = ?", [row[:1] for row in rows])
                connection.executemany("INSERT INTO kept VALUES (?, ?, ?, ?)", rows)
                self._evict(connection)

        self._run(put, None)

    def clear(self) -> CacheSize:
        """Forget all; how much that was."""
        size = self.size()

        def clear(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.execute("DELETE FROM kept")
            connection.execute("VACUUM")

        self._run(clear, None)
        return size

    def size(self) -> CacheSize:
        """Return how much is stored."""
        query = "SELECT (SELECT count(*) FROM kept), size FROM total"
        return self._run(
            lambda connection: CacheSize(*connection.execute(query).fetchone()), CacheSize(0, 0)
        )

    def close(self) -> None:
        """Close the file; it is opened again when used."""
        with self._lock:
            self._close_connection()

    def _evict(self, connection: sqlite3.Connection) -> None:
        size = connection.execute("SELECT size FROM total").fetchone()[0]
        if size <= self._bound_bytes:
            return
        # The count itself may be damaged, and would have everything deleted.
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
        """Another's write is not waited for: the value is there already."""
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            with _transaction(connection):
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
        """Delete damaged values; those of them that only their index had lost."""
        found: dict[bytes, bytes] = {}
        with _transaction(connection):
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
        """What ``work`` gives; ``otherwise`` where something is wrong with the file."""
        if self._clock() < self._rests_until or not self._lock.acquire(timeout=timeout_s):
            return otherwise
        try:
            try:
                connection = self._opened(timeout_s)
                connection.execute(f"PRAGMA busy_timeout = {int(timeout_s * 1000)}")
                return work(connection)
            except sqlite3.DatabaseError as error:
                is_mine = self._file == _file_id(self.path)
                self._close_connection()
                if not _is_damaged(error):
                    self._disable(error)
                elif is_mine:  # else another kernel has begun a new one already
                    self._set_aside(error)
            except OSError as error:
                self._close_connection()
                self._disable(error)
        finally:
            self._lock.release()
        return otherwise

    def _opened(self, timeout_s: float) -> sqlite3.Connection:
        if self._connection is None or self._process != os.getpid():  # not across a fork
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=timeout_s, isolation_level=None, check_same_thread=False
            )
            self._connection, self._process = connection, os.getpid()
            # Closed when the cache is garbage collected, at the latest at Python's exit.
            self._close = weakref.finalize(self, _close_in, self._process, connection)
            self._file = _file_id(self.path)
            _refuse_foreign(connection)
            self.path.chmod(0o600)  # prompts are private
            connection.execute("PRAGMA journal_mode = WAL")
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
        aside = self.path.with_name(f"{self.path.name}.damaged-{int(self._clock())}")
        try:
            os.replace(self.path, aside)
        except OSError:  # another kernel was quicker
            return
        for ending in ("-wal", "-shm"):  # they belong to it, and would spoil the next
            beside = self.path.with_name(f"{self.path.name}{ending}")
            with suppress(OSError):
                os.replace(beside, aside.with_name(f"{aside.name}{ending}"))
        saved = self._restore_from(aside)
        warn(
            f"The cache {self.path} is damaged ({reason_of(error)}). It was renamed to {aside.name}, "
            f"and a new one was created{f' with its {saved:,} intact answers' if saved else ''}."
        )

    def _restore_from(self, aside: Path) -> int:
        """Take over the values of a damaged file whose checksums are right; how many."""
        intact: dict[bytes, tuple[float, bytes]] = {}
        with suppress(sqlite3.Error, OSError), closing(sqlite3.connect(aside)) as damaged:
            for query in (_FROM_THE_START, _FROM_THE_END):  # up to the damage
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
            with _transaction(connection):
                connection.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?, ?, ?)", saved)
        except (sqlite3.Error, OSError):
            self._close_connection()
            return 0
        return len(saved)

    def _disable(self, error: Exception) -> None:
        self._rests_until = self._clock() + _REST_S
        if not self._is_off:  # said once
            self._is_off = True
            warn(f"Could not use the cache {self.path}: {reason_of(error)}.")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Open a transaction that locks the database for writing at once; roll back on an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _file_id(path: Path) -> tuple[int, int] | None:
    """Tells a file from another of its name."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _is_damaged(error: sqlite3.DatabaseError) -> bool:
    return any(words in str(error) for words in _DAMAGED)


def _checksum(key: bytes, value: bytes) -> bytes:
    return blake2b(
        value, digest_size=_SUM_BYTES, key=blake2b(key, digest_size=32).digest()
    ).digest()


def _seal(key: bytes, value: bytes) -> bytes:
    """Return ``value`` in the form in which it is stored, behind its checksum."""
    return _SEAL + _checksum(key, value) + value


def _unseal(key: object, sealed: object) -> bytes | None:
    """The value in ``sealed``; ``None`` where it is not what was stored under ``key``."""
    if not isinstance(key, bytes) or not isinstance(sealed, bytes):
        return None
    start = len(_SEAL) + _SUM_BYTES
    value = sealed[start:]
    return value if sealed[:start] == _SEAL + _checksum(key, value) else None


def _is_damaged_value(key: bytes, sealed: object) -> bool:
    """Whether a value was stored here and has changed; what another program put there has not."""
    if not isinstance(sealed, bytes):
        return False
    return sealed.startswith(_SEAL) or _unseal(key, _SEAL + sealed[1:]) is not None


def _refuse_foreign(connection: sqlite3.Connection) -> None:
    """
    Refuse the database of another program.

    Raises:
        OSError: it is one.
    """
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if names and "kept" not in names:
        msg = "it is the database of another program"
        raise OSError(msg)


def _migrate(connection: sqlite3.Connection) -> None:
    """Give the values of the first version their checksums."""
    if connection.execute("PRAGMA user_version").fetchone()[0] >= _VERSION:
        return
    last = -1
    while True:
        with _transaction(connection):
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
            # Another kernel may have begun with it.
            old = [
                (_seal(key, value), len(value) + len(_SEAL) + _SUM_BYTES + _ROW_BYTES, row)
                for row, key, value in rows
                if isinstance(value, bytes) and _unseal(key, value) is None
            ]
            connection.executemany("UPDATE kept SET value = ?, size = ? WHERE rowid = ?", old)
            last = rows[-1][0]


def _close_in(process: int, connection: sqlite3.Connection) -> None:
    """Close ``connection`` if this is the process that opened it: not in a fork of it."""
    if process == os.getpid():
        connection.close()
