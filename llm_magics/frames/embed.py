"""
Vectors for texts: ``lm.embed``, and what the accessor and ``%embed`` share.

Missing and empty texts are never sent: they have no meaning to embed, and some services
refuse the whole batch for one. Their vectors are missing too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics.engine.embedding import EmbeddingCall
from llm_magics.engine.exchange import Exchange
from llm_magics.engine.session import session
from llm_magics.engine.twins import Work, awaited, blocking
from llm_magics.errors import Interrupted, LLMError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import Series

    Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EmbeddingReport:
    """How an embedding went, in numbers; ``str()`` of it is a line for people."""

    model: str
    rows: int
    missing: int
    dimensions: int
    seconds: float

    def __str__(self) -> str:
        present = self.rows - self.missing
        parts = [f"{present:,} {'row' if present == 1 else 'rows'} embedded"]
        if self.missing:
            parts.append(f"{self.missing:,} missing or empty")
        if self.dimensions:
            parts.append(f"{self.dimensions} dimensions")
        return " · ".join([*parts, self.model])


def _embed(texts: Iterable[str | None], *, model: str | None = None) -> Work[Vectors]:
    """
    The vectors of ``texts``.

    Args:
        texts: a list, Series, array or any iterable of strings; ``None``, NaN and empty ones
            get a row of NaN.
        model: ``provider/name``; the setting ``embedding_model`` if not given.

    Returns:
        An array of shape (n, d), float32, in the order of ``texts``.

    Raises:
        UsageError: ``texts`` is a single string or a frame, or holds something that is no text.
        Interrupted: with the rows that were done in ``partial``, NaN for the others.
        LLMError: the provider could not embed them.
    """
    plan = _Plan(texts, model)

    def stopped() -> Interrupted:
        done = plan.done(None)
        return done.interrupted(done.matrix)

    return Work(plan.call, lambda: plan.done(None).matrix, stopped)


embed = blocking("embed", _embed)
aembed = awaited("aembed", _embed)


@dataclass(frozen=True, slots=True)
class Embedded:
    """
    What came of embedding some rows.

    ``vectors`` has one a row, ``None`` where the text is missing or was not reached before
    ``error`` ended it.
    """

    vectors: list[Vectors | None]
    report: EmbeddingReport
    error: BaseException | None

    @property
    def matrix(self) -> Vectors:
        """All vectors as one array of shape (n, d); a row of NaN where there is none."""
        shape = (len(self.vectors), self.report.dimensions)
        matrix = np.full(shape, np.nan, dtype=np.float32)
        for row, vector in enumerate(self.vectors):
            if vector is not None:
                matrix[row] = vector
        return matrix

    def column(self, like: Series[Any]) -> Series[Any]:
        """The vectors as a column on the index of ``like``."""
        import pandas as pd

        cells = np.empty(len(self.vectors), dtype=object)
        cells[:] = self.vectors
        name = f"{like.name}_vector" if like.name is not None else "vector"
        return pd.Series(cells, index=like.index, name=name, dtype=object)

    def interrupted(self, partial: object, where: str = "") -> Interrupted:
        """The exception for a user's Interrupt, saying what was kept, and ``where``."""
        where = where or "the exception's .partial"
        done = sum(vector is not None for vector in self.vectors)
        msg = f"Stopped; {done:,} of {self.report.rows:,} rows were embedded."
        return Interrupted(
            msg, hint=f"They are kept in {where}." if done else None, partial=partial
        )


def embed_column(column: Series[Any], model: str | None = None) -> Series[Any]:
    """The vectors of a column, as a column of float32 arrays on the same index."""
    done = embedded(column, model)
    if isinstance(done.error, KeyboardInterrupt):
        raise done.interrupted(done.column(column)) from None
    if done.error is not None:
        raise done.error
    return done.column(column)


def embedded(texts: Iterable[str | None], model: str | None = None) -> Embedded:
    """The vectors of ``texts``, or as many as came before an error or an Interrupt."""
    plan = _Plan(texts, model)
    try:
        with Exchange(plan.call) as exchange:
            exchange.finish()
    except (LLMError, KeyboardInterrupt) as error:
        return plan.done(error)
    return plan.done(None)


class _Plan:
    """Which of some rows are sent: each text once, and none that is missing or empty."""

    def __init__(self, texts: Iterable[str | None], model: str | None) -> None:
        self._rows = _rows_of(texts)
        self._present = {
            row: text for row, text in enumerate(self._rows) if not _is_missing(text, row)
        }
        self._unique = list(dict.fromkeys(self._present.values()))
        self.call = EmbeddingCall(session, self._unique, model)

    def done(self, error: BaseException | None) -> Embedded:
        """What has come of it, when ``error`` ended it or nothing did."""
        matrix = np.asarray(self.call.vectors, dtype=np.float32)
        by_text = dict(zip(self._unique, matrix, strict=False))
        vectors: list[Vectors | None] = [None] * len(self._rows)
        for row, text in self._present.items():
            vectors[row] = by_text.get(text)
        response = self.call.response()
        report = EmbeddingReport(
            model=response.model,
            rows=len(self._rows),
            missing=len(self._rows) - len(self._present),
            dimensions=matrix.shape[1] if len(matrix) else 0,
            seconds=response.timing.e2e_s or 0.0,
        )
        return Embedded(vectors, report, error)


def _rows_of(texts: Any) -> list[Any]:
    """The rows of whatever one-dimensional thing was given."""
    if (
        not isinstance(texts, Iterable)
        or isinstance(texts, str | bytes | Mapping | AbstractSet)
        or getattr(texts, "ndim", 1) != 1
    ):
        msg = f"A list or column of texts can be embedded, and this is {type(texts).__name__}."
        raise UsageError(msg, hint='Write df["column"], or lm.embed(["…"]) for one text.')
    return list(texts)


def _is_missing(text: Any, row: int) -> bool:
    if isinstance(text, str):
        return not text.strip()
    # NaN, NaT and pd.NA without asking pandas.
    if text is None or type(text).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(text, float | np.floating) and math.isnan(text):
        return True
    msg = f"Row {row} is {type(text).__name__}, not text: {text!r:.60}"
    raise UsageError(msg, hint='Convert the column first: df["c"] = df["c"].astype(str)')
