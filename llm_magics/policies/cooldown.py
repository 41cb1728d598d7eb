"""
Providers that fail are left alone for a while, so that a route does not stumble over them anew.

After some failures in a row a provider rests; when it has rested, one call may try it (the
others go on as if it rested still), and its success ends the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _State:
    failures: int = 0
    rests_until: float = 0.0
    is_tried: bool = False


@dataclass
class Cooldowns:
    """
    Who rests. Safe to use from several threads.

    Attributes:
        after: so many failures in a row bring a rest.
        rest_s: how long it is.
    """

    after: int = 3
    rest_s: float = 30.0
    clock: Callable[[], float] = time.monotonic
    _states: dict[str, _State] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def may_try(self, name: str) -> bool:
        """Whether ``name`` may be asked now; of those who ask after a rest, the first may."""
        with self._lock:
            state = self._states.get(name)
            if state is None or state.failures < self.after:
                return True
            if self.clock() < state.rests_until or state.is_tried:
                return False
            state.is_tried = True
            return True

    def failed(self, name: str) -> None:
        """``name`` did not answer."""
        with self._lock:
            state = self._states.setdefault(name, _State())
            state.failures += 1
            state.is_tried = False
            if state.failures >= self.after:
                state.rests_until = self.clock() + self.rest_s

    def answered(self, name: str) -> None:
        """``name`` answered, or what went wrong was not its fault."""
        with self._lock:
            self._states.pop(name, None)
