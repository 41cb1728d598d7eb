"""Queries of the history, as DataFrames."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_magics.errors import HistoryError, UsageError
from llm_magics.runtime.history.database import load_content, reading
from llm_magics.runtime.history.schema import VIEW_COLUMNS

if TYPE_CHECKING:
    from pandas import DataFrame

# The maximum number of texts that a search looks for runs of, newest first.
_MAX_FOUND = 200_000

# The types of columns; all others are text.
_TYPES = {
    "time": "datetime64[us, UTC]",
    "cached": "boolean",
    **dict.fromkeys(
        ("ttft_s", "itl_ms", "e2e_s", "load_s", "tokens_per_s", "cost_usd", "reasoning_usd"),
        "float64",
    ),
    **dict.fromkeys(
        ("input_tokens", "output_tokens", "reasoning_tokens", "retries", "cell"), "Int64"
    ),
}

_SHOWN = ("id", "time", "model", "output_tokens", "cost_usd", "finish_reason", "prompt", "answer")
_EMPTY = "No such calls in the history."

# The queries of `cost` by period: how calls are grouped, and of which days.
_GROUPS: dict[str, tuple[tuple[str, ...], str]] = {
    "week": (("day", "model"), "WHERE day > date('now', '-7 days')"),
    "month": (("day", "model"), "WHERE day > date('now', '-1 month')"),
    "by month": (("substr(day, 1, 7) AS month", "model"), ""),
    "by model": (("model",), ""),
}
PERIODS = tuple(_GROUPS)


class StoredRun(NamedTuple):
    """A run with its contents: its columns by name, the messages sent, and the answer."""

    columns: dict[str, Any]
    messages: list[dict[str, Any]]
    answer: dict[str, Any] | None


def find_runs(path: Path, where: str, search: str | None, limit: int | None) -> DataFrame:
    """
    Return runs, newest first.

    Args:
        path: the history.
        where: the rest of the query after ``SELECT … FROM runs``.
        search: words or a query of FTS5; the prompt or the answer of a run has to match.
        limit: the maximum number of runs; ``None`` returns all.

    Raises:
        HistoryError: the file does not exist yet, or the query is invalid.
    """
    source, values = "runs", list[Any]()
    if search is not None:
        # Without another condition, only the newest runs are decoded.
        newest = "" if where.strip() else " ORDER BY run.time DESC LIMIT ?"
        source, values = _SEARCH.format(newest), [_as_query(search)]
        values += [-1 if limit is None else limit] if newest else []
    clauses = _outer(where)
    order = "" if re.search(r"\border\s+by\b", clauses, re.IGNORECASE) else "ORDER BY time DESC"
    rest = "" if re.search(r"\blimit\b", clauses, re.IGNORECASE) else "LIMIT ?"
    values += [-1 if limit is None else limit] if rest else []
    with reading(path) as connection:
        query = f"SELECT * FROM {source} {where} {order} {rest}"  # noqa: S608 (the user's own query)
        return _frame(connection, query, values)


def _outer(sql: str) -> str:
    """Return ``sql`` without literals, quoted names, comments, and what is in parentheses."""
    left = re.sub(r"'[^']*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL)
    while (shorter := re.sub(r"\([^()]*\)", " ", left)) != left:
        left = shorter
    return left


# A subquery: the runs of the contents that match.
_SEARCH = (
    "(SELECT * FROM runs WHERE id IN (SELECT run.id FROM run WHERE run.serial IN (SELECT run"  # noqa: S608
    " FROM uses WHERE content IN (SELECT rowid FROM search WHERE search MATCH ?"
    f" ORDER BY rowid DESC LIMIT {_MAX_FOUND})){{}}))"
)


def _as_query(search: str) -> str:
    """Return a query of FTS5 that finds all words of ``search``, or ``search`` if it is a query."""
    if re.search(r'["*()^]|\b(?:AND|OR|NOT|NEAR)\b', search):
        return search
    words = [f'"{word}"' for word in search.split()]
    if not words:
        msg = "The search is empty."
        raise UsageError(msg, hint='Use: lm.history(search="refund")')
    return " ".join(words)


def query(path: Path, sql: str) -> DataFrame:
    """
    Return the result of a query, which can read and not change the history.

    Raises:
        HistoryError: the file does not exist yet, or the query is invalid.
    """
    with reading(path) as connection:
        return _frame(connection, sql, [])


def _frame(connection: sqlite3.Connection, sql: str, values: Sequence[Any]) -> DataFrame:
    from llm_magics._util.tables import CompactFrame, display_columns, display_when_empty

    cursor = connection.execute(sql, values)
    if cursor.description is None:
        msg = "The query returns no rows."
        raise HistoryError(msg, hint="Use a SELECT on the table runs.")
    names = [column[0] for column in cursor.description]
    frame = CompactFrame(cursor.fetchall(), columns=names)
    types = {name: kind for name, kind in _TYPES.items() if names.count(name) == 1}
    try:
        frame = frame.astype(types)  # all at once: each conversion copies the frame
    except (TypeError, ValueError):  # a column of the user's own with such a name
        for name, kind in types.items():
            with suppress(TypeError, ValueError):
                frame = frame.astype({name: kind})
    if set(_SHOWN) <= set(names):
        frame = display_columns(frame, *_SHOWN)
    return display_when_empty(frame, _EMPTY)


def load_run(path: Path, run_id: str) -> StoredRun:
    """
    Return a run with its contents.

    Raises:
        HistoryError: the run is unknown.
    """
    with reading(path) as connection:
        # "SELECT *" from the view would decode the contents.
        names = [name for name in VIEW_COLUMNS if name not in ("prompt", "answer", "parameters")]
        columns = ", ".join(names)
        row = connection.execute(
            f"SELECT {columns}, context, prompt, answer, parameters FROM run WHERE id = ?",  # noqa: S608
            (run_id,),
        ).fetchone()
        if row is None:
            msg = f"The history has no run {run_id!r}."
            raise HistoryError(msg, hint="The column id of lm.history() has the identifiers.")
        *values, context, prompt, answer, parameters = row

        def content(serial: int | None) -> Any:
            if serial is None:
                return None
            query = "SELECT data FROM contents WHERE serial = ?"
            found = connection.execute(query, (serial,)).fetchone()
            return load_content(found[0]) if found else None

        serials = [*json.loads(context or "[]"), *([prompt] if prompt is not None else [])]
        found = dict(zip(names, values, strict=True)) | {"parameters": content(parameters) or {}}
        messages = [message for each in serials if (message := content(each))]
        return StoredRun(found, messages, content(answer))


def cost(path: Path, period: str) -> DataFrame:
    """
    Return calls, tokens and cost by model, by month and model, or by day and model of the last days.

    Days and months are in UTC.

    Args:
        path: the history.
        period: ``week`` or ``month``, which end today; ``by month`` or ``by model``.
    """
    names, days = _GROUPS[period]
    groups = ", ".join(str(place) for place in range(1, len(names) + 1))
    order = "cost_usd DESC" if period == "by model" else groups
    sql = (
        f"SELECT {', '.join(names)}, sum(calls) AS calls, sum(input_tokens) AS input_tokens,"  # noqa: S608
        " sum(output_tokens) AS output_tokens, sum(cost_usd) AS cost_usd,"
        f" sum(unpriced) AS unpriced FROM days {days} GROUP BY {groups} ORDER BY {order}"
    )
    return query(path, sql)


def export(path: Path, target: Path) -> int:
    """
    Write all runs with their prompts and answers to a Parquet file; return their number.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        msg = "Parquet files need pyarrow."
        raise UsageError(msg, hint='Run: pip install -e ".[bench]"') from None
    count, half = 0, target.with_name(f"{target.name}.part")
    with reading(path) as connection:
        cursor = connection.execute("SELECT * FROM runs ORDER BY time")
        schema = pa.schema([(name, _arrow_type(pa, name)) for name in VIEW_COLUMNS])
        with parquet.ParquetWriter(half, schema) as writer:
            while rows := cursor.fetchmany(10_000):
                columns = dict(zip(VIEW_COLUMNS, zip(*rows, strict=True), strict=True))
                arrays = [_arrow_array(pa, columns[each.name], each.type) for each in schema]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
                count += len(rows)
    half.replace(target)
    return count


def _arrow_type(pa: Any, name: str) -> Any:
    kinds = {"float64": pa.float64(), "Int64": pa.int64(), "boolean": pa.bool_()}
    kind = _TYPES.get(name, "")
    return pa.timestamp("us", "UTC") if name == "time" else kinds.get(kind, pa.string())


def _arrow_array(pa: Any, values: Sequence[Any], kind: Any) -> Any:
    if pa.types.is_boolean(kind):
        values = [None if value is None else bool(value) for value in values]
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.string()).cast(pa.timestamp("us")).cast(kind)
    return pa.array(values, kind)
