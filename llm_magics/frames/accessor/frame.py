"""``df.llm``."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics.engine.embedding import EmbedOptions
from llm_magics.engine.embedding.options import TooLong
from llm_magics.errors import UsageError, nearest
from llm_magics.frames import similar
from llm_magics.frames.accessor.embedding import embed_into
from llm_magics.frames.asking.answers import ANSWER
from llm_magics.frames.asking.functions import ask_rows
from llm_magics.frames.asking.wanted import (
    TEXT,
    OnError,
    RowPrompts,
    classification,
    extraction,
)
from llm_magics.frames.reporting import Reporting

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from llm_magics.frames.index import VectorIndex
    from llm_magics.frames.plots import VectorPlot


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
            into: the column of vectors, made or overwritten.
            model, batch_size, concurrency, too_long, on_error, dimensions, prefix, yes: as for
                a series.
        """
        options = EmbedOptions(batch_size, concurrency, too_long, dimensions, prefix)
        texts = self._column(column)
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
            prompt: with ``{{ column }}`` in it. Rows in which all of these are missing are not
                asked.
            into: the column of answers; ``answer`` if not given.
            schema: what an answer must look like, as for `llm_magics.ask`. Each of its fields
                becomes a column, and ``into`` is not used.
            model, system, parameters: as for `llm_magics.ask`, the same for all rows.
            concurrency: prompts at once.
            on_error: ``null`` leaves a row that fails without an answer, and warns; ``raise`` raises.
            fresh: ask anew what was asked before.
            dry_run: give what it may take, in tokens, dollars and time, and send nothing.
            yes: do not ask, whatever it may cost (setting ``ask_above_usd``).

        Raises:
            UsageError: the prompt names what is no column; or it may cost much, and that was not
                allowed.
            Interrupted: the frame has the answers that had come.
            LLMError: what is wrong with all rows.
        """
        given = RowPrompts(
            prompt, model, system, schema, parameters, concurrency, on_error, fresh, dry_run, yes
        )
        return ask_rows(self._frame, given, partial(self._put, into or ANSWER))

    def extract(self, column: str, schema: Any, **given: Any) -> Any:
        """
        The frame, with what ``schema`` asks for taken out of the texts of ``column``.

        Each field of the schema becomes a column of a type that fits.

        Args:
            column: the column of texts.
            schema: a pydantic class, a JSON schema, or fields in short: ``"name, age int"``.
            given: as for `prompt`.
        """
        view = self._column(column).to_frame(TEXT)
        return ask_rows(view, extraction(schema, given), partial(self._put, ANSWER))

    def classify(
        self, column: str, labels: Sequence[str], *, into: str = "label", **given: Any
    ) -> Any:
        """
        The frame, with the one of ``labels`` that fits each text of ``column`` best.

        Args:
            column: the column of texts.
            labels: at least two.
            into: the column of labels, categorical.
            given: as for `prompt`.
        """
        view = self._column(column).to_frame(TEXT)
        return ask_rows(view, classification(labels, into, given), partial(self._put, into))

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
        column = self._column(on)
        model = model or similar.model_of(self._frame, on)
        numbered = column.reset_index(drop=True)  # labels of an index may occur twice
        found = similar.nearest(numbered, query, k=k, model=model, prefix=prefix, index=index)
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
        kept = similar.dedupe(self._column(on), threshold, model=model)
        return self._frame[kept.to_numpy()]

    def plot(self, on: str = "vector", *, text: str | None = None, **given: Any) -> VectorPlot:
        """
        A picture of a column in two dimensions, with the texts where the mouse is.

        Args:
            on: the column of vectors, or of texts.
            text: the column of what is shown; the first one of texts if not given.
            given: as for `llm_magics.plot`; ``color`` may be the name of a column.
        """
        from llm_magics.frames.plots import plot

        column = self._column(on)
        if isinstance(color := given.get("color"), str):
            given["color"] = self._column(color)
        given.setdefault("model", similar.model_of(self._frame, on))
        shown = self._column(text) if text is not None else self._first_texts(on)
        return plot(column, text=shown, **given)

    def _first_texts(self, on: str) -> Series[Any] | None:
        others = (self._frame[name] for name in self._frame.columns if name != on)
        return next((each for each in others if _has_texts(each)), None)

    def _put(self, into: str, columns: DataFrame) -> tuple[DataFrame, str]:
        """Answers into columns of the frame; a lone one has the name ``into``."""
        if list(columns) == [ANSWER]:
            columns = columns.rename(columns={ANSWER: into})
        for name in columns:
            self._frame[name] = columns[name]
        return self._frame, f"the columns {', '.join(map(str, columns))}"

    def _column(self, name: str) -> Series[Any]:
        if not isinstance(name, Hashable) or name not in self._frame.columns:
            msg = f"The frame has no column {name!r}."
            raise UsageError(msg, hint=nearest(str(name), map(str, self._frame.columns)))
        return self._frame[name]


def _has_texts(column: Series[Any]) -> bool:
    first = next(
        (value for value in column if not pd.api.types.is_list_like(value) and pd.notna(value)),
        None,
    )
    return isinstance(first, str)
