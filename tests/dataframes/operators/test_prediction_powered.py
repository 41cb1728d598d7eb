"""The statistics of shares: samples of groups, exact intervals, and predictions that narrow them."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from llm_magics.dataframes.operators.cross_fitting import correlation, cross_fit, labelled_rows
from llm_magics.dataframes.operators.finite_population import (
    hypergeometric_interval,
    labels_to_halve,
    score_interval,
)
from llm_magics.dataframes.operators.labelled_sample import UNKNOWN, Labels
from llm_magics.dataframes.operators.oracle import FAILED
from llm_magics.dataframes.operators.prediction_powered import (
    Predictions,
    Shares,
    estimate_shares,
    needed_count,
)
from llm_magics.dataframes.operators.proxies import Proxy
from llm_magics.dataframes.operators.share_sampling import (
    Population,
    allocate,
    draw,
    missed_chance,
    rows_per_group,
)
from tests.benchmarks.operators.share_coverage import Table, copied, failing, hard, plain, trial
from tests.support.examples import examples

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=6)


def population_of(items: Any, groups: Any = None) -> Population:
    """The rows with these items, by default in one group."""
    items = np.asarray(items, np.intp)
    groups = np.zeros(len(items), np.intp) if groups is None else np.asarray(groups, np.intp)
    return Population.of(items, groups, int(groups.max(initial=0)) + 1)


def estimate(answers: Any, drawn: Any, scores: Any = None, groups: Any = None) -> Shares:
    """The estimates for rows that are items of their own, after asking about ``drawn``."""
    truth = np.asarray(answers, np.int8)
    population = population_of(np.arange(len(truth)), groups)
    drawn = np.asarray(drawn, np.intp)
    known = np.full(len(truth), UNKNOWN, np.int8)
    known[drawn] = truth[drawn]
    per_group = np.bincount(population.groups[drawn], minlength=len(population.sizes))
    labels = Labels(drawn=drawn, answers=known, missed=missed_chance(population, per_group))
    predictions = None
    if scores is not None:
        folds = np.zeros(len(truth), np.intp)
        predictions = Predictions(values=np.asarray(scores, np.float64)[None], folds=folds)
    return estimate_shares(population, labels, predictions, 0.05)


@given(SIZES, st.integers(0, 300))
@settings(deadline=None, max_examples=examples(20))
def test_more_labels_take_no_row_from_a_group(sizes: list[int], total: int) -> None:
    """All places are given, at most the rows of a group, and a larger total only adds some."""
    of_groups = np.array(sizes, np.intp)
    places, more = allocate(of_groups, total), allocate(of_groups, total + 1)
    assert places.sum() == min(total, of_groups.sum())
    assert (places <= of_groups).all()
    assert (more >= places).all()
    if total >= 2 * len(sizes) <= of_groups.sum():
        assert (places[of_groups > 0] > 0).all()


@given(SIZES, st.integers(0, 300), st.integers(0, 9))
@settings(deadline=None, max_examples=examples(20))
def test_the_first_rows_of_each_group_are_drawn(sizes: list[int], total: int, seed: int) -> None:
    """In the sampling order, so that a smaller sample is a part of a larger one."""
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    population = Population.of(np.arange(len(groups)), groups, len(sizes))
    order = np.random.default_rng(seed + 1).permutation(len(groups))
    per_group = allocate(population.sizes, total)
    drawn = draw(population, order, per_group)
    for group, count in enumerate(per_group):
        assert (
            drawn[groups[drawn] == group].tolist()
            == order[groups[order] == group][:count].tolist()
        )
    assert set(draw(population, order, allocate(population.sizes, total // 2))) <= set(drawn)


def test_the_chance_to_miss_an_item_is_exact() -> None:
    """By enumeration of all samples of two groups, with items that are in both."""
    items, groups = [0, 0, 1, 2, 1, 3, 3], [0, 0, 0, 0, 1, 1, 1]
    population = population_of(items, groups)
    drawn = np.array([2, 1])
    missed = np.zeros(4)
    samples = [
        {items[row] for row in (*first, *second)}
        for first in combinations(range(4), 2)
        for second in combinations(range(4, 7), 1)
    ]
    for item in range(4):
        missed[item] = np.mean([item not in sample for sample in samples])
    assert missed_chance(population, drawn) == pytest.approx(missed)
    assert missed_chance(population, population.sizes).tolist() == [0, 0, 0, 0]


def test_copies_need_no_more_labels() -> None:
    """The expected number of different items is what was wanted; it does not depend on answers."""
    rng = np.random.default_rng(0)
    items = np.concatenate(
        [np.zeros(300, int), np.repeat(np.arange(1, 101), 3), np.arange(101, 401)]
    )
    population = population_of(items)
    per_group = rows_per_group(population, 80)
    counts = [
        len(np.unique(items[draw(population, rng.permutation(len(items)), per_group)]))
        for _ in range(60)
    ]
    assert np.mean(counts) == pytest.approx(80, abs=2)
    assert rows_per_group(population, 401).tolist() == [len(items)]


@given(st.integers(1, 30), st.data())
@settings(deadline=None, max_examples=examples(15))
def test_an_exact_interval_has_its_coverage(rows: int, data: st.DataObject) -> None:
    """For each number of positive rows, by the hypergeometric distribution of SciPy."""
    drawn = data.draw(st.integers(1, rows))
    intervals = [hypergeometric_interval(yes, drawn, rows, 0.1) for yes in range(drawn + 1)]
    for positive in range(rows + 1):
        chances = stats.hypergeom.pmf(np.arange(drawn + 1), rows, positive, drawn)
        covered = [low - 1e-12 <= positive / rows <= high + 1e-12 for low, high in intervals]
        assert chances[covered].sum() >= 0.9 - 1e-9
    if drawn == rows:
        assert intervals == [(yes / rows, yes / rows) for yes in range(rows + 1)]


def test_an_exact_interval_of_a_large_table_is_that_of_clopper_and_pearson() -> None:
    """Where rows drawn are a small part."""
    low, high = hypergeometric_interval(7, 100, 10_000_000, 0.05)
    expected = stats.binomtest(7, 100).proportion_ci(method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-4)
    assert hypergeometric_interval(0, 0, 10, 0.05) == (0, 1)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("yes", [0, 1, 20, 50])
def test_a_score_interval_is_that_of_wilson(yes: int, confidence: float) -> None:
    """For the variance of a share."""
    share, z = yes / 50, stats.norm.ppf(0.5 + confidence / 2)
    below, above = score_interval(share * (1 - share) / 50, (1 - 2 * share) / 50, 1 / 50, z)
    expected = stats.binomtest(yes, 50).proportion_ci(confidence, method="wilson")
    assert share + below == pytest.approx(expected.low, abs=1e-9)
    assert share + above == pytest.approx(expected.high, abs=1e-9)


def test_labels_of_all_rows_leave_no_doubt() -> None:
    """The interval of a complete group has width zero; a group without labels can be anything."""
    found = estimate([1, 0, 0, 1, 1, 0], [0, 1, 2], groups=[0, 0, 0, 1, 1, 1])
    assert found.share[0] == found.low[0] == found.high[0] == 1 / 3
    assert math.isnan(found.share[1])
    assert (found.low[1], found.high[1]) == (0, 1)
    assert found.labels.tolist() == [3, 0]
    assert found.is_exact.all()


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=examples(15))
def test_an_interval_agrees_with_what_is_known(seed: int) -> None:
    """It is in [0, 1], has the estimate, and is possible after the answers that are known."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 200))
    answers = (rng.random(rows) < rng.random()).astype(np.int8)
    answers[rng.random(rows) < 0.1] = FAILED
    groups = rng.integers(0, 3, rows)
    drawn = rng.permutation(rows)[: rng.integers(0, rows + 1)]
    found = estimate(answers, drawn, rng.normal(size=rows) + answers, groups)
    for group in range(int(groups.max()) + 1):
        known = answers[drawn[groups[drawn] == group]]
        rest = (groups == group).sum() - len(known)
        yes, no = (known == 1).sum(), (known == 0).sum()
        if yes + no + rest:
            low, high = yes / (yes + no + rest), (yes + rest) / (yes + no + rest)
            assert low - 1e-9 <= found.low[group] <= found.high[group] <= high + 1e-9
            if not math.isnan(found.share[group]):
                assert found.low[group] <= found.share[group] <= found.high[group]


