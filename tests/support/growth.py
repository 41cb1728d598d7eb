"""How the work grows with the size of what is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def growth(work: Callable[[int], Any], size: int) -> float:
    """
    How much longer ``work`` takes for four times the size: 4 times if linear, 16 times if quadratic.

    It is processor time of this thread, and the least of several runs, as other programs disturb it.
    """
    small_s, large_s = (min(_taken_s(work, each) for _ in range(2)) for each in (size, 4 * size))
    return large_s / small_s


def _taken_s(work: Callable[[int], Any], size: int) -> float:
    started = time.thread_time()
    work(size)
    return time.thread_time() - started
