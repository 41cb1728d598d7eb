"""Intervals and tests of items that are alike within clusters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llm_magics._util.statistics import (
    clustered_gap_interval,
    clustered_interval,
    clustered_test,
    mean_interval,
)


def test_they_equal_those_of_statsmodels() -> None:
    """An OLS with only a constant, clustered errors and t; of clusters of different sizes."""
    clusters = np.repeat(range(5), [1, 2, 3, 4, 5])
    values = [
        0.0,
        1.164,
        0.716,
        -0.288,
        -0.483,
        0.615,
        1.599,
        0.919,
        -0.228,
        -0.162,
        1.22,
        1.787,
        0.908,
        -0.129,
        0.195,
    ]
    # statsmodels 0.15: OLS(values, ones).fit(cov_type="cluster", use_t=True, …)
    low, high, p = 0.023095535059, 1.021304464941, 0.043900833590
    assert tuple(clustered_interval(values, clusters)) == pytest.approx((low, high))
    test = clustered_test(np.zeros(15), values, clusters)
    assert test.p == pytest.approx(p)
    assert test.direction == 1


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=20, unique=True))
def test_single_items_are_an_ordinary_t_interval(values: list[float]) -> None:
    """With one item in each cluster."""
    n, error = len(values), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    expected = stats.t.interval(0.9, n - 1, loc=np.mean(values), scale=error)
    assert tuple(clustered_interval(values, range(n), 0.9)) == pytest.approx(expected)


def draws(seed: int, clusters: int, size: int) -> Any:
    """Return right and wrong answers that are alike within clusters, and the clusters."""
    draw = np.random.default_rng(seed)
    chances = draw.beta(3, 2, clusters)  # with a mean of 0.6
    codes = np.repeat(np.arange(clusters), size)
    return (draw.random(len(codes)) < chances[codes]).astype(float), codes


def test_intervals_cover_the_mean_of_the_population() -> None:
    """Nominal 95 %, of 400 samples of 20 clusters of 10; intervals of single items do not."""
    covered = alone = 0
    for seed in range(400):
        values, codes = draws(seed, 20, 10)
        low, high = clustered_interval(values, codes)
        covered += low <= 0.6 <= high
        if seed < 100:
            low, high = mean_interval(values)
            alone += low <= 0.6 <= high
    assert 0.92 <= covered / 400 <= 0.98
    assert alone / 100 < 0.85


def test_the_test_has_its_level() -> None:
    """Of 400 pairs of equal models, about one in twenty differs significantly."""
    found = 0
    for seed in range(400):
        one, codes = draws(seed, 20, 10)
        other, _ = draws(seed + 5000, 20, 10)
        found += clustered_test(one, other, codes).p < 0.05
    assert 0.02 <= found / 400 <= 0.085


def test_constant_values_have_an_interval() -> None:
    """All right answers do not prove that the next one is right; of one cluster nothing is known."""
    low, high = clustered_interval(np.ones(50), np.repeat(range(5), 10))
    assert (low, high) == pytest.approx(tuple(mean_interval(np.ones(5))))
    assert math.isnan(clustered_interval([1.0, 0.0], ["a", "a"]).low)
    assert math.isnan(clustered_interval([0.3] * 4, list("aabb")).low)
    assert math.isnan(clustered_interval([], []).low)
    low, high = clustered_gap_interval([0.0] * 6, list("aabbcc"))
    assert low < 0 < high
    assert clustered_test([0] * 6, [0] * 6, list("aabbcc")).p == 1
    assert clustered_test([0] * 6, [1] * 6, list("aabbcc")).p == 0.25
    assert math.isnan(clustered_test([0, 0], [1, 1], ["a", "a"]).p)


def test_the_number_of_pairs_shrinks_with_the_difference() -> None:
    """A clear difference needs fewer pairs than a small one."""
    values, codes = draws(1, 20, 10)
    small, large = (clustered_test(values, values + gap * values, codes) for gap in (0.1, 1))
    assert small.needed is not None
    assert large.needed is not None
    noisy, _ = draws(2, 20, 10)
    unclear = clustered_test(values, noisy, codes)
    assert unclear.needed is None or unclear.needed > large.needed
