"""Gemini: its key and address, its pages, its turns and signatures, its thinking, its refusals."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.attachments import Image, ReasoningBlock
from llm_magics.parameters import Tool
from llm_magics.providers.gemini import GeminiConfig, GeminiProvider
from llm_magics.providers.gemini_errors import map_gemini_error
from llm_magics.types import PackedVectors, ToolCall, Usage
from llm_magics.wire import gemini as wire
from llm_magics.wire.finish_reasons import Outcome, classify_outcome
from llm_magics.wire.gemini_answers import ChunkDecoder, parse_finish_reason, parse_usage
from llm_magics.wire.gemini_thinking import thinking_facts
from tests.support.fake_gemini import (
    CHAT,
    EMBED,
    FOREIGN,
    KEY,
    MODELS,
    USED,
    FakeGemini,
    event,
    quota,
    refusal,
    wrong_key,
    wrong_thinking,
)
from tests.support.serving import Asked, Says, as_json, serving

HI = [ChatMessage("user", "hi")]
WEATHER = Tool("weather", "how it is", {"type": "object", "properties": {"city": {"type": "string"}}})  # fmt: skip
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def used(url: str, do: Callable[[GeminiProvider], Any], **settings: Any) -> Any:
    """What ``do`` gives, called with a provider at ``url``."""

    async def use() -> Any:
        config = GeminiConfig(**{"base_url": url, "api_key": KEY, **settings})
        async with GeminiProvider(config) as provider:
            return await do(provider)

    return asyncio.run(use())


async def chatted(
    provider: GeminiProvider, model: str = CHAT, talk: Any = HI, **parameters: Any
) -> ModelResponse:
    """A whole answer."""
    answer = await provider.generate_chat(talk, model, ModelParameters(**parameters))
    assert isinstance(answer, ModelResponse)
    return answer


def refused(says: Says, **settings: Any) -> errors.ProviderError:
    """The error that a chat ends in where the service says that."""

    def answers(asked: Asked) -> Says:
        return says if asked.method == "POST" else as_json({"models": []})

    with serving(answers) as server, pytest.raises(errors.ProviderError) as caught:
        used(server.url, chatted, **settings)
    return caught.value


@pytest.mark.parametrize("variable", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
@pytest.mark.parametrize("end", ["", "/", "/v1beta", "/v1beta/openai/"])
def test_the_environment_is_heeded(
    variable: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key and address, with or without a version; the key in its own header, and never shown."""
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with serving(FakeGemini()) as server:
        monkeypatch.setenv(variable, KEY)
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", f" {server.url}{end}\n")
        assert KEY not in repr(GeminiConfig())
        assert GeminiProvider.own_key_source() == variable
        provider = GeminiProvider()
        assert provider.key_variable == variable
        assert asyncio.run(provider.list_models()) == USED
    headers = server.asked[0].headers
    assert headers["x-goog-api-key"] == KEY
    assert "authorization" not in headers
    assert not any(KEY in asked.path for asked in server.asked)


def test_the_first_of_two_keys_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that names this service comes before that of all of Google's."""
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.setenv("GOOGLE_API_KEY", "another")
    key = GeminiConfig().api_key
    assert key is not None
    assert key.reveal() == KEY


def test_another_version_of_the_api() -> None:
    """One in the address is used, with the query of the address after it."""
    for address in ("http://h/v1", "http://h/v1alpha", "http://h/v1beta2?a=b"):
        assert GeminiConfig(base_url=address).base_url == address
    assert GeminiConfig(base_url="http://h/proxy/?a=b").base_url == "http://h/proxy/v1beta?a=b"


