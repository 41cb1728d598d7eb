"""Contents in spans and events: only if the standard variable says so, without keys, bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics.attachments import Image
from llm_magics.errors import ContentFilterError
from llm_magics.notebook.tool_calls import ToolRounds
from llm_magics.runtime.response import Response
from llm_magics.runtime.telemetry import contents, sdk
from llm_magics.runtime.telemetry.contents import MAX_TEXT, content_attributes, to_json
from llm_magics.secrets import register_secret
from llm_magics.types import ChatMessage, Tool, ToolCall
from tests.support.servers import servers
from tests.support.serving import Says, chat_event
from tests.support.telemetry import Telemetry, configure

CONTENTS = {
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
}
SECRET = "the-registered-key-0123"


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Telemetry:
    """The configured SDK."""
    monkeypatch.delenv(sdk.CONTENT_VARIABLE, raising=False)
    return configure(monkeypatch)


def ask() -> None:
    """A prompt with all kinds of contents."""
    lm.ask(
        "Where is Paris?",
        model="echo/echo",
        system="Be brief.",
        tools=[where],
        thread="geography",
    )


def where(city: str) -> str:
    """Find a city."""
    return city


@pytest.mark.parametrize("value", ["", "NO_CONTENT", "no_content", "EVENT_ONLY", "true", "SPAN"])
def test_spans_have_no_contents_unless_asked(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Neither by default, nor for events only, nor for a value that is not in the convention."""
    if value:
        monkeypatch.setenv(sdk.CONTENT_VARIABLE, value)
    ask()
    assert not CONTENTS & set(telemetry.attributes)
    assert "Paris" not in telemetry.span.to_json()
    assert bool(telemetry.events) is (value == "EVENT_ONLY")


