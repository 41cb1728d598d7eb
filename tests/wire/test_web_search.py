"""Web search in every format, with the official clients as oracles, and documents' citations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anthropic
import openai
import pytest
from google.genai import types as gemini_types

from llm_magics import ChatMessage, ModelParameters, ModelResponse
from llm_magics.citations import Citation, Search, citations_frame, link_host
from llm_magics.documents import Document
from llm_magics.errors import UnsupportedError
from llm_magics.parameters import Tool
from llm_magics.providers import create_provider
from llm_magics.runtime.storage.serialization import decode_answer, encode_answer
from llm_magics.types import StreamChunk, Usage
from llm_magics.wire.anthropic_answers import ChunkDecoder
from llm_magics.wire.anthropic_messages import build_messages_request
from llm_magics.wire.decoders import AnswerUnwrapper
from llm_magics.wire.gemini_answers import ChunkDecoder as GeminiDecoder
from llm_magics.wire.schema_dialects import WRAPPER
from llm_magics.wire.web_search import parse_sources, place_markers
from tests.support import fake_anthropic
from tests.support.fake_searchers import (
    ANSWER,
    FIRST,
    OPENING,
    PAGES,
    QUERIES,
    SECOND,
    SearchingClaude,
    SearchingGemini,
    SearchingResponses,
    SearchingRouter,
    grounding,
    sse,
)
from tests.support.serving import Asked, Says, Server, as_json, serving

KEY = "a-key-of-the-test"
TALK = [ChatMessage("user", "How is the weather?")]
SEARCH = ModelParameters(search=True)
MODELS = {"anthropic": fake_anthropic.CHAT, "gemini": "gemini-3.8-flash", "openai": "gpt-5.9"}
TOOL = Tool("f", "does it")


def ask(
    server: Server,
    name: str,
    parameters: ModelParameters = SEARCH,
    *,
    talk: list[ChatMessage] = TALK,
    model: str = "",
    **settings: Any,
) -> ModelResponse:
    """The answer of a provider; OpenAI's search is in its Responses API."""
    if name == "openai":
        settings = {"profile": "openai", **settings}

    async def use() -> Any:
        async with create_provider(name, base_url=server.url, api_key=KEY, **settings) as provider:
            return await provider.generate_chat(talk, model or MODELS[name], parameters)

    answer = asyncio.run(use())
    assert isinstance(answer, ModelResponse)
    return answer


def passages(answer: ModelResponse) -> list[tuple[int, str, str]]:
    """Number and address of each citation, and the passage that it supports."""
    return [
        (each.number, each.url, answer.text[each.start : each.end]) for each in answer.citations
    ]


@pytest.mark.parametrize(
    ("name", "create"),
    [("anthropic", SearchingClaude), ("openai", SearchingResponses), ("gemini", SearchingGemini)],
)
def test_streamed_and_whole_answers_cite_the_same(name: str, create: Callable[..., Any]) -> None:
    """The same sources with the same numbers and offsets, whichever way the answer comes."""
    with serving(create()) as server:
        streamed = ask(server, name)
    with serving(create(streams=False)) as server:
        whole = ask(server, name)
    assert streamed.text == whole.text == ANSWER
    assert streamed.citations == whole.citations
    assert streamed.searches == whole.searches
    found = passages(streamed)
    assert (1, PAGES[0][1], FIRST) in found
    assert (2, PAGES[1][1], SECOND) in found
    assert {each.title for each in streamed.citations} == {title for title, _ in PAGES}
    assert [each.query for each in streamed.searches] == QUERIES
    assert streamed.usage is not None
    assert streamed.usage.searches == 2


