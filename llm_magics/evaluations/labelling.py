"""``lm.label``: label the rows of a table by hand, with the keyboard, in a notebook."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._util.filesystem import display_path
from llm_magics._util.tables import CompactFrame
from llm_magics._util.text import (
    display_name,
    escape_controls,
    pluralize,
    replace_lone_surrogates,
)
from llm_magics._util.validation import check_integer, check_texts
from llm_magics.dataframes.rows import to_list, to_pandas
from llm_magics.errors import UsageError, nearest
from llm_magics.evaluations.label_file import Action, LabelEvent, LabelFile
from llm_magics.evaluations.ratings import ANNOTATOR, ITEM, LABEL
from llm_magics.host import warn

if TYPE_CHECKING:
    from llm_magics.evaluations.label_widget import LabelView

_TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class LabelItem:
    """
    Something to label: the texts of one row, or of several equal ones.

    Attributes:
        key: a digest of the texts.
        fields: the texts by column.
    """

    key: str
    fields: Mapping[str, str]


def label(  # noqa: PLR0913 (a public function)
    data: Any,
    columns: str | Sequence[str] | None = None,
    labels: Any = ("yes", "no"),
    *,
    annotator: str = "me",
    path: Any = None,
    n: int | None = None,
    seed: int = 0,
    question: str = "",
) -> Labelling:
    """
    Label the rows of a table by hand; in a notebook, with a widget.

    The widget shows the texts of ``columns`` and nothing else, in an order that is shuffled for each
    annotator. Keys: 1 to 9 for the labels, ``s`` skips, ``u`` undoes, ``n`` writes a note. Each label
    is saved at once, as a line of the file ``path``, and the same call continues where the annotator
    stopped. Rows with equal texts are labelled once.

    Args:
        data: a DataFrame, or a list or column of texts.
        columns: the columns to show; by default ``text``.
        labels: the labels to choose from: texts, numbers or booleans, nine at most for keys.
        annotator: the name of the person who labels.
        path: the file of labels; by default ``labels-COLUMNS.jsonl`` in the working directory.
        n: label a random sample of this many items, the same for all annotators; a larger one
            contains it. By default all.
        seed: another seed gives another sample and other orders.
        question: a text above the labels, such as what to look for. Another question needs another
            ``path``, because a file has one label for each item and annotator.

    Returns:
        the labels so far: ``.frame()``, and ``.wide()`` for `agreement`.

    Raises:
        UsageError: an argument is invalid, or the file has other labels.
    """
    frame = _frame(data)
    names = check_texts("columns", _TEXT if columns is None else columns)
    if missing := [name for name in names if name not in frame.columns]:
        msg = f"The column {missing[0]!r} does not exist."
        raise UsageError(msg, hint=nearest(missing[0], [str(name) for name in frame.columns]))
    if len(shown := frame[names].columns) > len(set(shown)):
        msg = f"The columns {', '.join(map(display_name, shown))} are not unique."
        raise UsageError(msg, hint="Name each column once, and rename equal ones.")
    if not isinstance(annotator, str) or not annotator.strip():
        msg = "annotator must be a name."
        raise UsageError(msg, hint='For example: lm.label(…, annotator="anna")')
    if not isinstance(question, str):
        msg = f"question must be a text, not {type(question).__name__}."
        raise UsageError(msg, hint='For example: lm.label(…, question="Is it polite?")')
    labelling = Labelling(
        frame[names],
        _check_labels(labels),
        annotator=annotator.strip(),
        file=LabelFile(_path(path, names)),
        n=None if n is None else check_integer("n", n),
        seed=check_integer("seed", seed, least=0),
        question=replace_lone_surrogates(question),
    )
    labelling.check_stored()
    return labelling


class Labelling:
    """
    Items that people label, and their labels so far.

    In a notebook it displays the widget. ``add``, ``skip`` and ``undo`` do the same from code.
    """

    def __init__(  # noqa: PLR0913 (each is an argument of `label`)
        self,
        frame: pd.DataFrame,
        labels: list[Any],
        *,
        annotator: str,
        file: LabelFile,
        n: int | None,
        seed: int,
        question: str,
    ) -> None:
        self.labels, self.annotator, self.question = labels, annotator, question
        self._file = file
        self._index = frame.index
        self._row_keys = [_key(row) for row in frame.astype(object).to_numpy().tolist()]
        fields = {
            key: dict(zip(map(str, frame.columns), map(_text, row), strict=True))
            for key, row in zip(
                self._row_keys, frame.astype(object).to_numpy().tolist(), strict=True
            )
            if key is not None
        }
        keys = sorted(fields, key=lambda key: _hash(seed, key))[:n]
        keys.sort(key=lambda key: _hash(seed, annotator, key))
        self._items = {key: LabelItem(key=key, fields=fields[key]) for key in keys}
        self._view: LabelView | None = None

    @property
    def path(self) -> Path:
        """The file of labels."""
        return self._file.path

    def check_stored(self) -> None:
        """
        Check that the labels in the file are those of this task; warn if the question has changed.

        Raises:
            UsageError: the file has labels that cannot be chosen here.
        """
        known = {json.dumps(each) for each in self.labels}
        events = [each for each in self._file.events() if each.item in self._items]
        given = [each for each in events if each.action == "label"]
        for event in given:
            if json.dumps(event.label) not in known:
                msg = f"{display_path(self.path)} has the label {event.label!r:.60}, which is not in labels."
                raise UsageError(msg, hint="Add it to labels, or pass another file: path=…")
        others = {each.question for each in given} - {self.question}
        if self.question and others:
            other = f"the question {max(others)!r:.100}" if any(others) else "no question"
            msg = f"{display_path(self.path)} has labels for {other}. Pass another file for this one: path=…"
            warn(msg)

    def current(self) -> LabelItem | None:
        """Return the next item without a label of this annotator; ``None`` after the last one."""
        done = self._last_actions(self.annotator)
        return next((item for key, item in self._items.items() if key not in done), None)

    def progress(self) -> tuple[int, int, int]:
        """Return how many items this annotator has labelled, has skipped, and all."""
        actions = [
            event.action
            for key, event in self._last_actions(self.annotator).items()
            if key in self._items
        ]
        return actions.count("label"), actions.count("skip"), len(self._items)

    def add(self, label: Any, *, item: str | None = None, note: str = "") -> None:
        """
        Label an item: the current one, or that with the key ``item``.

        Raises:
            UsageError: the label or the item is unknown, no item is left, or nothing can be saved.
        """
        label = _plain_label(label)
        if json.dumps(label) not in {json.dumps(each) for each in self.labels}:
            msg = f"Unknown label: {label!r:.60}."
            raise UsageError(msg, hint=f"Use one of {', '.join(map(str, self.labels))}.")
        self._save("label", item, label, note)

    def skip(self, *, item: str | None = None, note: str = "") -> None:
        """Leave an item without a label; see `add`."""
        self._save("skip", item, None, note)

    def undo(self) -> None:
        """Take back this annotator's last label or skip, if there is one."""
        last = [
            event
            for event in self._last_actions(self.annotator).values()
            if event.item in self._items
        ]
        if last:
            self._save("undo", last[-1].item, None, "")

    def retry_skipped(self) -> None:
        """Show the items again that this annotator has skipped."""
        for event in list(self._last_actions(self.annotator).values()):
            if event.action == "skip" and event.item in self._items:
                self._save("undo", event.item, None, "")

    def frame(self) -> pd.DataFrame:
        """
        Return the labels of all annotators.

        Columns: ``item``, the row's label in the index; ``annotator``; ``label``; ``time``; and
        ``note``. Equal rows have the same label.
        """
        rows: dict[str, list[int]] = {}
        for number, key in enumerate(self._row_keys):
            if key in self._items:
                rows.setdefault(str(key), []).append(number)
        found = [
            (self._index[row], name, event.label, event.time, event.note)
            for name in self.annotators()
            for event in self._last_actions(name).values()
            if event.action == "label"
            for row in rows.get(event.item, ())
        ]
        table = pd.DataFrame(found, columns=[ITEM, ANNOTATOR, LABEL, "time", "note"], dtype=object)
        table["time"] = pd.to_datetime(table["time"], utc=True, errors="coerce", format="ISO8601")
        return CompactFrame(table)

    def wide(self) -> pd.DataFrame:
        """Return a row for each row of the data and a column for each annotator, for `agreement`."""
        columns = {}
        for name in self.annotators():
            actions = self._last_actions(name)
            known = {key: each.label for key, each in actions.items() if key in self._items}
            columns[name] = [known.get(str(key)) for key in self._row_keys]
        return CompactFrame(pd.DataFrame(columns, index=self._index, dtype=object))

    def annotators(self) -> list[str]:
        """Return the names of those whose labels the file has, without those that were undone."""
        names = dict.fromkeys(event.annotator for event in self._file.events())
        return [
            name
            for name in names
            if any(
                event.action == "label" and key in self._items
                for key, event in self._last_actions(name).items()
            )
        ]

    def counts(self) -> pd.DataFrame:
        """Return how many items this annotator gave each label."""
        given = [json.dumps(event.label) for event in self._last_actions(self.annotator).values()
                 if event.action == "label" and event.item in self._items]  # fmt: skip
        counts = [given.count(json.dumps(each)) for each in self.labels]
        return CompactFrame({LABEL: self.labels, "items": counts})

    def _last_actions(self, annotator: str) -> Mapping[str, LabelEvent]:
        return self._file.last_actions(annotator)

    def _save(self, action: Action, item: str | None, label: Any, note: str) -> None:
        if item is None:
            current = self.current()
            if current is None:
                msg = "No item is left to label."
                raise UsageError(msg, hint="undo() takes back the last label.")
            item = current.key
        elif item not in self._items:
            msg = f"Unknown item: {item!r:.60}."
            raise UsageError(msg, hint="Use the key of current().")
        time = datetime.now(UTC).isoformat(timespec="seconds")
        note = replace_lone_surrogates(note)
        self._file.append(
            LabelEvent(
                action=action,
                item=item,
                annotator=self.annotator,
                time=time,
                label=label,
                note=note,
                question=self.question,
            )
        )

    def __str__(self) -> str:
        labelled, skipped, count = self.progress()
        parts = [f"{labelled:,} of {pluralize(count, 'item')} labelled by {self.annotator}"]
        parts += [f"{skipped:,} skipped"] if skipped else []
        return escape_controls(" · ".join([*parts, f"saved in {display_path(self.path)}"]))

    __repr__ = __str__

    def _ipython_display_(self) -> None:
        """Display the widget where a person watches, and the counts of labels in any notebook."""
        from llm_magics.evaluations.label_widget import LabelView

        if self._view is None:
            self._view = LabelView(self)
        self._view.display()


