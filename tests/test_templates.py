"""``{{ name }}`` in a prompt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.engine.templates import render
from llm_magics.errors import TemplateError


@given(st.text().filter(lambda text: "{{" not in text and "{%" not in text))
def test_text_without_braces_stays_as_it_is(text: str) -> None:
    """To the last character, single braces and all."""
    assert render(text, {}) == text


@given(st.text())
def test_values_are_filled_in_as_they_are(value: str) -> None:
    """A value is never read as a template itself, nor escaped."""
    assert render("<{{ value }}>", {"value": value}) == f"<{value}>"


def test_expressions_and_json_live_together() -> None:
    """Attributes, filters and loops work; the braces of JSON and CSS do no harm."""
    text = 'Explain {"a": 1}, {#id}: {{ xs | join("+") }}{% for x in xs %} {{ x }}{% endfor %}\n'
    assert render(text, {"xs": [1, 2]}) == 'Explain {"a": 1}, {#id}: 1+2 1 2\n'


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("{{ topik }}", "no variable topik", "Did you mean topic?"),
        ("{{ topic.x }}", "has no attribute", "cell of its own"),
        ("a\n{{ a b }}", "Line 2 of the prompt", "raw"),
        ("{{ 1 / 0 }}", "ZeroDivisionError", "cell of its own"),
    ],
)
def test_what_cannot_be_filled_in_is_said(text: str, message: str, hint: str) -> None:
    """A name, an attribute, the syntax or the expression: the message says which."""
    with pytest.raises(TemplateError) as caught:
        render(text, {"topic": "sea"})
    assert message in str(caught.value)
    assert hint in str(caught.value.hint)


def test_a_template_cannot_reach_python() -> None:
    """The sandbox keeps prompts from project files away from the interpreter."""
    with pytest.raises(TemplateError):
        render("{{ ().__class__.__base__.__subclasses__() }}", {})
