"""
The vectors of one space, which are looked up by their texts, and stored as they arrive.

A *space* is everything that makes vectors comparable: the address of the model, its weights, and
how long texts are handled. Each process appends to a separate pair of files, so that no lock is
needed and a process may end at any moment. Every row is verified by its checksum when it is read; a
damaged row counts as missing. `vector_files` defines the format of the files.

Each space has a folder, named by the digest of its ``space.json``. Clearing only deletes data that
the store has written: in folders whose name is that digest, files whose names have the form of its
file names. Links are never followed.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._util.filesystem import atomic_write, locked
from llm_magics._util.text import reason_of
from llm_magics.host import warn
from llm_magics.providers.configs import digest_former_identity
from llm_magics.runtime.storage import vector_files
from llm_magics.runtime.storage.vector_files import Segment, Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.runtime.storage.vector_files import Floats, Keys


__all__ = ["VectorStore", "clear_store", "hash_texts", "measure_store"]

_LABEL = "space.json"

_FOLDER = re.compile(r"[0-9a-f]{32}")
_FILE = re.compile(r"[0-9a-f]{32}\.\d{1,7}(?:\.v2)?\.(?:keys|rows|part)")
_OTHERS = re.compile(r"space\.json(?:\.[\d-]+\.part)?|segments\.lock")

_ENTRY_BYTES = {False: 16, True: 32}


def encode_label(space: Mapping[str, Any]) -> str:
    """Return the content of ``space.json`` for a space."""
    return json.dumps(space, sort_keys=True, ensure_ascii=False, default=str)


def folder_name(label: str) -> str:
    """Return the name of the folder of a space."""
    return blake2b(label.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def write_label(folder: Path, label: str) -> None:
    """
    Create the folder of a space, and its label.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    if not (folder / _LABEL).exists():
        atomic_write(folder / _LABEL, label)


def migrate_labels(folder: Path) -> None:
    """
    Replace the labels in ``folder`` that contain plain settings, including keys, by current labels.

    No vectors are lost: each space is found under the current identity of its model.
    """
    with suppress(OSError):
        if not any(_former(each) for each in _folders(folder)):
            return
        with locked(folder / "vectors"):
            for each in _folders(folder):
                space = _former(each)
                if space is None:
                    continue
                space["identity"] = digest_former_identity(space["identity"])
                label = encode_label(space)
                _move(each, folder / folder_name(label), label)


