"""The same prompts to several models, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from llm_magics.benchmarking.asking import frame_of, listed
from llm_magics.engine.prompt import Prompt

if TYPE_CHECKING:
    from pandas import DataFrame


def compare(
    prompts: str | Iterable[str],
    models: str | Iterable[str],
    *,
    system: str | None = None,
    variables: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> DataFrame:
    """
    What each of ``models`` answers to each of ``prompts``.

    Args:
        prompts, models: one, or several.
        system, variables, parameters: as for `lm.ask`, the same for all.

    Returns:
        One row for each prompt and model, with the answer in ``text`` and the columns of
        `lm.runs`. A model that fails has its ``error`` there, and stops no other.
    """
    asked = (
        Prompt(prompt, model, system, parameters, variables)
        for prompt in listed(prompts)
        for model in listed(models)
    )
    return frame_of(asked)
