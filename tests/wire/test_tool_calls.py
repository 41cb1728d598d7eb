"""Tool calls as services stream them: without ids, without indexes, in pieces of any size."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics.types import ModelResponse, ToolCall
from llm_magics.wire import (
    anthropic_answers,
    gemini_answers,
    ollama,
    openai_chat,
    openai_responses,
)
from llm_magics.wire.tool_calls import ToolCallAssembler
from tests.support.growth import growth


def assembled(pieces: list[Any], **known: Any) -> list[tuple[str, str, str]]:
    """The calls that ``pieces`` add up to."""
    assembler = ToolCallAssembler(**known)
    for piece in pieces:
        assembler.add(*piece)
    return [(call.id, call.name, call.arguments_text) for call in assembler.take()]


A, B = '{"x": 1}', '{"x": 2}'
ONE, TWO = "call00001", "call00002"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([(0, "", "f", A), (0, None, "f", B)], [(ONE, "f", A), (TWO, "f", B)]),
        ([(0, None, "f", A), (0, None, "f", A)], [(ONE, "f", A), (TWO, "f", A)]),
        ([(None, None, "f", A), (None, None, "g", B)], [(ONE, "f", A), (TWO, "g", B)]),
        ([(0, "a", "f", A), (0, "b", "f", B)], [("a", "f", A), ("b", "f", B)]),
        ([(0, "a", "f", A), (0, "a", "f", B)], [("a", "f", A), (ONE, "f", B)]),
        ([(0, "a", "f", A), (1, "a", "f", A)], [("a", "f", A), (ONE, "f", A)]),
        ([(0, "a", "f", '{"x"'), (0, "a", "f", ": 1}")], [("a", "f", A)]),
        ([(0, None, "f", '{"x"'), (0, None, "f", ": 1}"), (0, None, "f", "")], [(ONE, "f", A)]),
        ([(0, None, "f", '{"x"'), (0, None, "f", A), (0, None, "f", A)], [(ONE, "f", A)]),
        ([(None, None, "f", ""), (None, None, None, A), (None, None, "f", ""), (None, None, None, B)], [(ONE, "f", A), (TWO, "f", B)]),
        ([(0, "a", "f", ""), (0, "a", "f", A), (0, "a", "f", "")], [("a", "f", A)]),
        ([(0, "a", "f", A), (0, "a", "f", A)], [("a", "f", A)]),
        ([(0, "a", "f", '{"x"'), (0, "q", None, ": 1}")], [("a", "f", A)]),
        ([(0, "a", "f", '{"x"'), (1, "b", "g", '{"x"'), (0, None, None, ": 1}"), (1, None, None, ": 2}")], [("a", "f", A), ("b", "g", B)]),
        ([(None, "a", "f", '{"x"'), (None, "b", "g", '{"x"'), (None, "a", None, ": 1}"), (None, "b", None, ": 2}")], [("a", "f", A), ("b", "g", B)]),
        ([(0, None, "f", {"x": 1}), (0, None, "f", {"x": 2})], [(ONE, "f", A), (TWO, "f", B)]),
        ([(0, None, "f", None)], [(ONE, "f", "")]),
        ([("0", 7, "f", '{"x"'), ("0", 7, None, ": 1}")], [("7", "f", A)]),
        ([(0, None, "f", "{}"), (0, None, "f", "{}"), (0, None, "f", "{}")], [(ONE, "f", "{}"), (TWO, "f", "{}"), ("call00003", "f", "{}")]),
    ],
)  # fmt: skip
def test_a_named_piece_begins_a_call_where_it_must(pieces: list[Any], expected: list[Any]) -> None:
    """Another id or name, or arguments that are complete; a repeated name alone does not."""
    assert assembled(pieces) == expected


def test_a_name_in_pieces_is_known_by_the_tools() -> None:
    """Where the tools are known, ``get_`` and ``weather`` are one name, and two tools are two."""
    pieces = [(0, "a", "get_", ""), (0, None, "weather", ""), (0, None, None, A)]
    assert assembled(pieces, names=["get_weather"]) == [("a", "get_weather", A)]
    growing = [(0, "a", "get_", ""), (0, "a", "get_weather", ""), (0, None, None, A)]
    assert assembled(growing, names=["get_weather"]) == [("a", "get_weather", A)]
    two = [(0, None, "get", ""), (0, None, "get_weather", "")]
    assert [call[1] for call in assembled(two, names=["get", "get_weather"])] == ["get", "get_weather"]  # fmt: skip


def test_made_ids_differ_in_a_conversation() -> None:
    """From those of earlier answers too, and are the same whenever the answer is read."""
    pieces = [(0, None, "f", A), (0, "call00002", "g", B)]
    first = assembled(pieces, taken=["call00001"])
    assert [call[0] for call in first] == ["call00003", "call00002"]
    assert assembled(pieces, taken=["call00001"]) == first


def test_a_flood_of_pieces_is_read_in_linear_time() -> None:
    """Thousands of named pieces, and as many ids: as many steps, not their square."""

    def read(count: int) -> None:
        assembler = ToolCallAssembler()
        for _ in range(count):
            assembler.add(0, None, "f", '{"')
        for number in range(count):
            assembler.add(None, str(number), "f", "{")
        assert len(assembler.take()) == count

    assert growth(read, 1500) < 6


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)  # fmt: skip
NAMES = ["get", "get_weather", "f", "roll"]
CALLS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)),
    max_size=4,
)


def cut(draw: Any, text: str) -> list[str]:
    """``text`` in pieces, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=5)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