def test_the_official_client_of_anthropic_reads_the_same() -> None:
    """Each block of text with citations is a passage with these sources and quotations."""
    with serving(SearchingClaude()) as server:
        with (
            anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0) as client,
            client.messages.stream(
                model=fake_anthropic.CHAT,
                max_tokens=4096,
                messages=[
                    {"role": "user", "content": [{"type": "text", "text": TALK[0].content}]}
                ],
                tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
            ) as stream,
        ):
            message = stream.get_final_message()
        answer = ask(server, "anthropic")
        theirs, ours = (asked.json() for asked in server.asked)
    assert theirs == ours
    expected = [
        (block.text, each.url, each.title, each.cited_text)
        for block in message.content
        if block.type == "text"
        for each in block.citations or ()
        if each.type == "web_search_result_location"
    ]
    assert len(expected) == 3
    assert expected == [
        (answer.text[each.start : each.end], each.url, each.title, each.cited_text)
        for each in answer.citations
    ]
    assert message.usage.server_tool_use is not None
    assert answer.usage is not None
    assert message.usage.server_tool_use.web_search_requests == answer.usage.searches


def test_the_official_client_of_openai_reads_the_same() -> None:
    """Annotations count from the start of their part, ours from the start of the answer."""
    with serving(SearchingResponses()) as server:
        with (
            openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client,
            client.responses.stream(
                model=MODELS["openai"],
                input=[
                    {
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_text", "text": TALK[0].content}],
                    }
                ],
                tools=[{"type": "web_search"}],
                store=False,
                include=["reasoning.encrypted_content"],
            ) as stream,
        ):
            response = stream.get_final_response()
        answer = ask(server, "openai")
        theirs, ours = (asked.json() for asked in server.asked)
    assert theirs == ours
    expected = [
        (part.text[each.start_index : each.end_index], each.url, each.title)
        for item in response.output
        if item.type == "message"
        for part in item.content
        if part.type == "output_text"
        for each in part.annotations
        if each.type == "url_citation"
    ]
    assert expected == [
        (answer.text[each.start : each.end], each.url, each.title) for each in answer.citations
    ]


def test_the_official_types_of_gemini_read_the_same() -> None:
    """The text of each segment is the passage, although its offsets count bytes."""
    metadata = gemini_types.GroundingMetadata.model_validate(grounding())
    with serving(SearchingGemini()) as server:
        answer = ask(server, "gemini")
        assert server.asked[0].json()["tools"] == [{"googleSearch": {}}]
    supports = metadata.grounding_supports or []
    chunks = metadata.grounding_chunks or []
    expected = [
        (support.segment.text, chunks[index].web.uri)  # type: ignore[union-attr]
        for support in supports
        for index in support.grounding_chunk_indices or ()
        if index < len(chunks)
    ]
    assert expected == [(text, url) for _, url, text in passages(answer)]


def test_gemini_counts_bytes_in_a_part() -> None:
    """A segment of the second part counts from the start of that part."""
    with serving(SearchingGemini(streams=False, in_part=1)) as server:
        whole = ask(server, "gemini")
    with serving(SearchingGemini()) as server:
        streamed = ask(server, "gemini")
    assert whole.text == streamed.text
    assert passages(whole) == passages(streamed)


def test_a_wrong_offset_of_gemini_is_found_by_its_text() -> None:
    """The text of a segment decides; one that is not in the answer has no position."""
    metadata = grounding()
    metadata["groundingSupports"][0]["segment"] |= {"startIndex": 2, "endIndex": 5}
    metadata["groundingSupports"][1]["segment"]["text"] = "not there"
    body = {"candidates": [{"content": {"parts": [{"text": ANSWER}]}, "finishReason": "STOP", "groundingMetadata": metadata}]}  # fmt: skip
    answer = ModelResponse.of(GeminiDecoder().decode_body(body, 0.0))
    assert [text for _, _, text in passages(answer)][:2] == [FIRST, FIRST]
    assert answer.citations[2].start is None


def test_gemini_combines_search_and_functions() -> None:
    """The service requires a switch for that, which it does not get without both."""
    with serving(SearchingGemini()) as server:
        answer = ask(server, "gemini", ModelParameters(search=True, tools=(TOOL,)))
        ask(server, "gemini", ModelParameters(tools=(TOOL,)))
        assert "toolConfig" not in server.asked[1].json()
    assert answer.citations


