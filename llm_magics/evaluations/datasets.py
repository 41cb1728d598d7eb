"""Evaluation sets: inputs, expected answers, labels of people and splits, with a digest."""

from __future__ import annotations

import hashlib
import html
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pandas as pd

from llm_magics._util.filesystem import atomic_write, display_path
from llm_magics._util.text import display_name, pluralize, reason_of
from llm_magics._util.validation import check_integer
from llm_magics.errors import UsageError, nearest
from llm_magics.evaluations.item_columns import ColumnNames, Columns, check_ids
from llm_magics.evaluations.item_files import BadRecordError, read_records
from llm_magics.evaluations.items import LABEL_PREFIX, Item, digest_of
from llm_magics.host import warn

# The number of digits of an id that is the digest of the inputs.
_ID_DIGITS = 12


class EvaluationSet(Sequence[Item]):
    """
    A set of items with inputs, and optionally expected answers, labels of people and splits.

        data = lm.EvaluationSet("evals/support.jsonl")
        data = lm.EvaluationSet(df, expected="answer", labels={"anna": "first", "bob": "second"})

    All items have the same inputs. The column ``id`` identifies an item; without one, the id is
    the digest of the inputs. The set cannot be changed.

    Attributes:
        name: the name of the file, or ``""``.
        inputs: the names of the input columns.
        items: the items, in the order of the data.
    """

    def __init__(  # noqa: PLR0913 (the names of the columns)
        self,
        data: Any,
        *,
        inputs: Sequence[str] | None = None,
        expected: str = "expected",
        labels: Mapping[str, str] | Sequence[str] | None = None,
        id: str = "id",  # noqa: A002 (the name of the column)
        split: str = "split",
    ) -> None:
        """
        Read the items.

        Args:
            data: the path of a file (JSON lines, CSV, TSV or Parquet), a DataFrame of pandas,
                polars or pyarrow, or a list of dicts.
            inputs: the input columns; by default all that have no other meaning.
            expected: the column of expected answers.
            labels: the columns of labels: a mapping from names of people to columns, or a list
                of columns. By default the columns ``label_NAME``, and the column ``labels`` with
                a mapping from names to labels in each item.
            id: the column of ids.
            split: the column of splits.

        Raises:
            UsageError: an item is invalid; the message has its line. All items need the same
                inputs, of which one at least has a value, and ids must be unique.
        """
        if isinstance(data, EvaluationSet):
            data = [item.record for item in data]
        records, what = read_records(data)
        if not isinstance(data, str | Path):  # names of files are not capitalized
            what = f"{what[:1].upper()}{what[1:]}"
        if not records:
            msg = f"{what} has no items."
            raise UsageError(msg, hint='Each item needs at least one input, such as "text".')
        if isinstance(inputs, str):
            inputs = [inputs]
        names = ColumnNames(inputs=inputs, labels=labels, id=id, expected=expected, split=split)
        columns = Columns(names, records[0][1])
        try:
            items = [columns.item(each) for each in records]
            check_ids(items, records)
        except BadRecordError as error:
            msg = f"{what}, {error}."
            raise UsageError(msg, hint="Correct the item, or name the columns.") from None
        self.name = Path(data).stem if isinstance(data, str | Path) else ""
        self.inputs: tuple[str, ...] = tuple(columns.inputs)
        self.items: tuple[Item, ...] = _with_ids(items)

    def _part(self, items: Iterable[Item]) -> Self:
        part = object.__new__(type(self))
        part.name, part.inputs, part.items = self.name, self.inputs, tuple(items)
        return part

    def __contains__(self, item: object) -> bool:
        """Return whether the set has an item, or an item with an id."""
        known = [each.id for each in self.items] if isinstance(item, str) else self.items
        return item in known

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __getitem__(self, index: Any) -> Any:
        """Return the item with an id or at a position, or the set of a slice."""
        if isinstance(index, slice):
            return self._part(self.items[index])
        if isinstance(index, str):
            known = {item.id: item for item in self.items}
            if index not in known:
                msg = f"The set has no item {index!r:.60}."
                raise UsageError(msg, hint=nearest(index, known))
            return known[index]
        return self.items[index]

    @property
    def digest(self) -> str:
        """
        The SHA-256 of all items, in 64 hexadecimal digits.

        It is the same for any order of items and columns, any format, and any splits.
        """
        return hashlib.sha256(
            "\n".join(sorted(item.content_digest for item in self.items)).encode()
        ).hexdigest()

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the people whose labels the set has."""
        return tuple(dict.fromkeys(name for item in self.items for name in item.labels))

    @property
    def has_expected(self) -> bool:
        """Whether any item has an expected answer."""
        return any(item.expected is not None for item in self.items)

    @property
    def splits(self) -> dict[str, int]:
        """The number of items in each split."""
        return dict(Counter(item.split for item in self.items if item.split is not None))

    @property
    def frame(self) -> pd.DataFrame:
        """The items as a DataFrame by ``id``: inputs, ``expected``, ``label_…`` and ``split``."""
        people = [f"{LABEL_PREFIX}{name}" for name in self.labels]
        rest = [
            *(["expected"] if self.has_expected else []),
            *people,
            *(["split"] if self.splits else []),
        ]
        rows = [item.columns for item in self.items]
        columns = {
            name: _series([row.get(name) for row in rows]) for name in [*self.inputs, *rest]
        }
        index = pd.Index([item.id for item in self.items], dtype="object", name="id")
        return pd.DataFrame(columns).set_axis(index)

    def split(self, name: str) -> Self:
        """
        Return the items of one split.

        Raises:
            UsageError: no item belongs to it.
        """
        part = self._part(item for item in self.items if item.split == name)
        if not part:
            msg = f"The set has no split {name!r:.60}."
            known = self.splits
            raise UsageError(msg, hint=nearest(str(name), known) if known else "It has no splits.")
        return part

    def sample(self, n: int, seed: int = 0) -> Self:
        """
        Return ``n`` random items, in the order of the set.

        The choice depends on the ids and the seed, not on the order; a larger sample with the
        same seed contains a smaller one.
        """
        count = check_integer("n", n, most=len(self))
        order = sorted(
            self.items,
            key=lambda item: hashlib.sha256(f"{seed}\0{item.id}".encode()).digest(),
        )
        chosen = {item.id for item in order[:count]}
        return self._part(item for item in self.items if item.id in chosen)

    def save(self, path: str | Path) -> None:
        """
        Write the items to a file of JSON lines, which can be read again.

        Raises:
            UsageError: the file cannot be written.
        """
        lines = [json.dumps(item.record, ensure_ascii=False) for item in self.items]
        try:
            atomic_write(Path(path), "\n".join(lines) + "\n")
        except OSError as error:
            msg = f"Could not write {display_path(Path(path))}: {reason_of(error)}."
            raise UsageError(msg, hint="Use another path.") from None

    def _facts(self) -> list[str]:
        splits = [f"{display_name(name)} {count:,}" for name, count in self.splits.items()]
        expected = sum(item.expected is not None for item in self.items)
        return [
            pluralize(len(self), "item"),
            f"inputs {', '.join(map(display_name, self.inputs))}",
            *([f"{expected:,} expected answers"] if expected else []),
            *([f"labels of {', '.join(map(display_name, self.labels))}"] if self.labels else []),
            *([f"splits {', '.join(splits)}"] if splits else []),
            f"digest {self.digest[:_ID_DIGITS]}",
        ]

    def __repr__(self) -> str:
        name = f"{display_name(self.name)}: " if self.name else ""
        return f"EvaluationSet({name}{' · '.join(self._facts())})"

    def _repr_html_(self) -> str:
        name = display_name(self.name) or "Evaluation set"
        line = " · ".join(self._facts())
        return f"<p><b>{html.escape(name)}</b>: {html.escape(line)}</p>"


def _series(values: list[Any]) -> pd.Series[Any]:
    """Return a column; integers with missing values stay integers."""
    column = pd.Series(values, dtype="object")
    return column if column.isna().any() else column.infer_objects()


def _with_ids(items: Sequence[Item]) -> tuple[Item, ...]:
    """
    Return the items with the digest of their inputs as id, unless they have one.

    Items with the same inputs are numbered by their contents, so that the ids do not depend on
    the order.
    """
    if items[0].id:
        return tuple(items)
    keys = [digest_of(item.inputs)[:_ID_DIGITS] for item in items]
    order = sorted(range(len(items)), key=lambda row: (keys[row], items[row].content_digest))
    seen: Counter[str] = Counter()
    ids = [""] * len(items)
    for row in order:
        seen[keys[row]] += 1
        count = seen[keys[row]]
        ids[row] = keys[row] if count == 1 else f"{keys[row]}-{count}"
    repeated = sum(seen.values()) - len(seen)
    if repeated:
        msg = f"{pluralize(repeated, 'item')} of the evaluation set repeat the inputs of another."
        warn(msg)
    return tuple(
        Item(
            id=id_,
            inputs=item.inputs,
            expected=item.expected,
            labels=item.labels,
            split=item.split,
        )
        for id_, item in zip(ids, items, strict=True)
    )
