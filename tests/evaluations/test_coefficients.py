"""Coefficients of agreement equal those of other packages, and their intervals cover the truth."""

from __future__ import annotations

import math

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats import inter_rater

from llm_magics.evaluations.coefficients import (
    LEVELS,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
)
from tests.benchmarks.evaluations.agreement_coverage import Cell

FEW = settings(max_examples=20, deadline=None)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Draw the labels of several annotators about some items, and the number of labels."""
    count, people = draw(st.integers(2, 5)), draw(st.integers(2, 4))
    row = st.lists(st.integers(0, count - 1), min_size=people, max_size=people)
    return np.array(draw(st.lists(row, min_size=2, max_size=25))), count


@FEW
@given(tables(), st.sampled_from([None, "linear", "quadratic"]))
def test_cohen_kappa_equals_that_of_scikit_learn(drawn: tuple, weights: str | None) -> None:
    """With each kind of weights; unknown if only one label was given."""
    table, count = drawn
    one, other = table[:, 0], table[:, 1]
    found = cohen_kappa(one, other, count, weights)
    if len({*one, *other}) == 1:
        assert math.isnan(found.value)
        assert found.note == "both gave the same label to all items"
        return
    expected = cohen_kappa_score(one, other, weights=weights, labels=range(count))
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.low <= found.value <= found.high + 1e-9 <= 1 + 1e-9


@FEW
@given(tables())
def test_fleiss_kappa_equals_that_of_statsmodels(drawn: tuple) -> None:
    """Of the same number of annotators for each item."""
    table, count = drawn
    counts = (table[:, :, None] == np.arange(count)).sum(axis=1)
    found = fleiss_kappa(counts)
    if (counts.sum(axis=0) > 0).sum() == 1:
        assert math.isnan(found.value)
        return
    assert found.value == pytest.approx(inter_rater.fleiss_kappa(counts), abs=1e-9)
    assert found.low <= found.value <= found.high + 1e-9


@FEW
@given(tables(), st.sampled_from(LEVELS), st.integers(0, 2**32 - 1))
def test_alpha_equals_that_of_krippendorff(drawn: tuple, level: str, seed: int) -> None:
    """At each level, with missing labels."""
    table = drawn[0].astype(np.float64) ** 2 / 2
    table[np.random.default_rng(seed).random(table.shape) < 0.2] = np.nan
    found = krippendorff_alpha(table, level)
    usable = table[np.isfinite(table).sum(axis=1) >= 2]
    if len(np.unique(usable[np.isfinite(usable)])) < 2:
        assert math.isnan(found.value)
        assert found.note
        return
    expected = krippendorff.alpha(reliability_data=table.T, level_of_measurement=level)
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.n == len(usable)
    if len(usable) > 1:
        assert found.low <= found.value <= found.high + 1e-9


@pytest.mark.parametrize("level", LEVELS)
def test_the_variance_of_alpha_is_that_of_the_jackknife(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The influence of each item includes that on the expected disagreement and on the ranks."""
    rng = np.random.default_rng(3)
    true = rng.integers(1, 5, 150)[:, None]
    table = np.where(rng.random((150, 3)) < 0.6, true, rng.integers(1, 5, (150, 3))).astype(float)
    table[rng.random(table.shape) < 0.15] = np.nan
    seen = []

    def interval(value: float, variance: float, step: float, alpha: float) -> tuple[float, float]:
        seen.append(math.sqrt(variance) / value)
        return value, value

    monkeypatch.setattr("llm_magics.evaluations.coefficients._gamma_interval", interval)
    krippendorff_alpha(table, level)
    without = [
        math.log(1 - krippendorff_alpha(np.delete(table, row, 0), level).value)
        for row in range(150)
    ]
    assert seen[0] == pytest.approx(math.sqrt(149**2 / 150 * np.var(without, ddof=1)), rel=0.02)


def test_perfect_agreement_has_an_interval() -> None:
    """Ten equal pairs do not prove that the eleventh is equal; the interval narrows with more."""
    lows = []
    for n in (10, 100, 1000):
        labels = np.arange(n) % 2
        for found in (
            cohen_kappa(labels, labels, 2),
            fleiss_kappa(2 * np.eye(2, dtype=np.int64)[labels]),
            krippendorff_alpha(np.column_stack([labels, labels]).astype(float)),
        ):
            assert (found.value, found.high) == (1, 1)
        lows.append(found.low)
    assert 0 < lows[0] < 0.5
    assert 0.9 < lows[1] < 0.98 < lows[2] < 1


def test_unknown_coefficients_say_why() -> None:
    """Nothing to compare, one label, one item, and values that a scale does not have."""
    none = np.empty(0, np.intp)
    one = np.zeros(3, np.intp)
    assert cohen_kappa(none, none, 2).note == "no item has a label of both"
    assert cohen_kappa(one, one, 2).note == "both gave the same label to all items"
    assert cohen_kappa(one[:1], one[:1] + 1, 2).note == "one item has no interval"
    assert fleiss_kappa(np.empty((0, 2), np.int64)).note == "no item has a label of all annotators"
    assert fleiss_kappa(np.eye(2, dtype=np.int64)).note == "there is only one annotator"
    assert fleiss_kappa(np.array([[2, 0], [2, 0]])).note == "only one label was given"
    assert krippendorff_alpha(np.full((2, 2), np.nan)).note == "no item has two labels"
    assert krippendorff_alpha(np.ones((2, 2))).note == "only one label was given"
    negative = krippendorff_alpha(np.array([[-1.0, 1], [2, 2]]), "ratio")
    assert negative.note == "a ratio scale has no values below 0"


@pytest.mark.parametrize(
    "statistic", ["Cohen's kappa, quadratic weights", "Fleiss' kappa", "alpha, ordinal"]
)
def test_intervals_cover_the_true_value(statistic: str) -> None:
    """In 92 % of 120 trials or more; the whole measurement is a benchmark."""
    truth = {
        "Cohen's kappa, quadratic weights": 0.801,
        "Fleiss' kappa": 0.639,
        "alpha, ordinal": 0.790,
    }
    cell = Cell(statistic=statistic, shares=(0.5, 0.3, 0.2), quality=0.8, n=60)
    trials = [
        cell.trial(np.random.default_rng([7, number]), truth[statistic]) for number in range(120)
    ]
    assert np.mean([trial[0] for trial in trials if trial]) >= 0.92


def test_few_small_disagreements_do_not_make_an_interval_narrow() -> None:
    """On a ratio scale the disagreements that were seen may all be small, and others large."""
    cell = Cell(statistic="alpha, ratio", shares=(0.1, 0.2, 0.3, 0.25, 0.15), quality=0.95, n=30)
    trials = [cell.trial(np.random.default_rng([8, number]), 0.9611) for number in range(120)]
    assert np.mean([trial[0] for trial in trials if trial]) >= 0.95