def test_the_same_format_at_vertex() -> None:
    """Its addresses have a version and more after it, and its tokens are bearers."""
    address = "/v1/projects/p/locations/global/publishers/google"
    called = f"{address}/models/{CHAT}:"

    def answers(asked: Asked) -> Says:
        if asked.path == f"{called}countTokens":
            return as_json({"totalTokens": len(asked.json()["contents"])})
        assert asked.path == f"{called}streamGenerateContent?alt=sse"
        said = {"content": {"parts": [{"text": "hello"}]}, "finishReason": "STOP"}
        return Says([event({"candidates": [said]})])

    with serving(answers) as server:
        own = {"base_url": f"{server.url}{address}/", "token_provider": lambda: "a-token"}
        lm.config.providers = {"cloud": {"type": "gemini", **own}}
        assert lm.ask("hi", model=f"cloud/{CHAT}").text == "hello"
        provider = GeminiProvider(GeminiConfig(**own))
        assert asyncio.run(provider.count_tokens(HI, CHAT)) == 1
    for asked in server.asked:
        assert asked.headers["authorization"] == "Bearer a-token"
        assert "x-goog-api-key" not in asked.headers


def test_documents_and_audio_are_sent_like_pictures(tmp_path: Path) -> None:
    """By path, with their own types; other services refuse them before anything is sent."""
    paper, speech = tmp_path / "a.pdf", tmp_path / "b.wav"
    paper.write_bytes(b"%PDF-1.7 text")
    speech.write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt ")
    with serving(FakeGemini()) as server:
        lm.config.providers = {
            "gemini": {"base_url": server.url, "api_key": KEY},
            "openai": {"base_url": server.url, "api_key": KEY},
        }
        lm.ask("what is it?", model=f"gemini/{CHAT}", images=[paper, str(speech)])
        sent = server.asked[-1].json()["contents"][0]["parts"]
        count = len(server.asked)
        with pytest.raises(errors.ConfigurationError, match="image format"):
            lm.ask("what is it?", model="openai/m", images=[paper])
        assert len(server.asked) == count
    types = [part["inlineData"]["mimeType"] for part in sent[:-1]]
    assert types == ["application/pdf", "audio/wav"]


def test_without_a_key_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable."""
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for api in ("native", "openai"):
        provider = GeminiProvider(GeminiConfig(api=api))
        assert asyncio.run(provider.initialize()) is False
        assert not provider.is_set_up
        for call in (chatted, lambda p: p.list_models(), lambda p: p.generate_embeddings(["a"], EMBED)):  # fmt: skip
            with pytest.raises(errors.AuthenticationError, match="API key") as caught:
                asyncio.run(call(provider))
            assert "GEMINI_API_KEY" in str(caught.value.hint)


def test_a_cell_with_the_key_alone(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chat, a list of models, vectors, a schema and the cost, without any other setting."""
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    with serving(FakeGemini()) as server:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        shell.run_cell_magic("llm", f"gemini/{CHAT} -o ans --max-tokens 5", "hi")
        answer = shell.user_ns["ans"]
        assert answer.text
        assert answer.usage == Usage(7, 5, 3, None, 0)
        assert lm.ask("hi", model=f"gemini/{CHAT}", schema=SCHEMA).data == {"a": 7}
        listed = shell.run_line_magic("llm", "models gemini/")
        assert [f"gemini/{name}" for name in USED] == listed["model"].tolist()
        shell.user_ns["texts"] = ["one", "two"]
        shell.run_line_magic("embed", f"texts --model gemini/{EMBED} -o vectors")
        assert len(shell.user_ns["vectors"]) == 2
        runs = lm.runs()
    assert set(runs["provider"]) == {"gemini"}
    assert not any(KEY in repr(asked.path) for asked in server.asked)


def test_the_price_is_the_published_one() -> None:
    """At Google's own address; elsewhere it is unknown, as are facts that a list does not have."""
    own = GeminiProvider(GeminiConfig(api_key=KEY))
    assert own.price_list == "google"
    info = own.known(CHAT)
    assert (info.input_usd, info.output_usd, info.context) == (0.75, 3.75, 1_048_576)
    expected = {"chat", "vision", "tools", "schema", "reasoning", "documents", "audio", "search"}
    assert expected == set(info.capabilities)
    elsewhere = GeminiProvider(GeminiConfig(api_key=KEY, base_url="http://127.0.0.1:9"))
    assert elsewhere.price_list == ""
    assert elsewhere.known(CHAT).input_usd is None


