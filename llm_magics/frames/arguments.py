"""Arguments that are wrong are told of before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_magics.errors import UsageError, nearest


def column_of(frame: Any, name: Any) -> Any:
    """
    The one column ``name`` of a frame, of pandas or Dask.

    Raises:
        UsageError: there is none, or there are several of that name.
    """
    known = list(frame.columns)
    count = sum(each == name for each in known) if _is_hashable(name) else 0
    if count == 0:
        msg = f"The frame has no column {name!r:.60}."
        raise UsageError(msg, hint=nearest(str(name), map(str, known)))
    if count > 1 or getattr(frame[name], "ndim", 1) != 1:
        msg = f"The frame has more than one column {name!r:.60}."
        raise UsageError(msg, hint="Give each a name of its own: df.columns = […].")
    return frame[name]


def refuse_overwriting(
    read: Iterable[object], written: Iterable[object], what: str = "answers"
) -> None:
    """
    Refuse to put results over the column they are made of: a second run would be about them.

    Raises:
        UsageError: a column is both read and written.
    """
    both = sorted({str(name) for name in read} & {str(name) for name in written})
    if both:
        msg = f"The {what} would take the place of the column {both[0]}, which they are about."
        raise UsageError(msg, hint="Give into= another name, or the field of the schema.")


def refuse_losing_texts(frame: Any, into: object) -> None:
    """
    Refuse to put vectors over a column of texts.

    Raises:
        UsageError: the column ``into`` of a frame of pandas has texts.
    """
    if not _is_hashable(into):
        msg = f"into cannot be {into!r:.60}."
        raise UsageError(msg, hint='Give it the name of a column: into="vector".')
    if into not in frame.columns:
        return
    column = column_of(frame, into)
    if any(isinstance(value, str) and value.strip() for value in column):
        msg = f"The vectors would take the place of the texts in the column {into}."
        hint = f"Give into= another name, or drop the column: df.pop({into!r})."
        raise UsageError(msg, hint=hint)


def _is_hashable(name: Any) -> bool:
    try:
        hash(name)
    except TypeError:
        return False
    return True
