"""
The tables of the history, the steps from each version of them to the next, and the views.

The totals in ``daily`` are maintained by triggers, so that they are part of each transaction that
adds or deletes runs, in all processes. Costs are added up there in whole picodollars: sums of
integers do not depend on the order, and are exactly zero when all runs are deleted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from llm_magics.runtime.history.entries import RUN_COLUMNS
from llm_magics.runtime.storage.sqlite_files import transaction

# The columns of a run that are not in `RUN_COLUMNS`; contents are references to their rows.
_ORIGIN_COLUMNS = ("id", "time", "model", "session", "notebook", "cell_id", "request_id")
_TEMPLATE_COLUMNS = ("template", "template_digest")
_CONTENT_COLUMNS = ("parameters", "context", "prompt", "answer")
COLUMNS = (*_ORIGIN_COLUMNS, *RUN_COLUMNS, *_TEMPLATE_COLUMNS, *_CONTENT_COLUMNS)

# The columns of the view, in the order in which users see them.
VIEW_COLUMNS = (
    "id",
    "time",
    "provider",
    "model",
    *(name for name in RUN_COLUMNS if name not in ("provider", "cell")),
    "notebook",
    "cell",
    "cell_id",
    "session",
    "request_id",
    "template",
    "template_digest",
    "parameters",
    "prompt",
    "answer",
)

_TABLES = """
CREATE TABLE run (
    serial INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, time TEXT NOT NULL, model TEXT NOT NULL,
    session TEXT, notebook TEXT, cell_id TEXT, request_id TEXT,
    provider TEXT, kind TEXT, ttft_s REAL, itl_ms REAL, e2e_s REAL, load_s REAL,
    input_tokens INTEGER, output_tokens INTEGER, reasoning_tokens INTEGER, tokens_per_s REAL,
    cost_usd REAL, reasoning_usd REAL, cached INTEGER, retries INTEGER, fallback_from TEXT,
    finish_reason TEXT, error TEXT, cell INTEGER, template TEXT, template_digest TEXT,
    parameters INTEGER, context TEXT, prompt INTEGER, answer INTEGER
);
CREATE INDEX run_by_time ON run (time);
CREATE INDEX run_by_model ON run (model, time, cost_usd, input_tokens, output_tokens);
CREATE TABLE contents (
    serial INTEGER PRIMARY KEY, digest BLOB UNIQUE NOT NULL, data BLOB NOT NULL
);
CREATE TABLE uses (content INTEGER, run INTEGER, PRIMARY KEY (content, run)) WITHOUT ROWID;
CREATE VIRTUAL TABLE search USING fts5 (text, content='');
"""

# The index by time has the model, so that a condition on it is tested without reading the rows.
_TOTALS = """
DROP INDEX run_by_time;
CREATE INDEX run_by_time ON run (time, model);
CREATE TABLE daily (
    day TEXT, model TEXT, calls INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, input_known INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, output_known INTEGER NOT NULL,
    cost_pico INTEGER NOT NULL, priced INTEGER NOT NULL,
    PRIMARY KEY (day, model)
) WITHOUT ROWID;
INSERT INTO daily
    SELECT substr(time, 1, 10), model, count(*),
        coalesce(sum(input_tokens), 0), count(input_tokens),
        coalesce(sum(output_tokens), 0), count(output_tokens),
        coalesce(sum(CAST(round(cost_usd * 1e12) AS INTEGER)), 0), count(cost_usd)
    FROM run GROUP BY 1, 2;
CREATE TRIGGER run_added AFTER INSERT ON run BEGIN
    INSERT INTO daily VALUES (
        substr(new.time, 1, 10), new.model, 1,
        coalesce(new.input_tokens, 0), new.input_tokens IS NOT NULL,
        coalesce(new.output_tokens, 0), new.output_tokens IS NOT NULL,
        coalesce(CAST(round(new.cost_usd * 1e12) AS INTEGER), 0), new.cost_usd IS NOT NULL
    ) ON CONFLICT (day, model) DO UPDATE SET calls = calls + 1,
        input_tokens = input_tokens + excluded.input_tokens,
        input_known = input_known + excluded.input_known,
        output_tokens = output_tokens + excluded.output_tokens,
        output_known = output_known + excluded.output_known,
        cost_pico = cost_pico + excluded.cost_pico,
        priced = priced + excluded.priced;
END;
CREATE TRIGGER run_deleted AFTER DELETE ON run BEGIN
    UPDATE daily SET calls = calls - 1,
        input_tokens = input_tokens - coalesce(old.input_tokens, 0),
        input_known = input_known - (old.input_tokens IS NOT NULL),
        output_tokens = output_tokens - coalesce(old.output_tokens, 0),
        output_known = output_known - (old.output_tokens IS NOT NULL),
        cost_pico = cost_pico - coalesce(CAST(round(old.cost_usd * 1e12) AS INTEGER), 0),
        priced = priced - (old.cost_usd IS NOT NULL)
    WHERE day = substr(old.time, 1, 10) AND model = old.model;
    DELETE FROM daily WHERE day = substr(old.time, 1, 10) AND model = old.model AND calls < 1;
END;
"""

# The statements from each version of the file to the next. A file without a version is new.
MIGRATIONS: dict[int, str] = {0: _TABLES, 1: _TOTALS}


def migrate(connection: sqlite3.Connection) -> None:
    """
    Create the tables, or bring them to the current version, in one transaction.

    Raises:
        OSError: the file belongs to another program, or to a newer version of this package.
    """
    newest = _newest()
    if _version(connection) == newest:
        return
    with transaction(connection):
        version = _version(connection)  # another kernel may have been faster
        if version > newest:
            msg = "it was written by a newer version of this package"
            raise OSError(msg)
        if version == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            msg = "it is the database of another program"
            raise OSError(msg)
        for step in range(version, newest):
            for statement in _statements(MIGRATIONS[step]):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {newest}")


def is_old(connection: sqlite3.Connection) -> bool:
    """Return whether the file is a history of an earlier version."""
    return 0 < _version(connection) < _newest()


def _newest() -> int:
    return max(MIGRATIONS) + 1


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """Return the statements of a script; ``executescript`` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _runs() -> str:
    # SQLite skips subqueries, unlike joins, where a query does not use the column.
    content = "(SELECT {}(data) FROM contents WHERE contents.serial = run.{}) AS {}"
    forms = {
        "prompt": content.format("content_text", "prompt", "prompt"),
        "answer": content.format("content_text", "answer", "answer"),
        "parameters": content.format("content_json", "parameters", "parameters"),
    }
    columns = ", ".join(forms.get(name, f"run.{name}") for name in VIEW_COLUMNS)
    return f"CREATE TEMP VIEW runs AS SELECT {columns} FROM run"  # noqa: S608 (names of columns)


# As in a sum over runs, a figure is missing if it is unknown for all calls.
_DAYS = """
CREATE TEMP VIEW days AS SELECT day, model, calls,
    CASE WHEN input_known > 0 THEN input_tokens END AS input_tokens,
    CASE WHEN output_known > 0 THEN output_tokens END AS output_tokens,
    CASE WHEN priced > 0 THEN cost_pico / 1e12 END AS cost_usd,
    calls - priced AS unpriced
FROM daily
"""

# What users query: the runs, and the totals of each day (UTC) and model.
VIEWS = (_runs(), _DAYS)
