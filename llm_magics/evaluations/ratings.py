"""The labels of a judge and of people about the same items, aligned and encoded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._util.text import display_name
from llm_magics.dataframes.rows import to_list, to_pandas
from llm_magics.errors import UsageError
from llm_magics.evaluations.coefficients import LEVELS, Level
from llm_magics.host import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The columns of labels in long format.
ITEM, ANNOTATOR, LABEL = "item", "annotator", "label"

_SAME_ITEMS = (
    "Use the same unique index for the judge and the people, or lists of the same length."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Ratings:
    """
    The labels of a judge and of people.

    Attributes:
        index: the items of the judge.
        annotators: the names of the people.
        labels: all labels, in their order.
        level: the scale of the labels.
        judge: the number of the judge's label for each item; -1 if missing.
        people: the number of each person's label, (items, people); -1 if missing.
        unjudged: the number of items with labels of people that are not among the judge's.
    """

    index: pd.Index[Any]
    annotators: list[str]
    labels: list[Any]
    level: Level
    judge: NDArray[np.intp]
    people: NDArray[np.intp]
    unjudged: int

    @property
    def is_numeric(self) -> bool:
        """Whether the labels are numbers with meaningful differences."""
        return self.level in ("interval", "ratio")

    @property
    def is_ordered(self) -> bool:
        """Whether the order of the labels has a meaning."""
        return self.level != "nominal"

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """The value of each label: the number itself, or its position among the labels."""
        numbers = self.labels if self.is_numeric else range(len(self.labels))
        return np.array([float(each) for each in numbers], np.float64)

    def valued(self, codes: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the values of labels by number; NaN if missing."""
        return np.append(self.values, np.nan)[codes]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many people gave each label, (items, labels)."""
        table = np.zeros((len(self.people), len(self.labels)), np.int64)
        for column in self.people.T:
            known = np.flatnonzero(column >= 0)
            table[known, column[known]] += 1
        return table

    @cached_property
    def majority(self) -> NDArray[np.intp]:
        """The number of the label that most people gave; -1 without a label, or if several tie."""
        counts = self.counts
        if not counts.shape[1]:
            return np.full(len(counts), -1, np.intp)
        most = counts.max(axis=1)
        is_clear = (most > 0) & ((counts == most[:, None]).sum(axis=1) == 1)
        return np.where(is_clear, counts.argmax(axis=1), -1)


def read_ratings(judge: Any, people: Any, labels: Any = None, level: Any = None) -> Ratings:
    """
    Return the labels of ``judge`` and ``people``, which are those of `agreement`.

    Raises:
        UsageError: they are not labels, the items do not match, or a label is not among ``labels``.
    """
    if level is not None and level not in LEVELS:
        msg = f"Invalid level: {level!r:.60}."
        raise UsageError(msg, hint=f"Use one of {', '.join(LEVELS)}.")
    if callable(getattr(people, "wide", None)):  # the result of lm.label
        people = people.wide()
    judged = _column(judge, "judge")
    table, unjudged = _matched(judge, people, judged, _people(people))
    columns = [judged, *_columns(table)]
    values = [_known(column) for column in columns]
    found = _distinct(values)
    _check_found(found, _distinct(values[:1]), _distinct(values[1:]))
    categories = _ordered_categories(columns) if labels is None else _listed_labels(labels)
    ordered = _sorted(found) if categories is None else categories
    if extra := [each for each in found if each not in set(ordered)]:
        msg = f"{display_name(str(extra[0]))!r} is not one of the labels."
        raise UsageError(msg, hint="Add it to labels=[…], or replace it with None.")
    if level is None:
        level = _level(found, is_ordered=categories is not None)
    if level in ("interval", "ratio") and not all(isinstance(each, Real) for each in ordered):
        msg = f"The level {level} needs numbers."
        raise UsageError(msg, hint='Use the level "ordinal" or "nominal" for other labels.')
    numbers = {label: number for number, label in enumerate(ordered)}
    codes = [
        np.array([-1 if each is None else numbers[each] for each in column], np.intp)
        for column in values
    ]
    people_codes = np.array(codes[1:], np.intp).reshape(len(codes) - 1, len(judged)).T
    return Ratings(
        index=judged.index,
        annotators=[str(name) for name in table.columns],
        labels=list(ordered),
        level=level,
        judge=codes[0],
        people=people_codes,
        unjudged=unjudged,
    )


def _matched(
    judge: Any, people: Any, judged: pd.Series[Any], table: pd.DataFrame
) -> tuple[pd.DataFrame, int]:
    """Return the labels of people of the judge's items, and the number of other items."""
    if not (_is_long(people) or (_has_index(people) and _has_index(judge))):
        if len(table) != len(judged):
            msg = f"The judge has {len(judged):,} items and the people {len(table):,}."
            raise UsageError(msg, hint=_SAME_ITEMS)
        return table, 0
    if _is_same(judged.index, table.index):
        return table, 0
    return _align(judged.index, table)


