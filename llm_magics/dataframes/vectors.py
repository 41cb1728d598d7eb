"""
What is like what: nearest rows, and rows that say the same.

Exact, by products of matrices in blocks: a million rows of 384 numbers are some 800 million
multiplications a query, which a processor does in a blink, and nothing need be built first.

Who made the vectors of a column, so that a question is embedded by the same model.

In memory it is known of the array that vectors are rows of, wherever they went since; in a file,
and in a copy of the numbers, by a note that pandas hands on with a frame or column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics.dataframes.rows import one_column
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

# So far below 1 the cosine of a vector with itself may come out.
_ROUNDING = 1e-6

# Numbers in a block of products: 64 MB.
_BLOCK = 16_000_000


# So many rows are compared with all before them at once.
_ROWS = 512


class NoVectorsError(UsageError):
    """Every row of a column is missing."""


def matrix(column: Any) -> Vectors:
    """
    A column of vectors as an array of shape (n, d), float32; a row of NaN where one is missing.

    No copy is made of rows that lie one after the other, as those do that were embedded together:
    the array can only be read, for a change to it would change the column. To change it, copy it.

    Raises:
        UsageError: the vectors are not of one length, or are none.
    """
    column = one_column(column)
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

        if arrow.is_arrow(column):
            in_place = arrow.matrix_of(column)
            if in_place is not None:
                return in_place
            column = arrow.rows_of(column)
    rows = [None if _is_missing(row) else np.asarray(row, np.float32) for row in column]
    shapes = {row.shape for row in rows if row is not None}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        told = ", ".join(sorted(map(str, shapes))) or "none"
        msg = f"A column of vectors of one length is needed, and this holds {told}."
        kind = UsageError if shapes else NoVectorsError
        raise kind(msg, hint='Embed it: df.llm.embed("text", into="vector").')
    whole = [row for row in rows if row is not None]
    return _in_place(whole) if len(whole) == len(rows) else _copied(rows, len(whole[0]))


def nearest(vectors: Vectors, queries: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
    """
    The ``k`` rows of ``vectors`` (n, d) most like each of ``queries`` (m, d), best first.

    Returns:
        Their places and their cosines, each of shape (m, min(k, n)). Rows that are missing come
        last, with a cosine of NaN.
    """
    k = min(k, len(vectors))
    normed, asked = normalised(vectors), normalised(queries)
    places = np.empty((len(asked), k), np.int64)
    scores = np.empty((len(asked), k), np.float32)
    step = max(1, _BLOCK // max(1, len(normed)))
    for start in range(0, len(asked), step):
        cosines = asked[start : start + step] @ normed.T
        cosines[np.isnan(cosines)] = -np.inf
        best = (
            np.argpartition(-cosines, k - 1, axis=1)[:, :k] if k else places[start : start + step]
        )
        of_best = np.take_along_axis(cosines, best, axis=1)
        order = np.lexsort((best, -of_best), axis=1)
        places[start : start + step] = np.take_along_axis(best, order, axis=1)
        scores[start : start + step] = np.take_along_axis(of_best, order, axis=1)
    scores[np.isinf(scores)] = np.nan
    return places, scores


def groups(vectors: Vectors, threshold: float) -> NDArray[np.int64]:
    """
    For each row of ``vectors`` (n, d) the first row that it says the same as, itself included.

    A row joins the first one before it whose cosine is at least ``threshold``, and which joined
    none itself.
    """
    normed = normalised(vectors)
    first = np.arange(len(normed))
    there = np.flatnonzero(np.isfinite(normed).all(axis=1))  # the others are like nothing
    limit = threshold - _ROUNDING
    heads = np.empty((len(there), normed.shape[1]), np.float32)
    kept: list[int] = []
    for start in range(0, len(there), _ROWS):
        rows = there[start : start + _ROWS]
        rows = _without_like(normed, rows, heads[: len(kept)], kept, limit, first)
        new = _heads_within(normed[rows], rows, limit, first)
        heads[len(kept) : len(kept) + len(new)] = normed[new]
        kept.extend(new)
    return first


def _without_like(  # noqa: PLR0913, PLR0917 (the state of a search)
    normed: Vectors,
    rows: NDArray[np.int64],
    heads: Vectors,
    kept: Sequence[int],
    limit: float,
    first: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Note in ``first`` which of ``rows`` are like one of ``heads``, and return the others."""
    step = max(1, _BLOCK // _ROWS)
    for start in range(0, len(heads), step):
        cosines = normed[rows] @ heads[start : start + step].T
        like = np.flatnonzero(cosines.max(axis=1) >= limit)
        if not len(like):
            continue
        heads_of = start + np.argmax(cosines[like] >= limit, axis=1)
        first[rows[like]] = [kept[head] for head in heads_of]
        rows = np.delete(rows, like)
        if not len(rows):
            break
    return rows


def _heads_within(
    normed: Vectors, rows: NDArray[np.int64], limit: float, first: NDArray[np.int64]
) -> list[int]:
    """Note in ``first`` which of ``rows`` are like one before them, and return the others."""
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


def normalised(vectors: Vectors) -> Vectors:
    """Rows of length 1; of those that are no direction, NaN."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norms > 0, vectors / norms, np.nan).astype(np.float32)


def _is_missing(row: Any) -> bool:
    return row is None or type(row).__name__ == "NAType" or (np.ndim(row) == 0 and row != row)  # noqa: PLR0124 (NaN)


def _in_place(rows: Sequence[Vectors]) -> Vectors:
    """The array that ``rows`` are rows of, or a copy where they are not."""
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
    """Where in memory an array begins."""
    begins: int = array.__array_interface__["data"][0]
    return begins


def _copied(rows: Sequence[Vectors | None], width: int) -> Vectors:
    made = np.full((len(rows), width), np.nan, np.float32)
    for number, row in enumerate(rows):
        if row is not None:
            made[number] = row
    return made
