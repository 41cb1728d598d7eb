"""The ranking of pairs by similarity."""

from __future__ import annotations

import numpy as np
import pytest

from llm_magics.dataframes.operators import blocking
from llm_magics.dataframes.operators.blocking import (
    DenseScores,
    GivenScores,
    TextScores,
    rank_pairs,
)
from llm_magics.dataframes.operators.sampling import PairOrder


def ties(rows: int, columns: int) -> PairOrder:
    """The order of pairs with equal scores."""
    left, right = np.arange(rows, dtype=np.uint64), np.arange(columns, dtype=np.uint64)
    return PairOrder(left, right, seed=0, purpose="ties")


def test_similar_texts_are_first() -> None:
    """Without an exact match, and in other languages; an empty text is last."""
    left = ["the battery is empty", "ein schönes Haus", "quick brown fox"]
    right = ["quick browm fox", "", "batteries are empty", "schöne Häuser"]
    found = rank_pairs(TextScores(left, right), ties(3, 4))
    assert {divmod(pair, 4) for pair in found[:3].tolist()} == {(0, 2), (1, 3), (2, 0)}
    assert rank_pairs(TextScores(["", " "], [""]), ties(2, 1)).shape == (2,)


def test_blocks_do_not_change_the_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the limit for the pairs that are ranked."""
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((2, 60, 8)).astype(np.float32)
    scores = DenseScores(*vectors)
    every = rank_pairs(scores, ties(60, 60))
    assert sorted(every.tolist()) == list(range(3_600))
    monkeypatch.setattr(blocking, "_BLOCK_NUMBERS", 500)
    monkeypatch.setattr(blocking, "MOST_RANKED", 100)
    few = rank_pairs(scores, ties(60, 60))
    assert few.tolist() == every[: len(few)].tolist()
    assert 98 <= len(few) <= 100


def test_a_row_that_is_near_to_all_others_is_not_preferred() -> None:
    """Its mean similarity is subtracted."""
    draw = np.random.default_rng(1)
    left = draw.standard_normal((40, 16)).astype(np.float32) + 3
    right = left + 0.8 * draw.standard_normal((40, 16)).astype(np.float32)
    right[0] = 1  # near to all
    found = rank_pairs(DenseScores(left, right), ties(40, 40))
    plain = rank_pairs(DenseScores(left, right), ties(40, 40), adjust=False)
    hits, plain_hits = (
        sum(pair % 40 == pair // 40 for pair in each[:39].tolist()) for each in (found, plain)
    )
    assert hits >= 30
    assert hits > plain_hits + 5


def test_a_row_without_a_vector_is_last() -> None:
    """Missing vectors are NaN."""
    left = np.array([[1, 0], [np.nan, np.nan]], np.float32)
    right = np.array([[1, 0], [-1, 0.1]], np.float32)
    found = rank_pairs(DenseScores(left, right), ties(2, 2), adjust=False)
    assert found[:2].tolist() == [0, 1]


def test_equal_scores_are_in_random_order() -> None:
    """Not in that of the table."""
    found = rank_pairs(GivenScores(np.zeros((30, 30))), ties(30, 30), adjust=False)
    assert found.tolist() == ties(30, 30).first(900).tolist()
