"""Answers as columns, and what is raised of what went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics.errors import Interrupted, UsageError
from llm_magics.frames.asking.columns import dtypes_of, fields_of, typed

if TYPE_CHECKING:
    from llm_magics.frames.asking.prompted import Prompted

ANSWER = "answer"


def columns_of(prompted: Prompted) -> pd.DataFrame:
    """
    The answers on the index of the rows: as ``answer``, or one column for each field of the schema.

    Their dtypes follow from the schema: see `llm_magics.frames.asking.columns`.
    """
    fields, answered, index = fields_of(prompted.schema), prompted.answered, prompted.index
    if not fields:
        texts = [None if each is None else each.text for each in answered]
        return pd.DataFrame({ANSWER: pd.Series(texts, index=index, dtype="object")})
    dtypes = dtypes_of(fields)
    values = [None if each is None else each.json() for each in answered]
    told = [value if isinstance(value, dict) else {} for value in values]
    columns = {
        name: typed([each.get(name) for each in told], dtypes[name], index) for name in fields
    }
    return pd.DataFrame(columns, index=index, columns=list(fields))


_NOTE = "llm_magics_answers"


def note_answers(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Note that these columns are answers, and may be answered anew."""
    frame.attrs[_NOTE] = sorted({*_noted(frame), *names})


def _noted(frame: pd.DataFrame) -> list[str]:
    """What was noted; a file may have something else there."""
    note = frame.attrs.get(_NOTE)
    return [str(name) for name in note] if isinstance(note, list) else []


def refuse_taking(
    frame: pd.DataFrame, fields: Sequence[str], what: str = "The schema's field"
) -> None:
    """
    Refuse to put answers into columns that were there before and are not answers.

    Raises:
        UsageError: one would.
    """
    taken = [name for name in fields if name in frame.columns]
    foreign = sorted({*taken} - {*_noted(frame)})
    if foreign:
        msg = f"{what} {foreign[0]} would take the place of a column of the frame."
        hint = f"Give it another name, or drop the column: df.pop({foreign[0]!r})."
        raise UsageError(msg, hint=hint)


def merged(new: pd.Series[Any], old: pd.Series[Any], is_open: Sequence[bool]) -> pd.Series[Any]:
    """``new``, with what the column had in the rows that are still open: nothing is lost."""
    mask = pd.Series(list(is_open), index=new.index)
    if not mask.any() or old[mask.to_numpy()].isna().all():
        return new
    mixed = new.astype(object)
    mixed[mask.to_numpy()] = old[mask.to_numpy()].astype(object)
    is_fitting = not isinstance(new.dtype, pd.CategoricalDtype) or set(mixed.dropna()) <= set(
        new.dtype.categories
    )
    try:
        return mixed.astype(new.dtype) if is_fitting else mixed
    except (TypeError, ValueError):
        return mixed


def error_of(
    prompted: Prompted, ended_by: BaseException | None, partial: Any, where: str
) -> BaseException | None:
    """What is to be raised: what ended it; where that is wanted or nothing came, the first failure."""
    if isinstance(ended_by, KeyboardInterrupt):
        done = sum(each is not None for each in prompted.answered)
        msg = f"Stopped; {done:,} of {len(prompted.codes):,} rows were answered."
        hint = f"They are kept in {where}, and are not asked again." if done else None
        return Interrupted(msg, hint=hint, partial=partial)
    counts = prompted.counts()
    is_lost = counts["failed"] + counts["refused"] + counts["empty"] > 0 and not any(
        counts[each] for each in ("ok", "cut")
    )
    return ended_by or (prompted.first_error if prompted.raises or is_lost else None)
