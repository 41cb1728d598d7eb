"""The report on `filter`: what was decided, by what, and how good the decisions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, isnan, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._util.text import format_confidence, format_percent, format_usd, pluralize
from llm_magics.dataframes.operators.decisions import Estimate
from llm_magics.dataframes.operators.oracle import FAILED, NO, YES
from llm_magics.dataframes.operators.proxy_choice import ProxyQuality
from llm_magics.dataframes.operators.targets import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from pandas import DataFrame, Index

    from llm_magics.errors import LLMError

# Where the decision about a row comes from; the first one is for rows without one.
SOURCES = ("", "missing", "proxy", "oracle", "cache")
NOWHERE, MISSING, PROXY, ORACLE, CACHE = range(len(SOURCES))


@dataclass(frozen=True, eq=False, kw_only=True)
class RowDecisions:
    """
    The decision about each row of a table.

    Attributes:
        labels: `YES`, `NO`, `FAILED`, or something else for a row without a decision; int8.
        sources: the number of its source in `SOURCES`; int8.
        scores: the probability of yes that the proxy predicted; NaN without one.
        errors: the error of each row that failed, by its position.
        index: the index of the table.
    """

    labels: NDArray[np.int8]
    sources: NDArray[np.int8]
    scores: NDArray[np.float64]
    errors: Mapping[int, LLMError]
    index: Index

    def count(self, source: int) -> int:
        """Return the number of rows whose decision comes from ``source``."""
        return int((self.sources == source).sum())


@dataclass(frozen=True, eq=False, kw_only=True)
class FilterReport:
    """
    The report on a filter.

    Attributes:
        rows: the number of rows of the table.
        kept: the number of rows in the result.
        missing: the number of rows without a question or a human label; they are not in the result.
        failed: the number of rows for which the oracle failed; they are not in the result.
        target: what was asked for.
        bound: what is guaranteed, by the names of the targets, with the target's confidence.
        precision, recall: estimates with intervals, whatever the target is; ``None`` after an
            interrupt.
        questions: the number of different questions; equal ones have one answer.
        asked: the number of questions that the oracle answered, stored answers included.
        expected: the number that was expected after the pilot; ``None`` without a pilot.
        oracle: the name of what answers.
        calls: the number of questions that were sent to it.
        cached: the number of questions whose answer was stored before.
        cost_usd: the cost of both the oracle and the proxy in US dollars; ``None`` if unknown.
        proxy: the name of the proxy; ``none`` if all decisions are the oracle's.
        proxy_quality: how well it predicts labels; ``None`` if it was not measured.
        proxy_calls: the number of prompts that were sent for it.
        qualities: the quality of all proxies that were compared.
        reason: why every row was asked; empty if the proxy decided some.
        warning: a reason to doubt that the target is useful, or empty.
    """

    rows: int
    kept: int
    missing: int
    failed: int
    target: Target
    bound: Mapping[str, float]
    precision: Estimate | None
    recall: Estimate | None
    questions: int
    asked: int
    expected: int | None
    oracle: str
    calls: int
    cached: int
    cost_usd: float | None
    proxy: str
    proxy_quality: ProxyQuality | None
    proxy_calls: int
    qualities: Sequence[ProxyQuality]
    reason: str
    warning: str
    _decisions: RowDecisions

    @property
    def saved(self) -> int:
        """The number of questions that the oracle was not asked."""
        return self.questions - self.asked

    @property
    def decided_by_proxy(self) -> int:
        """The number of rows that the proxy decided."""
        return self._decisions.count(PROXY)

    @property
    def cost(self) -> str:
        """The calls and their cost, in words."""
        proxy = f", {self.proxy_calls:,} for the proxy" if self.proxy_calls else ""
        return f"{self.calls:,} sent, {self.cached:,} cached{proxy}, {format_usd(self.cost_usd)}"

    def __str__(self) -> str:
        """Return a summary that is the same in each run: without cache hits and cost."""
        share = self.asked / self.questions if self.questions else 1.0
        parts = [
            f"{self.kept:,} of {pluralize(self.rows, 'row')} kept",
            f"{self.asked:,} asked ({format_percent(share)})",
            *self._guarantees(),
            *self._estimates(),
        ]
        if self.decided_by_proxy:
            quality = self.proxy_quality
            auc = nan if quality is None else quality.auc
            parts.append(f"proxy: {self.proxy}" + ("" if isnan(auc) else f", AUC {auc:.2f}"))
        parts += [f"{count:,} {name}" for name, count in self._left_out() if count]
        parts += [each for each in (self.reason, self.warning) if each]
        return " · ".join(parts)

    __repr__ = __str__

    def _guarantees(self) -> list[str]:
        confidence = format_confidence(self.target.confidence)
        return [
            f"{name} at least {floor(1000 * value + 1e-9) / 1000:g}"
            + ("" if value >= 1 else f" with {confidence} confidence")
            for name, value in self.bound.items()
        ]

    def _estimates(self) -> list[str]:
        named = (("precision", self.precision), ("recall", self.recall))
        return [
            f"estimated {name} {each.value:.3f} ({each.low:.3f} to {each.high:.3f})"
            for name, each in named
            if each is not None and self.decided_by_proxy
        ]

    def _left_out(self) -> tuple[tuple[str, int], ...]:
        return ("missing", self.missing), ("failed", self.failed)

    def frame(self) -> DataFrame:
        """
        Return the decision about every row, by the index of the table.

        Columns: ``decision`` (missing for a row without one), ``source`` (``proxy``, ``oracle``,
        ``cache`` for a stored answer of the oracle, or ``missing``), ``score`` (the probability that
        the proxy predicted) and ``error``.
        """
        import pandas as pd

        from llm_magics._util.tables import CompactFrame

        decisions = self._decisions
        answers = pd.array(decisions.labels == YES, dtype="boolean")
        answers[~np.isin(decisions.labels, (YES, NO))] = pd.NA
        errors = [decisions.errors.get(row) for row in range(self.rows)]
        return CompactFrame(
            {
                "decision": answers,
                "source": np.array(SOURCES, object)[decisions.sources],
                "score": decisions.scores,
                "error": [each and f"{type(each).__name__}: {each}" for each in errors],
            },
            index=decisions.index,
        )

    def plot(self) -> Figure:
        """
        Return a picture of the scores of the proxy, by what was decided.

        Raises:
            UsageError: matplotlib is not installed, or the oracle decided all rows.
        """
        from llm_magics.dataframes.operators.filter_plot import plot_scores

        return plot_scores(self._decisions, self.proxy)


def sum_failures(labels: NDArray[Any]) -> int:
    """Return the number of rows for which the oracle failed."""
    return int((labels == FAILED).sum())
