"""The oracle that the argument ``oracle=`` of an operator means."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magics.dataframes.operators.known_oracles import (
    ColumnOracle,
    FunctionOracle,
    RowFunction,
)
from llm_magics.dataframes.operators.model_oracle import ModelOracle
from llm_magics.dataframes.operators.pair_oracles import (
    FunctionPairOracle,
    ModelPairOracle,
)
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.errors import UsageError, abbreviate

if TYPE_CHECKING:
    from pandas import DataFrame

    from llm_magics.dataframes.operators.pair_oracles import PairOracle

_ROW_ORACLES = (
    "Pass the name of a model, the name of a column of labels, or a function of the row."
)
_PAIR_ORACLES = "Pass the name of a model, or a function of a row with left.NAME and right.NAME."

RowOracle = ModelOracle | ColumnOracle | FunctionOracle


def create_oracle(
    frame: DataFrame, prompt_spec: RowPrompts, oracle: str | RowFunction | None = None
) -> RowOracle:
    """
    Return the oracle of an operator over the rows of ``frame``.

    Args:
        frame: the rows.
        prompt_spec: the statement as its text, and how to send prompts to a model.
        oracle: ``None`` for the model of ``prompt_spec`` or the settings; the name of a column of
            labels; the name of a model; or a function of the row. A string that is both is the
            column, because a model also has a full name, as in ``openai/gpt-5``.

    Raises:
        UsageError: ``oracle`` is something else, or as for each oracle.
        TemplateError: the statement cannot be rendered.
    """
    if isinstance(oracle, str) and oracle in frame.columns:
        return ColumnOracle(frame, oracle, prompt_spec.text)
    if callable(oracle):
        return FunctionOracle(frame, oracle, prompt_spec.text)
    return ModelOracle(frame, _with_model(prompt_spec, oracle, _ROW_ORACLES))


def create_pair_oracle(
    frames: tuple[DataFrame, DataFrame],
    prompt_spec: RowPrompts,
    oracle: str | RowFunction | None = None,
) -> PairOracle:
    """
    Return the oracle of an operator over pairs of rows.

    Args:
        frames: the left and the right table.
        prompt_spec: the statement about ``left`` and ``right``, and how to send prompts to a model.
        oracle: ``None`` for the model of ``prompt_spec`` or the settings; the name of a model; or a
            function of a row with the columns ``left.NAME`` and ``right.NAME``.

    Raises:
        UsageError: ``oracle`` is something else, or the statement does not name columns of both
            tables, or columns that do not exist.
    """
    if callable(oracle):
        return FunctionPairOracle(frames, oracle, prompt_spec.text)
    return ModelPairOracle(frames, _with_model(prompt_spec, oracle, _PAIR_ORACLES))


def _with_model(prompt_spec: RowPrompts, oracle: Any, hint: str) -> RowPrompts:
    if oracle is None:
        return prompt_spec
    if isinstance(oracle, str):
        return replace(prompt_spec, model=oracle)
    msg = f"Invalid value for oracle: {abbreviate(oracle)}."
    raise UsageError(msg, hint=hint)
