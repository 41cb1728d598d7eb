"""The file of labels: a line of JSON for each label, skip or undo, which is only appended to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from llm_magics._util.filesystem import append_lines, display_path, locked
from llm_magics._util.text import reason_of
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
    """

    action: Action
    item: str
    annotator: str
    time: str
    label: Any = None
    note: str = ""


class LabelFile:
    """
    A file of labels, which several kernels may append to at the same time.

    Each line is written before the next item is shown, so that a kernel that is killed loses
    nothing. Lines that are not labels, such as one that was cut by a full disk, are ignored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._events: list[LabelEvent] = []
        self._offset = 0

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
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                if size < self._offset:  # another file, or one that was cut
                    self._events, self._offset = [], 0
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            self._events, self._offset = [], 0
            return []
        except OSError as error:
            msg = f"{display_path(self.path)} cannot be read: {reason_of(error)}."
            raise UsageError(msg, hint="Pass another path: lm.label(…, path=…)") from error
        complete = added[: added.rfind(b"\n") + 1]  # the rest is being written
        self._offset += len(complete)
        parsed = [_parse(line) for line in complete.splitlines()]
        self._events += [event for event in parsed if event is not None]
        return self._events


def _parse(line: bytes) -> LabelEvent | None:
    try:
        values = json.loads(line)
        event = LabelEvent(**values)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (event.item, event.annotator, event.time, event.note)
    is_valid = event.action in _ACTIONS and all(isinstance(each, str) for each in texts)
    is_scalar = event.label is None or isinstance(event.label, str | int | float | bool)
    return event if is_valid and is_scalar else None
