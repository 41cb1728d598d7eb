"""The progress of long work: a download, the loading of a model, a column."""

from __future__ import annotations

from dataclasses import dataclass

from llm_magics._util.text import count_or_none, replace_lone_surrogates


@dataclass(frozen=True, slots=True)
class Progress:
    """
    How much of some long work is done.

    Attributes:
        task: what is being done, for people ("fetching smollm2-135m").
        done, total: how much of it, in ``unit``; ``total`` is ``None`` where unknown.
        unit: ``"B"`` for bytes, else a word for the things counted.
        elapsed_s: seconds since the work began.
        before: how much of ``done`` was there then, and took no time.
        is_load: whether this is loading a model rather than answering.
    """

    task: str
    done: int = 0
    total: int | None = None
    unit: str = "B"
    elapsed_s: float = 0.0
    is_load: bool = False
    before: int = 0

    def __post_init__(self) -> None:
        """A service may send anything: a size that is none counts as unknown."""
        object.__setattr__(self, "task", replace_lone_surrogates(self.task))
        object.__setattr__(self, "done", count_or_none(self.done) or 0)
        object.__setattr__(self, "total", count_or_none(self.total))

    @property
    def fraction(self) -> float | None:
        """From 0 to 1, or ``None`` where the total is unknown."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at the speed so far, or ``None`` while that is unknown."""
        if not self.total or not self.speed:
            return None
        return max(0.0, (self.total - self.done) / self.speed)

    @property
    def speed(self) -> float | None:
        """So much a second, or ``None`` while that is unknown."""
        since = self.done - self.before
        return since / self.elapsed_s if since > 0 and self.elapsed_s else None

    def __str__(self) -> str:
        parts = [self.task]
        if self.total:
            parts.append(f"{_amount(self.done, self.unit, self.total)}")
            parts.append(f"{self.fraction:.0%}")
        if self.speed is not None:
            parts.append(f"{_quantity(self.speed, self.unit)}/s")
        if self.eta_s is not None and self.fraction != 1:
            parts.append(f"ETA {self.eta_s:.0f} s")
        return "  ".join(parts)


def _amount(done: int, unit: str, total: int) -> str:
    if unit == "B":
        return f"{done / 1e6:.1f}/{total / 1e6:.1f} MB"
    return f"{done:,}/{total:,} {unit}"


def _quantity(amount: float, unit: str) -> str:
    return f"{amount / 1e6:.1f} MB" if unit == "B" else f"{amount:,.0f} {unit}"
