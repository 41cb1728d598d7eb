"""Answers that a model wrote among its thoughts, or before the tag that ends them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics.notebook.display.answer import LiveDisplay, StaticDisplay, TextDisplay
from llm_magics.runtime.parsing import answer_in_thoughts, find_json_values
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from llm_magics.types import ModelResponse
from tests.support.servers import servers
from tests.support.serving import Asked, Says, as_json, chat_event, chat_stream, serving

LONE = 'maybe {"name": "Bob"}?\n</think>\n\n{"name": "Ann"}'
THOUGHTS = 'maybe {"name": "Bob"}?\n'


def streamed(text: str) -> Says:
    """``text`` in pieces of three characters."""
    return Says(chat_stream(*(text[at : at + 3] for at in range(0, len(text), 3))))


def whole(text: str) -> Says:
    """``text`` in one JSON body."""
    message = {"role": "assistant", "content": text}
    return as_json({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


@pytest.mark.parametrize("says", [streamed, whole])
@pytest.mark.parametrize("schema", ["name", None])
def test_what_comes_before_a_lone_tag_is_thinking(
    says: Callable[[str], Says], schema: str | None
) -> None:
    """Streamed or whole, with a schema or without, and in the thread too."""
    with servers(one=says(LONE)) as running:
        answer = lm.ask("who?", model="one/m", schema=schema, thread="t")
        assert len(running["one"].asked) == 1
    assert (answer.text, answer.reasoning) == ('{"name": "Ann"}', THOUGHTS)
    assert answer.json() == {"name": "Ann"}
    assert session.conversations.before("t")[1].content == '{"name": "Ann"}'


def test_in_streams_rows_and_what_is_kept() -> None:
    """The last piece makes it right; a second call gives the same from the cache."""
    with servers(one=streamed(LONE)) as running:
        stream = lm.stream("who?", model="one/m", schema="name")
        pieces = "".join(chunk.text for chunk in stream)
        assert pieces == 'maybe {"name": "Bob"}?\n{"name": "Ann"}'
        assert stream.response.data == stream.data == {"name": "Ann"}
        frame = lm.extract(["a", "b"], "name", model="one/m")
        assert frame["name"].tolist() == ["Ann", "Ann"]
        asked = len(running["one"].asked)
        again = lm.extract(["a", "b"], "name", model="one/m")
        assert again["name"].tolist() == ["Ann", "Ann"]
        assert len(running["one"].asked) == asked
        texts = lm.prompt(pd.Series(["a"]), "Say {{ text }}", model="one/m")
        assert texts.tolist() == ['{"name": "Ann"}']


@pytest.mark.parametrize("is_whole", [True, False])
def test_from_python_async(is_whole: bool) -> None:
    """`aask` gives the same."""
    with servers(one=whole(LONE) if is_whole else streamed(LONE)):
        answer = asyncio.run(lm.aask("who?", model="one/m", schema="name"))
    assert answer.data == {"name": "Ann"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "Bob"} or rather {"name": "Ann"}', "Ann"),
        ('{"name": "Ann"} and not {"nom": "Bob"}', "Ann"),
        ('```json\n{"name": "Bob"}\n```\nNo:\n```json\n{"name": "Ann"}\n```', "Ann"),
        ('{"name": "Ann"} as in [1] and [2]', "Ann"),
        ('{"answer": {"name": "Ann"}}', "Ann"),
        ("{}" * 300 + '{"name": "Ann"}' + "{}" * 50, "Ann"),
    ],
)
def test_of_several_values_the_last_that_fits(text: str, expected: str) -> None:
    """Drafts come first; what does not fit is no answer."""
    answer = Response(text, schema="name")
    assert answer.data == {"name": expected}
    assert answer.json() == {"name": expected}


def test_without_a_schema_the_longest_value_counts() -> None:
    """As before."""
    assert Response('[1] {"a": "long enough"} [2]').json() == {"a": "long enough"}
    assert [each.value for each in find_json_values('a [1] b\n```json\n"x"\n```')] == ["x", [1]]


def ollama(*answers: dict[str, Any]) -> Any:
    """An Ollama server that gives these messages in turn, and the last for ever."""
    left = list(answers)

    def answer(asked: Asked) -> Says:
        if asked.path != "/api/chat":
            return as_json({"models": [], "capabilities": ["completion", "thinking"]})
        message = left.pop(0) if len(left) > 1 else left[0]
        reason = message.get("reason", "stop")
        lines = [
            {"message": {"role": "assistant", "content": "", "thinking": piece}, "done": False}
            for piece in (message.get("thinking", "")[:9], message.get("thinking", "")[9:])
        ]
        lines.append({"message": {"role": "assistant", "content": message.get("content", "")}, "done": False})  # fmt: skip
        lines.append({"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": reason, "prompt_eval_count": 9, "eval_count": 9})  # fmt: skip
        return Says([json.dumps(each).encode() + b"\n" for each in lines], 200, "application/x-ndjson")  # fmt: skip

    return answer


def at_ollama(url: str) -> None:
    """Have the settings name the server as ``one``."""
    lm.config.providers = {"one": {"type": "ollama", "base_url": url}}


@pytest.mark.parametrize(
    "thinking",
    ['{"age": 3}', 'maybe {"age": "x"}, or {"age": 2}; no: {"age": 3}.', '```json\n{"age": 3}\n```'],
)  # fmt: skip
def test_json_in_the_thoughts_is_the_answer(thinking: str) -> None:
    """Ollama 0.30 puts it there where a thinking model is bound to a schema; one call is enough."""
    with serving(ollama({"thinking": thinking})) as server:
        at_ollama(server.url)
        answer = lm.ask("how old?", model="one/m", schema="age int")
        assert answer.data == {"age": 3}
        assert json.loads(answer.text) == {"age": 3}
        assert lm.extract(["a"], "age int", model="one/m")["age"].tolist() == [3]
        stream = lm.stream("how old?", model="one/m", schema="age int")
        assert [chunk.text for chunk in stream if chunk.text] == []
        assert stream.response.data == {"age": 3}
        asked = [each for each in server.asked if each.path == "/api/chat"]
        assert len(asked) == 3


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_thoughts_without_an_answer_are_mended_without_thinking(reason: str) -> None:
    """The model is told not to think: it may never come to an end of it."""
    first = {"thinking": 'She may be {"age": "old"}', "reason": reason}
    with serving(ollama(first, {"content": '{"age": 3}'})) as server:
        at_ollama(server.url)
        answer = lm.ask("how old?", model="one/m", schema="age int")
        bodies = [each.json() for each in server.asked if each.path == "/api/chat"]
    assert answer.data == {"age": 3}
    assert answer.repairs == 1
    assert [body.get("think") for body in bodies] == [None, False]
    assert bodies[0]["messages"] == bodies[1]["messages"]


def test_a_model_that_only_thinks_ends_in_an_error() -> None:
    """After as many tries as the settings allow."""
    lm.config.schema_retries = 1
    with serving(ollama({"thinking": "hm"})) as server:
        at_ollama(server.url)
        with pytest.raises(errors.LLMError) as caught:
            lm.ask("how old?", model="one/m", schema="age int")
        assert len([each for each in server.asked if each.path == "/api/chat"]) == 2
    assert caught.value.partial.reasoning == "hm"  # type: ignore[attr-defined]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_json_in_the_reasoning_of_other_services(field: str) -> None:
    """vLLM, DeepSeek and OpenRouter have fields of their own for it."""
    choices = [{"index": 0, "delta": {field: '{"age": 3}', "content": ""}, "finish_reason": None}]
    events = [chat_event(choices=choices), chat_event(finish_reason="stop"), b"data: [DONE]\n\n"]
    with servers(one=Says(events)) as running:
        assert lm.ask("how old?", model="one/m", schema="age int").data == {"age": 3}
        assert len(running["one"].asked) == 1


def test_thoughts_stay_thoughts_where_there_is_an_answer() -> None:
    """Or no schema, or nothing that fits."""
    for answer, schema in (
        (ModelResponse("text", reasoning='{"age": 3}'), "age int"),
        (ModelResponse("", reasoning='{"age": 3}'), None),
        (ModelResponse("", reasoning='{"age": "x"}'), "age int"),
    ):
        assert answer_in_thoughts(answer, schema) is answer
    moved = answer_in_thoughts(ModelResponse(" ", reasoning='so {"age": 3}'), "age int")
    assert (moved.text, moved.reasoning) == ('{"age": 3}', "so")


def test_a_cell_folds_what_was_thinking(shell: InteractiveShell) -> None:
    """The answer kept is the answer alone."""
    with servers(one=streamed(LONE)):
        shell.run_cell_magic("llm", "one/m -o ans", "who?")
    assert shell.user_ns["ans"].text == '{"name": "Ann"}'


def test_displays_take_back_what_was_thinking(capsys: pytest.CaptureFixture[str]) -> None:
    """Live and static leave the same outputs; a terminal says what was thinking."""
    shown: dict[str, dict[str, str]] = {}

    def publish(
        data: dict[str, str], metadata: Any = None, transient: Any = None, update: bool = False
    ) -> None:
        shown[(transient or {}).get("display_id", str(len(shown)))] = data

    for display in (LiveDisplay(publish), StaticDisplay(publish)):
        shown.clear()
        with display:
            for piece in ("one thought\n\n", "another thought\n\n", "a third"):
                display.write(piece)
            display.rethink()
            display.write("the answer")
        left = [each for each in shown.values() if each]
        assert [each["text/plain"] for each in left] == ["(thought: 6 words)", "the answer"]
        assert "thought" not in left[-1]["text/html"]
    with TextDisplay() as display:
        display.write("a thought")
        display.rethink()
        display.write("the answer")
    assert capsys.readouterr().out == "a thought\n(the model was still thinking)\n\nthe answer\n"
