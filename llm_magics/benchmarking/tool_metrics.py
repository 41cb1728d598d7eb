"""
The metrics that other tools would report for the same timestamps, with their formulas and names.

| tool | TTFT | ITL | TPOT | E2E |
|---|---|---|---|---|
| ``vllm`` | first event with a choice, even if it is empty | gaps between such events, over all requests | (E2E - TTFT) / (n - 1) | last event with a choice |
| ``guidellm`` | first content, including thinking | (last content - first) / (n - 1) | last content / n | end of the stream |
| ``aiperf`` | first content, including thinking | (E2E - TTFT) / (n - 1) | (same as ITL) | last content |

Times are in milliseconds, except guidellm's request latency, which is in seconds. Failed requests are
not included. Sources: vLLM 0.33's ``benchmarks/serve.py`` and ``lib/endpoint_request_func.py``,
guidellm 0.8's ``schemas/request_stats.py``, and aiperf 0.13's ``metrics/types``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from llm_magics.benchmarking.analysis import LOAD_COLUMNS, MODEL_COLUMN, is_complete
from llm_magics.benchmarking.latencies import ANSWER, COUNT, TOOL, WRITTEN, ChunkTimestamps
from llm_magics.errors import UsageError

Tool = Literal["vllm", "guidellm", "aiperf"]


@dataclass(kw_only=True)
class Reading:
    """The metrics of one request in milliseconds, except those in ``more``."""

    ttft: float
    e2e: float
    itl: Sequence[float] = ()
    tpot: float | None = None
    ttft_answer: float | None = None
    more: dict[str, float] = field(default_factory=dict)


def vllm(stamps: ChunkTimestamps, tokens: int) -> Reading | None:
    """Return the metrics as vLLM defines them; ``None`` for a request that it counts as failed."""
    events = stamps.of(kind for kind in set(stamps.kinds) if kind != COUNT)
    if not events:
        return None
    ttft, end = events[0], events[-1]
    tpot = (end - ttft) / (tokens - 1) * 1000 if tokens > 1 else None
    gaps = [(after - before) * 1000 for before, after in pairwise(events)]
    return Reading(ttft=ttft * 1000, e2e=end * 1000, itl=gaps, tpot=tpot)


def guidellm(stamps: ChunkTimestamps, tokens: int) -> Reading | None:
    """Return the metrics as guidellm defines them; ``None`` for a request without content."""
    written, answered = stamps.of(WRITTEN), stamps.of((ANSWER, TOOL))
    if not written:
        return None
    first, last = written[0], written[-1]
    return Reading(
        ttft=first * 1000,
        e2e=stamps.times_s[-1] * 1000,
        itl=[(last - first) / (tokens - 1) * 1000] if tokens > 1 else [],
        tpot=last / tokens * 1000 if tokens else None,
        ttft_answer=answered[0] * 1000 if answered else None,
        more={"e2e_s": stamps.times_s[-1]},
    )


def aiperf(stamps: ChunkTimestamps, tokens: int) -> Reading | None:
    """Return the metrics as aiperf defines them; ``None`` for a request without content."""
    written, answered = stamps.of(WRITTEN), stamps.of((ANSWER, TOOL))
    if not written:
        return None
    first, last = written[0], written[-1]
    itl = (last - first) / (tokens - 1) * 1000 if tokens > 1 else None
    return Reading(
        ttft=first * 1000,
        e2e=last * 1000,
        itl=[] if itl is None else [itl],
        tpot=None,
        ttft_answer=answered[0] * 1000 if answered else None,
        more={"output_token_throughput_per_user": 1000 / itl} if itl else {},
    )


_READERS: dict[str, Callable[[ChunkTimestamps, int], Reading | None]] = {
    "vllm": vllm,
    "guidellm": guidellm,
    "aiperf": aiperf,
}
# The names of each tool's metrics. Each is reported as mean, median and 99th percentile.
_METRIC_NAMES: dict[str, dict[str, str]] = {
    "vllm": {"ttft": "ttft_ms", "tpot": "tpot_ms", "itl": "itl_ms", "e2e": "e2el_ms"},
    "guidellm": {
        "ttft": "time_to_first_token_ms",
        "ttft_answer": "time_to_first_output_token_ms",
        "tpot": "time_per_output_token_ms",
        "itl": "inter_token_latency_ms",
        "e2e_s": "request_latency",
    },
    "aiperf": {
        "ttft": "time_to_first_token",
        "ttft_answer": "time_to_first_output_token",
        "itl": "inter_token_latency",
        "e2e": "request_latency",
        "output_token_throughput_per_user": "output_token_throughput_per_user",
    },
}


def report_as(frame: pd.DataFrame, tool: Tool) -> pd.DataFrame:
    """Return the metrics of ``tool``; see `Measurements.as_measured_by`."""
    if tool not in get_args(Tool):
        msg = f"Unknown tool: {tool!r:.60}."
        raise UsageError(msg, hint=f"Use one of {', '.join(get_args(Tool))}.")
    keys = [MODEL_COLUMN, *(name for name in LOAD_COLUMNS if name in frame)]
    rows = []
    for values, group in frame.groupby(keys, sort=False, dropna=False):
        rows.append({**dict(zip(keys, values, strict=True)), **_report_group(group, tool)})
    return pd.DataFrame(rows).rename(columns={MODEL_COLUMN: "model"}).set_index("model")


def _report_group(group: pd.DataFrame, tool: Tool) -> dict[str, Any]:
    readings = []
    complete = group[is_complete(group) & ~group["cached"].astype(bool)]
    for times, kinds, written in zip(
        complete["times_s"], complete["kinds"], complete["output_tokens"], strict=True
    ):
        stamps, tokens = ChunkTimestamps.from_columns(times, kinds), written
        readings.append(_READERS[tool](stamps, 0 if pd.isna(tokens) else int(tokens)))
    known = [each for each in readings if each is not None]
    row: dict[str, Any] = {
        "completed": len(known),
        "failed": int(group["error"].notna().sum()) + len(readings) - len(known),
    }
    for what, name in _METRIC_NAMES[tool].items():
        values = _metric_values(known, what)
        row |= _metric_summary(values, name, tool)
    return row


def _metric_values(readings: Sequence[Reading], what: str) -> list[float]:
    result: list[float] = []
    for each in readings:
        value = each.more.get(what) if what in each.more else getattr(each, what, None)
        result += [] if value is None else value if isinstance(value, list) else [value]
    return result


def _metric_summary(values: list[float], name: str, tool: Tool) -> dict[str, float]:
    if not values:  # vLLM reports 0 for a metric without values; the others report none
        values = [0.0] if tool == "vllm" else [float("nan")]
    p50, p99 = np.percentile(values, [50, 99])
    mean, median, high = ("mean_", "median_", "p99_") if tool == "vllm" else ("", "", "")
    after = ("", "", "") if tool == "vllm" else ("_mean", "_p50", "_p99")
    return {
        f"{mean}{name}{after[0]}": float(np.mean(values)),
        f"{median}{name}{after[1]}": float(p50),
        f"{high}{name}{after[2]}": float(p99),
    }
