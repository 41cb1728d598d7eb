"""Checks of the options that operators share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llm_magics._util.validation import check_misspelled
from llm_magics.errors import UsageError

# Arguments of some operators, which the others must not pass to a model as parameters.
_ARGUMENTS = (
    *("accuracy", "precision", "recall", "max_calls", "labels", "simultaneous", "rows_per_prompt"),
    *("oracle", "proxy", "by", "on", "k", "scores", "candidates", "how", "suffixes"),
)


def check_parameters(operator: Callable[..., Any], parameters: Mapping[str, Any]) -> None:
    """
    Check the names of the parameters of a model that ``operator`` was given.

    A mistyped target or oracle would be sent to the model, or ignored if no model is asked.

    Raises:
        UsageError: a name is that of an option for batch jobs, of an argument of another operator,
            or similar to one of ``operator``.
    """
    name = operator.__name__
    if {"batch", "wait"} & {*parameters}:
        msg = f"{name} cannot use batch jobs: later prompts depend on earlier answers."
        raise UsageError(msg, hint="Leave out batch and wait.")
    if foreign := [each for each in parameters if each in _ARGUMENTS]:
        msg = f"{name} has no argument {foreign[0]}."
        raise UsageError(msg, hint=f"See its arguments with df.llm.{name}?")
    check_misspelled(parameters, operator)


def check_single_oracle(oracle: Any, model: Any) -> None:
    """
    Check that ``oracle`` and ``model``, which is the oracle by default, are not both given.

    Raises:
        UsageError: they are.
    """
    if oracle is not None and model is not None:
        msg = "Both oracle and model say what answers."
        raise UsageError(msg, hint="Pass one of them.")
