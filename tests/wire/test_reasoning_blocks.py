"""Thinking that services want back: in tool rounds, in threads, and never at another service."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, ModelResponse
from llm_magics.attachments import Image, ReasoningBlock
from llm_magics.parameters import Tool
from llm_magics.providers import create_provider
from llm_magics.runtime.policies.retry import CircuitBreakers
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.serialization import decode_answer, encode_answer
from llm_magics.types import StreamChunk, ToolCall
from llm_magics.wire import (
    anthropic_answers,
    anthropic_messages,
    gemini,
    ollama,
    openai_chat,
    openai_responses,
)
from llm_magics.wire.tool_calls import mark_tool_turns
from tests.support import fake_gemini
from tests.support.fake_anthropic import CHAT, FakeAnthropic
from tests.support.fake_responses import OTHERS, REASONING, FakeResponses
from tests.support.fake_thinkers import (
    CITIES,
    KEY,
    FakeDeepSeek,
    FakeGemini,
    FakeOpenRouter,
    FakeThinker,
    FakeVLLM,
)
from tests.support.serving import Asked, Says, Server, as_json, serving

TOOL = Tool("weather", "how it is", {"type": "object", "properties": {"city": {"type": "string"}}})
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)

WEATHER = """
def weather(city: str) -> str:
    "The weather in a city."
    return f"12 degrees in {city}"
"""

# A service by name: its fake, the settings of its provider, the model, and parameters.
Service = tuple[Callable[..., Any], dict[str, Any], str, dict[str, Any]]
CHATS: dict[str, Service] = {
    "deepseek": (FakeDeepSeek, {}, "thinker", {}),
    "gemini": (FakeGemini, {}, "thinker", {}),
    "openrouter": (FakeOpenRouter, {}, "thinker", {}),
    "vllm": (FakeVLLM, {}, "thinker", {}),
    "plain": (FakeThinker, {}, "thinker", {}),
}
SERVICES: dict[str, Service] = {
    **CHATS,
    "claude": (lambda: FakeAnthropic(cities=CITIES), {"type": "anthropic"}, CHAT, {"reasoning": "low"}),
    "google": (lambda: fake_gemini.FakeGemini(cities=CITIES), {"type": "gemini"}, fake_gemini.CHAT, {"reasoning": "low"}),
    "responses": (FakeResponses, {"api": "responses"}, "gpt-5", {}),
}  # fmt: skip
NAMES = sorted(SERVICES)


@contextmanager
def running(*names: str, **fakes: Any) -> Iterator[dict[str, Server]]:
    """Servers of these services, set up in the settings under their own names."""
    with ExitStack() as stack:
        made = {
            name: stack.enter_context(serving(fakes.get(name) or SERVICES[name][0]()))
            for name in names
        }
        lm.config.providers = {
            name: {"type": "openai", "base_url": server.url, "api_key": KEY, **SERVICES[name][1]}
            for name, server in made.items()
        }
        session.circuit_breakers = CircuitBreakers()
        yield made


def alias(name: str, **more: Any) -> str:
    """An alias of a service's model with its parameters."""
    _, _, model, parameters = SERVICES[name]
    made = {"model": f"{name}/{model}", **parameters, **more}
    lm.config.aliases = {**lm.config.aliases, f"{name}-alias": made}
    return f"{name}-alias"


def posted(server: Server) -> list[dict[str, Any]]:
    """The bodies of the conversations that a server was asked to go on with."""
    return [asked.json() for asked in server.asked if asked.method == "POST"]


