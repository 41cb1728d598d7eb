"""
``lm.nearest`` and ``lm.dedupe``: what in a column is like a query, and what says the same.

A column is one of vectors; where it is one of texts, these are embedded, which costs nothing
for those that were before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._util.validation import whole_number
from llm_magics.errors import UsageError
from llm_magics.frames import search
from llm_magics.frames.embed import embed
from llm_magics.frames.makers import Maker, maker_of, model_for
from llm_magics.frames.rows import is_text, one_column
from llm_magics.frames.vectors import index_of, vectors_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import Series

    from llm_magics.frames.index import VectorIndex

    Vectors = NDArray[np.float32]


def nearest(  # noqa: PLR0913 (what can be asked)
    column: Any,
    query: str | Sequence[float] | Vectors,
    *,
    k: int = 5,
    model: str | None = None,
    prefix: str = "",
    index: VectorIndex | None = None,
) -> Series[Any]:
    """
    The ``k`` rows most like ``query``, best first: their cosines, on the index of ``column``.

    Exact, by a product of matrices, unless an ``index`` is given.

    Args:
        column: vectors, or texts; a list, array (n, d), or column; or a DataFrame with one
            column of vectors.
        query: a text, which is embedded, or a vector of d numbers.
        k: how many.
        model: who embeds; the one that embedded the column, else the setting ``embedding_model``.
        prefix: what the model wants before a question, like ``"query: "``.
        index: what `llm_magics.index` made of ``column``, to look in.

    Raises:
        UsageError: the query has another length than the vectors, or the index is of others.
    """
    import pandas as pd

    k = whole_number("k", k)
    column = one_column(column)
    maker = maker_of(column)
    model = model or (maker and maker.model)
    asked = _query(query, model, prefix, maker)
    if index is None:
        vectors = vectors_of(column, model)
        _check_dimensions(asked, vectors.shape[1])
        (places,), (cosines,) = search.nearest(vectors, asked, k)
    else:
        _check_dimensions(asked, index.dimensions)
        if index.rows != len(column):
            msg = f"The index is of {index.rows:,} rows, and the column has {len(column):,}."
            raise UsageError(msg, hint="Make it anew: lm.index(…).")
        places, cosines = index.search(asked[0], k)
    found = np.isfinite(cosines)  # those without a vector are like nothing
    return pd.Series(cosines[found], index=index_of(column)[places[found]], name="cosine")


def _check_dimensions(asked: Vectors, dimensions: int) -> None:
    if asked.shape[1] != dimensions:
        msg = f"The query has {asked.shape[1]} dimensions, and the column has {dimensions}."
        raise UsageError(msg, hint="Embed it with the same model: model=…")


def dedupe(column: Any, threshold: float = 0.95, *, model: str | None = None) -> Series[Any]:
    """
    Which rows to keep so that none says what one before it says: ``df[lm.dedupe(df["vector"])]``.

    Args:
        column: vectors, or texts; a list, array (n, d), or column; or a DataFrame with one
            column of vectors.
        threshold: the cosine from which on two rows say the same.
        model: who embeds texts.

    Returns:
        ``True`` or ``False`` for each row, on the index of ``column``. Rows without a vector
        are kept.
    """
    import pandas as pd

    if not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        msg = f"threshold cannot be {threshold!r}."
        raise UsageError(msg, hint="Give it a cosine above 0 and at most 1, like 0.95.")
    column = one_column(column)
    model = model_for(column, model)
    try:
        vectors = vectors_of(column, model)
    except search.NoVectorsError:  # none says what another says
        vectors = np.full((len(column), 1), np.nan, np.float32)
    first = search.groups(vectors, threshold)
    return pd.Series(first == np.arange(len(first)), index=index_of(column), name="is_first")


def _query(query: Any, model: str | None, prefix: str, maker: Maker | None) -> Vectors:
    """A question as a vector, of shape (1, d)."""
    if isinstance(query, str):
        if not is_text(query):
            msg = "The query is empty."
            raise UsageError(msg, hint="Write what to look for.")
        dimensions = maker.dimensions if maker and maker.model == model else None
        return embed([query], model=model, prefix=prefix, dimensions=dimensions)
    try:
        asked = np.asarray(query, np.float32)
    except (TypeError, ValueError):
        asked = np.empty(0, np.float32)
    if asked.ndim != 1 or not asked.size or not np.isfinite(asked).all():
        msg = f"The query is a text or a vector of numbers, and this is {type(query).__name__}."
        raise UsageError(msg, hint='Ask one at a time, like df.llm.nearest("a question").')
    return asked[None, :]
