"""The entries of the history: what is in a line, and which lines are valid."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_magics._util.text import replace_lone_surrogates
from llm_magics.runtime.history import entries, writer
from llm_magics.runtime.history.database import delete_all, delete_runs, open_history, reading
from llm_magics.runtime.history.entries import (
    Details,
    Origin,
    decode_entry,
    decode_messages,
    decode_stored_answer,
    encode_entry,
)
from llm_magics.runtime.response import Response
from llm_magics.secrets import forget_secret, register_secret
from llm_magics.types import ChatMessage, ToolCall
from tests.support.runs import run_at


def test_identifiers_do_not_depend_on_the_generator_of_users() -> None:
    """Two kernels that seed it with the same number make different ones."""
    found = set()
    for _ in range(20):
        random.seed(1)
        found.add(entries.new_id()[11:])
    assert len(found) == 20
    assert entries.is_id(entries.new_id())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_makes_other_identifiers() -> None:
    """Than its parent, although it starts with a copy of the generator."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, entries.new_id()[11:].encode())
        os._exit(0)
    os.waitpid(child, 0)
    found = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)
    assert len(found) == 10
    assert found != entries.new_id()[11:]


TEXT = st.text(max_size=40)


@given(prompt=TEXT, answer=TEXT, thoughts=TEXT, arguments=TEXT)
def test_any_call_is_an_entry(prompt: str, answer: str, thoughts: str, arguments: str) -> None:
    """Of one line, from which the same prompt and answer are read."""
    call = ToolCall("1", "look", arguments)
    sent = (ChatMessage("user", prompt), ChatMessage("assistant", "", tool_calls=(call,)))
    response = Response(answer, messages=sent, reasoning=thoughts, tool_calls=(call,))
    line = encode_entry(
        run_at(datetime.now(UTC)), response, Details(), Origin(), with_contents=True
    )
    assert line.count(b"\n") == 1
    entry = decode_entry(line)
    assert entry is not None
    assert decode_messages(entry["messages"]) == sent
    stored = decode_stored_answer(entry["answer"])
    assert (stored.text, stored.reasoning, stored.tool_calls) == (answer, thoughts, (call,))


@given(key=st.text(min_size=8, max_size=20), before=TEXT, after=TEXT)
@example(key='"quoted\\"', before="", after="")
@example(key="schlüssel-ключ", before="\\", after='"')
def test_no_text_of_an_entry_contains_a_key(key: str, before: str, after: str) -> None:
    """Whatever characters it has; the line stays valid JSON."""
    key = replace_lone_surrogates(key)
    text = f"{before}{key}{after}"
    call = ToolCall("1", "look", json.dumps({"key": text}))
    sent = (ChatMessage("user", text), ChatMessage("assistant", "", tool_calls=(call,)))
    parameters = {"stop": [text], "extra_body": {text: {"a": [text]}}}
    register_secret(key)
    try:
        line = encode_entry(
            run_at(datetime.now(UTC)),
            Response(text, messages=sent, reasoning=text, tool_calls=(call,), request_id=text),
            Details(parameters=parameters, template=text),
            Origin(notebook=text),
            with_contents=True,
        )
    finally:
        forget_secret(key)
    entry = decode_entry(line)
    assert entry is not None
    assert not [each for each in texts_in(entry, frozenset({"id", "time"})) if key in each]
    assert json.dumps(key)[1:-1] not in entry["messages"][1]["tool_calls"][0]["arguments_text"]


def texts_in(value: object, without: frozenset[str] = frozenset()) -> Iterator[str]:
    """All texts in a value of JSON, with the names of objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            if name not in without:
                yield from (name, *texts_in(each))
    elif isinstance(value, list):
        for each in value:
            yield from texts_in(each)


def test_a_key_at_the_end_of_a_long_text_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the text is cut off there."""
    monkeypatch.setattr(entries, "MAX_CHARS", 30)
    register_secret("correct-horse-battery")
    answer = Response("a", messages=(ChatMessage("user", "x" * 20 + "correct-horse-battery"),))
    line = encode_entry(run_at(datetime.now(UTC)), answer, Details(), Origin(), with_contents=True)
    assert b"correct" not in line


def test_a_parameter_that_is_nested_too_deeply_costs_no_entry() -> None:
    """Its value is masked where Python cannot encode this depth, and stored elsewhere."""
    schema: dict[str, object] = {}
    for _ in range(3_000):
        schema = {"items": schema}
    line = encode_entry(
        run_at(datetime.now(UTC)),
        Response("a"),
        Details(parameters={"schema": schema, "seed": 1}),
        Origin(),
        with_contents=True,
    )
    entry = decode_entry(line)
    assert entry is not None
    assert entry["parameters"]["seed"] == 1
    stored = entry["parameters"]["schema"]
    assert stored == "****" or list(stored) == ["items"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples, each of which empties it first."""
    return tmp_path_factory.mktemp("entries") / "history.sqlite"


ANYTHING = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5),
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(
            st.sampled_from(["content", "chunks", "role", "images", "x"]), each, max_size=3
        )
    ),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(["messages", "answer", "parameters", "input_tokens", "cost_usd", "cached"]),
    ANYTHING,
)


@given(fields=FIELDS)
@example(fields={"input_tokens": 10**30})
@example(fields={"messages": [1], "answer": "****"})
@example(fields={"answer": {"chunks": [[1]]}})
@example(fields={"parameters": 5})
def test_an_invalid_entry_costs_no_other(path: Path, fields: dict[str, Any]) -> None:
    """Whatever values it has, those next to it are stored, and all can be read and deleted."""
    lines = [
        json.dumps(
            {"id": name, "time": "2026-01-31 12:00:00", "model": "lab/big", **each}
        ).encode()
        for name, each in (("a", {}), ("b", fields), ("c", {}))
    ]
    with closing(open_history(path)) as connection:
        delete_all(connection)
        count = writer._insert(connection, lines)
        with reading(path) as reader:
            found = {row[0] for row in reader.execute("SELECT * FROM runs")}
        assert len(found) == count
        assert {"a", "c"} <= found <= {"a", "b", "c"}
        delete_runs(connection, list(range(10)))
        connection.execute("INSERT INTO search (search) VALUES ('integrity-check')")
        for table in ("run", "uses", "contents", "daily"):
            query = f"SELECT count(*) FROM {table}"
            assert connection.execute(query).fetchone() == (0,), table
