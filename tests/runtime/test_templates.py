"""``{{ name }}`` in a prompt."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.errors import TemplateError
from llm_magics.runtime.prompts.templates import render


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
        ("{{ topik }}", "variable topik", "Did you mean topic?"),
        ("{{ topic.x }}", "has no attribute", "own cell"),
        ("a\n{{ a b }}", "Line 2 of the prompt", "raw"),
        ("{{ 1 / 0 }}", "ZeroDivisionError", "own cell"),
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


FRAME = pd.DataFrame(
    {"text": ["a | b", None, "c\nd"] * 100, "stars": [1, 2, 3] * 100, "x": [0.1234567891] * 300}
)


def test_a_frame_becomes_what_a_model_can_read() -> None:
    """Size, columns with types and gaps, first rows as a table, and what is left out."""
    lines = render("Here: {{ df }} End", {"df": FRAME}).splitlines()
    assert lines[0] == "Here: 300 rows x 3 columns"
    assert "text (" in lines[1]
    assert "100 missing" in lines[1]
    assert "stars (int64), x (float64)" in lines[1]
    assert lines[2:6] == [
        "| text | stars | x |",
        "| --- | --- | --- |",
        "| a \\| b | 1 | 0.123457 |",
        "|  | 2 | 0.123457 |",
    ]
    assert lines[6].startswith("| c d | 3")
    assert lines[-2:] == ["(280 more rows)", " End"]


def test_a_frame_is_fitted_to_its_room() -> None:
    """Long texts leave fewer rows; a single one is cut."""
    long = pd.DataFrame({"text": ["word " * 500] * 50})
    text = render("{{ df }}", {"df": long})
    assert len(text) < 4500
    assert "…" in text
    assert "more rows" in text


def test_tables_and_columns_by_filter() -> None:
    """As many rows as are asked for, figures of all columns, a column alone; else an error."""
    two = render("{{ df | table(2) }}", {"df": FRAME})
    assert two.count("\n") == 4
    assert two.endswith("(298 more rows)")
    assert "(" not in render("{{ df | table(300) }}", {"df": FRAME}).splitlines()[-1]
    told = render("{{ df | describe }}", {"df": FRAME})
    assert "| mean |" in told
    assert "| 2 |" in told
    assert "300 rows x 1 columns" in render("{{ df.stars }}", {"df": FRAME})
    with pytest.raises(TemplateError, match="str"):
        render("{{ name | table }}", {"name": "x"})


@given(
    st.lists(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.integers())))
)
def test_any_column_can_be_shown(values: list[object]) -> None:
    """One line a row, whatever is in it."""
    frame = pd.DataFrame({"v": pd.Series(values, dtype=object)})
    lines = render("{{ df | table(10000) }}", {"df": frame}).split("\n")
    assert len(lines) == 2 + len(values)