def sample_of(rate: float, rho: float, seed: int = 0) -> tuple[Table, NDArray[np.intp]]:
    """A table of 1,000 rows with a proxy, and 200 rows of it."""
    rng = np.random.default_rng(seed)
    return plain(rng, rows=1000, rate=rate, rho=rho), rng.permutation(1000)[:200]


def test_predictions_may_have_any_scale() -> None:
    """Only differences count."""
    table, drawn = sample_of(0.4, 0.7)
    assert table.scores is not None
    found = estimate(table.answers, drawn, table.scores)
    other = estimate(table.answers, drawn, 7 + 3e-5 * table.scores)
    assert (found.low[0], found.high[0]) == pytest.approx((other.low[0], other.high[0]))
    assert found.variance_ratio[0] == pytest.approx(1 - 0.7**2, abs=0.1)
    assert not found.is_exact[0]


@pytest.mark.parametrize("kind", ["constant", "reversed", "none"])
def test_a_useless_proxy_changes_nothing(kind: str) -> None:
    """The interval is that of the labels alone, which is Wilson's with a correction."""
    table, drawn = sample_of(0.4, 0.7)
    assert table.scores is not None
    scores = {"constant": np.full(1000, 0.3), "reversed": -table.scores, "none": None}[kind]
    found = estimate(table.answers, drawn, scores)
    alone = estimate(table.answers, drawn)
    assert found.low.tolist() == alone.low.tolist()
    assert found.high.tolist() == alone.high.tolist()
    yes = int(table.answers[drawn].sum())
    # The correction for a finite population: as good as 250 of many rows.
    wilson = stats.binomtest(round(yes / 0.8), 250).proportion_ci(method="wilson")
    assert found.width[0] == pytest.approx(wilson.high - wilson.low, rel=0.03)


