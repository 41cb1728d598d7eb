"""
Flaky items: items to which the baseline itself gives answers of different scores.

The first repeats of the baseline decide which items are flaky, and only the other repeats are
compared with new answers. With the same repeats for both, the remaining items would be those that
were lucky in the baseline, and new answers would look worse without any change.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# At most this share of the items is left out as flaky.
MAX_SHARE = 0.05
# The standard deviation of the score from which an item may be flaky.
_MIN_SPREAD = 0.2
# With fewer repeats none can be spared for the decision.
_MIN_REPEATS, _MAX_DECIDING = 4, 3


def deciding_repeats(repeats: int) -> int:
    """Return how many of the baseline's repeats decide about flaky items; 0 if there are too few."""
    return min(_MAX_DECIDING, repeats // 2) if repeats >= _MIN_REPEATS else 0


def flaky_items(deciding: Any, keys: Sequence[str]) -> NDArray[np.bool_]:
    """
    Return which items are flaky: those whose scores vary most, at most 5 % of all.

    Args:
        deciding: the scores (n, repeats) that decide; see `deciding_repeats`. NaN is missing.
        keys: of items that vary equally, those with the smallest keys are flaky.
    """
    scores = np.asarray(deciding, np.float64)
    is_flaky = np.zeros(len(keys), np.bool_)
    if scores.ndim != 2 or scores.shape[1] < 2:
        return is_flaky
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # items without any score
        spread = np.nan_to_num(np.nanstd(scores, axis=1)).round(9)
    order = sorted(range(len(keys)), key=lambda item: (-spread[item], keys[item]))
    for item in order[: int(MAX_SHARE * len(keys))]:
        is_flaky[item] = spread[item] >= _MIN_SPREAD
    return is_flaky
