"""Markdown reports of measurements, and metrics for MLflow."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from llm_magics._util.table_text import format_markdown
from llm_magics._util.text import format_usd, pluralize
from llm_magics.benchmarking.analysis import (
    LOAD_COLUMNS,
    MODEL_COLUMN,
    SCORE_PREFIX,
    item_keys,
    score_columns,
)
from llm_magics.errors import UsageError

# The columns of a summary that a report shows.
_SUMMARY_COLUMNS = ["requests", "failed", "cached", "ttft_s", "ttft_s_p90", "itl_ms", "e2e_s", "e2e_s_p90", "latency_s", "latency_s_p90", "tokens_per_s", "throughput_tokens_per_s", "output_tokens", "cost_usd"]  # fmt: skip

# A report with more verdicts has them only in its tables.
_MAX_VERDICT_LINES = 12

# Above this CPU use of one core, the client may limit the result.
_BUSY_CLIENT_SHARE = 0.8

# Attributes that the report shows elsewhere.
_NOT_LISTED = ("warm_up", "judges", "judge_checks", "judge_costs_usd", "stopped")


def metrics(summary: pd.DataFrame) -> dict[str, float]:
    """Return the finite numbers by ``model/metric``, with names that MLflow accepts."""
    result: dict[str, float] = {}
    for key, row in summary.iterrows():
        name = _row_label(key, summary.index.names[1:])
        for figure, value in row.items():
            if not pd.isna(value) and not math.isinf(float(value)):
                legal = re.sub(r"[^\w\-. /]", "_", f"{name}/{figure}")
                result[legal] = float(value)
    return result


def report(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    about: Mapping[Any, Any],
    differences: Callable[[str], pd.DataFrame],
) -> str:
    """Return the text of a report; see `Measurements.report`."""
    compared = _compute_differences(runs, differences)
    parts = [
        f"# {'Models compared' if len(set(runs[MODEL_COLUMN])) > 1 else 'A model measured'}",
        _count_line(runs, about),
        *_verdict_lines(compared),
        *_remarks(runs, summary, about),
        *_quality_section(summary),
        "## Speed and cost",
        markdown(_speed_table(summary)),
        *(
            f"## Differences in {name}\n\n{_difference_table(table)}"
            for name, table in compared.items()
        ),
        "## Method",
        _DEFINITIONS,
        _about_lines(about),
    ]
    return "\n\n".join(parts) + "\n"


def write_report(text: str, path: Any) -> None:
    """
    Write ``text`` to a file.

    Raises:
        UsageError: the path is a folder, or its folder does not exist.
    """
    if not Path(path).parent.is_dir() or Path(path).is_dir():
        what = (
            f"{path} is a folder"
            if Path(path).is_dir()
            else f"The folder {Path(path).parent} does not exist"
        )
        msg = f"{what}."
        raise UsageError(msg, hint="Pass the path of a file in an existing folder.")
    Path(path).write_text(text, encoding="utf-8")


_DEFINITIONS = (
    "TTFT is from the request's being handed to the socket to its first token, thinking included;"
    " ITL the time between tokens after it, by tokens and not by pieces; E2E to the last event of the"
    " stream; latency from when a request was meant to begin."
    " Figures are medians, `p90` is the 90th percentile. Loading a model counts in none of them."
)


def _count_line(runs: pd.DataFrame, about: Mapping[Any, Any]) -> str:
    parts = [
        pluralize(len(runs), "request"),
        pluralize(item_keys(runs).nunique(), "prompt"),
        pluralize(runs[MODEL_COLUMN].nunique(), "model"),
    ]
    stopped = f" It was stopped {about['stopped']}." if about.get("stopped") else ""
    return f"{', '.join(parts)}; {about.get('time', 'at an unknown time')}.{stopped}"


def _speed_table(summary: pd.DataFrame) -> pd.DataFrame:
    columns = summary[[name for name in _SUMMARY_COLUMNS if name in summary]]
    return columns.dropna(axis=1, how="all").reset_index()


def _quality_section(summary: pd.DataFrame) -> list[str]:
    names = [name for name in score_columns(summary) if not name.endswith(("_low", "_high"))]
    if not names:
        return []
    table = pd.DataFrame(index=summary.index)
    for name in names:
        table[name.removeprefix(SCORE_PREFIX)] = [
            f"{mean:.3g}" if math.isnan(low) else f"{mean:.3g} ({low:.3g} to {high:.3g})"
            for mean, low, high in summary[[name, f"{name}_low", f"{name}_high"]].to_numpy()
        ]
    return [
        "## Quality",
        "Means over prompts, with 95 % intervals.",
        markdown(table.reset_index()),
    ]


def _remarks(runs: pd.DataFrame, summary: pd.DataFrame, about: Mapping[Any, Any]) -> list[str]:
    """Return caveats as a Markdown list: failures, caches, token sources, limits of the client."""
    remarks = []
    failed = summary[summary["failed"] > 0]
    for key, row in failed.iterrows():
        remarks.append(
            f"{_row_label(key)} failed {int(row['failed'])} of {int(row['requests'])} requests; they score 0"
            " and have no times."
        )
    if (summary["cached"] > 0).any():
        remarks.append(
            f"{pluralize(int(summary['cached'].sum()), 'answer')} from a cache or a recording: without times."
        )
    counted_by = runs.get("tokens_from", pd.Series(dtype="object"))
    sources = sorted({*counted_by.dropna()} - {"service"})
    if sources:
        remarks.append(
            f"Some token counts are from {' and '.join(sources)}, not from the service."
        )
    if "client_cpu" in summary and (summary["client_cpu"] > _BUSY_CLIENT_SHARE).any():
        remarks.append(
            f"This process was busy {summary['client_cpu'].max():.0%} of a core: it may have been the"
            " bottleneck, and not the service."
        )
    checks, costs = about.get("judge_checks", {}), about.get("judge_costs_usd", {})
    for name, agreed in about.get("judges", {}).items():
        remarks.append(
            f"{name} was compared with people's labels: {_markdown_cell(checks[name])}."
            if checks.get(name)
            else f"{name} has not been compared with people's labels: lm.agreement(…)."
        )
        if not math.isnan(agreed):
            remarks.append(
                f"{name} chose the same answer in both orders for {agreed:.0%} of the pairs."
            )
        if costs.get(name):
            remarks.append(
                f"The verdicts of {name} cost {format_usd(costs[name])}, which is not part of the costs below."
            )
    remarks += _prompt_cache_remarks(runs) + _queue_remarks(summary)
    return ["\n".join(f"- {each}" for each in remarks)] if remarks else []


def _prompt_cache_remarks(runs: pd.DataFrame) -> list[str]:
    """Return a remark on the share of prompt tokens that services read from their cache."""
    if "cached_tokens" not in runs:
        return []
    cached, read = runs["cached_tokens"].sum(), runs["input_tokens"].sum()
    if not cached or not read:
        return []
    return [f"{cached / read:.0%} of the prompt tokens were read from a service's cache."]


def _queue_remarks(summary: pd.DataFrame) -> list[str]:
    """Return remarks on requests that a client-side limit delayed, which lowered the load."""
    if "queue_s" not in summary:
        return []
    late = summary[summary["queue_s"] > summary["e2e_s"] / 2]
    return [
        f"Requests to {_row_label(key)} waited {row['queue_s']:.2g} s here before they were sent: a limit of"
        " this side (concurrency of the provider, a rate) was lower than the load."
        for key, row in late.iterrows()
    ]


def _compute_differences(
    runs: pd.DataFrame, differences: Callable[[str], pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Return the differences by each score, or by ``e2e_s`` for runs without scores."""
    if runs[MODEL_COLUMN].nunique() < 2:
        return {}
    return {
        column.removeprefix(SCORE_PREFIX): differences(column)
        for column in score_columns(runs) or ["e2e_s"]
    }