def aligned(values: Any, index: pd.Index[Any], what: str) -> list[Any]:
    """
    Return a value of a column for each item; ``None`` if missing.

    Raises:
        UsageError: it is not a column, or its items do not match.
    """
    column = _column(values, what)
    if not _has_index(values):
        if len(column) != len(index):
            msg = f"{what} has {len(column):,} values for {len(index):,} items."
            raise UsageError(msg, hint=_SAME_ITEMS)
    elif not _is_same(index, column.index):
        column = _align(index, column.to_frame())[0].iloc[:, 0]
    return _known(column)


def _has_index(values: Any) -> bool:
    return isinstance(values, pd.Series | pd.DataFrame | Mapping)


def _is_long(people: Any) -> bool:
    names = getattr(people, "column_names", getattr(people, "columns", ()))
    return {ITEM, ANNOTATOR, LABEL} <= {*names}


def _column(values: Any, what: str) -> pd.Series[Any]:
    """Return labels as a Series; lists have no index but their positions."""
    if isinstance(values, pd.Series):
        return values
    if isinstance(values, Mapping):
        return pd.Series(values, dtype=object)
    if isinstance(values, pd.DataFrame):
        msg = f"{what} must be one column, not a DataFrame."
        raise UsageError(msg, hint='Pass a column: df["label"]')
    return pd.Series(to_list(values), dtype=object, name=what)


def _people(people: Any) -> pd.DataFrame:
    """Return a column for each annotator."""
    if not isinstance(people, pd.DataFrame) and (
        hasattr(people, "get_columns") or hasattr(people, "column_names")
    ):
        people = to_pandas(people)
    if not isinstance(people, pd.DataFrame):
        column = _column(people, "people")
        return column.to_frame("people" if column.name is None else str(column.name))
    return _widened(people) if _is_long(people) else people


def _widened(long: pd.DataFrame) -> pd.DataFrame:
    """Return a column for each annotator, from a row for each label."""
    known = long[long[LABEL].notna()]
    for name in (ITEM, ANNOTATOR):
        if known[name].isna().any():
            msg = f"Some labels have no {name}."
            raise UsageError(msg, hint=f"Fill the column {name!r}, or leave these rows out.")
    pairs = list(zip(known[ITEM], known[ANNOTATOR], strict=True))
    labels = dict(zip(pairs, known[LABEL], strict=True))
    if len(labels) < len(pairs):
        msg = "Some annotators have several labels for an item."
        raise UsageError(msg, hint="Leave one row for each item and annotator.")
    items, names = dict.fromkeys(long[ITEM]), dict.fromkeys(long[ANNOTATOR])
    columns = {
        name: pd.Series([labels.get((item, name)) for item in items], dtype=object)
        for name in names
    }
    return pd.DataFrame(columns).set_axis(pd.Index(list(items)), axis=0)


def _is_same(one: pd.Index[Any], other: pd.Index[Any]) -> bool:
    return len(one) == len(other) and one.equals(other)


