"""Summaries, paired differences and win shares of models over the same prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from llm_magics._util.statistics import (
    bootstrap,
    clustered_gap_interval,
    clustered_interval,
    clustered_test,
    gap_interval,
    holm,
    mean_interval,
    paired_test,
    require_scipy,
)
from llm_magics._util.tables import display_columns
from llm_magics.errors import UsageError, nearest
from llm_magics.runtime.response import INTERRUPTED

# The column with the name of the model as passed by the caller.
MODEL_COLUMN = "asked"

# The column with the id of the item that a row belongs to, and the one with the cluster of the item.
# Only evaluations have them; in other measurements, an item is a prompt.
ITEM_COLUMN = "item"
CLUSTER_COLUMN = "cluster"

# The columns that distinguish loads.
LOAD_COLUMNS = ("concurrency", "rate")


def is_complete(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return whether each request ended without an error or interrupt. Other rows have no times."""
    answered = frame["error"].isna()
    if "finish_reason" not in frame:
        return answered
    return answered & (frame["finish_reason"] != INTERRUPTED)


def varying_loads(frame: pd.DataFrame) -> list[str]:
    """Return the load columns that have more than one value."""
    return [name for name in LOAD_COLUMNS if name in frame and len(frame[name].unique()) > 1]


def item_keys(frame: pd.DataFrame) -> pd.Series[Any]:
    """
    Return the key of the item that each row belongs to: the column ``item``, or its prompt.

    A prompt with several different expected answers is a separate item for each of them.
    """
    if ITEM_COLUMN in frame:
        return frame[ITEM_COLUMN]
    prompts = frame["prompt"]
    if "expected" not in frame:
        return prompts
    expected = frame["expected"].map(repr)
    apart = expected.groupby(prompts).transform("nunique") > 1
    return prompts.where(~apart, prompts.astype("str") + "\0" + expected)


def occurrences(frame: pd.DataFrame) -> list[tuple[str, int]]:
    """Return each row's prompt and its number of earlier occurrences for the same model and load."""
    repeats = [name for name in ("repeat",) if name in frame]
    keys = [MODEL_COLUMN, "prompt", *repeats, *varying_loads(frame)]
    counts = frame.groupby(keys, dropna=False, sort=False).cumcount()
    return list(zip(frame["prompt"].tolist(), counts.tolist(), strict=True))


SCORE_PREFIX = "score_"
# Each measurement: whether a higher value is better, and its unit.
_MEASUREMENTS: dict[str, tuple[bool, str]] = {
    **dict.fromkeys(["ttft_s", "ttft_answer_s", "e2e_s", "latency_s", "headers_s", "load_s", "queue_s", "connect_s"], (False, " s")),
    "itl_ms": (False, " ms"),
    "tpot_ms": (False, " ms"),
    "tokens_per_s": (True, " tokens/s"),
    "cost_usd": (False, " US$"),
    "retries": (False, ""),
}  # fmt: skip
# Measurements that include failed requests: these cost money and are retried, but have no times.
_COUNTED_ON_FAILURE = ("cost_usd", "retries")


def score_columns(frame: pd.DataFrame) -> list[str]:
    """Return the names of the score columns."""
    return [name for name in map(str, frame.columns) if name.startswith(SCORE_PREFIX)]


def column_to_compare(frame: pd.DataFrame, by: str | None) -> str:
    """
    Return the name of the column ``by``, in which the prefix ``score_`` may be omitted.

    By default it is the first score, or ``e2e_s`` for a frame without scores.

    Raises:
        UsageError: the column does not exist, or models cannot be ranked by it.
    """
    scores = score_columns(frame)
    if by is None:
        return scores[0] if scores else "e2e_s"
    known = [*scores, *(name for name in _MEASUREMENTS if name in frame)]
    for name in (by, f"{SCORE_PREFIX}{by}"):
        if name in known:
            return name
    msg = f"{by!r:.60} is not a column that models can be ranked by."
    raise UsageError(msg, hint=nearest(str(by), known))


def is_better_higher(column: str) -> bool:
    """Whether a higher value in ``column`` is better."""
    return column.startswith(SCORE_PREFIX) or _MEASUREMENTS[column][0]