def _path(path: Any, columns: Sequence[str]) -> Path:
    if path is None:
        stem = "-".join("".join(c if c.isalnum() else "_" for c in name) for name in columns)
        path = f"labels-{stem[:80]}.jsonl"
    if not isinstance(path, str | Path):
        msg = f"Invalid path: got {type(path).__name__}."
        raise UsageError(msg, hint='For example: lm.label(…, path="labels.jsonl")')
    return Path(path).absolute()


def _frame(data: Any) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    if hasattr(data, "get_columns") or hasattr(data, "column_names"):
        return to_pandas(data)
    if isinstance(data, pd.Series):
        return data.to_frame(_TEXT)
    return pd.DataFrame({_TEXT: pd.Series(to_list(data), dtype=object)})


def _check_labels(labels: Any) -> list[Any]:
    found = [_plain_label(each) for each in to_list(labels)]
    # Equal ones, such as 1 and True, or 1 and "1", could not be distinguished later.
    if len(found) < 2 or min(len(set(found)), len({str(each) for each in found})) < len(found):
        msg = "labels needs two different labels or more."
        raise UsageError(msg, hint='For example: labels=["good", "bad"]')
    return found


def _plain_label(label: Any) -> Any:
    label = label.item() if isinstance(label, np.generic) else label
    is_label = isinstance(label, str | int) or (isinstance(label, float) and math.isfinite(label))
    if not is_label or not str(label).strip():
        msg = f"A label must be a text, a number or a boolean, not {label!r:.60}."
        raise UsageError(msg, hint='For example: labels=["good", "bad"]')
    return replace_lone_surrogates(label) if isinstance(label, str) else label


def _text(value: Any) -> str:
    is_missing = pd.api.types.is_scalar(value) and bool(pd.isna(value))
    return "" if is_missing else replace_lone_surrogates(str(value))


def _key(row: Sequence[Any]) -> str | None:
    """Return the digest of a row's texts; ``None`` if all are missing or empty."""
    texts = [_text(value) for value in row]
    return _hash(*texts)[:20] if any(texts) else None


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
