"""Placement of labels in a picture: near their anchors, off the points and off each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.float64]

# Positions are tried on rings around the anchor, at these distances in pixels.
_RINGS = (0, 12, 24, 40, 60, 85, 115, 150, 190)
_DIRECTIONS = 24

# The distance at which a free position costs as much as one that is covered with points. In sparse
# groups a few points cost half of that; in dense ones, the share of the label that is free counts.
_FAR, _FEW_CELLS, _DENSE_SHARE = 220, 4, 0.5

# The size of the cells in which points are counted, and the space around a label.
_CELL, _PADDING = 4, 3


def place_labels(
    anchors: Pixels, sizes: Pixels, points: Pixels, area: tuple[float, float]
) -> list[tuple[float, float] | None]:
    """
    Return the centre of each label in pixels; ``None`` for a label that has no space.

    Labels are placed in the given order, each where it covers few points and is near its anchor.

    Args:
        anchors: the position that each label describes, of shape (n, 2).
        sizes: the width and height of each label, of shape (n, 2).
        points: the points, of shape (m, 2).
        area: the width and height of the area; labels stay inside.
    """
    occupied = _Occupied(points, area)
    boxes = np.empty((0, 4))
    centres: list[tuple[float, float] | None] = []
    for anchor, size in zip(anchors, sizes, strict=True):
        half = size / 2 + _PADDING
        if (2 * half > area).any():
            centres.append(None)
            continue
        candidates = np.clip(anchor + _offsets(half), half, np.asarray(area) - half)
        low, high = candidates - half, candidates + half
        is_free = ~_overlap(low, high, boxes)
        distance = np.linalg.norm(candidates - anchor, axis=1)
        cost = np.where(is_free, occupied.cost(low, high) + distance / _FAR, np.inf)
        best = int(np.argmin(cost))
        if not is_free[best]:
            centres.append(None)
            continue
        boxes = np.vstack([boxes, [*low[best], *high[best]]])
        centres.append((float(candidates[best, 0]), float(candidates[best, 1])))
    return centres


def _offsets(half: Pixels) -> Pixels:
    """Return offsets on rings; wide labels move by more in the horizontal direction."""
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    rings = [circle * (ring + half * (ring > 0)) for ring in _RINGS]
    return np.concatenate(rings)


def _overlap(low: Pixels, high: Pixels, boxes: Pixels) -> NDArray[np.bool_]:
    """Return for each candidate whether it overlaps one of ``boxes`` (left, top, right, bottom)."""
    apart = (
        (high[:, None, 0] <= boxes[None, :, 0])
        | (low[:, None, 0] >= boxes[None, :, 2])
        | (high[:, None, 1] <= boxes[None, :, 1])
        | (low[:, None, 1] >= boxes[None, :, 3])
    )
    return np.asarray(np.logical_not(apart.all(axis=1)), np.bool_)


class _Occupied:
    """Counts the cells with points in a rectangle, from a table of sums."""

    def __init__(self, points: Pixels, area: tuple[float, float]) -> None:
        columns, rows = (int(side // _CELL) + 1 for side in area)
        cells = np.clip((points // _CELL).astype(np.int64), 0, [columns - 1, rows - 1])
        has_points = np.zeros((columns, rows), np.int64)
        has_points[cells[:, 0], cells[:, 1]] = 1
        self._sums = np.pad(has_points.cumsum(0).cumsum(1), ((1, 0), (1, 0)))

    def cost(self, low: Pixels, high: Pixels) -> Pixels:
        """Return how much of each rectangle is covered with points, from 0 to 1."""
        last = np.asarray(self._sums.shape) - 1
        start = np.clip((low // _CELL).astype(np.int64), 0, last)
        end = np.clip((high // _CELL).astype(np.int64) + 1, 0, last)
        (left, top), (right, bottom) = start.T, end.T
        sums = self._sums
        count = sums[right, bottom] - sums[left, bottom] - sums[right, top] + sums[left, top]
        share = count / np.maximum((end - start).prod(axis=1), 1)
        cost: Pixels = np.minimum(count / _FEW_CELLS, 1) + np.minimum(share / _DENSE_SHARE, 1)
        return cost / 2
