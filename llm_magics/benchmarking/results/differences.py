"""Which model is better, as far as the same prompts can tell."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from llm_magics.benchmarking.results.stats import bootstrap, holm, paired_test
from llm_magics.errors import UsageError, nearest

SCORE = "score_"
# Of what is measured, more of this is better; of all else that is no score, less.
_MORE_IS_BETTER = ("tokens_per_s",)


def scores_of(frame: pd.DataFrame) -> list[str]:
    """The columns of scores."""
    return [name for name in map(str, frame.columns) if name.startswith(SCORE)]


def column_to_compare(frame: pd.DataFrame, by: str | None) -> str:
    """The column ``by``, by its whole name or a score's own; the first score if not said."""
    scores = scores_of(frame)
    if by is None:
        return scores[0] if scores else "e2e_s"
    for name in (by, f"{SCORE}{by}"):
        if name in frame and pd.api.types.is_numeric_dtype(frame[name]):
            return name
    numbers = [str(name) for name in frame.select_dtypes("number")]
    msg = f"There is no measurement {by!r:.60}."
    raise UsageError(msg, hint=nearest(str(by), [*scores, *numbers]))


def is_better_higher(column: str) -> bool:
    """Whether more of it is better."""
    return column.startswith(SCORE) or column in _MORE_IS_BETTER


def table_of(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """
    One row a thing that all models were given, one column a model, in the order of the frame.

    Of scores that is a prompt, for asked again it tells nothing new of what a model knows: its
    repeats are averaged. Of times it is a request, for each is another draw.
    """
    keys = ["prompt"] if column.startswith(SCORE) else ["prompt", *_repeats(frame)]
    values = frame.assign(_value=pd.to_numeric(frame[column]).astype("float64"))
    values = values[~values["_value"].isna()]
    if column.startswith(SCORE) or "cached" not in values:
        known = values
    else:
        known = values[~values["cached"].astype(bool) | (column == "cost_usd")]
    table = known.pivot_table(index=keys, columns="asked", values="_value", aggfunc="mean")
    models = [each for each in dict.fromkeys(frame["asked"]) if each in table]
    return table[models]


def _repeats(frame: pd.DataFrame) -> list[str]:
    return [name for name in ("concurrency", "rate", "repeat") if _tells(frame, name)]


def _tells(frame: pd.DataFrame, name: str) -> bool:
    """A column that is missing everywhere would drop all rows of a pivot."""
    return name in frame and not frame[name].isna().any()


def differences(
    frame: pd.DataFrame, by: str | None, baseline: str | None, confidence: float
) -> pd.DataFrame:
    """One row a pair of models; see `Measurements.differences`."""
    column = column_to_compare(frame, by)
    table = table_of(frame, column)
    pairs = _pairs(list(table.columns), baseline)
    alpha = (1 - confidence) / max(1, len(pairs))
    rows = [_row(table, one, other, confidence, alpha) for one, other in pairs]
    told = pd.DataFrame(rows, columns=_COLUMNS)
    told.insert(2, "measured", column)
    told["p_corrected"] = holm(told["p"].tolist())
    told["verdict"] = [_verdict(row, column, confidence) for _, row in told.iterrows()]
    return told


_COLUMNS = ["model", "other", "n", "mean", "mean_other", "difference", "low", "high", "test", "p", "n_needed"]  # fmt: skip


def _pairs(models: list[str], baseline: str | None) -> list[tuple[str, str]]:
    if baseline is None:
        return list(combinations(models, 2))
    if baseline not in models:
        msg = f"There is no model {baseline!r:.60} among the measurements."
        raise UsageError(msg, hint=nearest(str(baseline), models))
    return [(baseline, other) for other in models if other != baseline]


def _row(
    table: pd.DataFrame, one: str, other: str, confidence: float, alpha: float
) -> dict[str, Any]:
    both = table[[one, other]].dropna().to_numpy()
    first, second = both[:, 0], both[:, 1]
    test = paired_test(first, second, alpha)
    gaps = second - first
    interval = bootstrap(gaps, np.mean, confidence)
    return {
        "model": one,
        "other": other,
        "n": len(both),
        "mean": first.mean() if len(both) else math.nan,
        "mean_other": second.mean() if len(both) else math.nan,
        "difference": gaps.mean() if len(both) else math.nan,
        "low": interval.low,
        "high": interval.high,
        "test": test.name,
        "p": test.p,
        "n_needed": test.needed,
    }


def _verdict(row: Any, column: str, confidence: float) -> str:
    """In words, as one may quote it."""
    n = row["n"]
    if not n:
        return "not compared: no prompt was answered by both"
    gap = row["difference"]
    if row["p_corrected"] < 1 - confidence and gap:
        is_other = (gap > 0) == is_better_higher(column)
        winner = row["other"] if is_other else row["model"]
        return f"{winner} is better by {abs(gap):.3g} at n = {n}"
    if pd.isna(row["n_needed"]):
        return f"no difference seen at n = {n}"
    needed = max(int(row["n_needed"]), n + 1)
    return f"not resolved at n = {n}; about {_rounded(needed):,} would do"


def _rounded(number: int) -> int:
    """Two digits of it: the estimate is no better than that."""
    digits = max(0, len(str(number)) - 2)
    step = int(10**digits)
    return math.ceil(number / step) * step


def win_matrix(frame: pd.DataFrame, by: str | None) -> pd.DataFrame:
    """The share of common prompts on which the model of the row beats that of the column."""
    column = column_to_compare(frame, by)
    table = table_of(frame, column)
    sign = 1 if is_better_higher(column) else -1
    shares = pd.DataFrame(math.nan, index=table.columns, columns=table.columns)
    for one, other in combinations(table.columns, 2):
        gaps = (table[one] - table[other]).dropna() * sign
        if len(gaps):
            ties = (gaps == 0).mean() / 2
            shares.loc[one, other] = (gaps > 0).mean() + ties
            shares.loc[other, one] = (gaps < 0).mean() + ties
    shares.index.name = shares.columns.name = None
    return shares
