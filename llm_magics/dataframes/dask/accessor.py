"""
``df.llm`` and ``series.llm`` for Dask: the same methods as for pandas, evaluated lazily.

A cluster does not make a remote service faster. It is useful if models run on its workers, or if
the data do not fit on one machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from dask.dataframe.extensions import register_dataframe_accessor, register_series_accessor

from llm_magics._async.bridge import bridge
from llm_magics._util.validation import check_integer, check_on_error
from llm_magics.dataframes.answer_columns import ANSWER, answer_dtypes, answer_fields
from llm_magics.dataframes.arrow import VECTOR_TYPE
from llm_magics.dataframes.classify import (
    classification_prompts,
    extraction_prompts,
    row_prompts,
)
from llm_magics.dataframes.dask.claims import GroupQuestion, aggregate_partitions
from llm_magics.dataframes.dask.filtering import filter_partitions, needed_columns
from llm_magics.dataframes.dask.workers import (
    EmbeddingSpec,
    SharedLimit,
    WorkerTask,
    ask_partition,
    embed_partition,
    nearest_in_partition,
)
from llm_magics.dataframes.embed import embed
from llm_magics.dataframes.operators.aggregate import aggregate
from llm_magics.dataframes.operators.groups import group_columns
from llm_magics.dataframes.operators.options import check_parameters
from llm_magics.dataframes.operators.packed_prompts import RowsPerPrompt
from llm_magics.dataframes.operators.share import COLUMNS, share
from llm_magics.dataframes.reports import stored_report
from llm_magics.dataframes.row_prompts import RowPrompts, prompt_columns
from llm_magics.dataframes.rows import TEXT, OnError, check_not_overwriting, get_column
from llm_magics.errors import UsageError
from llm_magics.runtime import pricing
from llm_magics.runtime.embedding import EmbedOptions
from llm_magics.runtime.embedding.results import TooLong
from llm_magics.runtime.routing import find_route
from llm_magics.runtime.session import session

# The default number of concurrent prompts of all workers together.
_DEFAULT_CONCURRENCY = 8


@register_series_accessor("llm")
class DaskSeriesAccessor:
    """Methods that apply language models to a Dask column."""

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
        Return the vector of each text, as an Arrow ``list<float>``. Missing texts stay missing.

        Args:
            concurrency: the limit of concurrent requests for all workers together; by default
                chosen for the provider, or unlimited if the model runs on the workers.
            model, batch_size, too_long, on_error, dimensions, prefix: as for pandas.
            yes: allow a model that is not free. It is required, because a cluster cannot ask
                for confirmation of the cost.
        """
        name, limit = _resolve_model(
            model or session.config.embedding_model, concurrency, None, yes=yes
        )
        check_on_error(on_error)
        at_once = limit.most if limit is not None else None
        options = EmbedOptions(
            batch_size=batch_size,
            concurrency=at_once,
            too_long=too_long,
            dimensions=dimensions,
            prefix=prefix,
        )
        how = EmbeddingSpec(
            model=name, options=options, on_error=on_error, name=f"{self._series.name}_vector"
        )
        meta = pd.Series([], dtype=VECTOR_TYPE, name=how.name)
        task = WorkerTask.of_session(limit, {})
        return self._series.map_partitions(embed_partition, task, how, meta=meta)

    def prompt(self, prompt: str, *, schema: Any = None, **options: Any) -> Any:
        """
        Return the answer to a prompt for each text; with a schema, a DataFrame.

        Args:
            prompt: a template with ``{{ text }}``.
            schema, options: as for pandas; ``concurrency`` is the limit for all workers together.
        """
        answers = _map_prompts(self._series.to_frame(TEXT), row_prompts(prompt, schema, options))
        return answers[ANSWER] if list(answers.columns) == [ANSWER] else answers

    def extract(self, schema: Any, **options: Any) -> Any:
        """
        Extract the fields of ``schema`` from each text; return a DataFrame of the fields.

        Args:
            schema, options: as for pandas, with ``confidence``.
        """
        return _map_prompts(self._series.to_frame(TEXT), extraction_prompts(schema, options))

    def classify(self, labels: Sequence[str], **options: Any) -> Any:
        """
        Assign one of ``labels`` to each text; return them as a categorical column.

        Args:
            labels, options: as for pandas; with ``confidence=True``, the result is a DataFrame.
        """
        prompt_spec = classification_prompts(labels, "label", options)
        answers = _map_prompts(self._series.to_frame(TEXT), prompt_spec)
        return answers if prompt_spec.confidence else answers["label"]


