"""
One embedding of rows: the call with their distinct texts, and its result.

Missing and empty texts are never sent: they have no meaning to embed, and some services refuse
an entire batch that contains one. Equal texts are sent once. Texts whose vectors are cached are not
sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._async.bridge import bridge
from llm_magics._async.sync import SyncRunner
from llm_magics._util.text import format_usd
from llm_magics._util.validation import check_on_error
from llm_magics.dataframes.reports import (
    EmbeddingReport,
    RowsEstimate,
    all_failed,
    build_report,
)
from llm_magics.dataframes.rows import NO_TEXT, OnError, Rows
from llm_magics.dataframes.vectors import EmbeddingModel, tag_array
from llm_magics.errors import Interrupted, LLMError, UsageError
from llm_magics.runtime.confirm import confirm_cost
from llm_magics.runtime.embedding import EmbeddingCall, EmbedOptions
from llm_magics.runtime.embedding.results import AVERAGED, OK, TRUNCATED
from llm_magics.runtime.jobs.control import stopped_waiting
from llm_magics.runtime.jobs.embeddings import EmbeddingJobs
from llm_magics.runtime.jobs.work import JobOptions
from llm_magics.runtime.session import session

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import Series

    Vectors = NDArray[np.float32]


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
        rows = f"{done:,} of {len(self.rows):,} rows are embedded"
        if isinstance(self.call, EmbeddingJobs) and self.call.job_ids:
            return stopped_waiting(session, rows, self.call.job_ids, partial)
        msg = f"Stopped: {rows}."
        hint = f"Their vectors are in {where} and will not be requested again." if done else None
        return Interrupted(msg, hint=hint, partial=partial)


class EmbeddingPlan:
    """An embedding of rows: distinct texts are sent once, missing and empty ones are not sent."""

    def __init__(
        self, *, texts: Any, model: str | None, options: EmbedOptions, on_error: OnError
    ) -> None:
        check_on_error(on_error)
        self._index = getattr(texts, "index", None) if hasattr(texts, "iloc") else None
        self._rows = Rows(texts, strict=on_error == "raise")
        self._raises = on_error == "raise"
        self.call = _create_call(self._rows.texts, model, options)

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
            how_to_allow='Allow it with df.llm.embed("text", yes=True) or %embed … --yes, or raise the setting confirm_above_usd.',
        )

    def estimate(self) -> RowsEstimate:
        """Return the estimate of the texts without a stored vector, as prompts; nothing is sent."""
        if not self._rows.texts:
            return RowsEstimate(
                rows=self.rows, prompts=0, input_tokens=0, output_tokens=0, cost_usd=0.0
            )
        _, left, estimate = bridge.run(self.call.estimate())
        return RowsEstimate(
            rows=self.rows,
            prompts=left,
            input_tokens=estimate.input_tokens,
            output_tokens=0,
            cost_usd=estimate.cost_usd,
        )

    def ask(self) -> BaseException | None:
        """Embed the texts; return the error that ended the call, if any."""
        try:
            with SyncRunner(self.call) as exchange:
                exchange.finish()
        except (LLMError, KeyboardInterrupt) as error:
            return error
        return None

    @property
    def rows(self) -> int:
        """The number of rows, including those without a text."""
        return len(self._rows)

    @property
    def codes(self) -> NDArray[np.int64]:
        """The number of the text of each row; negative for a row without a text."""
        return self._rows.codes

    @property
    def is_answered(self) -> NDArray[np.bool_]:
        """Whether each row has a vector."""
        has_vector = np.isin(self.call.results.outcomes, (OK, TRUNCATED, AVERAGED))
        rows: NDArray[np.bool_] = np.append(has_vector, False)[np.maximum(self.codes, -1)]
        return rows

    def done(self, error: BaseException | None) -> EmbeddedRows:
        """Return the result so far; ``error`` is the error that ended the call, if any."""
        errors = self.call.results.errors
        if error is None and errors and (self._raises or all_failed(self.call)):
            error = errors[min(errors)]
        report = build_report(self._rows, self.call, self._index)
        done = EmbeddedRows(rows=self._rows, call=self.call, report=report, error=error)
        tag_array(self.call.results.matrix, done.embedding_model)
        return done


def _create_call(texts: Sequence[str], model: str | None, options: EmbedOptions) -> EmbeddingCall:
    if not options.batch:
        return EmbeddingCall(session=session, texts=texts, model=model, options=options)
    return EmbeddingJobs(
        session=session,
        texts=texts,
        model=model,
        options=options,
        job_options=JobOptions(wait=options.wait, timeout_s=session.config.batch_timeout),
    )


def estimate_embedding(texts: Any, model: str | None, options: EmbedOptions) -> str:
    """Return a text that estimates the requests, tokens and cost of embedding; nothing is sent."""
    plan = EmbeddingPlan(texts=texts, model=model, options=options, on_error="null")
    name, left, estimate = bridge.run(plan.call.estimate())
    unique = len(plan.call.results.outcomes)
    in_jobs = plan.call.in_jobs if isinstance(plan.call, EmbeddingJobs) else 0
    jobs = f" · {in_jobs:,} in batch jobs" if in_jobs else ""
    cost = "nothing" if estimate.cost_usd == 0 else format_usd(estimate.cost_usd)
    return (
        f"{plan.rows:,} rows · {unique:,} distinct texts · {unique - left - in_jobs:,} already stored{jobs} · {left:,} to send to {name}: "
        f"about {estimate.input_tokens:,} tokens, cost {cost}"
    )
