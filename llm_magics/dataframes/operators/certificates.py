"""
Certificates: bounds on the losses in nested regions of rows, from a random sample.

A region is certified when a betting martingale for sampling without replacement (Waudby-Smith and
Ramdas, arXiv 2006.04347 and 2010.09686) exceeds 1/δ. By Ville's inequality this happens with
probability at most δ if the losses reach the bound, however often one looks. The regions are nested
and tested from the smallest to the largest, and the first one that is not certified ends the
sequence: all of them together then need no more than δ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Sums of losses are exact to this.
_ROUNDING = 1e-10

# The alternatives to bet on: the mean loss as a share of the mean at the bound. The expected one
# has half of the weight; the others share the rest, in case the expectation is wrong.
_RATIOS = np.array([0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8])
_WEIGHTS = np.append(np.full(len(_RATIOS), 0.5 / len(_RATIOS)), 0.5)


def log_wealth(
    losses: NDArray[np.float64], size: int, bound: float, expected: float
) -> NDArray[np.float64]:
    """
    Return the logarithm of the martingale against "the losses reach ``bound``" after each draw.

    Args:
        losses: the losses, in [0, 1], of the rows drawn from the region so far, in random order.
        size: the number of rows in the region.
        bound: the smallest sum of losses that is too large.
        expected: the expected mean loss as a share of the mean at the bound; affects only power.

    Returns:
        the logarithms, float64 of the length of ``losses`` + 1; the first is before any draw.
    """
    drawn = np.concatenate([[0.0], np.cumsum(losses)])
    left = size - np.arange(len(losses) + 1)
    missing = bound - drawn
    logs = np.full(len(losses) + 1, -np.inf)
    logs[0] = 0.0
    # Once the bound is reached, nothing more can be shown.
    end = int(np.argmax(missing <= 0)) if missing[-1] <= 0 else len(losses)
    if end:
        values = losses[:end, None]
        # The mean loss of the rows left, if the bound is met exactly.
        mean = (missing[:end] / left[:end])[:, None]
        ratios = np.append(_RATIOS, min(max(expected, 0.02), 0.9))
        # Kelly bets on the mean loss ratio·mean: they pay the likelihood ratio of losses 0 and 1.
        no_loss = (1 - ratios * mean) / np.maximum(1 - mean, 1e-12)
        factors = np.maximum(no_loss + values * (ratios - no_loss), 0.0)
        with np.errstate(divide="ignore"):
            wealth = np.cumsum(np.log(factors), axis=0)
            logs[1 : end + 1] = np.logaddexp.reduce(wealth + np.log(_WEIGHTS), axis=1)
    # So few rows cannot reach the bound.
    logs[missing > left + _ROUNDING] = np.inf
    return logs


def log_evidence(losses: NDArray[np.float64], size: int, bound: float, expected: float) -> float:
    """Return the largest value of `log_wealth`, of which Ville's inequality speaks."""
    return float(log_wealth(losses, size, bound, expected).max())


def expected_draws(
    sizes: NDArray[np.float64],
    bounds: NDArray[np.float64],
    mean_losses: NDArray[np.float64],
    nats: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """
    Return the expected number of rows to draw until each region is certified.

    Args:
        sizes, bounds: as for `log_evidence`, of the rows not yet drawn.
        mean_losses: the expected mean loss of these.
        nats: the logarithm that the martingale still has to gain.

    Returns:
        the draws, float64; the size of the region where a certificate cannot be expected.
    """
    steps = 32
    shares = np.arange(steps) / steps
    size = np.maximum(sizes, 1)[:, None]
    loss = np.clip(mean_losses, 1e-6, 1 - 1e-6)[:, None]
    mean = (bounds[:, None] / size - loss * shares) / (1 - shares)
    inside = np.clip(mean, 1e-9, 1 - 1e-9)
    # The Kullback-Leibler divergence of the mean loss from that at the bound, in nats a draw.
    gain = loss * np.log(loss / inside) + (1 - loss) * np.log((1 - loss) / (1 - inside))
    gain = np.where(mean > loss, gain, 0.0)
    gain[mean >= 1] = np.inf
    wealth = np.cumsum(gain, axis=1) * size / steps
    needed = np.broadcast_to(np.asarray(nats, np.float64), sizes.shape)
    is_enough = wealth >= needed[:, None]
    step = np.argmax(is_enough, axis=1)
    rows = np.arange(len(sizes))
    missing = needed - np.where(step > 0, wealth[rows, step - 1], 0.0)
    draws = step * size[:, 0] / steps + missing / np.maximum(gain[rows, step], 1e-12)
    draws = np.where(is_enough.any(axis=1), np.maximum(draws, 0), sizes)
    draws = np.where((needed <= 0) | (bounds > sizes), 0.0, draws)
    return np.asarray(np.minimum(np.ceil(draws), sizes), np.float64)
