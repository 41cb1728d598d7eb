"""What asking may take, and how it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics.policies.budget import dollars

if TYPE_CHECKING:
    from llm_magics.engine.many import ManyCall


@dataclass(frozen=True, slots=True)
class RowsEstimate:
    """What asking may take: US dollars are ``None`` where prices are not known."""

    rows: int
    prompts: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    seconds: float | None = None

    def __str__(self) -> str:
        time = "" if self.seconds is None else f" · about {_minutes(self.seconds)}"
        return (
            f"{self.rows:,} rows · {self.prompts:,} prompts to send · about {self.input_tokens:,} tokens, "
            f"and answers of up to {self.output_tokens:,} · cost {dollars(self.cost_usd)}{time}"
        )

    __repr__ = __str__


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


@dataclass(frozen=True, eq=False)
class PromptReport:
    """How asking went: ``counts`` of rows, and `frame` for those that did not go well."""

    counts: dict[str, int]
    _call: ManyCall
    _codes: Sequence[int]
    _texts: Sequence[str]
    _index: Any

    @property
    def sent(self) -> int:
        """How many prompts were sent and answered, and are paid where that costs."""
        return sum(each is not None and not each.cached for each in self._call.responses)

    @property
    def cached(self) -> int:
        """How many rows have an answer that was given before, and cost nothing."""
        answers = self._call.responses
        kept = {number for number, each in enumerate(answers) if each is not None and each.cached}
        return sum(code in kept for code in self._codes)

    @property
    def cost_usd(self) -> float | None:
        """US dollars; ``None`` where they are not known of all."""
        costs = [each.cost_usd for each in self._call.responses if each is not None]
        known = [usd for usd in costs if usd is not None]
        return sum(known) if len(known) == len(costs) else None

    def __str__(self) -> str:
        return " · ".join(f"{count:,} {name}" for name, count in self.counts.items() if count)

    __repr__ = __str__

    def frame(self) -> pd.DataFrame:
        """The rows that failed: their ``error`` and ``prompt``, by index."""
        errors = self._call.errors
        odd = [row for row, code in enumerate(self._codes) if code in errors]
        told = [errors[self._codes[row]] for row in odd]
        return pd.DataFrame(
            {
                "error": [f"{type(error).__name__}: {error}" for error in told],
                "prompt": [self._texts[self._codes[row]] for row in odd],
            },
            index=self._index[odd],
        )
