"""
Which model made the vectors of a column, so that a query is embedded by the same one.

In memory it is known of the array that vectors are rows of, wherever they went since; in a file,
and in a copy of the numbers, by a note that pandas hands on with a frame or column.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOTE = "llm_magics_vectors"

# Of which column of texts a column of vectors was made.
_SOURCES = "llm_magics_sources"


class Maker(NamedTuple):
    """A model's full name, and how many dimensions it was asked for, if that was said."""

    model: str
    dimensions: int | None = None


_of_arrays: dict[int, tuple[weakref.ref[Any], Maker]] = {}


def sign_array(matrix: NDArray[np.float32], maker: Maker) -> None:
    """Remember who made the rows of ``matrix``."""
    whole = matrix if matrix.base is None else matrix.base
    if isinstance(whole, np.ndarray):
        key = id(whole)
        gone = weakref.ref(whole, lambda _: _of_arrays.pop(key, None))
        _of_arrays[key] = (gone, maker)


def sign(of: Any, column: object, maker: Maker) -> None:
    """Note in a frame or column who made the vectors of ``column``."""
    told = of.attrs.get(_NOTE)
    known = told if isinstance(told, dict) else {}
    of.attrs[_NOTE] = {**known, str(column): list(maker)}


def note_source(frame: Any, into: object, column: object) -> None:
    """Note in ``frame`` that the vectors in ``into`` are those of the texts in ``column``."""
    noted_before = frame.attrs.get(_SOURCES)
    known = noted_before if isinstance(noted_before, dict) else {}
    frame.attrs[_SOURCES] = {**known, str(into): str(column)}


def source_of(frame: Any, vectors: object) -> Any:
    """Return the name of the column that ``vectors`` were made of, or ``None``."""
    noted_before = frame.attrs.get(_SOURCES)
    source = noted_before.get(str(vectors)) if isinstance(noted_before, dict) else None
    return next((name for name in frame.columns if str(name) == source), None)


def noted(column: Any, frame: Any) -> Any:
    """``column`` with what its ``frame`` notes of it."""
    found = column.copy(deep=False)
    if _NOTE in frame.attrs:
        found.attrs[_NOTE] = frame.attrs[_NOTE]
    return found


def maker_of(column: Any) -> Maker | None:
    """
    Who made the vectors of ``column``; ``None`` where that is not known.

    Raises:
        UsageError: several models did.
    """
    found = _in_memory(column)
    if len(found) > 1:
        told = " and ".join(sorted(maker.model for maker in found))
        msg = f"The column has vectors of {told}, which cannot be compared."
        raise UsageError(msg, hint="Embed it anew with one of them.")
    if found:
        return found.pop()
    name = str(getattr(column, "name", None))
    note = getattr(column, "attrs", {}).get(_NOTE)
    match note.get(name) if isinstance(note, dict) else None:
        case [str(model), int() | None as dimensions]:
            return Maker(model, dimensions)
    return None


def model_for(column: Any, model: str | None) -> str | None:
    """Who embeds for ``column``: ``model``, else who made its vectors."""
    maker = maker_of(column)
    return model or (maker.model if maker else None)


def _in_memory(column: Any) -> set[Maker]:
    if isinstance(column, np.ndarray) and column.ndim == 2:
        bases = {id(column), id(column.base)}
    elif str(getattr(column, "dtype", "object")) == "object":
        bases = {id(row.base) for row in column if isinstance(row, np.ndarray)}
    else:
        bases = set()
    return {_of_arrays[base][1] for base in bases if base in _of_arrays}
