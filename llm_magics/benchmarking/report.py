"""A report to be read by people, and figures to be kept by MLflow."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from llm_magics.benchmarking.analysis import SCORE, items, scores_of
from llm_magics.errors import UsageError

# Of the many columns of a summary, those that a report shows.
_SHOWN = ["requests", "failed", "cached", "ttft_s", "ttft_s_p90", "itl_ms", "e2e_s", "e2e_s_p90", "latency_s", "latency_s_p90", "tokens_per_s", "throughput_tokens_per_s", "output_tokens", "cost_usd"]  # fmt: skip

# More verdicts than these are read in their tables.
_MOST_LINES = 12

# A client that was busy so long measured itself.
_BUSY = 0.8


def metrics(summary: pd.DataFrame) -> dict[str, float]:
    """Every number by ``model/figure``; names are of what MLflow takes."""
    told: dict[str, float] = {}
    for key, row in summary.iterrows():
        name = _key(key, summary.index.names[1:])
        for figure, value in row.items():
            if not pd.isna(value) and not math.isinf(float(value)):
                legal = re.sub(r"[^\w\-. /]", "_", f"{name}/{figure}")
                told[legal] = float(value)
    return told


def report(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    about: Mapping[Any, Any],
    differences: Callable[[str], pd.DataFrame],
) -> str:
    """See `Measurements.report`."""
    compared = _compared(runs, differences)
    parts = [
        f"# {'Models compared' if len(set(runs['asked'])) > 1 else 'A model measured'}",
        _count(runs, about),
        *_in_short(compared),
        *_remarks(runs, summary, about),
        *_scores(summary),
        "## Speed and cost",
        markdown(_figures(summary)),
        *(f"## Differences in {name}\n\n{_table(told)}" for name, told in compared.items()),
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
    if not Path(path).parent.is_dir() or Path(path).is_dir():
        what = (
            f"{path} is a folder"
            if Path(path).is_dir()
            else f"There is no folder {Path(path).parent}"
        )
        msg = f"{what}."
        raise UsageError(msg, hint="Name a file in a folder that is there.")
    Path(path).write_text(text, encoding="utf-8")


_DEFINITIONS = (
    "TTFT is from the request's being handed to the socket to its first token, thinking included;"
    " ITL the time between tokens after it, by tokens and not by pieces; E2E to the last event of the"
    " stream; latency from when a request was meant to begin."
    " Figures are medians, `p90` is the 90th percentile. Loading a model counts in none of them."
)


def _count(runs: pd.DataFrame, about: Mapping[Any, Any]) -> str:
    told = [
        _many(len(runs), "request"),
        _many(items(runs).nunique(), "prompt"),
        _many(runs["asked"].nunique(), "model"),
    ]
    stopped = f" It was stopped {about['stopped']}." if about.get("stopped") else ""
    return f"{', '.join(told)}; {about.get('time', 'at an unknown time')}.{stopped}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


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
            f"{mean:.3g}" if math.isnan(low) else f"{mean:.3g} ({low:.3g} to {high:.3g})"
            for mean, low, high in summary[[name, f"{name}_low", f"{name}_high"]].to_numpy()
        ]
    return ["## Quality", "Means over prompts, with 95 % intervals.", markdown(told.reset_index())]


def _remarks(runs: pd.DataFrame, summary: pd.DataFrame, about: Mapping[Any, Any]) -> list[str]:
    """What one must know before the figures are believed."""
    told = []
    failed = summary[summary["failed"] > 0]
    for key, row in failed.iterrows():
        told.append(
            f"{_key(key)} failed {int(row['failed'])} of {int(row['requests'])} requests; they score 0,"
            " and count in no time."
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
    for name, agreed in about.get("judges", {}).items():
        if not math.isnan(agreed):
            told.append(f"{name} said the same in both orders for {agreed:.0%} of the pairs.")
    told += _of_prompts(runs) + _of_waiting(summary)
    return ["\n".join(f"- {each}" for each in told)] if told else []


def _of_prompts(runs: pd.DataFrame) -> list[str]:
    """What a service kept of prompts that were made distinct: templates before them."""
    if "cached_tokens" not in runs:
        return []
    cached, read = runs["cached_tokens"].sum(), runs["input_tokens"].sum()
    if not cached or not read:
        return []
    return [f"{cached / read:.0%} of the prompts' tokens came from a service's own cache."]


def _of_waiting(summary: pd.DataFrame) -> list[str]:
    """Where a limit of this side held requests up, so that the load was not what was asked for."""
    if "queue_s" not in summary:
        return []
    late = summary[summary["queue_s"] > summary["e2e_s"] / 2]
    return [
        f"Requests to {_key(key)} waited {row['queue_s']:.2g} s here before they were sent: a limit of"
        " this side (concurrency of the provider, a rate) was lower than the load."
        for key, row in late.iterrows()
    ]


def _compared(
    runs: pd.DataFrame, differences: Callable[[str], pd.DataFrame]
) -> dict[str, pd.DataFrame | str]:
    """By each score, or by time; where there is no test, why."""
    if runs["asked"].nunique() < 2:
        return {}
    told: dict[str, pd.DataFrame | str] = {}
    for column in scores_of(runs) or ["e2e_s"]:
        name = column.removeprefix(SCORE)
        try:
            told[name] = differences(column)
        except UsageError as error:  # scipy is an extra; a report goes without
            told[name] = f"Differences were not tested: {error} {error.hint}"
    return told


def _table(told: pd.DataFrame | str) -> str:
    if isinstance(told, str):
        return told
    names = ["concurrency", "rate", "model", "other", "n", "difference", "low", "high", "test", "p_corrected", "verdict"]  # fmt: skip
    return markdown(told[[name for name in names if name in told]])


def _in_short(compared: Mapping[str, pd.DataFrame | str]) -> list[str]:
    """What the tests say, a line each; what they do not is in the tables."""
    lines = [
        f"- {name}{_load(row)}: {_cell(row['model'])} and {_cell(row['other'])}: {_cell(row['verdict'])}"
        for name, told in compared.items()
        if not isinstance(told, str)
        for _, row in told.iterrows()
    ]
    return ["\n".join(lines)] if 0 < len(lines) <= _MOST_LINES else []


def _load(row: Any) -> str:
    loads = [f"{name} {row[name]:g}" for name in ("concurrency", "rate") if name in row]
    return f" at {' '.join(loads)}" if loads else ""


def _about(attrs: Mapping[Any, Any]) -> str:
    told = [
        f"- {str(name).replace('_', ' ')}: {_value(value)}"
        for name, value in attrs.items()
        if name not in ("warm_up", "judges", "stopped") and value not in ({}, [], None)
    ]
    return "\n".join(told)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _key(key: Any, loads: Sequence[Any] = ("",)) -> str:
    if not isinstance(key, tuple):
        return str(key)
    told = [f"{name} {value:g}".strip() for name, value in zip(loads, key[1:], strict=False)]
    return " at ".join([str(key[0]), *told]) if loads == ("",) else " ".join([str(key[0]), *told])


def markdown(frame: pd.DataFrame) -> str:
    """``frame`` as a table; what is in it cannot break out of its cell."""
    lines = [_line(map(_cell, frame.columns)), _line(["---"] * len(frame.columns))]
    lines += [_line(map(_cell, row)) for row in frame.itertuples(index=False)]
    return "\n".join(lines)


def _line(cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    for sign, told in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("[", "\\[")):
        text = text.replace(sign, told)
    return " ".join(text.split())
