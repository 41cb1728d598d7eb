"""
The error rate of the gate's test without a change, more precisely than by single gates.

    python -m tests.benchmarks.evaluations.gate_levels "null 200 mixed 0.8"

Each trial draws the answers of a cell of `gate_errors`. Without a change it does not matter which
of the answers of an item are the new ones, so these are drawn again 1,000 times, here by plain
code, and the share of draws for which the gate fails is averaged over the trials.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from llm_magics.evaluations.gate.sequential import spend
from llm_magics.evaluations.gate.statistics import Looks, count_looks, look, studentize, wave_ends
from tests.benchmarks.evaluations.gate_errors import ALPHA, answer, cells, chances, compared

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRIALS, DRAWS = 1000, 1000


def redraw(
    stored: NDArray, new: NDArray, ends: list[int], draws: int, rng: np.random.Generator
) -> NDArray:
    """Return the statistics (draws, looks) if the new answers of each item are drawn again."""
    values, width = np.hstack([stored, new]), new.shape[1]
    shuffled = rng.permuted(np.broadcast_to(values, (draws, *values.shape)), axis=2)
    changes = shuffled[:, :, -width:].mean(axis=2) - shuffled[:, :, :-width].mean(axis=2)
    last = np.asarray(ends) - 1
    sums, squares = changes.cumsum(axis=1)[:, last], (changes**2).cumsum(axis=1)[:, last]
    return studentize(sums, squares, np.asarray(ends, np.float64))


def rejections(looks: Looks, observed: NDArray, alpha: float) -> NDArray[np.bool_]:
    """Return for each row of ``observed`` whether `Looks.rejects` if it replaces the first row."""
    others = looks.statistics[1:]
    rows = len(others) + 1
    is_alive, crossed = np.ones(len(others), np.bool_), 0
    found = np.zeros(len(observed), np.bool_)
    is_tied = np.zeros(len(observed), np.bool_)
    for column, time in enumerate(looks.times):
        quota = math.floor(spend(alpha, time) * rows + 1e-9) - crossed
        alive = np.sort(others[is_alive, column])
        if quota < 1 or not len(alive):
            continue
        at_least = len(alive) - np.searchsorted(alive, observed[:, column], side="left")
        found |= at_least < quota
        bound = alive[-quota - 1] if quota < len(alive) else -math.inf
        # Here the observed row itself decides which permutations cross.
        is_tied |= (at_least == quota) & (alive[-quota] == observed[:, column])
        is_crossing = is_alive & (others[:, column] > bound)
        crossed += int(is_crossing.sum())
        is_alive &= ~is_crossing
    for row in np.flatnonzero(is_tied):
        found[row] = Looks(np.vstack([observed[row], others]), looks.times).rejects(alpha)
    return found


def level(name: str, trial: int, draws: int = DRAWS) -> float:
    """Return the share of draws for which the gate of a trial fails."""
    cell = cells()[name]
    rng = np.random.default_rng([crc32(name.encode()), 10**7, trial])
    chance = chances(rng, cell)
    stored = answer(rng, chance, cell.stored, cell.kind)
    stored, new = compared(stored, answer(rng, chance, cell.repeats, cell.kind), flaky=cell.flaky)
    ends = wave_ends(len(stored), count_looks(len(stored)))
    looks = look(stored, new, ends, len(stored))
    observed = redraw(stored, new, ends, draws, rng)
    return float(rejections(looks, observed, ALPHA).mean())


def main() -> None:
    """Measure a cell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cell", nargs="+")
    for name in parser.parse_args().cell:
        levels = np.array([level(name, trial) for trial in range(TRIALS)])
        error = levels.std(ddof=1) / TRIALS**0.5
        print(f"| {name} | {levels.mean():.3%} | ± {error:.3%} |", flush=True)


if __name__ == "__main__":
    main()
