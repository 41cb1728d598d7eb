"""
Storing of entries: at once in a file of this process, and soon in the history's database.

`History.add` takes microseconds. A thread moves the entries into the database, deletes what is too
old or too much, and stores what killed processes have left. A failure of the history is a
warning, and never an error of the call.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

from llm_magics._util.filesystem import display_path
from llm_magics._util.text import reason_of
from llm_magics.host import current_host, warn
from llm_magics.runtime.history import database, retention
from llm_magics.runtime.history.database import insert_entries, open_history
from llm_magics.runtime.history.entries import Details, Origin, decode_entry, encode_entry
from llm_magics.runtime.history.retention import Limits
from llm_magics.runtime.history.spool import Spool, abandoned
from llm_magics.runtime.response import Response
from llm_magics.runtime.storage.run_log import Run
from llm_magics.runtime.storage.sqlite_files import is_damaged, set_aside
from llm_magics.settings.files import user_settings_file

# The time in which entries gather before they are stored together, in seconds.
_GATHER_S = 0.1

# The size of the entries that are stored in one transaction, in bytes.
_STEP_BYTES = 4_000_000

# The maximum time to wait for the thread when Python exits, in seconds; the next process does the
# rest.
_CLOSE_S = 5.0

# The time between two attempts to use a file that is locked, and the number of attempts.
_REST_S, _MAX_FAILURES = 5.0, 20

# The number of new entries after which the limits are checked.
_CHECK_EVERY = 1_000


class History:
    """The history of this process: a database that it shares with all others."""

    def __init__(
        self,
        path: Path,
        limits: Limits,
        *,
        with_contents: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Start without opening the file.

        Args:
            path: the database; entries that are not in it yet are in a folder next to it.
            limits: how large and how old the history may become.
            with_contents: whether prompts and answers are stored.
            clock: returns the time in seconds since 1970.
        """
        self.path = path
        self.limits = limits
        self._with_contents = with_contents
        self._clock = clock
        self._session = uuid4().hex[:12]
        self._process = os.getpid()
        self._is_off = False
        self._spool: Spool | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._is_closing = False
        self._is_urgent = False  # a thread waits for the entries
        self._is_idle = False  # the thread of the history waits for an entry
        self._unchecked = _CHECK_EVERY
        self._failures = 0  # attempts to use the database that have failed

    @property
    def spool_folder(self) -> Path:
        """The folder of entries that are not in the database yet."""
        return self.path.with_name(f"{self.path.name}.new")

    def add(self, run: Run, response: Response, details: Details) -> None:
        """Store a call. A failure is a warning, the first time."""
        try:
            with self._lock:
                spool = self._opened()
            origin = Origin(self._session, current_host().notebook())
            line = encode_entry(run, response, details, origin, with_contents=self._with_contents)
            if spool is not None:
                spool.add(line)
                self._wake()
        except Exception as error:  # a paid answer must not be lost because of its history
            self._disable(error)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all entries of this process are in the database; return whether they are."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        with self._news:
            while self._spool is not None and not self._spool.is_empty:
                if self._thread is None or not self._thread.is_alive():
                    return False
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._is_urgent = True
                self._news.notify_all()
                self._news.wait(0.5 if left is None else min(left, 0.5))
        return True

    def close(self) -> None:
        """Store the remaining entries, and end the thread; the history is opened again on the next use."""
        with self._news:
            self._is_closing = True
            self._news.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_S)
        with self._lock:
            if self._spool is not None:
                self._spool.close(is_stored=thread is not None and not thread.is_alive())
            self._spool = self._thread = None
            self._is_closing = False

    def _opened(self) -> Spool | None:
        """Return the file of new entries; ``None`` if the history has failed before."""
        if self._process != os.getpid():  # a fork does not have the thread and lock of its parent
            self._process, self._spool, self._thread = os.getpid(), None, None
            self._session = uuid4().hex[:12]
        if self._spool is None and not self._is_off:
            if not self.path.exists():
                current_host().note(
                    f"Calls are now stored in {display_path(self.path)}, with prompts and answers"
                    " but without keys: lm.history(). To turn this off, put  history: off  into "
                    f"{display_path(user_settings_file())}"
                )
            self._spool = Spool(self.spool_folder)
        return self._spool

    def _wake(self) -> None:
        with self._news:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._work, name="llm_magics history", daemon=True
                )
                self._thread.start()
            if self._is_idle:  # otherwise it looks again by itself; to be woken costs each call
                self._is_idle = False
                self._news.notify_all()

    def _work(self) -> None:
        """Store entries until the history is closed, or cannot be used at all."""
        spool = self._spool
        assert spool is not None
        while True:
            try:
                with closing(open_history(self.path)) as connection:
                    database.check(connection)
                    self._store_abandoned(connection)
                    self._store_until_closed(connection, spool)
                return
            except sqlite3.DatabaseError as error:
                if is_damaged(error):
                    self._replace_damaged(error)
                if not self._rests(error):
                    return
            except OSError as error:
                self._disable(error)
                return

    def _store_until_closed(self, connection: sqlite3.Connection, spool: Spool) -> None:
        while True:
            self._store(connection, spool)
            with self._news:
                self._is_urgent = self._is_urgent and not spool.is_empty
                self._news.notify_all()
                if self._is_closing and spool.is_empty:
                    return
                if spool.is_empty:
                    self._is_idle = True
                    self._news.wait()
                    self._is_idle = False
                self._news.wait_for(lambda: self._is_urgent or self._is_closing, _GATHER_S)

    def _replace_damaged(self, error: sqlite3.DatabaseError) -> None:
        """Rename a damaged file, so that a new one is created."""
        aside = set_aside(self.path, self._clock())
        if aside is not None:  # otherwise another kernel has renamed it
            warn(
                f"The history {self.path} is damaged ({reason_of(error)}). It was renamed to "
                f"{aside.name}, and a new one was created."
            )

    def _rests(self, error: sqlite3.DatabaseError) -> bool:
        """
        Wait after an error that may be temporary; return whether to try again.

        The entries stay in the file of this process.
        """
        self._failures += 1
        with self._news:
            if self._failures > 1 and not is_damaged(error):
                self._news.wait_for(lambda: self._is_closing, _REST_S)
            is_over = self._is_closing and self._failures > 1
        if self._failures == _MAX_FAILURES:
            self._disable(error)
        return not is_over and self._failures < _MAX_FAILURES

    def _store(self, connection: sqlite3.Connection, spool: Spool) -> None:
        while not spool.is_empty:
            lines, position = spool.lines(_STEP_BYTES)
            self._unchecked += _insert(connection, lines)
            spool.done(position)
            self._failures = 0
        if self._unchecked >= _CHECK_EVERY:
            self._unchecked = 0
            retention.enforce(connection, self.limits, self._clock())

    def _store_abandoned(self, connection: sqlite3.Connection) -> None:
        for lines, folder in abandoned(self.spool_folder):
            _insert(connection, lines)
            shutil.rmtree(folder, ignore_errors=True)

    def _disable(self, error: Exception) -> None:
        with self._news:
            was_off, self._is_off = self._is_off, True
            self._news.notify_all()
        if not was_off:  # warn only once
            warn(f"Could not store calls in the history {self.path}: {reason_of(error)}.")


# Errors of an entry whose values have other types than those that are written here.
_INVALID = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)


def _insert(connection: sqlite3.Connection, lines: list[bytes]) -> int:
    """Store the entries in ``lines``, and return their number; invalid ones are left out."""
    entries = [entry for line in lines if (entry := decode_entry(line)) is not None]
    try:
        return insert_entries(connection, entries)
    except _INVALID:
        count = 0
        for entry in entries:
            with suppress(*_INVALID):
                count += insert_entries(connection, [entry])
        return count
