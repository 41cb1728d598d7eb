"""Which model is better, as far as the same prompts can tell."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pandas as pd

from llm_magics._util.statistics import gap_interval, holm, paired_test
from llm_magics.benchmarking.results.items import items
from llm_magics.benchmarking.results.whole import is_whole, several_loads
from llm_magics.errors import UsageError, nearest

SCORE = "score_"
# What is measured, whether more of it is better, and its unit.
_MEASURED: dict[str, tuple[bool, str]] = {
    **dict.fromkeys(["ttft_s", "ttft_answer_s", "e2e_s", "latency_s", "headers_s", "load_s", "queue_s", "connect_s"], (False, " s")),
    "itl_ms": (False, " ms"),
    "tpot_ms": (False, " ms"),
    "tokens_per_s": (True, " tokens/s"),
    "cost_usd": (False, " US$"),
    "retries": (False, ""),
}  # fmt: skip
# What failed has cost what it has, and has no time.
_OF_ALL = ("cost_usd", "retries")


def scores_of(frame: pd.DataFrame) -> list[str]:
    """The columns of scores."""
    return [name for name in map(str, frame.columns) if name.startswith(SCORE)]


def column_to_compare(frame: pd.DataFrame, by: str | None) -> str:
    """
    The column ``by``, by its whole name or a score's own; the first score if not said.

    Raises:
        UsageError: there is none, or more of it is neither better nor worse.
    """
    scores = scores_of(frame)
    if by is None:
        return scores[0] if scores else "e2e_s"
    known = [*scores, *(name for name in _MEASURED if name in frame)]
    for name in (by, f"{SCORE}{by}"):
        if name in known:
            return name
    msg = f"There is no measurement {by!r:.60} of which more, or less, is better."
    raise UsageError(msg, hint=nearest(str(by), known))


def is_better_higher(column: str) -> bool:
    """Whether more of it is better."""
    return column.startswith(SCORE) or _MEASURED[column][0]


def values_of(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    """
    The values of a column, those that count.

    A failed answer counts in a score, as 0, and in what it cost; it has no time, nor has one
    that broke off.
    """
    values = pd.to_numeric(frame[column]).astype("float64")
    if column.startswith(SCORE) or column in _OF_ALL:
        return values
    return values.where(is_whole(frame))


def table_of(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """
    One row a thing that all models were given, one column a model, in the order of the frame.

    Of scores that is a prompt, for asked again it tells nothing new of what a model knows: its
    repeats are averaged. Of times it is a request, for each is another draw.
    """
    keys = ["_item"] if column.startswith(SCORE) or "repeat" not in frame else ["_item", "repeat"]
    values = frame.assign(_value=values_of(frame, column), _item=items(frame))
    table = values.pivot_table(index=keys, columns="asked", values="_value", aggfunc="mean")
    return table.reindex(columns=list(dict.fromkeys(frame["asked"])))


def differences(
    frame: pd.DataFrame, by: str | None, baseline: str | None, confidence: float
) -> pd.DataFrame:
    """One row a pair of models, and a load where there are several; see `Measurements`."""
    column = column_to_compare(frame, by)
    pairs = _pairs(list(dict.fromkeys(frame["asked"])), baseline)
    loads = several_loads(frame)
    parts = list(frame.groupby(loads, dropna=False)) if loads else [((), frame)]
    alpha = (1 - confidence) / max(1, len(pairs) * len(parts))
    rows = []
    for load, part in parts:
        table = table_of(part, column)
        for one, other in pairs:
            at = dict(zip(loads, load, strict=True))
            rows.append({**at, **_row(table, one, other, confidence, alpha)})
    told = pd.DataFrame(rows, columns=[*loads, *_COLUMNS])
    told.insert(len(loads) + 2, "measured", column)
    told["p_corrected"] = holm(told["p"].tolist())
    answered = set(frame.loc[frame["error"].isna(), "asked"])
    told["verdict"] = [_verdict(row, column, confidence, answered) for _, row in told.iterrows()]
    return told.drop(columns="_direction")


_COLUMNS = ["model", "other", "n", "mean", "mean_other", "difference", "low", "high", "test", "p", "n_needed", "_direction"]  # fmt: skip


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
    gaps, n = second - first, len(both)
    interval = gap_interval(gaps, confidence)
    needed = test.needed
    if needed is not None and not test.p < alpha:
        needed = max(needed, n + 1)
    return {
        "model": one,
        "other": other,
        "n": n,
        "mean": first.mean() if n else math.nan,
        "mean_other": second.mean() if n else math.nan,
        "difference": gaps.mean() if n else math.nan,
        "low": interval.low,
        "high": interval.high,
        "test": test.name,
        "p": test.p,
        "n_needed": needed,
        "_direction": test.direction,
    }


def _verdict(row: Any, column: str, confidence: float, answered: set[str]) -> str:
    """In words, as one may quote it."""
    n, gap = row["n"], row["difference"]
    silent = [each for each in (row["model"], row["other"]) if each not in answered]
    if silent:
        return f"not compared: {' and '.join(silent)} answered nothing"
    if not n:
        return "not compared: nothing was measured of both"
    if row["p_corrected"] < 1 - confidence:
        way = row["_direction"]
        if gap * way <= 0:  # a few that are far out, against the many
            return f"unclear at n = {n}: the mean says one thing, and most requests the other"
        winner = row["other"] if (way > 0) == is_better_higher(column) else row["model"]
        unit = "" if column.startswith(SCORE) else _MEASURED[column][1]
        return f"{winner} is better by {abs(gap):.3g}{unit} at n = {n}"
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
    loads = several_loads(frame)
    if loads:
        msg = "There are several loads, and who wins may differ between them."
        raise UsageError(msg, hint=f"Take one: runs[runs.{loads[0]} == 8].wins()")
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
