"""The file of labels: a line of JSON for each label, skip or undo, which is only appended to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from llm_magics._util.filesystem import append_lines, display_path, locked
from llm_magics._util.text import reason_of, replace_lone_surrogates
from llm_magics.errors import UsageError

# What an annotator did with an item.
Action = Literal["label", "skip", "undo"]

_ACTIONS = ("label", "skip", "undo")


@dataclass(frozen=True, kw_only=True)
class LabelEvent:
    """
    Something that an annotator did.

    Attributes:
        action: label an item, skip it, or undo the last action about it.
        item: the digest of the item's texts.
        annotator: the name of the annotator.
        time: when, in UTC, as in ISO 8601.
        label: the label; ``None`` for other actions.
        note: a note about the item.
        question: the question that was shown above the labels.
    """

    action: Action
    item: str
    annotator: str
    time: str
    label: Any = None
    note: str = ""
    question: str = ""


_NAMES = tuple(each.name for each in fields(LabelEvent))


class LabelFile:
    """
    A file of labels, which several kernels may append to at the same time.

    Each line is written before the next item is shown, so that a kernel that is killed loses
    nothing. Lines that are not labels, such as one that was cut by a full disk, are ignored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self._events: list[LabelEvent] = []
        self._last: dict[str, dict[str, LabelEvent]] = {}
        self._offset, self._identity = 0, 0

    def append(self, event: LabelEvent) -> None:
        """
        Write an action to the file.

        Raises:
            UsageError: the file cannot be written.
        """
        line = json.dumps(asdict(event), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path) as is_locked:
                append_lines(self.path, line, is_locked=is_locked)
        except OSError as error:
            msg = f"The label was not saved in {display_path(self.path)}: {reason_of(error)}."
            raise UsageError(msg, hint="Pass another path: lm.label(…, path=…)") from error

    def events(self) -> list[LabelEvent]:
        """
        Return all actions in the file, including those of other kernels.

        Raises:
            UsageError: the file cannot be read.
        """
        self._read()
        return self._events

    def last_actions(self, annotator: str) -> Mapping[str, LabelEvent]:
        """
        Return the last label or skip of each item that an annotator has not undone, in their order.

        Raises:
            UsageError: the file cannot be read.
        """
        self._read()
        return self._last.get(annotator, {})

    def _read(self) -> None:
        """Read what was added to the file."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size < self._offset or status.st_ino != self._identity:
                    self._forget()  # it was cut or replaced
                self._identity = status.st_ino
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            self._forget()
            return
        except OSError as error:
            msg = f"{display_path(self.path)} cannot be read: {reason_of(error)}."
            raise UsageError(msg, hint="Pass another path: lm.label(…, path=…)") from error
        complete = added[: added.rfind(b"\n") + 1]  # the rest is being written
        self._offset += len(complete)
        for line in complete.split(b"\n"):
            event = _parse(line)
            if event is not None:
                self._add(event)

    def _add(self, event: LabelEvent) -> None:
        self._events.append(event)
        last = self._last.setdefault(event.annotator, {})
        last.pop(event.item, None)
        if event.action != "undo":
            last[event.item] = event


def _parse(line: bytes) -> LabelEvent | None:
    try:
        values = json.loads(line)
        event = LabelEvent(**{name: _clean(values[name]) for name in _NAMES if name in values})
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (event.item, event.annotator, event.time, event.note, event.question)
    is_valid = event.action in _ACTIONS and all(isinstance(each, str) for each in texts)
    is_scalar = event.label is None or isinstance(event.label, str | int | float | bool)
    return event if is_valid and is_scalar else None


def _clean(value: Any) -> Any:
    return replace_lone_surrogates(value) if isinstance(value, str) else value
