"""
When a growing display is worth sending again.

Sent at every token, an answer of n bytes costs n² on the wire. Sent when enough has grown, it
costs a multiple of n; sent too rarely, it looks stuck. So: no more often than ten times a
second; then after every 160 new characters; and sooner than that while a budget lasts, which
grows with the text. The budget for a display that has stood still for long is larger.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_SHORTEST_S = 0.1
_LONGEST_S = 0.4
_STEP = 160
# Of a display that could not be cut: a fraction of it, so that the sum stays linear.
_STEP_FRACTION = 0.04
# Bytes that may be sent at the start, and for each character of the text.
_BUDGET = (6_000, 12)
_BUDGET_WHEN_SLOW = (9_000, 18)
_BUDGET_AT_MOST = (9_000, 25)  # a table can be rendered to a hundred times its text
_ENVELOPE = 700  # what Jupyter adds to each message, in bytes


class Pacer:
    """Decides about one answer; ``clock`` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent_at = float("-inf")
        self._shown = 0
        self._total = 0
        self._sent = 0
        self._last_size = 0

    def grew(self, characters: int) -> None:
        """The answer has so many more characters."""
        self._total += characters

    def is_due(self, open_length: int) -> bool:
        """Whether a display of ``open_length`` characters should be sent now."""
        waited = self._clock() - self._sent_at
        if waited < _SHORTEST_S or self._total == self._shown:
            return False
        cost = self._sent + _ENVELOPE + max(2 * open_length, self._last_size)
        if self._total - self._shown >= max(_STEP, _STEP_FRACTION * open_length):
            start, each = _BUDGET_AT_MOST
        elif waited >= _LONGEST_S:
            start, each = _BUDGET_WHEN_SLOW
        else:
            start, each = _BUDGET
        return cost <= start + each * self._total

    def sent(self, size: int) -> None:
        """A display was sent, of ``size`` bytes."""
        self._sent_at = self._clock()
        self._shown = self._total
        self._sent += size + _ENVELOPE
        self._last_size = size
