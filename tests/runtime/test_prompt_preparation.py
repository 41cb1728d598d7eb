"""A prompt's schema, tools and parameters are compiled once, however often it is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

import llm_magics as lm
from llm_magics.parameters import ModelParameters
from llm_magics.runtime.prompts import prompt as prompts
from llm_magics.wire import schema_dialects
from tests.support.servers import BUSY, once, servers
from tests.support.serving import Says, chat_stream

FITS = Says(chat_stream('{"a": 1}'))


def weather(town: str) -> str:
    """The weather in a town."""
    return town


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each step of preparing a prompt ran."""
    found: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            found[name] += 1
            return function(*args, **named)

        return call

    for name in ("parse_schema", "create_tool", "ModelParameters"):
        monkeypatch.setattr(prompts, name, counted(name, getattr(prompts, name)))
    monkeypatch.setattr(
        schema_dialects, "_Compiler", counted("compile", schema_dialects._Compiler)
    )
    schema_dialects._compile.cache_clear()
    assert prompts.ModelParameters is not ModelParameters
    return found


def test_a_repeated_request_is_prepared_once(counts: Counter[str]) -> None:
    """Each attempt sends what the first one sent."""
    with servers(lab=once(BUSY, FITS)) as running:
        lm.ask("x", model="lab/m", schema="a int", tools=[weather], max_tokens=9)
        first, second = (each.body for each in running["lab"].asked)
    assert first == second
    assert counts == {"parse_schema": 1, "create_tool": 1, "ModelParameters": 1, "compile": 1}


def test_another_candidate_gets_the_same_preparation(counts: Counter[str]) -> None:
    """The parameters of its alias are merged into what is compiled already."""
    lm.config.retries = 0
    lm.config.aliases = {"warm": {"model": "b/m", "temperature": 1}}
    lm.config.routes = {"either": ["a/m", "warm"]}
    with servers(a=BUSY, b=FITS):
        response = lm.ask("x", model="either", schema="a int", tools=[weather])
    assert response.fallback_from
    assert counts == {"parse_schema": 1, "create_tool": 1, "ModelParameters": 2, "compile": 1}


def test_the_rows_of_a_column_share_one_preparation(counts: Counter[str]) -> None:
    """However many there are."""
    with servers(lab=FITS):
        lm.extract(pd.Series(["one", "two", "three"]), "a int", model="lab/m")
    counts.pop("create_tool", None)
    assert counts == {"parse_schema": 1, "ModelParameters": 1, "compile": 1}
