"""``aggregate``: one answer about the rows of each group, with the rows it rests on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics._util.text import pluralize
from llm_magics._util.validation import check_integer
from llm_magics.dataframes.operators.aggregate_report import AggregateReport
from llm_magics.dataframes.operators.claim_tree import AUTO_ROWS, ClaimTree
from llm_magics.dataframes.operators.consent import DryRunEnd, no_cost
from llm_magics.dataframes.operators.grouped_rows import Table, read_table
from llm_magics.dataframes.operators.options import check_parameters
from llm_magics.dataframes.operators.packed_prompts import (
    RowsPerPrompt,
    check_rows_per_prompt,
)
from llm_magics.dataframes.operators.same_kind import row_labels
from llm_magics.dataframes.reports import announce, store_report
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.rows import OnError, to_frame
from llm_magics.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from pandas import DataFrame

    from llm_magics.dataframes.reports import RowsEstimate

__all__ = ["aggregate"]


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
    check_parameters(aggregate, parameters)
    prompt_spec = RowPrompts(
        text=check_question(question),
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
        raise _interrupted(table, tree, is_stored=not prompt_spec.fresh) from None
    if dry_run:
        return no_cost(len(table.index))
    return announce_result(build_result(table, tree))


def check_question(question: Any) -> str:
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
    return ClaimTree(prompt_spec.text, table.texts, prompt_spec=prompt_spec, max_rows=most)


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
        missing=table.missing,
        cut=row_labels(table.index, sorted(tree.cut)),
        calls=tree.spending.calls,
        cached=tree.spending.cached,
        cost_usd=tree.spending.cost_usd,
        _groups=groups,
        _keys=table.keys,
        _index=table.index,
    )
    store_report(found, report)
    return found


def announce_result(found: DataFrame) -> DataFrame:
    """Return ``found``, and announce its report."""
    report = found.llm.report
    failed, details = report.failed > 0, "see .llm.report.failures()"
    announce(report, "", has_failed=failed, details=details)
    return found


def _interrupted(table: Table, tree: ClaimTree, *, is_stored: bool) -> Interrupted:
    """Return the exception for an interrupt."""
    answered = sum(group.answer is not None for group in table.groups)
    done = pluralize(tree.spending.calls + tree.spending.cached, "answer")
    msg = f"Stopped: {answered:,} of {pluralize(len(table.groups), 'group')} are answered."
    hint = f"The {done} to prompts are stored and will not be requested again."
    partial = build_result(table, tree)
    return Interrupted(msg, hint=hint if is_stored else None, partial=partial)
