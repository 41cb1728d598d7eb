"""The report on `share`: the labels, the proxy, and what it was good for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._util.text import format_confidence, pluralize

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from pandas import DataFrame

    from llm_magics.dataframes.operators.prediction_powered import Shares
    from llm_magics.errors import LLMError


@dataclass(frozen=True, eq=False, kw_only=True)
class ShareReport:
    """
    The report on the shares of a table.

    Attributes:
        rows: the number of rows of the table.
        missing: the number of rows that were left out: without a value in the columns of the
            prompt, or without a human label.
        labels: the number of answers used.
        failed: the number of rows for which the oracle failed.
        confidence, simultaneous: as for `share`.
        oracle: what gave the answers.
        proxy: what predicted the answers; ``None`` without a proxy.
        correlation: the correlation of its predictions with answers that they do not depend on;
            ``None`` without a proxy.
        width_ratio: the mean width of the intervals, divided by that of labels alone.
        calls: the number of prompts that were sent and answered, or of calls of a function.
        cached: the number of answers that were stored before.
        cost_usd: the cost in US dollars; ``None`` if unknown.
        groups: a DataFrame with a row for each group: its name, ``method`` (``normal``, ``exact``, or ``all
            known``), ``low_alone`` and ``high_alone``, the interval of the labels alone,
            ``width_ratio`` and ``failed``, the number of rows.
    """

    rows: int
    missing: int
    labels: int
    failed: int
    confidence: float
    simultaneous: bool
    oracle: str
    proxy: str | None
    correlation: float | None
    width_ratio: float
    calls: int
    cached: int
    cost_usd: float | None
    groups: DataFrame
    _shares: DataFrame
    _errors: Mapping[int, LLMError]
    _failed_items: NDArray[np.intp]
    _failed_index: Any

    def __str__(self) -> str:
        """Return a summary that is the same in each run: without cache hits and cost."""
        together = " for all groups together" if self.simultaneous else ""
        parts = [
            f"{pluralize(self.labels, 'label')} of {pluralize(self.rows, 'row')}",
            f"{format_confidence(self.confidence)} confidence{together}",
        ]
        if self.proxy is not None and self.correlation is not None:
            parts.append(f"proxy: {self.proxy} (correlation {self.correlation:.2f})")
            parts.append(f"{self.width_ratio:.2f} of the width of labels alone")
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.missing:,} missing"] if self.missing else []
        return " · ".join(parts)

    __repr__ = __str__

    def frame(self) -> DataFrame:
        """Return the rows for which the oracle failed, by index, with their ``error``."""
        from llm_magics._util.tables import CompactFrame

        errors = [self._errors.get(int(item)) for item in self._failed_items]
        texts = [error and f"{type(error).__name__}: {error}" for error in errors]
        return CompactFrame({"error": texts}, index=self._failed_index)

    def plot(self) -> Figure:
        """
        Return a picture of the shares and their intervals; in grey, those of labels alone.

        Raises:
            UsageError: matplotlib is not installed.
        """
        from llm_magics.dataframes.operators.share_plot import plot_shares

        return plot_shares(self._shares, self.groups, self.confidence)


def group_details(
    keys: DataFrame, shares: Shares, alone: Shares, failed: NDArray[np.intp]
) -> DataFrame:
    """Return the attribute ``groups`` of a report, from the values that name the groups."""
    import pandas as pd

    from llm_magics._util.tables import CompactFrame

    method = np.where(shares.is_exact, "exact", "normal").astype(object)
    method[(shares.width == 0) & np.isfinite(shares.share)] = "all known"
    details = pd.DataFrame(
        {
            "method": method,
            "low_alone": alone.low,
            "high_alone": alone.high,
            "width_ratio": width_ratios(shares, alone),
            "failed": failed,
        },
        index=keys.index,
    )
    return CompactFrame(pd.concat([keys, details], axis=1))


def width_ratios(shares: Shares, alone: Shares) -> NDArray[np.float64]:
    """Return the widths of the intervals, divided by those of labels alone; 1 if both are 0."""
    width, other = shares.width, alone.width
    return np.divide(width, other, out=np.ones(len(width)), where=other > 0)


def mean_width_ratio(shares: Shares, alone: Shares) -> float:
    """Return the mean of `width_ratios` over the groups that are not known completely."""
    ratios = width_ratios(shares, alone)[alone.width > 0]
    return float(ratios.mean()) if len(ratios) else 1.0
