"""What a cascade is expected to save: how many rows to leave to the proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.certificates import expected_draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The number of sizes of a region that a plan compares.
_GRID = 48

# What a certificate needs beyond the expectation, in nats, so that it seldom ends just short.
MARGIN_NATS = 0.3


@dataclass(frozen=True, slots=True)
class CascadePlan:
    """
    What a cascade expects, after its pilot or later.

    Attributes:
        rows: the number of rows with a question.
        calls: the expected number of calls of the oracle, those made included.
        made: the calls made so far.
    """

    rows: int
    calls: int
    made: int


def smallest_excess(limit: float, *, is_integer: bool) -> float:
    """Return the smallest sum of losses above ``limit``."""
    return float(np.floor(limit + 1e-9) + 1) if is_integer else limit + 1e-9


def savings(
    losses: NDArray[np.float64], bound: float, nats: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """
    Return sizes of a region, from 0, and the calls that each is expected to save.

    Args:
        losses: the expected loss of each row, in the order in which regions grow.
        bound: the smallest sum of losses that is too large.
        nats: the logarithm that a certificate has to reach.
    """
    sizes = np.unique(np.linspace(0, len(losses), _GRID + 1).astype(np.int64))[1:]
    mean = np.cumsum(losses)[sizes - 1] / sizes
    draws = expected_draws(sizes.astype(np.float64), np.full(len(sizes), bound), mean, nats)
    return np.append(0, sizes), np.append(0.0, sizes - draws)


def best_size(losses: NDArray[np.float64], bound: float, nats: float) -> tuple[int, float]:
    """Return the size of the region that saves the most calls, and how many."""
    sizes, saving = savings(losses, bound, nats)
    best = int(np.argmax(saving))
    return int(sizes[best]), float(saving[best])


def recall_floor(delta: float, misses: int) -> float:
    """
    Return the share of the dropped rows that a guarantee of recall has to ask.

    With fewer, ``misses`` + 1 positive rows may all be among those not asked with probability δ.
    """
    return float(1 - delta ** (1 / (misses + 1)))