@pytest.mark.parametrize("name", NAMES)
def test_a_round_of_tools_sends_back_what_the_service_wants(
    shell: InteractiveShell, name: str
) -> None:
    """Two calls at once, two rounds in a thread: the service refuses anything modified."""
    shell.run_cell(WEATHER)
    with running(name) as made:
        line = f"{alias(name)} --tools weather --yes --thread talk -o ans"
        shell.run_cell_magic("llm", line, "How is it?")
        first = shell.user_ns["ans"]
        shell.run_cell_magic("llm", line, "And tomorrow?")
        bodies = posted(made[name])
    assert first.text != shell.user_ns["ans"].text
    assert len(bodies) == 4
    assert first.tool_calls == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_round_by_the_provider_alone(name: str) -> None:
    """The blocks of a response, put into a message, are what goes back."""
    fake, own, model, given = SERVICES[name]
    kind = own.get("type", "openai")
    rest = {key: value for key, value in own.items() if key != "type"}
    parameters = ModelParameters(tools=(TOOL,), **given)

    async def rounds(url: str) -> tuple[ModelResponse, ModelResponse]:
        async with create_provider(kind, base_url=url, api_key=KEY, **rest) as provider:
            asked = ChatMessage("user", "How is it?")
            first = await provider.generate_chat([asked], model, parameters)
            assert isinstance(first, ModelResponse)
            said = ChatMessage(
                "assistant", first.text, (), first.tool_calls, "", first.reasoning_blocks
            )
            told = [ChatMessage("tool", "12", tool_call_id=call.id) for call in first.tool_calls]
            last = await provider.generate_chat([asked, said, *told], model, parameters)
            assert isinstance(last, ModelResponse)
            return first, last

    with serving(fake()) as server:
        first, last = asyncio.run(rounds(server.url))
    assert [call.arguments for call in first.tool_calls] == [{"city": city} for city in CITIES]
    assert last.text
    assert not last.tool_calls
    assert all(block.origin for block in map(ReasoningBlock.of, first.reasoning_blocks))


@pytest.mark.parametrize(("one", "two"), list(permutations(NAMES, 2)))
def test_a_thread_goes_on_at_another_service(one: str, two: str) -> None:
    """What one made never reaches the other, whose fake refuses foreign fields and items."""
    with running(one, two) as made:
        for name in (one, two, one):
            _, _, model, parameters = SERVICES[name]
            lm.ask("How is it?", f"{name}/{model}", thread="talk", **parameters)
        assert len(posted(made[one])) == 2
        assert len(posted(made[two])) == 1
        sent = json.dumps(posted(made[two]))
    for foreign in ("thought_signature", "signature", "reasoning_details", "gAAAA", "reasoning_content"):  # fmt: skip
        assert foreign not in sent


def failing_after(fake: Callable[[Asked], Says], answers: int) -> Callable[[Asked], Says]:
    """A service that is down after so many answers."""
    left = [answers]

    def answer(asked: Asked) -> Says:
        left[0] -= asked.method == "POST"
        return fake(asked) if left[0] >= 0 else as_json({"error": {"message": "down"}}, 500)

    return answer


@pytest.mark.parametrize(
    ("one", "two"),
    [pair for pair in permutations(NAMES, 2) if pair[0] in ("claude", "deepseek", "responses")],
)
def test_a_route_falls_back_in_the_middle_of_a_round(
    shell: InteractiveShell, one: str, two: str
) -> None:
    """The calls are another model's then: the service is asked in the way that it takes that."""
    shell.run_cell(WEATHER)
    with running(one, two, **{one: failing_after(SERVICES[one][0](), 1)}):
        lm.config.routes = {"both": [alias(name, reasoning="low") for name in (one, two)]}
        lm.config.retries = 0
        line = "both --tools weather --yes -o ans"
        shell.run_cell_magic("llm", line, "How is it?")
    assert shell.user_ns["ans"].model.startswith(f"{two}/")
    assert shell.user_ns["ans"].text


def responses(url: str, do: Callable[[Any], Any]) -> Any:
    """What ``do`` gives with a provider that speaks Responses."""

    async def use() -> Any:
        async with create_provider("openai", base_url=url, api_key=KEY, api="responses") as made:
            return await do(made)

    return asyncio.run(use())


def test_a_model_that_does_not_reason_is_asked_without_encryption() -> None:
    """Once refused, it is remembered, without a warning; one that reasons is always asked."""
    with serving(FakeResponses()) as server:

        async def ask(provider: Any) -> None:
            for model in (*OTHERS, *OTHERS, *REASONING):
                await provider.generate_chat([ChatMessage("user", "x")], model, ModelParameters())

        responses(server.url, ask)
        asked = [(body["model"], "include" in body) for body in posted(server)]
    once = [(model, with_it) for model in OTHERS for with_it in (True, False)]
    again = [(model, False) for model in OTHERS]
    assert asked == [*once, *again, *((model, True) for model in REASONING)]


