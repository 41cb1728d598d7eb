"""Certificates of regions: how often they are wrong, and that they only get stronger."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.dataframes.operators.certificates import expected_draws, log_evidence
from llm_magics.dataframes.operators.planning import recall_floor


@pytest.mark.parametrize(("size", "losses"), [(40, 3), (200, 20), (400, 40)])
def test_a_sample_in_any_order_is_seldom_evidence_against_what_is_true(
    size: int, losses: int
) -> None:
    """Looking after every draw, true losses are excluded with probability at most δ."""
    rng = np.random.default_rng(7)
    values = np.zeros(size)
    values[:losses] = 1
    trials, delta = 250, 0.1
    wrong = sum(
        log_evidence(rng.permutation(values), size, losses, 0.3) >= np.log(1 / delta)
        for _ in range(trials)
    )
    # Three standard deviations above the level.
    assert wrong / trials <= delta + 3 * np.sqrt(delta * (1 - delta) / trials)


def test_fractional_losses_are_seldom_excluded_either() -> None:
    """Losses between 0 and 1, as of rows whose oracle fails, have the same guarantee."""
    rng = np.random.default_rng(8)
    values = np.concatenate([np.ones(12), np.full(80, 0.1), np.zeros(108)])
    wrong = sum(
        log_evidence(rng.permutation(values), 200, float(values.sum()) - 1e-6, 0.4) >= np.log(10)
        for _ in range(250)
    )
    assert wrong / 250 <= 0.16


@given(
    st.lists(st.sampled_from([0.0, 0.1, 1.0]), max_size=30),
    st.integers(30, 60),
    st.floats(1, 20),
    st.floats(0.01, 0.95),
)
def test_a_larger_bound_and_more_draws_are_never_less_evidence(
    losses: list[float], size: int, bound: float, expected: float
) -> None:
    """Evidence grows with the bound, and never falls when more rows are drawn."""
    values = np.array(losses)
    evidence = log_evidence(values, size, bound, expected)
    assert evidence >= 0
    assert log_evidence(values, size, bound + 1, expected) >= evidence - 1e-9
    assert log_evidence(values[: len(values) // 2], size, bound, expected) <= evidence + 1e-9


def test_losses_that_cannot_be_there_are_certain() -> None:
    """A region smaller than its bound, or with too few rows left, needs no draws."""
    assert log_evidence(np.zeros(0), 3, 4, 0.5) == np.inf
    assert log_evidence(np.zeros(8), 10, 3, 0.5) == np.inf
    assert log_evidence(np.ones(3), 10, 3, 0.5) == 0.0


def test_the_expected_draws_are_those_that_are_needed() -> None:
    """The expectation is within a quarter of the draws that a certificate takes on average."""
    rng = np.random.default_rng(9)
    size, bound, losses = 1000, 101, 30
    values = np.zeros(size)
    values[:losses] = 1
    needed = []
    for _ in range(40):
        drawn = rng.permutation(values)
        steps = range(10, size, 10)
        needed.append(
            next(n for n in steps if log_evidence(drawn[:n], size, bound, 0.3) >= np.log(20))
        )
    expected = expected_draws(
        np.array([size], float), np.array([bound], float), np.array([losses / size]), np.log(20)
    )
    assert np.mean(needed) == pytest.approx(expected[0], rel=0.25)


@pytest.mark.parametrize(
    ("positives", "share"), [(2, 0.95), (10, 0.78), (100, 0.24), (1000, 0.03)]
)
def test_recall_has_a_floor(positives: int, share: float) -> None:
    """With few positive rows, a guarantee of recall 0.9 must ask most of what it drops."""
    assert recall_floor(0.05, positives // 10) == pytest.approx(share, abs=0.006)