@register_dataframe_accessor("llm")
class DaskFrameAccessor:
    """Methods that apply language models to a Dask DataFrame. Each returns a new DataFrame."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def embed(self, column: str, *, into: str = "vector", **options: Any) -> Any:
        """
        Add the vectors of ``column`` as the column ``into``; return a new DataFrame.

        Args:
            column: the column of texts.
            into: the column of vectors.
            options: as for a column.
        """
        texts = self._column(column)
        check_not_overwriting([column], [into], "vectors")
        vectors = DaskSeriesAccessor(texts).embed(**options)
        return self._frame.assign(**{into: vectors})

    def prompt(
        self, prompt: str, *, into: str | None = None, schema: Any = None, **options: Any
    ) -> Any:
        """
        Add the answer to a prompt for each row; return a new DataFrame.

        Args:
            prompt: a template with ``{{ column }}``.
            into: the column of answers; ``answer`` by default.
            schema: each field becomes a column of a matching type.
            options: as for pandas; ``concurrency`` is the limit for all workers together.
        """
        prompt_spec = row_prompts(prompt, schema, options)
        written = answer_fields(prompt_spec) or [into or ANSWER]
        check_not_overwriting(prompt_columns(self._frame, prompt_spec), written)
        return self._with(_map_prompts(self._frame, prompt_spec), into)

    def extract(self, column: str, schema: Any, **options: Any) -> Any:
        """
        Extract the fields of ``schema`` from the texts of ``column``; return a new DataFrame.

        Args:
            column: the column of texts.
            schema, options: as for pandas, with ``confidence``.
        """
        view = self._column(column).to_frame(TEXT)
        prompt_spec = extraction_prompts(schema, options)
        check_not_overwriting([column], answer_fields(prompt_spec))
        return self._with(_map_prompts(view, prompt_spec), None)

    def classify(
        self, column: str, labels: Sequence[str], *, into: str = "label", **options: Any
    ) -> Any:
        """
        Add a column with one of ``labels`` per text of ``column``; return a new DataFrame.

        Args:
            column: the column of texts.
            labels, into, options: as for pandas, with ``confidence``.
        """
        view = self._column(column).to_frame(TEXT)
        prompt_spec = classification_prompts(labels, into, options)
        check_not_overwriting([column], answer_fields(prompt_spec))
        return self._with(_map_prompts(view, prompt_spec), None)

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
        Return the ``k`` rows closest to ``query``, best first, with their ``cosine``.

        Each worker searches its rows; only the best ones are transferred.

        Args:
            query: a text, which is embedded immediately, or a vector.
            on: the column of vectors.
            k: number of rows.
            model: the model that embedded the column, if it is not the setting
                ``embedding_model``.
            prefix: as for `llm_magics.nearest`.
        """
        self._column(on)
        k = check_integer("k", k)
        vector = embed([query], model=model, prefix=prefix)[0] if isinstance(query, str) else query
        meta = self._frame._meta.assign(cosine=np.empty(0, np.float32))
        best = self._frame.map_partitions(
            nearest_in_partition, on, np.asarray(vector, np.float32), k, meta=meta
        )
        return best.repartition(npartitions=1).map_partitions(_best_rows, k, meta=meta)

    def filter(self, prompt: str, **options: Any) -> Any:
        """
        Return the rows for which a statement is true; see `llm_magics.filter`.

        The columns that the decisions need are computed now and must fit into the memory of this
        process, which sends the questions. The other columns of the result stay lazy.

        Args:
            prompt: a statement with ``{{ column }}``.
            options: as for pandas.
        """
        return filter_partitions(self._frame, prompt, options)

    @property
    def report(self) -> Any:
        """The report on the filter that returned this DataFrame."""
        return stored_report(self._frame)

    def share(self, prompt: str, *, by: Any = None, oracle: Any = None, **options: Any) -> Any:
        """
        Estimate for which share of the rows a statement is true, with an interval, for each group.

        It is computed immediately, and is a pandas DataFrame. The columns that are needed are
        loaded into memory: those of the prompt, ``by``, ``oracle`` and ``proxy``, and vectors. A
        function as the oracle needs all columns.

        Args:
            prompt, by, oracle, options: as for pandas.
        """
        read = [
            *group_columns(self._frame, by, COLUMNS),
            *needed_columns(self._frame, prompt, {**options, "oracle": oracle}),
        ]
        rows = self._frame[[name for name in self._frame.columns if name in read]].compute()
        return share(rows, prompt, by=by, oracle=oracle, **options)

    def aggregate(
        self,
        question: str,
        *,
        by: Any = None,
        on: Any = None,
        rows_per_prompt: RowsPerPrompt = "auto",
        **options: Any,
    ) -> pd.DataFrame:
        """
        Answer a question about the rows of each group; return a pandas DataFrame immediately.

        The workers make the claims about their rows; here, claims are merged and answers written.

        Args:
            question, by, on, rows_per_prompt: as for pandas. Rows of different partitions are not
                in the same prompt.
            options: as for pandas; ``concurrency`` is the limit for all workers together.
        """
        check_parameters(aggregate, options)
        prompt_spec = row_prompts(question, None, options)
        task, portable = _plan(prompt_spec, {}, "aggregate")
        asked = GroupQuestion(
            prompt_spec=prompt_spec,
            by=list(by) if isinstance(by, list) else [] if by is None else [by],
            on=on,
            rows_per_prompt=rows_per_prompt,
        )
        return aggregate_partitions(self._frame, task, asked, portable)

    def plot(self, *_: Any, **__: Any) -> NoReturn:
        """Raise an error that says how to plot a part of the DataFrame."""
        _refuse("plot")

    def map(self, *_: Any, **__: Any) -> NoReturn:
        """Raise an error that says how to make a map of a part of the DataFrame."""
        _refuse("map")

    def _with(self, answers: Any, into: str | None) -> Any:
        columns = list(answers.columns)
        if columns == [ANSWER]:
            return self._frame.assign(**{into or ANSWER: answers[ANSWER]})
        return self._frame.assign(**{name: answers[name] for name in columns})

    def _column(self, name: str) -> Any:
        return get_column(self._frame, name)


