"""Answers put into the columns of a frame, and what is raised of what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics.errors import Interrupted
from llm_magics.schemas import schema_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from llm_magics.frames.prompt import Prompted


def put(prompted: Prompted, schema: Any, frame: DataFrame, into: str) -> str:
    """
    The answers as the column ``into``, or as one for each field of ``schema``; which, in words.

    Fields have the type that fits their values.
    """
    answered = prompted.answered
    fields = [] if schema is None else list(schema_of(schema).get("properties", {}))
    if not fields:
        texts = [None if each is None else each.text for each in answered]
        frame[into] = pd.Series(texts, index=frame.index, dtype="object")
        return into
    columns = _columns(answered, frame.index, fields)
    for name in fields:
        frame[name] = columns[name]
    return ", ".join(fields)


def _columns(answered: Sequence[Any], index: Any, fields: Sequence[str]) -> DataFrame:
    records = []
    for each in answered:
        value = None if each is None else each.json()
        told = value if isinstance(value, dict) else {}
        records.append([told.get(name) for name in fields])
    return pd.DataFrame(records, columns=list(fields), index=index).convert_dtypes()


def raised(
    prompted: Prompted,
    ended_by: BaseException | None,
    where: str,
    frame: DataFrame,
    *,
    raises: bool,
) -> BaseException | None:
    """What is to be raised: what ended it; where ``raises`` or nothing came, the first failure."""
    counts = prompted.counts()
    if isinstance(ended_by, KeyboardInterrupt):
        done = counts["ok"]
        msg = f"Stopped; {done:,} of {len(prompted.codes):,} rows were answered."
        hint = f"They are kept in {where}, and are not asked again." if done else None
        return Interrupted(msg, hint=hint, partial=frame)
    is_lost = counts["failed"] and not counts["ok"]
    return ended_by or (prompted.first_error if raises or is_lost else None)