def counted_values(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    """
    Return the values of a column that count in statistics; the other values are NaN.

    Scores, costs and retries include failed requests; a failed request scores 0. All other
    measurements include only complete answers.
    """
    values = pd.to_numeric(frame[column]).astype("float64")
    if column.startswith(SCORE_PREFIX) or column in _COUNTED_ON_FAILURE:
        return values
    return values.where(is_complete(frame))


def pivot_by_model(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """
    Return a table with one row per item and one column per model, in the order of the frame.

    For scores, an item is a prompt, and its repeats are averaged: repeats are not independent
    samples of what a model knows. For times, an item is a request, because each request is
    an independent sample.
    """
    keys = (
        ["_item"]
        if column.startswith(SCORE_PREFIX) or "repeat" not in frame
        else ["_item", "repeat"]
    )
    values = frame.assign(_value=counted_values(frame, column), _item=item_keys(frame))
    table = values.pivot_table(index=keys, columns=MODEL_COLUMN, values="_value", aggfunc="mean")
    return table.reindex(columns=list(dict.fromkeys(frame[MODEL_COLUMN])))


def clusters_of_items(frame: pd.DataFrame) -> pd.Series[Any] | None:
    """Return the cluster of each item, by its key; ``None`` if items are independent."""
    if CLUSTER_COLUMN not in frame or frame[CLUSTER_COLUMN].isna().all():
        return None
    items = item_keys(frame)
    clusters = frame[CLUSTER_COLUMN].groupby(items, sort=False).first()
    alone = pd.Series([f"\0{key}" for key in clusters.index], index=clusters.index)
    return clusters.astype("object").where(clusters.notna(), alone)


def differences(
    frame: pd.DataFrame,
    by: str | None,
    baseline: str | None,
    confidence: float,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> pd.DataFrame:
    """
    Return one row per pair of models and load; see `Measurements.differences`.

    Args:
        pairs: the models to compare; by default all pairs, or those with ``baseline``.
    """
    require_scipy()
    column = column_to_compare(frame, by)
    pairs = pairs or _pairs(list(dict.fromkeys(frame[MODEL_COLUMN])), baseline)
    loads = varying_loads(frame)
    parts = list(frame.groupby(loads, dropna=False)) if loads else [((), frame)]
    alpha = (1 - confidence) / max(1, len(pairs) * len(parts))
    clusters = clusters_of_items(frame)
    rows = []
    for load, part in parts:
        table = pivot_by_model(part, column)
        for one, other in pairs:
            at = dict(zip(loads, load, strict=True))
            row = _difference_row(table[[one, other]], clusters, confidence, alpha)
            rows.append({**at, **row})
    result = pd.DataFrame(rows, columns=[*loads, *_COLUMNS])
    result.insert(len(loads) + 2, "measured", column)
    result["p_corrected"] = holm(result["p"].tolist())
    answered = set(frame.loc[frame["error"].isna(), MODEL_COLUMN])
    result["verdict"] = [
        _verdict(row, column, confidence, answered) for _, row in result.iterrows()
    ]
    return display_columns(
        result.drop(columns="_direction"),
        "verdict",
        *loads,
        "model",
        "other",
        "n",
        "difference",
        "low",
        "high",
        "p_corrected",
    )


_COLUMNS = ["model", "other", "n", "mean", "mean_other", "difference", "low", "high", "test", "p", "n_needed", "_direction"]  # fmt: skip


def _pairs(models: list[str], baseline: str | None) -> list[tuple[str, str]]:
    if baseline is None:
        return list(combinations(models, 2))
    if baseline not in models:
        msg = f"The measurements do not include the model {baseline!r:.60}."
        raise UsageError(msg, hint=nearest(str(baseline), models))
    return [(baseline, other) for other in models if other != baseline]


def _difference_row(
    table: pd.DataFrame, clusters: pd.Series[Any] | None, confidence: float, alpha: float
) -> dict[str, Any]:
    """Return the difference of the two columns of ``table``."""
    one, other = table.columns
    known = table.dropna()
    first, second = known.to_numpy().T
    gaps, n = second - first, len(known)
    if clusters is None:
        test = paired_test(first, second, alpha)
        interval = gap_interval(gaps, confidence)
    else:
        of_rows = clusters.reindex(known.index.get_level_values(0))
        test = clustered_test(first, second, of_rows, alpha)
        interval = clustered_gap_interval(gaps, of_rows, confidence)
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
    """Return the result of a comparison as a sentence that can be quoted."""
    n, gap = row["n"], row["difference"]
    silent = [each for each in (row["model"], row["other"]) if each not in answered]
    if silent:
        return f"not compared: no answers from {' and '.join(silent)}"
    if not n:
        return "not compared: no prompt has measurements of both"
    if row["p_corrected"] < 1 - confidence:
        way = row["_direction"]
        if gap * way <= 0:  # a few outliers move the mean against the majority
            return f"unclear at n = {n}: the mean and the majority of requests disagree"
        winner = row["other"] if (way > 0) == is_better_higher(column) else row["model"]
        unit = "" if column.startswith(SCORE_PREFIX) else _MEASUREMENTS[column][1]
        return f"{winner} is better by {abs(gap):.3g}{unit} at n = {n}"
    if pd.isna(row["n_needed"]):
        return f"no difference found at n = {n}"
    needed = max(int(row["n_needed"]), n + 1)
    return f"not resolved at n = {n}; needs about {_round_up(needed):,}"


def _round_up(number: int) -> int:
    """Round up to two significant digits; the estimate is not more precise."""
    digits = max(0, len(str(number)) - 2)
    step = int(10**digits)
    return math.ceil(number / step) * step


def win_matrix(frame: pd.DataFrame, by: str | None) -> pd.DataFrame:
    """Return the share of common prompts on which the row's model beats the column's model."""
    column = column_to_compare(frame, by)
    loads = varying_loads(frame)
    if loads:
        msg = "The measurements have several loads; the winner may differ between them."
        raise UsageError(msg, hint=f"Select one: runs[runs.{loads[0]} == 8].wins()")
    table = pivot_by_model(frame, column)
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


# Measurements for which a summary includes the interval and percentiles.
_SPREAD_COLUMNS = (
    "ttft_s",
    "ttft_answer_s",
    "itl_ms",
    "tpot_ms",
    "e2e_s",
    "latency_s",
    "tokens_per_s",
)


def summary(frame: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return one row per model and load; see `Measurements.summary`."""
    require_scipy()
    keys = [MODEL_COLUMN, *varying_loads(frame)]
    rows = []
    for values, group in frame.groupby(keys, sort=False, dropna=False):
        rows.append({**dict(zip(keys, values, strict=True)), **_summary_row(group, confidence)})
    result = pd.DataFrame(rows).rename(columns={MODEL_COLUMN: "model"})
    index = ["model", *keys[1:]]
    if not len(result):
        return result
    scores = score_columns(frame)
    intervals = [f"{scores[0]}_low", f"{scores[0]}_high"] if len(scores) == 1 else []
    indexed = result.set_index(index if len(index) > 1 else "model")
    return display_columns(indexed, *scores, *intervals, *_SUMMARY_FIRST)


_SUMMARY_FIRST = ("requests", "failed", "e2e_s", "tokens_per_s", "cost_usd", "ttft_s", "requests_per_s")  # fmt: skip


def _summary_row(group: pd.DataFrame, confidence: float) -> dict[str, Any]:
    failed = group["error"].notna()
    row: dict[str, Any] = {
        "requests": len(group),
        "failed": int(failed.sum()),
        "cached": int(group["cached"].astype(bool).sum()),
    }
    stopped = int((group["finish_reason"] == INTERRUPTED).sum())
    row |= {"stopped": stopped} if stopped else {}
    for name in score_columns(group):
        # Repeats of a prompt are not independent samples of what a model knows.
        by_prompt = group[name].groupby(item_keys(group), sort=False).mean()
        clusters = clusters_of_items(group)
        low, high = (
            mean_interval(by_prompt, confidence)
            if clusters is None
            else clustered_interval(by_prompt, clusters.reindex(by_prompt.index), confidence)
        )
        row |= {name: mean_of_known(by_prompt), f"{name}_low": low, f"{name}_high": high}
    complete = group[is_complete(group)]
    for name in _SPREAD_COLUMNS:
        if name in group:
            row |= _spread(name, complete[name].to_numpy("float64"), confidence)
    row |= _throughput(group, complete)
    row["output_tokens"] = mean_of_known(complete["output_tokens"])
    if "queue_s" in group:
        row["queue_s"] = float(complete["queue_s"].median())
    row["retries"] = int(group["retries"].sum())
    row["cost_usd"] = float(group["cost_usd"].sum(min_count=1, skipna=False))
    if "client_cpu" in group:
        row["client_cpu"] = float(group["client_cpu"].max())
    return row


def _spread(name: str, values: Any, confidence: float) -> dict[str, float]:
    known = values[np.isfinite(values)]
    bad = (1, 10) if name == "tokens_per_s" else (99, 90)  # the slow end of the distribution
    if not len(known):
        return dict.fromkeys(_spread_columns(name, bad), math.nan)
    interval = bootstrap(known, np.median, confidence)
    worst, worse = np.percentile(known, bad)
    figures = (np.median(known), *interval, worse, worst)
    return dict(zip(_spread_columns(name, bad), map(float, figures), strict=True))


def _spread_columns(name: str, bad: tuple[int, int]) -> list[str]:
    return [name, f"{name}_low", f"{name}_high", f"{name}_p{bad[1]}", f"{name}_p{bad[0]}"]


def _throughput(group: pd.DataFrame, complete: pd.DataFrame) -> dict[str, float]:
    """
    Return requests and tokens per second over the time in which requests were in flight.

    This time is the sum over the rounds of a model, each from its first request to its last chunk.
    """
    if "round" not in group:  # a result of lm.compare, which does not measure throughput
        return {}
    seconds = 0.0
    rounds = [name for name in ("run", *LOAD_COLUMNS, "round") if name in complete]
    for _, each in complete.groupby(rounds, dropna=False):
        ended = each["ended_s"].max()
        seconds += float(ended - each["sent_s"].min()) if not math.isnan(ended) else 0.0
    if not seconds:
        return {"requests_per_s": math.nan, "throughput_tokens_per_s": math.nan}
    timed = complete[complete["ended_s"].notna()]
    tokens = float(timed["output_tokens"].sum(min_count=1)) if len(timed) else math.nan
    return {
        "requests_per_s": len(timed) / seconds,
        "throughput_tokens_per_s": tokens / seconds,
    }


def mean_of_known(values: Any) -> float:
    """Return the mean of the values that are not missing, or NaN if all are missing."""
    known = pd.to_numeric(values).astype("float64").dropna()
    return float(known.mean()) if len(known) else math.nan
