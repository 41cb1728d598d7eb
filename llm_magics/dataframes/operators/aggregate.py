"""``aggregate``: one answer about the rows of each group, with the rows it rests on."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._util.text import pluralize
from llm_magics._util.validation import check_integer
from llm_magics.dataframes.operators.aggregate_report import AggregateReport
from llm_magics.dataframes.operators.claim_tree import AUTO_ROWS, ClaimTree, Group
from llm_magics.dataframes.operators.consent import DryRunEnd, no_cost
from llm_magics.dataframes.operators.options import check_no_batch
from llm_magics.dataframes.operators.packed_prompts import (
    RowsPerPrompt,
    check_rows_per_prompt,
)
from llm_magics.dataframes.operators.questions import statement_texts
from llm_magics.dataframes.reports import announce, store_report
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.rows import TEXT, OnError, get_column, to_frame
from llm_magics.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

    from llm_magics.dataframes.reports import RowsEstimate
    from llm_magics.dataframes.row_texts import RowTexts

__all__ = ["aggregate"]

# The columns of the result, after those of the groups.
COLUMNS = ("answer", "claims", "rows", "cited")


def aggregate(  # noqa: PLR0913 (as for lm.prompt)
    rows: Any,
    question: str,
    *,
    by: Any = None,
    on: Any = None,
    model: str | None = None,
    rows_per_prompt: RowsPerPrompt = "auto",
    system: str | None = None,
    concurrency: int | None = None,
    on_error: OnError = "null",
    fresh: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    **parameters: Any,
) -> DataFrame | RowsEstimate:
    """
    Answer a question about the rows of each group, and name the rows on which the answer rests.

    The model makes claims about packs of rows, and names the rows of each; claims of several packs
    are merged, and the answer is written from them. A claim that names no row of its prompt is
    dropped. Answers are cached: the same call continues where it stopped, and sends only prompts
    that failed.

    Args:
        rows: a DataFrame; or a list, array, or column of pandas, polars or pyarrow.
        question: the question, such as ``"What do these reviews complain about?"``.
        by: the column that groups the rows, or a list of columns; by default, all rows are one
            group. Rows with a missing value in it are a group too.
        on: the column of texts, a list of columns, or a template such as
            ``"{{ title }}: {{ text }}"``. By default the column ``text``, or the only one with texts.
            Rows in which all of them are missing are left out.
        model: the model.
        rows_per_prompt: the most rows in one prompt; by default 50, or fewer if the model's context
            is too small. A text that does not fit alone is cut.
        system, parameters: as for `llm_magics.ask`, the same for all prompts.
        concurrency: number of concurrent requests.
        on_error: ``null`` does without the prompts that failed; ``raise`` raises the error.
        fresh: send prompts even if their answers are cached.
        dry_run: return an estimate of tokens, cost and time, and send nothing.
        yes: do not ask for confirmation of the cost (setting ``confirm_above_usd``).

    Returns:
        a DataFrame with a row for each group: the columns of ``by``, ``answer``, and the numbers of
        ``claims``, of ``rows`` with a text, and of rows ``cited`` by a claim. Its ``.llm.report`` is
        an `AggregateReport`, whose ``claims`` have the labels of the rows.

    Raises:
        UsageError: a column does not exist, or the cost needs confirmation.
        Interrupted: ``partial`` has the claims so far.
        LLMError: an error that affects all rows.
    """
    check_no_batch("aggregate", parameters)
    prompt_spec = RowPrompts(
        text=_check_question(question),
        model=model,
        system=system,
        parameters=parameters,
        concurrency=concurrency,
        on_error=on_error,
        fresh=fresh,
        dry_run=dry_run,
        yes=yes,
    )
    table = read_table(to_frame(rows), by, on)
    tree = create_tree(table, prompt_spec, rows_per_prompt)
    try:
        tree.run(table.groups)
    except DryRunEnd as end:
        return replace(end.estimate, rows=len(table.index))
    except KeyboardInterrupt:
        raise _interrupted(table, tree) from None
    if dry_run:
        return no_cost(len(table.index))
    found = build_result(table, tree)
    report = found.llm.report
    announce(report, "", has_failed=report.failed > 0)
    return found


@dataclass(frozen=True, kw_only=True)
class Table:
    """
    The groups and the texts of a table.

    Attributes:
        index: the labels of the rows.
        keys: the values of the columns that group the rows, one row per group.
        groups: the groups.
        codes: the number of each row's text; negative without one.
        texts: the different texts.
    """

    index: pd.Index[Any]
    keys: DataFrame
    groups: list[Group]
    codes: NDArray[np.int32]
    texts: RowTexts


class _TextsOfRows(Sequence[str]):
    """The text of each row."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table.codes)

    def __getitem__(self, row: Any) -> Any:
        return self._table.texts[int(self._table.codes[row])]


