"""The corrected score of a judge: honest intervals from a few labels of people."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics.errors import UsageError
from llm_magics.evaluations.judge_correction import estimate_mean
from tests.benchmarks.evaluations.correction_coverage import Ratings, Shares


def test_a_biased_judge_is_corrected() -> None:
    """Its own mean is outside of the interval, which contains the true one and is narrow."""
    rng = np.random.default_rng(0)
    true = pd.Series(rng.random(4000) < 0.7)
    judge = true | pd.Series(rng.random(4000) < 0.3)
    people = true.sample(200, random_state=1)
    table = lm.agreement(judge, people).corrected("table").set_index("score")
    row = table.loc["share of True"]
    assert row.low < true.mean() < row.high < row.judge
    assert row.width_ratio < 0.95
    assert (row.labels, row["items"]) == (200, 4000)
    assert table.loc["share of False"].estimate == pytest.approx(1 - row.estimate)


def test_a_mean_of_numbers_has_one_row() -> None:
    """Of several people it is their mean; a table that is labelled completely is known."""
    people = pd.DataFrame({"a": [1, 2, 4, 5], "b": [2, 2, 4, None]})
    report = lm.agreement([1.5, 2, 4, 5], people)
    row = report.corrected("table").iloc[0]
    assert row.score == "mean"
    assert row.estimate == pytest.approx((1.5 + 2 + 4 + 5) / 4)
    assert row.high - row.low == pytest.approx(0, abs=1e-9)
    future = report.corrected().iloc[0]
    assert future.low < row.estimate < future.high


def test_missing_scores_of_the_judge_leave_no_item_out() -> None:
    """They tell nothing, and a judge without any score changes nothing."""
    rng = np.random.default_rng(0)
    people = np.where(rng.random(300) < 0.5, rng.normal(size=300), np.nan)
    none = estimate_mean(np.full(300, np.nan), people)
    constant = estimate_mean(np.zeros(300), people)
    assert none == constant
    assert none.value == pytest.approx(np.nanmean(people))
    assert none.high - none.low == pytest.approx(none.width_alone)


@pytest.mark.parametrize("people", [[None, None, None], [1.0, None, None], [2.0, 2.0, None]])
def test_too_few_labels_have_no_interval(people: list) -> None:
    """And the table says why."""
    row = lm.agreement([0.5, 1.5, 2.5], people).corrected().iloc[0]
    assert math.isnan(row.low)
    assert row.note


def test_labels_that_are_not_a_random_sample_are_noticed() -> None:
    """If the judge's labels of them differ from those of others."""
    judge = pd.Series(np.arange(400) % 2)
    people = judge[judge == 1].head(50)
    assert "random sample" in lm.agreement(judge, people).corrected().iloc[0].note
    assert not lm.agreement(judge, judge.sample(50, random_state=0)).corrected().iloc[0].note


def test_items_are_future_or_those_of_the_table() -> None:
    """Nothing else."""
    with pytest.raises(UsageError, match="Invalid items"):
        lm.agreement([1, 2], [1, 2]).corrected("all")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cell", "truth"),
    [
        (Shares(share=0.3, hits=0.9, alarms=0.2, labels=100, items=1000, of="future"), 0.3),
        (Shares(share=0.05, hits=0.9, alarms=0.2, labels=100, items=1000, of="table"), 0.05),
        (Ratings(people=3, noise=0.7, labels=100, items=1000, of="table"), math.nan),
    ],
)
def test_intervals_cover_the_true_score(cell: Shares | Ratings, truth: float) -> None:
    """In 91 % of 150 trials or more; the whole measurement is a benchmark."""
    trials = [cell.trial(np.random.default_rng([3, number]), truth) for number in range(150)]
    assert np.mean([is_covered for is_covered, _ in trials]) >= 0.91