def test_what_the_list_tells_and_what_it_leaves_out() -> None:
    """What a model can do is of both: thinking of the list, pictures and tools of the table."""
    provider = GeminiProvider(GeminiConfig(api_key=KEY))
    said = {"name": f"models/{CHAT}", "supportedGenerationMethods": ["generateContent"], "thinking": True, "inputTokenLimit": 5}  # fmt: skip

    async def listing() -> list[Any]:
        return [said]

    provider._listing = listing  # type: ignore[method-assign]
    (info,) = asyncio.run(provider.describe_models())
    capabilities = (
        "chat",
        "vision",
        "tools",
        "schema",
        "reasoning",
        "documents",
        "audio",
        "search",
    )
    assert info.capabilities == capabilities
    assert info.context == 5


def test_many_texts_are_embedded_in_batches() -> None:
    """Of at most a hundred, which is the service's limit, in their order."""
    texts = [f"text {number}" for number in range(205)]

    async def embed(provider: GeminiProvider) -> list[list[float]]:
        return await provider.generate_embeddings(texts, f"gemini/{EMBED}")

    with serving(FakeGemini()) as server:
        vectors = used(server.url, embed)
        alone = used(server.url, lambda p: p.generate_embeddings([texts[204]], EMBED))
    assert [len(asked.json()["requests"]) for asked in server.asked] == [100, 100, 5, 1]
    assert len(vectors) == 205
    assert vectors[204] == alone[0]
    assert vectors.usage.input_tokens > 205


@pytest.mark.parametrize(
    "body",
    [
        {"embeddings": [{"values": [1.0]}]},
        {"embeddings": [{"values": [1.0]}] * 3},
        {"embeddings": None},
        {},
    ],
)
def test_vectors_that_do_not_fit_their_texts(body: dict[str, Any]) -> None:
    """Too few, too many or none: an error, and no vector for a text that it is not of."""
    with serving(as_json(body)) as server, pytest.raises(errors.ProviderError):
        used(server.url, lambda p: p.generate_embeddings(["a", "b"], EMBED))


def test_a_vector_that_is_none_is_missing() -> None:
    """The others stay; a shortened vector of zeros is unchanged."""
    body = {"embeddings": [{"values": [0.0, 0.0]}, {"values": None}, {"values": [3.0, 4.0]}]}
    with serving(as_json(body)) as server:
        packed: PackedVectors = used(
            server.url, lambda p: p.generate_shortened(["a", "b", "c"], EMBED, 2)
        )
    first, second, third = memoryview(packed.data).cast("f", (3, 2)).tolist()
    assert first == [0.0, 0.0]
    assert all(map(math.isnan, second))
    assert third == pytest.approx([0.6, 0.8])


LEVELS = [None, True, False, "low", "medium", "high"]


@pytest.mark.parametrize("reasoning", LEVELS)
@pytest.mark.parametrize("model", [name for name in USED if name.startswith("gemini-") and "embedding" not in name])  # fmt: skip
def test_every_level_of_thinking(model: str, reasoning: bool | str | None) -> None:
    """A model is asked for what it has, and the rest is an error that tells what to do."""
    talk, parameters = HI, ModelParameters(reasoning=reasoning, max_tokens=10)
    thinks = MODELS[model][1]
    can_be_off = model in ("gemini-2.5-flash", "gemini-3.1-flash-lite") or not thinks
    if reasoning and not thinks:
        allowed, words = False, "cannot think"
    else:
        allowed, words = reasoning is not False or can_be_off, "without thinking"
    if not allowed:
        with pytest.raises(errors.UnsupportedError, match=words) as caught:
            wire.build_request(talk, model, parameters)
        assert caught.value.hint
        return
    config = wire.build_request(talk, model, parameters)["generationConfig"]
    thinking = config.get("thinkingConfig", {})
    assert wrong_thinking(thinking, model) is None
    assert thinking.get("includeThoughts", False) == bool(reasoning)
    assert (thinking == {}) == (reasoning is None or not thinks)
    budget = thinking.get("thinkingBudget", 0)
    assert config["maxOutputTokens"] == 10 + max(budget, 0)


