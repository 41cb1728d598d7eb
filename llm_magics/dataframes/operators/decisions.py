"""What a cascade decided about rows, and estimates of its quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.certificates import log_evidence
from llm_magics.dataframes.operators.labelling import UNKNOWN, LabelledRows, Sampled
from llm_magics.dataframes.operators.oracle import NO, YES

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Estimate:
    """
    An estimate with an interval that holds at any time.

    Attributes:
        value: the estimate.
        low, high: the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Decisions:
    """
    The decision about each row, and how it came about.

    Attributes:
        labels: `YES`, `NO` or `FAILED` for each row, int8.
        is_asked: whether each row's label is the oracle's.
        probability: the probability of yes that the proxy predicted for each row.
        kept, dropped: the rows that the proxy decided.
        pilot_calls, training_calls, calls: the calls of the oracle in the pilot, until the proxy
            was frozen, and in all.
        bound: the smallest value of each target at the confidence asked for.
        precision, recall: estimates, whatever the target is.
        reason: why every row was asked; empty if the proxy decided some.
    """

    labels: NDArray[np.int8]
    is_asked: NDArray[np.bool_]
    probability: NDArray[np.float64]
    kept: Sampled
    dropped: Sampled
    pilot_calls: int
    training_calls: int
    calls: int
    bound: dict[str, float]
    precision: Estimate
    recall: Estimate
    reason: str = ""


def sum_bounds(values: NDArray[np.float64], size: int, delta: float) -> tuple[float, float]:
    """
    Return bounds of the sum of 0 and 1 over ``size`` rows, from a sample in random order.

    Both hold together with probability 1-δ, at any time.
    """
    lower = _upper(1 - values, size, delta / 2)
    return float(size - lower), float(_upper(values, size, delta / 2))


def _upper(values: NDArray[np.float64], size: int, delta: float) -> int:
    """Return the largest sum that the sample does not exclude."""
    nats = np.log(1 / delta)
    low, high = int(values.sum()), size
    mean = (values.sum() + 0.5) / (len(values) + 1)
    while low < high:
        middle = (low + high + 1) // 2
        expected = mean * size / middle
        if log_evidence(values, size, float(middle), expected) >= nats:
            high = middle - 1
        else:
            low = middle
    return low


def estimate_quality(
    table: LabelledRows,
    kept: Sampled,
    dropped: Sampled,
    delta: float,
    probability: NDArray[np.float64],
) -> tuple[Estimate, Estimate]:
    """
    Return precision and recall with intervals that hold together with probability 1-δ.

    ``probability`` is the calibrated probability of yes for each row of the table. Estimates depend
    on it only for regions without a sample, of which the interval contains every value.
    """
    labels = table.labels
    known = int((labels == YES).sum())
    kept_unseen = int((labels[kept.rows] == UNKNOWN).sum())
    false = _unseen(labels, kept, NO, delta / 2, 1 - probability)
    missed = _unseen(labels, dropped, YES, delta / 2, probability)
    precision = [_share(known + kept_unseen - each, known + kept_unseen) for each in false]
    recall = [
        _share(known + kept_unseen - f, known + kept_unseen - f + m)
        for f, m in (
            (false[0], missed[0]),
            (false[1], missed[2]),
            (false[2], missed[1]),
        )
    ]
    (value, high, low) = (precision[0], precision[1], precision[2])
    return Estimate(value, low, high), Estimate(recall[0], recall[1], recall[2])


def _unseen(
    labels: NDArray[np.int8],
    side: Sampled,
    label: int,
    delta: float,
    probability: NDArray[np.float64],
) -> tuple[float, float, float]:
    """Return an estimate and the bounds of the number of unseen rows with a label."""
    unseen_rows = side.rows[labels[side.rows] == UNKNOWN]
    unseen = len(unseen_rows)
    if not unseen:
        return 0.0, 0.0, 0.0
    values = (labels[side.sample] == label).astype(np.float64)
    # The region was chosen by the same sample.
    low, high = sum_bounds(values, len(side.rows), delta / side.choices)
    seen = int((labels[side.rows] == label).sum())
    expected = (
        unseen * float(values.mean()) if len(values) else float(probability[unseen_rows].sum())
    )
    return (
        float(min(max(expected, 0), unseen)),
        float(min(max(low - seen, 0), unseen)),
        float(min(max(high - seen, 0), unseen)),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 1.0
