"""
``df.llm`` and ``series.llm`` on Dask's collections: the same names, and nothing runs before it is computed.

Services are as fast as they are, whatever asks them: a cluster is worth it where models run on
its workers, or where frames are larger than one machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from dask.dataframe.extensions import register_dataframe_accessor, register_series_accessor

from llm_magics._async.bridge import bridge
from llm_magics._util.validation import check_integer, check_on_error
from llm_magics.dataframes.answer_columns import ANSWER, dtypes_of, fields_of
from llm_magics.dataframes.arrow import VECTOR_TYPE
from llm_magics.dataframes.dask.workers import (
    Embedding,
    Orders,
    SharedLimit,
    ask_partition,
    embed_partition,
    nearest_in_partition,
)
from llm_magics.dataframes.embed import embed
from llm_magics.dataframes.prompt_run import OnError, RowPrompts, columns_in
from llm_magics.dataframes.prompting import classification, extraction, prompts
from llm_magics.dataframes.rows import TEXT, column_of, refuse_overwriting
from llm_magics.errors import UsageError
from llm_magics.runtime import pricing
from llm_magics.runtime.embedding import EmbedOptions
from llm_magics.runtime.embedding.results import TooLong
from llm_magics.runtime.routing import find_route
from llm_magics.runtime.session import session

# Prompts at once, of all workers together.
_PROMPTS_AT_ONCE = 8


@register_series_accessor("llm")
class DaskSeriesAccessor:
    """Language models over a column of Dask's."""

    def __init__(self, series: Any) -> None:
        self._series = series

    def embed(  # noqa: PLR0913 (as for pandas)
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
    ) -> Any:
        """
        The vector of each text, as a column of Arrow's ``list<float>``; missing ones stay missing.

        Args:
            concurrency: requests at once of all workers together; what suits the provider if
                not given, and no bound where models run on the workers.
            model, batch_size, too_long, on_error, dimensions, prefix: as for pandas.
            yes: whatever it costs. A cluster asks nobody: a model that has a price is refused
                without.
        """
        name, limit = _ordered(model or session.config.embedding_model, concurrency, None, yes=yes)
        check_on_error(on_error)
        at_once = limit.most if limit is not None else None
        options = EmbedOptions(batch_size, at_once, too_long, dimensions, prefix)
        how = Embedding(name, options, on_error, f"{self._series.name}_vector")
        meta = pd.Series([], dtype=VECTOR_TYPE, name=how.name)
        orders = Orders.of_session(limit, {})
        return self._series.map_partitions(embed_partition, orders, how, meta=meta)

    def prompt(self, prompt: str, *, schema: Any = None, **given: Any) -> Any:
        """The answer to a prompt with ``{{ text }}`` for each text; arguments as for pandas."""
        answers = _asked(self._series.to_frame(TEXT), prompts(prompt, schema, given))
        return answers[ANSWER] if list(answers.columns) == [ANSWER] else answers

    def extract(self, schema: Any, **given: Any) -> Any:
        """A column for each field of ``schema``, taken out of each text."""
        return _asked(self._series.to_frame(TEXT), extraction(schema, given))

    def classify(self, labels: Sequence[str], **given: Any) -> Any:
        """The one of ``labels`` that fits each text best, as a categorical column."""
        given_ = classification(labels, "label", given)
        return _asked(self._series.to_frame(TEXT), given_)["label"]


