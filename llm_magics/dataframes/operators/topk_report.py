"""The report on `topk`: what was compared, and how consistent the answers were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_magics._util.text import pluralize
from llm_magics.dataframes.operators.tournament import Outcome, Pair
from llm_magics.errors import LLMError

if TYPE_CHECKING:
    from pandas import DataFrame

    from llm_magics.dataframes.operators.comparisons import Answer
    from llm_magics.dataframes.operators.packing_check import PackingCheck

_NAMES = {
    Outcome.FIRST: "consistent",
    Outcome.SECOND: "consistent",
    Outcome.TIE: "inconsistent",
    Outcome.FAILED: "failed",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class TopKReport:
    """
    The report on the best rows of a table.

    Attributes:
        rows: the number of rows of the table.
        found: the number of rows in the result.
        missing: the number of rows without a value in the columns of the prompt.
        items: the number of different texts.
        candidates: the number of texts with the highest scores, which were compared.
        scores: the column of scores, or the model that gave them.
        scores_failed: the number of texts without a score.
        packing: the check of the number of rows in one prompt; ``None`` without one.
        comparisons: the number of pairs of texts that were compared, each in both orders.
        rounds: the number of rounds in which they were sent.
        inconsistent: the number of pairs whose answer changed with the order of the two. They are
            ties, which the score decides.
        failed: the number of pairs without an answer, which the score decides too.
        calls: the number of prompts that were sent and answered.
        cached: the number of prompts whose answer was stored before.
        cost_usd: the cost in US dollars; ``None`` if unknown.
    """

    rows: int
    found: int
    missing: int
    items: int
    candidates: int
    scores: str
    scores_failed: int
    packing: PackingCheck | None
    comparisons: int
    rounds: int
    inconsistent: int
    failed: int
    calls: int
    cached: int
    cost_usd: float | None
    _answers: Mapping[Pair, tuple[Answer | LLMError, Answer | LLMError]]
    _outcomes: Mapping[Pair, Outcome]
    _labels: list[Any]
    _score_errors: Sequence[tuple[Any, LLMError]]

    @property
    def prompts(self) -> int:
        """The number of prompts, for scores and comparisons, with the stored ones."""
        return self.calls + self.cached

    @property
    def position_bias(self) -> float | None:
        """
        The preference for a position, from -1 (always the second one) to 1 (always the first one).

        It is the number of inconsistent pairs for which the model preferred the first position both
        times, minus those with the second one, as a share of all pairs with answers; ``None``
        without any.
        """
        both = [each for pair, each in self._answers.items() if self._is_answered(pair)]
        if not both:
            return None
        return (both.count(("A", "A")) - both.count(("B", "B"))) / len(both)

    def _is_answered(self, pair: Pair) -> bool:
        return self._outcomes.get(pair, Outcome.FAILED) is not Outcome.FAILED

    def __str__(self) -> str:
        """Return a summary that is the same in each run: without cache hits and cost."""
        parts = [
            f"{self.found:,} of {pluralize(self.rows, 'row')}",
            pluralize(self.candidates, "candidate"),
            f"{pluralize(self.comparisons, 'comparison')} in {pluralize(self.rounds, 'round')}",
        ]
        parts += [f"{self.inconsistent:,} inconsistent"] if self.inconsistent else []
        parts += [f"{self.failed:,} failed"] if self.failed else []
        if self.scores_failed:
            parts.append(f"{pluralize(self.scores_failed, 'text')} without a score")
        parts += [f"{self.missing:,} missing"] if self.missing else []
        return " · ".join(parts)

    __repr__ = __str__

    def frame(self) -> DataFrame:
        """
        Return the comparisons, one per row.

        Columns: ``first`` and ``second``, the labels of the rows (of equal texts, the first one);
        ``better``, the label of the better one; ``outcome``: ``consistent``, ``inconsistent`` or
        ``failed``; ``position``, the one that was preferred both times (1 or 2); and ``error``.
        """
        from llm_magics._util.tables import CompactFrame

        records = [self._record(pair, outcome) for pair, outcome in self._outcomes.items()]
        columns = ["first", "second", "better", "outcome", "position", "error"]
        frame = CompactFrame({name: [each[name] for each in records] for name in columns})
        return frame.astype({"position": "Int64"})

    def failures(self) -> DataFrame:
        """
        Return what failed: the scores of rows, and comparisons.

        Columns: ``step`` (``score`` or ``compare``), ``rows`` (their labels; of equal texts, the
        first one) and ``error``.
        """
        from llm_magics._util.tables import CompactFrame

        records = [("score", [label], error) for label, error in self._score_errors]
        for pair, both in self._answers.items():
            error = _first_error(both)
            if error is not None:
                records.append(("compare", [self._labels[each] for each in pair], error))
        return CompactFrame(
            {
                "step": [step for step, _, _ in records],
                "rows": [rows for _, rows, _ in records],
                "error": [f"{type(error).__name__}: {error}" for _, _, error in records],
            }
        )

    def _record(self, pair: Pair, outcome: Outcome) -> dict[str, Any]:
        both = self._answers[pair]
        error = _first_error(both)
        winners = {Outcome.FIRST: pair[0], Outcome.SECOND: pair[1]}
        is_tie = outcome is Outcome.TIE
        return {
            "first": self._labels[pair[0]],
            "second": self._labels[pair[1]],
            "better": self._labels[winners[outcome]] if outcome in winners else None,
            "outcome": _NAMES[outcome],
            "position": {"A": 1, "B": 2}[str(both[0])] if is_tie else None,
            "error": None if error is None else f"{type(error).__name__}: {error}",
        }


def _first_error(both: tuple[Answer | LLMError, Answer | LLMError]) -> LLMError | None:
    return next((each for each in both if isinstance(each, LLMError)), None)