def test_a_proxy_that_was_always_right_may_still_be_wrong() -> None:
    """Its interval has a width, though no label contradicts it."""
    table, drawn = sample_of(0.4, 0.7)
    found = estimate(table.answers, drawn, table.answers)
    assert found.variance_ratio[0] < 0.1
    alone = estimate(table.answers, drawn)
    assert 0.1 * alone.width[0] < found.width[0] < 0.3 * alone.width[0]


def test_few_positives_have_an_exact_interval() -> None:
    """From 15 positives and negatives on, it is not; with simultaneous intervals, from more on."""
    rows = np.zeros(1000, np.int8)
    rows[:500] = 1
    few, enough = np.r_[0:14, 500:586], np.r_[0:15, 500:585]
    assert estimate(rows, few).is_exact[0]
    assert not estimate(rows, enough).is_exact[0]
    found = estimate(rows, few, rows)
    assert (found.low[0], found.high[0]) == hypergeometric_interval(14, 100, 1000, 0.05)
    assert needed_count(0.05) == 15 < needed_count(0.005)


def test_failures_count_on_neither_side() -> None:
    """An oracle that fails only on positive rows: the share is that of the other rows."""
    shares = [
        trial(failing(rng, rows=1000, rate=0.3, only_yes=True), 300, rng)[0].share[0]
        for rng in map(np.random.default_rng, range(20))
    ]
    assert np.mean(shares) == pytest.approx(250 / 950, abs=0.015)