def test_what_else_is_included_stays() -> None:
    """Only the encrypted thinking is left out of what the user wants included."""
    wanted = ["reasoning.encrypted_content", "message.output_text.logprobs"]
    with serving(FakeResponses()) as server:
        parameters = ModelParameters(extra_body={"include": wanted})
        talk = [ChatMessage("user", "x")]
        responses(server.url, lambda p: p.generate_chat(talk, "gpt-4o", parameters))
        assert posted(server)[-1]["include"] == wanted[1:]


def test_another_accounts_thinking_is_left_out_and_asked_again() -> None:
    """A key of another organisation cannot open what is encrypted; the next call tries anew."""
    fake = FakeResponses()
    with serving(fake) as server:

        async def turns(provider: Any) -> None:
            asked = ChatMessage("user", "x")
            first = await provider.generate_chat([asked], "gpt-5", ModelParameters())
            fake.account = "org-b"
            said = ChatMessage("assistant", first.text, reasoning_blocks=first.reasoning_blocks)
            await provider.generate_chat([asked, said, asked], "gpt-5", ModelParameters())
            second = await provider.generate_chat([asked], "gpt-5", ModelParameters())
            said = ChatMessage("assistant", second.text, reasoning_blocks=second.reasoning_blocks)
            await provider.generate_chat([asked, said, asked], "gpt-5", ModelParameters())

        responses(server.url, turns)
        kinds = [[item.get("type") for item in body["input"]] for body in posted(server)]
    assert [("reasoning" in each) for each in kinds] == [False, True, False, False, True]


def test_items_of_another_model_are_dropped() -> None:
    """Encrypted thinking is its model's own, at the same address too."""
    with serving(FakeResponses()) as server:

        async def turns(provider: Any) -> None:
            asked = ChatMessage("user", "x")
            first = await provider.generate_chat([asked], "gpt-5", ModelParameters())
            said = ChatMessage("assistant", first.text, reasoning_blocks=first.reasoning_blocks)
            await provider.generate_chat([asked, said, asked], "o4-mini", ModelParameters())

        responses(server.url, turns)
        second = posted(server)[1]
    assert [item.get("type") for item in second["input"]] == ["message"] * 3


def test_items_without_encrypted_content_are_dropped() -> None:
    """Nothing is stored at the service, so that it would not find them."""
    plain = {"type": "reasoning", "id": "rs_1", "summary": []}
    sealed = {**plain, "encrypted_content": "x"}
    said = ChatMessage("assistant", "hi", reasoning_blocks=(plain, sealed))
    body = openai_responses.build_responses_request([said], "m", ModelParameters())
    assert body["input"][0] == sealed
    assert len(body["input"]) == 2
    stored = ModelParameters(extra_body={"store": True})
    body = openai_responses.build_responses_request([said], "m", stored)
    assert body["input"][:2] == [plain, sealed]


def test_claude_reads_the_thinking_of_its_other_models() -> None:
    """At the same address; a signature that it cannot verify is left out and asked again."""
    good = ReasoningBlock({"type": "thinking", "thinking": "hm", "signature": "wrong"})
    said = ChatMessage("assistant", "hi", reasoning_blocks=(good,))
    asked = ChatMessage("user", "x")

    async def turns(url: str) -> None:
        async with create_provider("anthropic", base_url=url, api_key=KEY) as provider:
            answer = await provider.generate_chat([asked, said, asked], CHAT, ModelParameters())
            assert isinstance(answer, ModelResponse)

    with serving(FakeAnthropic()) as server:
        asyncio.run(turns(server.url))
        kinds = [[b["type"] for b in body["messages"][1]["content"]] for body in posted(server)]
    assert kinds == [["thinking", "text"], ["text"]]


