"""``df.llm``. Importing this module registers the accessors of DataFrames and of columns."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import pandas as pd

from llm_magics.dataframes import search
from llm_magics.dataframes.answer_columns import (
    ANSWER,
    answer_fields,
    check_columns_free,
    merge_answers,
    schema_fields,
    tag_answer_columns,
)
from llm_magics.dataframes.classify import classification_prompts, extraction_prompts
from llm_magics.dataframes.confidence import confidence_name
from llm_magics.dataframes.embed import embed_into
from llm_magics.dataframes.operators.methods import OperatorMethods
from llm_magics.dataframes.prompting import run_prompts
from llm_magics.dataframes.reports import ReportMixin
from llm_magics.dataframes.row_attachments import RowAttachments
from llm_magics.dataframes.row_prompts import RowPrompts, prompt_columns
from llm_magics.dataframes.rows import (
    TEXT,
    OnError,
    check_holds_no_texts,
    check_not_overwriting,
    get_column,
)
from llm_magics.dataframes.series_accessor import SeriesAccessor
from llm_magics.dataframes.vectors import find_vector_column, with_tags
from llm_magics.errors import UsageError
from llm_magics.runtime.embedding import EmbedOptions
from llm_magics.runtime.embedding.results import TooLong

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

    from llm_magics.dataframes.batch_job import BatchJob
    from llm_magics.dataframes.map import VectorMap
    from llm_magics.dataframes.plot import VectorPlot
    from llm_magics.dataframes.search import VectorIndex


__all__ = ["FrameAccessor", "SeriesAccessor"]

# Default names of answer columns. Answers under these names do not overwrite the user's columns.
_NOT_CHOSEN = {ANSWER, "label"}


@pd.api.extensions.register_dataframe_accessor("llm")
class FrameAccessor(ReportMixin, OperatorMethods):
    """Methods that apply language models to the columns of a DataFrame."""

    def __init__(self, frame: DataFrame) -> None:
        super().__init__(frame)
        self._frame = frame

    @overload
    def embed(
        self,
        column: str,
        *,
        into: str = ...,
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
    ) -> DataFrame: ...

    @overload
    def embed(
        self,
        column: str,
        *,
        into: str = ...,
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
        column: str,
        *,
        into: str = "vector",
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
    ) -> DataFrame | BatchJob:
        """
        Add the vectors of ``column`` as the column ``into``; return the DataFrame.

        The DataFrame itself is changed, as by an assignment. After an interrupt it has the
        vectors received so far.

        Args:
            column: the column of texts.
            into: the column of vectors. An existing one is overwritten, unless it has texts.
            model, batch_size, concurrency, too_long, on_error, dimensions, prefix, yes: as for
                a column.
            batch, wait: as for a column; with ``wait=False``, the result is a `BatchJob`, whose
                ``result()`` adds the column.
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
        texts = self._column(column)
        check_not_overwriting([column], [into], "vectors")
        check_holds_no_texts(self._frame, into)
        return embed_into(
            self._frame, into, texts, model=model, options=options, on_error=on_error, yes=yes
        )

    def prompt(  # noqa: PLR0913 (as for lm.ask)
        self,
        prompt: str,
        *,
        into: str | None = None,
        schema: Any = None,
        attachments: str | Sequence[str] | None = None,
        attachments_root: str | Path | None = None,
        allow_urls: bool = False,
        model: str | None = None,
        system: str | None = None,
        concurrency: int | None = None,
        on_error: OnError = "null",
        fresh: bool = False,
        dry_run: bool = False,
        yes: bool = False,
        batch: bool = False,
        wait: bool = True,
        **parameters: Any,
    ) -> Any:
        """
        Add the answer to a prompt for each row; return the DataFrame.

        Equal prompts are sent once, and prompts with a cached answer are not sent again: after
        an interrupt or a crash the same call continues where it stopped.

        Args:
            prompt: a template with ``{{ column }}``, or ``{{ row["a column"] }}`` for a name
                with spaces. Rows in which all of these columns are missing are skipped.
            into: the column of answers; ``answer`` by default.
            schema: the structure of an answer, as for `llm_magics.ask`. Each field becomes a
                column, and ``into`` is not used.
            attachments: the column with files to attach, or several: paths, the bytes of files, or
                lists of these. Rows without a file are skipped.
            attachments_root: the folder in which the paths must be; by default the working folder.
            allow_urls: attach addresses too, which the service fetches.
            model, system, parameters: as for `llm_magics.ask`, the same for all rows.
            concurrency: number of concurrent requests.
            on_error: ``null`` leaves the answer of a failed row empty and warns; ``raise``
                raises the error.
            fresh: send prompts even if their answers are cached.
            dry_run: return an estimate of tokens, cost and time, and send nothing.
            yes: do not ask for confirmation of the cost (setting ``confirm_above_usd``).
            batch: send the missing prompts in batch jobs of the service, at its lower price. The
                call waits until they have ended (setting ``batch_timeout``). Jobs go on after an
                interrupt; the same call, also in another kernel, finds them.
            wait: with ``False``, submit the jobs and return a `BatchJob`.

        Raises:
            UsageError: the prompt names a column that does not exist, or the cost needs
                confirmation.
            Interrupted: the DataFrame has the answers so far.
            LLMError: an error that affects all rows.
        """
        attached = RowAttachments.of(attachments, attachments_root, allow_urls)
        prompt_spec = RowPrompts(
            text=prompt,
            model=model,
            system=system,
            schema=schema,
            parameters=parameters,
            concurrency=concurrency,
            on_error=on_error,
            fresh=fresh,
            dry_run=dry_run,
            yes=yes,
            batch=batch,
            wait=wait,
            attachments=attached,
        )
        if into is None and not schema_fields(schema):
            check_columns_free(self._frame, [ANSWER], "The column of answers")
        read = [*prompt_columns(self._frame, prompt_spec), *attached.columns]
        return self._ask(self._frame, prompt_spec, into or ANSWER, read)

    def extract(
        self, column: str, schema: Any, *, confidence: bool = False, **options: Any
    ) -> Any:
        """
        Extract the fields of ``schema`` from the texts of ``column``; return the DataFrame.

        Each field of the schema becomes a column of a matching type.

        Args:
            column: the column of texts.
            schema: a pydantic class, a JSON schema, or fields in short: ``"name, age int"``.
            confidence: add the probability of each value as the column ``FIELD_confidence``.
            options: ``model``, ``system``, ``concurrency``, ``on_error``, ``fresh``, ``dry_run``,
                ``yes``, ``batch``, ``wait`` and parameters of the model: see `prompt`.
        """
        view = self._column(column).to_frame(TEXT)
        options = {**options, "confidence": confidence}
        return self._ask(view, extraction_prompts(schema, options), ANSWER, [column])

    def classify(
        self,
        column: str,
        labels: Sequence[str],
        *,
        into: str = "label",
        confidence: bool = False,
        **options: Any,
    ) -> Any:
        """
        Add a column with one of ``labels`` for each text of ``column``; return the DataFrame.

        Args:
            column: the column of texts.
            labels: at least two different labels.
            into: the column of labels, categorical.
            confidence: add the probability of the label among ``labels`` as ``INTO_confidence``.
            options: ``model``, ``system``, ``concurrency``, ``on_error``, ``fresh``, ``dry_run``,
                ``yes``, ``batch``, ``wait`` and parameters of the model: see `prompt`.
        """
        view = self._column(column).to_frame(TEXT)
        if not isinstance(into, str):
            msg = f"Invalid value for into: {into!r:.60}."
            raise UsageError(msg, hint='Pass the name of a column: into="label"')
        options = {**options, "confidence": confidence}
        return self._ask(view, classification_prompts(labels, into, options), into, [column])

    def nearest(  # noqa: PLR0913 (as for lm.nearest)
        self,
        query: str | Sequence[float],
        *,
        on: str = "vector",
        k: int = 5,
        model: str | None = None,
        prefix: str = "",
        index: VectorIndex | None = None,
    ) -> DataFrame:
        """
        Return the ``k`` rows closest to ``query``, best first, with their ``cosine``.

        Args:
            query: a text, which is embedded, or a vector.
            on: the column of vectors, or of texts.
            k: number of rows.
            model, prefix, index: as for `llm_magics.nearest`.
        """
        column = self._vectors(on)
        numbered = column.reset_index(drop=True)  # index labels may not be unique
        found = search.nearest(numbered, query, k=k, model=model, prefix=prefix, index=index)
        rows: DataFrame = self._frame.iloc[found.index].assign(cosine=found.to_numpy())
        return rows

    def dedupe(
        self, threshold: float = 0.95, *, on: str = "vector", model: str | None = None
    ) -> DataFrame:
        """
        Return the DataFrame without near-duplicates of earlier rows.

        Args:
            threshold: the cosine similarity above which two rows count as duplicates.
            on: the column of vectors, or of texts. Rows without a vector are kept.
            model: the embedding model for texts.
        """
        is_first = search.dedupe(self._vectors(on), threshold, model=model)
        return self._frame[is_first.to_numpy()]

    def plot(self, on: str = "vector", *, text: str | None = None, **options: Any) -> VectorPlot:
        """
        Plot a column in two dimensions; the text of a point appears under the mouse.

        Args:
            on: the column of vectors, or of texts.
            text: the column with the texts of the points; by default the one that was embedded,
                otherwise the one with the longest texts.
            options: ``color`` (the name of a column), ``clusters`` (their number), ``label``
                (``True``, or the model that names them), ``method`` (``pca`` or ``umap``),
                ``model``: see `llm_magics.plot`.
        """
        from llm_magics.dataframes.plot import plot

        return plot(self._vectors(on), **self._plot_options(on, text, options))

    def map(self, on: str = "vector", *, text: str | None = None, **options: Any) -> VectorMap:
        """
        Return an interactive map of a column, on which points are selected with the mouse.

        ``m = df.llm.map()`` followed by ``m`` displays the map and a picture of it; ``m.selection``
        has the selected rows. The map needs the extra ``map``.

        Args:
            on: the column of vectors, or of texts.
            text: the column with the texts of the points, as for `plot`.
            options: ``color``, ``clusters``, ``label``, ``method`` and ``model``, as for `plot`.
        """
        from llm_magics.dataframes.map import create_map

        options = self._plot_options(on, text, options)
        return create_map(self._frame, self._vectors(on), **options)

    def _plot_options(self, on: str, text: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a plot with columns instead of their names."""
        from llm_magics.dataframes.plot import find_texts

        if isinstance(color := options.get("color"), str):
            options["color"] = self._column(color)
        on = self._vectors_name(on)
        get_column(self._frame, on)
        texts = self._column(text) if text is not None else find_texts(self._frame, on)
        return {**options, "text": texts}

    def _ask(
        self, view: DataFrame, prompt_spec: RowPrompts, into: str, read: Sequence[Hashable]
    ) -> Any:
        """Send the prompts of the rows of ``view``; return the frame with their answers."""
        fields = answer_fields(prompt_spec)
        written = fields or [into]
        check_not_overwriting(read, written)
        confidences = [each for each in fields if each == confidence_name(into)]
        if fields != [into, *confidences]:
            check_columns_free(self._frame, fields)
        else:  # a name that the user has chosen
            check_columns_free(self._frame, confidences, "The column")
            if into in _NOT_CHOSEN:
                check_columns_free(self._frame, [into], "The column of answers")
        put = partial(self._put, dict(zip(fields or [ANSWER], written, strict=True)))
        return run_prompts(view, prompt_spec, put)

    def _put(
        self, names: Mapping[str, str], columns: DataFrame, is_open: NDArray[np.bool_]
    ) -> tuple[DataFrame, str]:
        """Write the answers into columns of the frame; a row without an answer keeps its value."""
        for name, into in names.items():
            new = columns[name]
            is_there = into in self._frame.columns
            self._frame[into] = merge_answers(new, self._frame[into], is_open) if is_there else new
        tag_answer_columns(self._frame, names.values())
        where = "the column" if len(names) == 1 else "the columns"
        return self._frame, f"{where} {', '.join(names.values())}"

    def _vectors(self, on: str) -> Series[Any]:
        """Return the column of vectors, tagged with the model that embedded it."""
        column: Series[Any] = with_tags(self._column(self._vectors_name(on)), self._frame)
        return column

    def _vectors_name(self, on: str) -> Any:
        """Return ``on``; if the default column is missing, the name of the only vector column."""
        if on != "vector" or on in self._frame.columns:
            return on
        return find_vector_column(self._frame)

    def _column(self, name: str) -> Series[Any]:
        column: Series[Any] = get_column(self._frame, name)
        return column


if "pyarrow" in sys.modules:  # pandas imports it if it is installed
    import llm_magics.dataframes.arrow  # noqa: F401 (needed to read Parquet files with vectors)
