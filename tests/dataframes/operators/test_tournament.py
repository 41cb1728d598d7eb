"""The tournament finds the best items with few comparisons, whatever the answers are."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics.dataframes.operators.tournament import (
    Outcome,
    Pair,
    Tournament,
    max_comparisons,
)
from tests.benchmarks.operators.topk_recall import CELLS, trial
from tests.support.examples import examples


class Oracle:
    """Compares items by their values, and checks what it is asked."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = values
        self.asked: list[Pair] = []

    def __call__(self, pairs: Sequence[Pair]) -> list[Outcome]:
        items = [item for pair in pairs for item in pair]
        assert len(items) == len({*items}), "the comparisons of a round are independent"
        assert all(first < second for first, second in pairs)
        self.asked += pairs
        return [self.outcome(*pair) for pair in pairs]

    def outcome(self, first: int, second: int) -> Outcome:
        one, other = self.values[first], self.values[second]
        return Outcome.TIE if one == other else Outcome.FIRST if one > other else Outcome.SECOND


@settings(max_examples=examples(25))
@given(st.lists(st.integers(0, 20), max_size=40), st.integers(1, 12))
def test_a_consistent_oracle_gives_the_exact_ranking(values: list[int], k: int) -> None:
    """Ties go to the lower number, and no pair is compared twice."""
    oracle = Oracle(values)
    tournament = Tournament([1] * len(values), k)
    expected = sorted(range(len(values)), key=lambda item: (-values[item], item))[:k]
    assert tournament.run(oracle) == expected
    assert len(oracle.asked) == len({*oracle.asked}) == len(tournament.outcomes)


@settings(max_examples=examples(25))
@given(st.integers(0, 70), st.integers(1, 15), st.randoms(use_true_random=False))
def test_contradictory_answers_end_within_the_limit(
    count: int, k: int, draw: random.Random
) -> None:
    """Cycles, ties and failures included: the ranking has different items, as many as needed."""

    class Noise(Oracle):
        def outcome(self, first: int, second: int) -> Outcome:
            return draw.choice([*Outcome])

    oracle = Noise([])
    ranking = Tournament([1] * count, k).run(oracle)
    assert len(ranking) == len({*ranking}) == min(k, count)
    limit = max_comparisons(count, k)
    assert len(oracle.asked) == len({*oracle.asked}) <= limit
    assert limit <= count * max(0, count - 1).bit_length()


@settings(max_examples=examples(25))
@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(1, 20))
def test_items_of_several_rows_fill_several_places(weights: list[int], k: int) -> None:
    """No more items are ranked than are needed."""
    oracle = Oracle(range(len(weights)))
    ranking = Tournament(weights, k).run(oracle)
    expected: list[int] = []
    for item in reversed(range(len(weights))):
        if sum(weights[each] for each in expected) < k:
            expected.append(item)
    assert ranking == expected


@pytest.mark.parametrize(("count", "k", "most", "rounds"), [(50, 10, 140, 16), (5, 1, 4, 3)])
def test_few_comparisons_in_few_rounds(count: int, k: int, most: int, rounds: int) -> None:
    """About m + k log2 m comparisons in log2 m + k rounds."""
    values = [*range(count)]
    for seed in range(5):
        random.Random(seed).shuffle(values)
        tournament = Tournament([1] * count, k)
        tournament.run(Oracle(values))
        assert len(tournament.outcomes) <= most
        assert tournament.rounds <= rounds


def test_an_interrupt_leaves_the_ranking_so_far() -> None:
    """Those that are ranked before a round fails stay ranked."""
    values = [*range(16)]

    class Breaks(Oracle):
        def __call__(self, pairs: Sequence[Pair]) -> list[Outcome]:
            if len(self.asked) > 30:
                raise KeyboardInterrupt
            return super().__call__(pairs)

    tournament = Tournament([1] * 16, 16)
    with pytest.raises(KeyboardInterrupt):
        tournament.run(Breaks(values))
    found = tournament.ranking
    assert 0 < len(found) < 16
    assert found == [*range(15, 15 - len(found), -1)]


def test_recall_of_scores_and_comparisons() -> None:
    """With scores of rank correlation 0.9 and a consistent oracle: a slice of the measurement."""
    cell = next(each for each in CELLS if each.name == "consistent")
    trials = [trial(cell, seed) for seed in range(30)]
    assert fmean(each["recall"] for each in trials) >= 0.9
    assert all(each["recall"] == each["candidates"] for each in trials)