def test_openrouter_and_annotations_of_a_chat() -> None:
    """Its server tool is sent in a chat; streamed and whole, its annotations are the same."""
    answers = []
    for streams in (True, False):
        with serving(SearchingRouter(streams=streams)) as server:
            answers.append(ask(server, "openai", profile="openrouter", model="m"))
            assert server.asked[0].json()["tools"] == [{"type": "openrouter:web_search"}]
    assert answers[0].citations == answers[1].citations
    assert passages(answers[0]) == [(1, PAGES[0][1], FIRST), (2, PAGES[1][1], SECOND)]
    assert answers[0].usage == Usage(100, 20, searches=2)


@pytest.mark.parametrize("has_results", [True, False], ids=["results", "addresses"])
def test_markers_of_perplexity(has_results: bool) -> None:
    """``[1]`` refers to the first source; a chat has search results, or addresses alone."""
    results = [{"title": title, "url": url, "date": None} for title, url in PAGES]
    lists: dict[str, Any] = {"citations": [url for _, url in PAGES]}
    lists |= {"search_results": results} if has_results else {}
    answers = []
    for streams in (True, False):
        with serving(SearchingRouter(streams=streams, lists=lists)) as server:
            answers.append(ask(server, "openai", ModelParameters(), profile="other", model="m"))
    assert answers[0].citations == answers[1].citations
    assert passages(answers[0]) == [
        (1, PAGES[0][1], "[1]"), (2, PAGES[1][1], "[2]"), (1, PAGES[0][1], "[1]"),
    ]  # fmt: skip
    assert answers[0].citations[0].title == (PAGES[0][0] if has_results else "")
    assert answers[0].usage is not None
    assert answers[0].usage.searches == 3


# The fields of perplexityai 0.46.1, types/response_create_params.py, and of its web search tool.
PERPLEXITY_FIELDS = {
    "background", "input", "instructions", "language_preference", "max_output_tokens", "max_steps",
    "model", "models", "preset", "previous_response_id", "reasoning", "response_format", "skills",
    "store", "stream", "tools",
}  # fmt: skip


def search_perplexity(asked: Asked) -> Says:
    """Perplexity's Agent API: a list of results, and markers in the text."""
    body = asked.json()
    if (
        asked.path != "/v1/responses"
        or body.keys() - PERPLEXITY_FIELDS
        or "/" not in body["model"]
    ):
        return as_json(
            {"error": {"message": f"Invalid request: {sorted(body)}", "code": 400}}, 400
        )
    results = [
        {"id": n, "title": title, "url": url, "snippet": "rain", "source": "web"}
        for n, (title, url) in enumerate(PAGES, 1)
    ]
    part = {"type": "output_text", "text": f"{OPENING}{FIRST}[1] {SECOND}[2]", "annotations": []}
    items = [
        {"type": "search_results", "results": results, "queries": QUERIES},
        {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part]},
    ]  # fmt: skip
    calls = {"search_web": {"invocation": 1}}
    usage = {
        "input_tokens": 9,
        "output_tokens": 5,
        "total_tokens": 14,
        "tool_calls_details": calls,
    }
    whole = {"id": "r", "object": "response", "model": body["model"], "status": "completed", "output": items, "usage": usage}  # fmt: skip
    delta = {"type": "response.output_text.delta", "delta": part["text"]}
    return Says(sse(delta, {"type": "response.completed", "response": whole}))


