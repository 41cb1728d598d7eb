"""Code, JSON and tables out of answers."""

from __future__ import annotations

import contextlib
import json
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.errors import ParseError
from llm_magics.runtime import parsing
from tests.support.growth import growth

CHATTY = """Sure! Here you are:

```python
def f():
    return "```"
```

and in a shell:

~~~bash
ls
~~~
"""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def test_code_is_taken_out_of_the_chatter() -> None:
    """The first fence, or the first in a language; fences inside strings do not end it."""
    assert parsing.extract_code(CHATTY) == 'def f():\n    return "```"'
    assert parsing.extract_code(CHATTY, "bash") == "ls"


def test_an_answer_without_a_fence_is_code_as_a_whole() -> None:
    """So do models answer that were told to write nothing but code."""
    assert parsing.extract_code("\nprint(1)\n") == "print(1)"


def test_missing_code_is_an_error_that_says_what_there_is() -> None:
    """The languages found are named."""
    with pytest.raises(ParseError, match="bash, python"):
        parsing.extract_code(CHATTY, "rust")


@given(
    json_values.filter(lambda value: isinstance(value, dict | list)), st.sampled_from(["", "json"])
)
def test_json_is_found_bare_fenced_or_in_prose(value: object, language: str) -> None:
    """Wherever a valid value stands, it is that value."""
    text = json.dumps(value)
    assert parsing.parse_json(text) == value
    assert parsing.parse_json(f"Here:\n\n```{language}\n{text}\n```\nDone.") == value
    assert parsing.parse_json(f"The answer is {text}, I think.") == value


def test_broken_json_is_an_error_and_not_repaired() -> None:
    """The message shows how the answer begins."""
    with pytest.raises(ParseError, match="it starts"):
        parsing.parse_json("{'a': 1")


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]',
        'Rows:\n```json\n{"rows": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]}\n```',
        '{"a": [1, 2], "b": ["x", "y"]}',
        "```csv\na, b\n1, x\n2, y\n```",
        "```tsv\na\tb\n1\tx\n2\ty\n```",
        "So:\n\n| a | b |\n|---|---|\n| 1 | x |\n| 2 | y |\n\nDone.",
    ],
)
def test_a_table_becomes_a_frame(text: str) -> None:
    """JSON rows or columns, CSV, TSV and Markdown: two columns, two rows, and numbers are numbers."""
    frame = parsing.parse_table(text)
    assert list(frame.columns) == ["a", "b"]
    assert frame["a"].sum() == 3
    assert frame["b"].tolist() == ["x", "y"]


def test_cells_of_a_markdown_table_may_hold_anything() -> None:
    """Commas, quotes and nothing at all; a number that is told in words stays a text."""
    text = '| name | n | t |\n|---|---|---|\n| a, "b" | 1.5 | two |\n| c |  | 3 |'
    frame = parsing.parse_table(text)
    assert frame["name"].tolist() == ['a, "b"', "c"]
    assert frame["n"].tolist()[0] == 1.5
    assert frame["n"].isna().tolist() == [False, True]
    assert frame["t"].tolist() == ["two", "3"]


def test_what_may_be_a_code_stays_a_text() -> None:
    """Numbers are plain ones; a post code, a country or an exponent is as it was written."""
    rows = [("01234", "+47", "NA", "1e5", "9007199254740993"), ("00001", "-3", "null", "2", "")]
    text = "| a | b | b |  | id |\n|---|---|---|---|---|\n" + "".join(
        f"| {' | '.join(row)} |\n" for row in rows
    )
    frame = parsing.parse_table(text)
    assert list(frame.columns) == ["a", "b", "b", "", "id"]
    assert [frame.iloc[:, n].tolist() for n in range(4)] == [
        list(each) for each in zip(*rows, strict=True)
    ][:4]
    assert frame["id"].tolist()[0] == 9007199254740993
    assert frame["id"].isna().tolist() == [False, True]
    assert parsing.parse_table("| a |\n|---|").empty


def test_no_table_is_an_error() -> None:
    """Prose is no table."""
    with pytest.raises(ParseError, match="no table"):
        parsing.parse_table("There is none.")


def test_a_citation_is_not_the_value() -> None:
    """Of several values in prose the largest counts; while it comes, too."""
    assert parsing.parse_json('As in [1], {"a": 1, "b": 2} [2]') == {"a": 1, "b": 2}
    assert parsing.parse_partial_json('Sure [as asked]: {"a": 1, "b') == {"a": 1}
    assert parsing.parse_partial_json('As in [1]: {"a": 1, "b": "lo') == {"a": 1, "b": "lo"}


def test_brackets_without_end_take_no_time() -> None:
    """A model that stammers holds nobody up."""

    def read(count: int) -> None:
        for text in ("[", "{[", '{"a":'):
            with pytest.raises(ParseError):
                parsing.parse_json(text * count)
        # Old versions of json-repair close so many brackets, new ones refuse them.
        with warnings.catch_warnings(action="ignore"), contextlib.suppress(ParseError):
            parsing.parse_json("[" * count, repair=True)

    assert growth(read, 250) < 8
    with pytest.raises(ParseError):
        parsing.parse_json("[" * 3000)
