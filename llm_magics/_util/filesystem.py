"""Atomic writes, file locks, display of paths, and bounded reading of YAML."""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import Any

# The shortest and the longest delay between two attempts to lock.
_MIN_DELAY_S, _MAX_DELAY_S = 0.002, 0.05


def atomic_write(path: Path, text: str, *, is_private: bool = False) -> None:
    """
    Write ``text`` to ``path`` atomically: a reader sees either the old or the new content.

    Only the user can read a file that ``is_private``.

    Raises:
        OSError: it cannot be written; ``path`` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.{os.getpid()}-{get_ident()}.part")
    try:
        if is_private:
            half.touch(mode=0o600, exist_ok=False)
        half.write_text(text, "utf-8", newline="\n")
        os.replace(half, path)
    except BaseException:
        with suppress(OSError):
            half.unlink(missing_ok=True)
        raise


def append_lines(path: Path, lines: bytes, *, is_locked: bool) -> None:
    """
    Append complete ``lines`` to ``path``; if the file does not end with a newline, one is added
    first.

    With ``is_locked``, no other process writes to the file, so a partial write can be undone.

    Raises:
        OSError: they cannot be written; the file is unchanged.
    """
    how = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    file = os.open(path, how, 0o666)
    try:
        size = os.fstat(file).st_size
        if size:
            os.lseek(file, size - 1, os.SEEK_SET)
            if os.read(file, 1) != b"\n":
                lines = b"\n" + lines
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(file, left) :]
        except OSError:
            if is_locked:
                with suppress(OSError):
                    os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


@contextmanager
def locked(path: Path, timeout_s: float = 10.0) -> Iterator[bool]:
    """
    Hold an advisory lock for ``path``, which excludes other processes and threads that use it.

    The lock is on the folder of ``path``, because ``path`` itself may be replaced, so that no lock
    file remains. On Windows, which cannot lock folders, it is on the file ``<path>.lock``.

    Yields:
        Whether the lock is held: ``False`` after ``timeout_s``, or if the file system has no locks.
    """
    lock = _lock_file(path)
    if lock is None:
        yield False
        return
    try:
        is_locked = _acquire(lock, timeout_s)
        try:
            yield is_locked
        finally:
            if is_locked:
                _unlock(lock)
    finally:
        os.close(lock)


class FileLock:
    """An advisory lock on a folder or a file, which ends at the latest with its process."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @classmethod
    def try_acquire(cls, folder: Path) -> FileLock | None:
        """
        Return the lock on ``folder``; ``None`` if another process or thread holds it.

        Raises:
            OSError: the file system has no locks, or the folder does not exist.
        """
        handle = _lock_file(folder / "lock")
        if handle is None:
            raise FileNotFoundError(folder)
        return cls._try(handle)

    @classmethod
    def try_acquire_file(cls, path: Path, timeout_s: float) -> FileLock | None:
        """
        Return the lock on the file ``path``; ``None`` if another process or thread holds it.

        It waits up to ``timeout_s``, because others hold the lock for a moment to look for it.

        On Windows, where a locked file could not be read, it is on the file ``<path>.lock``.

        Raises:
            OSError: the file system has no locks, or the file does not exist.
        """
        handle = _open_to_lock(path)
        return cls(handle) if _acquire(handle, timeout_s) else cls._try(handle)

    @classmethod
    def _try(cls, handle: int) -> FileLock | None:
        try:
            _lock(handle)
        except OSError as error:
            os.close(handle)
            if error.errno in _TAKEN:
                return None
            raise
        return cls(handle)

    def release(self) -> None:
        """End the lock."""
        _unlock(self._handle)
        os.close(self._handle)


_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


def _acquire(lock: int, timeout_s: float) -> bool:
    end, delay_s = time.monotonic() + timeout_s, _MIN_DELAY_S
    while True:
        try:
            _lock(lock)
        except OSError as error:
            if error.errno not in _TAKEN or time.monotonic() > end:
                return False
        else:
            return True
        time.sleep(delay_s)
        delay_s = min(2 * delay_s, _MAX_DELAY_S)


