"""The selected points of a map, which its widget and the user's code both change."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Positions = NDArray[np.int64]


class PointSelection:
    """The positions of the selected points. Functions are called when it has changed."""

    def __init__(self) -> None:
        self._points: Positions = np.empty(0, np.int64)
        self._callbacks: list[Callable[[], None]] = []

    @property
    def points(self) -> Positions:
        """The positions of the selected points, in the order of the selection."""
        return self._points

    @points.setter
    def points(self, points: Positions) -> None:
        if np.array_equal(points, self._points):
            return
        self._points = np.asarray(points, np.int64)
        for callback in self._callbacks:
            callback()

    def clear(self) -> None:
        """Select no point."""
        self.points = np.empty(0, np.int64)

    def has(self, points: Positions) -> bool:
        """Whether exactly ``points`` are selected, in any order."""
        return np.array_equal(np.sort(points), np.sort(self._points))

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever the selection has changed."""
        self._callbacks.append(callback)
