"""
``lm.nearest`` and ``lm.dedupe``: what in a column is like a query, and what says the same.

A column is one of vectors; where it is one of texts, these are embedded, which costs nothing
for those that were before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics.errors import UsageError
from llm_magics.frames import search
from llm_magics.frames.embed import embed
from llm_magics.frames.rows import is_text, values_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import Index, Series

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
        column: vectors, or texts; a list, array (n, d), or column.
        query: a text, which is embedded, or a vector of d numbers.
        k: how many.
        model: who embeds; the one that embedded the column, else the setting ``embedding_model``.
        prefix: what the model wants before a question, like ``"query: "``.
        index: what `llm_magics.index` made of ``column``, to look in.

    Raises:
        UsageError: the query has another length than the vectors, or the index is of others.
    """
    import pandas as pd

    if type(k) is not int or k < 1:
        msg = f"k cannot be {k!r}."
        raise UsageError(msg, hint="Give it a whole number, 1 or more.")
    model = model or model_of(column)
    asked = embed([query], model=model, prefix=prefix) if isinstance(query, str) else query
    asked = np.atleast_2d(np.asarray(asked, np.float32))
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
    return pd.Series(cosines, index=index_of(column)[places], name="cosine")


def _check_dimensions(asked: Vectors, dimensions: int) -> None:
    if asked.shape[1] != dimensions:
        msg = f"The query has {asked.shape[1]} dimensions, and the column has {dimensions}."
        raise UsageError(msg, hint="Embed it with the same model: model=…")


def dedupe(column: Any, threshold: float = 0.95, *, model: str | None = None) -> Series[Any]:
    """
    Which rows to keep so that none says what one before it says: ``df[lm.dedupe(df["vector"])]``.

    Args:
        column: vectors, or texts; a list, array (n, d), or column.
        threshold: the cosine from which on two rows say the same.
        model: who embeds texts.

    Returns:
        ``True`` or ``False`` for each row, on the index of ``column``. Rows without a vector
        are kept.
    """
    import pandas as pd

    if not 0 < threshold <= 1:
        msg = f"threshold cannot be {threshold!r}."
        raise UsageError(msg, hint="Give it a cosine above 0 and at most 1, like 0.95.")
    first = search.groups(vectors_of(column, model or model_of(column)), threshold)
    return pd.Series(first == np.arange(len(first)), index=index_of(column), name="is_first")


def vectors_of(column: Any, model: str | None = None) -> Vectors:
    """The vectors of a column of shape (n, d), NaN where one is missing; texts are embedded."""
    if getattr(column, "ndim", 1) != 1:
        return search.matrix(column)
    if "list<" in str(getattr(column, "dtype", "")):  # Arrow's: no object for each number
        return search.matrix(column)
    values = values_of(column)
    if any(is_text(value) for value in values):
        return embed(values, model=model, on_error="null", too_long="truncate")
    return search.matrix(values)


def index_of(column: Any) -> Index:
    """That of a pandas column, else the numbers of the rows."""
    import pandas as pd

    return column.index if hasattr(column, "iloc") else pd.RangeIndex(len(column))


# Where a frame or column tells who made its vectors; pandas hands it on with copies and files.
_MADE_BY = "llm_magics_vectors"


def sign(of: Any, column: object, model: str) -> None:
    """Note in a frame or column that ``model`` made the vectors of ``column``."""
    of.attrs[_MADE_BY] = {**of.attrs.get(_MADE_BY, {}), str(column): model}


def model_of(of: Any, column: object = None) -> str | None:
    """Who made the vectors of ``column`` of a frame, or of a column, as far as was noted."""
    noted = getattr(of, "attrs", {}).get(_MADE_BY)
    name = str(getattr(of, "name", None) if column is None else column)
    found = noted.get(name) if isinstance(noted, dict) else None
    return found if isinstance(found, str) else None
