"""
A file of entries that are not in the history's database yet.

Each process appends to its own file, which takes microseconds and needs no lock.
What a killed process leaves there is stored by the next one.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from llm_magics._util.filesystem import FileLock

_NAME = "runs.jsonl"

# A drained file is emptied when it is larger than this.
_MAX_BYTES = 1_000_000


class Spool:
    """The entries of this process; `add` may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        """
        Create a file in a new folder inside ``folder``.

        Raises:
            OSError: it cannot be created.
        """
        own = folder / f"{os.getpid()}-{uuid4().hex[:12]}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # prompts are private
        own.mkdir(mode=0o700)
        self._folder = own
        self._lock = threading.Lock()
        self._held = FileLock.try_acquire(own)  # it ends with the process
        how = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._file = os.open(own / _NAME, how, 0o600)
        self._read = self._written = 0

    def add(self, line: bytes) -> None:
        """
        Append a line.

        Raises:
            OSError: it cannot be written.
        """
        with self._lock:
            left = memoryview(line)
            while left:
                left = left[os.write(self._file, left) :]
            self._written += len(line)

    @property
    def is_empty(self) -> bool:
        """Whether all lines are stored."""
        return self._read == self._written

    def lines(self, limit: int) -> tuple[list[bytes], int]:
        """Return the next lines, of about ``limit`` bytes, and the position after them."""
        with self._lock:
            size = self._written - self._read
        data = _read_at(self._file, self._read, min(size, limit))
        end = data.rfind(b"\n") + 1
        if not end and size > limit:  # one line is longer than the limit
            data = _read_at(self._file, self._read, size)
            end = data.find(b"\n") + 1
        return data[:end].splitlines(), self._read + end

    def done(self, position: int) -> None:
        """Note that the lines before ``position`` are stored; empty a long file."""
        with self._lock:
            self._read = position
            if self._read == self._written > _MAX_BYTES:
                os.ftruncate(self._file, 0)
                self._read = self._written = 0

    def close(self, *, is_stored: bool) -> None:
        """Close the file, and delete it if all of its lines are stored."""
        with self._lock:
            os.close(self._file)
            if is_stored and self.is_empty:
                shutil.rmtree(self._folder, ignore_errors=True)
            if self._held is not None:
                with suppress(OSError):
                    self._held.release()


def _read_at(file: int, position: int, size: int) -> bytes:
    if sys.platform != "win32":
        return os.pread(file, size, position)
    os.lseek(file, position, os.SEEK_SET)  # appending does not use this position
    return os.read(file, size)


def abandoned(folder: Path) -> Iterator[tuple[list[bytes], Path]]:
    """
    Yield the complete lines of each process that has ended, and the folder to delete after them.

    The folder is locked until the next one is asked for.
    """
    for own in sorted(folder.glob("*-*")) if folder.exists() else ():
        try:
            lock = FileLock.try_acquire(own)
        except OSError:  # another process has deleted it
            continue
        if lock is None:
            continue
        try:
            data = b""
            with suppress(OSError):
                data = (own / _NAME).read_bytes()
            yield data[: data.rfind(b"\n") + 1].splitlines(), own
        finally:
            with suppress(OSError):
                lock.release()