DIALECTS = ["openai", "all at 0", "no index", "name again", "grows", "whole", "objects", "ids"]


def pieces_of(draw: Any, dialect: str, calls: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """``calls`` as some service streams them: index, id, name and arguments of each piece."""
    made: list[Any] = []
    for number, (name, arguments) in enumerate(calls):
        text, call_id = json.dumps(arguments), f"id{number}"
        parts = cut(draw, text)
        if dialect == "openai":
            made += [(number, call_id, name, "")]
            made += [(number, None, None, part) for part in parts]
        elif dialect == "all at 0":
            made += [(0, call_id, name, parts[0])]
            made += [(0, None, None, part) for part in parts[1:]]
        elif dialect == "no index":
            made += [(None, None, name, "")]
            made += [(None, None, None, part) for part in parts]
        elif dialect == "name again":
            made += [(number, call_id, name, part) for part in parts]
        elif dialect == "grows":
            ends = sorted(draw(st.sets(st.integers(1, len(text)), max_size=4)) | {len(text)})
            made += [(number, call_id, name, text[:end]) for end in ends]
        elif dialect == "whole":
            made += [(0, None, name, text)]
        elif dialect == "objects":
            made += [(None, draw(st.none() | st.just("")), name, arguments)]
        else:
            made += [(None, call_id, name, parts[0])]
            made += [(None, call_id, "", part) for part in parts[1:]]
    return made


@settings(deadline=None)
@given(st.data(), st.sampled_from(DIALECTS), CALLS)
def test_all_dialects_give_the_same_calls(
    data: Any, dialect: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    """However the arguments are cut, and whatever is left out or repeated."""
    pieces = pieces_of(data.draw, dialect, calls)
    found = assembled(pieces, names=NAMES)
    assert [(name, json.loads(text)) for _, name, text in found] == calls
    assert len({call_id for call_id, _, _ in found}) == len(calls)


def response(decoder: Any, body: dict[str, Any]) -> ModelResponse:
    """What a decoder makes of a whole answer."""
    return ModelResponse.of(decoder.decode_body(body, 0.0))


def test_every_format_keeps_ids() -> None:
    """Those of the service: the results of the calls refer to them."""
    function = {"name": "f", "arguments": {"x": 1}}
    chat = {"choices": [{"message": {"tool_calls": [{"id": "c_9", "function": function}]}, "finish_reason": "tool_calls"}]}  # fmt: skip
    item = {"type": "function_call", "call_id": "c_9", "name": "f", "arguments": {"x": 1}}
    block = {"type": "tool_use", "id": "c_9", "name": "f", "input": {"x": 1}}
    part = {"functionCall": {"id": "c_9", "name": "f", "args": {"x": 1}}}
    made = [
        response(openai_chat.ChunkDecoder(), chat),
        response(openai_responses.ChunkDecoder(), {"status": "completed", "output": [item]}),
        response(anthropic_answers.ChunkDecoder(), {"content": [block]}),
        response(gemini_answers.ChunkDecoder(), {"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}),
        response(ollama.ChunkDecoder(), {"message": {"tool_calls": [{"id": "c_9", "function": function}]}, "done": True}),
    ]  # fmt: skip
    for answer in made:
        assert answer.tool_calls == (ToolCall("c_9", "f", A),)


def test_every_format_makes_ids() -> None:
    """Chat completions, Responses, Messages, Gemini's and Ollama's."""
    function = {"name": "f", "arguments": {"x": 1}}
    chat = {"choices": [{"message": {"tool_calls": [{"function": function}, {"function": function}]}, "finish_reason": "tool_calls"}]}  # fmt: skip
    item = {"type": "function_call", "name": "f", "arguments": {"x": 1}}
    block = {"type": "tool_use", "name": "f", "input": {"x": 1}}
    part = {"functionCall": {"name": "f", "args": {"x": 1}}}
    made = [
        response(openai_chat.ChunkDecoder(), chat),
        response(openai_responses.ChunkDecoder(), {"status": "completed", "output": [item, item]}),
        response(anthropic_answers.ChunkDecoder(), {"content": [block, block]}),
        response(gemini_answers.ChunkDecoder(), {"candidates": [{"content": {"parts": [part, part]}, "finishReason": "STOP"}]}),
        response(ollama.ChunkDecoder(), {"message": {"tool_calls": [{"function": function}] * 2}, "done": True}),
    ]  # fmt: skip
    for answer in made:
        assert answer.tool_calls == (ToolCall(ONE, "f", A), ToolCall(TWO, "f", A))
