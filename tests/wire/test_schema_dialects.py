"""Schemas as the services take them, checked against the official clients' own conversions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from anthropic import transform_schema
from hypothesis import given
from hypothesis import strategies as st
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field, TypeAdapter

import llm_magics as lm
from llm_magics import errors
from llm_magics.parameters import ModelParameters
from llm_magics.providers import create_provider
from llm_magics.schemas import parse_schema, validate_answer, validate_json
from llm_magics.types import ChatMessage, StreamChunk
from llm_magics.wire.decoders import AnswerUnwrapper
from llm_magics.wire.schema_dialects import (
    ANTHROPIC,
    CEREBRAS,
    GEMINI,
    GRAMMAR,
    OPENAI,
    PLAIN,
    UNKNOWN,
    Dialect,
    compile_schema,
    convert_tool_schema,
    unwrap_answer,
)
from tests.support.fake_anthropic import CHAT, FakeAnthropic
from tests.support.fake_openai import FakeOpenAI, refusal
from tests.support.schema_rules import sample, wrong_for_claude, wrong_for_gemini, wrong_for_openai
from tests.support.serving import Asked, Says, Server, as_json, chat_stream, serving

KEY = "a-key-of-the-test"


class Colour(Enum):
    """A few colours."""

    RED = "red"
    BLUE = "blue"


class Place(BaseModel):
    """Where something is."""

    city: str = Field(min_length=2, max_length=40, pattern="^[A-Z]")
    floor: int = Field(ge=0, le=9, description="counted from the street")


class Person(BaseModel):
    """All that pydantic writes in its own way."""

    name: str
    place: Place = Field(description="where she lives")
    work: Place | None = None
    colour: Colour
    size: Literal["small", "large"] = "small"
    pair: tuple[int, str]
    marks: list[Annotated[int, Field(ge=1, le=5)]] = Field(min_length=1, max_length=3)
    tags: set[str] = set()
    born: date | None = None
    either: int | str = 0


class Cat(BaseModel):
    """A pet that purrs."""

    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    """A pet that barks."""

    kind: Literal["dog"]
    name: str


class Owner(BaseModel):
    """A union told apart by a field."""

    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Tree(BaseModel):
    """A schema that refers to itself."""

    name: str
    children: list[Tree] = []


SPECS: list[Any] = [
    Person,
    Owner,
    Tree,
    list[int],
    str,
    int | None,
    Colour,
    Cat | Dog,
    list[Place],
    tuple[int, int],
    "size small|large",
    "name, age int?, tags list[str], size small|large?",
    {"enum": ["a", 1, None]},
    {"const": 3},
    {"type": ["integer", "null"], "minimum": 3},
    {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}]},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"required": ["a"]}]},
    {
        "type": "object",
        "properties": {"a": {"$ref": "#/definitions/A", "description": "told here"}},
        "definitions": {"A": {"type": "string", "description": "told there", "maxLength": 9}},
    },
    {"type": "object", "properties": {"a": {"minLength": 2, "default": "xy"}}},
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
]


def named(spec: Any) -> str:
    """A short id of a test."""
    return str(getattr(spec, "__name__", spec))[:40]


@pytest.mark.parametrize("spec", SPECS, ids=named)
def test_openai_takes_what_is_compiled_for_it(spec: Any) -> None:
    """A validator as strict as its strict mode finds nothing wrong."""
    for dialect in (OPENAI, PLAIN):
        made = compile_schema(parse_schema(spec), dialect)
        assert made is not None
        assert made.is_strict
        assert wrong_for_openai(made.schema, strict=True) is None, made.schema


@pytest.mark.parametrize("spec", [each for each in SPECS if each is not Tree], ids=named)
def test_claude_takes_what_is_compiled_for_it(spec: Any) -> None:
    """Limits are told in the description, and every object is closed."""
    made = compile_schema(parse_schema(spec), ANTHROPIC)
    assert made is not None
    assert wrong_for_claude(made.schema) is None, made.schema


@pytest.mark.parametrize("spec", SPECS, ids=named)
def test_gemini_takes_what_is_compiled_for_it(spec: Any) -> None:
    """With references and any root; other limits are told in the description."""
    made = compile_schema(parse_schema(spec), GEMINI)
    assert made is not None
    assert not made.is_wrapped
    assert wrong_for_gemini(made.schema) is None, made.schema


@pytest.mark.parametrize("spec", SPECS, ids=named)
@pytest.mark.parametrize("null", [False, True])
def test_what_fits_the_compiled_schema_fits_the_original(spec: Any, null: bool) -> None:
    """Without the object around it, and without nulls for what may be left out."""
    for dialect in (OPENAI, PLAIN, UNKNOWN, ANTHROPIC, GEMINI, GRAMMAR):
        made = compile_schema(parse_schema(spec), dialect)
        if made is None:
            continue
        value = sample(made.schema, null=null)
        value = unwrap_answer(value) if made.is_wrapped else value
        if spec is Person:  # whose limits stand in words alone
            value |= {"pair": [1, "a"], "marks": [2], "born": "2026-01-02"}
        if spec == tuple[int, int]:
            value = [1, 2]
        if isinstance(spec, dict) and spec.get("anyOf"):
            value = {"a": 1}
        validate_json(value, spec)


MODELS: list[type[BaseModel]] = [Person, Owner, Place, Tree]


def inlined(schema: Any, root: Any, seen: tuple[str, ...] = ()) -> Any:
    """A schema without references, titles and formats of the same value, to be compared."""
    if isinstance(schema, list):
        return [inlined(each, root, seen) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return name if name in seen else inlined(root["$defs"][name], root, (*seen, name))
    made = {name: inlined(each, root, seen) for name, each in schema.items() if name != "$defs"}
    if "const" in made:
        made["enum"] = [made.pop("const")]
    return {name: each for name, each in made.items() if name not in ("title", "description", "default")}  # fmt: skip


@pytest.mark.parametrize("model", [Owner, Place, Tree], ids=named)
def test_as_openai_itself_converts_a_class(model: type[BaseModel]) -> None:
    """The same but for what its client leaves in and its service refuses."""
    theirs = to_strict_json_schema(model)
    made = compile_schema(parse_schema(model), OPENAI)
    assert made is not None
    ours, other = inlined(made.schema, made.schema), inlined(theirs, theirs)
    if model is Place:
        for limit in ("minLength", "maxLength"):
            del other["properties"]["city"][limit]
    if model is Owner:
        pet = other["properties"]["pet"]
        pet["anyOf"] = pet.pop("oneOf")
        pet.pop("discriminator")
    if model is Tree:  # it leaves a default where the service wants null
        assert ours["properties"].pop("children")["anyOf"][1] == {"type": "null"}
        del other["properties"]["children"]
    assert ours == other


@pytest.mark.parametrize("model", [Person, Owner, Place], ids=named)
def test_as_anthropic_itself_converts_a_class(model: type[BaseModel]) -> None:
    """The same types, closed objects and limits in words."""
    theirs = transform_schema(model)
    made = compile_schema(parse_schema(model), ANTHROPIC)
    assert made is not None
    ours, other = inlined(made.schema, made.schema), inlined(theirs, theirs)
    if model is Person:  # it has no form for a tuple
        assert ours["properties"].pop("pair")["items"]
        del other["properties"]["pair"]
    assert ours == other


def test_limits_are_told_in_words() -> None:
    """As Anthropic's client words them."""
    made = compile_schema(parse_schema(Place), ANTHROPIC)
    theirs = transform_schema(Place)
    assert made is not None
    for name in ("city", "floor"):
        ours = made.schema["properties"][name]["description"]
        assert set(ours.strip("{}").replace("\n\n", ", ").split(", ")) == set(
            theirs["properties"][name]["description"].strip("{}").replace("\n\n", ", ").split(", ")
        )


