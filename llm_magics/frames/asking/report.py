"""What asking may take, and how it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_magics._util.text import dollars
from llm_magics.completeness import Outcome
from llm_magics.runtime.incomplete import cut_error

if TYPE_CHECKING:
    from pandas import DataFrame

    from llm_magics.runtime.batch import ManyCall


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
    """
    The report of one run over rows.

    Attributes:
        counts: rows by outcome: ``ok``, ``cut`` (at a limit of length), ``refused``, ``empty``
            (no text, or thinking alone), ``failed``, ``missing`` and ``pending``. `frame` has
            those that are not ``ok``.
    """

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

    def frame(self) -> DataFrame:
        """
        Return the rows that were asked and are not ``ok``, by index.

        Columns: ``error``, ``prompt``, ``outcome`` (as in ``counts``) and ``text``, what came of
        the answer.
        """
        # Not above: this module is imported when pandas is, by whichever module needs it first.
        from llm_magics._util.tables import WideFrame

        bad = {
            number: outcome
            for number in range(len(self._texts))
            if (outcome := self._call.outcome(number)) not in (None, Outcome.OK)
        }
        rows = [row for row, code in enumerate(self._codes) if code in bad]
        codes = [self._codes[row] for row in rows]
        return WideFrame(
            {
                "error": [self._error(code) for code in codes],
                "prompt": [self._texts[code] for code in codes],
                "outcome": [str(bad[code]) for code in codes],
                "text": [self._text(code) for code in codes],
            },
            index=self._index[rows],
        )

    def _error(self, number: int) -> str:
        error, response = self._call.errors.get(number), self._call.responses[number]
        if error is None:  # the answer fills its cell, cut at the limit that the user set
            assert response is not None
            error = cut_error(response)
        return f"{type(error).__name__}: {error}"

    def _text(self, number: int) -> str | None:
        """Return what came of an answer: its text, or else its thinking."""
        response = self._call.responses[number]
        return None if response is None else response.text or response.reasoning or None
