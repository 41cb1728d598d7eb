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
    columns = np.stack([x, np.ones_like(x)], axis=1)
    center = np.array([1.0, 0.0])
    precision = np.diag([_SLOPE_SD**-2, _INTERCEPT_SD**-2])
    weights = center.copy()
    for _ in range(30):
        p = sigmoid(columns @ weights)
        gradient = columns.T @ (p - y) + precision @ (weights - center)
        hessian = (columns * (p * (1 - p))[:, None]).T @ columns + precision
        step = np.linalg.solve(hessian, gradient)
        # A limited step, because far from the optimum Newton's may go too far.
        weights -= step / max(1.0, float(np.abs(step).max()) / 2)
        if np.abs(step).max() < 1e-6:
            break
    return float(weights[0]), float(weights[1])
