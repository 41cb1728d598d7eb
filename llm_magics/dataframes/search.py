"""
``lm.nearest``, ``lm.dedupe`` and ``lm.index``: search by cosine similarity, exact or with an index.

A column has vectors, or texts, which are embedded first; texts whose vectors are cached are free.
An index is useful for many queries over millions of rows. Building it takes minutes for a million
rows; a query then takes less than a millisecond and nearly always returns the same rows as an
exact search ("HNSW", Malkov & Yashunin, 2016, https://arxiv.org/abs/1603.09320).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._util.validation import check_integer, require_package
from llm_magics.dataframes import vectors as search
from llm_magics.dataframes.embed import embed, get_index, resolve_vectors
from llm_magics.dataframes.rows import is_text
from llm_magics.dataframes.vectors import (
    EmbeddingModel,
    find_embedding_model,
    resolve_column,
    resolve_model,
)
from llm_magics.errors import UsageError
from llm_magics.host import Progress, current_host

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import Series

    Vectors = NDArray[np.float32]
    Matrix = NDArray[np.float32]


def nearest(  # noqa: PLR0913 (a public function)
    column: Any,
    query: str | Sequence[float] | Vectors,
    *,
    k: int = 5,
    model: str | None = None,
    prefix: str = "",
    index: VectorIndex | None = None,
) -> Series[Any]:
    """
    Return the cosine similarities of the ``k`` rows closest to ``query``, best first.

    The result is on the index of ``column``. The search is exact unless you pass an ``index``.

    Args:
        column: vectors, or texts; a list, array (n, d), or column; or a DataFrame with one
            column of vectors.
        query: a text, which is embedded, or a vector of d numbers.
        k: number of rows.
        model: the embedding model; by default the one that embedded the column, otherwise the
            setting ``embedding_model``.
        prefix: text to put before the query; some models need one (``"query: "``).
        index: the result of `llm_magics.index` for ``column``.

    Raises:
        UsageError: the query and the vectors differ in length, or the index belongs to another
            column.
    """
    import pandas as pd

    k = check_integer("k", k)
    column = resolve_column(column)
    embedding_model = find_embedding_model(column)
    model = model or (embedding_model and embedding_model.model)
    query = _check_query(query)
    # The query is embedded last, so that it is not paid for if the column or the index is wrong.
    if index is None:
        vectors = resolve_vectors(column, model)
        query_vector = _query_vector(query, model, prefix, embedding_model)
        _check_dimensions(query_vector, vectors.shape[1])
        (positions,), (cosines,) = search.top_k(vectors, query_vector, k)
    else:
        if index.rows != len(column):
            msg = f"The index has {index.rows:,} rows, but the column has {len(column):,}."
            raise UsageError(msg, hint="Build it again: lm.index(…)")
        query_vector = _query_vector(query, model, prefix, embedding_model)
        _check_dimensions(query_vector, index.dimensions)
        positions, cosines = index.search(query_vector[0], k)
    found = np.isfinite(cosines)  # rows without a vector have the cosine NaN
    return pd.Series(cosines[found], index=get_index(column)[positions[found]], name="cosine")


def _check_dimensions(query: Vectors, dimensions: int) -> None:
    if query.shape[1] != dimensions:
        msg = f"The query has {query.shape[1]} dimensions, but the column has {dimensions}."
        raise UsageError(msg, hint="Embed the query with the same model: model=…")


def dedupe(column: Any, threshold: float = 0.95, *, model: str | None = None) -> Series[Any]:
    """
    Return which rows are not near-duplicates of earlier rows: ``df[lm.dedupe(df["vector"])]``.

    Args:
        column: vectors, or texts; a list, array (n, d), or column; or a DataFrame with one
            column of vectors.
        threshold: the cosine similarity above which two rows count as duplicates.
        model: the embedding model for texts.

    Returns:
        ``True`` or ``False`` for each row, on the index of ``column``. Rows without a vector
        are kept.
    """
    import pandas as pd

    if not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        msg = f"Invalid threshold: {threshold!r}."
        raise UsageError(msg, hint="Pass a cosine similarity above 0 and at most 1, such as 0.95.")
    column = resolve_column(column)
    model = resolve_model(column, model)
    try:
        vectors = resolve_vectors(column, model)
    except search.NoVectorsError:  # all rows are missing, so none is a duplicate
        vectors = np.full((len(column), 1), np.nan, np.float32)
    first = search.group_duplicates(vectors, threshold)
    return pd.Series(first == np.arange(len(first)), index=get_index(column), name="is_first")


def _check_query(query: Any) -> str | Vectors:
    """Return the query as a text, or as a vector of shape (1, d)."""
    if isinstance(query, str):
        if not is_text(query):
            msg = "The query is empty."
            raise UsageError(msg, hint="Pass a text or a vector to search for.")
        return query
    try:
        vector = np.asarray(query, np.float32)
    except (TypeError, ValueError):
        vector = np.empty(0, np.float32)
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        msg = f"The query must be a text or a vector of numbers, got {type(query).__name__}."
        raise UsageError(msg, hint='Search for one query at a time: df.llm.nearest("a question")')
    return vector[None, :]


def _query_vector(
    query: str | Vectors, model: str | None, prefix: str, embedding_model: EmbeddingModel | None
) -> Vectors:
    """Return the query as a vector, of shape (1, d)."""
    if not isinstance(query, str):
        return query
    dimensions = (
        embedding_model.dimensions if embedding_model and embedding_model.model == model else None
    )
    return embed([query], model=model, prefix=prefix, dimensions=dimensions)


# The number of candidates during a search of the index. In a search for the ten nearest of 3,000
# random vectors of 128 dimensions, the recall is 80 % at 64 (usearch's default) and 98 % at 256. A
# search takes three times as long; the time to build the index is the same.
_EXPANSION_SEARCH = 256

# The number of rows added between two updates of the progress, where an interrupt can take effect.
_BATCH_ROWS = 5_000


def index(column: Any, *, model: str | None = None) -> VectorIndex:
    """
    Build an index over ``column``, for ``df.llm.nearest(query, index=…)`` and ``lm.nearest``.

    For up to a million rows the exact search, which needs no index, is fast enough.

    Args:
        column: vectors, or texts, which are embedded; a list, array (n, d), or column.
        model: the embedding model for texts.

    Raises:
        UsageError: usearch is not installed.
    """
    require_package("usearch", "An index", extra="index")
    from usearch.index import Index

    column = resolve_column(column)
    vectors = resolve_vectors(column, resolve_model(column, model))
    usearch_index = Index(ndim=vectors.shape[1], metric="cos", dtype="f32")
    positions = np.flatnonzero(~np.isnan(vectors).any(axis=1))
    show, began = current_host().create_progress_display(), time.perf_counter()
    try:
        for start in range(0, len(positions), _BATCH_ROWS):
            some = positions[start : start + _BATCH_ROWS]
            usearch_index.add(some.astype(np.uint64), vectors[some])
            done, elapsed_s = start + len(some), time.perf_counter() - began
            show(Progress("building an index", done, len(positions), "rows", elapsed_s))
    finally:
        show(None)
    return VectorIndex(usearch_index, len(vectors))


class VectorIndex:
    """An approximate search index over ``rows`` vectors. Missing vectors are never found."""

    def __init__(self, usearch_index: Any, rows: int) -> None:
        self._index = usearch_index
        self._index.expansion_search = _EXPANSION_SEARCH  # not in the file of a saved index
        self.rows = rows

    @property
    def dimensions(self) -> int:
        """The number of dimensions of the vectors."""
        return int(self._index.ndim)

    def search(self, query: Matrix, k: int) -> tuple[NDArray[np.int64], Matrix]:
        """Return the positions of at most ``k`` rows near ``query`` (d), best first, and cosines."""
        found = self._index.search(query, k)
        cosines = 1 - np.asarray(found.distances, np.float32)
        return np.asarray(found.keys, np.int64), cosines

    def save(self, path: str | Path) -> None:
        """Save the index to a file, and the number of rows to a second file ``….rows``."""
        self._index.save(str(path))
        _row_count_file(path).write_text(str(self.rows), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> VectorIndex:
        """
        Load an index from a file. Only load files that you trust; they are not checked.

        Raises:
            UsageError: the file does not exist, or usearch is not installed.
        """
        require_package("usearch", "An index", extra="index")
        from usearch.index import Index

        if not Path(path).is_file() or not _row_count_file(path).is_file():
            msg = f"No index file at {path}."
            raise UsageError(msg, hint="Create one: lm.index(df.vector).save(…)")
        return cls(Index.restore(str(path)), int(_row_count_file(path).read_text("utf-8")))

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"VectorIndex({len(self):,} of {self.rows:,} rows, {self.dimensions} dimensions)"


def _row_count_file(path: str | Path) -> Path:
    return Path(f"{path}.rows")
