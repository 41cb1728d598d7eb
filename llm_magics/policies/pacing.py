"""
How many requests at once bring the most from a service, and how fast it is at its fastest.

The number is doubled for as long as that brings more; then it stays. So a service that answers
one after the other is not crowded, and one that is far away is not waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# More at once must bring so many times as much to be worth it.
_GAIN = 1.15

# So many answers, and so much time, tell how fast it goes; of fewer a lucky one would decide.
_ANSWERS, _SECONDS = 8, 0.25


class Pace:
    """
    Attributes:
        at_once: how many requests at once to make now.
        fastest: the most in a second that came over some answers, in what is counted; 0 before.
    """

    def __init__(
        self, at_once: int, most: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Begin with ``at_once``, and never go beyond ``most``."""
        self.at_once = at_once
        self.fastest = 0.0
        self._most = most
        self._clock = clock
        self._is_climbing = at_once < most
        self._before = 0.0  # what the last step brought
        self._since = 0.0
        self._passed_over = 1  # the first one also waited for a connection
        self._answers = self._amount = 0

    def landed(self, amount: int) -> None:
        """An answer has come, with so much in it."""
        now = self._clock()
        if self._passed_over:
            self._passed_over -= 1
            self._since = now
            return
        self._answers += 1
        self._amount += amount
        took_s = now - self._since
        if self._answers >= max(_ANSWERS, 2 * self.at_once) and took_s >= _SECONDS:
            self._learn(self._amount / took_s)
            self._since, self._answers, self._amount = now, 0, 0

    def _learn(self, speed: float) -> None:
        self.fastest = max(self.fastest, speed)
        if not self._is_climbing:
            return
        if speed >= self._before * _GAIN:
            self._before = speed
            self._is_climbing = self.at_once < self._most
            self._passed_over = self.at_once  # those under way were begun at the old pace
            self.at_once = min(self._most, self.at_once * 2)
        else:  # the step before was enough
            self.at_once = max(1, self.at_once // 2)
            self._is_climbing = False
