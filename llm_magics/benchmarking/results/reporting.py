"""A report to be read by people, and figures to be kept by MLflow."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from llm_magics.benchmarking.results.differences import SCORE, column_to_compare, scores_of
from llm_magics.errors import UsageError

# Of the many columns of a summary, those that a report shows.
_SHOWN = ["requests", "failed", "cached", "ttft_s", "ttft_s_p90", "itl_ms", "e2e_s", "e2e_s_p90", "tokens_per_s", "throughput_tokens_per_s", "output_tokens", "cost_usd"]  # fmt: skip

# A client that was busy so long measured itself.
_BUSY = 0.8


def metrics(summary: pd.DataFrame) -> dict[str, float]:
    """Every number by ``model/figure``; names are of what MLflow takes."""
    told: dict[str, float] = {}
    for key, row in summary.iterrows():
        parts = key if isinstance(key, tuple) else (key,)
        name = " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
        for figure, value in row.items():
            if not pd.isna(value) and not math.isinf(float(value)):
                legal = re.sub(r"[^\w\-. /]", "_", f"{name}/{figure}")
                told[legal] = float(value)
    return told


def report(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    about: Mapping[Any, Any],
    differences: Callable[[], pd.DataFrame],
) -> str:
    """See `Measurements.report`."""
    parts = [
        "# Models compared",
        _count(runs, about),
        markdown(_figures(summary)),
        *_scores(summary),
        *_remarks(runs, summary, about),
        *_compared(runs, differences),
        "## How it was measured",
        _DEFINITIONS,
        _about(about),
    ]
    return "\n\n".join(parts) + "\n"


def write(text: str, path: Any) -> None:
    """
    Keep ``text`` in a file.

    Raises:
        UsageError: its folder is not there.
    """
    if not Path(path).parent.is_dir():
        msg = f"There is no folder {Path(path).parent}."
        raise UsageError(msg, hint="Make it first, or name another file.")
    Path(path).write_text(text, encoding="utf-8")


_DEFINITIONS = (
    "TTFT is from the request's being handed to the socket to its first token, thinking included;"
    " ITL the time between tokens after it, by tokens and not by pieces; E2E to the last byte."
    " Figures are medians, `p90` is the 90th percentile. Loading a model counts in none of them."
)


def _count(runs: pd.DataFrame, about: Mapping[Any, Any]) -> str:
    models = runs["asked"].nunique()
    return (
        f"{len(runs):,} requests, {runs['prompt'].nunique():,} prompts, {models:,} models;"
        f" {about.get('time', 'at an unknown time')}."
    )


def _figures(summary: pd.DataFrame) -> pd.DataFrame:
    shown = summary[[name for name in _SHOWN if name in summary]]
    return shown.dropna(axis=1, how="all").reset_index()


def _scores(summary: pd.DataFrame) -> list[str]:
    names = [name for name in scores_of(summary) if not name.endswith(("_low", "_high"))]
    if not names:
        return []
    told = pd.DataFrame(index=summary.index)
    for name in names:
        told[name.removeprefix(SCORE)] = [
            f"{mean:.3g} ({low:.3g} to {high:.3g})"
            for mean, low, high in summary[[name, f"{name}_low", f"{name}_high"]].to_numpy()
        ]
    return ["## Quality", "Means, with 95 % intervals by bootstrap.", markdown(told.reset_index())]


def _remarks(runs: pd.DataFrame, summary: pd.DataFrame, about: Mapping[Any, Any]) -> list[str]:
    """What one must know before the figures are believed."""
    told = []
    failed = summary[summary["failed"] > 0]
    for key, row in failed.iterrows():
        told.append(
            f"{_key(key)} failed {int(row['failed'])} of {int(row['requests'])} requests; they count as"
            " failed, and in no time."
        )
    if (summary["cached"] > 0).any():
        told.append(
            f"{int(summary['cached'].sum())} answers came from a cache or a recording: they have no times."
        )
    told_by = runs.get("tokens_from", pd.Series(dtype="object"))
    sources = sorted({*told_by.dropna()} - {"service"})
    if sources:
        told.append(f"Some tokens were counted by {' and '.join(sources)}, not by the service.")
    if "client_cpu" in summary and (summary["client_cpu"] > _BUSY).any():
        told.append(
            f"This process was busy {summary['client_cpu'].max():.0%} of a core: it may have been the"
            " bottleneck, and not the service."
        )
    agreed = about.get("judge_agreed")
    if agreed is not None and not math.isnan(agreed):
        told.append(f"The judge said the same in both orders for {agreed:.0%} of the pairs.")
    return ["\n".join(f"- {each}" for each in told)] if told else []


def _compared(runs: pd.DataFrame, differences: Callable[[], pd.DataFrame]) -> list[str]:
    if runs["asked"].nunique() < 2:
        return []
    try:
        told = differences()
    except UsageError as error:  # scipy is an extra; a report goes without
        return [f"Differences were not tested: {error} {error.hint}"]
    shown = told[["model", "other", "n", "difference", "low", "high", "test", "p_corrected", "verdict"]]  # fmt: skip
    name = column_to_compare(runs, None).removeprefix(SCORE)
    return [f"## Differences in {name}", markdown(shown)]


def _about(attrs: Mapping[Any, Any]) -> str:
    told = [
        f"- {str(name).replace('_', ' ')}: {_value(value)}"
        for name, value in attrs.items()
        if name not in ("warm_up", "judge_agreed") and value not in ({}, [])
    ]
    return "\n".join(told)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _key(key: Any) -> str:
    return " at ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def markdown(frame: pd.DataFrame) -> str:
    """``frame`` as a table; what is in it cannot break out of its cell."""
    lines = [_line(frame.columns), _line(["---"] * len(frame.columns))]
    lines += [_line(map(_cell, row)) for row in frame.itertuples(index=False)]
    return "\n".join(lines)


def _line(cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())
