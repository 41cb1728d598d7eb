"""Log probabilities of tokens: what each service is sent, and what is read of its answer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import ollama
import openai
import pytest
from google import genai
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import ModelParameters, errors
from llm_magics.parameters import ModelParameters as Parameters
from llm_magics.providers.profiles import profiles
from llm_magics.runtime.storage.serialization import decode_answer, encode_answer
from llm_magics.types import ChatMessage, ModelResponse, StreamChunk, TokenLogprob
from llm_magics.wire import gemini, openai_chat, openai_responses
from llm_magics.wire import ollama as ollama_wire
from llm_magics.wire.logprobs import parse_choice, parse_gemini, parse_tokens
from tests.support.fake_openai import FakeOpenAI
from tests.support.serving import Says, as_json, chat_event, serving
from tests.wire.test_official_clients import KEY, TEXT_TALK, ours

ASK = ModelParameters(logprobs=2, stream=False)
HI = [ChatMessage("user", "hi")]
# Half of the bytes of "é", which text cannot express.
TOKENS = [
    {"token": "caf", "bytes": [99, 97, 102], "logprob": -0.5, "top_logprobs": [
        {"token": "caf", "bytes": [99, 97, 102], "logprob": -0.5},
        {"token": "tea", "bytes": None, "logprob": -1.5}]},
    {"token": "\\xc3", "bytes": [195], "logprob": -0.25, "top_logprobs": []},
    {"token": "\\xa9", "bytes": [169], "logprob": 0.0, "top_logprobs": []},
]  # fmt: skip
EXPECTED = (
    TokenLogprob("caf", -0.5, b"", (TokenLogprob("caf", -0.5), TokenLogprob("tea", -1.5))),
    TokenLogprob("\\xc3", -0.25, b"\xc3"),
    TokenLogprob("\\xa9", 0.0, b"\xa9"),
)


def chat_stream() -> list[bytes]:
    """A chat whose only delta has all tokens."""
    choice = {"index": 0, "delta": {"content": "café"}, "logprobs": {"content": TOKENS}}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    event = f"data: {json.dumps({**body, 'choices': [choice]})}\n\n".encode()
    return [event, chat_event(finish_reason="stop"), b"data: [DONE]\n\n"]


def values(tokens: Any) -> list[tuple[str, float, list[tuple[str, float]]]]:
    """The tokens of an official client, as plain values."""
    return [
        (each.token, each.logprob, [(one.token, one.logprob) for one in each.top_logprobs or ()])
        for each in tokens
    ]


def plain(answer: ModelResponse) -> list[tuple[str, float, list[tuple[str, float]]]]:
    """Our tokens, as plain values."""
    return [(t.token, t.logprob, [(o.token, o.logprob) for o in t.top]) for t in answer.logprobs]


def test_chat_equals_the_official_client() -> None:
    """OpenAI's chat: same fields in the request, same tokens from the answer."""
    with serving(Says(chat_stream())) as server:
        with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
            chunks = client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hi"}], stream=True,
                stream_options={"include_usage": True}, logprobs=True, top_logprobs=2,
            )  # fmt: skip
            logprobs = [choice.logprobs for chunk in chunks for choice in chunk.choices]
            theirs = [token for each in logprobs if each for token in each.content or ()]
        answer = ours("openai", server.url, lambda p: p.generate_chat(HI, "m", ASK))
        one, other = (asked.json() for asked in server.asked[-2:])
    assert one == other
    assert plain(answer) == values(theirs)
    assert answer.logprobs == EXPECTED
    assert b"".join(token.as_bytes for token in answer.logprobs).decode() == answer.text


