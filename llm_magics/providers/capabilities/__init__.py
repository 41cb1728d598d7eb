"""
What the cloud's models can do, where the service itself does not say.

The table in ``models.json`` bears its date and source; `renew` makes it anew. What a service
tells counts more than the table.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from llm_magics.providers.base import ModelInfo

# The date that services put behind the name of a model's version.
_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|latest)$")


@cache
def _table() -> dict[str, Any]:
    text = files(__package__).joinpath("models.json").read_text("utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def as_of() -> str:
    """The day of the table, as ``YYYY-MM-DD``."""
    return str(_table()["as_of"])


def providers_of(model: str) -> list[str]:
    """
    Return the cloud providers in the table that have ``model``, or others of its family.

    A model that is newer than the table is recognised by the beginning of its name (``gpt-``).
    """
    tables: dict[str, dict[str, Any]] = _table()["models"]
    bare = _DATE.sub("", model)
    having = [name for name, known in tables.items() if model in known or bare in known]
    family = re.match(r"(?:[a-z]{3,}|o\d)(?=-)", model)
    if having or family is None:
        return having
    return [
        name
        for name, known in tables.items()
        if any(each.startswith(f"{family[0]}-") for each in known)
    ]


def completed(provider: str, told: ModelInfo) -> ModelInfo:
    """``told`` by the service, and what it left open from the table."""
    known = _table()["models"].get(provider, {})
    row = known.get(told.name) or known.get(_DATE.sub("", told.name)) or {}
    missing: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in row.items()
        if not getattr(told, name)
    }
    return replace(told, **missing)
