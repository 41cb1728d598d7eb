"""
Simulated tables: labels, and the scores of a proxy of a given quality.

Each measurement uses the same tables: trial ``t`` of cell ``c`` is drawn by
``np.random.default_rng([c, t])``.
"""

from __future__ import annotations

from itertools import product
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray


class Cell(NamedTuple):
    """The rows of a table, the share of positives, and the proxy's area under the ROC curve."""

    n: int
    base_rate: float
    auc: float


# A cell's number is its position.
CELLS = tuple(
    Cell(*values) for values in product((200, 1_000, 10_000), (0.01, 0.1, 0.5), (0.5, 0.8, 0.95))
)


def simulated_table(
    n: int, base_rate: float, auc: float, rng: Generator
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """
    Return the scores and the labels (0 or 1) of ``n`` rows in random order.

    The binormal model: exactly ``round(n * base_rate)`` labels are 1, a latent value is drawn from
    N(d * label, 1), and the score is the posterior probability of the label 1, which is calibrated.
    With an AUC of 0.5 all scores are equal.
    """
    distance = 2**0.5 * NormalDist().inv_cdf(auc)
    positives = round(n * base_rate)
    labels = rng.permutation(np.arange(n) < positives).astype(np.int8)
    latent = rng.standard_normal(n) + distance * labels
    prior_logit = np.log(positives / (n - positives))
    logit = prior_logit + distance * latent - distance**2 / 2
    return 1 / (1 + np.exp(-logit)), labels


def cell_table(cell: int, trial: int) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Return the scores and labels of a trial of the cell at a position in `CELLS`."""
    return simulated_table(*CELLS[cell], np.random.default_rng([cell, trial]))
