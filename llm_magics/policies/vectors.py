"""
Vectors that were paid for once, kept by what decides about them.

A *space* is all that makes vectors comparable: where the model is, which weights, how long
texts are treated. Each space is a folder. A process that adds to it writes two files of its
own, which only grow — 16 bytes of key and one float32 row for each text — so that no lock is
needed, a process may die at any moment, and a half-written end is passed over. Rows are on the
disk before their keys are written: no loss of power makes a key of half a row. What is found
is read straight from the files' pages into the caller's array.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np

from llm_magics.user_code import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Keys = NDArray[np.uint64]  # of shape (n, 2)

_KEY_BYTES = 16
_FLOAT_BYTES = 4

# So much of a file is read at once.
_BLOCK_BYTES = 16_000_000


def keys_of(texts: Iterable[str]) -> Keys:
    """The keys of ``texts``, of shape (n, 2)."""
    digests = [blake2b(text.encode(), digest_size=_KEY_BYTES).digest() for text in texts]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


class _Segment(NamedTuple):
    """What one process has written: the file of its rows, and how many of them are whole (``size``)."""

    rows: Path
    dimensions: int
    size: int
    written_ns: int


class VectorStore:
    """The vectors of one space; safe with several threads, and with several processes."""

    def __init__(self, folder: Path, space: Mapping[str, Any]) -> None:
        """In a folder of its own within ``folder``; nothing is read or made yet."""
        told = json.dumps(space, sort_keys=True, ensure_ascii=False, default=str)
        self.folder = folder / blake2b(told.encode(), digest_size=_KEY_BYTES).hexdigest()
        self._told = told
        self._lock = threading.Lock()
        self._name = uuid4().hex
        self._known: dict[Path, _Segment] = {}
        self._index: tuple[Keys, NDArray[np.int32], NDArray[np.int64]] | None = None
        self._segments: list[_Segment] = []
        self._is_broken = False

    def find(self, keys: Keys, into: Floats | None = None) -> tuple[NDArray[np.bool_], Floats]:
        """
        Which of ``keys`` are kept, and a row for each key; those not found are left as they are.

        Rows come as an array of shape (n, d), or of shape (n, 0) where nothing is kept.
        """
        with self._lock:
            self._read_news()
            found, segments, rows = self._look_up(keys)
            if not found.any():
                return found, np.empty((len(keys), 0), np.float32) if into is None else into
            # Where a model was changed behind its name, those of the newer one count.
            mine = [self._segments[number] for number in np.unique(segments[found])]
            wide = max(mine, key=lambda segment: segment.written_ns).dimensions
            out = np.empty((len(keys), wide), np.float32) if into is None else into
            for number in np.unique(segments[found]):
                segment = self._segments[number]
                mine = found & (segments == number)
                if segment.dimensions != out.shape[1]:
                    found &= ~mine
                    continue
                _read_rows(segment, rows, np.flatnonzero(mine), out)
            # A file that another's crashed machine had not written out is full of zeros.
            hollow = np.flatnonzero(found & (out[:, 0] == 0))
            found[hollow] = out[hollow].any(axis=1)
            if into is None and not found.all():
                out[~found] = np.nan
            return found, out

    def put(self, keys: Keys, rows: Floats) -> None:
        """Keep ``rows``; where nothing can be written they are not, and one warning says so."""
        with self._lock:
            if self._is_broken or not len(keys):
                return
            stem = self.folder / f"{self._name}.{rows.shape[1]}"
            try:
                if not self.folder.exists():
                    self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
                    (self.folder / "space.json").write_text(self._told, encoding="utf-8")
                # The rows first, and onto the disk: a key stands for a row that is whole.
                rows, keys = np.ascontiguousarray(rows, "<f4"), np.ascontiguousarray(keys, "<u8")
                _append(stem.with_suffix(stem.suffix + ".rows"), rows, is_synced=True)
                _append(stem.with_suffix(stem.suffix + ".keys"), keys)
            except OSError as error:
                self._is_broken = True
                msg = f"Vectors cannot be kept in {self.folder}: {error.strerror}."
                warn(msg)

    def __len__(self) -> int:
        """How many texts have one."""
        with self._lock:
            self._read_news()
            return 0 if self._index is None else len(np.unique(self._index[0], axis=0))

    def _look_up(
        self, keys: Keys
    ) -> tuple[NDArray[np.bool_], NDArray[np.int32], NDArray[np.int64]]:
        if self._index is None:
            nothing = np.zeros(len(keys), np.int64)
            return np.zeros(len(keys), bool), nothing.astype(np.int32), nothing
        known, segments, rows = self._index
        order = np.argsort(keys[:, 0])  # to look them up in their order is many times faster
        at = np.empty(len(keys), np.int64)
        at[order] = np.searchsorted(known[:, 0], keys[order, 0])
        at = np.minimum(at, len(known) - 1)
        return (known[at] == keys).all(axis=1), segments[at], rows[at]

    def _read_news(self) -> None:
        """Take in what this process and others have written since."""
        found = ((path, _segment(path)) for path in self.folder.glob("*.keys"))
        whole = [(path, each) for path, each in found if each and each.size]
        # The newest first: of a text that was paid for twice its last vector is found.
        news = dict(sorted(whole, key=lambda item: -item[1].written_ns))
        if news == self._known:
            return
        self._known = news
        self._segments = list(news.values())
        if not news:  # somebody has cleared it
            self._index = None
            return
        keys = [_read_keys(path, segment.size) for path, segment in news.items()]
        counts = [len(each) for each in keys]
        every = np.concatenate(keys)
        order = np.argsort(every[:, 0], kind="stable")
        segments = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        rows = np.concatenate([np.arange(count, dtype=np.int64) for count in counts])
        self._index = (every[order], segments[order], rows[order])


def _read_rows(
    segment: _Segment, rows: NDArray[np.int64], places: NDArray[np.int64], out: Floats
) -> None:
    """
    Read ``rows`` of a segment at ``places`` into the same places of ``out``.

    In the order of the file, a block at a time: to walk through a mapped file costs a fault for
    every few pages, and to read all of it at once its whole size in memory.
    """
    wide = segment.dimensions
    order = np.argsort(rows[places], kind="stable")
    places, rows = places[order], rows[places[order]]
    block = max(1, _BLOCK_BYTES // (wide * _FLOAT_BYTES))
    done = 0
    with segment.rows.open("rb", buffering=0) as file:
        while done < len(rows):
            first = int(rows[done])
            end = int(np.searchsorted(rows, first + block))
            some = rows[done:end] - first
            file.seek(first * wide * _FLOAT_BYTES)
            came = np.fromfile(file, "<f4", (int(some[-1]) + 1) * wide).reshape(-1, wide)
            there = places[done:end]
            is_run = int(there[-1] - there[0]) == end - done - 1 and (np.diff(there) > 0).all()
            target = slice(int(there[0]), int(there[-1]) + 1) if is_run else there
            out[target] = came if len(came) == end - done else came[some]
            done = end


def _append(path: Path, array: NDArray[Any], *, is_synced: bool = False) -> None:
    with path.open("ab") as file:
        file.write(array.data)
        if is_synced:
            file.flush()
            os.fsync(file.fileno())


def _segment(keys: Path) -> _Segment | None:
    """The whole rows of a segment; nothing where a name or a file is not as it should be."""
    dimensions = keys.name.split(".")[-2]
    rows = keys.with_suffix(".rows")
    try:
        width = int(dimensions)
        told = rows.stat()
        count = min(keys.stat().st_size // _KEY_BYTES, told.st_size // (width * _FLOAT_BYTES))
        written_ns = told.st_mtime_ns
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return _Segment(rows, width, count, written_ns)


def _read_keys(path: Path, count: int) -> Keys:
    return np.fromfile(path, dtype="<u8", count=2 * count).reshape(-1, 2)


def forget_all(folder: Path) -> int:
    """Delete all spaces in ``folder``; how many bytes they were."""
    gone = 0
    for pattern in ("*/*.keys", "*/*.rows", "*/space.json"):
        for path in folder.glob(pattern):
            gone += path.stat().st_size
            path.unlink()
    return gone


def size_of(folder: Path) -> tuple[int, int]:
    """How many vectors are kept in ``folder``, and their bytes."""
    keys = sum(path.stat().st_size for path in folder.glob("*/*.keys"))
    rows = sum(path.stat().st_size for path in folder.glob("*/*.rows"))
    return keys // _KEY_BYTES, keys + rows
