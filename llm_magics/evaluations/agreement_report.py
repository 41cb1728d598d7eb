"""The report on the agreement of a judge with people."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_magics._util.tables import CompactFrame, display_columns
from llm_magics._util.text import escape_controls, one_line, pluralize

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from llm_magics.evaluations.judge_correction import Items
    from llm_magics.evaluations.ratings import Ratings

_JUDGE_AND_PEOPLE = ("judge, people", "judge, majority")


@dataclass(frozen=True, eq=False, kw_only=True)
class Agreement:
    """
    How far a judge agrees with people, and people with each other.

    Attributes:
        confidence: the confidence of the intervals.
        confusion: a DataFrame of counts: labels of people (if several, the majority's) by labels of
            the judge.
        labels: a DataFrame with a row for each label: how often people and the judge gave it, and
            the judge's ``precision`` and ``recall`` with intervals, where the label of most people
            counts as right.
        statistics: a DataFrame with a row for each statistic; see `frame`.
        ratings: the labels that were compared.
    """

    confidence: float
    confusion: pd.DataFrame
    labels: pd.DataFrame
    statistics: pd.DataFrame
    ratings: Ratings

    def frame(self) -> pd.DataFrame:
        """
        Return all statistics.

        Columns: ``statistic``; ``between`` whom; ``value`` with its interval (``low``, ``high``);
        ``n``, the number of items; and ``note``, why a number is unknown.
        """
        return CompactFrame(self.statistics)

    def corrected(self, items: Items = "future") -> pd.DataFrame:
        """
        Return the mean score that people would give, from the judge's labels of all items.

        The judge's mean is corrected by its errors on the items that people labelled, which must be
        a random sample of all (prediction-powered inference). Any judge gives a valid interval; a
        good one gives a narrow one.

        Args:
            items: whose mean: of ``future`` items that are like these, or of those in the ``table``.

        Returns:
            one row for the mean of numbers, otherwise one for the share of each label: ``estimate``
            with its interval (``low``, ``high``), the mean of the ``judge`` and of the ``people``
            alone, ``width_ratio`` (the width of the interval as a part of that of people's labels
            alone), the numbers of ``labels`` and ``items``, and a ``note``.

        Raises:
            UsageError: ``items`` is invalid.
        """
        from llm_magics.evaluations.judge_correction import correct

        table = CompactFrame(correct(self.ratings, items, self.confidence))
        shown = ["score", "estimate", "low", "high", "judge", "people", "labels"]
        return display_columns(table, *shown, *(["note"] if (table["note"] != "").any() else []))

    def plot(self, items: Items = "future") -> Figure:
        """
        Return a picture of the corrected scores, with those of the judge and of people alone.

        Args:
            items: as for `corrected`.

        Raises:
            UsageError: ``items`` is invalid, or matplotlib is not installed.
        """
        from llm_magics.evaluations.agreement_plot import plot_corrected

        return plot_corrected(self.corrected(items), self.confidence)

    def __str__(self) -> str:
        """Return a summary in one line."""
        ratings = self.ratings
        labelled = int((ratings.people >= 0).any(axis=1).sum())
        count = len(ratings.annotators)
        people = "1 person" if count == 1 else f"{count:,} people"
        items = pluralize(len(ratings.index), "item")
        parts = [f"{labelled:,} of {items} labelled by {people}"]
        for name in ("agreement", "Cohen's kappa", "rank correlation"):
            parts += self._part(name, name)
        parts += self._part(f"Krippendorff's alpha, {ratings.level}", "alpha of people", "people")
        parts += [f"{ratings.unjudged:,} without the judge"] if ratings.unjudged else []
        if not labelled:
            parts.append("no label of people is about an item of the judge: compare the indexes")
        return " · ".join(parts)

    def _part(self, statistic: str, name: str, between: str | None = None) -> list[str]:
        """Return a statistic in words: of the judge with most people, or of others."""
        rows = self.statistics[self.statistics["statistic"] == statistic]
        if between is not None:
            rows = rows[rows["between"] == between]
        elif rows["between"].isin(_JUDGE_AND_PEOPLE).any():
            rows = rows[rows["between"].isin(_JUDGE_AND_PEOPLE)]
        if not len(rows):
            return []
        row = rows.iloc[0]
        if math.isnan(row["value"]):
            return [f"{name} unknown: {row['note']}"]
        interval = "" if math.isnan(row["low"]) else f" ({row['low']:.2f} to {row['high']:.2f})"
        return [f"{name} {row['value']:.2f}{interval}"]

    def __repr__(self) -> str:
        return f"{escape_controls(str(self))}\n\n{self._displayed()!r}"

    def _repr_html_(self) -> str:
        summary = html.escape(escape_controls(one_line(str(self))))
        table = CompactFrame(self._displayed())._repr_html_() or ""
        return f"<p>{summary}</p>{table}"

    def _displayed(self) -> pd.DataFrame:
        table = self.frame()
        return display_columns(
            table if (table["note"] != "").any() else table.drop(columns="note"), "statistic"
        )