def _difference_table(table: pd.DataFrame) -> str:
    names = [*LOAD_COLUMNS, "model", "other", "n", "difference", "low", "high", "test", "p_corrected", "verdict"]  # fmt: skip
    return markdown(table[[name for name in names if name in table]])


def _verdict_lines(compared: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return the verdicts as a Markdown list, or nothing if there are too many to read."""
    lines = [
        f"- {name}{_load_label(row)}: {_markdown_cell(row['model'])} and {_markdown_cell(row['other'])}: {_markdown_cell(row['verdict'])}"
        for name, table in compared.items()
        for _, row in table.iterrows()
    ]
    return ["\n".join(lines)] if 0 < len(lines) <= _MAX_VERDICT_LINES else []


def _load_label(row: Any) -> str:
    loads = [f"{name} {row[name]:g}" for name in LOAD_COLUMNS if name in row]
    return f" at {' '.join(loads)}" if loads else ""


def _about_lines(attrs: Mapping[Any, Any]) -> str:
    lines = [
        f"- {str(name).replace('_', ' ')}: {_format_value(value)}"
        for name, value in attrs.items()
        if name not in _NOT_LISTED and value not in ({}, [], None)
    ]
    return "\n".join(lines)


def _format_value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_format_value(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_format_value, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _row_label(key: Any, loads: Sequence[Any] = ("",)) -> str:
    if not isinstance(key, tuple):
        return str(key)
    parts = [f"{name} {value:g}".strip() for name, value in zip(loads, key[1:], strict=False)]
    return (
        " at ".join([str(key[0]), *parts]) if loads == ("",) else " ".join([str(key[0]), *parts])
    )


def markdown(frame: pd.DataFrame) -> str:
    """Return ``frame`` as a Markdown table. Cell content is escaped."""
    rows = [[*map(_markdown_cell, row)] for row in frame.itertuples(index=False)]
    return format_markdown([*map(_markdown_cell, frame.columns)], rows)


def _markdown_cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    for sign, escape in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("[", "\\[")):
        text = text.replace(sign, escape)
    return " ".join(text.split())
