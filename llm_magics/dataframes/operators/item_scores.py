"""The scores by which candidates are chosen: of a column, or of a model that reads several rows."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from llm_magics.dataframes.operators.consent import no_cost
from llm_magics.dataframes.rows import get_column
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

    from llm_magics.dataframes.operators.packing_check import PackingCheck
    from llm_magics.dataframes.reports import RowsEstimate
    from llm_magics.errors import LLMError


class ItemScores(Protocol):
    """
    A score of each item; the highest is the best.

    Attributes:
        is_new: whether the scores are not yet in the table.
    """

    is_new: bool

    @property
    def name(self) -> str:
        """The column, or the model."""

    @property
    def calls(self) -> int:
        """The number of prompts that were sent and answered."""

    @property
    def cached(self) -> int:
        """The number of prompts whose answer was stored before."""

    @property
    def cost_usd(self) -> float | None:
        """The cost of ``calls`` in US dollars; ``None`` if unknown."""

    @property
    def errors(self) -> dict[int, LLMError]:
        """The error of each item without a score."""

    @property
    def packing(self) -> PackingCheck | None:
        """The check of the rows in one prompt, if there was one."""

    def estimate(self) -> RowsEstimate:
        """Return the estimated cost, without prompts that have an answer."""

    def check_packing(self) -> bool:
        """Check how many rows fit into a prompt; return whether fewer do than was estimated."""

    def obtain(self) -> NDArray[np.float64]:
        """Return the score of each item; of one that failed, NaN."""


class ColumnScores:
    """Scores from a column of the table; an item's score is the mean of its rows' scores."""

    is_new = False
    packing = None
    calls = 0
    cached = 0
    cost_usd: float | None = 0.0

    def __init__(self, frame: DataFrame, name: Any, codes: NDArray[np.int32]) -> None:
        """
        Read the column ``name``.

        Args:
            frame: the table.
            name: the column of numbers.
            codes: the item of each row; negative without one.

        Raises:
            UsageError: the column has values that are not numbers.
        """
        self.name = str(name)
        self.errors: dict[int, LLMError] = {}
        column = get_column(frame, name)
        if column.dtype == object:  # the columns of polars and pyarrow
            with suppress(TypeError, ValueError):
                column = pd.to_numeric(column, errors="raise")
        if not pd.api.types.is_numeric_dtype(column.dtype):
            msg = f"The column of scores {name!r:.60} has the type {column.dtype}, not numbers."
            hint = f"Convert it: df[{name!r}] = pd.to_numeric(df[{name!r}])"
            raise UsageError(msg, hint=hint)
        self._values = column.to_numpy(np.float64, na_value=np.nan)
        self._codes = codes

    def estimate(self) -> RowsEstimate:
        """Return the estimate of no prompts."""
        return no_cost(len(self._codes))

    def check_packing(self) -> bool:
        """Return false: a column needs no prompts."""
        return False

    def obtain(self) -> NDArray[np.float64]:
        """Return the score of each item; NaN if the scores of all its rows are missing."""
        is_scored = (self._codes >= 0) & ~np.isnan(self._values)
        codes = self._codes[is_scored]
        size = int(self._codes.max(initial=-1)) + 1
        sums = np.bincount(codes, weights=self._values[is_scored], minlength=size)
        counts = np.bincount(codes, minlength=size)
        return np.where(counts > 0, sums / np.maximum(1, counts), np.nan)


def top_items(
    scores: NDArray[np.float64], places: NDArray[np.intp], count: int
) -> NDArray[np.intp]:
    """
    Return the ``count`` items with the highest scores, best first.

    Args:
        scores: the score of each item. Those without one (NaN) come last.
        places: the place of each item among those with the same score.
        count: the number of items to return.
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    return np.lexsort((places, np.isnan(scores), -known))[:count]