def _refuse(method: str) -> NoReturn:
    msg = f"A {method} needs all points in memory, and a Dask DataFrame is not."
    hint = f"Take a part that fits: df.sample(frac=0.1).compute().llm.{method}(…)"
    raise UsageError(msg, hint=hint)


def _map_prompts(view: Any, prompt_spec: RowPrompts) -> Any:
    """Plan the prompts of the rows of ``view``; return their answers as a frame."""
    dtypes = answer_dtypes(prompt_spec) or {ANSWER: "string"}
    meta = pd.DataFrame({each: pd.Series([], dtype=dtype) for each, dtype in dtypes.items()})
    meta.index = view._meta.index
    task, portable = _plan(prompt_spec, dtypes, "prompt")
    return view.map_partitions(ask_partition, task, portable, meta=meta)


def _plan(
    prompt_spec: RowPrompts, dtypes: Mapping[str, Any], method: str
) -> tuple[WorkerTask, RowPrompts]:
    """
    Return what the workers need, and the prompts without the headers, which are not in the graph.

    Raises:
        UsageError: an option has no meaning for Dask, or the model is not free.
    """
    if prompt_spec.dry_run:
        msg = "The cost of a Dask DataFrame cannot be estimated before it is computed."
        hint = f"Try it on df.head(): df.head().llm.{method}(…, dry_run=True)."
        raise UsageError(msg, hint=hint)
    if prompt_spec.batch:
        msg = "batch=True is not supported for Dask DataFrames."
        raise UsageError(
            msg, hint="Use a pandas DataFrame: df.compute().llm.prompt(…, batch=True)"
        )
    # An alias may have parameters, so the unresolved name is sent and each worker resolves it.
    _, limit = _resolve_model(
        prompt_spec.model or session.config.model,
        prompt_spec.concurrency,
        _DEFAULT_CONCURRENCY,
        yes=prompt_spec.yes,
    )
    task = WorkerTask.of_session(limit, dtypes, prompt_spec.parameters.get("extra_headers"))
    parameters = {
        name: each for name, each in prompt_spec.parameters.items() if name != "extra_headers"
    }
    return task, replace(prompt_spec, parameters=parameters)


def _resolve_model(
    model: str, concurrency: int | None, usual: int | None, *, yes: bool
) -> tuple[str, SharedLimit | None]:
    """
    Return the full name of a model, and the limit for the cluster.

    The limit is ``None`` for a free model without a given ``concurrency``.

    Raises:
        UsageError: the model is not free and ``yes`` is not set.
    """
    if concurrency is not None:
        concurrency = check_integer("concurrency", concurrency)
    route = bridge.run(find_route(session, model))
    if not yes and pricing.has_price(session.config, route.provider, route.model):
        msg = f"{route.name} is not free, and a cluster cannot ask for confirmation."
        raise UsageError(msg, hint="Try it on df.head() first; then allow it with yes=True.")
    if route.provider.is_free(route.model) and concurrency is None:
        return route.name, None
    most = concurrency or usual or route.provider.embedding_concurrency
    return route.name, SharedLimit(route.provider.name, most)


def _best_rows(frame: pd.DataFrame, k: int) -> pd.DataFrame:
    return frame.sort_values("cosine", ascending=False, kind="stable").head(k)
