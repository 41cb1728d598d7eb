"""``series.llm``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics.dataframes import prompting, search
from llm_magics.dataframes.embed import OnError, embed_column
from llm_magics.dataframes.reports import Reporting, keep_report
from llm_magics.runtime.embedding import EmbedOptions
from llm_magics.runtime.embedding.results import TooLong

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from llm_magics.dataframes.plot import VectorPlot
    from llm_magics.dataframes.reports import RowsEstimate


@pd.api.extensions.register_series_accessor("llm")
class SeriesAccessor(Reporting):
    """Language models over a column."""

    def __init__(self, series: Series[Any]) -> None:
        super().__init__(series)
        self._series = series

    def embed(  # noqa: PLR0913 (as for lm.embed)
        self,
        *,
        model: str | None = None,
        batch_size: int | None = None,
        concurrency: int | None = None,
        too_long: TooLong = "truncate",
        on_error: OnError = "null",
        dimensions: int | None = None,
        prefix: str = "",
        yes: bool = False,
    ) -> Series[Any]:
        """
        The vector of each text, float32, on the same index; missing ones stay missing.

        Args:
            model: ``provider/name``; the setting ``embedding_model`` if not given.
            batch_size, concurrency: texts in one request and requests at once.
            too_long: ``truncate``, ``chunk-mean`` or ``error``, as for `llm_magics.embed`.
            on_error: ``null`` leaves a text that is refused without a vector, and warns;
                ``raise`` raises.
            dimensions, prefix: as for `llm_magics.embed`.
            yes: do not ask, whatever it may cost (setting ``confirm_above_usd``).
        """
        options = EmbedOptions(batch_size, concurrency, too_long, dimensions, prefix)
        return embed_column(self._series, model, options, on_error, yes=yes)

    def prompt(
        self, prompt: str, *, schema: Any = None, **given: Any
    ) -> Series[Any] | DataFrame | RowsEstimate:
        """
        The answer to a prompt for each text, on the same index; with a schema, a frame.

        Args:
            prompt: with ``{{ text }}`` in it.
            schema, given: as for `llm_magics.prompt`.
        """
        answers: Series[Any] | DataFrame | RowsEstimate
        answers = self._reported(prompting.prompt(self._series, prompt, schema=schema, **given))
        return answers

    def extract(self, schema: Any, **given: Any) -> DataFrame | RowsEstimate:
        """
        What ``schema`` asks for, taken out of each text: a frame with a column for each field.

        Args:
            schema: a pydantic class, a JSON schema, or fields in short: ``"name, age int"``.
            given: as for `llm_magics.prompt`.
        """
        found: DataFrame | RowsEstimate
        found = self._reported(prompting.extract(self._series, schema, **given))
        return found

    def classify(self, labels: Sequence[str], **given: Any) -> Series[Any] | RowsEstimate:
        """
        The one of ``labels`` that fits each text best, as a categorical column.

        Args:
            labels: at least two.
            given: as for `llm_magics.prompt`.
        """
        found: Series[Any] | RowsEstimate
        found = self._reported(prompting.classify(self._series, labels, **given))
        return found

    def nearest(self, query: str | Sequence[float], **given: Any) -> Series[Any]:
        """The cosines of the rows most like ``query``, best first; as `llm_magics.nearest`."""
        return search.nearest(self._series, query, **given)

    def dedupe(self, threshold: float = 0.95, *, model: str | None = None) -> Series[Any]:
        """The column without the rows that say what one before them says."""
        kept = search.dedupe(self._series, threshold, model=model)
        return self._series[kept.to_numpy()]

    def plot(self, **given: Any) -> VectorPlot:
        """A picture of the column in two dimensions; as `llm_magics.plot`."""
        from llm_magics.dataframes.plot import plot

        return plot(self._series, **given)

    def _reported(self, result: Any) -> Any:
        """``result``; the column remembers how it went."""
        if isinstance(result, pd.Series | pd.DataFrame):
            report = result.llm.report
            if report is not None:
                keep_report(self._of, report)
        return result
