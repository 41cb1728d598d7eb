"""Commands about past calls: runs, history, audit, cost, budget, record, replay and cache."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from llm_magics._util.text import pluralize
from llm_magics.errors import UsageError
from llm_magics.notebook.commands.registry import Variables, command, on_or_off, one_word
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.parsers import OptionParser

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from pandas import DataFrame

# Queries, in capitals or with the signs of SQL: "where is my parcel" and "with love" are words.
_SELECT = re.compile(
    r"(?:SELECT|WITH)\b|(?i:select\s.*\bfrom\b|with\s+(?:recursive\s+)?\w+.*\bas\s*\()", re.DOTALL
)
_CONDITION = re.compile(
    r"(?:WHERE|ORDER)\b|(?i:order\s+by\b|where\b.*(?:[=<>]|\b(?:like|match|glob|between)\b"
    r"|\bin\s*\(|\bis\s+(?:not\s+)?null\b))",
    re.DOTALL,
)


@command("runs")
def runs(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """List the calls of this session with their measurements, as a DataFrame."""
    from llm_magics.api import runs as logged

    return logged()


@command("history [QUERY|forget QUERY|export FILE]")
def history(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame | None:
    """
    Show the calls of all sessions, newest first: all, or those that match.

    QUERY is words in the prompt or the answer, "WHERE cost_usd > 1", a SELECT from the table runs, or
    the id of a run. forget deletes what QUERY selects, or all; export writes a Parquet file.
    """
    first, _, others = rest.partition(" ")
    if first == "forget":
        _forget(others.strip())
        return None
    if first == "export":
        _export(one_word("history export", others, "a file", "history.parquet"))
        return None
    return _find_runs(rest)


def _find_runs(query: str, limit: int | None = 1_000) -> DataFrame:
    from llm_magics.past_runs import history as found
    from llm_magics.runtime.history.entries import is_id

    if _SELECT.match(query):
        return found(sql=query)
    if not query or _CONDITION.match(query):
        return found(query, limit=limit)
    if is_id(query):
        return found(f"WHERE id = '{query}'")
    return found(search=query, limit=limit)


def _forget(query: str) -> None:
    from llm_magics.past_runs import forget

    if not query:
        msg = "%llm history forget needs what to delete."
        hint = (
            "Use: %llm history forget WHERE notebook = 'draft.ipynb', forget WORD, or forget all"
        )
        raise UsageError(msg, hint=hint)
    selected = None if query == "all" else _find_runs(query, limit=None)
    if selected is not None and "id" not in selected:
        msg = "The query selects no ids of runs."
        raise UsageError(msg, hint="Use: %llm history forget SELECT id FROM runs WHERE …")
    count = forget(None if selected is None else selected["id"].tolist())
    print_safe(f"Deleted {pluralize(count, 'call')} from the history.")


def _export(file: str) -> None:
    from pathlib import Path

    from llm_magics.past_runs import export

    count = export(Path(file))
    print_safe(f"Wrote {pluralize(count, 'call')} to {file}.")


@command("audit NOTEBOOK")
def audit(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """List the origin of the answers in a notebook file, as a DataFrame."""
    from pathlib import Path

    from llm_magics.notebook.provenance import audit as audited

    return audited(Path(one_word("audit", rest, "a notebook", "notebook.ipynb")))


@command("cost [cells|week|month|by month|by model]")
def cost(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """
    Show the calls, tokens and cost of this session, by model or by cell.

    week and month show those of all sessions by day and model, until today; "by month" and
    "by model" those of the whole history. Days and months are in UTC.
    Calls without a known price are counted in ``unpriced`` and not in the cost. The tokens and the
    cost of thinking are part of the output and of the cost; they are missing if the service does
    not report them.
    """
    from llm_magics.runtime.history.queries import PERIODS

    if rest in PERIODS:
        from llm_magics.past_runs import history_file
        from llm_magics.runtime.history.queries import cost as past_cost

        return past_cost(history_file(), rest)
    if rest not in ("", "cells"):
        msg = f"%llm cost takes cells, {', '.join(PERIODS)} or no argument (got {rest!r})."
        raise UsageError(msg, hint="Use %llm cost cells for the cost of each cell.")
    return _session_cost(by_cell=rest == "cells")


def _session_cost(*, by_cell: bool) -> DataFrame:
    from llm_magics._util.tables import SafeFrame, display_when_empty
    from llm_magics.api import runs as logged

    calls = logged()
    calls = calls.assign(calls=1, unpriced=calls["cost_usd"].isna())
    by = ["cell", "provider", "model"] if by_cell else ["provider", "model"]
    columns = [
        "calls",
        "input_tokens",
        "output_tokens",
        "reasoning_tokens",
        "cost_usd",
        "reasoning_usd",
        "unpriced",
    ]
    # With min_count, a sum without any known price is NaN instead of 0.
    costs = calls.groupby(by, dropna=False)[columns].sum(min_count=1)
    return display_when_empty(SafeFrame(costs), "No calls yet, so no cost.")


@command("budget [USD|off]")
def budget(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Set a budget: calls that may exceed it are refused before they are sent."""
    from llm_magics._util.text import format_usd
    from llm_magics.runtime.session import session

    if rest == "off":
        session.config.budget = None
    elif rest:
        session.config.set("budget", rest.removeprefix("$"))
        session.budget.allow(session.config.budget)
    now = session.budget
    if now.limit_usd is None:
        print_safe("No budget is set.")
    else:
        print_safe(f"{format_usd(now.left_usd)} of {format_usd(now.limit_usd)} left.")


