"""Checks of the options that operators share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_magics.errors import UsageError


def check_no_batch(operator: str, parameters: Mapping[str, Any]) -> None:
    """
    Check that ``parameters`` of a model do not ask for batch jobs.

    Raises:
        UsageError: they do.
    """
    if {"batch", "wait"} & {*parameters}:
        msg = f"{operator} cannot use batch jobs: later prompts depend on earlier answers."
        raise UsageError(msg, hint="Leave out batch and wait.")
