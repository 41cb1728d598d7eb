"""``df.llm``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics.dataframes import search
from llm_magics.dataframes.answer_columns import (
    ANSWER,
    fields_of,
    merged,
    note_answers,
    refuse_taking,
)
from llm_magics.dataframes.embed import embed_into
from llm_magics.dataframes.prompt_run import OnError, RowPrompts, columns_in
from llm_magics.dataframes.prompting import ask_rows, classification, extraction
from llm_magics.dataframes.reports import Reporting
from llm_magics.dataframes.rows import (
    TEXT,
    column_of,
    only_vector_column,
    refuse_losing_texts,
    refuse_overwriting,
)
from llm_magics.dataframes.sources import noted
from llm_magics.errors import UsageError
from llm_magics.runtime.embedding import EmbedOptions
from llm_magics.runtime.embedding.results import TooLong

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from llm_magics.dataframes.plot import VectorPlot
    from llm_magics.dataframes.search import VectorIndex


# Columns that answers go into where the caller named none: they overwrite nothing of the user's.
_NOT_CHOSEN = {ANSWER, "label"}


@pd.api.extensions.register_dataframe_accessor("llm")
class FrameAccessor(Reporting):
    """Language models over the columns of a frame."""

    def __init__(self, frame: DataFrame) -> None:
        super().__init__(frame)
        self._frame = frame

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
    ) -> DataFrame:
        """
        The frame, with the vectors of ``column`` in the column ``into``.

        The frame is changed in place, as by an assignment, and returned. Interrupted, it has
        the vectors that had come.

        Args:
            column: the column of texts.
            into: the column of vectors, made or overwritten; never one of texts.
            model, batch_size, concurrency, too_long, on_error, dimensions, prefix, yes: as for
                a series.
        """
        options = EmbedOptions(batch_size, concurrency, too_long, dimensions, prefix)
        texts = self._column(column)
        refuse_overwriting([column], [into], "vectors")
        refuse_losing_texts(self._frame, into)
        how = {"model": model, "options": options, "on_error": on_error, "yes": yes}
        return embed_into(self._frame, into, texts, **how)

    def prompt(  # noqa: PLR0913 (as for lm.ask)
        self,
        prompt: str,
        *,
        into: str | None = None,
        schema: Any = None,
        model: str | None = None,
        system: str | None = None,
        concurrency: int | None = None,
        on_error: OnError = "null",
        fresh: bool = False,
        dry_run: bool = False,
        yes: bool = False,
        **parameters: Any,
    ) -> Any:
        """
        The frame, with the answer to a prompt for each row.

        Rows that ask the same are asked once, and what was asked before is not asked again:
        after an interrupt or a crash the same call goes on where it was.

        Args:
            prompt: with ``{{ column }}`` in it, or ``{{ row["a column"] }}`` for a name with
                spaces. Rows in which all of these are missing are not asked.
            into: the column of answers; ``answer`` if not given.
            schema: what an answer must look like, as for `llm_magics.ask`. Each of its fields
                becomes a column, and ``into`` is not used.
            model, system, parameters: as for `llm_magics.ask`, the same for all rows.
            concurrency: prompts at once.
            on_error: ``null`` leaves a row that fails without an answer, and warns; ``raise`` raises.
            fresh: ask anew what was asked before.
            dry_run: give what it may take, in tokens, dollars and time, and send nothing.
            yes: do not ask, whatever it may cost (setting ``confirm_above_usd``).

        Raises:
            UsageError: the prompt names what is no column; or it may cost much, and that was not
                allowed.
            Interrupted: the frame has the answers that had come.
            LLMError: what is wrong with all rows.
        """
        given = RowPrompts(
            prompt, model, system, schema, parameters, concurrency, on_error, fresh, dry_run, yes
        )
        if into is None and not fields_of(schema):
            refuse_taking(self._frame, [ANSWER], "The column of answers")
        return self._ask(self._frame, given, into or ANSWER, columns_in(self._frame, given))

    def extract(self, column: str, schema: Any, **given: Any) -> Any:
        """
        The frame, with what ``schema`` asks for taken out of the texts of ``column``.

        Each field of the schema becomes a column of a type that fits.

        Args:
            column: the column of texts.
            schema: a pydantic class, a JSON schema, or fields in short: ``"name, age int"``.
            given: ``model``, ``system``, ``concurrency``, ``on_error``, ``fresh``, ``dry_run``,
                ``yes`` and parameters of the model: see `prompt`.
        """
        view = self._column(column).to_frame(TEXT)
        return self._ask(view, extraction(schema, given), ANSWER, [column])

    def classify(
        self, column: str, labels: Sequence[str], *, into: str = "label", **given: Any
    ) -> Any:
        """
        The frame, with the one of ``labels`` that fits each text of ``column`` best.

        Args:
            column: the column of texts.
            labels: at least two.
            into: the column of labels, categorical.
            given: ``model``, ``system``, ``concurrency``, ``on_error``, ``fresh``, ``dry_run``,
                ``yes`` and parameters of the model: see `prompt`.
        """
        view = self._column(column).to_frame(TEXT)
        if not isinstance(into, str):
            msg = f"into cannot be {into!r:.60}."
            raise UsageError(msg, hint='Give it the name of a column: into="label".')
        return self._ask(view, classification(labels, into, given), into, [column])

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
        The ``k`` rows most like ``query``, best first, with their ``cosine``.

        Args:
            query: a text, which is embedded, or a vector.
            on: the column of vectors, or of texts.
            k: how many.
            model, prefix, index: as for `llm_magics.nearest`.
        """
        column = self._vectors(on)
        numbered = column.reset_index(drop=True)  # labels of an index may occur twice
        found = search.nearest(numbered, query, k=k, model=model, prefix=prefix, index=index)
        rows: DataFrame = self._frame.iloc[found.index].assign(cosine=found.to_numpy())
        return rows

    def dedupe(
        self, threshold: float = 0.95, *, on: str = "vector", model: str | None = None
    ) -> DataFrame:
        """
        The frame without the rows that say what one before them says.

        Args:
            threshold: the cosine from which on two rows say the same.
            on: the column of vectors, or of texts. Rows without one are kept.
            model: who embeds texts.
        """
        kept = search.dedupe(self._vectors(on), threshold, model=model)
        return self._frame[kept.to_numpy()]

    def plot(self, on: str = "vector", *, text: str | None = None, **given: Any) -> VectorPlot:
        """
        A picture of a column in two dimensions, with the texts where the mouse is.

        Args:
            on: the column of vectors, or of texts.
            text: the column of what is shown; the one that was embedded if not
                given, else the first one of texts.
            given: ``color`` (the name of a column), ``clusters`` (how many), ``label``
                (``True``, or who names them), ``method`` (``pca`` or ``umap``), ``model``:
                see `llm_magics.plot`.
        """
        from llm_magics.dataframes.plot import plot, texts_for

        column = self._vectors(on)
        if isinstance(color := given.get("color"), str):
            given["color"] = self._column(color)
        on = self._vectors_name(on)
        shown = self._column(text) if text is not None else texts_for(self._frame, on)
        return plot(column, text=shown, **given)

    def _ask(self, view: DataFrame, given: RowPrompts, into: str, read: Sequence[Hashable]) -> Any:
        """The frame with the answers to what is asked of the rows of ``view``."""
        fields = list(fields_of(given.schema))
        written = fields or [into]
        refuse_overwriting(read, written)
        if fields != [into]:
            refuse_taking(self._frame, fields)
        elif into in _NOT_CHOSEN:
            refuse_taking(self._frame, [into], "The column of answers")
        put = partial(self._put, dict(zip(fields or [ANSWER], written, strict=True)))
        return ask_rows(view, given, put)

    def _put(
        self, names: Mapping[str, str], columns: DataFrame, is_open: Sequence[bool]
    ) -> tuple[DataFrame, str]:
        """Answers into columns of the frame; a row without one keeps what it had."""
        for name, into in names.items():
            new = columns[name]
            is_there = into in self._frame.columns
            self._frame[into] = merged(new, self._frame[into], is_open) if is_there else new
        note_answers(self._frame, names.values())
        return self._frame, f"the columns {', '.join(names.values())}"

    def _vectors(self, on: str) -> Series[Any]:
        """The column of vectors, with what is noted of it."""
        column: Series[Any] = noted(self._column(self._vectors_name(on)), self._frame)
        return column

    def _vectors_name(self, on: str) -> Any:
        """The column to look in; unless said otherwise, the only one of vectors."""
        if on != "vector" or on in self._frame.columns:
            return on
        return only_vector_column(self._frame)

    def _column(self, name: str) -> Series[Any]:
        column: Series[Any] = column_of(self._frame, name)
        return column
