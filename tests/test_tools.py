"""Functions as tools: told of, called, and their mistakes told to the model."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import Field

from llm_magics import errors
from llm_magics.parameters import Tool
from llm_magics.tools import Toolbox, create_tool, format_result
from llm_magics.types import ToolCall


def weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> dict[str, Any]:
    """
    How the weather will be.

    A forecast, not a promise.

    Args:
        city: where, by its usual name.
        days: how many days from now.
    """
    return {"city": city, "days": days, "unit": unit}


def test_a_function_tells_of_itself() -> None:
    """Name, docstring, hints, defaults; what the docstring says of each argument."""
    tool = create_tool(weather)
    assert tool.name == "weather"
    assert tool.description == "How the weather will be.\n\nA forecast, not a promise."
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "where, by its usual name."},
            "days": {"type": "integer", "default": 1, "description": "how many days from now."},
            "unit": {"type": "string", "default": "C", "enum": ["C", "F"]},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    assert create_tool(tool) is tool


def test_numpy_docstrings_annotations_and_none_at_all() -> None:
    """Whichever way a function is written."""

    def scaled(x: float, by: Annotated[float, Field(description="how much")] = 2):  # type: ignore[no-untyped-def]
        """Scale it.

        Parameters
        ----------
        x : float
            the number
        """
        return x * by

    def bare():  # type: ignore[no-untyped-def]
        return 1

    properties = create_tool(scaled).parameters["properties"]
    assert properties["x"]["description"] == "the number"
    assert properties["by"]["description"] == "how much"
    assert create_tool(bare) == Tool("bare", "", {"type": "object", "properties": {}, "additionalProperties": False})  # fmt: skip


@pytest.mark.parametrize(
    "function",
    [lambda x: x, lambda *x: x, pd.DataFrame.merge, lambda **x: x],
    ids=["lambda", "star", "types JSON has not", "double star"],
)
def test_what_a_model_cannot_call(function: Any) -> None:
    """Is refused when it is given, and not when the model tries."""
    with pytest.raises(errors.ConfigurationError):
        create_tool(function)


def test_calls_are_checked_and_made() -> None:
    """Arguments become what the hints say; the result is JSON."""
    box = Toolbox([weather])
    call = ToolCall("c", "weather", '{"city": "Paris", "days": "3"}')
    assert json.loads(box.call(call)) == {"city": "Paris", "days": 3, "unit": "C"}
    assert "weather" in box
    assert box.tools == (create_tool(weather),)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (ToolCall("c", "wether", "{}"), "Did you mean weather?"),
        (ToolCall("c", "weather", "{}"), "city"),
        (ToolCall("c", "weather", "[1]"), "not a JSON object"),
        (ToolCall("c", "weather", '{"city": "x", "unit": "K"}'), "unit"),
        (ToolCall("c", "weather", '{"city": "x", "other": 1}'), "other"),
    ],
)
def test_mistakes_are_told_to_the_model(call: ToolCall, words: str) -> None:
    """As a text that begins with Error: it may know better the next time."""
    told = Toolbox([weather]).call(call)
    assert told.startswith("Error: ")
    assert words in told


def test_a_function_that_fails() -> None:
    """The model hears what was wrong, but no key and no endless text."""

    def fails() -> None:
        """Fail."""
        msg = "sk-" + "a" * 30 + " is wrong " + "x" * 5000
        raise ValueError(msg)

    told = Toolbox([fails]).call(ToolCall("c", "fails"))
    assert told.startswith("Error: ValueError: **** is wrong")
    assert len(told) <= 2000


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("raw answer", "raw answer"),
        (None, "null"),
        ([1, "é"], '[1, "é"]'),
        (pd.DataFrame({"a": [1, 2]}), '[{"a": 1}, {"a": 2}]'),
        (np.array([1.5, 2.0]), "[1.5, 2.0]"),
        (np.float64(2.5), "2.5"),
        (date(2026, 1, 2), '"2026-01-02"'),
        ({"when": date(2026, 1, 2)}, '{"when": "2026-01-02"}'),
        ({1, 2}.__class__, "\"<class 'set'>\""),
    ],
)
def test_results_as_a_model_reads_them(result: Any, expected: str) -> None:
    """Texts as they are, tables as rows, arrays as lists, all else by its text."""
    assert format_result(result) == expected


def test_an_async_function_is_awaited() -> None:
    """Also from within a running loop, as in a notebook."""

    async def slow(x: int) -> int:
        """Double it."""
        await asyncio.sleep(0)
        return 2 * x

    async def within() -> str:
        return Toolbox([slow]).call(ToolCall("c", "slow", '{"x": 4}'))

    assert Toolbox([slow]).call(ToolCall("c", "slow", '{"x": 2}')) == "4"
    assert asyncio.run(within()) == "8"


def test_what_would_be_lost_in_silence_is_refused() -> None:
    """Two tools of one name; an argument whose name is kept for other uses."""

    def hidden(_x: int) -> None:
        """Hide."""

    with pytest.raises(errors.ConfigurationError, match="Two tools"):
        Toolbox([weather, weather])
    with pytest.raises(errors.ConfigurationError):
        create_tool(hidden)
