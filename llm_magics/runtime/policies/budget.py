"""
A spending limit. A call that may exceed the remaining budget is refused before it is sent.

Running calls reserve their estimated cost, so that their sum does not exceed the budget. When a
call ends, its actual cost replaces the estimate.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llm_magics._util.text import format_usd
from llm_magics.errors import BudgetError

_CONTINUE = "Raise the budget with %llm budget USD, or turn it off with %llm budget off."


@dataclass
class Hold:
    """
    The estimated and the actual cost of one call.

    ``spent_usd`` stays ``None`` if the actual cost is unknown.
    """

    estimate_usd: float | None
    spent_usd: float | None = None


class Budget:
    """A budget in US dollars, and the spent part of it. It can be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.limit_usd: float | None = None
        self.spent_usd = 0.0
        self._held_usd = 0.0
        self._promised_usd: dict[str, float] = {}

    def allow(self, limit_usd: float | None) -> None:
        """Set the budget to ``limit_usd`` from now on; ``None`` means no limit."""
        with self._lock:
            self.limit_usd = limit_usd
            self.spent_usd = 0.0

    @property
    def left_usd(self) -> float | None:
        """The remaining budget, without the reserved costs of running calls."""
        if self.limit_usd is None:
            return None
        reserved_usd = self._held_usd + sum(self._promised_usd.values())
        return max(0.0, self.limit_usd - self.spent_usd - reserved_usd)

    def promise(self, jobs: Sequence[str], estimate_usd: float) -> None:
        """Reserve ``estimate_usd`` for batch jobs until `settle` is called for each."""
        with self._lock:
            for job in jobs:
                self._promised_usd.setdefault(job, estimate_usd / len(jobs))

    def settle(self, jobs: Sequence[str], spent_usd: float) -> None:
        """Count ``spent_usd`` as spent, and end the reservations for batch jobs."""
        with self._lock:
            self.spent_usd += spent_usd
            for job in jobs:
                self._promised_usd.pop(job, None)

    @contextmanager
    def held(self, model: str, estimate_usd: float | None) -> Generator[Hold, None, None]:
        """
        Reserve ``estimate_usd`` during the block; then ``spent_usd`` of the `Hold` counts as spent.

        If it is unknown, for example after an interrupted call, the estimate counts as spent.

        Raises:
            BudgetError: the estimate exceeds the remaining budget, or is unknown.
        """
        hold = Hold(estimate_usd)
        if self.limit_usd is None:
            yield hold
            return
        with self._lock:
            self._check(model, estimate_usd)
            estimate = estimate_usd or 0.0
            self._held_usd += estimate
        try:
            yield hold
        finally:
            with self._lock:
                self._held_usd -= estimate
                self.spent_usd += estimate if hold.spent_usd is None else hold.spent_usd

    def _check(self, model: str, estimate_usd: float | None) -> None:
        left_usd = self.left_usd or 0.0
        if estimate_usd is None:
            msg = f"The price of {model} is unknown, so the budget of {format_usd(self.limit_usd)} cannot be enforced."
            hint = (
                f"Set the price in the setting prices ({{{model}: {{input_usd: …, output_usd: …}}}}), "
                "or turn the budget off with %llm budget off."
            )
            raise BudgetError(msg, hint=hint)
        if estimate_usd > left_usd:
            msg = f"This may cost {format_usd(estimate_usd)} with {model}, and {format_usd(left_usd)} is left. It was not sent."
            raise BudgetError(msg, hint=_CONTINUE)
