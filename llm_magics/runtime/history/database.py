"""
The SQLite file of the history.

Messages, answers and parameters are stored once each, by a digest of their content, compressed, in
``contents``. ``uses`` has the runs of each content, and ``search`` is a full-text index of the
contents. The view ``runs`` joins them again; it is what users query. ``daily`` has the totals of
each day and model, so that costs of a year are added up in milliseconds.
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
from llm_magics.runtime.history import schema
from llm_magics.runtime.history.entries import text_of_content
from llm_magics.runtime.history.schema import COLUMNS, VIEWS
from llm_magics.runtime.storage.sqlite_files import set_journal_mode, transaction

# Kernels write for some milliseconds, and for seconds when they delete old runs.
_BUSY_S = 30.0

# The free pages that one transaction removes from the file, so that other kernels wait only shortly.
_VACUUM_PAGES = 1_000

# SQLite calls a function after this number of its instructions, so that an interrupt is noticed.
_INSTRUCTIONS = 100_000

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
        set_journal_mode(connection, mode, _BUSY_S)
        connection.execute("PRAGMA journal_size_limit = 8000000")
        # What was deleted cannot be read from the file either.
        connection.execute("PRAGMA secure_delete = ON")
        schema.migrate(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


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
        "SELECT max(day) FROM daily",
        "SELECT rowid FROM search WHERE search MATCH 'a' LIMIT 1",
    ):
        connection.execute(query).fetchone()


def insert_entries(connection: sqlite3.Connection, entries: Iterable[Mapping[str, Any]]) -> int:
    """Store entries in one transaction, and return their number; known ones are not stored again."""
    places = ", ".join("?" * len(COLUMNS))
    insert = f"INSERT OR IGNORE INTO run ({', '.join(COLUMNS)}) VALUES ({places})"  # noqa: S608
    count = 0
    with transaction(connection):
        for entry in entries:
            known = connection.execute("SELECT 1 FROM run WHERE id = ?", (entry["id"],))
            if known.fetchone():
                continue
            contents = _insert_contents(connection, entry)
            values = {**entry, **contents, "context": json.dumps(contents["context"])}
            cursor = connection.execute(insert, [values.get(name) for name in COLUMNS])
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
    serials = [_insert_content(connection, message) for message in messages]
    answer, parameters = entry.get("answer"), entry.get("parameters")
    return {
        "context": serials[:-1],
        "prompt": serials[-1] if serials else None,
        "answer": _insert_content(connection, answer) if answer else None,
        "parameters": _insert_content(connection, parameters) if parameters else None,
    }


def _insert_content(connection: sqlite3.Connection, content: Mapping[str, Any]) -> int:
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
    if text := text_of_content(content):
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
        trigger = "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = 'run_deleted'"
        create = connection.execute(trigger).fetchone()[0]
        connection.execute(
            "DROP TRIGGER run_deleted"
        )  # a million runs are not subtracted one by one
        for table in ("run", "daily", "uses", "contents"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 (a constant)
        connection.execute("INSERT INTO search (search) VALUES ('delete-all')")
        connection.execute(create)
    return count


def _delete_content(connection: sqlite3.Connection, serial: int) -> None:
    row = connection.execute("SELECT data FROM contents WHERE serial = ?", (serial,)).fetchone()
    if row is None:
        return
    if text := text_of_content(load_content(row[0])):  # the index has no copy of its texts
        connection.execute(
            "INSERT INTO search (search, rowid, text) VALUES ('delete', ?, ?)", (serial, text)
        )
    connection.execute("DELETE FROM contents WHERE serial = ?", (serial,))


def size_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the data in the file."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, page_size = (_pragma(connection, name) for name in names)
    return (pages - free) * page_size


def release_space(connection: sqlite3.Connection) -> None:
    """Return the space of deleted rows to the file system."""
    connection.execute("INSERT INTO search (search) VALUES ('optimize')")
    free, pages = _pragma(connection, "freelist_count"), _pragma(connection, "page_count")
    if free > pages / 2:
        # Writing the rest again is faster. If the disk is too full for that, the file keeps its size.
        with suppress(sqlite3.OperationalError):
            connection.execute("VACUUM")
    else:
        for _ in range(0, free, _VACUUM_PAGES):
            # "execute" would end after a page: the statement returns rows without columns.
            connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """
    Open the file for queries, which cannot change it, with the views that users query.

    Raises:
        HistoryError: the file does not exist yet, or a query fails.
    """
    if not path.exists():
        msg = f"No call is stored yet: {path} does not exist."
        raise HistoryError(msg, hint="Each call of %%llm, %embed or lm.ask adds a row.")
    try:
        with closing(_connect_to_read(path)) as connection:
            connection.set_progress_handler(lambda: 0, _INSTRUCTIONS)
            connection.create_function("content_text", 1, _content_text, deterministic=True)
            connection.create_function("content_json", 1, _content_json, deterministic=True)
            for view in VIEWS:
                connection.execute(view)
            # The index is opened before the authorizer.
            connection.execute("SELECT 1 FROM search LIMIT 0")
            connection.set_authorizer(_authorize)
            yield connection
    except sqlite3.Error as error:
        msg = f"The query of the history failed: {error}."
        hint = "The tables are runs and days; lm.history().columns lists the columns of runs."
        raise HistoryError(msg, hint=hint) from None


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Return a connection that cannot write, to a file of the current version."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S)
    try:
        is_old = schema.is_old(connection)
    except BaseException:
        connection.close()
        raise
    if not is_old:
        return connection
    connection.close()
    open_history(path).close()
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_S)


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
    return None if data is None else text_of_content(load_content(data))


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
