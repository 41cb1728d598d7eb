"""Which pairs are asked, and that the promised recall is reached."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest

from llm_magics.dataframes.operators.oracle import FAILED, YES
from llm_magics.dataframes.operators.pair_decisions import (
    PILOT,
    PILOT_CALLS,
    RANK,
    REST,
    SAMPLE,
    Expectation,
    PairDecider,
    PairDecisions,
    PairProblem,
)
from llm_magics.dataframes.operators.sampling import PairOrder


def truth_of(rows: int, positives: int, seed: int) -> Any:
    """Labels of rows x rows pairs."""
    draw = np.random.default_rng([seed, rows])
    labels = np.zeros(rows * rows, np.int8)
    labels[draw.choice(len(labels), positives, replace=False)] = YES
    return labels


def decide(
    labels: Any, quality: float, seed: int = 0, *, ranked: int | None = None, **options: Any
) -> PairDecisions:
    """Decide with scores whose mean is ``quality`` standard deviations higher for true pairs."""
    draw = np.random.default_rng([seed, 1])
    rows = round(len(labels) ** 0.5)
    scores = draw.standard_normal(len(labels)) + quality * (labels != 0)
    left, right = draw.integers(0, 2**63, (2, rows)).astype(np.uint64)
    problem = PairProblem(
        size=len(labels),
        ranking=np.argsort(-scores)[:ranked],
        order=PairOrder(left, right, seed=seed, purpose="sample"),
        pilot_order=PairOrder(left, right, seed=seed, purpose="pilot"),
        **{"ask": lambda pairs: labels[pairs], "recall": 0.9, "delta": 0.05, **options},
    )
    return PairDecider(problem).run()


def test_a_good_ranking_saves_most_calls() -> None:
    """The sample that bounds the rest included; no pair is asked twice."""
    labels = truth_of(300, 300, 0)
    found = decide(labels, 8)
    assert found.positives == 300
    assert len(found.pairs) < 0.15 * labels.size
    assert len(np.unique(found.pairs)) == len(found.pairs)
    assert found.answers.tolist() == labels[found.pairs].tolist()
    counts = np.bincount(found.sources, minlength=4)
    assert 150 <= counts[PILOT] <= PILOT_CALLS
    assert counts[RANK] < 2_000
    assert counts[SAMPLE] == found.drawn
    assert found.positives / (found.positives + found.most_left) >= 0.9


def test_an_incomplete_ranking_is_enough() -> None:
    """Pairs without a rank are drawn at random too."""
    labels = truth_of(300, 300, 0)
    found = decide(labels, 8, ranked=5_000)
    assert found.positives == 300
    assert len(found.pairs) < 0.15 * labels.size


@pytest.mark.parametrize(("quality", "ranked"), [(0, None), (-3, None), (0, 500)])
def test_a_useless_ranking_costs_no_more_than_asking_all_pairs(
    quality: float, ranked: int | None
) -> None:
    """Each is asked once."""
    labels = truth_of(60, 30, 0)
    found = decide(labels, quality, ranked=ranked)
    assert sorted(found.pairs.tolist()) == list(range(3_600))
    assert found.positives == 30
    assert found.most_left == 0


def test_few_true_pairs_leave_hardly_a_saving() -> None:
    """None may be missed, so 95 % of the others have to be asked anyway."""
    found = decide(truth_of(60, 3, 0), 8)
    assert found.positives == 3
    assert len(found.pairs) > 0.9 * 3_600
    assert found.expectation is not None
    assert found.expectation.calls > 2_500


def test_few_pairs_are_all_asked() -> None:
    """Without a pilot."""
    found = decide(truth_of(14, 5, 0), 3)
    assert (found.sources == REST).all()
    assert (len(found.pairs), found.expectation) == (196, None)
    assert len(decide(truth_of(0, 0, 0), 3).pairs) == 0


def test_pairs_that_fail_count_on_neither_side() -> None:
    """Here those are half of the true ones."""
    labels = truth_of(100, 800, 0)
    true_pairs = np.flatnonzero(labels)
    labels[true_pairs[::2]] = FAILED
    found = decide(labels, 6)
    assert found.positives >= 0.9 * 400
    assert len(found.pairs) < 0.5 * labels.size


def test_the_expectation_is_confirmed_before_more_is_asked() -> None:
    """And may be refused."""
    seen: list[Expectation] = []
    labels = truth_of(300, 300, 0)
    found = decide(labels, 8, confirm=seen.append)
    assert seen[0] == found.expectation
    assert seen[0].asked <= PILOT_CALLS
    assert seen[0].positives == pytest.approx(300, rel=0.5)
    assert len(found.pairs) == pytest.approx(seen[0].calls, rel=0.6)

    def refuse(_: Expectation) -> None:
        raise InterruptedError

    asked: list[Any] = []
    with pytest.raises(InterruptedError):
        decide(labels, 8, confirm=refuse, ask=lambda pairs: asked.append(pairs) or labels[pairs])  # type: ignore[func-returns-value]
    assert sum(map(len, asked)) <= PILOT_CALLS


def test_a_cost_that_grows_is_confirmed_again() -> None:
    """When the ranking is worse than the pilot made it seem."""
    seen: list[Expectation] = []
    found = decide(truth_of(200, 200, 1), 2.5, confirm=seen.append)
    assert len(seen) > 1
    assert len(found.pairs) <= 1.5 * seen[-1].calls


@pytest.mark.parametrize(
    ("positives", "quality", "recall"), [(300, 2.0, 0.9), (300, 1.5, 0.7), (1_000, 0.0, 0.6)]
)
def test_the_promise_holds(positives: int, quality: float, recall: float) -> None:
    """Misses in 40 seeded trials are no more than δ = 0.1 allows; an exact binomial test."""
    misses = 0
    for seed in range(40):
        labels = truth_of(60, positives, seed)
        found = decide(labels, quality, seed, recall=recall, delta=0.1)
        misses += found.positives < recall * positives - 1e-9
        assert found.positives >= recall * (found.positives + found.most_left) - 1e-9
    chance = sum(comb(40, each) * 0.1**each * 0.9 ** (40 - each) for each in range(misses, 41))
    assert chance > 0.01 / 3


def test_a_higher_recall_asks_further_pairs() -> None:
    """Most of those asked before are asked again, so that their stored answers are used."""
    labels = truth_of(200, 300, 0)
    less, more = (set(decide(labels, 5, recall=each).pairs.tolist()) for each in (0.8, 0.9))
    assert len(less) < len(more)
    assert len(less - more) < 0.2 * len(less)