if sys.platform == "win32":
    import msvcrt

    def _lock_file(path: Path) -> int | None:
        try:
            return os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return None

    def _open_to_lock(path: Path) -> int:
        return os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)

    def _lock(lock: int) -> None:
        msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)

    def _unlock(lock: int) -> None:
        os.lseek(lock, 0, os.SEEK_SET)
        msvcrt.locking(lock, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock_file(path: Path) -> int | None:
        try:
            return os.open(path.parent, os.O_RDONLY)
        except OSError:
            return None

    def _open_to_lock(path: Path) -> int:
        return os.open(path, os.O_RDWR)

    def _lock(lock: int) -> None:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(lock: int) -> None:
        fcntl.flock(lock, fcntl.LOCK_UN)


def display_path(path: Path) -> str:
    """
    Return ``path`` relative to the working directory, or to the home directory with ``~``.

    The output of a notebook is then the same on every machine, and does not contain the user's
    name.
    """
    try:
        path = path.absolute()
        if path.is_relative_to(Path.cwd()):
            return path.relative_to(Path.cwd()).as_posix()
        if path.is_relative_to(Path.home()):
            return f"~/{path.relative_to(Path.home()).as_posix()}"
    except (OSError, RuntimeError):  # no working directory, or no home directory
        pass
    return path.as_posix()


_MAX_CHARACTERS = 200_000
# The maximum number of values, with all aliases expanded.
_MAX_VALUES = 50_000
_MAX_DEPTH = 40
# PyYAML takes quadratic time to convert digits.
_NUMBER = re.compile(r"[-+0-9a-fA-FxXob_:.]{1000,}")


def load_yaml(text: str, *, unique_keys: bool = False) -> Any:
    """
    Return the value in ``text``.

    Raises:
        ValueError: it is invalid YAML, has an invalid value, or is too large or too deep; aliases
            count with their expanded size. With ``unique_keys``, also if a mapping has a key
            twice; otherwise its last value is returned.
    """
    import yaml

    if len(text) > _MAX_CHARACTERS:
        msg = f"more than {_MAX_CHARACTERS:,} characters"
        raise ValueError(msg)
    try:
        _check_size(text)
        if unique_keys:
            _check_keys(text)
        return yaml.safe_load(text)
    except Exception as error:  # PyYAML's constructors raise many types
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from None


def _check_size(text: str) -> None:
    """Check the number of values before any is created; an alias counts with its expanded size."""
    import yaml

    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []  # anchors, and the counts before them
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                msg = f"the alias *{event.anchor} is undefined or refers to itself"
                raise ValueError(msg)
            count += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
            if event.style is None and _NUMBER.fullmatch(event.value):
                msg = "a number with more than 1,000 digits"
                raise ValueError(msg)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes |= {anchor: count - before} if anchor else {}
        if count > _MAX_VALUES:
            msg = f"it has more than {_MAX_VALUES:,} values when its aliases are written out"
            raise ValueError(msg)
        if len(open_) > _MAX_DEPTH:
            msg = f"it has more than {_MAX_DEPTH} levels"
            raise ValueError(msg)


def _check_keys(text: str) -> None:
    """Check that no mapping has a key twice."""
    import yaml

    open_, seen = [yaml.compose(text, Loader=yaml.SafeLoader)], set()
    while open_:
        node = open_.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            open_ += node.value
        elif isinstance(node, yaml.MappingNode):
            open_ += [value for _, value in node.value]
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            counts = Counter(key.value for key in keys)
            if twice := next((key for key in keys if counts[key.value] > 1), None):
                line = twice.start_mark.line + 1
                msg = f"the key {twice.value!r:.60} in line {line} occurs more than once"
                raise ValueError(msg)
