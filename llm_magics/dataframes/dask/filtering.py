"""``filter`` for Dask: decisions about all rows in this process, applied to the partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics.dataframes.operators.filter import filter_frame
from llm_magics.dataframes.row_prompts import RowPrompts, prompt_columns
from llm_magics.dataframes.vectors import is_vector_column

if TYPE_CHECKING:
    from numpy.typing import NDArray


def filter_partitions(frame: Any, prompt: str, options: Mapping[str, Any]) -> Any:
    """
    Return the rows of a Dask DataFrame for which ``prompt`` is true.

    Args:
        frame: the Dask DataFrame.
        prompt: the statement.
        options: the arguments of `llm_magics.filter`.
    """
    import dask
    import dask.dataframe as dd

    columns = needed_columns(frame, prompt, options)
    parts = dask.compute(*frame[columns].to_delayed())
    starts = np.cumsum([0, *map(len, parts)])
    local = pd.concat(parts)

    def select(positions: NDArray[np.intp]) -> Any:
        cuts = np.searchsorted(positions, starts)
        take = dask.delayed(_take)
        chosen = [
            take(part, positions[first:last] - start)
            for part, start, first, last in zip(
                frame.to_delayed(), starts[:-1], cuts[:-1], cuts[1:], strict=True
            )
        ]
        return dd.from_delayed(chosen, meta=frame._meta, divisions=frame.divisions)

    return filter_frame(local, prompt, select, options)


def needed_columns(frame: Any, prompt: str, options: Mapping[str, Any]) -> Sequence[Any]:
    """Return the columns that the oracle and the proxies of a filter read."""
    names = list(frame.columns)
    oracle, proxy = options.get("oracle"), options.get("proxy", "auto")
    if callable(oracle):
        return names
    needed = {str(name) for name in prompt_columns(frame, RowPrompts(text=prompt))}
    needed |= {each for each in (oracle, proxy) if isinstance(each, str)} & set(map(str, names))
    if proxy == "auto":
        head = frame.head(compute=True)
        needed |= {str(name) for name in names if is_vector_column(head[name])}
    return [name for name in names if str(name) in needed]


def _take(part: pd.DataFrame, positions: NDArray[np.intp]) -> pd.DataFrame:
    return part.iloc[positions]
