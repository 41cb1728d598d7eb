"""A column of texts into one of vectors, for both accessors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_magics.errors import LLMError
from llm_magics.frames.embed import Embedded, OnError, embedded
from llm_magics.frames.makers import note_source, sign
from llm_magics.frames.reporting import keep_report
from llm_magics.runtime.embedding import EmbedOptions
from llm_magics.user_code import warn

if TYPE_CHECKING:
    from pandas import DataFrame, Series


def embed_column(
    column: Series[Any], model: str | None, options: EmbedOptions, on_error: OnError, *, yes: bool
) -> Series[Any]:
    """
    The vectors of ``column``, on its index.

    Raises:
        Interrupted: with the vectors that had come in ``partial``.
        LLMError: it could not be done.
    """
    done = embedded(column, model, options, on_error, yes=yes)
    vectors = done.column(column)
    sign(vectors, vectors.name, done.maker)
    for each in (column, vectors):
        keep_report(each, done.report)
    _finish(done, vectors, "")
    return vectors


def embed_into(frame: DataFrame, into: str, column: Series[Any], **how: Any) -> DataFrame:
    """The same, put into a column of ``frame``, which also has what came before an Interrupt."""
    done = embedded(column, **how)
    where = put_vectors(done, frame, into, column)
    _finish(done, frame, where)
    return frame


def put_vectors(done: Embedded, frame: DataFrame, into: str, column: Series[Any]) -> str:
    """
    What came into the column ``into``, and where it is, in words; all or nothing over older ones.

    Raises:
        UsageError: there is no text in the column.
    """
    keep_report(frame, done.report)
    is_there = into in frame.columns
    if isinstance(done.error, LLMError) or (done.error is not None and is_there):
        return "the store of vectors"
    done.refuse_without_texts(column)
    frame[into] = done.column(column)
    sign(frame, into, done.maker)
    if column.name is not None:
        note_source(frame, into, column.name)
    return f"the column {into}"


def _finish(done: Embedded, result: Any, where: str) -> None:
    """Raise what ended it, and warn of rows that have no vector."""
    if isinstance(done.error, KeyboardInterrupt):
        raise done.interrupted(result, where) from None
    if done.error is not None:
        raise done.error
    if done.report.counts["failed"] or done.report.counts["no text"]:
        warn(f"{done.report}: see .llm.report.frame()")
