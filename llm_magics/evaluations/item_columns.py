"""The meaning of the columns of an evaluation set, and the items of its records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_magics.errors import UsageError, nearest
from llm_magics.evaluations.item_files import BadRecordError, Record
from llm_magics.evaluations.items import LABEL_PREFIX, Item, canonical_value

_MAX_ID = 200
_LABELS = "labels"
_ROLES = ("id", "expected", "split")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnNames:
    """
    The names of columns, as passed by the user; see `EvaluationSet`.

    Attributes:
        inputs: the input columns; ``None`` for all without another meaning.
        labels: the columns of labels; ``None`` for those with the names of labels.
        id, expected, split: the columns with these meanings.
    """

    inputs: Sequence[str] | None
    labels: Mapping[str, str] | Sequence[str] | None
    id: str
    expected: str
    split: str

    @property
    def roles(self) -> dict[str, str]:
        """The columns by their meaning."""
        return {"id": self.id, "expected": self.expected, "split": self.split}


class Columns:
    """The meaning of the columns of a set."""

    def __init__(self, names: ColumnNames, first: Mapping[str, Any]) -> None:
        """
        Find the columns in the ``first`` record.

        Raises:
            UsageError: a column does not exist, or no column is an input.
        """
        self._names = names
        self._people = None if names.labels is None else _named_labels(names.labels)
        people = list((self._people or {}).values())
        is_default = dict(zip(_ROLES, _ROLES, strict=True))
        given = [name for role, name in names.roles.items() if name != is_default[role]]
        for name in [*given, *people, *([] if names.inputs is None else names.inputs)]:
            if name not in first:
                raise _unknown_column(name, first)
        special = {*names.roles.values(), *people}
        self.inputs: list[str] = (
            [str(name) for name in first if name not in special and not self._is_label(str(name))]
            if names.inputs is None
            else list(names.inputs)
        )
        if not self.inputs:
            msg = "The items have no inputs."
            raise UsageError(msg, hint="Add a column that the task reads, such as text.")
        taken = [name for name in self.inputs if name in (*_ROLES, _LABELS) or _begins_label(name)]
        if taken:
            msg = f"An input cannot be called {taken[0]!r:.60}."
            raise UsageError(msg, hint="Rename the column.")
        self._known = {*special, *self.inputs}

    def _is_label(self, name: str) -> bool:
        return self._people is None and (name == _LABELS or _begins_label(name))

    def item(self, record: Record) -> Item:
        """
        Return the item of a record, whose id is empty if it has none.

        Raises:
            BadRecordError: a column is missing or unknown, or a value is invalid.
        """
        where, values = record
        for name in self.inputs:
            if name not in values:
                msg = f"{where}: the input {name!r:.60} is missing"
                raise BadRecordError(msg)
        unknown = [name for name in values if name not in self._known and not self._is_label(name)]
        if unknown and self._names.inputs is None:
            msg = f"{where}: unknown column {str(unknown[0])!r:.60}, which the first item lacks"
            raise BadRecordError(msg)
        inputs = {name: _value(values[name], where, name) for name in self.inputs}
        if all(value is None or value == "" for value in inputs.values()):
            msg = f"{where}: all inputs are missing"
            raise BadRecordError(msg)
        return Item(
            id=_id(values.get(self._names.id), where),
            inputs=inputs,
            expected=_value(values.get(self._names.expected), where, self._names.expected),
            labels=self._labels(values, where),
            split=_split(values.get(self._names.split), where),
        )

    def _labels(self, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        if self._people is not None:
            found = {person: values.get(name) for person, name in self._people.items()}
        else:
            found = {
                str(name).removeprefix(LABEL_PREFIX): value
                for name, value in values.items()
                if _begins_label(str(name))
            }
            mapping = _value(values.get(_LABELS), where, _LABELS)
            if mapping is not None and not isinstance(mapping, dict):
                msg = f"{where}: labels is not an object with a label for each person"
                raise BadRecordError(msg)
            found |= mapping or {}
        labels = {name: _value(value, where, name) for name, value in found.items()}
        if "" in labels:
            msg = f"{where}: a label has no name of a person"
            raise BadRecordError(msg)
        return {name: value for name, value in sorted(labels.items()) if value is not None}


def _begins_label(name: str) -> bool:
    return name.startswith(LABEL_PREFIX)


def _named_labels(labels: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    if isinstance(labels, Mapping):
        return {str(person): str(name) for person, name in labels.items()}
    names = [labels] if isinstance(labels, str) else list(labels)
    return {name.removeprefix(LABEL_PREFIX): name for name in names}


def _unknown_column(name: str, known: Iterable[str]) -> UsageError:
    msg = f"The data has no column {str(name)!r:.60}."
    return UsageError(msg, hint=nearest(str(name), map(str, known)))


def _value(value: Any, where: str, name: str) -> Any:
    try:
        return canonical_value(value)
    except ValueError as error:
        msg = f"{where}: the column {name!r:.60}: {error}"
        raise BadRecordError(msg) from None


def _id(value: Any, where: str) -> str:
    found = _value(value, where, "id")
    if found is None:
        return ""
    if isinstance(found, bool) or not isinstance(found, str | int) or not str(found).strip():
        msg = f"{where}: the id must be a text or an integer, not {found!r:.40}"
        raise BadRecordError(msg)
    if len(str(found)) > _MAX_ID:
        msg = f"{where}: the id has more than {_MAX_ID} characters"
        raise BadRecordError(msg)
    return str(found)


def _split(value: Any, where: str) -> str | None:
    found = _value(value, where, "split")
    if found is not None and (not isinstance(found, str) or not found.strip()):
        msg = f"{where}: the split must be a text, not {found!r:.40}"
        raise BadRecordError(msg)
    return found


def check_ids(items: Sequence[Item], records: Sequence[Record]) -> None:
    """Raise `BadRecordError` unless all items, or none, have an id, and each id is unique."""
    has_ids = any(item.id for item in items)
    seen: dict[str, str] = {}
    for item, (where, _) in zip(items, records, strict=True):
        if has_ids and not item.id:
            msg = f"{where}: the id is missing"
            raise BadRecordError(msg)
        if item.id and item.id in seen:
            msg = f"{where}: the id {item.id!r:.60} is also that of {seen[item.id]}"
            raise BadRecordError(msg)
        seen[item.id] = where
