"""How the processor time of rivals is compared on a machine that others use too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

_LEAST = 7
_MOST = 25

# After so many rounds without a better figure the best is taken for the true cost.
_STEADY = 5
_BETTER = 0.98

# The rounds for ratios that are far from their bounds.
_FEW = 3


def best_of(
    readers: Mapping[str, Callable[[], object]], *, is_rough: bool = False
) -> dict[str, float]:
    """
    Seconds of processor time, of all threads, that each of ``readers`` needs at best.

    They take turns, so that a slow moment hits all of them. What else runs on the machine can
    only add to a figure: they go on until no figure has fallen for some rounds. A rough comparison
    needs fewer rounds.
    """
    least, steady_enough = (_FEW, _FEW - 1) if is_rough else (_LEAST, _STEADY)
    best = dict.fromkeys(readers, float("inf"))
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
        if number + 1 >= least and steady >= steady_enough:
            break
    return best
