"""Proxies: cheap scores that predict the answers of an oracle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from llm_magics.dataframes.rows import get_column
from llm_magics.errors import UsageError, abbreviate

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

    from llm_magics.dataframes.reports import RowsEstimate

# The score of a row about which nothing is known.
UNKNOWN_SCORE = 0.5


class Proxy(ABC):
    """
    A cheap score that predicts the answers of an oracle about the rows of a table.

    Rows are numbered from 0 among those that have a question. In a ``with`` block, all calls share
    one line of progress.

    Attributes:
        name: what reports call it.
        learns: whether `fit` has an effect on `predict`, which then returns calibrated values.
        is_paid: whether it sends prompts, which may cost money.
        calls: the number of prompts that were sent for it.
        cost_usd: their cost in US dollars; ``None`` if unknown.
    """

    name: str
    learns: bool
    is_paid: bool = False
    calls: int = 0
    cost_usd: float | None = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 (most proxies show no progress)
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the line of progress."""

    def fit(  # noqa: B027 (some proxies do not learn)
        self, rows: NDArray[np.intp], labels: NDArray[np.int8]
    ) -> None:
        """Learn from rows and their labels, 0 or 1."""

    @abstractmethod
    def predict(self) -> NDArray[np.float64]:
        """Return a score in [0, 1] for each row; a high one predicts yes."""

    @abstractmethod
    def held_out(self, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> NDArray[np.float64]:
        """
        Return a value for each of ``rows`` that does not depend on its label.

        Higher values predict yes. Only ``rows`` are scored, so that a pilot costs little.
        """

    def estimate(
        self, rows: NDArray[np.intp] | None = None, *, with_stored: bool = False
    ) -> RowsEstimate | None:
        """
        Return the estimated cost of scoring ``rows``, by default all; ``None`` if it is free.

        Rows that have a score are free. ``with_stored`` is as for `Oracle.estimate`.
        """
        return None


class ColumnScores(Proxy):
    """A column of scores in [0, 1]; a missing score counts as 0.5."""

    learns = False

    def __init__(self, frame: DataFrame, column: Hashable, rows: NDArray[np.intp]) -> None:
        """
        Read the scores.

        Args:
            frame: the table.
            column: the name of the column.
            rows: the positions of the rows that have a question.

        Raises:
            UsageError: a score is neither a number in [0, 1] nor missing.
        """
        self.name = f"the column {column}"
        self._scores = read_scores(get_column(frame, column))[rows]

    def predict(self) -> NDArray[np.float64]:
        """Return the scores."""
        return self._scores

    def held_out(self, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> NDArray[np.float64]:
        """Return the scores of ``rows``."""
        scores: NDArray[np.float64] = self._scores[rows]
        return scores


def read_scores(column: Series[Any]) -> NDArray[np.float64]:
    """
    Return a column of scores; a missing one is 0.5.

    Raises:
        UsageError: a value is neither a number in [0, 1] nor missing.
    """
    import pandas as pd

    try:
        scores = pd.to_numeric(column, errors="raise").to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise _score_error(column, next(filter(_is_no_number, column.tolist()), None)) from None
    outside = np.flatnonzero((scores < 0) | (scores > 1))
    if len(outside):
        raise _score_error(column, column.tolist()[outside[0]])
    return np.where(np.isnan(scores), UNKNOWN_SCORE, scores)


def _is_no_number(value: Any) -> bool:
    return value is not None and not isinstance(value, int | float | np.number)


def _score_error(column: Series[Any], value: Any) -> UsageError:
    msg = f"The column {column.name} has the score {abbreviate(value)}."
    return UsageError(msg, hint="The scores of a proxy are numbers from 0 to 1.")
