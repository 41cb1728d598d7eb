"""What careless users pass to operators: each mistake is named, and none is ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics._util.text import format_confidence, format_percent, wrap_parts
from tests.support.judge import Judge

STATEMENT = "{{ text }} is good"
PAIR = "{{ left.text }} is {{ right.text }}"


def table(count: int = 60) -> pd.DataFrame:
    """Texts with labels, and few different scores."""
    good = [number % 3 == 0 for number in range(count)]
    text = [f"{'yes' if each else 'no'} {number}" for number, each in enumerate(good)]
    score = [0.8 if each else 0.2 + number % 4 / 20 for number, each in enumerate(good)]
    return pd.DataFrame({"text": text, "label": good, "score": score, "group": text})


OPERATORS: dict[str, Callable[..., Any]] = {
    "filter": lambda frame, **given: frame.llm.filter(STATEMENT, **{"oracle": "label", **given}),
    "share": lambda frame, **given: frame.llm.share(STATEMENT, **{"oracle": "label", **given}),
    "join": lambda frame, **given: frame.llm.join(frame, PAIR, **{"oracle": bool, **given}),
    "topk": lambda frame, **given: frame.llm.topk(STATEMENT, **given),
    "aggregate": lambda frame, **given: frame.llm.aggregate("What is good?", **given),
}


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("filter", "accurcy"),
        ("filter", "oracel"),
        ("share", "labls"),
        ("join", "recal"),
        ("join", "candidats"),
        ("topk", "candidats"),
        ("aggregate", "rows_per_promt"),
        *((each, "concurency") for each in OPERATORS),
    ],
)
def test_a_mistyped_argument_is_not_ignored(service: Judge, operator: str, name: str) -> None:
    """Also if labels of people are the oracle, so that no model would refuse it."""
    with pytest.raises(errors.UsageError, match=f"Unknown argument: {name}"):
        OPERATORS[operator](table(), **{name: 0.9})


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("topk", "oracle"),
        ("topk", "by"),
        ("aggregate", "oracle"),
        ("aggregate", "labels"),
        ("join", "accuracy"),
        ("join", "precision"),
        ("join", "proxy"),
        ("share", "recall"),
        ("filter", "by"),
        ("filter", "labels"),
    ],
)
def test_an_argument_of_another_operator_is_not_ignored(
    service: Judge, operator: str, name: str
) -> None:
    """It would be sent to the model as a parameter."""
    with pytest.raises(errors.UsageError, match=f"{operator} has no argument {name}"):
        OPERATORS[operator](table(), **{name: 0.9})


@pytest.mark.parametrize("operator", ["share", "aggregate"])
def test_a_column_groups_once(service: Judge, operator: str) -> None:
    """Groups by the same column twice would have two columns with its name."""
    with pytest.raises(errors.UsageError, match="twice"):
        OPERATORS[operator](table(), by=["group", "group"])


@pytest.mark.parametrize("operator", ["filter", "join"])
def test_the_model_may_be_named_as_elsewhere(service: Judge, operator: str) -> None:
    """As ``model``, which is the oracle if no other is named."""
    found = OPERATORS[operator](table(6), oracle=None, model="lab/m")
    assert found.llm.report.oracle == "lab/m"
    assert len(found) == {"filter": 2, "join": 20}[operator]


def test_a_lazy_frame_is_collected_first() -> None:
    """The hint says how."""
    with pytest.raises(errors.UsageError) as caught:
        lm.filter(pl.DataFrame({"text": ["a"]}).lazy(), STATEMENT, oracle=bool)
    assert "collect()" in str(caught.value.hint)


def test_ties_do_not_depend_on_the_order_of_the_table() -> None:
    """With few different scores, the same rows are asked and kept."""
    frame = table(400)
    one, other = (
        each.llm.filter(STATEMENT, oracle="label", proxy="score").llm.report.frame()
        for each in (frame, frame.sample(frac=1, random_state=3))
    )
    pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other.loc[one.index]))


@pytest.mark.parametrize("calls", [1, 2, 3, 7])
@pytest.mark.parametrize("target", ["precision", "recall"])
def test_max_calls_is_the_most(target: str, calls: int) -> None:
    """Also where no sample fits into it."""
    kept = table(400).llm.filter(
        STATEMENT, **{target: 0.9}, max_calls=calls, oracle="label", proxy="score"
    )
    assert kept.llm.report.asked <= calls


def test_rows_without_a_text_have_no_rank(service: Judge) -> None:
    """A table may have no others."""
    found = pd.DataFrame({"text": [None, None]}).llm.topk(STATEMENT)
    assert len(found) == 0
    assert found.llm.report.missing == 2


def test_reports_have_plain_numbers() -> None:
    """NumPy's types would be shown with their names."""
    bound = table(200).llm.filter(STATEMENT, oracle="label", proxy="score").llm.report.bound
    assert {type(each) for each in bound.values()} == {float}
    with pytest.raises(errors.UsageError, match=r"has the score -1\.0\."):
        table().assign(score=-1.0).llm.filter(STATEMENT, oracle="label", proxy="score")


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.6234, "62 %"),
        (3701 / 3708, "99.81 %"),
        (0.99999, "99.999 %"),
        (0.0013, "0.13 %"),
        (np.float64(0.5), "50 %"),
    ],
)
def test_a_part_is_never_shown_as_all_or_nothing(share: float, shown: str) -> None:
    """Near 0 and 1, percentages have more digits."""
    assert format_percent(share) == shown


def test_a_confidence_has_all_its_digits() -> None:
    """It is a promise, so it is not rounded."""
    shown = [format_confidence(each) for each in (0.95, 0.975, 0.999999, 0.9)]
    assert shown == ["95 %", "97.5 %", "99.9999 %", "90 %"]


def test_a_long_report_breaks_between_its_parts() -> None:
    """And not in the middle of a number."""
    shown = wrap_parts("one 1 · two 2 · three 3 · four", 14)
    assert shown.splitlines() == ["one 1 · two 2", "three 3 · four"]
    assert wrap_parts("a part longer than the width", 5) == "a part longer than the width"


@pytest.mark.parametrize("kind", [pd.Series, np.array, pl.Series])
@pytest.mark.parametrize(
    ("operator", "name"), [("filter", "proxy"), ("share", "proxy"), ("topk", "scores")]
)
def test_a_column_is_named_and_not_passed(
    service: Judge, operator: str, name: str, kind: Callable[[Any], Any]
) -> None:
    """Its truth value is ambiguous."""
    scores = kind(table()["score"].tolist())
    with pytest.raises(errors.UsageError, match=r"Invalid value for proxy|no column of scores"):
        OPERATORS[operator](table(), **{name: scores})