def test_thinking_stands_where_it_stood() -> None:
    """Between the words and the calls of an answer, as the service wrote them."""
    blocks = [
        {"type": "thinking", "thinking": "a", "signature": "1"},
        {"type": "text", "text": "Let me look."},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}},
        {"type": "thinking", "thinking": "b", "signature": "2"},
        {"type": "tool_use", "id": "t2", "name": "f", "input": {}},
    ]
    answer = ModelResponse.of(
        anthropic_answers.ChunkDecoder().decode_body({"content": blocks}, 0.0)
    )
    said = ChatMessage(
        "assistant", answer.text, (), answer.tool_calls, "", answer.reasoning_blocks
    )
    told = [ChatMessage("tool", "ok", tool_call_id=each) for each in ("t1", "t2")]
    talk = [ChatMessage("user", "x"), said, *told]
    body = anthropic_messages.build_messages_request(talk, "m", ModelParameters())
    assert body["messages"][1]["content"] == blocks
    recorded = json.loads(json.dumps(encode_answer([whole_chunk(answer)])))
    (again,) = [c for c in decode_answer(recorded) if c.reasoning_blocks]
    said = ChatMessage("assistant", answer.text, (), again.tool_calls, "", again.reasoning_blocks)
    body = anthropic_messages.build_messages_request(
        [talk[0], said, *told], "m", ModelParameters()
    )
    assert body["messages"][1]["content"] == blocks


def whole_chunk(answer: ModelResponse) -> StreamChunk:
    """An answer as one chunk."""
    return StreamChunk(
        answer.text, elapsed_s=0.0, finish_reason="tool_calls", tool_calls=answer.tool_calls,
        reasoning_blocks=answer.reasoning_blocks,
    )  # fmt: skip


def test_blocks_keep_their_origin() -> None:
    """In copies, pickles and recordings; older recordings have none."""
    block = ReasoningBlock({"type": "thinking"}, "messages https://a", (3, 1))
    for again in (
        pickle.loads(pickle.dumps(block)),
        copy.deepcopy(block),
        ReasoningBlock.from_dict(json.loads(json.dumps(block.as_dict()))),
    ):
        assert (again, again.origin, again.at) == (block, block.origin, block.at)
        assert again == {"type": "thinking"}
    assert ReasoningBlock.from_dict({"type": "thinking"}).origin == ""


def test_which_turns_used_tools() -> None:
    """A turn ends where the user speaks; all its answers count, before and after the calls."""
    call = ToolCall("c", "f")
    user, said = ChatMessage("user", "x"), ChatMessage("assistant", "y")
    calls = ChatMessage("assistant", "", tool_calls=(call,))
    told = ChatMessage("tool", "1", tool_call_id="c")
    talk = [user, said, user, said, calls, told, said, user, said]
    assert mark_tool_turns(talk) == [False, False, True, True, True, True, True, False, False]


def test_pictures_of_a_tool_go_along() -> None:
    """In the result where the format has a place for them, else after it."""
    call = ToolCall("c", "f", "{}")
    talk = [
        ChatMessage("user", "x"),
        ChatMessage("assistant", "", tool_calls=(call,)),
        ChatMessage("tool", "seen", images=(Image(PNG),), tool_call_id="c"),
    ]
    parameters = ModelParameters()
    chat = openai_chat.build_chat_request(talk, "m", parameters)["messages"]
    assert chat[2]["content"] == "seen"
    assert chat[3]["content"][0]["type"] == "image_url"
    items = openai_responses.build_responses_request(talk, "m", parameters)["input"]
    assert [part["type"] for part in items[-1]["output"]] == ["input_text", "input_image"]
    claude = anthropic_messages.build_messages_request(talk, "m", parameters)["messages"]
    assert [part["type"] for part in claude[-1]["content"][0]["content"]] == ["text", "image"]
    for model, within, beside in (("gemini-3.8-flash", 1, 0), ("gemini-2.5-pro", 0, 1)):
        parts = gemini.build_request(talk, model, parameters)["contents"][-1]["parts"]
        assert len(parts[0]["functionResponse"].get("parts", ())) == within
        assert len(parts[1:]) == beside


def test_arguments_that_are_not_json_do_not_end_the_round() -> None:
    """The tool's result says what was wrong; formats that want an object are given one."""
    call = ToolCall("functions.f:0", "f", "{broken")
    talk = [
        ChatMessage("user", "x"),
        ChatMessage("assistant", "", tool_calls=(call,)),
        ChatMessage("tool", "Error", tool_call_id=call.id),
    ]
    claude = anthropic_messages.build_messages_request(talk, "m", ModelParameters())["messages"]
    assert claude[1]["content"][0]["input"] == {"invalid_json": "{broken"}
    assert (
        claude[1]["content"][0]["id"] == claude[2]["content"][0]["tool_use_id"] == "functions_f_0"
    )
    made = ollama.build_chat_request(talk, "m", ModelParameters())["messages"]
    assert made[1]["tool_calls"][0]["function"]["arguments"] == {"invalid_json": "{broken"}
    parts = gemini.build_request(talk, "m", ModelParameters())["contents"][1]["parts"]
    assert parts[0]["functionCall"]["args"] == {"invalid_json": "{broken"}


