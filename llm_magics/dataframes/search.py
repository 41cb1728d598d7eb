"""
``lm.nearest`` and ``lm.dedupe``: what in a column is like a query, and what says the same.

A column is one of vectors; where it is one of texts, these are embedded, which costs nothing
for those that were before.

``lm.index``: what is near, found without looking at every row; for many questions to millions.

An index is built once, which takes minutes for a million rows, and answers in less than a
millisecond; what it gives is nearly always, and not always, what an exact search gives
("HNSW", Malkov & Yashunin, 2016, https://arxiv.org/abs/1603.09320).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._util.validation import check_integer
from llm_magics.dataframes import vectors as search
from llm_magics.dataframes.embed import embed, index_of, vectors_of
from llm_magics.dataframes.rows import is_text, one_column
from llm_magics.dataframes.sources import Maker, maker_of, model_for
from llm_magics.errors import UsageError
from llm_magics.host import current_host
from llm_magics.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import Series

    Vectors = NDArray[np.float32]
    Matrix = NDArray[np.float32]


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

    k = check_integer("k", k)
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


# So many rows between two looks at the clock, and at whether the user has stopped it.
_STEP = 5_000


def index(column: Any, *, model: str | None = None) -> VectorIndex:
    """
    An index over ``column``, for ``df.llm.nearest(query, index=…)`` and ``lm.nearest``.

    Up to a million rows an exact search, which needs none, is fast enough.

    Args:
        column: vectors, or texts, which are embedded; a list, array (n, d), or column.
        model: who embeds texts.

    Raises:
        UsageError: usearch is not installed.
    """
    _need_usearch()
    from usearch.index import Index

    column = one_column(column)
    vectors = vectors_of(column, model_for(column, model))
    made = Index(ndim=vectors.shape[1], metric="cos", dtype="f32")
    places = np.flatnonzero(~np.isnan(vectors).any(axis=1))
    show, began = current_host().create_progress_display(), time.perf_counter()
    try:
        for start in range(0, len(places), _STEP):
            some = places[start : start + _STEP]
            made.add(some.astype(np.uint64), vectors[some])
            done, elapsed_s = start + len(some), time.perf_counter() - began
            show(Progress("building an index", done, len(places), "rows", elapsed_s))
    finally:
        show(None)
    return VectorIndex(made, len(vectors))


class VectorIndex:
    """An index over ``rows`` vectors; those that are missing are never found."""

    def __init__(self, made: Any, rows: int) -> None:
        self._made = made
        self.rows = rows

    @property
    def dimensions(self) -> int:
        """Of each vector."""
        return int(self._made.ndim)

    def search(self, query: Matrix, k: int) -> tuple[NDArray[np.int64], Matrix]:
        """The places of at most ``k`` rows near ``query`` (d), best first, and their cosines."""
        found = self._made.search(query, k)
        cosines = 1 - np.asarray(found.distances, np.float32)
        return np.asarray(found.keys, np.int64), cosines

    def save(self, path: str | Path) -> None:
        """Keep it in a file."""
        self._made.save(str(path))
        _rows_file(path).write_text(str(self.rows), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> VectorIndex:
        """
        One that was kept in a file, which must be one's own: such files are not checked.

        Raises:
            UsageError: there is none, or usearch is not installed.
        """
        _need_usearch()
        from usearch.index import Index

        if not Path(path).is_file() or not _rows_file(path).is_file():
            msg = f"There is no index at {path}."
            raise UsageError(msg, hint="Make one: lm.index(df.vector).save(…).")
        return cls(Index.restore(str(path)), int(_rows_file(path).read_text("utf-8")))

    def __len__(self) -> int:
        return len(self._made)

    def __repr__(self) -> str:
        return f"VectorIndex({len(self):,} of {self.rows:,} rows, {self.dimensions} dimensions)"


def _rows_file(path: str | Path) -> Path:
    return Path(f"{path}.rows")


def _need_usearch() -> None:
    if find_spec("usearch") is None:
        msg = "An index needs usearch, which is not installed."
        raise UsageError(msg, hint="pip install usearch; without it search is exact.")
