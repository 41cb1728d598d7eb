"""
``lm.index``: what is near, found without looking at every row; for many questions to millions.

An index is built once, which takes minutes for a million rows, and answers in less than a
millisecond; what it gives is nearly always, and not always, what an exact search gives
("HNSW", Malkov & Yashunin, 2016, https://arxiv.org/abs/1603.09320).
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics import host
from llm_magics.errors import UsageError
from llm_magics.frames.makers import model_for
from llm_magics.frames.rows import one_column
from llm_magics.frames.vectors import vectors_of
from llm_magics.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

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
    show, began = host.new_view(), time.perf_counter()
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

    def search(self, query: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
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