def test_ollama_gets_its_thinking_back_in_a_round() -> None:
    """And results by the name of the latest call with their id."""
    events = [
        {"message": {"thinking": "h"}, "done": False},
        {"message": {"thinking": "m", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}, "done": False},
        {"message": {"content": ""}, "done": True},
    ]  # fmt: skip
    decoder = ollama.ChunkDecoder()
    answer = ModelResponse.of(
        chunk
        for event in events
        for chunk in decoder.feed(json.dumps(event).encode() + b"\n", 0.0)
    )
    (call,) = answer.tool_calls
    user = ChatMessage("user", "x")
    said = ChatMessage("assistant", "", (), answer.tool_calls, "", answer.reasoning_blocks)
    told = ChatMessage("tool", "1", tool_call_id=call.id)
    other = ChatMessage("assistant", "", tool_calls=(ToolCall(call.id, "g"),))
    body = ollama.build_chat_request([user, said, told, other, told, user], "m", ModelParameters())
    assert body["messages"][1]["thinking"] == "hm"
    assert [each.get("tool_name") for each in body["messages"]] == [
        None,
        None,
        "f",
        None,
        "g",
        None,
    ]
    plain = ChatMessage("assistant", "hi", reasoning_blocks=answer.reasoning_blocks)
    assert "thinking" not in ollama.build_chat_request([user, plain, user], "m", ModelParameters())["messages"][1]  # fmt: skip


DETAILS = st.lists(
    st.fixed_dictionaries(
        {"type": st.just("reasoning.text"), "text": st.text(min_size=1, max_size=8)},
        optional={"signature": st.text("abc", min_size=1, max_size=4), "format": st.just("x")},
    ),
    max_size=3,
)


@settings(deadline=None)
@given(st.data(), DETAILS)
def test_details_in_pieces_are_joined(data: Any, details: list[dict[str, Any]]) -> None:
    """However their texts are cut, one list comes out, and a whole answer keeps its own."""
    details = [{**each, "index": index} for index, each in enumerate(details)]
    pieces: list[dict[str, Any]] = []
    for each in details:
        cut = data.draw(st.integers(0, len(each["text"])))
        bare = {name: value for name, value in each.items() if name != "signature"}
        pieces += [{**bare, "text": each["text"][:cut]}, {**bare, "text": each["text"][cut:]}]
        if "signature" in each:
            pieces.append({"type": each["type"], "index": each["index"], "signature": each["signature"]})  # fmt: skip
    events = [{"choices": [{"delta": {"reasoning_details": [each]}}]} for each in pieces]
    events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    decoder = openai_chat.ChunkDecoder()
    chunks = [
        chunk for event in events for chunk in decoder.feed(f"data: {json.dumps(event)}\n\n".encode(), 0.0)
    ]  # fmt: skip
    blocks = ModelResponse.of(chunks).reasoning_blocks
    assert [each["reasoning_details"] for each in blocks] == ([details] if details else [])
    message = {"content": "", "reasoning_details": details}
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    whole = ModelResponse.of(openai_chat.ChunkDecoder().decode_body(body, 0.0)).reasoning_blocks
    assert [each["reasoning_details"] for each in whole] == ([details] if details else [])


WIRE = Path(__file__).parents[3] / "shared" / "wire"


def recorded(name: str) -> list[dict[str, Any]]:
    """The recorded traffic of a format."""
    path = WIRE / f"{name}.jsonl"
    if not path.exists():
        pytest.skip("the recorded traffic is not here")
    lines = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    return [each for each in lines if each["status"] == 200 and isinstance(each["request"], dict)]


def answer_of(decoder: Any, record: dict[str, Any]) -> ModelResponse:
    """What a decoder makes of a recorded answer."""
    if record["kind"] == "json":
        return ModelResponse.of(decoder.decode_body(json.loads(record["body"]), 0.0))
    chunks = [*decoder.feed(record["body"].encode(), 0.0), *decoder.flush(0.0)]
    return ModelResponse.of(chunks)


