"""
Files of evaluations: JSON lines with a header, the items, and one row per answer.

A run in progress appends its rows to a separate file (`RunJournal`), so that a killed process loses
at most the answers that were not yet received. Keys are masked in all lines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_magics._util.filesystem import FileLock, append_lines, atomic_write, display_path
from llm_magics._util.text import reason_of
from llm_magics.errors import UsageError
from llm_magics.evaluations.item_files import BadRecordError, parse_line
from llm_magics.evaluations.items import Item, canonical_value
from llm_magics.secrets import scrub

# The first name in the header, and the version of the format.
_FORMAT = "llm_magics_evaluation"
_VERSION = 1
SUFFIX, PART_SUFFIX = ".jsonl", ".part.jsonl"
# A longer first line is not a header.
_MAX_HEADER = 10_000_000
# How long a new journal waits for its lock, and others for the one that they look for.
_LOCK_S, _LOOK_S = 1.0, 0.02

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """
    The contents of a file.

    Attributes:
        about: the attributes of the run, as JSON values.
        scores: the mean scores of each model.
        items: the records of the items.
        digests: the digests of the items before keys were masked, by id; files of older versions
            have none.
        rows: the rows of the answers.
    """

    about: Mapping[str, Any]
    scores: Sequence[Row]
    items: Sequence[Row]
    digests: Mapping[str, str]
    rows: Sequence[Row]


def write_run(path: Path, run: RunFile) -> None:
    """
    Write a file atomically; only the user can read it.

    Raises:
        OSError: it cannot be written.
        UsageError: a column or an attribute cannot be stored as JSON; the message names it.
    """
    try:
        header = _header(run.about, run.scores)
        lines = [header, *_item_lines(run.items, run.digests), *map(_row_line, run.rows)]
    except ValueError:
        _check_values("The attribute", run.about, "Remove it from attrs.")
        for row in run.rows:
            _check_values("The column", row, "Save without it: runs.drop(columns=…).save(…)")
        raise
    atomic_write(path, "".join(lines), is_private=True)


def _check_values(what: str, values: Row, hint: str) -> None:
    for name, value in values.items():
        try:
            canonical_value({"row": {name: value}})
        except ValueError as error:
            msg = f"{what} {name!r:.60} cannot be stored: {error}."
            raise UsageError(msg, hint=hint) from None


def read_run(path: Path, *, only_header: bool = False) -> RunFile:
    """
    Return the contents of a file; without items and rows if ``only_header``.

    An incomplete last line, of a process that was killed, is ignored.

    Raises:
        UsageError: it cannot be read, or is not the file of an evaluation.
    """
    try:
        with path.open("rb") as file:
            about, scores = _parse_header(file.readline(_MAX_HEADER), path)
            lines = [] if only_header else file.read().split(b"\n")
    except OSError as error:
        msg = f"Could not read {display_path(path)}: {reason_of(error)}."
        raise UsageError(msg, hint="lm.list_evaluations() lists the stored evaluations.") from None
    items, rows = [], []
    digests: dict[str, str] = {}
    for number, line in enumerate(lines[:-1], 2):  # the last one has no line break
        try:
            record = parse_line(line, f"line {number}") if line.strip() else {}
        except BadRecordError as error:
            msg = f"{display_path(path)}, {error}."
            raise UsageError(msg, hint="The file is damaged; run the evaluation again.") from None
        item = record.get("item")
        if isinstance(item, dict):
            items.append(item)
            digest = record.get("digest")
            digests |= {str(item.get("id")): digest} if isinstance(digest, str) else {}
        rows += [record["row"]] if isinstance(record.get("row"), dict) else []
    return RunFile(about=about, scores=scores, items=items, digests=digests, rows=rows)


def _parse_header(line: bytes, path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        header = parse_line(line, "line 1")
    except BadRecordError:
        header = {}
    about, scores = header.get("about"), header.get("scores", [])
    is_list = isinstance(scores, list) and all(isinstance(row, dict) for row in scores)
    if _FORMAT not in header or not isinstance(about, dict) or not is_list:
        msg = f"{display_path(path)} is not the file of an evaluation."
        raise UsageError(msg, hint="Pass a file that .save(…) has written.")
    if header[_FORMAT] != _VERSION:
        msg = f"{display_path(path)} has the format {header[_FORMAT]!r:.20}, not {_VERSION}."
        raise UsageError(msg, hint="Read it with a newer version of llm_magics.")
    return about, scores


def _header(about: Mapping[str, Any], scores: Sequence[Row]) -> str:
    return _line({_FORMAT: _VERSION, "about": about, "scores": list(scores)})


def _item_lines(items: Iterable[Row], digests: Mapping[str, str]) -> list[str]:
    return [_line({"item": item, "digest": digests.get(str(item["id"]))}) for item in items]


def _row_line(row: Row) -> str:
    return _line({"row": row})


def _line(value: Any) -> str:
    text = json.dumps(canonical_value(value), ensure_ascii=False, separators=(",", ":"))
    return scrub(text) + "\n"


class RunJournal:
    """
    The file of a run in progress.

    A failure to write ends the journal, not the run: ``error`` has the reason. The file is locked
    until it is closed or removed, or its process ends.

    Attributes:
        error: why rows could not be written.
        is_empty: whether no row was added.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], items: Collection[Item]) -> None:
        """Create the file, with its header and items."""
        self._path = path
        self._lock: FileLock | None = None
        self.error: OSError | None = None
        self.is_empty = True
        header = _header({**about, "process": os.getpid()}, [])
        digests = {item.id: item.digest for item in items}
        lines = [header, *_item_lines([item.record for item in items], digests)]
        try:
            atomic_write(path, "".join(lines), is_private=True)
        except OSError as error:
            self.error = error
        else:
            with suppress(OSError):  # the file system may have no locks
                self._lock = FileLock.try_acquire_file(path, _LOCK_S)

    def add(self, row: Row) -> None:
        """Append a row."""
        self.is_empty = False
        if self.error is not None:
            return
        try:
            append_lines(self._path, _row_line(row).encode(), is_locked=True)
        except OSError as error:
            self.error = error

    def close(self) -> None:
        """Release the file, which stays."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def remove(self) -> None:
        """Delete the file, whose rows are now in another one."""
        with suppress(OSError):  # while it is locked, so that no other process continues it
            self._path.unlink(missing_ok=True)
        self.close()
        remove_run(self._path)


def remove_run(path: Path) -> None:
    """Delete the file of a run, and that of its lock, if there is one."""
    for each in (path, path.with_name(f"{path.name}.lock")):
        with suppress(OSError):
            each.unlink(missing_ok=True)


def is_in_progress(path: Path, about: Mapping[str, Any]) -> bool:
    """Return whether a process, or a thread of this one, adds rows to the file of a run."""
    if not path.name.endswith(PART_SUFFIX):
        return False
    try:
        lock = FileLock.try_acquire_file(path, _LOOK_S)
    except OSError:  # the file system has no locks
        return _is_running(about.get("process"))
    if lock is not None:
        lock.release()
    return lock is None


def _is_running(process: Any) -> bool:
    if not isinstance(process, int) or process <= 0:
        return False
    if os.name == "nt":  # a signal of 0 would end a process there
        return process == os.getpid()
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
