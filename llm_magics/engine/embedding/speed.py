"""How fast an embedding went, and what it was that it could not go faster."""

from __future__ import annotations

from dataclasses import dataclass

# Who uses so much of one core has no time left to ask for more.
_BUSY = 0.85


@dataclass(frozen=True, slots=True)
class Speed:
    """
    Attributes:
        rows_per_s: texts that were sent, over the whole time from the first request to the last.
        limit_rows_per_s: the most that came in a second while many requests were under way.
        at_once: how many requests at once that took.
        cpu_share: of one core, what this process used meanwhile.
    """

    rows_per_s: float
    limit_rows_per_s: float
    at_once: int
    cpu_share: float

    @property
    def share(self) -> float:
        """What was reached of the limit, from 0 to 1."""
        return min(1.0, self.rows_per_s / self.limit_rows_per_s)

    @property
    def is_our_own(self) -> bool:
        """Whether this process was the limit, and not the server."""
        return self.cpu_share > _BUSY

    def __str__(self) -> str:
        whose = "this notebook's own" if self.is_our_own else "the server's"
        return (
            f"{self.rows_per_s:,.0f} rows/s, {self.share:.0%} of {whose} limit"
            f" ({self.at_once} requests at once)"
        )