def test_a_level_that_a_model_lacks() -> None:
    """The error lists those that it has; a level of another service is passed on."""
    asked = ModelParameters(reasoning="medium")
    with pytest.raises(errors.UnsupportedError) as caught:
        wire.build_request(HI, "gemini-3-pro-preview", asked)
    assert caught.value.hint == "Use one of: low, high."
    config = wire.build_request(HI, "gemini-5-x", ModelParameters(reasoning="high"))
    assert config["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "HIGH"


def test_unknown_models_are_not_guessed_about() -> None:
    """Nothing is known of a model of another family."""
    assert thinking_facts("gemma-4-31b-it") is None
    assert thinking_facts("tunedModels/mine") is None


def test_what_a_user_adds_goes_where_it_belongs() -> None:
    """Parameters of the configuration are merged into it; others are fields of the request."""
    extra = {"top_k": 40, "generationConfig": {"seed": 3}, "service_tier": "flex"}
    body = wire.build_request(HI, CHAT, ModelParameters(temperature=0.5, extra_body=extra))
    assert body["generationConfig"] == {"temperature": 0.5, "topK": 40, "seed": 3}
    assert body["serviceTier"] == "flex"
    assert "service_tier" not in body


CALLS = (ToolCall("c1", "weather", '{"city": "Rome"}'), ToolCall("c2", "weather", "{}"))


def asked_for(*messages: ChatMessage, model: str = CHAT) -> list[dict[str, Any]]:
    """The turns of a conversation as they are sent."""
    contents: list[dict[str, Any]] = wire.build_request(messages, model, ModelParameters())["contents"]  # fmt: skip
    return contents


def results() -> list[ChatMessage]:
    """The results of `CALLS`."""
    return [ChatMessage("tool", "sunny", tool_call_id=call.id) for call in CALLS]


def test_calls_of_another_model_get_the_documented_signature() -> None:
    """The first of each batch, since Gemini 3."""
    called = ChatMessage("assistant", "", tool_calls=CALLS)
    contents = asked_for(*HI, called, *results())
    assert [part.get("thoughtSignature") for part in contents[1]["parts"]] == [FOREIGN, None]
    assert next(FakeGemini().complaints(contents, CHAT), None) is None
    for model, is_signed in (("gemini-2.5-pro", False), ("a-name-of-a-gateway", True)):
        contents = asked_for(*HI, called, *results(), model=model)
        assert ("thoughtSignature" in json.dumps(contents)) == is_signed


def test_blocks_of_other_services_are_not_sent() -> None:
    """A signature for a call that was removed is not sent either."""
    blocks = (
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        ReasoningBlock({"functionCall": {}, "thoughtSignature": "x"}, at=(2, 5)),
    )
    (_, said, _) = asked_for(*HI, ChatMessage("assistant", "ok", reasoning_blocks=blocks), *HI)
    assert said["parts"] == [{"text": "ok"}]


def test_parts_that_the_service_made_are_sent_back() -> None:
    """Code that it ran stands where it stood, between the texts."""
    code = {"executableCode": {"language": "PYTHON", "code": "1"}}
    ran = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}
    parts = [{"text": "Before. "}, code, ran, {"text": "After."}]
    body = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    answer = ModelResponse.of(ChunkDecoder().decode_body(body, 0.0))
    said = ChatMessage("assistant", answer.text, reasoning_blocks=answer.reasoning_blocks)
    assert asked_for(*HI, said, *HI)[1]["parts"] == parts


