"""How the processor time of rivals is compared on a machine that others use too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_LEAST = 7
_MOST = 25

# After so many rounds without a better figure the best is taken for the true cost.
_STEADY = 5
_BETTER = 0.98

# The rounds for ratios that are far from their bounds.
_FEW = 3

# The error of a single look at the rounds. There are at most 25 of them, so that all of them
# together take a missed bound for a met one in at most 1 of 40 cases.
_ERROR = 0.001


@dataclass(frozen=True)
class Bound:
    """A bound of the ratio of two costs: its maximum or, with ``is_minimum``, its minimum."""

    over: str
    under: str
    limit: float
    is_minimum: bool = False

    def ratio(self, costs: Mapping[str, float]) -> float:
        """Return the ratio of two of ``costs``."""
        return costs[self.over] / costs[self.under]

    def is_met(self, ratio: float) -> bool:
        """Return whether a ratio is on the good side."""
        return ratio >= self.limit if self.is_minimum else ratio <= self.limit

    def is_clear(self, rounds: Mapping[str, Sequence[float]]) -> bool:
        """
        Return whether the rounds leave no doubt that the bound is met.

        The ratio of each round is one observation, because both were measured next to one another.
        The confidence interval (Student's t) of the mean of their logarithms must be on the good
        side of the bound, and so must be the ratio of the least costs, which is what is reported.
        """
        from scipy.stats import t

        logs = np.log(np.divide(rounds[self.over], rounds[self.under]))
        count = len(logs)
        if count < _FEW:
            return False
        half = t.ppf(1 - _ERROR, count - 1) * logs.std(ddof=1) / np.sqrt(count)
        worst = logs.mean() - half if self.is_minimum else logs.mean() + half
        least = {name: min(rounds[name]) for name in (self.over, self.under)}
        return self.is_met(float(np.exp(worst))) and self.is_met(self.ratio(least))


def are_clear(bounds: Iterable[Bound], rounds: Mapping[str, Sequence[float]]) -> bool:
    """Return whether the rounds leave no doubt that all bounds are met; ``False`` without any."""
    return bool(checks := [bound.is_clear(rounds) for bound in bounds]) and all(checks)


def best_of(
    readers: Mapping[str, Callable[[], object]],
    bounds: Sequence[Bound] = (),
    *,
    is_rough: bool = False,
) -> dict[str, float]:
    """
    Seconds of processor time, of all threads, that each of ``readers`` needs at best.

    They take turns, so that a slow moment hits all of them. What else runs on the machine can
    only add to a figure: they go on until no figure has fallen for some rounds, or until the ratios
    of the rounds leave no doubt that all ``bounds`` are met. A rough comparison needs fewer rounds.
    """
    least, steady_enough = (_FEW, _FEW - 1) if is_rough else (_LEAST, _STEADY)
    best = dict.fromkeys(readers, float("inf"))
    rounds: dict[str, list[float]] = {name: [] for name in readers}
    steady = 0
    for number in range(_MOST):
        steady += 1
        for name, read in readers.items():
            before = time.process_time()
            read()
            spent = time.process_time() - before
            if spent < best[name] * _BETTER:
                steady = 0
            best[name] = min(best[name], spent)
            rounds[name].append(spent)
        # The first round also warms up.
        warm = {name: each[1:] for name, each in rounds.items()}
        if (number + 1 >= least and steady >= steady_enough) or are_clear(bounds, warm):
            break
    return best
