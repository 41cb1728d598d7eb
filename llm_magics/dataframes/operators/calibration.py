"""Calibration of scores: the probability of yes, given a score and some labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Scores are limited to this distance from 0 and 1, so that their logits are finite.
_LIMIT = 1e-4

# The standard deviation of the prior of the slope around 1, and of the intercept around 0: without
# labels to the contrary, a score is taken as a probability.
_SLOPE_SD, _INTERCEPT_SD = 1.0, 2.0


def logit(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log odds of scores in [0, 1]; those of 0 and 1 are finite."""
    inside = np.clip(scores, _LIMIT, 1 - _LIMIT)
    return np.log(inside / (1 - inside))


def calibrate(
    scores: NDArray[np.float64], known: NDArray[np.float64], labels: NDArray[np.int8]
) -> NDArray[np.float64]:
    """
    Return the probability of yes for each of ``scores``, by Platt scaling.

    The slope may be negative, so that reversed scores are as useful as others.

    Args:
        scores: the scores to calibrate, in [0, 1].
        known: the scores of rows with a label.
        labels: their labels, 0 or 1.
    """
    slope, intercept = platt(logit(known), labels.astype(np.float64))
    return sigmoid(slope * logit(scores) + intercept)


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logistic function of ``values``."""
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))


def platt(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and intercept of the largest posterior density, by Newton's method."""
    slope, intercept = 1.0, 0.0
    for _ in range(30):
        p = sigmoid(slope * x + intercept)
        error, weight = p - y, p * (1 - p)
        weighted = weight * x
        # The gradient and the Hessian of the negative log density, with the priors.
        down = float(error @ x) + (slope - 1) / _SLOPE_SD**2
        across = float(error.sum()) + intercept / _INTERCEPT_SD**2
        first = float(weighted @ x) + _SLOPE_SD**-2
        last = float(weight.sum()) + _INTERCEPT_SD**-2
        mixed = float(weighted.sum())
        determinant = first * last - mixed * mixed
        steps = (
            (last * down - mixed * across) / determinant,
            (first * across - mixed * down) / determinant,
        )
        # A limited step, because far from the optimum Newton's may go too far.
        longest = max(abs(steps[0]), abs(steps[1]))
        slope -= steps[0] / max(1.0, longest / 2)
        intercept -= steps[1] / max(1.0, longest / 2)
        if longest < 1e-5:
            break
    return slope, intercept
