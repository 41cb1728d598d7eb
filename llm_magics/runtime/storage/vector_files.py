"""
The files of the vector store: pairs of ``.rows`` and ``.keys``, each with one writing process.

``<name>.<dimensions>.v2.rows`` contains float32 rows. ``<name>.<dimensions>.v2.keys`` contains an
entry of 32 bytes for each row: the key of the text, the number of its row, and a checksum of key,
number and row. So an entry never returns a row for which it was not written, whatever happened to
either file. Rows are flushed to the disk before their entries are written.

In the first version, ``<name>.<dimensions>.keys`` contained only keys of 16 bytes, in the order of
the rows. Such files are converted.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Keys = NDArray[np.uint64]  # of shape (n, 2)
    Sums = NDArray[np.uint64]

KEY_BYTES = 16
FLOAT_BYTES = 4

ENTRY = np.dtype([("key", "<u8", 2), ("row", "<u8"), ("sum", "<u8")])

# The row number of a tombstone: an entry that was damaged and is removed.
_NO_ROW = np.uint64(2**64 - 1)

_NAME = re.compile(r"[0-9a-f]{32}\.([1-9]\d{0,6})(\.v2)?\.keys")

# Files are read in parts of this size, and checksums are computed in parts that fit the CPU cache.
_BLOCK_BYTES = 16_000_000
_SUM_BYTES = 800_000

_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """
    One pair of files, with the sizes it had when it was listed.

    Attributes:
        keys: the file with the entries; ``rows`` is the file with the rows.
        dimensions: the length of each row.
        size: the number of entries.
        written_ns: when the last row was written.
        is_old: whether it has the format of the first version.
    """

    keys: Path
    dimensions: int
    size: int
    written_ns: int
    is_old: bool

    @property
    def rows(self) -> Path:
        """The file with the rows."""
        return self.keys.with_suffix(".rows")


def find_segment(keys: Path) -> Segment | None:
    """Return the segment of a file of entries; ``None`` if it has no entries, or no rows."""
    named = _NAME.fullmatch(keys.name)
    if named is None:
        return None
    is_old = named[2] is None
    try:
        size = keys.stat().st_size // (KEY_BYTES if is_old else ENTRY.itemsize)
        written_ns = keys.with_suffix(".rows").stat().st_mtime_ns
    except OSError:
        return None
    return Segment(
        keys=keys, dimensions=int(named[1]), size=size, written_ns=written_ns, is_old=is_old
    )


def read_entries(segment: Segment) -> NDArray[Any]:
    """Read the entries of a segment; for an old segment that was not converted, compute them."""
    try:
        if segment.is_old:
            entries = _entries_of_old(segment)
            return np.empty(0, ENTRY) if entries is None else entries
        return _without_torn_end(np.fromfile(segment.keys, ENTRY, segment.size))
    except OSError:  # another process has cleared the store
        return np.empty(0, ENTRY)


def _without_torn_end(entries: NDArray[Any]) -> NDArray[Any]:
    """
    Remove zeros at the end, and the entry before them, which may be incomplete.

    A file ends like this if it was not completely flushed before a power failure.
    """
    written = np.flatnonzero(entries.view("<u8").reshape(-1, 4).any(axis=1))
    if len(written) and written[-1] == len(entries) - 1:
        return entries
    return entries[: written[-1]] if len(written) else entries[:0]


# Checksums.


@lru_cache(8)
def _weights(count: int) -> NDArray[np.uint64]:
    """Return odd numbers that are the same on every machine (SplitMix64, from a fixed seed)."""
    step = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (step ^ (step >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) | np.uint64(1)


# The number of words before those of a row: a constant, the four words of its key, and its number.
_HEAD = 6


def checksums(keys: Keys, places: NDArray[np.uint64], rows: Floats) -> Sums:
    """
    Return a checksum of each row with its key and its position in the file.

    It is multilinear hashing (Lemire and Kaser, 2014, https://arxiv.org/abs/1202.4961) of 32-bit
    words modulo 2**64. Weights are odd, so a change of one word is always detected. It is several
    times faster than a CRC, which must be computed row by row.
    """
    weights = _weights(_HEAD + rows.shape[1])
    words = np.ascontiguousarray(rows, "<f4").view("<u4")
    sums = np.full(len(rows), weights[0], np.uint64)
    sums += _dot(np.ascontiguousarray(keys, "<u8").view("<u4"), weights[1:5])
    sums += places.astype(np.uint64) * weights[5]
    sums += _dot(words, weights[_HEAD:])
    return sums


def _dot(words: NDArray[np.uint32], weights: NDArray[np.uint64]) -> Sums:
    out = np.empty(len(words), np.uint64)
    step = max(1, _SUM_BYTES // (8 * words.shape[1]))
    for start in range(0, len(words), step):
        part = words[start : start + step].astype(np.uint64)
        out[start : start + step] = np.einsum("ij,j->i", part, weights)
    return out


# Reading.


def read_rows(
    segment: Segment, entries: NDArray[Any], places: NDArray[np.int64], out: Floats
) -> NDArray[np.bool_] | None:
    """
    Read the rows of ``entries`` into the ``places`` of ``out``.

    It reads blocks in the order of the file: a memory-mapped file causes a page fault for every few
    pages, and reading the whole file takes its size in memory.

    Returns:
        For each entry whether its row is the one that was written; ``None`` if the file cannot be
        read, for example because another process has cleared the store.
    """
    wide = segment.dimensions
    good = np.zeros(len(entries), np.bool_)
    try:
        file = segment.rows.open("rb", buffering=0)
        with file:
            count = os.fstat(file.fileno()).st_size // (wide * FLOAT_BYTES)
            numbers = entries["row"]
            order = np.argsort(numbers, kind="stable")
            order = order[: int(np.searchsorted(numbers[order], np.uint64(count)))]
            rows = numbers[order].astype(np.int64)
            block = max(1, _BLOCK_BYTES // (wide * FLOAT_BYTES))
            done = 0
            while done < len(rows):
                first = int(rows[done])
                end = int(np.searchsorted(rows, first + block))
                some = rows[done:end] - first
                file.seek(first * wide * FLOAT_BYTES)
                block_rows = np.fromfile(file, "<f4", (int(some[-1]) + 1) * wide)
                block_rows = block_rows[: len(block_rows) // wide * wide].reshape(-1, wide)
                if len(block_rows) <= some[-1]:  # truncated in the meantime
                    break
                those = order[done:end]
                found = block_rows if len(block_rows) == end - done else block_rows[some]
                block_entries = entries[those]
                is_good = (
                    checksums(block_entries["key"], block_entries["row"], found)
                    == block_entries["sum"]
                )
                good[those] = is_good
                _put(found, places[those], is_good, out)
                done = end
    except OSError:
        return None
    return good


def _put(
    found: Floats, places: NDArray[np.int64], is_good: NDArray[np.bool_], out: Floats
) -> None:
    if not is_good.all():
        out[places[is_good]] = found[is_good]
        return
    is_run = int(places[-1] - places[0]) == len(places) - 1 and (np.diff(places) > 0).all()
    target = slice(int(places[0]), int(places[-1]) + 1) if is_run else places
    out[target] = found


def write_tombstones(segment: Segment, numbers: NDArray[np.int64]) -> None:
    """Replace damaged entries in their file by tombstones, so that they are reported only once."""
    if segment.is_old:
        return
    entry = np.zeros(1, ENTRY)
    entry["row"] = _NO_ROW
    with suppress(OSError), segment.keys.open("r+b", buffering=0) as file:
        for number in numbers.tolist():
            file.seek(number * ENTRY.itemsize)
            file.write(entry.tobytes())


def are_tombstones(entries: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which entries are tombstones."""
    return np.asarray(entries["row"] == _NO_ROW, np.bool_)


# Writing.


class Writer:
    """
    The pair of files to which this process appends.

    Before each append, both files are compared with their last known state. Files that were
    cleared, truncated or replaced in the meantime are not continued.
    """

    def __init__(self, folder: Path, dimensions: int) -> None:
        """
        Create the files.

        Raises:
            OSError: they cannot be created.
        """
        self._keys = folder / f"{uuid4().hex}.{dimensions}.v2.keys"
        self._process = os.getpid()
        self._row_bytes = dimensions * FLOAT_BYTES
        self._left: list[tuple[int, int, int]] = []
        for path in self._paths:
            created = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
            try:
                self._left.append(_state(created))
            finally:
                os.close(created)

    @property
    def _paths(self) -> tuple[Path, Path]:
        return self._keys.with_suffix(".rows"), self._keys

    def append(self, keys: Keys, rows: Floats, *, is_synced: bool = False) -> bool:
        """
        Append ``rows`` with their ``keys``; if the files have changed, return ``False`` without
        writing. With ``is_synced``, both files are on the disk then.

        Raises:
            OSError: they cannot be written; partial writes are undone.
        """
        if self._process != os.getpid():  # the parent of the fork writes to them
            return False
        opened: list[int] = []
        try:
            for path in self._paths:
                opened += [os.open(path, os.O_WRONLY | os.O_APPEND | _BINARY)]
            if [_state(each) for each in opened] != self._left:
                return False
            self._write(opened[0], opened[1], keys, rows)
            if is_synced:
                os.fsync(opened[1])
            self._left = [_state(each) for each in opened]
        except FileNotFoundError:
            return False
        finally:
            for each in opened:
                os.close(each)
        return True

    def _write(self, rows_file: int, keys_file: int, keys: Keys, rows: Floats) -> None:
        first = self._left[0][2] // self._row_bytes
        entries = np.zeros(len(keys), ENTRY)
        entries["key"] = keys
        entries["row"] = np.arange(first, first + len(keys), dtype=np.uint64)
        entries["sum"] = checksums(keys, entries["row"], rows)
        try:
            _write_all(rows_file, np.ascontiguousarray(rows, "<f4"))
            os.fsync(rows_file)
            _write_all(keys_file, entries)
        except BaseException:
            for file, (_, _, size) in zip((rows_file, keys_file), self._left, strict=True):
                with suppress(OSError):
                    os.ftruncate(file, size)
            raise


def _state(file: int) -> tuple[int, int, int]:
    """Return a value that changes when the file is replaced, or when its length changes."""
    status = os.fstat(file)
    return status.st_dev, status.st_ino if status.st_nlink else -1, status.st_size


def _write_all(file: int, array: NDArray[Any]) -> None:
    left = array.reshape(-1).view(np.uint8).data
    while left:
        left = left[os.write(file, left[:_BLOCK_BYTES]) :]


# The first version.


def convert_segment(segment: Segment) -> bool:
    """
    Convert a segment of the first version to the current one, without copying its rows.

    Returns:
        Whether its vectors can be used. They cannot if there are fewer rows than keys: one of the
            files
        was then truncated or deleted while it was written, so the rows cannot be matched with the
        keys.

    Raises:
        OSError: the new files cannot be written.
    """
    entries = _entries_of_old(segment)
    if entries is None:
        for path in (segment.keys, segment.rows):
            path.unlink(missing_ok=True)
        return False
    target = segment.keys.with_name(f"{uuid4().hex}.{segment.dimensions}.v2.keys")
    part = target.with_suffix(".part")
    try:
        with part.open("wb") as file:
            file.write(entries.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    # If this process ends in between, either the old pair or the new pair is complete.
    os.replace(segment.rows, target.with_suffix(".rows"))
    segment.keys.unlink(missing_ok=True)
    return True


def _entries_of_old(segment: Segment) -> NDArray[Any] | None:
    """Return the entries for an old segment; ``None`` if rows and keys cannot be matched."""
    wide = segment.dimensions
    keys = np.fromfile(segment.keys, "<u8", 2 * segment.size).reshape(-1, 2)
    if len(keys) > segment.rows.stat().st_size // (wide * FLOAT_BYTES):
        return None
    entries = np.zeros(len(keys), ENTRY)
    entries["key"] = keys
    entries["row"] = np.arange(len(keys), dtype=np.uint64)
    block = max(1, _BLOCK_BYTES // (wide * FLOAT_BYTES))
    # After a crash of the machine, data that was not flushed is zero.
    is_whole = np.ones(len(keys), np.bool_)
    with segment.rows.open("rb", buffering=0) as file:
        for start in range(0, len(keys), block):
            part = slice(start, min(start + block, len(keys)))
            count = part.stop - part.start
            rows = np.fromfile(file, "<f4", count * wide).reshape(count, wide)
            entries["sum"][part] = checksums(keys[part], entries["row"][part], rows)
            is_whole[part] = np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1)
    return entries[is_whole]