def test_a_signed_text_that_was_changed_stays_as_it_is() -> None:
    """The signature is sent alone then."""
    block = ReasoningBlock({"text": "one two", "thoughtSignature": "s"}, at=(0, 0))
    (_, said, _) = asked_for(*HI, ChatMessage("assistant", "else", reasoning_blocks=(block,)), *HI)
    assert said["parts"] == [{"text": "", "thoughtSignature": "s"}, {"text": "else"}]


def test_signatures_of_another_account_are_taken_back() -> None:
    """Once, for that conversation: its answer comes, with the signature for foreign calls."""
    signed = ReasoningBlock({"functionCall": {}, "thoughtSignature": "bm90"}, at=(0, 0))
    last = ReasoningBlock({"text": "", "thoughtSignature": "bm90"}, at=(2, 0))
    talk = [
        *HI,
        ChatMessage("assistant", "ok", reasoning_blocks=(last,)),
        *HI,
        ChatMessage("assistant", "", tool_calls=CALLS, reasoning_blocks=(signed,)),
        *results(),
    ]
    with serving(FakeGemini()) as server:
        assert used(server.url, lambda p: chatted(p, talk=talk)).text
    first, second = (json.dumps(asked.json()) for asked in server.asked)
    assert first.count("bm90") == 2
    assert "bm90" not in second
    assert FOREIGN in second


def test_a_model_without_system_messages() -> None:
    """Gemma gets it at the start of the first turn, and later requests do not fail first."""
    talk = [ChatMessage("system", "be brief"), *HI]

    async def twice(provider: GeminiProvider) -> None:
        for _ in range(2):
            await chatted(provider, "gemma-3-27b-it", talk)

    with serving(FakeGemini()) as server:
        used(server.url, twice)
    assert ["systemInstruction" in asked.json() for asked in server.asked] == [True, False, False]
    assert server.asked[2].json()["contents"][0]["parts"] == [{"text": "be brief"}, {"text": "hi"}]


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("gemma-3-27b-it", {"schema": SCHEMA}),
        ("gemini-2.5-flash", {"schema": SCHEMA, "tools": (WEATHER,)}),
    ],
)
def test_a_schema_that_a_model_does_not_take(model: str, parameters: dict[str, Any]) -> None:
    """It goes into the prompt: no JSON mode, or none together with tools before Gemini 3."""
    with serving(FakeGemini()) as server:
        used(server.url, lambda p: chatted(p, model, **parameters))
    first, second = (asked.json() for asked in server.asked)
    assert first["generationConfig"]["responseMimeType"] == "application/json"
    assert "generationConfig" not in second
    assert "JSON schema" in json.dumps(second)


def test_files_of_other_kinds_are_refused_before_they_are_sent() -> None:
    """A file of an unknown kind, and an address that does not tell its kind."""
    for image, words in (
        (Image(b"MZ\x90"), "format"),
        (Image(url="https://e.org/a"), "extension"),
    ):
        with pytest.raises(errors.ConfigurationError, match=words):
            asked_for(ChatMessage("user", "look", images=(image,)))


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_wrong_key(is_streamed: bool) -> None:
    """It comes with status 400, in a list from some addresses, and once as an event."""
    says = wrong_key()
    body = json.loads(says.pieces[0])
    error = refused(says)
    assert type(error) is errors.AuthenticationError
    assert "GEMINI_API_KEY" in str(error.hint)
    assert not error.retryable
    inside = Says([event(body)]) if is_streamed else as_json([body], 400)
    assert type(refused(inside)) is errors.AuthenticationError


def test_how_long_to_wait_is_in_the_error() -> None:
    """A quota per minute; one per day, or no credit, is not waited for."""
    error = refused(quota("38.5s"))
    assert type(error) is errors.RateLimitError
    assert (error.retry_after, error.retryable, error.code) == (38.5, True, "RESOURCE_EXHAUSTED")
    daily = refused(quota("60s", per="Day"))
    assert (daily.retry_after, daily.retryable) == (None, False)
    assert "today" in str(daily.hint)
    spent = refused(refusal("RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", 429))
    assert not spent.retryable
    header = replace(quota("38s"), headers={"retry-after": "2"})
    assert refused(header).retry_after == 2