def said_by(answer: ModelResponse) -> ChatMessage:
    """An answer as a message that goes back."""
    return ChatMessage(
        "assistant", answer.text, (), answer.tool_calls, "", answer.reasoning_blocks
    )


def blocks_in(stream: str) -> list[dict[str, Any]]:
    """The blocks of a recorded stream of Claude's, read plainly."""
    blocks: list[dict[str, Any]] = []
    for line in stream.splitlines():
        event = json.loads(line[5:]) if line.startswith("data:") else {}
        if event.get("type") == "content_block_start":
            blocks.append({**event["content_block"], "json": ""})
        elif event.get("type") == "content_block_delta":
            for name, value in event["delta"].items():
                place = "json" if name == "partial_json" else name
                if name != "type" and isinstance(value, str):
                    blocks[event["index"]][place] = blocks[event["index"]].get(place, "") + value
    for block in blocks:
        written = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(written or "{}")
    return blocks


KINDS = {"thinking", "redacted_thinking", "text", "tool_use"}


def test_recorded_answers_of_claude_go_back_as_they_came() -> None:
    """Thinking, text and calls in their order, unchanged."""
    count = 0
    for record in recorded("anthropic_messages"):
        if record["kind"] != "sse" or "thinking" not in record["body"]:
            continue
        said = said_by(answer_of(anthropic_answers.ChunkDecoder(), record))
        told = [ChatMessage("tool", "ok", tool_call_id=call.id) for call in said.tool_calls]
        talk = [ChatMessage("user", "x"), said, *(told or [ChatMessage("user", "y")])]
        body = anthropic_messages.build_messages_request(talk, "m", ModelParameters())
        content = [each for each in blocks_in(record["body"]) if each["type"] in KINDS]
        sent = [each for each in body["messages"][1]["content"] if each["type"] in KINDS]
        assert _joined(sent) == _joined(content), record["path"]
        count += 1
    assert count


def _joined(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Blocks with texts that follow one another as one, without what texts cite."""
    made: list[dict[str, Any]] = []
    for block in blocks:
        if block["type"] != "text":
            made.append(block)
        elif made and made[-1]["type"] == "text":
            made[-1]["text"] += block["text"]
        else:
            made.append({"type": "text", "text": block["text"]})
    return [each for each in made if each.get("text") != ""]


def test_recorded_items_of_responses_go_back_as_they_came() -> None:
    """Reasoning with encrypted content, and all that follows it, unchanged."""
    count = 0
    for record in recorded("openai_responses"):
        if "encrypted_content" not in record["body"] or record["endpoint"].count("/") > 2:
            continue
        said = said_by(answer_of(openai_responses.ChunkDecoder(), record))
        if not said.reasoning_blocks:
            continue
        items = openai_responses.build_responses_request([said], "m", ModelParameters())["input"]
        if all(
            b.get("encrypted_content") for b in said.reasoning_blocks if b["type"] == "reasoning"
        ):
            assert items == [dict(block) for block in said.reasoning_blocks]
            count += 1
        assert all(item.get("encrypted_content") for item in items if item.get("type") == "reasoning")  # fmt: skip
    assert count


def test_recorded_thinking_of_chats_goes_back_as_it_was_sent() -> None:
    """Where a recorded conversation sends thinking back, ours of the answer before is the same."""
    records = recorded("openai_chat")
    answers: dict[str, dict[str, Any]] = {}
    for record in records:
        if record["kind"] not in ("json", "sse") or '"tool_calls"' not in record["body"]:
            continue
        answer = answer_of(openai_chat.ChunkDecoder(), record)
        if answer.tool_calls:
            talk = [ChatMessage("user", "x"), said_by(answer)]
            made = openai_chat.build_chat_request(talk, "m", ModelParameters())["messages"][1]
            answers[answer.tool_calls[0].id] = made
    count = 0
    for record in records:
        for message in record["request"].get("messages") or []:
            calls = message.get("tool_calls")
            made = answers.get(calls[0]["id"]) if calls else None
            for name in ("reasoning_content", "reasoning", "reasoning_details"):
                if made and message.get(name):
                    assert made.get(name) == message[name], record["path"]
                    count += 1
    assert count
