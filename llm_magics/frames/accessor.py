"""``df.llm`` and ``series.llm``. Importing this registers them."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics.errors import UsageError, nearest

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from llm_magics.frames.prompt import PromptReport, RowPrompts
    from llm_magics.frames.report import EmbeddingReport


# pandas may make an accessor anew each time: what is to stay is kept with the column or frame.
_KEPT = "_llm_magics_report"


class _Accessor:
    """What both have."""

    def __init__(self, of: Any) -> None:
        self._of = of

    @property
    def report(self) -> EmbeddingReport | PromptReport | None:
        """How the last embedding or asking went; its ``frame()`` has the rows that did not go plainly."""
        report: EmbeddingReport | PromptReport | None = self._of.__dict__.get(_KEPT)
        return report

    def _vectors_of(self, column: Series[Any], **given: Any) -> Series[Any]:
        from llm_magics.engine.embedding import EmbedOptions
        from llm_magics.frames.embed import embedded

        model, on_error = given.pop("model"), given.pop("on_error")
        done = embedded(column, model, EmbedOptions(**given), on_error)
        object.__setattr__(self._of, _KEPT, done.report)  # pandas' own takes it for a column
        self._stopped_by(done.error, vectors := done.column(column), done)
        if done.report.counts["failed"] or done.report.counts["no text"]:
            warnings.warn(f"{done.report}: see .llm.report.frame()", stacklevel=3)
        return vectors

    def _stopped_by(self, error: BaseException | None, vectors: Series[Any], done: Any) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise done.interrupted(vectors) from None
        if error is not None:
            raise error


@pd.api.extensions.register_series_accessor("llm")
class SeriesAccessor(_Accessor):
    """Language models over a column."""

    def __init__(self, series: Series[Any]) -> None:
        super().__init__(series)
        self._series = series

    def embed(
        self,
        *,
        model: str | None = None,
        batch_size: int | None = None,
        concurrency: int | None = None,
        too_long: str = "truncate",
        on_error: str = "null",
    ) -> Series[Any]:
        """
        The vector of each text, float32, on the same index; missing ones stay missing.

        Args:
            model: ``provider/name``; the setting ``embedding_model`` if not given.
            batch_size, concurrency: texts in one request and requests at once.
            too_long: ``truncate``, ``chunk-mean`` or ``error``, as for `llm_magics.embed`.
            on_error: ``null`` leaves a text that is refused without a vector, and warns;
                ``raise`` raises.
        """
        return self._vectors_of(
            self._series,
            model=model,
            batch_size=batch_size,
            concurrency=concurrency,
            too_long=too_long,
            on_error=on_error,
        )


@pd.api.extensions.register_dataframe_accessor("llm")
class FrameAccessor(_Accessor):
    """Language models over the columns of a frame."""

    def __init__(self, frame: DataFrame) -> None:
        super().__init__(frame)
        self._frame = frame
        self._into: str | None = None

    def embed(  # noqa: PLR0913 (as for lm.embed)
        self,
        column: str,
        *,
        into: str = "vector",
        model: str | None = None,
        batch_size: int | None = None,
        concurrency: int | None = None,
        too_long: str = "truncate",
        on_error: str = "null",
    ) -> DataFrame:
        """
        The frame, with the vectors of ``column`` in the column ``into``.

        The frame is changed in place, as by an assignment, and returned. Interrupted, it has
        the vectors that had come.

        Args:
            column: the column of texts.
            into: the column of vectors, made or overwritten.
            model, batch_size, concurrency, too_long, on_error: as for a series.
        """
        texts = self._column(column)
        self._into = into
        self._frame[into] = self._vectors_of(
            texts,
            model=model,
            batch_size=batch_size,
            concurrency=concurrency,
            too_long=too_long,
            on_error=on_error,
        )
        return self._frame

    def _stopped_by(self, error: BaseException | None, vectors: Series[Any], done: Any) -> None:
        if isinstance(error, KeyboardInterrupt) and self._into is not None:
            self._frame[self._into] = vectors
            raise done.interrupted(self._frame, f"the column {self._into}") from None
        super()._stopped_by(error, vectors, done)

    def prompt(  # noqa: PLR0913 (as for lm.ask)
        self,
        prompt: str,
        *,
        into: str | None = None,
        schema: Any = None,
        model: str | None = None,
        system: str | None = None,
        concurrency: int | None = None,
        on_error: str = "null",
        fresh: bool = False,
        dry_run: bool = False,
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
            dry_run: give what it may take, in tokens and dollars, and send nothing.

        Raises:
            UsageError: the prompt names what is no column.
            Interrupted: the frame has the answers that had come.
            LLMError: what is wrong with all rows.
        """
        from llm_magics.frames.prompt import RowPrompts

        wanted = RowPrompts(prompt, model, system, schema, parameters, concurrency, fresh)
        return self._asked(self._frame, wanted, into or "answer", on_error, dry_run=dry_run)

    def extract(self, column: str, schema: Any, **given: Any) -> Any:
        """
        The frame, with what ``schema`` asks for taken out of the texts of ``column``.

        Each field of the schema becomes a column of a type that fits.

        Args:
            column: the column of texts.
            schema: a pydantic class, a JSON schema, or fields in short: ``"name, age int"``.
            given: as for `prompt`.
        """
        asked = "Take this out of the text, as JSON. The text:\n\n{{ text }}"
        return self._asked_of(column, asked, schema, **given)

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
        is_list = not isinstance(labels, str) and all(isinstance(each, str) for each in labels)
        if not is_list or len(set(labels)) < 2:
            msg = "To classify takes a list of at least two different labels."
            raise UsageError(msg, hint='Write labels=["praise", "complaint"].')
        schema = {
            "type": "object",
            "properties": {into: {"type": "string", "enum": list(labels)}},
            "required": [into],
            "additionalProperties": False,
        }
        told = ", ".join(labels).replace("{", "{{ '{' }}")  # a label is no template
        asked = f"Which of these fits the text best: {told}? The text:\n\n{{{{ text }}}}"
        done = self._asked_of(column, asked, schema, **given)
        if isinstance(done, pd.DataFrame):
            self._frame[into] = pd.Categorical(self._frame[into], categories=list(labels))
        return done

    def _asked_of(  # noqa: PLR0913 (as for prompt)
        self,
        column: str,
        prompt: str,
        schema: Any,
        *,
        model: str | None = None,
        system: str | None = None,
        concurrency: int | None = None,
        on_error: str = "null",
        fresh: bool = False,
        dry_run: bool = False,
        **parameters: Any,
    ) -> Any:
        """The same as `prompt`, of one column, whatever it is called: here it is ``text``."""
        from llm_magics.frames.prompt import RowPrompts

        wanted = RowPrompts(prompt, model, system, schema, parameters, concurrency, fresh)
        view = self._column(column).to_frame("text")
        return self._asked(view, wanted, "answer", on_error, dry_run=dry_run)

    def _asked(
        self, view: DataFrame, wanted: RowPrompts, into: str, on_error: str, *, dry_run: bool
    ) -> Any:
        """The frame with the answers to what is asked of the rows of ``view``."""
        from llm_magics.frames.answers import put, raised
        from llm_magics.frames.prompt import Prompted

        if on_error not in ("null", "raise"):
            msg = f"on_error cannot be {on_error!r}."
            raise UsageError(msg, hint='Give it "null" or "raise".')
        prompted = Prompted(view, wanted)
        if dry_run:
            return prompted.estimate()
        ended_by = prompted.ask()
        where = put(prompted, wanted.schema, self._frame, into)
        report = prompted.report()
        object.__setattr__(self._of, _KEPT, report)
        error = raised(prompted, ended_by, where, self._frame, raises=on_error == "raise")
        if error is not None:
            raise error
        if report.counts["failed"]:
            warnings.warn(f"{report}: see .llm.report.frame()", stacklevel=3)
        return self._frame

    def nearest(
        self,
        query: str | Sequence[float],
        *,
        on: str = "vector",
        k: int = 5,
        model: str | None = None,
    ) -> DataFrame:
        """
        The ``k`` rows most like ``query``, best first, with their ``cosine``.

        Args:
            query: a text, which is embedded, or a vector.
            on: the column of vectors.
            model: who embeds the text: the one that embedded the column.
        """
        import numpy as np

        from llm_magics.frames import search
        from llm_magics.frames.embed import embed

        vectors = search.matrix(self._column(on))
        asked = embed([query], model=model) if isinstance(query, str) else np.atleast_2d(query)
        if asked.shape[1] != vectors.shape[1]:
            msg = f"The query has {asked.shape[1]} dimensions, and the column {on} has {vectors.shape[1]}."
            raise UsageError(msg, hint="Embed it with the same model: model=…")
        places, cosines = search.nearest(vectors, np.asarray(asked, np.float32), k)
        found: DataFrame = self._frame.iloc[places[0]].assign(cosine=cosines[0])
        return found

    def dedupe(self, threshold: float = 0.95, *, on: str = "vector") -> DataFrame:
        """
        The frame without the rows that say what one before them says.

        Args:
            threshold: the cosine from which on two rows say the same.
            on: the column of vectors. Rows without one are kept.
        """
        import numpy as np

        from llm_magics.frames import search

        if not 0 < threshold <= 1:
            msg = f"threshold cannot be {threshold!r}."
            raise UsageError(msg, hint="Give it a cosine above 0 and at most 1, like 0.95.")
        first = search.groups(search.matrix(self._column(on)), threshold)
        kept: DataFrame = self._frame[first == np.arange(len(first))]
        return kept

    def _column(self, name: str) -> Series[Any]:
        if not isinstance(name, Hashable) or name not in self._frame.columns:
            msg = f"The frame has no column {name!r}."
            raise UsageError(msg, hint=nearest(str(name), map(str, self._frame.columns)))
        return self._frame[name]