def test_a_search_at_perplexity() -> None:
    """It uses the Agent API, with the fields that this has, and its names of models."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}  # fmt: skip
    with serving(search_perplexity) as server:
        options = {"profile": "perplexity", "model": "sonar"}
        answer = ask(
            server,
            "openai",
            ModelParameters(search=True, max_tokens=9, reasoning="low"),
            **options,
        )
        ask(server, "openai", ModelParameters(search=True, schema=schema), **options)
        first, second = (asked.json() for asked in server.asked)
    assert (first["model"], first["tools"]) == ("perplexity/sonar", [{"type": "web_search"}])
    assert first["reasoning"] == {"effort": "low"}
    assert second["response_format"]["json_schema"]["schema"]["required"] == ["a"]
    assert [text for _, _, text in passages(answer)] == ["[1]", "[2]"]
    assert answer.citations[0].title == PAGES[0][0]
    assert answer.usage is not None
    assert answer.usage.searches == 1
    with serving(search_perplexity) as server, pytest.warns(UserWarning, match="temperature"):
        ask(server, "openai", ModelParameters(search=True, temperature=0), **options)


def test_a_source_without_a_marker_is_listed_too() -> None:
    """It has no position; other numbers in brackets stay text."""
    placed = place_markers(
        "a [2] b [9]", parse_sources(["https://a.example", "https://b.example"])
    )
    assert [(each.number, each.start) for each in placed] == [(2, 2), (1, None)]


def test_thinking_before_the_answer_does_not_move_its_citations() -> None:
    """Offsets count in the text without the thinking that a server leaves in it."""
    router = SearchingRouter(lists={"citations": [url for _, url in PAGES]})

    def think(asked: Asked) -> Says:
        says = router(asked)
        event = {"choices": [{"index": 0, "delta": {"content": "<think>hm</think>\n\n"}}]}
        return replace(says, pieces=[*sse(event, named=False), *says.pieces])

    with serving(think) as server:
        answer = ask(server, "openai", ModelParameters(), profile="other", model="m")
    assert answer.reasoning == "hm"
    assert [text for _, _, text in passages(answer)] == ["[1]", "[2]", "[1]"]


def test_a_wrapped_answer_has_its_citations_in_place() -> None:
    """Some schemas are sent inside an object, which is not a part of the answer."""
    unwrapper = AnswerUnwrapper()
    chunk = StreamChunk(f'{{"{WRAPPER}":["rain"]}}', "", 0.0, "stop")
    start = chunk.text.index('"rain"')
    cited = Citation(url="https://a.example", start=start, end=start + 6)
    chunk = chunk._replace(citations=(cited,))
    answer = ModelResponse.of([unwrapper.take(chunk)])
    assert answer.text[answer.citations[0].start : answer.citations[0].end] == '"rain"'


def test_a_conversation_sends_the_encrypted_results_back() -> None:
    """With search the service can cite its results again; without, it gets the text alone."""
    with serving(SearchingClaude()) as server:
        first = ask(server, "anthropic")
        said = ChatMessage("assistant", first.text, reasoning_blocks=first.reasoning_blocks)
        talk = [*TALK, said, ChatMessage("user", "And tomorrow?")]
        second = ask(server, "anthropic", talk=talk)
        ask(server, "anthropic", ModelParameters(), talk=talk)
        with_search, without = (
            asked.json()["messages"][1]["content"] for asked in server.asked[1:]
        )
    assert second.citations == first.citations
    kinds = [block["type"] for block in with_search]
    assert kinds == ["text", *["server_tool_use", "web_search_tool_result"] * 2, "text", "text"]
    assert "encrypted" in str(with_search)
    assert without == [{"type": "text", "text": ANSWER}]


def test_a_changed_answer_is_sent_back_without_its_citations() -> None:
    """They would cite what the text no longer says."""
    with serving(SearchingClaude()) as server:
        first = ask(server, "anthropic")
        said = ChatMessage("assistant", "Changed.", reasoning_blocks=first.reasoning_blocks)
        ask(server, "anthropic", talk=[*TALK, said, ChatMessage("user", "And tomorrow?")])
        blocks = server.asked[1].json()["messages"][1]["content"]
    assert not any(block.get("citations") for block in blocks)
    assert "Changed." in str(blocks)


def test_a_paused_answer_is_continued() -> None:
    """The service pauses twice; the answer is one, and the tokens of all requests are counted."""
    with serving(SearchingClaude(pauses=2)) as server:
        answer = ask(server, "anthropic")
        assert len(server.asked) == 3
    assert answer.text == ANSWER
    assert answer.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.input_tokens == 300
    assert answer.usage.searches == 4
    assert passages(answer)[0] == (1, PAGES[0][1], FIRST)


def test_an_answer_that_is_always_paused_ends() -> None:
    """After some requests it is cut, as an answer at its limit."""
    with serving(SearchingClaude(pauses=10**6)) as server:
        answer = ask(server, "anthropic")
        assert len(server.asked) == 11
    assert answer.finish_reason == "pause_turn"


@pytest.mark.parametrize("streams", [True, False])
def test_the_error_of_a_search(streams: bool) -> None:
    """It is in the answer's searches, and the answer is complete."""
    with serving(SearchingClaude(error="max_uses_exceeded", streams=streams)) as server:
        answer = ask(server, "anthropic")
    assert [(each.query, each.error) for each in answer.searches] == [
        (QUERIES[0], ""), (QUERIES[1], "max_uses_exceeded"),
    ]  # fmt: skip
    assert answer.finish_reason == "stop"
    with serving(SearchingResponses(status="failed", streams=streams)) as server:
        answer = ask(server, "openai")
    assert [each.error for each in answer.searches] == ["failed", "failed"]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"tool_usage": {"web_search": {"num_requests": 1}}}, 1),
        ({"usage": {"server_side_tool_usage_details": {"web_search_calls": 5}}}, 5),
        ({"usage": {"tool_calls_details": {"web_search": {"invocation": 3}}}}, 3),
        ({}, 2),
    ],
    ids=["openai", "xai", "perplexity", "none"],
)
def test_the_number_of_billed_searches(counts: dict[str, Any], expected: int) -> None:
    """What the service counts takes precedence over the searches in the answer."""
    with serving(SearchingResponses(**counts)) as server:
        usage = ask(server, "openai").usage
    assert usage is not None
    assert usage.searches == expected


