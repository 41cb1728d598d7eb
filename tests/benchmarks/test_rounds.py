"""When a comparison of costs may end before its last round."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.rounds import Bound, are_clear


@pytest.mark.parametrize(("ratio", "rounds", "is_clear"), [(1.0, 6, True), (1.0, 2, False), (1.24, 6, False), (1.3, 25, False)])  # fmt: skip
def test_only_ratios_far_from_their_bound_are_clear(
    ratio: float, rounds: int, is_clear: bool
) -> None:
    """A ratio near its bound, beyond it, or of two rounds goes on."""
    draw = np.random.default_rng(0)
    noise = draw.normal(0, 0.03, (2, rounds))
    costs = {"ours": list(ratio * np.exp(noise[0])), "bare": list(np.exp(noise[1]))}
    assert are_clear([Bound("ours", "bare", 1.25)], costs) == is_clear
    assert are_clear([Bound("bare", "ours", 0.8, is_minimum=True)], costs) == is_clear


def test_a_missed_bound_is_rarely_taken_for_a_met_one() -> None:
    """In at most 1 of 40 series of 25 rounds whose true ratio is just beyond the bound."""
    draw = np.random.default_rng(1)
    bound, early = Bound("ours", "bare", 1.25), 0
    for _ in range(100):
        ours, bare = 1.26 * np.exp(draw.normal(0, 0.05, 25)), np.exp(draw.normal(0, 0.05, 25))
        early += any(
            bound.is_clear({"ours": list(ours[:n]), "bare": list(bare[:n])}) for n in range(3, 26)
        )
    assert early <= 2.5


def test_without_bounds_nothing_is_clear() -> None:
    """A comparison without bounds has all its rounds."""
    assert not are_clear([], {"ours": [1.0] * 9})
