"""Answers that must fit: checked, asked for again with what was wrong, read while they come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from pydantic import BaseModel

import llm_magics as lm
from llm_magics import errors
from llm_magics.runtime import parsing
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from tests.support.servers import servers
from tests.support.serving import Asked, Says, chat_event, chat_stream


def in_turn(*texts: str) -> Any:
    """A server that gives one answer after the other, and the last for ever."""
    said: Iterator[str] = iter(texts)
    last = [""]

    def answer(asked: Asked) -> Says:
        last[0] = next(said, last[0])
        return Says(chat_stream(last[0]))

    return answer


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def test_the_model_is_shown_what_did_not_fit() -> None:
    """Every place with why, its own answer before it, and the schema; the value is what came."""
    with servers(one=in_turn('{"name": 3, "age": "old"}', '{"name": "Ann", "age": 3}')) as running:
        answer = lm.ask("who?", model="one/m", schema=Person)
        assert answer.data == Person(name="Ann", age=3)
        assert answer.repairs == 1
        first, second = (each.json()["messages"] for each in running["one"].asked)
        assert first == second[:1]
        assert second[1] == {"role": "assistant", "content": '{"name": 3, "age": "old"}'}
        assert "answer.name: " in second[2]["content"]
        assert "answer.age: " in second[2]["content"]
        assert '"required": ["name", "age"]' in second[2]["content"]
    assert lm.runs().finish_reason.tolist() == ["stop", "stop"]


@pytest.mark.parametrize("schema_retries", [0, 1, 3])
def test_the_retries_are_bounded(schema_retries: int) -> None:
    """Then it is an error, with the last answer in it."""
    lm.config.schema_retries = schema_retries
    with servers(one=in_turn("no JSON")) as running:
        with pytest.raises(errors.ParseError) as caught:
            lm.ask("who?", model="one/m", schema="age int")
        assert len(running["one"].asked) == schema_retries + 1
    assert caught.value.partial.text == "no JSON"


def test_an_answer_that_was_cut_is_not_asked_for_again() -> None:
    """It would be cut again."""
    cut = [chat_event('{"a'), chat_event(finish_reason="length"), b"data: [DONE]\n\n"]
    with servers(one=Says(cut)) as running:
        with pytest.raises(errors.ParseError, match="cut off"):
            lm.ask("who?", model="one/m", schema="age int")
        assert len(running["one"].asked) == 1


def test_a_thread_keeps_the_question_and_the_last_answer() -> None:
    """And nothing of the complaint."""
    with servers(one=in_turn("no", '{"age": 3}')):
        lm.ask("who?", model="one/m", schema="age int", thread="t")
    assert [each.content for each in session.conversations.before("t")] == ["who?", '{"age": 3}']


def test_a_schema_in_a_cell(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """In short or by a variable's name; shown as a value, and what it took is told."""
    shell.user_ns["Person"] = Person
    with servers(one=in_turn("no", '{"name": "Ann", "age": 3}')):
        shell.run_cell_magic("llm", "one/m --schema Person -o ans", "who?")
        assert shell.user_ns["ans"].data == Person(name="Ann", age=3)
        out = capsys.readouterr().out
        assert "Person(name='Ann', age=3)" in out
        assert "corrected to match its schema" in out
        shell.run_cell_magic("llm", 'one/m --schema "name, age int" -o ans', "who?")
        assert shell.user_ns["ans"].data == {"name": "Ann", "age": 3}
        with pytest.raises(errors.ParseError):
            shell.run_cell_magic("llm", 'one/m --schema "colour" -o bad', "who?")
        assert shell.user_ns["bad"].text


def test_the_value_while_it_comes() -> None:
    """``stream.data`` grows with the answer; before anything has come there is none."""
    pieces = ['{"name": "An', 'n", "tags": ["a', '", "b"]', "}"]
    with servers(one=Says(chat_stream(*pieces))):
        stream = lm.stream("who?", model="one/m", schema="name, tags list[str]")
        assert stream.data is None
        seen = [stream.data for chunk in stream if chunk.text]
        assert seen == [
            {"name": "An"},
            {"name": "Ann", "tags": ["a"]},
            {"name": "Ann", "tags": ["a", "b"]},
            {"name": "Ann", "tags": ["a", "b"]},
        ]
        assert stream.response.data == seen[-1]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
).filter(lambda value: isinstance(value, list | dict))


@given(value=values, cut=st.floats(0, 1), fenced=st.booleans())
def test_a_part_of_json_is_never_another_value(value: Any, cut: float, fenced: bool) -> None:
    """Of any prefix the lists and objects in it are the beginnings of the whole's."""
    text = json.dumps(value, ensure_ascii=False)
    part = text[: max(1, int(cut * len(text)))]
    found = parsing.parse_partial_json(f"```json\n{part}" if fenced else part)
    assert _begins(found, value)
    assert parsing.parse_partial_json(text + " so it is.") == value


def _begins(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and _begins(value, whole[key]) for key, value in part.items()
        )
    if isinstance(part, list):
        return isinstance(whole, list) and all(map(_begins, part, whole))
    if isinstance(part, str):
        return isinstance(whole, str) and whole.startswith(part)
    if isinstance(part, int) and not isinstance(part, bool):  # a number may have more digits
        return str(whole).startswith(str(part))
    return bool(part == whole)


def test_json_is_repaired_only_when_asked_and_said_so() -> None:
    """A trailing comma, a missing brace: an error; with repair=True a value, and a warning."""
    answer = Response("Here: {'a': 1, 'b': [2,]")
    with pytest.raises(errors.ParseError):
        answer.json()
    with pytest.warns(UserWarning, match="was repaired"):
        assert answer.json(repair=True) == {"a": 1, "b": [2]}
    assert Response('{"a": 1}').json(repair=True) == {"a": 1}
    with pytest.raises(errors.ParseError):
        Response("nothing of the kind").json(repair=True)


def test_code_by_its_language() -> None:
    """The first block of that language; an error that lists those there are."""
    answer = Response("```sql\nselect 1\n```\nand\n```Python\nprint(1)\n```")
    assert (answer.code, answer.code_in("python")) == ("select 1", "print(1)")
    with pytest.raises(errors.ParseError, match="python, sql"):
        answer.code_in("rust")
