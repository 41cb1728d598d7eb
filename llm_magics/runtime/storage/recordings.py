"""
Recordings: answers in a JSON-lines file, replayed so that notebooks run without key and network.

A file contains one JSON object per line, sorted by key, so that a git diff only shows real changes.
The key of a call is a digest of everything that determines its answer: kind, model, messages,
parameters, schema, tools. API keys and headers are not part of it, and text that looks like an API
key is removed.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_magics._util.filesystem import append_lines, atomic_write, locked
from llm_magics._util.text import reason_of, replace_lone_surrogates
from llm_magics.errors import ConfigurationError, ReplayMissError
from llm_magics.host import warn
from llm_magics.runtime.storage.serialization import (
    Request,
    canonicalize,
    decode_answer,
    digest_request,
    read_vector,
)
from llm_magics.secrets import scrub_json

# Characters that are line ends for Python and for some editors, but are allowed in JSON strings.
_ESCAPED = {ord(each): f"\\u{ord(each):04x}" for each in "\x85\u2028\u2029"}

# The length of the texts in errors, and how much of them precedes a difference.
_EXCERPT, _CONTEXT = 60, 20

_RESTORE = "Restore it from version control, or record it again."

# The maximum time to wait for another kernel's write, which takes a few milliseconds, in seconds.
_LOCK_TIMEOUT_S = 2.0

# A file up to this size is rewritten with every answer, so that it is always sorted.
_REWRITTEN_BYTES = 2_000_000


def _parse_entry(line: bytes) -> dict[str, Any] | None:
    """Return the entry in a line; ``None`` if the line has none."""
    try:
        entry = json.loads(line)
        if not isinstance(entry["key"], str) or not isinstance(entry["request"], dict):
            return None
        return entry if isinstance(entry["answer"], dict) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_playable(answer: Mapping[str, Any]) -> bool:
    """Return whether an answer can be replayed."""
    if "vector" in answer:
        return read_vector(answer) is not None
    if "chunks" not in answer:
        return True  # an answer to another kind of call
    try:
        chunks = list(decode_answer(answer))
        "".join([chunk.text + chunk.reasoning for chunk in chunks])
        sum(chunk.elapsed_s or 0.0 for chunk in chunks)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return True


@dataclass(kw_only=True)
class Recording:
    """
    A file of answers.

    Attributes:
        path: the path as the user wrote it.
        records: whether new answers are added.
        plays: whether recorded answers are returned, and no request is sent.
        strict: whether a call that is not in the recording is an error.
    """

    path: Path
    records: bool = False
    plays: bool = True
    strict: bool = False
    _entries: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    _is_sorted: bool = field(default=True, repr=False)
    _file: Path = field(init=False, repr=False)
    # The keys of this session's answers, and of those that may not be in the file yet.
    _own: set[str] = field(default_factory=set, repr=False)
    _unsaved: list[str] = field(default_factory=list, repr=False)
    # Unreadable lines, which are copied to a backup before the file is rewritten.
    _damaged: list[bytes] = field(default_factory=list, repr=False)
    _state: tuple[int, ...] | None = field(default=None, repr=False)
    _has_warned: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Read the file; a file to replay must exist."""
        self._file = self.path.expanduser().absolute()  # independent of the working directory
        if self._file.is_file():
            self._state = self._state_now()
            self._entries = self._read()
            self._is_sorted = list(self._entries) == sorted(self._entries)
        elif self.plays and not self.records:
            msg = f"No recording at {self.path}."
            raise ConfigurationError(msg, hint=f"Create one with: %llm record {self.path}")
        if self.records:
            self._check_writable()

    def _check_writable(self) -> None:
        """Raise an error for a path that cannot be written to, before an answer is paid for."""
        folder = self._file.parent
        is_other = self._file.exists() and not self._file.is_file()
        if is_other or not folder.is_dir() or not os.access(folder, os.W_OK):
            what = "is not in a writable folder"
            if is_other:
                what = "is a folder" if self._file.is_dir() else "is a device, not a file"
            msg = f"Could not record to {self.path}: it {what}."
            raise ConfigurationError(msg, hint="Create the folder, or choose another file.")

    def _read(self) -> dict[str, dict[str, Any]]:
        """
        Read the answers in the file by key, and collect lines that are not answers.

        Only a newline ends a line, because texts may contain U+2028 and similar characters.

        Raises:
            ConfigurationError: it cannot be read, or is not a recording.
        """
        try:
            lines = self._file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        except OSError as error:
            msg = f"Could not read {self.path}: {reason_of(error)}."
            raise ConfigurationError(msg, hint=_RESTORE) from None
        entries: dict[str, dict[str, Any]] = {}
        numbers: list[int] = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            entry = _parse_entry(line)
            if entry is not None:
                entries[entry["key"]] = entry
                continue
            numbers.append(number)
            if line not in self._damaged:
                self._damaged.append(line)
        # A file without any answer is another kind of file, which must not be overwritten.
        is_torn = numbers == [len(lines)] and lines[-1].startswith(b'{"')
        if numbers and not entries and not is_torn:
            msg = f"{self.path}, line {numbers[0]}: not a recorded answer."
            raise ConfigurationError(msg, hint=_RESTORE)
        if numbers:
            listed = ", ".join(map(str, numbers[:5])) + (" …" if len(numbers) > 5 else "")
            warn(
                f"{self.path}: line{'s' * (len(numbers) > 1)} {listed} "
                f"could not be parsed (an interrupted write or merge markers) and "
                f"{'were' if len(numbers) > 1 else 'was'} skipped. The other {len(entries):,} "
                "answers are used."
            )
        return entries

    def _state_now(self) -> tuple[int, ...] | None:
        """Return a value that changes when another process changes the file."""
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def find(self, request: Request) -> dict[str, Any] | None:
        """
        Return the recorded answer to ``request``, if answers are replayed.

        Raises:
            ReplayMissError: the answer is missing and the recording is strict; the error lists the
                differences to the most similar call.
        """
        if not self.plays:
            return None
        entry = self._entries.get(digest_request(request))
        if entry is not None and not _is_playable(entry["answer"]):
            warn(f"{self.path}: the answer {entry['key']} could not be parsed and was skipped.")
            self._damaged.append(self._line(entry["key"]).rstrip("\n").encode())
            self._entries.pop(entry["key"])
            entry = None
        if entry is None and self.strict:
            raise self._miss_error(request)
        return entry["answer"] if entry else None

    def keep(self, request: Request, answer: Mapping[str, Any]) -> None:
        """Add an answer, if the recording records; the file can be read at any time."""
        self.keep_all([(request, answer)])

    def keep_all(self, answers: Iterable[tuple[Request, Mapping[str, Any]]]) -> None:
        """Add several answers, and write the file once."""
        if not self.records:
            return
        for request, answer in answers:
            key = digest_request(request)
            self._entries[key] = {"key": key, "request": request, "answer": dict(answer)}
            self._own.add(key)
            self._unsaved.append(key)
        self._warn_on_failure(self._write)

    def tidy(self) -> None:
        """Sort the lines that were appended to a long file."""
        if self.records and (self._unsaved or not self._is_sorted):
            self._warn_on_failure(self._save_with_others)

    def _warn_on_failure(self, write: Callable[[], None]) -> None:
        """Call ``write``; warn if it fails, because the answers are paid for and are returned."""
        try:
            write()
        except (OSError, ConfigurationError) as error:
            if not self._has_warned:
                self._has_warned = True
                warn(
                    f"Answers were not recorded in {self.path}: {reason_of(error)}. They were returned to "
                    "you and will be written with the next answer."
                )
        else:
            self._has_warned = False

    def _write(self) -> None:
        """
        Write the answers that are not in the file yet.

        Raises:
            OSError: for example the disk is full; the file is unchanged.
        """
        with locked(self._file, _LOCK_TIMEOUT_S) as is_locked:
            state = self._state_now()
            if is_locked and (state is None or state[2] < _REWRITTEN_BYTES):
                self._merge_and_save()
            else:  # rewriting a long file would take too long
                lines = "".join(self._line(key) for key in self._unsaved)
                append_lines(self._file, lines.encode(), is_locked=is_locked)
                # Without a lock, another kernel may be rewriting the file: `tidy` then adds the
                # lost answers.
                self._unsaved.clear()
                self._is_sorted = False

    def _save_with_others(self) -> None:
        with locked(self._file):  # also runs on file systems without locks
            self._merge_and_save()

    def _merge_and_save(self) -> None:
        """Rewrite the file, including answers that other kernels have added since."""
        state = self._state_now()
        if state is not None and state != self._state:
            others = self._read()
            own = {key: self._entries[key] for key in self._own if key in self._entries}
            self._entries = {**self._entries, **others, **own}
        if self._damaged:
            beside = self._file.with_name(f"{self._file.name}.damaged")
            append_lines(beside, b"\n".join([*self._damaged, b""]), is_locked=True)
            self._damaged.clear()
        self._save()

    def _line(self, key: str) -> str:
        entry = self._entries[key]
        plain = scrub_json(canonicalize(entry))  # before JSON escapes quotes in a key
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
        # Other programs, and earlier versions, treat these characters as line ends.
        return f"{replace_lone_surrogates(text).translate(_ESCAPED)}\n"

    def _save(self) -> None:
        """Rewrite the file atomically."""
        lines = [self._line(key) for key in sorted(self._entries)]
        atomic_write(self._file, "".join(lines))
        self._state = self._state_now()
        self._unsaved.clear()
        self._is_sorted = True

    def _miss_error(self, request: Request) -> ReplayMissError:
        requests = [entry["request"] for entry in self._entries.values()]
        alike = [each for each in requests if each.get("kind") == request["kind"]]
        if not alike:
            why = f"it contains no {request['kind']}"
        else:
            nearest = max(alike, key=lambda each: _similarity(each, request))
            why = "; ".join(_differences(nearest, request)) or "the nearest entry is equal"
        msg = f"{self.path} has no answer for this call: {why}."
        hint = f"Record it with %llm record {self.path}, or run live with %llm replay off."
        return ReplayMissError(msg, hint=hint)


