"""Which scores rank the pairs of a join: of vectors, of texts, or those of the user."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llm_magics.dataframes.embed import resolve_vectors
from llm_magics.dataframes.embedding_run import EmbeddingPlan
from llm_magics.dataframes.operators.blocking import (
    DenseScores,
    GivenScores,
    PairScores,
    TextScores,
)
from llm_magics.dataframes.operators.consent import DryRunEnd
from llm_magics.dataframes.rows import get_column
from llm_magics.dataframes.vectors import find_embedding_model, is_vector_column, with_tags
from llm_magics.errors import UsageError, abbreviate
from llm_magics.runtime.embedding import EmbedOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

    from llm_magics.dataframes.operators.pair_oracles import Contents

# The values of ``candidates``, apart from an array of scores.
AUTO, VECTORS, NGRAMS, SCORES = "auto", "vectors", "ngrams", "scores"


class Side(NamedTuple):
    """
    One of the tables of a join.

    Attributes:
        frame: its rows.
        rows: the positions of those that are compared.
        contents: the values that the statement names.
        on: the column of vectors or texts for candidates; ``None`` for the default.
    """

    frame: DataFrame
    rows: NDArray[np.intp]
    contents: Contents
    on: str | None

    def column(self) -> Series[Any] | None:
        """Return the column for candidates: ``on``, or the only column of vectors."""
        name: Any = self.on
        if name is None:
            having = [
                each
                for each in self.frame.columns
                if is_vector_column(self.frame[each]) and self.frame[each].notna().any()
            ]
            if len(having) != 1:
                return None
            name = having[0]
        column: Series[Any] = with_tags(get_column(self.frame, name), self.frame)
        return column

    def texts(self) -> list[str]:
        """Return the text of each compared row: ``on``, or the values that the statement names."""
        if self.on is not None:
            values = get_column(self.frame, self.on).iloc[self.rows].tolist()
            return [each if isinstance(each, str) else "" for each in values]
        texts = [
            " ".join(map(str, self.contents.values(number).values()))
            for number in range(len(self.contents))
        ]
        return [texts[code] for code in self.contents.codes[self.rows].tolist()]


def choose_scores(
    sides: tuple[Side, Side],
    candidates: Any,
    embedding_model: str | None,
    *,
    yes: bool = False,
    dry_run: bool = False,
) -> tuple[str, PairScores]:
    """
    Return the kind of scores, and the scores of all pairs of compared rows.

    Args:
        sides: the left and the right table.
        candidates: ``auto``, ``vectors``, ``ngrams``, or an array of scores.
        embedding_model: the model that embeds texts.
        yes: do not ask for confirmation of the cost of embedding.
        dry_run: send nothing.

    Raises:
        DryRunEnd: with ``dry_run``, texts have no stored vectors; it has the estimate of these.
        UsageError: ``candidates`` is something else, the vectors cannot be compared, or the cost of
            embedding is not confirmed.
        LLMError: the texts cannot be embedded.
    """
    if not isinstance(candidates, str):
        return SCORES, _given(sides, candidates)
    if candidates not in (AUTO, VECTORS, NGRAMS):
        msg = f"Invalid value for candidates: {abbreviate(candidates)}."
        raise UsageError(msg, hint='Use "auto", "vectors", "ngrams", or an array of scores.')
    columns = [side.column() for side in sides]
    have_vectors = all(each is not None and is_vector_column(each) for each in columns)
    if candidates == NGRAMS or (
        candidates == AUTO and not have_vectors and embedding_model is None
    ):
        return NGRAMS, TextScores(sides[0].texts(), sides[1].texts())
    return VECTORS, _of_vectors(sides, embedding_model, yes=yes, dry_run=dry_run)


def _of_vectors(
    sides: tuple[Side, Side], embedding_model: str | None, *, yes: bool, dry_run: bool
) -> DenseScores:
    """Return the scores of stored vectors; texts are embedded, by the model of stored vectors."""
    columns = [side.column() for side in sides]
    stored = [column is not None and is_vector_column(column) for column in columns]
    models = {
        maker.model
        for column, is_stored in zip(columns, stored, strict=True)
        if is_stored and (maker := find_embedding_model(column)) is not None
    }
    if len(models) > 1:
        names = " and ".join(sorted(models))
        msg = f"The tables have vectors of {names}, which cannot be compared."
        raise UsageError(msg, hint="Embed both with one model, or choose columns: on_left=…")
    model = embedding_model or next(iter(models), None)
    if dry_run:
        texts = [
            side.texts() for side, is_stored in zip(sides, stored, strict=True) if not is_stored
        ]
        _end_dry_run(list(chain.from_iterable(texts)), model)
    left, right = (
        resolve_vectors(column.iloc[side.rows])
        if is_stored and column is not None
        else resolve_vectors(side.texts(), model, yes=yes)
        for side, column, is_stored in zip(sides, columns, stored, strict=True)
    )
    if left.shape[1] != right.shape[1]:
        msg = f"The vectors have {left.shape[1]} and {right.shape[1]} dimensions."
        raise UsageError(msg, hint="Embed both columns with the same model.")
    return DenseScores(left, right)


def _end_dry_run(texts: list[str], model: str | None) -> None:
    """
    End a dry run if texts would be embedded.

    Raises:
        DryRunEnd: some have no stored vectors.
    """
    plan = EmbeddingPlan(texts=texts, model=model, options=EmbedOptions(), on_error="null")
    estimate = plan.estimate()
    if estimate.prompts:
        raise DryRunEnd(estimate)


def _given(sides: tuple[Side, Side], candidates: Any) -> GivenScores:
    """Return the scores of the user, for the compared rows."""
    shape = tuple(len(side.frame) for side in sides)
    try:
        scores = np.asarray(candidates, np.float32)
    except (TypeError, ValueError):
        scores = np.empty(0, np.float32)
    if scores.shape != shape:
        msg = f"candidates must be an array of scores of shape {shape}, got {scores.shape}."
        raise UsageError(
            msg, hint="It has a row for each left row, and a column for each right row."
        )
    return GivenScores(scores[np.ix_(sides[0].rows, sides[1].rows)])