def test_copies_do_not_bias_the_estimate() -> None:
    """Frequent texts are nearly always asked about, and stand for few other rows."""
    errors = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        table = copied(rng, rows=600, rho=0.5)
        found, _ = trial(table, 100, rng)
        errors.append(float(found.share[0] - table.shares[0]))
    assert abs(np.mean(errors)) < 2.5 * np.std(errors) / math.sqrt(30)


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_intervals_have_their_coverage(rho: float) -> None:
    """A part of the measurement, with fixed seeds; the proxy makes them a quarter narrower."""
    covered, widths, alone = [], [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        table = plain(rng, rows=1000, rate=0.3, rho=rho)
        found, other = trial(table, 100, rng)
        covered.append(found.low[0] <= 0.3 <= found.high[0])
        widths.append(found.width[0])
        alone.append(other.width[0])
    assert np.mean(covered) >= 0.91
    assert np.mean(widths) <= (0.75 if rho else 1.0) * np.mean(alone)


def test_a_hard_proxy_that_is_rarely_wrong_is_covered() -> None:
    """Most samples have no wrong prediction at all."""
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        table = hard(rng, rows=2000, rate=0.4, missed=0.01, wrong=0)
        found, _ = trial(table, 100, rng)
        covered.append(found.low[0] <= 0.4 <= found.high[0])
    assert np.mean(covered) >= 0.95


class Remembering(Proxy):
    """A proxy that knows the labels that it was fitted to by heart, and nothing else."""

    name, learns = "remembering", True

    def __init__(self, rows: int) -> None:
        self.scores = np.full(rows, 0.5)
        self.fitted: list[set[int]] = []

    def fit(self, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> None:
        self.fitted.append(set(rows.tolist()))
        self.scores = np.full(len(self.scores), 0.5)
        self.scores[rows] = labels

    def predict(self) -> NDArray[np.float64]:
        return self.scores

    def held_out(self, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> NDArray[np.float64]:
        raise AssertionError


def test_no_prediction_has_seen_its_label() -> None:
    """Each label is left out of one fit, together with the copies of its row."""
    items = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    drawn = np.array([1, 0, 5, 2, 9, 12, 3])
    answers = np.full(13, UNKNOWN, np.int8)
    answers[items[drawn]] = [1, 1, 0, 1, FAILED, 0, 1]
    rows = labelled_rows(items, drawn, answers)
    assert rows.tolist() == [1, 5, 2, 12, 3]
    proxy = Remembering(len(items))
    predictions = cross_fit(proxy, items, rows, answers)
    assert [len(seen) for seen in proxy.fitted] == [4] * 5
    for row in rows.tolist():
        fold = predictions.folds[items[row]]
        assert row not in proxy.fitted[fold]
        assert predictions.values[fold, row] == predictions.values[fold, -1]  # an unknown row
    assert correlation(predictions, items, rows, answers) < 0.5


@pytest.mark.parametrize(
    ("rate", "labels", "error"), [(0.3, 200, 0.02), (0.05, 60, 0.2), (0.0, 40, 0.05)]
)
def test_so_many_more_labels_halve_the_interval(rate: float, labels: int, error: float) -> None:
    """Normal intervals and exact ones; never more than there are."""
    rows = np.arange(2000) < round(2000 * rate)

    def width(count: int) -> tuple[Shares, float]:
        spread = np.linspace(0, 1999, count).round().astype(int)
        found = estimate(rows, np.unique(spread))
        return found, float(found.width[0])

    found, before = width(labels)
    sizes = np.array([2000])
    more = labels_to_halve(found.share, found.labels, sizes, found.is_exact, 0.05)
    assert width(labels + int(more[0]))[1] == pytest.approx(before / 2, rel=error)
    complete = labels_to_halve(found.share, sizes, sizes, found.is_exact, 0.05)
    assert complete.tolist() == [0]
