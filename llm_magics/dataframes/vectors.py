"""
Columns of vectors: conversion to a matrix, cosine similarity, and the model that embedded them.

The search is exact and computes matrix products in blocks. A query over a million rows of 384
numbers takes about 400 million multiplications, and needs no index.

The embedding model of a column is found in two ways. In memory it is recorded for the array that
the vectors are rows of, even if they are moved to another column. In files and copies it is
recorded in the ``attrs`` of the frame or column.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llm_magics.dataframes.rows import to_list
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

# By rounding, the cosine of a vector with itself may be this much below 1.
_ROUNDING = 1e-6

# The number of float32 values in a block of a matrix product: 64 MB.
_BLOCK_NUMBERS = 16_000_000


# The number of rows that are compared with all earlier rows in one step.
_BLOCK_ROWS = 512


class NoVectorsError(UsageError):
    """Every row of a column is missing."""


def matrix(column: Any) -> Vectors:
    """
    Return a column of vectors as an array of shape (n, d), float32. Missing rows are NaN.

    Vectors that were embedded together are not copied, so the array is read-only. Copy it to
    change it.

    Raises:
        UsageError: the vectors differ in length, or the column has none.
    """
    column = resolve_column(column)
    return _read_only(_matrix(column))


def _read_only(array: Vectors) -> Vectors:
    view = array.view()
    view.flags.writeable = False
    return view


def _matrix(column: Any) -> Vectors:
    if isinstance(column, np.ndarray) and column.ndim == 2:
        return column.astype(np.float32, copy=False)
    if "pyarrow" in str(getattr(column, "dtype", "")):
        from llm_magics.dataframes import arrow

        if arrow.is_arrow_column(column):
            in_place = arrow.to_matrix(column)
            if in_place is not None:
                return in_place
            column = arrow.to_vectors(column)
    rows = [None if _is_missing(row) else np.asarray(row, np.float32) for row in column]
    shapes = {row.shape for row in rows if row is not None}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        listed = ", ".join(sorted(map(str, shapes))) or "none"
        msg = f"Expected a column of vectors of one length, got {listed}."
        kind = UsageError if shapes else NoVectorsError
        raise kind(msg, hint='Embed it: df.llm.embed("text", into="vector").')
    present = [row for row in rows if row is not None]
    return (
        _shared_matrix(present)
        if len(present) == len(rows)
        else _copied_matrix(rows, len(present[0]))
    )


def top_k(vectors: Vectors, queries: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
    """
    Find the ``k`` rows of ``vectors`` (n, d) nearest to each of ``queries`` (m, d), best first.

    Returns:
        the positions and the cosines of the rows, each of shape (m, min(k, n)). Missing rows are
        last and have the cosine NaN.
    """
    k = min(k, len(vectors))
    normed, normed_queries = normalize(vectors), normalize(queries)
    positions = np.empty((len(normed_queries), k), np.int64)
    scores = np.empty((len(normed_queries), k), np.float32)
    step = max(1, _BLOCK_NUMBERS // max(1, len(normed)))
    for start in range(0, len(normed_queries), step):
        cosines = normed_queries[start : start + step] @ normed.T
        cosines[np.isnan(cosines)] = -np.inf
        best = (
            np.argpartition(-cosines, k - 1, axis=1)[:, :k]
            if k
            else positions[start : start + step]
        )
        of_best = np.take_along_axis(cosines, best, axis=1)
        order = np.lexsort((best, -of_best), axis=1)
        positions[start : start + step] = np.take_along_axis(best, order, axis=1)
        scores[start : start + step] = np.take_along_axis(of_best, order, axis=1)
    scores[np.isinf(scores)] = np.nan
    return positions, scores


def group_duplicates(vectors: Vectors, threshold: float) -> NDArray[np.int64]:
    """
    Return for each row of ``vectors`` (n, d) the first row of its group of duplicates.

    A row joins the group of the earliest first row with a cosine of at least ``threshold``; if
    there is none, it is the first row of a new group.
    """
    normed = normalize(vectors)
    first = np.arange(len(normed))
    present = np.flatnonzero(np.isfinite(normed).all(axis=1))  # missing rows have no duplicates
    limit = threshold - _ROUNDING
    heads = np.empty((len(present), normed.shape[1]), np.float32)
    head_rows: list[int] = []
    for start in range(0, len(present), _BLOCK_ROWS):
        rows = present[start : start + _BLOCK_ROWS]
        rows = _assign_to_heads(normed, rows, heads[: len(head_rows)], head_rows, limit, first)
        new = _find_new_heads(normed[rows], rows, limit, first)
        heads[len(head_rows) : len(head_rows) + len(new)] = normed[new]
        head_rows.extend(new)
    return first


def _assign_to_heads(  # noqa: PLR0913, PLR0917 (the state of a search)
    normed: Vectors,
    rows: NDArray[np.int64],
    heads: Vectors,
    head_rows: Sequence[int],
    limit: float,
    first: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Record in ``first`` the rows that are duplicates of ``heads``; return the other rows."""
    step = max(1, _BLOCK_NUMBERS // _BLOCK_ROWS)
    for start in range(0, len(heads), step):
        cosines = normed[rows] @ heads[start : start + step].T
        like = np.flatnonzero(cosines.max(axis=1) >= limit)
        if not len(like):
            continue
        heads_of = start + np.argmax(cosines[like] >= limit, axis=1)
        first[rows[like]] = [head_rows[head] for head in heads_of]
        rows = np.delete(rows, like)
        if not len(rows):
            break
    return rows


def _find_new_heads(
    normed: Vectors, rows: NDArray[np.int64], limit: float, first: NDArray[np.int64]
) -> list[int]:
    """Record in ``first`` the duplicates among ``rows``; return the rows that start a group."""
    like = np.tril(normed @ normed.T >= limit, -1)
    is_head: NDArray[np.bool_] = np.logical_not(like.any(axis=1))
    for row in np.flatnonzero(~is_head):
        same = np.flatnonzero(like[row] & is_head)
        same = same[same < row]
        if len(same):
            first[rows[row]] = rows[same[0]]
        else:
            is_head[row] = True
    return [int(row) for row in rows[is_head]]


def normalize(vectors: Vectors) -> Vectors:
    """Scale rows to length 1. Rows of length 0, or with missing values, become NaN."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.where(norms > 0, vectors / norms, np.nan).astype(np.float32)


def _is_missing(row: Any) -> bool:
    return row is None or type(row).__name__ == "NAType" or (np.ndim(row) == 0 and row != row)  # noqa: PLR0124 (NaN)


def _shared_matrix(rows: Sequence[Vectors]) -> Vectors:
    """Return the array that ``rows`` are consecutive rows of, without a copy; otherwise a copy."""
    first = rows[0]
    base: Any = first.base
    width = len(first)
    if (
        not isinstance(base, np.ndarray)
        or (base.ndim, base.dtype, base.shape[-1]) != (2, np.float32, width)
        or not base.flags.c_contiguous
    ):
        return np.stack(rows)
    step = width * first.itemsize
    start = _address(first)
    lie_so = (row.base is base and _address(row) == start + n * step for n, row in enumerate(rows))
    if not all(lie_so):
        return np.stack(rows)
    at = (start - _address(base)) // step
    found: Vectors = base[at : at + len(rows)]
    return found


def _address(array: Any) -> int:
    """Return the memory address of an array's data."""
    begins: int = array.__array_interface__["data"][0]
    return begins


def _copied_matrix(rows: Sequence[Vectors | None], width: int) -> Vectors:
    copy = np.full((len(rows), width), np.nan, np.float32)
    for number, row in enumerate(rows):
        if row is not None:
            copy[number] = row
    return copy


_MODELS_KEY = "llm_magics_vectors"

# The column of texts that a column of vectors was embedded from.
_SOURCES_KEY = "llm_magics_sources"


class EmbeddingModel(NamedTuple):
    """The full name of a model, and the number of dimensions if one was requested."""

    model: str
    dimensions: int | None = None


_models_by_array: dict[int, tuple[weakref.ref[Any], EmbeddingModel]] = {}


def tag_array(matrix: NDArray[np.float32], model: EmbeddingModel) -> None:
    """Record the model that embedded the rows of ``matrix`` while the array is in memory."""
    base = matrix if matrix.base is None else matrix.base
    if isinstance(base, np.ndarray):
        key = id(base)
        reference = weakref.ref(base, lambda _: _models_by_array.pop(key, None))
        _models_by_array[key] = (reference, model)


def tag(of: Any, column: object, model: EmbeddingModel) -> None:
    """Record in the ``attrs`` of a frame or column the model that embedded ``column``."""
    noted = of.attrs.get(_MODELS_KEY)
    known = noted if isinstance(noted, dict) else {}
    of.attrs[_MODELS_KEY] = {**known, str(column): list(model)}


def tagged_columns(frame: Any) -> list[Any]:
    """Return the names of the columns whose embedding model is recorded in ``frame``."""
    noted = frame.attrs.get(_MODELS_KEY)
    if not isinstance(noted, dict) or not frame.columns.is_unique:
        return []
    return [name for name in frame.columns if str(name) in noted]


def tag_source(frame: Any, into: object, column: object) -> None:
    """Record in ``frame`` that the vectors in ``into`` are those of the texts in ``column``."""
    noted_before = frame.attrs.get(_SOURCES_KEY)
    known = noted_before if isinstance(noted_before, dict) else {}
    frame.attrs[_SOURCES_KEY] = {**known, str(into): str(column)}


def source_column(frame: Any, vectors: object) -> Any:
    """Return the name of the column that ``vectors`` were embedded from, or ``None``."""
    noted_before = frame.attrs.get(_SOURCES_KEY)
    source = noted_before.get(str(vectors)) if isinstance(noted_before, dict) else None
    return next((name for name in frame.columns if str(name) == source), None)


def with_tags(column: Any, frame: Any) -> Any:
    """Return ``column`` with the embedding model that ``frame`` records for it."""
    found = column.copy(deep=False)
    if _MODELS_KEY in frame.attrs:
        found.attrs[_MODELS_KEY] = frame.attrs[_MODELS_KEY]
    return found


def find_embedding_model(column: Any) -> EmbeddingModel | None:
    """
    Return the model that embedded ``column``; ``None`` if it is unknown.

    Raises:
        UsageError: the column has vectors of several models.
    """
    found = _models_in_memory(column)
    if len(found) > 1:
        names = " and ".join(sorted(maker.model for maker in found))
        msg = f"The column mixes vectors of {names}, which cannot be compared."
        raise UsageError(msg, hint="Embed the column again with one of them.")
    if found:
        return found.pop()
    name = str(getattr(column, "name", None))
    note = getattr(column, "attrs", {}).get(_MODELS_KEY)
    match note.get(name) if isinstance(note, dict) else None:
        case [str(model), int() | None as dimensions]:
            return EmbeddingModel(model, dimensions)
    return None


def resolve_model(column: Any, model: str | None) -> str | None:
    """Return ``model``, or by default the model that embedded ``column``."""
    embedding_model = find_embedding_model(column)
    return model or (embedding_model.model if embedding_model else None)


def _models_in_memory(column: Any) -> set[EmbeddingModel]:
    if isinstance(column, np.ndarray) and column.ndim == 2:
        bases = {id(column), id(column.base)}
    elif str(getattr(column, "dtype", "object")) == "object":
        bases = {id(row.base) for row in column if isinstance(row, np.ndarray)}
    else:
        bases = set()
    return {_models_by_array[base][1] for base in bases if base in _models_by_array}


# The number of rows to inspect to recognise a column of vectors.
_SAMPLE_ROWS = 100


def resolve_column(column: Any) -> Any:
    """
    Return ``column`` as a column that can be read more than once.

    For a DataFrame (pandas, polars) or a table (pyarrow), return its only column of vectors.

    Raises:
        UsageError: the DataFrame has no column of vectors, or more than one.
    """
    if not _is_frame(column):
        return column if hasattr(column, "__len__") else list(column)
    name = find_vector_column(column)
    return with_tags(column[name], column) if hasattr(column, "attrs") else column[name]


def find_vector_column(frame: Any) -> Any:
    """
    Return the name of the only column of vectors in a DataFrame.

    Raises:
        UsageError: the DataFrame has no column of vectors, or more than one.
    """
    names = _column_names(frame)
    having = [name for name in names if is_vector_column(frame[name])]
    if len(having) == 1:
        return having[0]
    if having:
        found = ", ".join(map(str, having))
        msg = f"The DataFrame has {len(having)} vector columns: {found}."
        raise UsageError(msg, hint=f'Choose one of them, for example df["{having[0]}"].')
    listed = ", ".join(map(str, names)) or "none"
    msg = f"The DataFrame has no vector column. Its columns: {listed}."
    raise UsageError(
        msg, hint='Pass a column of vectors, or embed one first: df.llm.embed("text")'
    )


def is_vector_column(column: Any) -> bool:
    """Whether the first list among the first rows of ``column`` has numbers, and no row is text."""
    if getattr(column, "ndim", 1) != 1:  # two columns with the same name
        return False
    head = to_list(column[:_SAMPLE_ROWS])
    first = next((value for value in head if isinstance(value, list | tuple | np.ndarray)), None)
    if first is None or any(isinstance(value, str) for value in head):
        return False
    try:
        vector = np.asarray(first, np.float32)
    except (TypeError, ValueError):
        return False
    return vector.ndim == 1 and vector.size > 0


def _is_frame(value: Any) -> bool:
    return hasattr(value, "columns") or hasattr(value, "column_names")


def _column_names(frame: Any) -> list[Any]:
    return list(getattr(frame, "column_names", None) or frame.columns)
