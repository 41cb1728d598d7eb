"""``echo``: calls that are written in a message, results of tools, pictures."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics.parameters import Tool
from llm_magics.providers import echo
from llm_magics.providers.echo import parse_calls
from tests.support.growth import growth


def weather(city: str, days: int = 1) -> str:
    """The weather in a city."""
    return f"sunny in {city} for {days}"


WEATHER = Tool(
    "weather",
    parameters={"type": "object", "properties": {"city": {}, "days": {"type": "integer"}}},
)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('weather("Oslo")', {"city": "Oslo"}),
        ("Say weather('Oslo', days=3), please.", {"city": "Oslo", "days": 3}),
        ('weather(city="Os)lo(")', {"city": "Os)lo("}),
        ("weather()", {}),
    ],
)
def test_a_written_call_is_a_call(text: str, arguments: dict[str, object]) -> None:
    """By place or by name, with brackets in its texts, within other words."""
    (call,) = parse_calls(text, [WEATHER])
    assert (call.name, call.arguments) == ("weather", arguments)


@pytest.mark.parametrize(
    "text",
    [
        "the weather (in Oslo)",
        "weather(city)",
        "weather(open('x'))",
        "weather(",
        "unweather('x')",
        "the.weather('x')",
        "weather(**{'city': 'x'})",
        "weather('x', city='y')",
        "weather('x', 1, 2)",
        "weather(1e999)",
        r"weather('\ud800')",
    ],
)
def test_other_words_are_none(text: str) -> None:
    """Names, other calls and what Python would refuse: nothing is called, or run."""
    assert parse_calls(text, [WEATHER]) == ()


@given(st.text(max_size=60), st.integers())
def test_any_literal_comes_through(city: str, days: int) -> None:
    """What was written is what is called with."""
    (call,) = parse_calls(f"x {'weather'}({city!r}, {days!r}) y", [WEATHER])
    assert json.loads(call.arguments_text) == {"city": city, "days": days}


@given(st.text("weather()'\"\\,= \n", max_size=80))
def test_no_text_breaks_it(text: str) -> None:
    """Whatever is written, there are calls in it or none."""
    for call in parse_calls(text, [WEATHER]):
        assert isinstance(call.arguments, dict)


def test_a_long_row_of_brackets_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the text takes no more than some ten times as long: what is read is bounded."""
    monkeypatch.setattr(echo, "_MAX_CALL_CHARS", 200)
    monkeypatch.setattr(echo, "_MAX_MATCHES", 50)

    def read(size: int) -> None:
        parse_calls("weather((" * size + ")" * size * 3, [WEATHER])

    assert growth(read, 400) < 12


def test_it_calls_and_answers_with_what_came_of_it(shell: InteractiveShell) -> None:
    """A whole round of tools, with no model that would have to be trusted."""
    shell.user_ns["weather"] = weather
    prompt = "weather('Oslo') and weather('Rome', 2)"
    shell.run_cell_magic("llm", "echo/echo --tools weather --yes -o ans", prompt)
    assert shell.user_ns["ans"].text == "sunny in Oslo for 1\nsunny in Rome for 2"


@pytest.mark.parametrize(
    ("choice", "calls"), [("none", 0), ("weather", 1), ("other", 0), (None, 1)]
)
def test_the_choice_of_tools_counts(choice: str | None, calls: int) -> None:
    """No call where none is wanted, and none of a tool that was not chosen."""
    answer = lm.ask("weather('Oslo')", model="echo/echo", tools=[weather], tool_choice=choice)
    assert len(answer.tool_calls) == calls
    assert answer.finish_reason == ("tool_calls" if calls else "stop")
    assert answer.text == ("" if calls else "weather('Oslo')")


def test_lorem_calls_nothing() -> None:
    """It says what it can, and does no more."""
    answer = lm.ask("weather('Oslo')", model="echo/lorem", tools=[weather])
    assert not answer.tool_calls
    table = lm.models("echo/*").set_index("model")["capabilities"]
    assert "tools" in table["echo/echo"]
    assert "tools" not in table["echo/lorem"]


def test_a_picture_is_named() -> None:
    """By its type, or by its address: so that one sees that it went along."""
    pixel = b"\x89PNG\r\n\x1a\n"
    answer = lm.ask("What is it?", model="echo/echo", images=[pixel, "https://x.test/y.png"])
    assert answer.text == "What is it?\n[picture: image/png]\n[picture: https://x.test/y.png]"
