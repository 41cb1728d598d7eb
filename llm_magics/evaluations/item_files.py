"""
Read the records of evaluation sets from files and tables, with the place of each for errors.

CSV files have texts only: an empty field is a missing value, and ``NA`` or ``None`` is a text.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from llm_magics._util.filesystem import display_path
from llm_magics._util.text import reason_of
from llm_magics._util.validation import require_package
from llm_magics.dataframes.rows import to_pandas
from llm_magics.errors import UsageError

# A record, and its place in words: "line 7", "row 3".
Record = tuple[str, Mapping[str, Any]]

_MAX_BYTES = 2_000_000_000
# The longest field of a CSV file; the default of the module would refuse long documents.
_MAX_FIELD = 100_000_000


class BadRecordError(ValueError):
    """A record is invalid; the message says where and why."""


def read_records(data: Any) -> tuple[list[Record], str]:
    """
    Return the records of a file, a table or a list of mappings, and their name for messages.

    Raises:
        UsageError: the data cannot be read, with the line of the first mistake.
    """
    if isinstance(data, str | Path):
        return _read_file(Path(data)), display_path(Path(data))
    if hasattr(data, "columns") and not isinstance(data, pd.DataFrame):
        data = to_pandas(data)  # of polars or pyarrow
    if isinstance(data, pd.DataFrame):
        return list(_frame_records(data)), "The table"
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        msg = f"Invalid data: got {type(data).__name__}."
        hint = (
            "Pass the path of a JSON lines, CSV or Parquet file, a DataFrame, or a list of dicts."
        )
        raise UsageError(msg, hint=hint)
    return list(_listed_records(data)), "The list"


def _listed_records(data: Iterable[Any]) -> Iterator[Record]:
    for number, each in enumerate(data):
        if not isinstance(each, Mapping):
            msg = f"Item {number} of the list is {type(each).__name__}, not a dict."
            raise UsageError(msg, hint='Pass dicts such as {"text": "…", "expected": "…"}.')
        yield f"item {number}", each


def _frame_records(frame: pd.DataFrame) -> Iterator[Record]:
    if frame.index.name == "id" and "id" not in frame.columns:
        frame = frame.reset_index()
    names = list(frame.columns)
    _check_names([str(name) if not isinstance(name, tuple) else name for name in names], "table")
    columns = [frame.iloc[:, position].tolist() for position in range(len(names))]
    for number, values in enumerate(zip(*columns, strict=True)):
        yield f"row {number}", dict(zip(map(str, names), values, strict=True))


def _check_names(names: Iterable[Any], what: str) -> None:
    """Raise `UsageError` unless the names of columns are strings and unique."""
    seen = set()
    for name in names:
        if not isinstance(name, str) or not name.strip():
            msg = f"The {what} has a column whose name is not a text: {name!r:.60}."
            raise UsageError(msg, hint="Rename the column.")
        if name in seen:
            msg = f"The {what} has two columns called {name!r:.60}."
            raise UsageError(msg, hint="Rename one of them.")
        seen.add(name)


def _read_file(path: Path) -> list[Record]:
    read = _READERS.get(path.suffix.lower())
    if read is None:
        msg = f"{display_path(path)}: unknown format {path.suffix or 'without a suffix'!r:.20}."
        raise UsageError(msg, hint=f"Use one of: {', '.join(_READERS)}")
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            msg = f"{display_path(path)} {what}."
            raise UsageError(msg, hint="Pass the path of a file with one item per line.")
        if path.stat().st_size > _MAX_BYTES:
            msg = f"{display_path(path)} has more than {_MAX_BYTES:,} bytes."
            raise UsageError(msg, hint="Split the file.")
        return list(read(path))
    except BadRecordError as error:
        msg = f"{display_path(path)}, {error}."
        raise UsageError(msg, hint="Correct the line; each line is one item.") from None
    except OSError as error:
        msg = f"Could not read {display_path(path)}: {reason_of(error)}."
        raise UsageError(msg, hint="Check the path and its permissions.") from None


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            data = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if data.strip():
                yield f"line {number}", parse_line(data, f"line {number}")


def parse_line(line: bytes, where: str) -> dict[str, Any]:
    """
    Return the object in a line of JSON.

    Raises:
        BadRecordError: it is not an object, not UTF-8, has a name twice, or is nested too deeply.
    """
    try:
        value = json.loads(
            line.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant
        )
    except UnicodeDecodeError as error:
        msg = f"{where}: byte {error.start + 1} is not UTF-8"
        raise BadRecordError(msg) from None
    except json.JSONDecodeError as error:
        msg = f"{where}, column {error.colno}: {error.msg}"
        raise BadRecordError(msg) from None
    except ValueError as error:
        msg = f"{where}: {error}"
        raise BadRecordError(msg) from None
    except RecursionError:
        msg = f"{where}: nested too deeply"
        raise BadRecordError(msg) from None
    if not isinstance(value, dict):
        msg = f"{where}: it is not a JSON object"
        raise BadRecordError(msg)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"the name {twice!r:.40} occurs twice"
        raise ValueError(msg)
    return found


def _constant(name: str) -> None:
    """Return ``None`` for NaN, which pandas writes for missing values."""
    if name != "NaN":
        msg = f"{name} is not a JSON value"
        raise ValueError(msg)


def _separated(delimiter: str) -> Callable[[Path], Iterator[Record]]:
    def read(path: Path) -> Iterator[Record]:
        csv.field_size_limit(_MAX_FIELD)
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names: list[str] | None = None
            line = 1
            try:
                for values in reader:
                    first, line = line, reader.line_num + 1
                    if not values:
                        continue
                    if names is None:
                        names = values
                        _check_names(names, "file")
                        continue
                    if len(values) != len(names):
                        msg = (
                            f"line {first}: {len(values)} fields, but the header has {len(names)}"
                        )
                        raise BadRecordError(msg)
                    fields = (value or None for value in values)
                    yield f"line {first}", dict(zip(names, fields, strict=True))
            except (csv.Error, UnicodeDecodeError) as error:
                what = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
                msg = f"line {line}: {what}"
                raise BadRecordError(msg) from None

    return read


def _parquet(path: Path) -> Iterator[Record]:
    require_package("pyarrow", "Reading Parquet files", extra="bench")
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        table = read_table(path)
    except ArrowException as error:
        msg = f"Could not read {display_path(path)}: {' '.join(str(error).split())[:200]}."
        raise UsageError(msg, hint="Check that it is a Parquet file.") from None
    return _frame_records(to_pandas(table))


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".parquet": _parquet,
}