def _former(folder: Path) -> dict[str, Any] | None:
    """Return the space of a folder whose label contains a plain identity; otherwise ``None``."""
    try:
        space = json.loads((folder / _LABEL).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(space, dict) or not isinstance(space.get("identity"), str):
        return None
    identity = space["identity"]
    return space if digest_former_identity(identity) != identity else None


def _move(source: Path, target: Path, label: str) -> None:
    """Move all segments of a space; an interrupted move continues the next time."""
    if source != target:
        target.mkdir(mode=0o700, exist_ok=True)
        for path in _files(source):
            # The entries last: without their rows they would count as damaged.
            if path.suffix == ".rows":
                os.replace(path, target / path.name)
        for path in _files(source):
            if _FILE.fullmatch(path.name):
                os.replace(path, target / path.name)
    atomic_write(target / _LABEL, label)
    if source != target:
        (source / _LABEL).unlink(missing_ok=True)
        with suppress(OSError):
            source.rmdir()


def clear_store(folder: Path) -> int:
    """Delete all spaces in ``folder``, and return the number of deleted bytes."""
    gone = 0
    for space in _folders(folder):
        for path in sorted(_files(space)):  # sorted: entries before their rows
            try:
                size = path.lstat().st_size
                path.unlink()
            except FileNotFoundError:  # another process has already deleted it
                continue
            except PermissionError:
                if sys.platform != "win32":
                    raise
                continue  # Windows cannot remove a file that another process has open
            gone += size
        with suppress(OSError):  # it contains other files
            space.rmdir()
    return gone


def measure_store(folder: Path) -> tuple[int, int]:
    """Return the number of vectors stored in ``folder``, and their size in bytes."""
    count = size = 0
    for space in _folders(folder):
        for path in _files(space):
            with suppress(FileNotFoundError):
                file_size = path.lstat().st_size
                if path.suffix == ".keys":
                    count += file_size // _ENTRY_BYTES[".v2." in path.name]
                if path.suffix in (".keys", ".rows"):
                    size += file_size
    return count, size


def _folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of spaces, by the form of their names; links are excluded."""
    with suppress(OSError):
        for each in sorted(folder.iterdir()):
            if _FOLDER.fullmatch(each.name) and _is_real(each, stat.S_ISDIR):
                yield each


def _files(space: Path) -> list[Path]:
    """Return the files in a space's folder that the store has written."""
    try:
        found = list(space.iterdir())
    except OSError:
        return []
    is_ours = _has_own_label(space)
    return [
        path
        for path in found
        if _is_real(path, stat.S_ISREG)
        and (_FILE.fullmatch(path.name) or (is_ours and _OTHERS.fullmatch(path.name)))
    ]


def _has_own_label(space: Path) -> bool:
    """Return whether a folder has a valid label, by which it is named, or an old label."""
    label = space / _LABEL
    try:
        if not _is_real(label, stat.S_ISREG):
            return False
        text = label.read_text("utf-8")
        return folder_name(text) == space.name or "model" in json.loads(text)
    except (OSError, ValueError, TypeError):
        return False


def _is_real(path: Path, is_kind: Any) -> bool:
    """Return whether ``path`` itself, not the target of a link, is of a kind."""
    try:
        return bool(is_kind(path.lstat().st_mode))
    except OSError:
        return False


# The number of attempts to create files while another process deletes them.
_TRIES = 50


def hash_texts(texts: Iterable[str]) -> Keys:
    """Return the keys of ``texts``, of shape (n, 2)."""
    size = vector_files.KEY_BYTES
    digests = [
        blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest() for text in texts
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


# The number of attempts to list a folder while another process renames its files.
_LOOKS = 3


class _Index:
    """The entries of all segments, sorted by key, the newest of each key first."""

    def __init__(self, found: list[Segment]) -> None:
        self.segments = found
        parts = [vector_files.read_entries(segment) for segment in found]
        # Within a segment, the last entry of a key counts: it may replace a damaged one.
        entries = np.concatenate([part[::-1] for part in parts])
        numbers = np.concatenate([np.arange(len(part))[::-1] for part in parts])
        owners = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        there = ~vector_files.are_tombstones(entries)
        order = np.flatnonzero(there)
        order = order[np.argsort(entries["key"][order, 0], kind="stable")]
        self.entries = entries[order]
        self.owners = owners[order]
        self.numbers = numbers[order]
        self._firsts = np.ascontiguousarray(self.entries["key"][:, 0])

    def __len__(self) -> int:
        return len(self.entries)

    def find(self, keys: Keys) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return which of ``keys`` have an entry, and the positions of the entries."""
        if not len(self):
            return np.zeros(len(keys), bool), np.zeros(len(keys), np.int64)
        order = np.argsort(keys[:, 0])  # sorted lookups are many times faster
        at = np.empty(len(keys), np.int64)
        at[order] = np.searchsorted(self._firsts, keys[order, 0])
        at = np.minimum(at, len(self) - 1)
        return (self.entries["key"][at] == keys).all(axis=1), at

    def drop(self, places: NDArray[np.int64]) -> None:
        """Remove these entries from the index."""
        left = np.ones(len(self), bool)
        left[places] = False
        self.entries, self.owners = self.entries[left], self.owners[left]
        self.numbers, self._firsts = self.numbers[left], self._firsts[left]


class VectorStore:
    """The vectors of one space; can be used from several threads and processes."""

    def __init__(self, folder: Path, space: Mapping[str, Any]) -> None:
        """Use the subfolder of ``folder`` for this space; nothing is read or created yet."""
        self._label = encode_label(space)
        self._home = folder
        self.folder = folder / folder_name(self._label)
        requested = space.get("dimensions")
        self._dimensions = requested if isinstance(requested, int) else None
        self._lock = threading.Lock()
        self._known: dict[Path, Segment] = {}
        self._index: _Index | None = None
        self._writers: dict[int, Writer] = {}
        self._is_prepared = False
        self._has_warned = False
        self._damaged = 0

    def find(self, keys: Keys, into: Floats | None = None) -> tuple[NDArray[np.bool_], Floats]:
        """
        Return which of ``keys`` are stored, and a row for each key.

        The rows are an array of shape (n, d), or of shape (n, 0) if nothing is stored. Rows of
        missing keys are NaN, or unchanged if ``into`` is given.
        """
        with self._lock:
            self._prepare()
            self._read_news()
            found, out = self._found(keys, into)
            self._report_damage()
        if into is None and not found.all():
            out[~found] = np.nan
        return found, out

    def _found(self, keys: Keys, into: Floats | None) -> tuple[NDArray[np.bool_], Floats]:
        found = np.zeros(len(keys), bool)
        out = into
        left = np.arange(len(keys))
        is_again = False
        while len(left) and self._index is not None:
            index = self._index
            there, at = index.find(keys[left])
            left, at = left[there], at[there]
            if not len(left):
                break
            if out is None:
                # If the model has changed under the same name, the vectors of the newer one are
                # used.
                mine = [index.segments[number] for number in np.unique(index.owners[at])]
                wide = max(mine, key=lambda segment: segment.written_ns).dimensions
                out = np.empty((len(keys), wide), np.float32)
            damaged, is_gone = self._read(index, at, left, found, out)
            if len(damaged):
                self._drop(index, np.unique(damaged))
                left = left[np.isin(at, damaged)]  # there may be an intact older entry
            elif is_gone and not is_again:  # another process has converted or deleted the files
                is_again, self._known = True, {}
                self._read_news()
                left = left[~found[left]]
            else:
                break
        return found, np.empty((len(keys), 0), np.float32) if out is None else out

    @staticmethod
    def _read(
        index: _Index,
        at: NDArray[np.int64],
        left: NDArray[np.int64],
        found: NDArray[np.bool_],
        out: Floats,
    ) -> tuple[NDArray[np.int64], bool]:
        """Read entries for the keys ``left``; return the damaged ones, and if a file is gone."""
        damaged, is_gone = [np.empty(0, np.int64)], False
        owners = index.owners[at]
        for number in np.unique(owners):
            segment = index.segments[number]
            mine = np.flatnonzero(owners == number)
            if segment.dimensions != out.shape[1]:
                continue
            good = vector_files.read_rows(segment, index.entries[at[mine]], left[mine], out)
            if good is None:
                is_gone = True
                continue
            found[left[mine[good]]] = True
            damaged.append(at[mine[~good]])
        return np.concatenate(damaged), is_gone

    def _drop(self, index: _Index, places: NDArray[np.int64]) -> None:
        """Remove damaged entries, from the index and from the disk."""
        self._damaged += len(places)
        for number in np.unique(index.owners[places]):
            mine = places[index.owners[places] == number]
            vector_files.write_tombstones(index.segments[number], index.numbers[mine])
        index.drop(places)

    def _report_damage(self) -> None:
        if self._damaged:
            msg = (
                f"{self._damaged:,} stored vectors in {self.folder} were damaged and "
                "removed; they will be computed again."
            )
            self._damaged = 0
            warn(msg)

    def put(self, keys: Keys, rows: Floats, *, is_synced: bool = False) -> bool:
        """
        Store ``rows``, and return whether they are stored; if they are not, warn once.
        With ``is_synced``, they are on the disk then, and survive a crash of the machine.
        """
        if not len(keys):
            return True
        keys = np.ascontiguousarray(keys, "<u8")
        rows = np.ascontiguousarray(rows, "<f4")
        with self._lock:
            try:
                self._append(keys, rows, is_synced)
            except OSError as error:
                self._writers.pop(rows.shape[1], None)
                if not self._has_warned:
                    self._has_warned = True
                    warn(
                        f"Could not store vectors in {self.folder}: {reason_of(error)}. They "
                        "were returned to you, but will be requested again next time."
                    )
                return False
        return True

    def _append(self, keys: Keys, rows: Floats, is_synced: bool) -> None:
        wide = rows.shape[1]
        for is_last in [False] * (_TRIES - 1) + [True]:
            try:
                writer = self._writers.get(wide)
                if writer is None:
                    write_label(self.folder, self._label)
                    writer = self._writers[wide] = Writer(self.folder, wide)
                if writer.append(keys, rows, is_synced=is_synced):
                    return
                # Cleared, truncated or replaced by another process: start new files.
                del self._writers[wide]
            except (FileNotFoundError, FileExistsError):  # another process has cleared the store
                if is_last:
                    raise

    def __len__(self) -> int:
        """Return the number of texts with a vector."""
        with self._lock:
            self._prepare()
            self._read_news()
            return 0 if self._index is None else len(np.unique(self._index.entries["key"], axis=0))

    def _prepare(self) -> None:
        """Convert data of an earlier version to the current format."""
        if not self._is_prepared:
            self._is_prepared = True
            migrate_labels(self._home)

    def _read_news(self) -> None:
        """Update the index with the vectors that this and other processes have written since."""
        segments = self._segments()
        if any(segment.is_old for segment in segments):
            self._convert(segments)
            segments = self._segments()
        # The newest first, so that for a text with several vectors the last one is found.
        news = {each.keys: each for each in sorted(segments, key=lambda each: -each.written_ns)}
        if news == self._known:
            return
        self._known = news
        self._index = _Index(list(news.values())) if news else None

    def _segments(self) -> list[Segment]:
        """Return the segments of this space."""
        found: list[Segment | None] = []
        for _ in range(_LOOKS):
            try:
                names = [path for path in self.folder.iterdir() if path.suffix == ".keys"]
            except OSError:
                return []
            found = [vector_files.find_segment(name) for name in names]
            # Files that disappear while they are read may have new names that were not listed yet.
            if all(found):
                break
        return [
            each
            for each in found
            if each and each.size and self._dimensions in (None, each.dimensions)
        ]

    def _convert(self, segments: list[Segment]) -> None:
        with suppress(OSError), locked(self.folder / "segments"):
            for segment in segments:
                # Another process may have converted it in the meantime.
                if segment.is_old and vector_files.find_segment(segment.keys) is not None:
                    self._damaged += 0 if vector_files.convert_segment(segment) else segment.size
