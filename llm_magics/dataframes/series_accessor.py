"""``series.llm``. Importing this module registers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import pandas as pd

from llm_magics.dataframes import prompting, search
from llm_magics.dataframes.embed import embed_column
from llm_magics.dataframes.reports import ReportMixin, store_report
from llm_magics.dataframes.rows import OnError
from llm_magics.runtime.embedding import EmbedOptions
from llm_magics.runtime.embedding.results import TooLong

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from llm_magics.dataframes.batch_job import BatchJob
    from llm_magics.dataframes.plot import VectorPlot
    from llm_magics.dataframes.reports import RowsEstimate


@pd.api.extensions.register_series_accessor("llm")
class SeriesAccessor(ReportMixin):
    """Methods that apply language models to a column."""

    def __init__(self, series: Series[Any]) -> None:
        super().__init__(series)
        self._series = series

    @overload
    def embed(
        self,
        *,
        model: str | None = ...,
        batch_size: int | None = ...,
        concurrency: int | None = ...,
        too_long: TooLong = ...,
        on_error: OnError = ...,
        dimensions: int | None = ...,
        prefix: str = ...,
        yes: bool = ...,
        batch: bool = ...,
        wait: Literal[True] = ...,
    ) -> Series[Any]: ...

    @overload
    def embed(
        self,
        *,
        model: str | None = ...,
        batch_size: int | None = ...,
        concurrency: int | None = ...,
        too_long: TooLong = ...,
        on_error: OnError = ...,
        dimensions: int | None = ...,
        prefix: str = ...,
        yes: bool = ...,
        batch: bool = ...,
        wait: Literal[False],
    ) -> BatchJob: ...

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
        batch: bool = False,
        wait: bool = True,
    ) -> Series[Any] | BatchJob:
        """
        Return the vector of each text, float32, on the same index. Missing texts stay missing.

        Args:
            model: ``provider/name``; by default the setting ``embedding_model``.
            batch_size, concurrency: texts per request and concurrent requests.
            too_long: ``truncate``, ``chunk-mean`` or ``error``, as for `llm_magics.embed`.
            on_error: ``null`` leaves the vector of a refused text empty and warns; ``raise``
                raises the error.
            dimensions, prefix: as for `llm_magics.embed`.
            yes: do not ask for confirmation of the cost (setting ``confirm_above_usd``).
            batch: embed the texts in batch jobs of the service, at its lower price. The call waits
                until they have ended (setting ``batch_timeout``). Jobs go on after an interrupt;
                the same call, also in another kernel, finds them.
            wait: with ``False``, submit the jobs and return a `BatchJob`.
        """
        options = EmbedOptions(
            batch_size=batch_size,
            concurrency=concurrency,
            too_long=too_long,
            dimensions=dimensions,
            prefix=prefix,
            batch=batch,
            wait=wait,
        )
        return embed_column(self._series, model, options, on_error, yes=yes)

    def prompt(
        self, prompt: str, *, schema: Any = None, **options: Any
    ) -> Series[Any] | DataFrame | RowsEstimate | BatchJob:
        """
        Return the answer to a prompt for each text, on the same index; with a schema, a DataFrame.

        Args:
            prompt: a template with ``{{ text }}``.
            schema, options: as for `llm_magics.prompt`.
        """
        answers: Series[Any] | DataFrame | RowsEstimate | BatchJob
        answers = self._reported(prompting.prompt(self._series, prompt, schema=schema, **options))
        return answers

    def extract(self, schema: Any, **options: Any) -> DataFrame | RowsEstimate | BatchJob:
        """
        Extract the fields of ``schema`` from each text; return a DataFrame with a column per field.

        Args:
            schema: a pydantic class, a JSON schema, or fields in short: ``"name, age int"``.
            options: as for `llm_magics.prompt`.
        """
        found: DataFrame | RowsEstimate | BatchJob
        found = self._reported(prompting.extract(self._series, schema, **options))
        return found

    def classify(
        self, labels: Sequence[str], **options: Any
    ) -> Series[Any] | RowsEstimate | BatchJob:
        """
        Assign one of ``labels`` to each text; return them as a categorical column.

        Args:
            labels: at least two different labels.
            options: as for `llm_magics.prompt`.
        """
        found: Series[Any] | RowsEstimate | BatchJob
        found = self._reported(prompting.classify(self._series, labels, **options))
        return found

    def nearest(self, query: str | Sequence[float], **options: Any) -> Series[Any]:
        """
        Return the cosine similarities of the rows closest to ``query``, best first.

        The options are those of `llm_magics.nearest`.
        """
        return search.nearest(self._series, query, **options)

    def dedupe(self, threshold: float = 0.95, *, model: str | None = None) -> Series[Any]:
        """Return the column without near-duplicates of earlier rows."""
        is_first = search.dedupe(self._series, threshold, model=model)
        return self._series[is_first.to_numpy()]

    def plot(self, **options: Any) -> VectorPlot:
        """Plot the column in two dimensions. The options are those of `llm_magics.plot`."""
        from llm_magics.dataframes.plot import plot

        return plot(self._series, **options)

    def _reported(self, result: Any) -> Any:
        """Return ``result``, and store its report with the column."""
        if isinstance(result, pd.Series | pd.DataFrame):
            report = result.llm.report
            if report is not None:
                store_report(self._of, report)
        return result
