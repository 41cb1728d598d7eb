"""One row a model and load: what is usual, what is bad luck, and how sure that is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from llm_magics._util.statistics import bootstrap, mean_interval
from llm_magics.benchmarking.results.differences import scores_of
from llm_magics.benchmarking.results.items import items
from llm_magics.benchmarking.results.whole import LOAD, is_whole, several_loads
from llm_magics.runtime.response import INTERRUPTED

# What has a distribution that people ask about.
_SPREAD = ("ttft_s", "ttft_answer_s", "itl_ms", "tpot_ms", "e2e_s", "latency_s", "tokens_per_s")


def summary(frame: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """See `Measurements.summary`."""
    keys = ["asked", *several_loads(frame)]
    rows = []
    for values, group in frame.groupby(keys, sort=False, dropna=False):
        rows.append({**dict(zip(keys, values, strict=True)), **_row(group, confidence)})
    told = pd.DataFrame(rows).rename(columns={"asked": "model"})
    index = ["model", *keys[1:]]
    return told.set_index(index if len(index) > 1 else "model") if len(told) else told


def _row(group: pd.DataFrame, confidence: float) -> dict[str, Any]:
    failed = group["error"].notna()
    told: dict[str, Any] = {
        "requests": len(group),
        "failed": int(failed.sum()),
        "cached": int(group["cached"].astype(bool).sum()),
    }
    stopped = int((group["finish_reason"] == INTERRUPTED).sum())
    told |= {"stopped": stopped} if stopped else {}
    for name in scores_of(group):
        # Asked again a prompt tells nothing new of what a model knows.
        by_prompt = group[name].groupby(items(group), sort=False).mean()
        low, high = mean_interval(by_prompt, confidence)
        told |= {name: _mean(by_prompt), f"{name}_low": low, f"{name}_high": high}
    whole = group[is_whole(group)]
    for name in _SPREAD:
        if name in group:
            told |= _spread(name, whole[name].to_numpy("float64"), confidence)
    told |= _throughput(group, whole)
    told["output_tokens"] = _mean(whole["output_tokens"])
    if "queue_s" in group:
        told["queue_s"] = float(whole["queue_s"].median())
    told["retries"] = int(group["retries"].sum())
    told["cost_usd"] = float(group["cost_usd"].sum(min_count=1, skipna=False))
    if "client_cpu" in group:
        told["client_cpu"] = float(group["client_cpu"].max())
    return told


def _spread(name: str, values: Any, confidence: float) -> dict[str, float]:
    known = values[np.isfinite(values)]
    bad = (1, 10) if name == "tokens_per_s" else (99, 90)  # slow is bad: few tokens, many seconds
    if not len(known):
        return dict.fromkeys(_names(name, bad), math.nan)
    interval = bootstrap(known, np.median, confidence)
    worst, worse = np.percentile(known, bad)
    told = (np.median(known), *interval, worse, worst)
    return dict(zip(_names(name, bad), map(float, told), strict=True))


def _names(name: str, bad: tuple[int, int]) -> list[str]:
    return [name, f"{name}_low", f"{name}_high", f"{name}_p{bad[1]}", f"{name}_p{bad[0]}"]


def _throughput(group: pd.DataFrame, whole: pd.DataFrame) -> dict[str, float]:
    """
    Requests and tokens a second over the time in which there was something to do.

    Each round of a model is such a time: from its first request to its last piece.
    """
    if "round" not in group:  # nothing of it was meant to load a service
        return {}
    seconds = 0.0
    rounds = [name for name in ("run", *LOAD, "round") if name in whole]
    for _, each in whole.groupby(rounds, dropna=False):
        ended = each["ended_s"].max()
        seconds += float(ended - each["sent_s"].min()) if not math.isnan(ended) else 0.0
    if not seconds:
        return {"requests_per_s": math.nan, "throughput_tokens_per_s": math.nan}
    timed = whole[whole["ended_s"].notna()]
    tokens = float(timed["output_tokens"].sum(min_count=1)) if len(timed) else math.nan
    return {
        "requests_per_s": len(timed) / seconds,
        "throughput_tokens_per_s": tokens / seconds,
    }


def _mean(values: pd.Series[Any]) -> float:
    known = pd.to_numeric(values).astype("float64").dropna()
    return float(known.mean()) if len(known) else math.nan
