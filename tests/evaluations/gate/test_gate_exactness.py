"""
The error rate of the gate is exact: proofs by complete enumeration.

Without a change, the observed statistics are one of equally likely rows. The test is exact if it
rejects for at most ``alpha`` of the rows, whatever they are, and if the permutations are drawn with
the probabilities of the complete enumeration.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llm_magics.evaluations.gate.statistics import Looks, look, wave_ends
from tests.benchmarks.evaluations.gate_errors import ALPHA, cells
from tests.benchmarks.evaluations.gate_levels import level, redraw, rejections
from tests.support.examples import examples

NAN = math.nan


def assignments(values, new):
    """Yield all ways to choose the new answers of each item, as (stored, new) matrices."""
    ways = []
    for row in values:
        known = [each for each in row if not math.isnan(each)]
        ways.append(
            [
                (
                    [known[at] for at in range(len(known)) if at not in chosen],
                    [known[at] for at in chosen],
                )
                for chosen in combinations(range(len(known)), new)
            ]
        )
    width = max(len(old) for each in ways for old, _ in each)
    for chosen in product(*ways):
        stored = [[*old, *[NAN] * (width - len(old))] for old, _ in chosen]
        yield np.array(stored), np.array([fresh for _, fresh in chosen])


def enumerate_statistics(values, new, looks):
    """Return the statistics of all assignments (assignments, looks), each as if it was observed."""
    n = len(values)
    ends = wave_ends(n, looks)
    return np.vstack(
        [look(old, fresh, ends, n, 0).statistics for old, fresh in assignments(values, new)]
    )


def count_rejections(rows, times, alpha):
    """Return for how many of the rows the test rejects if they are observed."""
    orders = (np.roll(rows, -each, axis=0) for each in range(len(rows)))
    return sum(Looks(order, times).rejects(alpha) for order in orders)


@given(
    rows=st.integers(1, 4).flatmap(
        lambda looks: arrays(
            np.int64, st.tuples(st.integers(1, 60), st.just(looks)), elements=st.integers(-3, 3)
        )
    ),
    alpha=st.floats(0, 1),
)
@settings(max_examples=examples(60), deadline=None)
def test_at_most_alpha_of_the_rows_reject(rows, alpha):
    """Whatever the statistics and their ties are, at most a share of alpha of the rows rejects."""
    looks = rows.shape[1]
    times = [(each + 1) / looks for each in range(looks)]
    assert count_rejections(rows * 1.0, times, alpha) <= alpha * len(rows) + 1e-6


@given(seed=st.integers(0, 10**6), alpha=st.floats(0, 1), looks=st.integers(1, 4))
@settings(max_examples=examples(30), deadline=None)
def test_without_ties_the_whole_error_rate_is_used(seed, alpha, looks):
    """With different statistics the test rejects for as many rows as fit into alpha."""
    rows = np.random.default_rng(seed).permuted(
        np.tile(np.arange(50.0)[:, None], (1, looks)), axis=0
    )
    times = [(each + 1) / looks for each in range(looks)]
    assert count_rejections(rows, times, alpha) == math.floor(alpha * 50 + 1e-9)


@pytest.mark.parametrize("looks", [1, 2])
@pytest.mark.parametrize(
    "values",
    [
        [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]],
        [[0.1, 0.7, 0.4, 0.9], [0, 0.2, 0.3, 1], [1, 1, 1, 0.3]],
    ],
)
def test_enumerated_gates_reject_at_most_alpha(values, looks):
    """Of all 64 ways to choose the new answers of three items, at most alpha are rejected."""
    rows = enumerate_statistics(values, 1, looks)
    assert len(rows) == 64
    times = [(each + 1) / looks for each in range(looks)]
    for alpha in (0.01, 0.05, 0.2):
        assert count_rejections(rows, times, alpha) <= alpha * 64


@pytest.mark.parametrize(
    ("values", "new"),
    [
        ([[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1]], 1),
        ([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, NAN]], 2),
        ([[0.1, 0.7, 0.4, 0.9], [0, 0.2, 0.3, 1], [0.5, 0.5, 0.6, 0.8]], 1),
        ([[0.1, 0.7, 0.4, 0.9], [0, 0.2, 0.3, NAN], [1, 0, 0, 1], [0.5, 0.5, 0.5, 0.5]], 2),
    ],
)
def test_permutations_are_drawn_as_enumerated(values, new):
    """The drawn statistics of two looks have the probabilities of the complete enumeration."""
    n, draws = len(values), 20_000
    counted = Counter(map(tuple, enumerate_statistics(values, new, 2).tolist()))
    stored, fresh = next(assignments(values, new))
    drawn = look(stored, fresh, wave_ends(n, 2), n, draws).statistics[1:]
    found = Counter(map(tuple, drawn.tolist()))
    # Equal statistics are exactly equal, although they were summed in another order.
    assert set(found) <= set(counted)
    shares = np.array([found[row] / draws for row in counted])
    chances = np.array([*counted.values()]) / counted.total()
    assert (np.abs(shares - chances) < 5 * np.sqrt(chances * (1 - chances) / draws) + 1e-9).all()


def test_measured_levels_are_those_of_the_gate():
    """The benchmark of the error rate decides about each draw as the gate does."""
    rng = np.random.default_rng(5)
    values = rng.choice([0.0, 0.5, 1.0], (60, 4), p=[0.2, 0.1, 0.7])
    ends = wave_ends(60, 3)
    looks = look(values[:, :3], values[:, 3:], ends, 60, 199)
    observed = redraw(values[:, :3], values[:, 3:], ends, 200, rng)
    found = rejections(looks, observed, 0.3)
    others = looks.statistics[1:]
    assert 20 < found.sum() < 70
    assert found.tolist() == [
        Looks(np.vstack([row, others]), looks.times).rejects(0.3) for row in observed
    ]


def test_slice_of_the_measured_error_rate():
    """The error rate of a slice of the measurement is 5 %, within five standard errors."""
    name = "null 50 graded"
    assert cells()[name].drop == 0
    levels = np.array([level(name, trial, 300) for trial in range(12)])
    assert abs(levels.mean() - ALPHA) < 5 * levels.std(ddof=1) / len(levels) ** 0.5