@pytest.mark.parametrize(
    ("name", "create", "model"),
    [
        ("anthropic", SearchingClaude, "claude-old-test"),
        ("gemini", SearchingGemini, "gemma-3-27b-it"),
        ("openai", SearchingResponses, "gpt-4.1-nano"),
    ],
)
def test_a_model_without_search_is_an_error(
    name: str, create: Callable[..., Any], model: str
) -> None:
    """It says which providers search, and no second request omits the tool."""
    with serving(create()) as server:
        with pytest.raises(UnsupportedError) as caught:
            ask(server, name, model=model)
        assert len(server.asked) == 1
    assert "anthropic, gemini, openai, openrouter, perplexity, xai" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ollama", {}),
        ("lmstudio", {}),
        ("openai", {"profile": "groq"}),
        ("openai", {"api": "responses"}),
        ("gemini", {"api": "openai"}),
    ],
)
def test_a_service_without_search_is_not_asked(name: str, settings: dict[str, Any]) -> None:
    """An answer without a search would be wrong in silence."""

    async def use() -> None:
        async with create_provider(name, base_url="http://127.0.0.1:9", **settings) as provider:
            await provider.generate_chat(TALK, "m", SEARCH)

    with pytest.raises(UnsupportedError, match="search"):
        asyncio.run(use())


