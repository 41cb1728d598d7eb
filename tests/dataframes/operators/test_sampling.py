"""The random order of pairs."""

from __future__ import annotations

import numpy as np
import pytest

from llm_magics.dataframes.operators.sampling import PairOrder, row_hashes


def hashes(count: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Hashes of different rows."""
    return np.random.default_rng(seed).integers(0, 2**63, count).astype(np.uint64)


def order(seed: int = 0, purpose: str = "sample") -> PairOrder:
    """An order of 30 x 40 pairs."""
    return PairOrder(hashes(30), hashes(40, 1), seed=seed, purpose=purpose)


def test_all_pairs_are_ordered_once() -> None:
    """Those that are wanted first are the beginning of that order."""
    every = order().first(1_200)
    assert sorted(every.tolist()) == list(range(1_200))
    other = order()
    few, more = other.first(10), other.first(300)
    assert len(few) >= 10
    assert len(more) >= 300
    for part in (few, more):
        assert part.tolist() == every[: len(part)].tolist()
    assert (np.diff(order().places(every).astype(float)) >= 0).all()


def test_it_does_not_depend_on_the_order_of_rows() -> None:
    """Only on their contents."""
    turned = PairOrder(hashes(30)[::-1], hashes(40, 1), seed=0, purpose="sample").first(1_200)
    left, right = np.divmod(turned, 40)
    assert ((29 - left) * 40 + right).tolist() == order().first(1_200).tolist()


@pytest.mark.parametrize("other", [order(seed=1), order(purpose="pilot"), order(seed=-1)])
def test_seeds_and_purposes_are_independent(other: PairOrder) -> None:
    """The correlation of the places is that of random numbers."""
    pairs = np.arange(1_200)
    places = order().places(pairs).astype(float), other.places(pairs).astype(float)
    assert abs(np.corrcoef(*places)[0, 1]) < 0.1


def test_each_row_and_column_is_drawn_as_often() -> None:
    """A chi-squared statistic of the first tenth has its usual value."""
    big = PairOrder(hashes(200), hashes(200, 1), seed=0, purpose="sample").first(4_000)[:4_000]
    for numbers in np.divmod(big, 200):
        counts = np.bincount(numbers, minlength=200)
        statistic = ((counts - 20) ** 2 / 20).sum()  # mean 199, standard deviation 20
        assert 120 < statistic < 280


def test_copies_of_a_row_have_hashes_of_their_own() -> None:
    """The same ones in another order of the table."""
    digests = np.array([b"a" * 16, b"b" * 16], "V16")
    found = row_hashes(digests, np.array([0, 1, 0, 0]))
    assert len(set(found.tolist())) == 4
    other = row_hashes(digests, np.array([0, 0, 0, 1]))
    assert sorted(other.tolist()) == sorted(found.tolist())
    assert row_hashes(digests, np.empty(0, int)).tolist() == []


def test_no_pairs() -> None:
    """A table without rows has none."""
    assert PairOrder(hashes(0), hashes(3), seed=0, purpose="sample").first(5).tolist() == []
