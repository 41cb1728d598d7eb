"""Schemas, however they are written, and answers checked against them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from typing_extensions import TypedDict

from llm_magics import errors
from llm_magics.schemas import close_objects, is_strict, parse_schema, validate_answer


class Pet(BaseModel):
    """A pet."""

    name: str
    age: int = 0
    friends: list[Pet] = []


@dataclass
class Point:
    """A point."""

    x: float
    y: float


class Row(TypedDict):
    """A row."""

    a: int


def test_the_short_form() -> None:
    """Names alone are texts; types, lists, choices, remarks and what may be missing."""
    schema = parse_schema("name, age int, tags list[str], size small|large, born date?: if known")
    assert schema["properties"] == {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "size": {"enum": ["small", "large"]},
        "born": {
            "anyOf": [{"type": "string", "format": "date"}, {"type": "null"}],
            "description": "if known",
        },
    }
    assert schema["required"] == ["name", "age", "tags", "size"]
    assert schema["additionalProperties"] is False
    assert parse_schema("a\nb list[list[int]]")["properties"]["b"]["items"]["type"] == "array"


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("age itn", "int"),
        ("", "Example"),
        ("a b c", "list"),
        ("!", "Example"),
        ('{"type": "objekt"}', "json-schema"),
        ('{"type": ', "name, age int"),
        ({"type": 3}, "json-schema"),
        (lambda: 0, "pydantic class"),
    ],
)
def test_what_is_no_schema_is_said_so(wrong: Any, hint: str) -> None:
    """With the nearest right thing, or how to write one."""
    with pytest.raises(errors.ConfigurationError) as caught:
        parse_schema(wrong)
    assert hint in str(caught.value.hint)


@given(st.text())
def test_no_text_breaks_the_short_form(text: str) -> None:
    """It is a schema, or an error that says why not."""
    with contextlib.suppress(errors.ConfigurationError, KeyError):
        assert parse_schema(text)["type"]


def test_classes_give_schemas_that_services_take() -> None:
    """Closed, as some insist; strict where all is needed."""
    assert parse_schema(Point)["additionalProperties"] is False
    assert is_strict(parse_schema(Point))
    assert is_strict(parse_schema("a, b int"))
    assert not is_strict(parse_schema(Pet))
    assert not is_strict({"type": "object", "properties": {"a": {}}, "required": ["a"]})
    pet = parse_schema(Pet)
    assert pet["$defs"]["Pet"]["additionalProperties"] is False
    assert close_objects({"type": "object", "additionalProperties": True, "properties": {}}) == {
        "type": "object",
        "additionalProperties": True,
        "properties": {},
    }


@pytest.mark.parametrize(
    ("value", "spec", "expected"),
    [
        ({"name": "Rex", "age": "3"}, Pet, Pet(name="Rex", age=3)),
        ({"x": 1, "y": 2}, Point, Point(1, 2)),
        ({"a": 1}, Row, {"a": 1}),
        ([1, 2], list[int], [1, 2]),
        ({"name": "a", "age": 1}, "name, age int", {"name": "a", "age": 1}),
        ({"anything": 1}, {"type": "object"}, {"anything": 1}),
    ],
)
def test_an_answer_that_fits(value: Any, spec: Any, expected: Any) -> None:
    """Comes back as it is, or as an instance of the class."""
    assert validate_answer(value, spec) == expected


@pytest.mark.parametrize(
    ("value", "spec", "where"),
    [
        ({"name": "Rex", "age": "old"}, Pet, "answer.age"),
        ({"name": "a", "friends": [{"age": 1}]}, Pet, "answer.friends.0.name"),
        ({"name": "a", "age": "1"}, "name, age int", "answer.age"),
        ({"name": "a"}, "name, age int", "answer:"),
        ({"a": 1, "b": 2}, "a int", "answer:"),
        ({"d": "tomorrow"}, "d date", "answer.d"),
        (3, "a", "answer:"),
    ],
)
def test_an_answer_that_does_not_fit(value: Any, spec: Any, where: str) -> None:
    """The error says where."""
    with pytest.raises(errors.ParseError) as caught:
        validate_answer(value, spec)
    assert where in str(caught.value)


def test_slips_of_the_short_form() -> None:
    """``name: type`` as Python writes it, a choice of types; a name twice is refused."""
    schema = parse_schema("name: str, age: int, size int|None, about: how it is")
    assert schema["properties"] == {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "size": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "about": {"type": "string", "description": "how it is"},
    }
    with pytest.raises(errors.ConfigurationError, match="twice"):
        parse_schema("a int, a str")


@pytest.mark.parametrize("wrong", [{"name": "str"}, {"name": str}, Pet(name="x")])
def test_what_looks_like_a_schema_and_is_none(wrong: Any) -> None:
    """A dictionary of types says nothing in JSON's words, and an instance is no class."""
    with pytest.raises(errors.ConfigurationError) as caught:
        parse_schema(wrong)
    assert "name, age int" in str(caught.value.hint) or "pydantic class" in str(caught.value.hint)


@pytest.mark.parametrize("wrong", [{"$ref": "#/$defs/nope"}, {"$ref": "#"}])
def test_a_schema_that_leads_nowhere(wrong: dict[str, Any]) -> None:
    """Is the schema's fault, and not the answer's."""
    with pytest.raises(errors.ConfigurationError, match="reference"):
        validate_answer({"a": 1}, wrong)


def test_a_long_field_is_read_at_once() -> None:
    """No text makes the reading slow: this one took seconds."""
    with pytest.raises(errors.ConfigurationError):
        parse_schema("a" + " " * 30_000 + "x ? ?")
