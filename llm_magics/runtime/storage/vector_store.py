"""
The vectors of one space: found by the texts they are of, added as they come.

A *space* is all that makes vectors comparable: where the model is, which weights, how long
texts are treated. Each process appends to its own pair of files, so that
no lock is needed and a process may die at any moment. Every row that is read is compared with
its checksum; a damaged one is as good as not there.

`vector_files` has the format of the files, `vector_folders` the folders.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._util.filesystem import locked
from llm_magics.runtime.storage import vector_files, vector_folders
from llm_magics.runtime.storage.vector_files import Segment, Writer
from llm_magics.runtime.storage.vector_folders import clear_store, measure_store
from llm_magics.user_code import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.runtime.storage.vector_files import Floats, Keys


__all__ = ["VectorStore", "clear_store", "hash_texts", "measure_store"]

# How often files are begun that another process clears in the same moment.
_TRIES = 50


def hash_texts(texts: Iterable[str]) -> Keys:
    """The keys of ``texts``, of shape (n, 2)."""
    size = vector_files.KEY_BYTES
    digests = [
        blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest() for text in texts
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


# How often a folder is listed, while another process gives its files new names.
_LOOKS = 3


class _Index:
    """The entries of all segments, in the order of their keys, the newest of each key first."""

    def __init__(self, found: list[Segment]) -> None:
        self.segments = found
        parts = [vector_files.read_entries(segment) for segment in found]
        # Of one segment the last entry of a key counts: it may replace one that was damaged.
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
        """Which of ``keys`` have an entry, and where it is."""
        if not len(self):
            return np.zeros(len(keys), bool), np.zeros(len(keys), np.int64)
        order = np.argsort(keys[:, 0])  # to look them up in their order is many times faster
        at = np.empty(len(keys), np.int64)
        at[order] = np.searchsorted(self._firsts, keys[order, 0])
        at = np.minimum(at, len(self) - 1)
        return (self.entries["key"][at] == keys).all(axis=1), at

    def drop(self, places: NDArray[np.int64]) -> None:
        """Find these entries no more."""
        left = np.ones(len(self), bool)
        left[places] = False
        self.entries, self.owners = self.entries[left], self.owners[left]
        self.numbers, self._firsts = self.numbers[left], self._firsts[left]


class VectorStore:
    """The vectors of one space; safe with several threads, and with several processes."""

    def __init__(self, folder: Path, space: Mapping[str, Any]) -> None:
        """Use the subfolder of ``folder`` for this space; nothing is read or created yet."""
        self._label = vector_folders.encode_label(space)
        self._home = folder
        self.folder = folder / vector_folders.folder_name(self._label)
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
        Which of ``keys`` are stored, and a row for each key; those not found are left as they are.

        Rows come as an array of shape (n, d), or of shape (n, 0) where nothing is stored.
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
                # Where a model was changed behind its name, those of the newer one count.
                mine = [index.segments[number] for number in np.unique(index.owners[at])]
                wide = max(mine, key=lambda segment: segment.written_ns).dimensions
                out = np.empty((len(keys), wide), np.float32)
            damaged, is_gone = self._read(index, at, left, found, out)
            if len(damaged):
                self._drop(index, np.unique(damaged))
                left = left[np.isin(at, damaged)]  # there may be an older one that is intact
            elif is_gone and not is_again:  # another process has converted or cleared the files
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
        """Read the entries ``at`` for the keys ``left``: those damaged, and whether a file is gone."""
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
        """Forget damaged entries, here and on the disk."""
        self._damaged += len(places)
        for number in np.unique(index.owners[places]):
            mine = places[index.owners[places] == number]
            vector_files.write_tombstones(index.segments[number], index.numbers[mine])
        index.drop(places)

    def _report_damage(self) -> None:
        if self._damaged:
            msg = (
                f"{self._damaged:,} stored vectors in {self.folder} were damaged. They were "
                "dropped, and are computed again."
            )
            self._damaged = 0
            warn(msg)

    def put(self, keys: Keys, rows: Floats) -> None:
        """Store ``rows``; if they cannot be written, warn once and go on without."""
        if not len(keys):
            return
        keys = np.ascontiguousarray(keys, "<u8")
        rows = np.ascontiguousarray(rows, "<f4")
        with self._lock:
            try:
                self._append(keys, rows)
            except OSError as error:
                self._writers.pop(rows.shape[1], None)
                if not self._has_warned:
                    self._has_warned = True
                    warn(
                        f"Vectors cannot be kept in {self.folder}: {error.strerror or error}. They "
                        "are returned, and will be asked for again another time."
                    )

    def _append(self, keys: Keys, rows: Floats) -> None:
        wide = rows.shape[1]
        for is_last in [False] * (_TRIES - 1) + [True]:
            try:
                writer = self._writers.get(wide)
                if writer is None:
                    vector_folders.write_label(self.folder, self._label)
                    writer = self._writers[wide] = Writer(self.folder, wide)
                if writer.append(keys, rows):
                    return
                # Cleared, cut or replaced by another process: its files are not continued.
                del self._writers[wide]
            except (FileNotFoundError, FileExistsError):  # it was cleared in this moment
                if is_last:
                    raise

    def __len__(self) -> int:
        """How many texts have one."""
        with self._lock:
            self._prepare()
            self._read_news()
            return 0 if self._index is None else len(np.unique(self._index.entries["key"], axis=0))

    def _prepare(self) -> None:
        """Bring what an earlier version has written to the form of today."""
        if not self._is_prepared:
            self._is_prepared = True
            vector_folders.migrate_labels(self._home)

    def _read_news(self) -> None:
        """Take in what this process and others have written since."""
        segments = self._segments()
        if any(segment.is_old for segment in segments):
            self._convert(segments)
            segments = self._segments()
        # The newest first: of a text that was paid for twice its last vector is found.
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
            # Files that vanish while they are looked at have a new name that was not listed yet.
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
                # Another process may have done it while this one waited.
                if segment.is_old and vector_files.find_segment(segment.keys) is not None:
                    self._damaged += 0 if vector_files.convert_segment(segment) else segment.size
