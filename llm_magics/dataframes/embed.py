"""
Embedding of texts: ``lm.embed``, and the functions that the accessor and ``%embed`` share.

Missing and empty texts are never sent: they have no meaning to embed, and some services refuse
an entire batch that contains one. Equal texts are sent once. Texts whose vectors are cached are not
sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._async.bridge import bridge
from llm_magics._async.sync import Operation, SyncRunner, run_async, run_sync
from llm_magics._util.text import format_usd
from llm_magics._util.validation import check_on_error
from llm_magics.dataframes import vectors
from llm_magics.dataframes.reports import (
    EmbeddingReport,
    all_failed,
    announce,
    build_report,
    store_report,
)
from llm_magics.dataframes.rows import NO_TEXT, OnError, Rows, is_text, to_list
from llm_magics.dataframes.vectors import EmbeddingModel, tag, tag_array, tag_source
from llm_magics.errors import Interrupted, LLMError, UsageError
from llm_magics.runtime.confirm import confirm_cost
from llm_magics.runtime.embedding import EmbeddingCall, EmbedOptions
from llm_magics.runtime.embedding.results import AVERAGED, OK, TRUNCATED, TooLong
from llm_magics.runtime.session import session

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Index, Series

    Vectors = NDArray[np.float32]
    Matrix = NDArray[np.float32]


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
) -> Vectors:
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
        )
    )


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
) -> Vectors:
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
) -> Operation[Vectors]:
    options = EmbedOptions(
        batch_size=batch_size,
        concurrency=concurrency,
        too_long=too_long,
        dimensions=dimensions,
        prefix=prefix,
    )
    plan = _EmbeddingPlan(texts=texts, model=model, options=options, on_error=on_error)

    def stopped() -> Interrupted:
        done = plan.done(None)
        return done.interrupted(done.matrix)

    def result() -> Vectors:
        done = plan.done(None)
        if done.error is not None:
            raise done.error
        return done.matrix

    return Operation(plan.call, result, stopped)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedRows:
    """The result of embedding some rows, and the ``error`` to raise, if any."""

    rows: Rows
    call: EmbeddingCall
    report: EmbeddingReport
    error: BaseException | None

    @property
    def matrix(self) -> Vectors:
        """All vectors as one array of shape (n, d), with NaN in rows without a vector."""
        codes, unique = self.rows.codes, self.call.results.matrix
        if len(codes) == len(unique) and (codes == np.arange(len(codes))).all():
            return unique  # all texts are different and present
        matrix = np.full((len(codes), unique.shape[1]), np.nan, dtype=np.float32)
        tag_array(matrix, self.embedding_model)
        if unique.shape[1]:
            matrix[codes >= 0] = unique[codes[codes >= 0]]
        return matrix

    @property
    def embedding_model(self) -> EmbeddingModel:
        """The model that embedded the rows."""
        return EmbeddingModel(self.report.model, self.call.requested_dimensions)

    def refuse_without_texts(self, column: Any) -> None:
        """
        Refuse a column whose values are not texts, such as numbers or dates.

        Raises:
            UsageError: the column has values other than texts, and no texts.
        """
        if len(self.rows) and self.rows.count(NO_TEXT) and not self.rows.texts:
            kind = getattr(column, "dtype", "values")
            msg = f"The column {getattr(column, 'name', '')} has no texts (dtype {kind})."
            raise UsageError(msg, hint='Convert it first: df["c"] = df["c"].astype(str)')

    @property
    def vectors(self) -> list[Vectors | None]:
        """
        One vector per row; ``None`` for a row without a vector.

        The vectors are read-only, because rows with the same text share one array.
        """
        results = self.call.results
        matrix = results.matrix.view()
        matrix.flags.writeable = False
        has_one = np.isin(results.outcomes, (OK, TRUNCATED, AVERAGED))
        of_texts = [vector if has else None for vector, has in zip(matrix, has_one, strict=True)]
        return [of_texts[code] if code >= 0 else None for code in self.rows.codes.tolist()]

    def column(self, like: Series[Any]) -> Series[Any]:
        """Return the vectors as a column on the index of ``like``."""
        import pandas as pd

        cells = np.empty(len(self.rows), dtype=object)
        cells[:] = self.vectors
        name = f"{like.name}_vector" if like.name is not None else "vector"
        return pd.Series(cells, index=like.index, name=name, dtype=object)

    def interrupted(self, partial: object, where: str = "") -> Interrupted:
        """Return the exception for an interrupt; its hint says where the finished vectors are."""
        where = where or "the exception's .partial"
        done = sum(vector is not None for vector in self.vectors)
        msg = f"Stopped: {done:,} of {len(self.rows):,} rows are embedded."
        hint = f"Their vectors are in {where} and will not be requested again." if done else None
        return Interrupted(msg, hint=hint, partial=partial)


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
    plan = _EmbeddingPlan(
        texts=texts, model=model, options=options or EmbedOptions(), on_error=on_error
    )
    if not yes:
        plan.obtain_consent()
    try:
        with SyncRunner(plan.call) as exchange:
            exchange.finish()
    except (LLMError, KeyboardInterrupt) as error:
        return plan.done(error)
    return plan.done(None)


def estimate_embedding(texts: Any, model: str | None, options: EmbedOptions) -> str:
    """Return a text that estimates the requests, tokens and cost of embedding; nothing is sent."""
    plan = _EmbeddingPlan(texts=texts, model=model, options=options, on_error="null")
    name, left, estimate = bridge.run(plan.call.estimate())
    unique = len(plan.call.results.outcomes)
    cost = "nothing" if estimate.cost_usd == 0 else format_usd(estimate.cost_usd)
    return (
        f"{plan.rows:,} rows · {unique:,} distinct texts · {unique - left:,} already stored · {left:,} to send to {name}: "
        f"about {estimate.input_tokens:,} tokens, cost {cost}"
    )


class _EmbeddingPlan:
    """An embedding of rows: distinct texts are sent once, missing and empty ones are not sent."""

    def __init__(
        self, *, texts: Any, model: str | None, options: EmbedOptions, on_error: OnError
    ) -> None:
        check_on_error(on_error)
        self._index = getattr(texts, "index", None) if hasattr(texts, "iloc") else None
        self._rows = Rows(texts, strict=on_error == "raise")
        self._raises = on_error == "raise"
        self.call = EmbeddingCall(
            session=session, texts=self._rows.texts, model=model, options=options
        )

    def obtain_consent(self) -> None:
        """
        Ask the user to confirm a cost above ``confirm_above_usd``, unless a budget is set.

        Raises:
            DeclinedError: the user declined.
            UsageError: the session is not interactive.
        """
        if session.config.budget is not None:
            return
        most_usd = bridge.run(self.call.max_cost_usd())  # a quick upper bound, without the cache
        if most_usd is None or most_usd <= session.config.confirm_above_usd:
            return
        name, left, estimate = bridge.run(self.call.estimate())
        confirm_cost(
            estimate.cost_usd,
            f"{left:,} texts to {name}",
            'Allow it with df.llm.embed("text", yes=True) or %embed … --yes, or raise the setting confirm_above_usd.',
        )

    @property
    def rows(self) -> int:
        """The number of rows, including those without a text."""
        return len(self._rows)

    def done(self, error: BaseException | None) -> EmbeddedRows:
        """Return the result so far; ``error`` is the error that ended the call, if any."""
        errors = self.call.results.errors
        if error is None and errors and (self._raises or all_failed(self.call)):
            error = errors[min(errors)]
        report = build_report(self._rows, self.call, self._index)
        done = EmbeddedRows(rows=self._rows, call=self.call, report=report, error=error)
        tag_array(self.call.results.matrix, done.embedding_model)
        return done


def embed_column(
    column: Series[Any], model: str | None, options: EmbedOptions, on_error: OnError, *, yes: bool
) -> Series[Any]:
    """
    Return the vectors of ``column``, on its index.

    Raises:
        Interrupted: ``partial`` has the vectors received so far.
        LLMError: the provider could not embed the texts.
    """
    done = embed_rows(column, model, options, on_error, yes=yes)
    vectors = done.column(column)
    tag(vectors, vectors.name, done.embedding_model)
    for each in (column, vectors):
        store_report(each, done.report)
    _raise_or_announce(done, vectors, "")
    return vectors


def embed_into(frame: DataFrame, into: str, column: Series[Any], **how: Any) -> DataFrame:
    """Embed ``column`` into a column of ``frame``; after an interrupt it has the vectors so far."""
    done = embed_rows(column, **how)
    where = write_vectors(done, frame, into, column)
    _raise_or_announce(done, frame, where)
    return frame


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


def resolve_vectors(column: Any, model: str | None = None) -> Matrix:
    """
    Return the vectors of a column, of shape (n, d), with NaN for missing rows. Texts are embedded.

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
    done = embed_rows(values, model, EmbedOptions(), "null")
    if done.error is not None:
        raise done.error
    return done.matrix


def get_index(column: Any) -> Index:
    """Return the index of a pandas column, otherwise a `RangeIndex`."""
    import pandas as pd

    return column.index if hasattr(column, "iloc") else pd.RangeIndex(len(column))
