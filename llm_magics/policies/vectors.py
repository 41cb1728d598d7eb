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
import warnings
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Keys = NDArray[np.uint64]  # of shape (n, 2)

_KEY_BYTES = 16
_FLOAT_BYTES = 4


def keys_of(texts: Iterable[str]) -> Keys:
    """The keys of ``texts``, of shape (n, 2)."""
    digests = [blake2b(text.encode(), digest_size=_KEY_BYTES).digest() for text in texts]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


class _Segment(NamedTuple):
    """What one process has written: the file of its rows, and how many of them are whole (``size``)."""

    rows: Path
    dimensions: int
    size: int


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
            wide = self._segments[int(segments[found][0])].dimensions
            out = np.full((len(keys), wide), np.nan, np.float32) if into is None else into
            for number in np.unique(segments[found]):
                segment = self._segments[number]
                mine = found & (segments == number)
                if segment.dimensions != out.shape[1]:
                    found &= ~mine
                    continue
                out[mine] = self._mapped(segment)[rows[mine]]
            # A file that another's crashed machine had not written out is full of zeros.
            whole = np.zeros(len(keys), bool)
            whole[found] = out[found].any(axis=1)
            return whole, out

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
                warnings.warn(msg, stacklevel=2)

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
        at = np.minimum(np.searchsorted(known[:, 0], keys[:, 0]), len(known) - 1)
        return (known[at] == keys).all(axis=1), segments[at], rows[at]

    def _read_news(self) -> None:
        """Take in what this process and others have written since."""
        news = {path: _segment(path) for path in self.folder.glob("*.keys")}
        news = {path: segment for path, segment in news.items() if segment and segment.size}
        if news == self._known:
            return
        self._known = news  # type: ignore[assignment]
        self._segments = [segment for segment in news.values() if segment]
        if not news:  # somebody has cleared it
            self._index = None
            return
        keys = [_read_keys(path, segment.size) for path, segment in news.items() if segment]
        counts = [len(each) for each in keys]
        every = np.concatenate(keys)
        order = np.argsort(every[:, 0], kind="stable")
        segments = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        rows = np.concatenate([np.arange(count, dtype=np.int64) for count in counts])
        self._index = (every[order], segments[order], rows[order])

    def _mapped(self, segment: _Segment) -> Floats:
        shape = (segment.size, segment.dimensions)
        return np.memmap(segment.rows, dtype="<f4", mode="r", shape=shape)


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
        count = min(
            keys.stat().st_size // _KEY_BYTES, rows.stat().st_size // (width * _FLOAT_BYTES)
        )
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return _Segment(rows, width, count)


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
