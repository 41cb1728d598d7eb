"""Evaluations: sets, tasks, results and the stored ones."""

from __future__ import annotations

from typing import Any, assert_type

import pandas as pd

import llm_magics as lm
from llm_magics.evaluations.evaluation_run import EvaluationPlan
from llm_magics.evaluations.items import Item

data = lm.EvaluationSet([{"text": "a", "expected": "b"}], labels={"anna": "first"})


def task(row: pd.Series[Any], model: str) -> lm.Response:
    """Ask about an item."""
    return lm.ask(row["text"], model=model)


def by_functions() -> None:
    """Results, plans, and what is stored."""
    runs = lm.evaluate(task, data, ["echo/echo"], score=["exact", len], temperature=0)
    assert_type(runs, lm.EvaluationResults)
    assert_type(lm.evaluate("{{ text }}", data, dry_run=True), EvaluationPlan)
    assert_type(runs.differences(other="previous", common=True), pd.DataFrame)
    assert_type(runs.failures(3), pd.DataFrame)
    assert_type(runs.scored("exact"), lm.EvaluationResults)
    assert_type(lm.load_evaluation("labels"), lm.EvaluationResults)
    assert_type(lm.list_evaluations(), pd.DataFrame)


def by_items() -> None:
    """Sets are sequences of items."""
    assert_type(data.split("test").sample(3, seed=1), lm.EvaluationSet)
    assert_type(data.items[0], Item)
    assert_type(data.digest, str)


async def and_wait() -> None:
    """The asynchronous form has the same result."""
    assert_type(await lm.aevaluate("{{ text }}", data), lm.EvaluationResults)