@pytest.mark.parametrize(
    ("spec", "dialect"),
    [
        (Tree, ANTHROPIC),
        (Tree, CEREBRAS),
        ({"type": "object"}, ANTHROPIC),
        (dict[str, int], ANTHROPIC),
        ({"$ref": "#"}, OPENAI),
        ({"$ref": "https://elsewhere.example/schema"}, OPENAI),
        ({"$ref": "#/$defs/nope"}, GRAMMAR),
        ({"type": "object", "properties": {f"f{n}": {"type": "string"} for n in range(101)}}, replace(OPENAI, max_properties=100)),
        ({"enum": [f"v{n}" for n in range(1001)]}, OPENAI),
    ],
)  # fmt: skip
def test_what_a_service_cannot_be_bound_to(spec: Any, dialect: Dialect) -> None:
    """Has no form; the schema then stands in the prompt."""
    assert compile_schema(parse_schema(spec), dialect) is None
    assert OPENAI.max_properties == 5000


def test_a_schema_beyond_strict_mode_is_sent_without_it() -> None:
    """Maps and free objects; the root is an object all the same."""
    for spec in (dict[str, int], list[dict[str, Any]], {"type": "array"}, {}):
        made = compile_schema(parse_schema(spec), OPENAI)
        assert made is not None
        assert not made.is_strict
        assert wrong_for_openai(made.schema, strict=False) is None