def read_table(frame: DataFrame, by: Any, on: Any) -> Table:
    """
    Return the groups and texts of ``frame``; ``by`` and ``on`` are as for `aggregate`.

    Raises:
        UsageError: a column does not exist.
        TemplateError: the texts cannot be rendered.
    """
    names = [] if by is None else list(by) if isinstance(by, list) else [by]
    keys = [get_column(frame, name) for name in names]
    if taken := [name for name in names if name in COLUMNS]:
        msg = f"The column {taken[0]} of by= has the name of a column of the result."
        raise UsageError(msg, hint=f"Rename it: df.rename(columns={{{taken[0]!r}: …}})")
    texts = statement_texts(frame, RowPrompts(text=_template(frame, names, on)))
    numbers = _group_numbers(keys, len(frame))
    first = np.unique(numbers, return_index=True)[1]
    values = frame[names].iloc[first].reset_index(drop=True) if names else pd.DataFrame(index=[0])
    groups = _groups(numbers, texts.codes, len(values))
    return Table(index=frame.index, keys=values, groups=groups, codes=texts.codes, texts=texts)


def _group_numbers(keys: Sequence[Any], count: int) -> NDArray[np.intp]:
    """Return the number of each row's group, in the order of the values in ``keys``."""
    if not keys:
        return np.zeros(count, np.intp)
    table = pd.concat([each.reset_index(drop=True) for each in keys], axis=1)
    table.columns = pd.RangeIndex(len(keys))
    try:
        grouped = table.groupby(list(table.columns), dropna=False, observed=True)
        numbers: NDArray[np.intp] = grouped.ngroup().to_numpy(np.intp)
    except TypeError as error:
        msg = f"The rows cannot be grouped: {error}."
        raise UsageError(msg, hint="Group by a column of texts, numbers or dates.") from None
    return numbers


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


def _template(frame: DataFrame, by: Sequence[Hashable], on: Any) -> str:
    """Return the template of the texts."""
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
        return f"{{{{ row[{json.dumps(str(names[0]))}] }}}}"
    quoted = [json.dumps(str(name)) for name in names]
    return "\n".join(f"{{{{ {name} }}}}: {{{{ row[{name}] }}}}" for name in quoted)


def _only_text_column(frame: DataFrame, by: Sequence[Hashable]) -> Hashable:
    """Return the only column with texts, except for those of ``by``."""
    names = [
        name
        for name in frame.columns
        if name not in by and any(isinstance(value, str) for value in frame[name].iloc[:100])
    ]
    if len(names) != 1:
        listed = ", ".join(map(str, names or frame.columns))
        msg = f"Which column has the texts? Possible ones: {listed}."
        raise UsageError(msg, hint='Name it: on="review"')
    return names[0]


def _check_question(question: Any) -> str:
    if not isinstance(question, str) or not question.strip():
        msg = f"The question must be a text, got {question!r:.60}."
        raise UsageError(
            msg, hint='Use: df.llm.aggregate("What do these reviews complain about?")'
        )
    return question


def create_tree(
    table: Table, prompt_spec: RowPrompts, rows_per_prompt: RowsPerPrompt
) -> ClaimTree:
    """
    Return the prompts about ``table``; nothing is sent.

    Raises:
        UsageError: ``rows_per_prompt`` is not ``"auto"`` or a positive integer.
    """
    check_rows_per_prompt(rows_per_prompt)
    most = AUTO_ROWS if rows_per_prompt == "auto" else check_integer("rows_per_prompt", rows_per_prompt)  # fmt: skip
    return ClaimTree(prompt_spec.text, _TextsOfRows(table), prompt_spec=prompt_spec, max_rows=most)


def build_result(table: Table, tree: ClaimTree) -> DataFrame:
    """Return the answers, with their report."""
    groups = table.groups
    found = table.keys.copy()
    found["answer"] = pd.array([group.answer for group in groups], dtype="string")
    found["claims"] = [len(group.claims) for group in groups]
    found["rows"] = [len(group.expand(group.rows)) for group in groups]
    found["cited"] = [len(group.cited) for group in groups]
    report = AggregateReport(
        rows=len(table.index),
        missing=int((table.codes < 0).sum()),
        cut=[table.index[row] for row in sorted(tree.cut)],
        calls=tree.waves.calls,
        cached=tree.waves.cached,
        cost_usd=tree.waves.cost_usd,
        _groups=groups,
        _keys=table.keys,
        _index=table.index,
    )
    store_report(found, report)
    return found


def _interrupted(table: Table, tree: ClaimTree) -> Interrupted:
    """Return the exception for an interrupt."""
    answered = sum(group.answer is not None for group in table.groups)
    done = pluralize(tree.waves.calls + tree.waves.cached, "answer")
    msg = f"Stopped: {answered:,} of {pluralize(len(table.groups), 'group')} are answered."
    hint = f"The {done} to prompts are stored and will not be requested again."
    return Interrupted(msg, hint=hint, partial=build_result(table, tree))
