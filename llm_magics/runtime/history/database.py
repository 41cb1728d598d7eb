"""
The SQLite file of the history.

Messages, answers and parameters are stored once each, by a digest of their content, compressed, in
``contents``. ``uses`` has the runs of each content, and ``search`` is a full-text index of the
contents. The view ``runs`` joins them again; it is what users query.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llm_magics.errors import HistoryError
from llm_magics.runtime.history.entries import (
    RUN_COLUMNS,
    text_of_answer,
    text_of_message,
)
from llm_magics.runtime.storage.sqlite_files import transaction

# Kernels write for some milliseconds, and for seconds when they delete old runs.
_BUSY_S = 30.0

# SQLite calls a function after this number of its instructions, so that an interrupt is noticed.
_INSTRUCTIONS = 100_000

# The columns of a run that are not in `RUN_COLUMNS`; contents are references to their rows.
_ORIGIN_COLUMNS = ("id", "time", "model", "session", "notebook", "cell_id", "request_id")
_TEMPLATE_COLUMNS = ("template", "template_digest")
_CONTENT_COLUMNS = ("parameters", "context", "prompt", "answer")
_COLUMNS = (*_ORIGIN_COLUMNS, *RUN_COLUMNS, *_TEMPLATE_COLUMNS, *_CONTENT_COLUMNS)

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

_SCHEMA = """
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

# The statements from each version of the file to the next. A file without a version is new.
_MIGRATIONS: dict[int, str] = {0: _SCHEMA}

_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "afs", "fuse.sshfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "wekafs")  # fmt: skip


def open_history(path: Path) -> sqlite3.Connection:
    """
    Open the file for writing; create it, or bring it to the current version.

    Raises:
        sqlite3.DatabaseError: the file is damaged, or cannot be opened.
        OSError: the file belongs to another program, or to a newer version of this package.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    if is_new:  # created with its permissions, because prompts are private
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(
        path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        if is_new:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA synchronous = OFF")  # there is nothing to lose yet
        # A write-ahead log needs memory that is shared by all processes, which other machines have not.
        mode = "TRUNCATE" if is_on_network(path) else "WAL"
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("PRAGMA journal_size_limit = 8000000")
        # What was deleted cannot be read from the file either.
        connection.execute("PRAGMA secure_delete = ON")
        _migrate(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    newest = max(_MIGRATIONS) + 1
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
            for statement in _statements(_MIGRATIONS[step]):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {newest}")


def check(connection: sqlite3.Connection) -> None:
    """
    Read a page of each table, where damage of a file is noticed.

    Raises:
        sqlite3.DatabaseError: the file is damaged.
    """
    for query in (
        "SELECT max(serial) FROM run",
        "SELECT max(serial) FROM contents",
        "SELECT max(content) FROM uses",
        "SELECT rowid FROM search WHERE search MATCH 'a' LIMIT 1",
    ):
        connection.execute(query).fetchone()


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


def insert_entries(connection: sqlite3.Connection, entries: Iterable[Mapping[str, Any]]) -> int:
    """Store entries in one transaction, and return their number; known ones are not stored again."""
    places = ", ".join("?" * len(_COLUMNS))
    insert = f"INSERT OR IGNORE INTO run ({', '.join(_COLUMNS)}) VALUES ({places})"  # noqa: S608
    count = 0
    with transaction(connection):
        for entry in entries:
            known = connection.execute("SELECT 1 FROM run WHERE id = ?", (entry["id"],))
            if known.fetchone():
                continue
            contents = _insert_contents(connection, entry)
            values = {**entry, **contents, "context": json.dumps(contents["context"])}
            cursor = connection.execute(insert, [values.get(name) for name in _COLUMNS])
            serials = {contents["prompt"], contents["answer"], contents["parameters"]}
            serials |= set(contents["context"])
            connection.executemany(
                "INSERT OR IGNORE INTO uses VALUES (?, ?)",
                [(serial, cursor.lastrowid) for serial in serials if serial is not None],
            )
            count += 1
    return count


def _insert_contents(connection: sqlite3.Connection, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Store the contents of an entry, and return where they are."""
    messages = entry.get("messages") or ()
    serials = [
        _insert_content(connection, message, text_of_message(message)) for message in messages
    ]
    answer, parameters = entry.get("answer"), entry.get("parameters")
    return {
        "context": serials[:-1],
        "prompt": serials[-1] if serials else None,
        "answer": _insert_content(connection, answer, text_of_answer(answer)) if answer else None,
        "parameters": _insert_content(connection, parameters, "") if parameters else None,
    }


def _insert_content(connection: sqlite3.Connection, content: Any, text: str) -> int:
    """Return the row of a content, which is added if it is new, and to the index with its text."""
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )
    digest = blake2b(data, digest_size=16).digest()
    found = connection.execute(
        "SELECT serial FROM contents WHERE digest = ?", (digest,)
    ).fetchone()
    if found:
        return int(found[0])
    added = connection.execute(
        "INSERT INTO contents (digest, data) VALUES (?, ?)", (digest, zlib.compress(data))
    )
    assert added.lastrowid is not None
    if text:
        connection.execute(
            "INSERT INTO search (rowid, text) VALUES (?, ?)", (added.lastrowid, text)
        )
    return added.lastrowid