@pytest.mark.parametrize("spec", SPECS, ids=named)
def test_an_unknown_server_may_be_openai_and_may_not(spec: Any) -> None:
    """Strict only where no field would have to be null; what may be left out stays so."""
    made = compile_schema(parse_schema(spec), UNKNOWN)
    assert made is not None
    assert wrong_for_openai(made.schema, strict=made.is_strict) is None
    optional = compile_schema(parse_schema("name, age int?, size small|large?"), UNKNOWN)
    assert optional is not None
    assert (optional.is_strict, optional.schema["required"]) == (False, ["name"])


def test_a_deep_schema_is_not_bound() -> None:
    """Ten levels are, eleven are not."""
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(10):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    assert compile_schema(schema, OPENAI) is not None
    deeper = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    assert compile_schema(deeper, OPENAI) is None


def test_a_tools_arguments_are_written_plainly() -> None:
    """References are inlined; what is plain already stays as it is."""
    plain = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}
    assert convert_tool_schema(plain) == plain
    schema = TypeAdapter(Owner).json_schema()
    made = convert_tool_schema(schema)
    assert made["type"] == "object"
    assert "$ref" not in json.dumps(made)
    assert "oneOf" not in json.dumps(made)


scalars = st.sampled_from(
    [{"type": kind} for kind in ("string", "integer", "number", "boolean", "null")]
    + [{"enum": ["a", "b"]}, {"const": 1}, {"type": ["string", "null"]}, {"type": "integer", "minimum": 3}]
)  # fmt: skip


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects of some fields, some of which may be left out."""
    fields = st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3)
    return st.tuples(fields, st.booleans()).map(
        lambda told: {
            "type": "object",
            "properties": told[0],
            **({"required": list(told[0])} if told[1] else {}),
        }
    )


schemas = st.recursive(
    scalars,
    lambda inner: (
        objects(inner)
        | inner.map(lambda each: {"type": "array", "items": each})
        | st.lists(inner, min_size=1, max_size=2).map(lambda each: {"anyOf": each})
        | st.lists(inner, min_size=1, max_size=2).map(lambda each: {"oneOf": each})
        | inner.map(lambda each: {"allOf": [each], "description": "told"})
    ),
    max_leaves=6,
)


@given(schemas, st.booleans())
def test_every_schema_is_taken_and_its_answers_fit(schema: dict[str, Any], null: bool) -> None:
    """By both validators; oneOf is checked as anyOf, for a sample may fit two branches."""
    original = json.loads(json.dumps(schema).replace('"oneOf"', '"anyOf"'))
    strict = compile_schema(schema, OPENAI)
    if strict is not None and strict.is_strict:
        assert wrong_for_openai(strict.schema, strict=True) is None
        value = sample(strict.schema, null=null)
        validate_answer(unwrap_answer(value) if strict.is_wrapped else value, original)
    closed = compile_schema(schema, ANTHROPIC)
    if closed is not None:
        assert wrong_for_claude(closed.schema) is None
    open_ = compile_schema(schema, GEMINI)
    if open_ is not None:
        assert wrong_for_gemini(open_.schema) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    st.lists(st.integers(1, 5)),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_an_answer_is_unwrapped_however_it_is_cut(
    value: Any, cuts: list[int], indent: int | None, is_wrapped: bool
) -> None:
    """What is not wrapped passes as it is."""
    text = (
        json.dumps({"answer": value} if is_wrapped else value, indent=indent) + "\n" * is_wrapped
    )
    work, said, at = AnswerUnwrapper(), "", 0
    for length in [*cuts, len(text)]:
        said += work.take(StreamChunk(text[at : at + length])).text
        at += length
    said += work.take(StreamChunk("", finish_reason="stop")).text
    expected = value["answer"] if not is_wrapped and unwrap_answer(value) is not value else value
    assert json.loads(said) == expected
    assert is_wrapped or unwrap_answer(value) is not value or said == text


@contextmanager
def provider_at(
    answer: Any, kind: str = "openai", **settings: Any
) -> Iterator[tuple[Server, str]]:
    """A server, and the name of a provider that is asked there."""
    with serving(answer) as server:
        told = {"base_url": server.url, "api_key": KEY, "type": kind, **settings}
        lm.config.providers = {"one": told}
        yield server, "one"


@pytest.mark.parametrize("spec", [each for each in SPECS if each is not Person], ids=named)
def test_openai_is_asked_in_its_strict_mode(spec: Any) -> None:
    """One request, and the answer fits what was asked for."""
    with provider_at(FakeOpenAI(), profile="openai") as (server, name):
        answer = lm.ask("who?", model=f"{name}/gpt-test", schema=spec)
        (asked,) = server.asked
        assert asked.json()["response_format"]["json_schema"]["strict"] is True
    answer.data  # noqa: B018 (it raises where it does not fit)
    assert answer.repairs == 0
    if spec == list[int]:
        assert (answer.text, answer.data, answer.json()) == ("[7]", [7], [7])


def test_nulls_for_what_may_be_left_out() -> None:
    """Strict mode makes the model name every field; a null is then no value."""

    class Model(FakeOpenAI):
        answers_null = True

    with provider_at(Model(), profile="openai") as (_, name):
        answer = lm.ask("who?", model=f"{name}/gpt-test", schema=Tree)
        assert json.loads(answer.text) == {"name": "A text", "children": None}
        assert answer.data == Tree(name="A text")
        assert answer.json() == {"name": "A text"}
        told = lm.ask("who?", model=f"{name}/gpt-test", schema="age int?, name")
        assert told.data == {"age": None, "name": "A text"}


@pytest.mark.parametrize(
    "spec", ["size small|large", list[int], Place, Tree, dict[str, int]], ids=named
)
def test_claude_is_asked_in_its_own_form(spec: Any) -> None:
    """Bound where it can be; a schema that refers to itself stands in the prompt."""

    class Model(FakeAnthropic):
        def message(self, body: dict[str, Any]) -> Says:
            if "output_config" in body:
                return super().message(body)
            assert "fits this JSON schema" in body["messages"][-1]["content"][-1]["text"]
            fits = {"name": "x"} if spec is Tree else {"x": 1}
            body["output_config"] = {"format": {"schema": {"const": fits}}}
            return super().message(body)

    with provider_at(Model(), "anthropic") as (server, name):
        lm.ask("who?", model=f"{name}/{CHAT}", schema=spec).data  # noqa: B018
        (asked,) = server.asked
        is_bound = "output_config" in asked.json()
    assert is_bound == (spec not in (Tree, dict[str, int]))


def refusing(words: str, status: int = 400, code: str | None = None) -> Any:
    """A service that takes no schema, and answers by the prompt."""

    def answer(asked: Asked) -> Says:
        body = asked.json()
        if "response_format" in body:
            return refusal(code, words, status, "response_format")
        assert '"age"' in body["messages"][-1]["content"]
        return Says(chat_stream('Here it is:\n```json\n{"age": 3}\n```'))

    return answer


GROQ = "This model does not support response format `json_schema`. See supported models at https://console.groq.com/docs/structured-outputs#supported-models"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (GROQ, None),
        ("AiError: 5025: This model doesn't suuport JSON Schema.", None),
        ("Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.", None),
        ("This response_format type is unavailable now", "invalid_request_error"),
        ("Unsupported parameter: 'response_format'.", "unsupported_parameter"),
        ("response_format.type must be 'text'", None),
    ],
)  # fmt: skip
def test_a_model_that_takes_no_schema_is_asked_by_the_prompt(words: str, code: str | None) -> None:
    """Once more and no oftener; the next time at once, whatever the schema."""
    with provider_at(refusing(words, code=code), profile="groq") as (server, name):
        model = f"{name}/llama-3.3-70b-versatile"
        assert lm.ask("who?", model=model, schema="age int").data == {"age": 3}
        assert lm.ask("and who?", model=model, schema="age int, b?").data == {"age": 3}
        assert ["response_format" in each.json() for each in server.asked] == [True, False, False]
        lm.ask("who?", model=f"{name}/another", schema="age int")
        assert len(server.asked) == 5


def test_a_schema_that_is_refused_is_remembered_alone() -> None:
    """The model is bound to others as before."""
    words = "Invalid schema for response_format 'answer': In context=(), 'x' is not permitted."

    def answer(asked: Asked) -> Says:
        body = asked.json()
        told = body.get("response_format", {}).get("json_schema", {"schema": {}})
        if "b" in told["schema"].get("properties", {}):
            return refusal(None, words, 400, "response_format")
        return Says(chat_stream('{"b": 1}' if "b int" in str(body["messages"]) else '{"a": 1}'))

    with provider_at(answer) as (server, name):
        for schema in ("b int", "b int", "a int"):
            lm.ask(f"who? {schema}", model=f"{name}/m", schema=schema)
        bound = ["response_format" in each.json() for each in server.asked]
    assert bound == [True, False, False, True]


def test_a_refusal_for_another_reason_is_not_remembered() -> None:
    """Where the request fails without its schema too, the schema was not to blame."""
    says = refusal(None, "The grammar of the prompt offends this model.", 400)
    with provider_at(says) as (server, name):
        for _ in range(2):
            with pytest.raises(errors.ProviderError):
                lm.ask("who?", model=f"{name}/m", schema="age int")
        assert ["response_format" in each.json() for each in server.asked] == [True, False] * 2


@pytest.mark.parametrize("status", [401, 429])
def test_other_refusals_are_not_about_the_schema(status: int) -> None:
    """A key or a limit stays what it is, whatever its words."""
    lm.config.retries = 0
    says = refusal(None, "No json_schema without a key.", status)
    with provider_at(says) as (server, name):
        with pytest.raises(errors.ProviderError):
            lm.ask("who?", model=f"{name}/m", schema="age int")
        assert len(server.asked) == 1


def test_deepseek_is_shown_the_schema() -> None:
    """Its JSON mode wants the word in the prompt, and knows nothing of the schema."""

    def answer(asked: Asked) -> Says:
        body = asked.json()
        assert body["response_format"] == {"type": "json_object"}
        if "json" not in json.dumps(body["messages"]).lower():
            words = "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'."
            return refusal("invalid_request_error", words, 400)
        said = body["messages"][-1]["content"]
        return Says(chat_stream('{"answer": [1, 2]}' if '"answer"' in said else '{"age": 3}'))

    with provider_at(answer, profile="deepseek") as (_, name):
        assert lm.ask("who?", model=f"{name}/m", schema="age int").data == {"age": 3}
        assert lm.ask("who?", model=f"{name}/m", schema=list[int]).data == [1, 2]


def test_the_readmes_judge_at_openai() -> None:
    """``scorers.judge`` asks for one of three words."""
    from llm_magics.benchmarking.judge import _VERDICT_SCHEMA

    with provider_at(FakeOpenAI(), profile="openai") as (server, name):
        assert lm.ask("A or B?", model=f"{name}/gpt-test", schema=_VERDICT_SCHEMA).data == {
            "better": "A"
        }
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"age": 3}, {"age": 3}),
        ([1, 2], [1, 2]),
        ([{"type": "dog"}], [{"type": "dog"}]),
        (7, 7),
        (False, False),
        ({}, {}),
    ],
)
@pytest.mark.parametrize("is_streamed", [True, False])
def test_an_answer_that_is_json_itself(content: Any, expected: Any, is_streamed: bool) -> None:
    """Cloudflare sends the value in place of its text."""
    if is_streamed:
        says = Says(chat_stream(content))
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}  # fmt: skip
        says = as_json({"choices": [choice]})
    with provider_at(says) as (_, name):
        answer = lm.ask("who?", model=f"{name}/m")
    assert json.loads(answer.text) == expected


def test_a_list_of_parts_is_still_a_text() -> None:
    """Mistral's thinking and text come as a list."""
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "hi"},
    ]
    with serving(Says(chat_stream(parts))) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY)
        said = [ChatMessage("user", "x")]
        answer = asyncio.run(provider.generate_chat(said, "m", ModelParameters()))
    assert (answer.text, answer.reasoning) == ("hi", "hm")  # type: ignore[union-attr]