@command("record [FILE|off]")
def record(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Record every answer from now on in a file, for replay."""
    from llm_magics.errors import ConfigurationError
    from llm_magics.runtime.session import session

    if not rest:
        recording = session.recording
        print_safe(
            f"Answers are recorded in {recording.path}."
            if recording and recording.records
            else "Recording is off."
        )
        return
    file = one_word("record", rest, "a file", "answers.jsonl")
    before = session.config.record
    session.config.record = file
    try:
        off = file == "off" or session.recording is None
    except ConfigurationError:
        session.config.record = before
        raise
    print_safe("Recording is off." if off else f"Answers are recorded in {file} from now on.")


@command("replay [FILE [--strict] [--speed X]|off]")
def replay(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Replay answers from a recording; with --strict, only from there."""
    from llm_magics.errors import ConfigurationError
    from llm_magics.runtime.session import session

    arguments = _replay_parser().parse(rest)
    if not rest:
        recording = session.recording
        print_safe(
            f"Answers are replayed from {recording.path}."
            if recording and recording.plays
            else "Replay is off: answers are live."
        )
        return
    file = one_word("replay", shlex.join(arguments.file), "a file", "answers.jsonl")
    before = session.config.replay
    session.config.replay, session.config.replay_strict = file, arguments.strict
    session.config.replay_speed = arguments.speed
    try:
        recording = session.recording
    except ConfigurationError:
        session.config.replay = before
        raise
    print_safe(
        "Replay is off: answers are live."
        if recording is None
        else f"Answers are replayed from {file}."
    )


def _replay_parser() -> OptionParser:
    parser = OptionParser("%llm replay", "Replay answers from a recording.")
    parser.add_argument("file", nargs="*")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--speed", type=float, default=0.0)
    return parser


@command("cache [on|off|clear|clear vectors]")
def cache(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """
    Reuse the answer to an identical request; --fresh in a cell bypasses the cache.

    Vectors are always stored, and shared by all notebooks; clear vectors deletes them.
    """
    from llm_magics.runtime.session import session
    from llm_magics.settings.credentials import require_trusted_folder

    if rest == "clear":
        require_trusted_folder(session.config, "cache_dir")
        gone = session.answer_cache.clear()
        print_safe(f"Deleted {pluralize(gone.entries, 'cached answer')}.")
        return
    if rest.split() == ["clear", "vectors"]:
        print_safe(_clear_vectors())
        return
    if rest:
        session.config.cache = on_or_off("cache", rest)
    size = session.answer_cache.size()
    state = "on" if session.config.cache else "off"
    print_safe(
        f"The cache is {state}: {size.entries:,} answers, {size.bytes / 1e6:.1f} of "
        f"{session.config.cache_mb:,} MB, in {session.answer_cache.path}"
        " (answers in columns are always cached)"
    )
    print_safe(_describe_vectors())


def _describe_vectors() -> str:
    from llm_magics.runtime.session import session
    from llm_magics.runtime.storage.vector_store import measure_store

    folder = session.vectors_folder
    if folder is None:
        return "Vectors are not stored (the setting vectors is off)."
    count, size = measure_store(folder)
    return f"Stored vectors: {count:,}, {size / 1e6:.1f} MB, in {folder}"


def _clear_vectors() -> str:
    from llm_magics.runtime.session import session
    from llm_magics.runtime.storage.vector_store import clear_store, measure_store
    from llm_magics.settings.credentials import require_trusted_folder

    folder = session.vectors_folder
    if folder is None:
        return _describe_vectors()
    require_trusted_folder(session.config, "vectors" if session.config.vectors else "cache_dir")
    count, _ = measure_store(folder)
    size = clear_store(folder)
    return f"Deleted {pluralize(count, 'vector')} ({size / 1e6:.1f} MB)."