def test_responses_equal_the_official_client() -> None:
    """OpenAI's Responses API: log probabilities are included, and read from the deltas."""
    tokens = [{**each, "top_logprobs": each["top_logprobs"]} for each in TOKENS]
    delta = {"type": "response.output_text.delta", "delta": "café", "sequence_number": 0, "item_id": "i", "output_index": 0, "content_index": 0, "logprobs": tokens}  # fmt: skip
    last = {"type": "response.completed", "sequence_number": 1, "response": {"status": "completed", "output": [], "usage": {"input_tokens": 1, "output_tokens": 3}}}  # fmt: skip
    stream = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in (delta, last)]
    with serving(Says(stream)) as server:
        with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
            events = client.responses.create(
                model="m", stream=True, store=False, top_logprobs=2,
                input=[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
                include=["reasoning.encrypted_content", "message.output_text.logprobs"],
            )  # fmt: skip
            theirs = [
                token
                for event in events
                if event.type == "response.output_text.delta"
                for token in event.logprobs
            ]
        answer = ours(
            "openai", server.url, lambda p: p.generate_chat(HI, "m", ASK), api="responses"
        )
        one, other = (asked.json() for asked in server.asked[-2:])
    assert one == other
    assert plain(answer) == values(theirs)


def test_ollama_equals_the_official_client() -> None:
    """Ollama: same fields, same tokens; those of thinking are not tokens of the answer."""
    thought = {"model": "m", "message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False, "logprobs": [{"token": "hm", "logprob": -9.0}]}  # fmt: skip
    said = {"model": "m", "message": {"role": "assistant", "content": "café"}, "done": False, "logprobs": TOKENS}  # fmt: skip
    end = {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}  # fmt: skip
    lines = [f"{json.dumps(each)}\n".encode() for each in (thought, said, end)]
    with serving(Says(lines, content_type="application/x-ndjson")) as server:
        client = ollama.Client(server.url)
        chunks = client.chat(
            "m", [{"role": "user", "content": "hi"}], stream=True, logprobs=True, top_logprobs=2
        )
        theirs = [t for c in chunks if not c.message.thinking for t in c.logprobs or ()]
        answer = ours("ollama", server.url, lambda p: p.generate_chat(HI, "m", ASK))
        bodies = [asked.json() for asked in server.asked if asked.path == "/api/chat"]
    for name in ("logprobs", "top_logprobs"):
        assert bodies[0][name] == bodies[-1][name]
    assert plain(answer) == values(theirs)


def test_gemini_equals_the_official_client() -> None:
    """Gemini: same fields in the configuration, same tokens from the result."""
    result = {
        "chosenCandidates": [{"token": "yes", "tokenId": 5, "logProbability": -0.2}],
        "topCandidates": [{"candidates": [
            {"token": "yes", "tokenId": 5, "logProbability": -0.2},
            {"token": "no", "tokenId": 6, "logProbability": -2.0}]}],
    }  # fmt: skip
    body = {"candidates": [{"content": {"parts": [{"text": "yes"}], "role": "model"}, "finishReason": "STOP", "logprobsResult": result}]}  # fmt: skip
    said = Says([f"data: {json.dumps(body)}\n\n".encode()])
    with serving(said) as server:
        options = genai.types.HttpOptions(base_url=server.url)
        config = genai.types.GenerateContentConfig(response_logprobs=True, logprobs=2)
        with genai.Client(api_key=KEY, http_options=options) as client:
            stream = client.models.generate_content_stream(
                model="gemini-2.5-flash", contents="hi", config=config
            )
            chunk = next(iter(stream))
            found = chunk.candidates[0].logprobs_result  # type: ignore[index]
        answer = ours("gemini", server.url, lambda p: p.generate_chat(HI, "gemini-2.5-flash", ASK))
        one, other = (asked.json()["generationConfig"] for asked in server.asked[-2:])
    assert one == other == {"responseLogprobs": True, "logprobs": 2}
    assert found is not None
    assert found.chosen_candidates
    assert found.top_candidates
    theirs = [(e.token, e.log_probability) for e in found.chosen_candidates]
    assert [(each.token, each.logprob) for each in answer.logprobs] == theirs
    tops = [(e.token, e.log_probability) for e in found.top_candidates[0].candidates or ()]
    assert [(each.token, each.logprob) for each in answer.logprobs[0].top] == tops


def test_together_is_sent_a_number_and_its_numbers_are_read() -> None:
    """Together: the count is in logprobs; a stream has one number per token and a mapping."""
    body = openai_chat.build_chat_request(TEXT_TALK, "m", Parameters(logprobs=4))
    sent = profiles()["together"].adapt(body)
    assert sent["logprobs"] == 4
    assert "top_logprobs" not in sent
    choice = {"index": 0, "delta": {"content": "yes"}, "logprobs": -0.1, "top_logprobs": {"no": -3.0, "yes": -0.1}}  # fmt: skip
    (token,) = parse_choice(choice, "yes")
    assert token == TokenLogprob("yes", -0.1, b"", (TokenLogprob("yes", -0.1), TokenLogprob("no", -3.0)))  # fmt: skip
    whole = {"logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1.0, None], "top_logprobs": [{"a": -1.0}, None]}}  # fmt: skip
    assert parse_choice(whole, "ab") == (TokenLogprob("a", -1.0, b"", (TokenLogprob("a", -1.0),)),)


@pytest.mark.parametrize(("service", "most"), [("fireworks", 5), ("openai", 20), ("vllm", 20)])
def test_the_number_of_alternatives_is_limited_to_what_a_service_accepts(
    service: str, most: int
) -> None:
    """More alternatives than a service accepts are not requested."""
    body = openai_chat.build_chat_request(TEXT_TALK, "m", Parameters(logprobs=99))
    assert profiles()[service].adapt(body)["top_logprobs"] == most
    limited = [
        openai_responses.build_responses_request(TEXT_TALK, "m", Parameters(logprobs=99)),
        ollama_wire.build_chat_request(TEXT_TALK, "m", Parameters(logprobs=99)),
    ]
    assert [each["top_logprobs"] for each in limited] == [20, 20]
    config = gemini.build_request(TEXT_TALK, "m", Parameters(logprobs=99))["generationConfig"]
    assert config["logprobs"] == 20


def test_without_logprobs_nothing_is_requested() -> None:
    """The parameter is absent from requests that do not ask for log probabilities."""
    for value in (None, False):
        parameters = Parameters(logprobs=value)
        bodies = [
            openai_chat.build_chat_request(TEXT_TALK, "m", parameters),
            openai_chat.build_completion_request("hi", "m", parameters),
            openai_responses.build_responses_request(TEXT_TALK, "m", parameters),
            ollama_wire.build_chat_request(TEXT_TALK, "m", parameters),
            gemini.build_request(TEXT_TALK, "m", parameters),
        ]
        assert "ogprobs" not in json.dumps(bodies)


@pytest.mark.parametrize("wrong", [-1, 1.5, "5", math.nan])
def test_a_wrong_number_of_alternatives_is_an_error(wrong: Any) -> None:
    """The number of alternatives is a natural number, or True."""
    with pytest.raises(errors.ConfigurationError, match="logprobs"):
        Parameters(logprobs=wrong)
    assert Parameters(logprobs=True).logprobs == 0


@pytest.mark.parametrize(
    "sent",
    [
        None, 5, "x", [], [None], [{"token": 3, "logprob": -1}], [{"token": "a"}],
        [{"token": "a", "logprob": "x"}], [{"token": "a", "logprob": math.nan}],
        [{"token": "a", "logprob": True}], [{"token": "a", "prob": -1}],
    ],
)  # fmt: skip
def test_invalid_tokens_are_left_out(sent: Any) -> None:
    """A service may send anything; what is not a token with a number is not a token."""
    assert parse_tokens(sent) == ()
    renamed = json.loads(json.dumps(sent).replace('"logprob"', '"logProbability"'))
    tokens = parse_gemini({"chosenCandidates": renamed, "topCandidates": sent})
    assert [each for each in tokens if each.logprob] == []


def test_values_are_at_most_zero_and_finite() -> None:
    """A log probability above 0 is 0, and an impossible token has a finite value."""
    tokens = [{"token": "a", "logprob": 0.1}, {"token": "b", "logprob": -math.inf}, {"token": "c", "prob": 0.5}, {"token": "d", "prob": 0.0}]  # fmt: skip
    assert [each.logprob for each in parse_tokens(tokens)] == [
        0.0,
        -9999.0,
        round(math.log(0.5), 6),
        -9999.0,
    ]


def test_a_stored_answer_has_the_same_tokens() -> None:
    """Recordings and the cache keep tokens, bytes and alternatives."""
    chunks = [StreamChunk("café", logprobs=EXPECTED), StreamChunk(finish_reason="stop")]
    stored = json.loads(json.dumps(encode_answer(chunks)))
    assert ModelResponse.of(decode_answer(stored)).logprobs == EXPECTED


def test_a_key_in_an_answer_is_not_stored_with_its_tokens() -> None:
    """If a key is removed from the text, its tokens are not stored either."""
    key = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD"
    chunks = [StreamChunk(key, logprobs=(TokenLogprob(key[:20], -1.0), TokenLogprob(key[20:], -1.0)))]  # fmt: skip
    assert key[20:] not in json.dumps(encode_answer(chunks))


@pytest.fixture
def service(own_settings: None) -> Iterator[None]:
    """A service with log probabilities, as the provider ``lively``."""
    with serving(Says(chat_stream())) as server:
        lm.config.providers = {"lively": {"type": "openai", "base_url": server.url, "api_key": KEY}}  # fmt: skip
        yield


def test_a_response_has_a_frame_of_tokens(service: None) -> None:
    """``response.logprobs`` has one row per token, and a stored answer has the same."""
    response = lm.ask("hi", "lively/m", logprobs=2)
    frame = response.logprobs
    assert list(frame.columns) == ["token", "logprob", "top"]
    assert frame.token.tolist() == ["caf", "\\xc3", "\\xa9"]
    assert frame.top[0] == {"caf": -0.5, "tea": -1.5}


def test_the_fields_of_a_service_can_be_sent_as_they_are(service: None) -> None:
    """Also for services that are not known to return log probabilities."""
    body = {"logprobs": True, "top_logprobs": 2}
    assert len(lm.ask("hi", "lively/m", extra_body=body).logprobs) == 3
    assert len(lm.ask("hi", "lively/m", logprobs=True, top_logprobs=2).logprobs) == 3


def test_a_cell_asks_for_log_probabilities(service: None, shell: InteractiveShell) -> None:
    """``-p`` sends them as a parameter of the model, not as a variable of the prompt."""
    shell.run_cell_magic("llm", "-p logprobs=2 -o answer lively/m", "hi")
    assert len(shell.user_ns["answer"].logprobs) == 3


def test_without_logprobs_the_frame_is_empty_and_says_why(own_settings: None) -> None:
    """An answer without log probabilities has an empty frame."""
    frame = lm.ask("hi", "echo/echo").logprobs
    assert frame.empty
    assert "logprobs=5" in repr(frame)


def test_a_provider_without_log_probabilities_says_so(own_settings: None) -> None:
    """The error names providers that have them; nothing is sent."""
    with pytest.raises(errors.UnsupportedError, match="log prob") as caught:
        lm.ask("hi", "echo/echo", logprobs=True)
    assert "ollama" in (caught.value.hint or "")


def test_an_answer_without_requested_log_probabilities_is_an_error(own_settings: None) -> None:
    """A service that ignores the parameter causes an error instead of a made-up value."""
    with serving(FakeOpenAI()) as server:
        lm.config.providers = {"deaf": {"type": "openai", "base_url": server.url, "api_key": KEY}}
        with pytest.raises(errors.UnsupportedError, match="log prob"):
            lm.ask("hi", "deaf/gpt-test", logprobs=1)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"error": {"message": "This model does not support the 'logprobs' parameter.", "param": "logprobs", "code": None}}),
        (400, {"error": {"message": "Unsupported parameter: 'top_logprobs' is not supported with this model.", "param": "top_logprobs", "code": "unsupported_parameter"}}),
        (422, {"detail": "logprobs: extra fields not permitted"}),
    ],
)  # fmt: skip
def test_a_refusal_of_log_probabilities_is_not_worked_around(
    status: int, error: Any, own_settings: None
) -> None:
    """A refused parameter is not left out: the answer would have no log probabilities."""
    with serving(as_json(error, status)) as server:
        lm.config.providers = {"strict": {"type": "openai", "base_url": server.url, "api_key": KEY}}  # fmt: skip
        with pytest.raises(errors.UnsupportedError, match="log prob"):
            lm.ask("hi", "strict/m", logprobs=1)
        assert len(server.asked) == 1