@register_dataframe_accessor("llm")
class DaskFrameAccessor:
    """Language models over the columns of a frame of Dask's; each gives a new frame."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def embed(self, column: str, *, into: str = "vector", **given: Any) -> Any:
        """
        The frame, with the vectors of ``column`` in the column ``into``.

        Args:
            column: the column of texts.
            into: the column of vectors.
            given: as for a column.
        """
        texts = self._column(column)
        refuse_overwriting([column], [into], "vectors")
        vectors = DaskSeriesAccessor(texts).embed(**given)
        return self._frame.assign(**{into: vectors})

    def prompt(
        self, prompt: str, *, into: str | None = None, schema: Any = None, **given: Any
    ) -> Any:
        """
        The frame, with the answer to a prompt for each row.

        Args:
            prompt: with ``{{ column }}`` in it.
            into: the column of answers; ``answer`` if not given.
            schema: each of its fields becomes a column of a type by the schema.
            given: as for pandas; ``concurrency`` is of all workers together.
        """
        wanted = prompts(prompt, schema, given)
        written = list(fields_of(schema)) or [into or ANSWER]
        refuse_overwriting(columns_in(self._frame, wanted), written)
        return self._with(_asked(self._frame, wanted), into)

    def extract(self, column: str, schema: Any, **given: Any) -> Any:
        """The frame, with what ``schema`` asks for taken out of the texts of ``column``."""
        view = self._column(column).to_frame(TEXT)
        refuse_overwriting([column], fields_of(schema))
        return self._with(_asked(view, extraction(schema, given)), None)

    def classify(
        self, column: str, labels: Sequence[str], *, into: str = "label", **given: Any
    ) -> Any:
        """The frame, with the one of ``labels`` that fits each text of ``column`` best."""
        view = self._column(column).to_frame(TEXT)
        refuse_overwriting([column], [into])
        return self._with(_asked(view, classification(labels, into, given)), None)

    def nearest(
        self,
        query: str | Sequence[float],
        *,
        on: str = "vector",
        k: int = 5,
        model: str | None = None,
        prefix: str = "",
    ) -> Any:
        """
        The ``k`` rows most like ``query``, best first, with their ``cosine``.

        Each worker looks through its own rows; only the best of them travel.

        Args:
            query: a text, which is embedded here and now, or a vector.
            on: the column of vectors.
            k: how many.
            model: who embeds the text: the one that embedded the column, if that was not the
                setting ``embedding_model``.
            prefix: as for `llm_magics.nearest`.
        """
        self._column(on)
        k = check_integer("k", k)
        asked = embed([query], model=model, prefix=prefix)[0] if isinstance(query, str) else query
        meta = self._frame._meta.assign(cosine=np.empty(0, np.float32))
        best = self._frame.map_partitions(
            nearest_in_partition, on, np.asarray(asked, np.float32), k, meta=meta
        )
        return best.repartition(npartitions=1).map_partitions(_best, k, meta=meta)

    def _with(self, answers: Any, into: str | None) -> Any:
        columns = list(answers.columns)
        if columns == [ANSWER]:
            return self._frame.assign(**{into or ANSWER: answers[ANSWER]})
        return self._frame.assign(**{name: answers[name] for name in columns})

    def _column(self, name: str) -> Any:
        return column_of(self._frame, name)


def _asked(view: Any, given: RowPrompts) -> Any:
    """The answers to what is asked of the rows of ``view``, as a frame."""
    if given.dry_run:
        msg = "What a frame of Dask's would take cannot be told before it is computed."
        raise UsageError(msg, hint="Try it on df.head(): df.head().llm.prompt(…, dry_run=True).")
    # An alias has its parameters: each worker finds the way from it itself.
    _, limit = _ordered(
        given.model or session.config.model, given.concurrency, _PROMPTS_AT_ONCE, yes=given.yes
    )
    dtypes = _dtypes(given.schema)
    meta = pd.DataFrame({each: pd.Series([], dtype=dtype) for each, dtype in dtypes.items()})
    meta.index = view._meta.index
    orders = Orders.of_session(limit, dtypes, given.parameters.get("extra_headers"))
    parameters = {name: each for name, each in given.parameters.items() if name != "extra_headers"}
    given = replace(given, parameters=parameters)
    return view.map_partitions(ask_partition, orders, given, meta=meta)


def _ordered(
    model: str, concurrency: int | None, usual: int | None, *, yes: bool
) -> tuple[str, SharedLimit | None]:
    """The model's full name, and the limit for the cluster; none for models on its workers."""
    if concurrency is not None:
        concurrency = check_integer("concurrency", concurrency)
    route = bridge.run(find_route(session, model))
    if not yes and pricing.has_price(session.config, route.provider, route.model):
        msg = f"{route.name} costs what it costs for all rows, and a cluster asks nobody."
        raise UsageError(msg, hint="Try it on df.head() first; then allow it with yes=True.")
    if route.provider.is_free(route.model) and concurrency is None:
        return route.name, None
    most = concurrency or usual or route.provider.embedding_concurrency
    return route.name, SharedLimit(route.provider.name, most)


def _dtypes(schema: Any) -> Mapping[str, Any]:
    return dtypes_of(fields_of(schema)) or {ANSWER: "string"}


def _best(frame: pd.DataFrame, k: int) -> pd.DataFrame:
    return frame.sort_values("cosine", ascending=False, kind="stable").head(k)
