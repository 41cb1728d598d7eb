"""The groups of a table, and the texts of its rows."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics.dataframes.operators.claim_tree import Group
from llm_magics.dataframes.operators.groups import group_columns, group_rows
from llm_magics.dataframes.operators.questions import statement_texts
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.rows import TEXT, get_column
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

# The columns of the result, after those of the groups.
COLUMNS = ("answer", "claims", "rows", "cited")

# The rows by which a column of objects is recognised as one of texts.
_LOOKED_AT = 100


@dataclass(frozen=True, kw_only=True)
class Table:
    """
    The groups and the texts of a table.

    Attributes:
        index: the labels of the rows.
        keys: the values of the columns that group the rows, one row per group.
        groups: the groups.
        texts: the text of each row.
        missing: the number of rows without one.
    """

    index: pd.Index[Any]
    keys: DataFrame
    groups: list[Group]
    texts: Sequence[str]
    missing: int


class _TextsOfRows(Sequence[str]):
    """The text of each row, rendered when it is read."""

    def __init__(self, texts: Sequence[str], codes: NDArray[np.int32]) -> None:
        self._texts = texts
        self._codes = codes

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, row: Any) -> Any:
        return self._texts[int(self._codes[row])]


def read_table(frame: DataFrame, by: Any, on: Any) -> Table:
    """
    Return the groups and texts of ``frame``; ``by`` and ``on`` are as for `aggregate`.

    Raises:
        UsageError: a column does not exist, or `group_columns` refuses it.
        TemplateError: the texts cannot be rendered.
    """
    names = group_columns(frame, by, COLUMNS)
    texts = statement_texts(frame, RowPrompts(text=find_template(frame, names, on)))
    numbers, values = group_rows(frame, names)
    groups = _groups(numbers, texts.codes, len(values))
    return Table(
        index=frame.index,
        keys=values,
        groups=groups,
        texts=_TextsOfRows(texts, texts.codes),
        missing=int((texts.codes < 0).sum()),
    )


def _groups(numbers: NDArray[np.intp], codes: NDArray[np.int32], count: int) -> list[Group]:
    """Return the rows of each of ``count`` groups that have a text; of equal texts, the first one."""
    found: list[dict[int, list[int]]] = [{} for _ in range(count)]
    for row, (group, code) in enumerate(zip(numbers.tolist(), codes.tolist(), strict=True)):
        if code >= 0:
            found[group].setdefault(code, []).append(row)
    return [
        Group(
            rows=[rows[0] for rows in by_text.values()],
            copies={rows[0]: rows for rows in by_text.values() if len(rows) > 1},
        )
        for by_text in found
    ]


def find_template(frame: DataFrame, by: Sequence[Hashable], on: Any) -> str:
    """
    Return the template of the texts; ``on`` is as for `aggregate`.

    Raises:
        UsageError: a column does not exist, or several could be meant.
    """
    if isinstance(on, str) and on not in frame.columns and ("{{" in on or "{%" in on):
        return on
    if on is None:
        on = TEXT if TEXT in frame.columns else _only_text_column(frame, by)
    names = list(on) if isinstance(on, list) else [on]
    if not names:
        msg = "on is an empty list."
        raise UsageError(msg, hint="Pass the name of the column of texts.")
    for name in names:
        get_column(frame, name)
    if len(names) == 1:
        return f"{{{{ row[{_quote(names[0])}] }}}}"
    quoted = [_quote(name) for name in names]
    return "\n".join(f"{{{{ {name} }}}}: {{{{ row[{name}] }}}}" for name in quoted)


def _quote(name: Hashable) -> str:
    """Return the name of a column as a string in a template, which has no surrogate pairs."""
    return json.dumps(str(name), ensure_ascii=False)


def _only_text_column(frame: DataFrame, by: Sequence[Hashable]) -> Hashable:
    """Return the only column with texts, except for those of ``by``."""
    names = [name for name in frame.columns if name not in by and _has_texts(frame[name])]
    if len(names) != 1:
        listed = ", ".join(map(str, names or frame.columns))
        msg = f"Which column has the texts? Possible ones: {listed}."
        raise UsageError(msg, hint='Name it: on="review"')
    return names[0]


def _has_texts(column: pd.Series[Any]) -> bool:
    if column.dtype != object:
        return isinstance(column.dtype, pd.StringDtype)
    return column.empty or any(isinstance(value, str) for value in column.iloc[:_LOOKED_AT])


def join_tables(tables: Sequence[Table]) -> Table:
    """
    Return the table of which ``tables`` are the parts, with the claims of their groups.

    It has no texts, because the claims are extracted already.
    """
    offsets = np.cumsum([0, *(len(table.index) for table in tables)]).tolist()
    keys = pd.concat([table.keys for table in tables], ignore_index=True)
    numbers, values = group_rows(keys, list(keys.columns))
    groups = [Group(rows=[], copies={}) for _ in range(len(values))]
    parts = [
        (group, offset)
        for table, offset in zip(tables, offsets, strict=False)
        for group in table.groups
    ]
    for number, (part, offset) in zip(numbers.tolist(), parts, strict=True):
        groups[number].add(part, offset)
    index = tables[0].index
    return Table(
        index=index.append([table.index for table in tables[1:]]),
        keys=values,
        groups=groups,
        texts=(),
        missing=sum(table.missing for table in tables),
    )
