"""
The folders of the vector store: one for each space, named by the digest of its ``space.json``.

Deletes only what the store has written: in folders whose name is that digest, files whose names
have the form that it gives them. Links are never followed.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llm_magics._util.filesystem import atomic_write, locked
from llm_magics.providers.identity import digest_former_identity

_LABEL = "space.json"

_FOLDER = re.compile(r"[0-9a-f]{32}")
_FILE = re.compile(r"[0-9a-f]{32}\.\d{1,7}(?:\.v2)?\.(?:keys|rows|part)")
_OTHERS = re.compile(r"space\.json(?:\.[\d-]+\.part)?|segments\.lock")

_ENTRY_BYTES = {False: 16, True: 32}


def encode_label(space: Mapping[str, Any]) -> str:
    """Return what ``space.json`` has of a space."""
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
    Give the spaces in ``folder`` whose label has settings in clear, keys among them, the label of today.

    Nothing is lost: each is found under the identity that its model has now.
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
    """The space of a folder whose label has an identity in clear."""
    try:
        space = json.loads((folder / _LABEL).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(space, dict) or not isinstance(space.get("identity"), str):
        return None
    identity = space["identity"]
    return space if digest_former_identity(identity) != identity else None


def _move(source: Path, target: Path, label: str) -> None:
    """Move all segments of a space; interrupted, it goes on the next time."""
    if source != target:
        target.mkdir(mode=0o700, exist_ok=True)
        for path in _files(source):
            # The entries last: without their rows they would be taken for damaged.
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
    """Delete all spaces in ``folder``; how many bytes they were."""
    gone = 0
    for space in _folders(folder):
        for path in sorted(_files(space)):  # entries before their rows
            with suppress(FileNotFoundError):  # another process clears it too
                size = path.lstat().st_size
                path.unlink()
                gone += size
        with suppress(OSError):  # something of the user's is in it
            space.rmdir()
    return gone


def measure_store(folder: Path) -> tuple[int, int]:
    """How many vectors are stored in ``folder``, and their bytes."""
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
    """The folders of spaces: real ones, named by their label, or without a label any more."""
    with suppress(OSError):
        for each in sorted(folder.iterdir()):
            if _FOLDER.fullmatch(each.name) and _is_real(each, stat.S_ISDIR):
                yield each


def _files(space: Path) -> list[Path]:
    """The files in a space's folder that the store wrote."""
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
    """Whether a folder has the label that its name is the digest of, or one of before."""
    label = space / _LABEL
    try:
        if not _is_real(label, stat.S_ISREG):
            return False
        text = label.read_text("utf-8")
        return folder_name(text) == space.name or "model" in json.loads(text)
    except (OSError, ValueError, TypeError):
        return False


def _is_real(path: Path, is_kind: Any) -> bool:
    """Whether ``path`` itself, and not what a link points to, is of a kind."""
    try:
        return bool(is_kind(path.lstat().st_mode))
    except OSError:
        return False