@pytest.mark.parametrize(
    ("status", "code", "message", "made"),
    [
        ("INVALID_ARGUMENT", 400, "The input token count (1048580) exceeds the maximum number of tokens allowed (1048576).", errors.ContextLengthError),
        ("INVALID_ARGUMENT", 400, "Function calling is not enabled for models/gemma-3-27b-it", errors.UnsupportedError),
        ("INVALID_ARGUMENT", 400, "Request contains an invalid argument.", errors.ProviderError),
        ("NOT_FOUND", 404, "models/x is not found for API version v1beta, or is not supported for generateContent.", errors.ModelNotFoundError),
        ("PERMISSION_DENIED", 403, "Method doesn't allow unregistered callers.", errors.AuthenticationError),
        ("FAILED_PRECONDITION", 400, "User location is not supported for the API use.", errors.ProviderError),
        ("UNAVAILABLE", 503, "The model is overloaded. Please try again later.", errors.ProviderError),
        ("DEADLINE_EXCEEDED", 504, "The request timed out. Please try again.", errors.ProviderError),
    ],
)  # fmt: skip
def test_refusals_have_their_class(
    status: str, code: int, message: str, made: type[errors.ProviderError]
) -> None:
    """By status, by the word for it in a stream, and by what they say."""
    error = refused(refusal(status, message, code))
    inside = refused(
        Says([event({"error": {"message": message, "status": status, "code": code}})])
    )
    for each in (error, inside):
        assert type(each) is made
        assert (each.code, each.status) == (status, code)
        assert each.retryable == (code >= 500)


def test_a_missing_model_is_found_among_those_there_are() -> None:
    """The hint names the nearest."""
    with serving(FakeGemini()) as server, pytest.raises(errors.ModelNotFoundError) as caught:
        used(server.url, lambda p: chatted(p, "gemini-3.8-flesh"))
    assert CHAT in str(caught.value.hint)


FINISHES = [
    ("STOP", Outcome.OK),
    ("MAX_TOKENS", Outcome.CUT),
    ("CONTINUATION", Outcome.CUT),
    *((word, Outcome.REFUSED) for word in ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "ESCALATION", "MODEL_ARMOR")),
    *((word, Outcome.FAILED) for word in ("OTHER", "MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE", "NO_IMAGE", "A_NEW_ONE")),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "outcome"), FINISHES)
def test_every_end_of_an_answer(reason: str, outcome: Outcome) -> None:
    """Only a known word for success makes an answer complete, here and by its own name."""
    for word in (parse_finish_reason(reason), reason):
        assert classify_outcome(word, has_text=True) is outcome


@pytest.mark.parametrize("rubbish", [5, 1.5, True, "text", {"a": 1}, [5, None]])
def test_errors_with_unexpected_details_keep_their_message(rubbish: Any) -> None:
    """Details and quotas of another type are ignored."""
    for details in (rubbish, [{"violations": rubbish, "retryDelay": rubbish, "reason": rubbish}]):
        body = {
            "error": {
                "code": 429,
                "message": "Too many requests.",
                "status": "RESOURCE_EXHAUSTED",
                "details": details,
            }
        }
        error = map_gemini_error(body, 429, {}, provider="gemini", model=CHAT)
        assert isinstance(error, errors.RateLimitError)
        assert "Too many requests" in str(error)


def test_a_refused_prompt_has_no_answer() -> None:
    """It is a ContentFilterError, streamed or whole, with the tokens of the prompt."""
    blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5}}  # fmt: skip
    for says in (Says([event(blocked)]), as_json(blocked)):
        with serving(says) as server:
            answer = used(server.url, chatted)
            assert (answer.finish_reason, answer.usage) == (
                "content_filter",
                Usage(5, 0, 0, None, 0),
            )
            lm.config.providers = {"gemini": {"base_url": server.url, "api_key": KEY}}
            with pytest.raises(errors.ContentFilterError):
                lm.ask("hi", model=f"gemini/{CHAT}")