def _flatten(request: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of a request by name, for the comparison in an error message."""
    flat = {"model": request.get("model", "")}
    if "text" in request:
        flat["text"] = request["text"]
    messages = request.get("messages") or []
    for number, message in enumerate(messages, 1):
        last = number == len(messages)
        name = "prompt" if last else message["role"] if number == 1 else f"message {number}"
        only_text = set(message) == {"role", "content"}
        flat[name] = (
            message["content"]
            if only_text
            else json.dumps(message, sort_keys=True, ensure_ascii=False)
        )
    for name, value in (request.get("parameters") or {}).items():
        flat[name] = json.dumps(value, sort_keys=True, default=str)
    return flat


def _similarity(one: Request, other: Request) -> float:
    a, b = (json.dumps(each, sort_keys=True, ensure_ascii=False)[:2000] for each in (one, other))
    same = len(_flatten(one).items() & _flatten(other).items())
    return float(same + difflib.SequenceMatcher(None, a, b).quick_ratio())


def _differences(recorded: Request, requested: Request) -> list[str]:
    before, now = _flatten(recorded), _flatten(requested)
    names = [*now, *(name for name in before if name not in now)]
    return [
        "{} was {}, now {}".format(name, *_excerpts(before.get(name), now.get(name)))
        for name in names
        if before.get(name) != now.get(name)
    ]


def _excerpts(one: str | None, other: str | None) -> list[str]:
    """Return both texts, long ones from shortly before the place where they begin to differ."""
    pairs = zip(one or "", other or "", strict=False)
    same = next((place for place, (a, b) in enumerate(pairs) if a != b), 0)
    start = same - _CONTEXT if same > _EXCERPT - _CONTEXT else 0
    return ["not set" if text is None else _shorten(text, start) for text in (one, other)]


def _shorten(text: str, start: int) -> str:
    text = f"…{text[start:]}" if start else text
    return text if len(text) <= _EXCERPT else f"{text[: _EXCERPT - 3]}…"
