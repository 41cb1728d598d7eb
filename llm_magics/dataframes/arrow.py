"""
Columns of vectors in Arrow's own form, ``list<float>``, as clusters and files of Arrow want them.

pandas writes such a column to Parquet and cannot read it back, because it does not know the name
of the type it has written there (pandas-dev/pandas#59738). This module registers that name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

VECTOR_TYPE = pd.ArrowDtype(pa.list_(pa.float32()))


@pd.api.extensions.register_extension_dtype
class _VectorTypeByName(pd.api.extensions.ExtensionDtype):
    """No type: it stands among pandas' types to say which one has the name that is in files."""

    name = "llm_magics.vector_type_by_name"
    type = list

    @classmethod
    def construct_from_string(cls, string: str) -> pd.ArrowDtype:
        """The type of vectors, for its own name."""
        if string == str(VECTOR_TYPE):
            return VECTOR_TYPE
        msg = f"{string!r} is not the name of the type of vectors"
        raise TypeError(msg)


def arrow_column(
    vectors: Sequence[Vectors | None], index: pd.Index, name: object
) -> pd.Series[Any]:
    """``vectors`` as a column of Arrow's; the numbers are copied once, and are never objects."""
    widths = [0 if vector is None else len(vector) for vector in vectors]
    present = [vector for vector in vectors if vector is not None]
    values = pa.array(np.concatenate(present) if present else np.empty(0, np.float32))
    offsets = pa.array(np.concatenate([[0], np.cumsum(widths)]).astype(np.int32))
    missing = pa.array([vector is None for vector in vectors], pa.bool_())
    lists = pa.ListArray.from_arrays(offsets, values, mask=missing)
    extension = pd.arrays.ArrowExtensionArray(lists)
    return pd.Series(extension, index=index, name=name)


def is_arrow_column(column: Any) -> bool:
    """Whether ``column`` is a pandas column of Arrow's lists."""
    kind = getattr(column, "dtype", None)
    if not isinstance(kind, pd.ArrowDtype):
        return False
    arrow_type = kind.pyarrow_dtype
    return any(
        is_kind(arrow_type)
        for is_kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )


def _as_lists(column: pd.Series[Any]) -> Any:
    return pa.chunked_array(pa.array(column)).cast(VECTOR_TYPE.pyarrow_dtype)


def to_matrix(column: pd.Series[Any]) -> Vectors | None:
    """All of them as an array (n, d) in the column's own memory, where they lie so."""
    lists = _as_lists(column)
    if lists.num_chunks != 1 or lists.null_count or not len(lists):
        return None
    chunk = lists.chunk(0)
    widths = np.diff(chunk.offsets.to_numpy())
    if not widths[0] or (widths != widths[0]).any():
        return None
    flat = chunk.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    matrix: Vectors = flat.reshape(len(chunk), int(widths[0]))
    return matrix


def to_vectors(column: pd.Series[Any]) -> list[Vectors | None]:
    """The vectors of a column of Arrow's lists, each a part of its memory."""
    found: list[Vectors | None] = []
    for chunk in _as_lists(column).chunks:
        values = chunk.values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)  # noqa: PD011 (Arrow's own)
        offsets = chunk.offsets.to_numpy()
        there = chunk.is_valid().to_numpy(zero_copy_only=False)
        found += [
            values[start:stop] if is_there else None
            for start, stop, is_there in zip(offsets[:-1], offsets[1:], there, strict=True)
        ]
    return found
