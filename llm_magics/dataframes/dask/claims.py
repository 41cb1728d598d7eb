"""``aggregate`` for Dask: claims are made by the workers, and merged in this process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import dask
import pandas as pd

from llm_magics.dataframes.dask.workers import WorkerTask, picklable_error, with_limit
from llm_magics.dataframes.operators.aggregate import (
    announce_result,
    build_result,
    check_question,
    create_tree,
)
from llm_magics.dataframes.operators.claim_tree import Spending
from llm_magics.dataframes.operators.grouped_rows import (
    Table,
    find_template,
    join_tables,
    read_table,
)
from llm_magics.dataframes.operators.packed_prompts import RowsPerPrompt
from llm_magics.dataframes.reports import sum_known
from llm_magics.dataframes.row_prompts import RowPrompts, prompt_columns
from llm_magics.errors import LLMError


@dataclass(frozen=True, kw_only=True)
class PartitionClaims:
    """The claims about the rows of a partition, the rows whose text was cut, and the prompts."""

    table: Table
    cut: set[int]
    spending: Spending


@dataclass(frozen=True, kw_only=True)
class GroupQuestion:
    """
    A question about groups of rows.

    Attributes:
        prompt_spec: the question, the model, and how to send prompts.
        by: the columns that group the rows.
        on, rows_per_prompt: as for `llm_magics.aggregate`.
    """

    prompt_spec: RowPrompts
    by: list[Any]
    on: Any
    rows_per_prompt: RowsPerPrompt


def aggregate_partitions(
    frame: Any, task: WorkerTask, question: GroupQuestion, portable: RowPrompts
) -> pd.DataFrame:
    """
    Return the answer for each group of a Dask DataFrame.

    ``portable`` are the prompts of ``question`` without what must not be in the graph.
    """
    check_question(question.prompt_spec.text)
    by, template = question.by, find_template(frame._meta, question.by, question.on)
    empty = read_table(frame._meta, by, template)  # to find mistakes before the work begins
    spec = replace(question.prompt_spec, yes=True)
    tree = create_tree(empty, spec, question.rows_per_prompt)
    read = prompt_columns(frame._meta, RowPrompts(text=template))
    view = frame[list(dict.fromkeys([*by, *read]))]
    claims = dask.delayed(claims_of_partition)
    question = replace(question, prompt_spec=portable, on=template)
    parts = [claims(part, task, question) for part in view.to_delayed()]
    found: tuple[PartitionClaims, ...] = dask.compute(*parts)
    table = join_tables([each.table for each in found])
    offset = 0
    for each in found:
        tree.cut |= {row + offset for row in each.cut}
        offset += len(each.table.index)
    tree.earlier = Spending(
        calls=sum(each.spending.calls for each in found),
        cached=sum(each.spending.cached for each in found),
        cost_usd=sum_known([each.spending.cost_usd for each in found]),
    )
    tree.finish(table.groups)
    return announce_result(build_result(table, tree))


def claims_of_partition(
    frame: pd.DataFrame, task: WorkerTask, question: GroupQuestion
) -> PartitionClaims:
    """Return the claims about the rows of a partition."""
    with task.apply_settings(), with_limit(task):
        try:
            table = read_table(frame, question.by, question.on)
            spec = replace(task.complete(question.prompt_spec), yes=True)
            tree = create_tree(table, spec, question.rows_per_prompt)
            tree.extract(table.groups)
        except LLMError as error:
            raise picklable_error(error) from None
    for group in table.groups:
        group.failures = [
            each._replace(error=picklable_error(each.error)) for each in group.failures
        ]
    return PartitionClaims(table=replace(table, texts=()), cut=tree.cut, spending=tree.spending)