def test_an_unknown_value_is_named_in_the_log(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the values that there are, and once."""
    sdk._parse_contents.cache_clear()
    monkeypatch.setenv(sdk.CONTENT_VARIABLE, "maybe")
    ask()
    ask()
    (record,) = [each for each in caplog.records if each.name == sdk.logger.name]
    assert "SPAN_AND_EVENT" in record.getMessage()


@pytest.mark.parametrize("value", ["SPAN_ONLY", "span_and_event"])
def test_contents_of_spans(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """JSON in the schemas of the conventions."""
    monkeypatch.setenv(sdk.CONTENT_VARIABLE, value)
    ask()
    found = {
        name: json.loads(telemetry.attributes[name])
        for name in CONTENTS & set(telemetry.attributes)
    }
    assert found["gen_ai.system_instructions"] == [{"type": "text", "content": "Be brief."}]
    (asked,) = found["gen_ai.input.messages"]
    assert asked == {"role": "user", "parts": [{"type": "text", "content": "Where is Paris?"}]}
    (answered,) = found["gen_ai.output.messages"]
    assert answered["role"] == "assistant"
    assert answered["finish_reason"] == telemetry.attributes["gen_ai.response.finish_reasons"][0]
    assert [part["type"] for part in answered["parts"]]
    (tool,) = found["gen_ai.tool.definitions"]
    assert tool["type"] == "function"
    assert tool["name"] == "where"
    assert tool["description"] == "Find a city."
    assert tool["parameters"]["properties"]["city"] == {"type": "string"}


def test_contents_of_events(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Structured, with the attributes of the call, in the trace of its span."""
    monkeypatch.setenv(sdk.CONTENT_VARIABLE, "EVENT_ONLY")
    ask()
    (event,) = telemetry.events
    assert event.event_name == "gen_ai.client.inference.operation.details"
    assert event.span_id == telemetry.span.context.span_id
    assert event.trace_id == telemetry.span.context.trace_id
    assert event.attributes["gen_ai.request.model"] == "echo"
    (asked,) = event.attributes["gen_ai.input.messages"]
    assert dict(asked["parts"][0]) == {"type": "text", "content": "Where is Paris?"}


def test_keys_are_masked(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    """In contents, in the name of a thread and in stop sequences."""
    monkeypatch.setenv(sdk.CONTENT_VARIABLE, "SPAN_AND_EVENT")
    register_secret(SECRET)
    lm.ask(f"My key is {SECRET}", model="echo/echo", thread=SECRET, stop=[SECRET], system=SECRET)
    assert SECRET not in telemetry.span.to_json()
    assert SECRET not in str([each.attributes for each in telemetry.events])
    assert "My key is ****" in telemetry.attributes["gen_ai.input.messages"]


def test_a_refusal_does_not_quote_the_answer(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message of an error may contain text of the model, so it is exported with contents only."""
    events = [chat_event("my secret reason"), chat_event(finish_reason="content_filter")]
    for value, is_said in (("NO_CONTENT", False), ("SPAN_ONLY", True)):
        monkeypatch.setenv(sdk.CONTENT_VARIABLE, value)
        telemetry.exporter.clear()
        with servers(lab=Says([*events, b"data: [DONE]\n\n"])), pytest.raises(ContentFilterError):
            lm.ask("hello", model="lab/any")
        assert ("my secret reason" in (telemetry.span.status.description or "")) is is_said
        assert ("my secret reason" in telemetry.span.to_json()) is is_said


def test_contents_of_tools(
    shell: InteractiveShell, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arguments and the result."""
    monkeypatch.setenv(sdk.CONTENT_VARIABLE, "SPAN_ONLY")
    call = ToolCall("1", "where", '{"city": "Paris"}')
    ToolRounds(shell, [where], is_allowed=True).messages(Response("", tool_calls=(call,)))
    assert telemetry.attributes["gen_ai.tool.call.arguments"] == '{"city": "Paris"}'
    assert telemetry.attributes["gen_ai.tool.call.result"] == "Paris"


def test_a_whole_conversation() -> None:
    """Calls, results, thoughts and pictures; the data of a picture is left out."""
    picture = Image(b"\x89PNG\r\n\x1a\n" + b"secret pixels")
    messages = (
        ChatMessage("user", "Look", images=(picture,)),
        ChatMessage("assistant", "", tool_calls=(ToolCall("7", "where", '{"city": "Rome"}'),)),
        ChatMessage("tool", "in Italy", tool_call_id="7"),
    )
    found = content_attributes(Response("Done", reasoning="Hm", messages=messages), ())
    user, assistant, tool = found["gen_ai.input.messages"]
    assert user["parts"][1] == {"type": "attachment", "mime_type": "image/png", "size": 21}
    assert assistant["parts"] == [
        {"type": "tool_call", "id": "7", "name": "where", "arguments": {"city": "Rome"}}
    ]
    assert tool["parts"] == [{"type": "tool_call_response", "id": "7", "response": "in Italy"}]
    (said,) = found["gen_ai.output.messages"]
    assert [each["type"] for each in said["parts"]] == ["reasoning", "text"]
    assert "pixels" not in to_json(found)


MESSAGES = st.lists(
    st.builds(
        ChatMessage,
        st.sampled_from(["system", "user", "assistant", "tool"]),
        st.sampled_from(["", "a", 'quote " and \u2028', "long " * 300]),
        tool_calls=st.lists(
            st.builds(
                ToolCall,
                st.just("i"),
                st.just("n"),
                st.sampled_from(["", "{}", "[", '{"a": [1, {"b": "%s"}]}' % ("x" * 1200)]),
            ),
            max_size=2,
        ).map(tuple),
    ),
    max_size=6,
)


@given(MESSAGES, st.sampled_from(["", "short", "word " * 500]))
def test_contents_are_bounded_json(messages: list[ChatMessage], text: str) -> None:
    """Whatever is sent and answered, each attribute is valid JSON of a bounded size."""
    many = [Tool("t", "d" * 600)] * 300
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "MAX_TEXT", 1000)
        found = contents.content_attributes(Response(text, messages=tuple(messages)), many)
    for value in found.values():
        written = contents.to_json(value)
        assert json.loads(written) == value
        assert sum(map(len, texts_in(value))) <= 1000 + 40 * 3 * len(value)


def texts_in(value: Any) -> list[str]:
    """The texts of parts and the descriptions and parameters of tools, at any depth."""
    if isinstance(value, dict):
        named = [
            value[name]
            for name in ("content", "response", "arguments", "description", "parameters")
            if name in value
        ]
        inner = list(value.get("parts", ()))
        return [
            *(each if isinstance(each, str) else json.dumps(each) for each in named),
            *texts_in(inner),
        ]
    return [text for each in value for text in texts_in(each)] if isinstance(value, list) else []


def test_a_key_at_the_bound_is_masked() -> None:
    """A text is searched for keys before it is cut."""
    register_secret(SECRET)
    for before in range(MAX_TEXT - len(SECRET) - 2, MAX_TEXT + 2, 5):
        sent = [ChatMessage("user", "x" * before + SECRET + "y" * 100)]
        found = contents.content_attributes(Response("", messages=sent), ())
        assert SECRET[:8] not in str(found)


def test_the_newest_messages_keep_their_text() -> None:
    """Of a long conversation, older texts are left out first."""
    messages = [ChatMessage("user", f"{n} " + "x" * 40_000) for n in range(5)]
    found = content_attributes(Response("", messages=messages), ())["gen_ai.input.messages"]
    texts: list[Any] = [each["parts"][0]["content"] for each in found]
    assert texts[-1] == messages[-1].content
    assert "left out" in texts[0]
    assert len(texts[0]) < 100
