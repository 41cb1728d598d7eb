"""One vector out of many: what a service leaves undone where it gives one for each token."""

from __future__ import annotations

import math
from typing import Any


def pooled(given: list[Any]) -> list[float]:
    """
    The vector of a text: as given, or the normalised mean over its tokens.

    ``given`` is a vector, or a list of them in any depth of lists of one.
    """
    while given and isinstance(given[0], list) and len(given) == 1:
        given = given[0]
    if not given or not isinstance(given[0], list):
        return given
    mean = [sum(column) / len(given) for column in zip(*given, strict=True)]
    norm = math.sqrt(sum(value * value for value in mean)) or 1.0
    return [value / norm for value in mean]
