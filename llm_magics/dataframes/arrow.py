"""
Columns of vectors as Arrow's ``list<float>``, the type for Dask and Parquet files.

pandas writes such a column to Parquet but cannot read it back, because it does not recognise the
type name in the file (pandas-dev/pandas#59738). This module registers that name.
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
    """Not a dtype itself: makes pandas resolve the type name in files to `VECTOR_TYPE`."""

    name = "llm_magics.vector_type_by_name"
    type = list

    @classmethod
    def construct_from_string(cls, string: str) -> pd.ArrowDtype:
        """Return `VECTOR_TYPE` if ``string`` is its name."""
        if string == str(VECTOR_TYPE):
            return VECTOR_TYPE
        msg = f"{string!r} is not the name of the type of vectors"
        raise TypeError(msg)


def arrow_column(
    vectors: Sequence[Vectors | None], index: pd.Index, name: object
) -> pd.Series[Any]:
    """Return ``vectors`` as an Arrow column. The numbers are copied once, without Python objects."""
    widths = [0 if vector is None else len(vector) for vector in vectors]
    present = [vector for vector in vectors if vector is not None]
    values = pa.array(np.concatenate(present) if present else np.empty(0, np.float32))
    offsets = pa.array(np.concatenate([[0], np.cumsum(widths)]).astype(np.int32))
    missing = pa.array([vector is None for vector in vectors], pa.bool_())
    lists = pa.ListArray.from_arrays(offsets, values, mask=missing)
    extension = pd.arrays.ArrowExtensionArray(lists)
    return pd.Series(extension, index=index, name=name)


def is_arrow_column(column: Any) -> bool:
    """Whether ``column`` is a pandas column of Arrow lists."""
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
    """
    Return the vectors as an array (n, d) that shares the column's memory if possible.

    Return ``None`` if the column has several chunks, missing rows or vectors of different lengths.
    """
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
    """Return the vectors of a column of Arrow lists, as views of its memory."""
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
