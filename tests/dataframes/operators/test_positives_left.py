"""Bounds on the positives left, from a sample: valid, and close to the least sample."""

from __future__ import annotations

from math import comb, exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.dataframes.operators.positives_left import Sample, least_share


def _sample(size: int, bound: int, drawn: int = 0, found: int = 0) -> Sample:
    """A sample of a population in which one positive is expected."""
    return Sample(size=size, expected=1.0, bound=bound, drawn=drawn, found=found)


@given(st.data())
def test_the_evidence_is_a_martingale(data: st.DataObject) -> None:
    """
    Its mean over the next answer is its value, or less if only one answer is possible.

    So the probability of a wrong bound is at most δ.
    """
    size = data.draw(st.integers(2, 60))
    drawn = data.draw(st.integers(0, size - 1))
    found = data.draw(st.integers(0, drawn))
    total = data.draw(st.integers(found, size - drawn + found))
    expected = data.draw(st.floats(0, size))
    sample = Sample(size=size, expected=expected, bound=data.draw(st.integers(1, size)))
    now = exp(sample.log_evidence(total, drawn, found))
    chance = (total - found) / (size - drawn)
    after = 0.0
    if chance > 0:
        after += chance * exp(sample.log_evidence(total, drawn + 1, found + 1))
    if chance < 1:
        after += (1 - chance) * exp(sample.log_evidence(total, drawn + 1, found))
    assert after <= now * (1 + 1e-6)
    if 0 < chance < 1:
        assert after == pytest.approx(now, rel=1e-6)


@given(st.data())
def test_the_evidence_of_at_least_a_number_is_the_least_of_all(data: st.DataObject) -> None:
    """So that no larger number of positives is possible either."""
    size = data.draw(st.integers(2, 80))
    drawn = data.draw(st.integers(1, size))
    found = data.draw(st.integers(0, drawn))
    sample = _sample(size, data.draw(st.integers(1, size)), drawn, found)
    totals = range(found, sample.most + 1)
    evidence = [sample.log_evidence(each, drawn, found) for each in totals]
    for total in totals:
        least = min(evidence[total - found :])
        assert sample.log_evidence_of_at_least(total) <= least + 1e-6
    assert sample.least_log_evidence() == pytest.approx(min(evidence), abs=1e-6)
    bound = sample.upper_bound(3.0)
    assert all(each >= 3.0 for each in evidence[bound - found + 1 :])


def test_the_chance_of_a_sequence_is_exact() -> None:
    """Of 3 positives in 10, the first 4 draws find one at a given place."""
    sample = _sample(10, 5, 4, 1)
    chance = comb(6, 2) / comb(10, 3)
    mixture = exp(sample.log_evidence(3, 4, 1)) * chance
    assert 0 < mixture < 1
    assert exp(sample.log_evidence(4, 4, 1)) * comb(6, 3) / comb(10, 4) == pytest.approx(mixture)


@pytest.mark.parametrize("bound", [2, 11, 112])
def test_a_sample_without_positives_needs_hardly_more_than_the_least(bound: int) -> None:
    """No procedure without assumptions needs fewer."""
    share = Sample(size=100_000, expected=0.1, bound=bound).draws_needed(bound, log(20)) / 100_000
    least = least_share(bound - 1, 0.05)
    assert least <= share <= 1.08 * least


def test_known_values_of_the_least_share() -> None:
    """With 2, 10, 100 and 1,000 positives of which 10 % may be missed."""
    shares = [round(100 * least_share(allowed, 0.05)) for allowed in (0, 1, 10, 100)]
    assert shares == [95, 78, 24, 3]


def test_what_is_expected_of_the_rest_follows_the_sample() -> None:
    """Few positives in it hardly change a low expectation; many do."""
    expected = [_sample(10_000, 100, 1_000, found).expected_left() for found in (0, 1, 20)]
    assert expected[0] < 3
    assert expected[1] < 20
    assert expected[2] == pytest.approx(180, rel=0.2)


def test_an_impossible_number_is_disproved_without_a_sample() -> None:
    """There are not so many pairs."""
    assert _sample(10, 11).log_evidence_of_at_least(11) == np.inf
    assert _sample(10, 11).log_evidence_of_at_least(10) == 0
