"""How the work grows with the size of what is read."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any


def growth(work: Callable[[int], Any], size: int) -> float:
    """
    How much longer ``work`` takes for four times the size: 4 times if linear, 16 times if quadratic.

    It is processor time of this thread without garbage collections, whose length depends on all the
    objects of the process; and the least of several runs in turns, as other programs disturb it.
    """
    gc.collect()
    gc.disable()
    try:
        runs = [(_taken_s(work, size), _taken_s(work, 4 * size)) for _ in range(5)]
    finally:
        gc.enable()
    return min(large for _, large in runs) / min(small for small, _ in runs)


def _taken_s(work: Callable[[int], Any], size: int) -> float:
    started = time.thread_time()
    work(size)
    return time.thread_time() - started
