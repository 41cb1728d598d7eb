"""The report on `join`: the pairs that were asked, and bounds for the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

from llm_magics._util.text import format_confidence, format_percent, format_usd, pluralize
from llm_magics.dataframes.operators.oracle import FAILED, YES
from llm_magics.dataframes.operators.pair_decisions import SOURCES, PairDecisions
from llm_magics.dataframes.operators.positives_left import least_share

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Index

    from llm_magics.errors import LLMError


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinReport:
    """
    The report on a join of two tables.

    Attributes:
        pairs: the number of pairs of rows that have values in the columns of the prompt.
        missing: the number of rows of the left and of the right table without such values.
        found: the number of pairs for which the statement is true, all of them answered.
        oracle: the name of the model or function that answered.
        candidates: how likely pairs were found: ``vectors``, ``ngrams`` or ``scores``.
        recall, confidence: the target: at least this share of all true pairs is found, with this
            probability.
        is_complete: whether all pairs that could be asked were asked.
        expected_calls: the calls that were expected after the pilot; ``None`` without one.
        calls: the number of pairs that were sent and answered.
        cached: the number of pairs whose answer was stored before.
        cost_usd: the cost in US dollars; ``None`` if unknown.
    """

    pairs: int
    missing: tuple[int, int]
    found: int
    oracle: str
    candidates: str
    recall: float
    confidence: float
    is_complete: bool
    expected_calls: int | None
    calls: int
    cached: int
    cost_usd: float | None
    _decisions: PairDecisions
    _rows: tuple[NDArray[np.int64], NDArray[np.int64]]
    _labels: tuple[Index, Index]
    _errors: Mapping[int, LLMError]
    _is_cached: NDArray[np.bool_]

    @property
    def asked(self) -> int:
        """The number of pairs that were asked, those with a stored answer included."""
        return len(self._decisions.pairs)

    @property
    def failed(self) -> int:
        """The number of pairs without an answer because of an error; they are not in the result."""
        return int((self._decisions.answers == FAILED).sum())

    @property
    def sources(self) -> dict[str, int]:
        """
        The number of pairs asked, by the reason.

        ``pilot``: to estimate the cost. ``candidate``: they are likely. ``sample``: drawn at random
        from the others, to bound the true pairs among them. ``rest``: all that were left.
        """
        counts = np.bincount(self._decisions.sources, minlength=len(SOURCES))
        return dict(zip(SOURCES, counts.tolist(), strict=True))

    @property
    def _is_decided(self) -> bool:
        return self._decisions.is_decided or self.is_complete

    @property
    def estimated_recall(self) -> float | None:
        """The estimated share of all true pairs that were found; ``None`` after an interrupt."""
        if not self._is_decided:
            return None
        total = self.found + self._decisions.expected_left
        return self.found / total if total else 1.0

    @property
    def recall_interval(self) -> tuple[float, float] | None:
        """
        An interval for the share of all true pairs that were found, with the confidence.

        It is ``None`` after an interrupt, which nothing bounds.
        """
        if not self._is_decided:
            return None
        total = self.found + self._decisions.most_left
        return self.found / total if total else 1.0, 1.0

    @property
    def why_complete(self) -> str:
        """Why all pairs were asked; empty if they were not."""
        if not self.is_complete:
            return ""
        if self.expected_calls is None:
            return "the tables are small"
        missable = floor((1 - self.recall) * self.found + 1e-9)
        share = least_share(missable, 1 - self.confidence)
        return (
            f"of {pluralize(self.found, 'true pair')} only {missable:,} may be missed, and to show "
            f"that, {ceil(100 * share)} % of the unlikely pairs would have to be asked anyway"
        )

    def __str__(self) -> str:
        """Return a summary that is the same in each run: without cache hits and cost."""
        share = self.asked / self.pairs if self.pairs else 1.0
        parts = [
            f"{self.found:,} of {pluralize(self.pairs, 'pair')}",
            f"{self.asked:,} asked ({format_percent(share)})",
        ]
        if self.is_complete:
            parts.append("recall 1" + (f": {self.why_complete}" if self.why_complete else ""))
        elif self.recall_interval is not None:
            least, confidence = self.recall_interval[0], format_confidence(self.confidence)
            parts.append(
                f"recall at least {floor(1000 * least + 1e-9) / 1000:.3f} with {confidence} "
                f"confidence, estimated {self.estimated_recall:.3f}"
            )
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        return " · ".join(parts)

    __repr__ = __str__

    @property
    def cost(self) -> str:
        """The calls and their cost, in words."""
        return f"{self.calls:,} sent, {self.cached:,} cached, {format_usd(self.cost_usd)}"

    def frame(self) -> DataFrame:
        """
        Return the pairs that were asked.

        Columns: ``left`` and ``right`` (index labels), ``answer`` (missing if it failed), ``source``
        (see `sources`), ``cached`` and ``error``.
        """
        import pandas as pd

        from llm_magics._util.tables import CompactFrame

        seen = self._decisions
        left, right = (
            labels.take(rows) for labels, rows in zip(self._labels, self._rows, strict=True)
        )
        answers = pd.array(seen.answers == YES, dtype="boolean")
        answers[seen.answers == FAILED] = pd.NA
        errors = [self._errors.get(number) for number in range(len(seen.pairs))]
        return CompactFrame(
            {
                "left": left.to_numpy(),
                "right": right.to_numpy(),
                "answer": answers,
                "source": np.array(SOURCES, object)[seen.sources],
                "cached": self._is_cached,
                "error": [each and f"{type(each).__name__}: {each}" for each in errors],
            }
        )