def test_documents_of_anthropic() -> None:
    """Characters, pages (from 1, with the last one) and blocks of a document are in the table."""
    cited = [
        {"type": "char_location", "cited_text": "a", "document_index": 0, "document_title": "D", "start_char_index": 3, "end_char_index": 9, "file_id": None},
        {"type": "page_location", "cited_text": "b", "document_index": 1, "document_title": None, "start_page_number": 2, "end_page_number": 4},
        {"type": "content_block_location", "cited_text": "c", "document_index": 0, "document_title": "D", "start_block_index": 0, "end_block_index": 1},
        {"type": "a_new_location", "cited_text": "d"},
    ]  # fmt: skip
    body = {"content": [{"type": "text", "text": "x"}, {"type": "text", "text": "yes", "citations": cited}], "stop_reason": "end_turn"}  # fmt: skip
    answer = ModelResponse.of(ChunkDecoder().decode_body(body, 0.0))
    found = [
        (each.number, each.document, each.unit, each.source_start, each.source_end)
        for each in answer.citations
    ]
    assert found == [(1, 0, "character", 3, 9), (2, 1, "page", 2, 3), (1, 0, "block", 0, 1), (3, None, "", None, None)]  # fmt: skip
    assert {(each.start, each.end) for each in answer.citations} == {(1, 4)}
    assert not answer.reasoning_blocks


def test_documents_are_cited_unless_there_is_a_schema() -> None:
    """Anthropic refuses citations together with a schema."""
    document = Document(data=b"It rains.", media_type="text/plain", name="a.txt")
    talk = [ChatMessage("user", "read", attachments=(document,))]
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    plain = build_messages_request(talk, "m", ModelParameters())
    bound = build_messages_request(talk, "m", ModelParameters(schema=schema))
    blocks = [body["messages"][0]["content"][0] for body in (plain, bound)]
    assert [block.get("citations") for block in blocks] == [{"enabled": True}, None]


def test_a_stored_answer_keeps_its_citations() -> None:
    """Recordings and caches have them, and the searches."""
    with serving(SearchingGemini()) as server:
        answer = ask(server, "gemini")
    chunk = StreamChunk(answer.text, citations=answer.citations, searches=answer.searches)
    stored = encode_answer([chunk])
    again = ModelResponse.of(decode_answer(stored))
    assert again.citations == answer.citations
    assert again.searches == answer.searches


def test_whatever_a_service_sends_is_a_citation() -> None:
    """Values of other types are dropped, also an end before the start or after the answer."""
    odd: Any = {"title": 3, "url": ["x"], "cited_text": None, "start": "0", "end": 2.5}
    assert Citation(**odd) == Citation()
    assert Citation(start=5, end=5).start is None
    chunk = StreamChunk("hi", citations=(Citation(url="https://a.example", start=0, end=9),))
    assert ModelResponse.of([chunk]).citations[0].end is None
    assert Search(query=odd, error=odd) == Search()


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "//a.example",
        "https://google.com@evil.example/", "https://", "http://a b.example", "java\nscript:alert(1)",
        "https://a.example/\u202egnp.exe", "https://[::1", "https://a.example:port/", '"><script>', "",
    ],
)  # fmt: skip
def test_what_may_not_be_a_link(url: str) -> None:
    """Addresses that run code, or that look like another host."""
    assert link_host(url) == ""


def test_a_very_long_address_is_not_a_link() -> None:
    """The notebook file would have all of it."""
    assert link_host("https://a.example/" + "x" * 1000) == "a.example"
    assert link_host("https://a.example/" + "x" * 4000) == ""


def test_a_host_in_another_script_is_shown_in_ascii() -> None:
    """So that it does not look like a known one."""
    assert link_host("https://аpple.example/") == "xn--pple-43d.example"
    assert link_host("HTTPS://Example.com:8443/a?b#c") == "example.com"


def test_the_table_of_citations() -> None:
    """One row per citation; positions are integers, and missing where they are unknown."""
    frame = citations_frame(
        [Citation(number=1, title="A", url="https://a.example", start=0, end=3)]
    )
    assert frame.columns.tolist()[:6] == ["number", "title", "url", "cited_text", "start", "end"]
    assert frame.start.dtype == "Int64"
    assert frame.document.isna().all()
    assert citations_frame([]).empty
    assert "search=True" in repr(citations_frame([]))