def delete_runs(connection: sqlite3.Connection, serials: Sequence[int]) -> None:
    """Delete runs, and contents that no other run uses, in one transaction."""
    with transaction(connection):
        for serial in serials:
            row = connection.execute(
                "SELECT context, prompt, answer, parameters FROM run WHERE serial = ?", (serial,)
            ).fetchone()
            if row is None:
                continue
            context, *others = row
            for content in {*json.loads(context or "[]"), *others} - {None}:
                connection.execute(
                    "DELETE FROM uses WHERE content = ? AND run = ?", (content, serial)
                )
                used = connection.execute("SELECT 1 FROM uses WHERE content = ?", (content,))
                if not used.fetchone():
                    _delete_content(connection, content)
            connection.execute("DELETE FROM run WHERE serial = ?", (serial,))


def delete_all(connection: sqlite3.Connection) -> int:
    """Delete all runs and contents in one transaction; return the number of runs."""
    with transaction(connection):
        count: int = connection.execute("SELECT count(*) FROM run").fetchone()[0]
        for table in ("run", "uses", "contents"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 (a constant)
        connection.execute("INSERT INTO search (search) VALUES ('delete-all')")
    return count


def _delete_content(connection: sqlite3.Connection, serial: int) -> None:
    row = connection.execute("SELECT data FROM contents WHERE serial = ?", (serial,)).fetchone()
    if row is None:
        return
    content = json.loads(zlib.decompress(row[0]))
    text = text_of_answer(content) if "chunks" in content else text_of_message(content)
    if text:  # the index has no copy of its texts
        connection.execute(
            "INSERT INTO search (search, rowid, text) VALUES ('delete', ?, ?)", (serial, text)
        )
    connection.execute("DELETE FROM contents WHERE serial = ?", (serial,))


def size_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the data in the file."""
    pages, free, page_size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page_size)


def release_space(connection: sqlite3.Connection) -> None:
    """Give the space of deleted rows back to the file system."""
    connection.execute("INSERT INTO search (search) VALUES ('optimize')")
    connection.execute("PRAGMA incremental_vacuum").fetchall()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """
    Open the file for queries, which cannot change it, with the view ``runs``.

    Raises:
        HistoryError: the file does not exist yet, or a query fails.
    """
    if not path.exists():
        msg = f"No call is stored yet: {path} does not exist."
        raise HistoryError(msg, hint="Each call of %%llm, %embed or lm.ask adds a row.")
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as connection:
            connection.set_progress_handler(lambda: 0, _INSTRUCTIONS)
            connection.create_function("content_text", 1, _content_text, deterministic=True)
            connection.create_function("content_json", 1, _content_json, deterministic=True)
            connection.execute(_view())
            connection.execute(
                "SELECT 1 FROM search LIMIT 0"
            )  # it is opened before the authorizer
            connection.set_authorizer(_authorize)
            yield connection
    except sqlite3.Error as error:
        msg = f"The query of the history failed: {error}."
        hint = "The table is runs; lm.history().columns lists its columns."
        raise HistoryError(msg, hint=hint) from None


def _view() -> str:
    # SQLite skips subqueries, unlike joins, where a query does not use the column.
    content = "(SELECT {}(data) FROM contents WHERE contents.serial = run.{}) AS {}"
    forms = {
        "prompt": content.format("content_text", "prompt", "prompt"),
        "answer": content.format("content_text", "answer", "answer"),
        "parameters": content.format("content_json", "parameters", "parameters"),
    }
    columns = ", ".join(forms.get(name, f"run.{name}") for name in VIEW_COLUMNS)
    return f"CREATE TEMP VIEW runs AS SELECT {columns} FROM run"  # noqa: S608 (names of columns)


_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}


def _authorize(action: int, one: str | None, *_: object) -> int:
    """Allow what reads this file, and nothing else, such as attaching another one."""
    if action == sqlite3.SQLITE_FUNCTION and one == "load_extension":
        return sqlite3.SQLITE_DENY
    is_pragma = action == sqlite3.SQLITE_PRAGMA and one == "data_version"  # FTS5 reads it
    return sqlite3.SQLITE_OK if action in _ALLOWED or is_pragma else sqlite3.SQLITE_DENY


def _content_text(data: bytes | None) -> str | None:
    if data is None:
        return None
    content = load_content(data)
    return text_of_answer(content) if "chunks" in content else text_of_message(content)


def _content_json(data: bytes | None) -> str | None:
    return None if data is None else zlib.decompress(data).decode("utf-8", "replace")


def load_content(data: bytes) -> Any:
    """Return the content in a row of ``contents``."""
    return json.loads(zlib.decompress(data))


def is_on_network(path: Path) -> bool:
    """Return whether the folder of ``path`` is on a network file system, as far as is known."""
    folder = path.parent.resolve()
    if sys.platform == "win32":
        return folder.drive.startswith("\\\\")
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
        mounts = [line.split(" - ", 1) for line in lines]
        types = {
            before.split()[4].replace("\\040", " "): after.split()[0] for before, after in mounts
        }
        mount = max((each for each in types if folder.is_relative_to(each)), key=len, default="")
        return types.get(mount, "").startswith(_NETWORK_FILE_SYSTEMS)
    return False
