"""
Boundaries and power of one-sided group-sequential tests, by numerical integration.

A test looks at the data several times, at the shares ``times`` of the final sample. A spending
function says how much of the error rate may be used up to each look. The statistic is normal with
independent increments.

Sources: Armitage, McPherson and Rowe 1969 (recursive integration); Lan and DeMets 1983 (spending
functions); Kim and DeMets 1987 (the power family); Jennison and Turnbull, *Group Sequential
Methods*, 2000.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# The exponent of the power family. 3 is close to the boundaries of O'Brien and Fleming, but its
# first looks can still be decided with a few thousand permutations.
_EXPONENT = 3.0
# Points of the grid, and how many standard deviations below zero it begins.
_POINTS, _WIDTH = 161, 6.5
_NORMAL = NormalDist()
_erfc = np.frompyfunc(math.erfc, 1, 1)


def spend(alpha: float, time: float) -> float:
    """Return the error rate that may be used up to ``time`` (0 to 1): ``alpha * time ** 3``."""
    return float(alpha * min(1.0, time) ** _EXPONENT)


def boundaries(spent: Sequence[float], times: Sequence[float]) -> list[float]:
    """
    Return the critical value of each look, in standard deviations.

    Args:
        spent: the error rate that is used up to each look, increasing.
        times: the share of the final sample at each look, increasing, at most 1.
    """
    process = _Process()
    found: list[float] = []
    used = 0.0
    for each, time in zip(spent, times, strict=True):
        low, high = -_WIDTH, 10.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if process.above(middle, time) > each - used else (low, middle)
            )
        found.append(high)
        used += process.advance(high, time)
    return found


def crossing_probability(
    bounds: Sequence[float], times: Sequence[float], drift: float = 0.0
) -> float:
    """
    Return the probability that the statistic is above a boundary at any look.

    Args:
        bounds, times: the critical values and the times of the looks.
        drift: the expected value of the statistic at time 1.
    """
    process = _Process(drift)
    return sum(process.advance(bound, time) for bound, time in zip(bounds, times, strict=True))


@lru_cache(maxsize=256)
def drift_for_power(alpha: float, power: float, looks: int) -> float:
    """
    Return the drift for which a test with ``looks`` equally spaced looks has the given power.

    With one look it is the sum of the two normal quantiles. The sample size is proportional to its
    square.
    """
    if looks == 1:
        return _NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(power)
    times = [(each + 1) / looks for each in range(looks)]
    bounds = boundaries([spend(alpha, time) for time in times], times)
    low, high = 0.0, 20.0
    for _ in range(30):
        middle = (low + high) / 2
        is_low = crossing_probability(bounds, times, middle) < power
        low, high = (middle, high) if is_low else (low, middle)
    return high


class _Process:
    """The density of a Brownian motion with drift that was below all boundaries so far."""

    def __init__(self, drift: float = 0.0) -> None:
        self.drift = drift
        self.time = 0.0
        self.grid: Vector = np.zeros(1)
        self.weights: Vector = np.ones(1)  # densities times the widths of the cells

    def above(self, bound: float, time: float) -> float:
        """Return the probability of a first crossing at ``time``, at ``bound``."""
        step = time - self.time
        excess = bound * math.sqrt(time) - self.grid - self.drift * step
        tails = np.asarray(_erfc(excess / math.sqrt(2 * step)), np.float64) / 2
        return float(tails @ self.weights)

    def advance(self, bound: float, time: float) -> float:
        """Move to ``time``; return the probability of a first crossing there."""
        crossed = self.above(bound, time)
        step = time - self.time
        low = min(0.0, self.drift * time) - _WIDTH * math.sqrt(time)
        grid = np.linspace(low, bound * math.sqrt(time), _POINTS)
        gaps = grid[:, None] - self.grid[None, :] - self.drift * step
        density = np.exp(-(gaps**2) / (2 * step)) / math.sqrt(2 * math.pi * step) @ self.weights
        simpson = np.ones(_POINTS)
        simpson[1:-1:2], simpson[2:-1:2] = 4.0, 2.0
        self.weights = density * simpson * (grid[1] - grid[0]) / 3
        self.grid, self.time = grid, time
        return crossed