def test_a_stream_that_breaks_off_is_not_an_answer() -> None:
    """Without a finish reason the answer is interrupted, with what came."""
    said = {"candidates": [{"content": {"parts": [{"text": "half"}]}, "finishReason": "FINISH_REASON_UNSPECIFIED"}]}  # fmt: skip
    error = refused(Says([event(said)]))
    assert isinstance(error, errors.StreamInterrupted)
    assert error.partial.text == "half"


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}, Usage(5, 2, 0, None, 0)),
        ({"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 9}, Usage(5, 2, 0)),
        ({"promptTokenCount": 5, "thoughtsTokenCount": 3, "totalTokenCount": 8}, Usage(5, 3, 0, None, 3)),
        ({"promptTokenCount": 5, "toolUsePromptTokenCount": 4, "cachedContentTokenCount": 1, "totalTokenCount": 9}, Usage(9, 0, 1, None, 0)),
        ({"promptTokenCount": 5}, Usage(5)),
        ({"promptTokenCount": 5, "candidatesTokenCount": 1, "serviceTier": "FLEX"}, Usage(5, 1, service_tier="flex")),
        ({"promptTokenCount": "x", "candidatesTokenCount": -1, "thoughtsTokenCount": 2}, Usage(reasoning_tokens=2)),
        ({}, Usage()),
    ],
)  # fmt: skip
def test_usage(counts: dict[str, Any], usage: Usage) -> None:
    """Thinking is a part of the output; a missing count is 0 only if the total is known."""
    assert parse_usage(counts) == usage


def test_the_openai_api_of_the_same_service() -> None:
    """Its own address and a bearer, without the native one; the models have their usual names."""
    with serving(FakeGemini()) as server:
        models = used(server.url, lambda p: p.list_models(), api="openai")
        answer = used(server.url, lambda p: chatted(p, "gpt-test", max_tokens=3), api="openai")
        vectors = used(server.url, lambda p: p.generate_embeddings(["a"], "text-embedding-test"), api="openai")  # fmt: skip
        with pytest.raises(errors.AuthenticationError) as caught:
            used(server.url, chatted, api="openai", api_key="wrong")
    assert models == USED
    assert answer.text
    assert answer.provider == "gemini"
    assert len(vectors) == 1
    assert caught.value.provider == "gemini"
    assert {asked.path.rpartition("/openai")[0] for asked in server.asked} == {"/v1beta"}
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"


def test_what_it_cannot_do() -> None:
    """Raw text and pictures are refused with what can, and nothing is sent."""
    with serving(FakeGemini()) as server:
        for call in (lambda p: p.generate_completion("a", CHAT), lambda p: p.generate_image("a", CHAT)):  # fmt: skip
            with pytest.raises(errors.UnsupportedError) as caught:
                used(server.url, call)
            assert "openai" in str(caught.value.hint)
    assert not server.asked


@given(st.lists(st.sampled_from(["system", "user", "assistant", "call", "blank"]), max_size=8))
def test_any_conversation_is_one_that_the_service_takes(roles: list[str]) -> None:
    """Roles alternate, results follow their calls, and no turn is empty."""
    talk: list[ChatMessage] = []
    for number, role in enumerate(roles):
        if role == "call":
            calls = tuple(replace(call, id=f"{call.id}{number}") for call in CALLS)
            talk.append(ChatMessage("assistant", "", tool_calls=calls))
            talk += [ChatMessage("tool", "sunny", tool_call_id=call.id) for call in calls]
        elif role == "blank":
            talk.append(ChatMessage("user", " "))
        else:
            talk.append(ChatMessage(role, "text"))  # type: ignore[arg-type]
    contents = asked_for(*talk)
    assert all(one["role"] != other["role"] for one, other in pairwise(contents))
    assert next(FakeGemini().complaints(contents, CHAT), None) is None
