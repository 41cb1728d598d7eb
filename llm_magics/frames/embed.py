"""
Vectors for texts: ``lm.embed``, and what the accessor and ``%embed`` share.

Missing and empty texts are never sent: they have no meaning to embed, and some services
refuse the whole batch for one. Their vectors are missing too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics.engine.embedding import EmbeddingCall
from llm_magics.engine.exchange import Exchange
from llm_magics.engine.session import session
from llm_magics.errors import UsageError

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
        parts = [f"{self.rows - self.missing:,} rows embedded"]
        if self.missing:
            parts.append(f"{self.missing:,} missing or empty")
        if self.dimensions:
            parts.append(f"{self.dimensions} dimensions")
        return " · ".join([*parts, self.model])


def embed(texts: Iterable[str | None], *, model: str | None = None) -> Vectors:
    """
    The vectors of ``texts``.

    Args:
        texts: a list, Series, array or any iterable of strings; ``None``, NaN and empty ones
            get a row of NaN.
        model: ``provider/name``; the setting ``embedding_model`` if not given.

    Returns:
        An array of shape (n, d), float32, in the order of ``texts``.

    Raises:
        UsageError: ``texts`` is a single string, or holds something that is no text.
        LLMError: the provider could not embed them.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        msg = f"A list of texts can be embedded, and this is {type(texts).__name__}."
        raise UsageError(msg, hint='Write lm.embed(["…"])[0] for one vector.')
    rows = list(texts)
    vectors, report = _embedded(rows, model)
    matrix = np.full((len(rows), report.dimensions), np.nan, dtype=np.float32)
    for row, vector in enumerate(vectors):
        if vector is not None:
            matrix[row] = vector
    return matrix


def embed_column(
    column: Series[Any], model: str | None = None
) -> tuple[Series[Any], EmbeddingReport]:
    """The vectors of a column, as a column of float32 arrays on the same index."""
    import pandas as pd

    vectors, report = _embedded(column.tolist(), model)
    cells = np.empty(len(vectors), dtype=object)
    cells[:] = vectors
    name = f"{column.name}_vector" if column.name is not None else "vector"
    return pd.Series(cells, index=column.index, name=name, dtype=object), report


def _embedded(rows: list[Any], model: str | None) -> tuple[list[Vectors | None], EmbeddingReport]:
    texts = {row: text for row, text in enumerate(rows) if not _is_missing(text, row)}
    call = EmbeddingCall(session, list(texts.values()), model)
    with Exchange(call) as exchange:
        exchange.finish()
    matrix = np.asarray(call.vectors, dtype=np.float32)
    vectors: list[Vectors | None] = [None] * len(rows)
    for row, vector in zip(texts, matrix, strict=True):
        vectors[row] = vector
    response = call.response()
    report = EmbeddingReport(
        model=response.model,
        rows=len(rows),
        missing=len(rows) - len(texts),
        dimensions=matrix.shape[1] if len(matrix) else 0,
        seconds=response.timing.e2e_s or 0.0,
    )
    return vectors, report


def _is_missing(text: Any, row: int) -> bool:
    if isinstance(text, str):
        return not text.strip()
    # NaN, NaT and pd.NA without asking pandas: the first two are not equal to themselves.
    if text is None or type(text).__name__ == "NAType" or text != text:  # noqa: PLR0124
        return True
    msg = f"Row {row} is {type(text).__name__}, not text: {text!r}."
    raise UsageError(msg, hint="Convert the column first: df.column.astype(str).")
