"""A column of texts into one of vectors, for both accessors."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from llm_magics.engine.embedding import EmbedOptions
from llm_magics.errors import LLMError
from llm_magics.frames.embed import Embedded, OnError, embedded
from llm_magics.frames.reporting import keep_report
from llm_magics.frames.similar import sign

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
    sign(vectors, vectors.name, done.report.model)
    _finish(done, column, vectors, "")
    return vectors


def embed_into(frame: DataFrame, into: str, column: Series[Any], **how: Any) -> DataFrame:
    """The same, put into a column of ``frame``, which also has what came before an Interrupt."""
    done = embedded(column, **how)
    if not isinstance(done.error, LLMError):
        frame[into] = done.column(column)
        sign(frame, into, done.report.model)
    _finish(done, frame, frame, f"the column {into}")
    return frame


def _finish(done: Embedded, of: Any, result: Any, where: str) -> None:
    """Keep how it went, raise what ended it, and warn of rows that have no vector."""
    keep_report(of, done.report)
    if isinstance(done.error, KeyboardInterrupt):
        raise done.interrupted(result, where) from None
    if done.error is not None:
        raise done.error
    if done.report.counts["failed"] or done.report.counts["no text"]:
        warnings.warn(f"{done.report}: see .llm.report.frame()", stacklevel=4)
