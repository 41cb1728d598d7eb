"""Embedding of texts: ``lm.embed``, and the functions that the accessor and ``%embed`` share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from llm_magics._async.sync import Operation, run_async, run_sync
from llm_magics.dataframes import vectors
from llm_magics.dataframes.batch_job import BatchJob
from llm_magics.dataframes.embedding_run import EmbeddedRows, EmbeddingPlan
from llm_magics.dataframes.reports import (
    announce,
    store_report,
)
from llm_magics.dataframes.rows import OnError, is_text, to_list
from llm_magics.dataframes.vectors import tag, tag_source
from llm_magics.errors import Interrupted, LLMError, UsageError
from llm_magics.runtime.embedding import EmbedOptions
from llm_magics.runtime.embedding.results import TooLong

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Index, Series

    Vectors = NDArray[np.float32]
    Matrix = NDArray[np.float32]


@overload
def embed(
    texts: Iterable[str | None],
    model: str | None = None,
    *,
    batch_size: int | None = None,
    concurrency: int | None = None,
    too_long: TooLong = "error",
    on_error: OnError = "raise",
    dimensions: int | None = None,
    prefix: str = "",
    batch: bool = False,
    wait: Literal[True] = True,
) -> Vectors: ...


@overload
def embed(
    texts: Iterable[str | None],
    model: str | None = None,
    *,
    batch_size: int | None = None,
    concurrency: int | None = None,
    too_long: TooLong = "error",
    on_error: OnError = "raise",
    dimensions: int | None = None,
    prefix: str = "",
    batch: bool = False,
    wait: Literal[False],
) -> BatchJob: ...


def embed(  # noqa: PLR0913 (each is an argument that a user may want)
    texts: Iterable[str | None],
    model: str | None = None,
    *,
    batch_size: int | None = None,
    concurrency: int | None = None,
    too_long: TooLong = "error",
    on_error: OnError = "raise",
    dimensions: int | None = None,
    prefix: str = "",
    batch: bool = False,
    wait: bool = True,
) -> Vectors | BatchJob:
    """
    Return the vectors of ``texts``.

    Args:
        texts: a list, array, or column of pandas, polars or pyarrow, of strings; ``None``, NaN
            and empty texts get a row of NaN.
        model: ``provider/name``; by default the setting ``embedding_model``.
        batch_size, concurrency: texts per request and concurrent requests; by default chosen
            for the provider.
        too_long: how to handle a text that is too long for the model: ``error`` raises,
            ``truncate`` embeds its beginning, ``chunk-mean`` embeds the mean of its parts.
        on_error: ``raise``, or ``null`` for a row of NaN if the service refuses a text.
        dimensions: length of the vectors, if the service supports shorter ones.
        prefix: text to put before each text; some models need one (``"passage: "``).
        batch: embed the texts in batch jobs of the service, at its lower price. The call waits
            until they have ended (setting ``batch_timeout``). Jobs go on after an interrupt; the
            same call, also in another kernel, finds them.
        wait: with ``False``, submit the jobs and return a `BatchJob`.

    Returns:
        An array of shape (n, d), float32, in the order of ``texts``.

    Raises:
        UsageError: ``texts`` is a single string or a DataFrame, or contains values that are not
            text.
        Interrupted: ``partial`` has the rows embedded so far, NaN for the others.
        LLMError: the provider could not embed the texts. Vectors received so far are cached.
    """
    return run_sync(
        _embed_operation(
            texts,
            model,
            batch_size=batch_size,
            concurrency=concurrency,
            too_long=too_long,
            on_error=on_error,
            dimensions=dimensions,
            prefix=prefix,
            batch=batch,
            wait=wait,
        )
    )


@overload
async def aembed(
    texts: Iterable[str | None],
    model: str | None = None,
    *,
    batch_size: int | None = None,
    concurrency: int | None = None,
    too_long: TooLong = "error",
    on_error: OnError = "raise",
    dimensions: int | None = None,
    prefix: str = "",
    batch: bool = False,
    wait: Literal[True] = True,
) -> Vectors: ...


@overload
async def aembed(
    texts: Iterable[str | None],
    model: str | None = None,
    *,
    batch_size: int | None = None,
    concurrency: int | None = None,
    too_long: TooLong = "error",
    on_error: OnError = "raise",
    dimensions: int | None = None,
    prefix: str = "",
    batch: bool = False,
    wait: Literal[False],
) -> BatchJob: ...


async def aembed(  # noqa: PLR0913 (each is an argument that a user may want)
    texts: Iterable[str | None],
    model: str | None = None,
    *,
    batch_size: int | None = None,
    concurrency: int | None = None,
    too_long: TooLong = "error",
    on_error: OnError = "raise",
    dimensions: int | None = None,
    prefix: str = "",
    batch: bool = False,
    wait: bool = True,
) -> Vectors | BatchJob:
    """
    Return the vectors of ``texts``.

    Args:
        texts: a list, array, or column of pandas, polars or pyarrow, of strings; ``None``, NaN
            and empty texts get a row of NaN.
        model: ``provider/name``; by default the setting ``embedding_model``.
        batch_size, concurrency: texts per request and concurrent requests; by default chosen
            for the provider.
        too_long: how to handle a text that is too long for the model: ``error`` raises,
            ``truncate`` embeds its beginning, ``chunk-mean`` embeds the mean of its parts.
        on_error: ``raise``, or ``null`` for a row of NaN if the service refuses a text.
        dimensions: length of the vectors, if the service supports shorter ones.
        prefix: text to put before each text; some models need one (``"passage: "``).
        batch: embed the texts in batch jobs of the service, at its lower price. The call waits
            until they have ended (setting ``batch_timeout``). Jobs go on after an interrupt; the
            same call, also in another kernel, finds them.
        wait: with ``False``, submit the jobs and return a `BatchJob`.

    Returns:
        An array of shape (n, d), float32, in the order of ``texts``.

    Raises:
        UsageError: ``texts`` is a single string or a DataFrame, or contains values that are not
            text.
        Interrupted: ``partial`` has the rows embedded so far, NaN for the others.
        LLMError: the provider could not embed the texts. Vectors received so far are cached.
    """
    return await run_async(
        _embed_operation(
            texts,
            model,
            batch_size=batch_size,
            concurrency=concurrency,
            too_long=too_long,
            on_error=on_error,
            dimensions=dimensions,
            prefix=prefix,
            batch=batch,
            wait=wait,
        )
    )


def _embed_operation(  # noqa: PLR0913 (each is an argument that a user may want)
    texts: Iterable[str | None],
    model: str | None,
    *,
    batch_size: int | None,
    concurrency: int | None,
    too_long: TooLong,
    on_error: OnError,
    dimensions: int | None,
    prefix: str,
    batch: bool,
    wait: bool,
) -> Operation[Vectors | BatchJob]:
    options = EmbedOptions(
        batch_size=batch_size,
        concurrency=concurrency,
        too_long=too_long,
        dimensions=dimensions,
        prefix=prefix,
        batch=batch,
        wait=wait,
    )
    plan = EmbeddingPlan(texts=texts, model=model, options=options, on_error=on_error)

    def stopped() -> Interrupted:
        done = plan.done(None)
        return done.interrupted(done.matrix)

    def result(error: BaseException | None = None) -> Vectors:
        done = plan.done(error)
        if isinstance(done.error, KeyboardInterrupt):
            raise done.interrupted(done.matrix) from None
        if done.error is not None:
            raise done.error
        return done.matrix

    return Operation(plan.call, result if wait else lambda: BatchJob(plan, result), stopped)


def embed_rows(
    texts: Any,
    model: str | None = None,
    options: EmbedOptions | None = None,
    on_error: OnError = "null",
    *,
    yes: bool = False,
) -> EmbeddedRows:
    """
    Embed ``texts``. After an error or an interrupt, return the vectors received so far.

    Raises:
        UsageError: the cost may exceed the setting ``confirm_above_usd`` and is not confirmed.
            With ``yes``, no confirmation is needed.
    """
    plan = _start(texts, model, options or EmbedOptions(), on_error, yes=yes)
    return plan.done(plan.ask())


def embed_and_write(  # noqa: PLR0913 (as for embed_rows)
    write: Callable[[EmbeddedRows], Any],
    texts: Any,
    model: str | None,
    options: EmbedOptions,
    on_error: OnError,
    *,
    yes: bool = False,
) -> Any:
    """
    Embed ``texts`` and return what ``write`` returns for the result; see `embed_rows`.

    With the option ``wait=False``, return a `BatchJob`.
    """
    plan = _start(texts, model, options, on_error, yes=yes)
    error = plan.ask()
    if options.wait:
        return write(plan.done(error))
    if isinstance(error, KeyboardInterrupt):
        raise plan.done(error).interrupted(None) from None
    if error is not None:
        raise error
    return BatchJob(plan, lambda ended_by: write(plan.done(ended_by)))


def _start(
    texts: Any, model: str | None, options: EmbedOptions, on_error: OnError, *, yes: bool
) -> EmbeddingPlan:
    """Return the embedding of ``texts``, ready to run; the user has confirmed its cost."""
    plan = EmbeddingPlan(texts=texts, model=model, options=options, on_error=on_error)
    if not yes:
        plan.obtain_consent()
    return plan


def embed_column(
    column: Series[Any], model: str | None, options: EmbedOptions, on_error: OnError, *, yes: bool
) -> Series[Any] | BatchJob:
    """
    Return the vectors of ``column``, on its index.

    Raises:
        Interrupted: ``partial`` has the vectors received so far.
        LLMError: the provider could not embed the texts.
    """

    def write(done: EmbeddedRows) -> Series[Any]:
        vectors = done.column(column)
        tag(vectors, vectors.name, done.embedding_model)
        for each in (column, vectors):
            store_report(each, done.report)
        _raise_or_announce(done, vectors, "")
        return vectors

    written: Series[Any] | BatchJob
    written = embed_and_write(write, column, model, options, on_error, yes=yes)
    return written


def embed_into(  # noqa: PLR0913 (as for embed_rows)
    frame: DataFrame,
    into: str,
    column: Series[Any],
    *,
    model: str | None,
    options: EmbedOptions,
    on_error: OnError,
    yes: bool,
) -> DataFrame | BatchJob:
    """Embed ``column`` into a column of ``frame``; after an interrupt it has the vectors so far."""

    def write(done: EmbeddedRows) -> DataFrame:
        where = write_vectors(done, frame, into, column)
        _raise_or_announce(done, frame, where)
        return frame

    written: DataFrame | BatchJob
    written = embed_and_write(write, column, model, options, on_error, yes=yes)
    return written


def write_vectors(done: EmbeddedRows, frame: DataFrame, into: str, column: Series[Any]) -> str:
    """
    Write the vectors into the column ``into``; return a text that says where the vectors are.

    An existing column is only replaced by a complete result.

    Raises:
        UsageError: the column has values other than texts, and no texts.
    """
    store_report(frame, done.report)
    is_there = into in frame.columns
    if isinstance(done.error, LLMError) or (done.error is not None and is_there):
        return "the vector store"
    done.refuse_without_texts(column)
    frame[into] = done.column(column)
    tag(frame, into, done.embedding_model)
    if column.name is not None:
        tag_source(frame, into, column.name)
    return f"the column {into}"


def _raise_or_announce(done: EmbeddedRows, result: Any, where: str) -> None:
    """Raise the error that ended the call, or report on the rows."""
    if isinstance(done.error, KeyboardInterrupt):
        raise done.interrupted(result, where) from None
    if done.error is not None:
        raise done.error
    counts = done.report.counts
    announce(done.report, where, has_failed=bool(counts["failed"] or counts["no text"]))


# The text of a numpy array or of a Python list.
_VECTOR_AS_TEXT = re.compile(r"\s*\[\s*-?\d[\d.eE+\-]*[\s,]")


def resolve_vectors(column: Any, model: str | None = None, *, yes: bool = False) -> Matrix:
    """
    Return the vectors of a column, of shape (n, d), with NaN for missing rows. Texts are embedded.

    With ``yes``, the cost of embedding needs no confirmation.

    Raises:
        UsageError: the column does not have texts or vectors, has both, or the cost of embedding
            is not confirmed.
    """
    if getattr(column, "ndim", 1) != 1:
        return vectors.matrix(column)
    if "list" in str(getattr(column, "dtype", "")):  # an Arrow column, read without Python objects
        return vectors.matrix(column)
    values = to_list(column)
    first = next((value for value in values if is_text(value)), None)
    if first is None:
        return vectors.matrix(values)
    if _VECTOR_AS_TEXT.match(first):
        msg = "The column has vectors as truncated text, as CSV files store them."
        raise UsageError(msg, hint="Save DataFrames with vectors as Parquet: df.to_parquet(…)")
    if any(isinstance(value, list | tuple | np.ndarray) for value in values):
        msg = "The column has both texts and vectors."
        raise UsageError(
            msg, hint="Find the rows of the other type: df.c.map(type).value_counts()"
        )
    done = embed_rows(values, model, EmbedOptions(), "null", yes=yes)
    if done.error is not None:
        raise done.error
    return done.matrix


def get_index(column: Any) -> Index:
    """Return the index of a pandas column, otherwise a `RangeIndex`."""
    import pandas as pd

    return column.index if hasattr(column, "iloc") else pd.RangeIndex(len(column))