def _align(index: pd.Index[Any], table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the rows of the judge's items, and the number of others."""
    if not (index.is_unique and table.index.is_unique):
        msg = "Items with the same label in the index cannot be matched."
        raise UsageError(msg, hint=_SAME_ITEMS)
    places = index.get_indexer(table.index) if len(table) else np.empty(0, np.intp)
    found = np.full(len(index), -1, np.intp)
    found[places[places >= 0]] = np.flatnonzero(places >= 0)
    rows = {
        number: pd.Series(
            [None if place < 0 else values[place] for place in found.tolist()], index, object
        )
        for number, values in enumerate(map(_known, _columns(table)))
    }
    taken = pd.DataFrame(rows, index).set_axis(table.columns, axis=1)
    return taken, int((places < 0).sum())


def _columns(table: pd.DataFrame) -> list[pd.Series[Any]]:
    """Return the columns, whose names may be equal."""
    return [table.iloc[:, number] for number in range(table.shape[1])]


def _known(column: pd.Series[Any]) -> list[Any]:
    """Return the values of a column, with ``None`` for missing ones."""
    return [
        None if is_missing else value
        for value, is_missing in zip(column.tolist(), column.isna().tolist(), strict=True)
    ]


def _check_found(found: list[Any], judge: list[Any], people: list[Any]) -> None:
    """
    Raise `UsageError` for labels that cannot be compared, and warn of some that look equal.

    Labels that were read from a file or an answer are texts, also of numbers and booleans.
    """
    if any(isinstance(each, float) and math.isinf(each) for each in found):
        msg = "A label is infinite."
        raise UsageError(msg, hint="Replace it with None.")
    if judge and people and not {*map(_kind, judge)} & {*map(_kind, people)}:
        what = [f"{_kind(each[0])} ({display_name(repr(each[0]))})" for each in (judge, people)]
        msg = f"The judge's labels are {what[0]}, and those of people are {what[1]}."
        raise UsageError(msg, hint='Convert them: judge.astype(int), judge.map({"True": True, …})')
    similar: dict[str, str] = {}
    for each in found:
        if isinstance(each, str):
            other = similar.setdefault(" ".join(each.split()).casefold(), each)
            if other != each:
                msg = (
                    f"The labels {other!r:.60} and {each!r:.60} differ only in case or spaces,"
                    " and count as different labels."
                )
                warn(msg)


def _kind(label: Any) -> str:
    if isinstance(label, str):
        return "texts"
    is_number = isinstance(label, Real | np.bool_)
    return "numbers or booleans" if is_number else f"of the type {type(label).__name__}"


def _listed_labels(labels: Any) -> list[Any]:
    """Return the labels that the user lists."""
    listed = _known(pd.Series(to_list(labels), dtype=object))
    if len(_distinct([listed])) < len(listed):
        msg = "labels has a missing value, or a label twice."
        raise UsageError(msg, hint='List each label once, in their order: labels=["bad", "good"]')
    return listed


def _ordered_categories(columns: Iterable[pd.Series[Any]]) -> list[Any] | None:
    for column in columns:
        if isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.ordered:
            return list(column.dtype.categories)
    return None


def _distinct(columns: Iterable[Iterable[Any]]) -> list[Any]:
    try:
        return list({each: None for column in columns for each in column if each is not None})
    except TypeError:
        msg = "A label must be a text, a number or a boolean."
        raise UsageError(msg, hint="Pass one label for each item.") from None


def _sorted(labels: list[Any]) -> list[Any]:
    try:
        return sorted(labels)
    except TypeError:  # labels of several types
        return sorted(labels, key=lambda each: (type(each).__name__, str(each)))


def _level(labels: list[Any], *, is_ordered: bool) -> Level:
    if is_ordered:
        return "ordinal"
    is_numeric = all(isinstance(each, Real) for each in labels)
    has_numbers = any(not isinstance(each, bool | np.bool_) for each in labels)
    return "interval" if labels and is_numeric and has_numbers else "nominal"
