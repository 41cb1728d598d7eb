"""Which vectors belong together: k-means on the sphere, the same groups each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llm_magics.frames.search import normalised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Numbers = NDArray[np.int64]

_RESTARTS, _MOST_TURNS = 10, 50

# Centres are found among so many vectors; all are put to them afterwards.
_SAMPLE = 20_000


def clustered(vectors: Floats, k: int) -> tuple[Numbers, Floats]:
    """
    A number for each of ``vectors`` (n, d), the largest group first, and the centres (k, d).

    Centres begin far from each other ("k-means++"); of several tries the tightest counts.
    Source: Arthur & Vassilvitskii, "k-means++: the advantages of careful seeding", 2007.
    """
    rows = normalised(vectors)
    draw = np.random.default_rng(0)
    sample = rows if len(rows) <= _SAMPLE else rows[draw.choice(len(rows), _SAMPLE, replace=False)]
    tries = (_moved(sample, _seeded(sample, k, draw)) for _ in range(_RESTARTS))
    centres = max(tries, key=lambda each: float((sample @ each.T).max(axis=1).sum()))
    numbers = (rows @ centres.T).argmax(axis=1)
    order = np.argsort(-np.bincount(numbers, minlength=len(centres)), kind="stable")
    return np.argsort(order)[numbers], centres[order]


def _seeded(rows: Floats, k: int, draw: np.random.Generator) -> Floats:
    centres = [rows[draw.integers(len(rows))]]
    far = 1 - rows @ centres[0]
    for _ in range(k - 1):
        chances = np.clip(far, 0, None).astype(np.float64) ** 2
        total = chances.sum()
        place = draw.choice(len(rows), p=chances / total) if total else draw.integers(len(rows))
        centres.append(rows[place])
        far = np.minimum(far, 1 - rows @ centres[-1])
    return np.stack(centres)


def _moved(rows: Floats, centres: Floats) -> Floats:
    """Each centre to the middle of its rows, until none changes."""
    numbers = np.full(len(rows), -1)
    for _ in range(_MOST_TURNS):
        now = (rows @ centres.T).argmax(axis=1)
        if (now == numbers).all():
            break
        numbers = now
        sums = np.zeros_like(centres)
        np.add.at(sums, numbers, rows)
        moved = normalised(sums)
        centres = np.where(np.isnan(moved), centres, moved)  # nobody's centre stays where it is
    return centres
