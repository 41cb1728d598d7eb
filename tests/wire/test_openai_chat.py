"""The OpenAI formats: what is sent, and what is made of the answers."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics.parameters import ModelParameters
from llm_magics.types import ChatMessage, ModelResponse, StreamChunk
from llm_magics.wire import openai_chat
from llm_magics.wire.decoders import InStreamError
from llm_magics.wire.openai_media import extract_vectors, parse_embeddings, parse_packed_vectors
from tests.support.cutting import cut_anyhow
from tests.support.examples import examples
from tests.support.serving import chat_event, chat_stream

RECORDED = Path(__file__).parents[3] / "shared" / "wire"


def decoded(pieces: list[bytes]) -> tuple[list[StreamChunk], bool]:
    """The chunks of a stream that came in ``pieces``, and whether it was whole."""
    decoder = openai_chat.ChunkDecoder()
    chunks = [chunk for n, piece in enumerate(pieces) for chunk in decoder.feed(piece, n / 10)]
    chunks += decoder.flush(9.0)
    return chunks, decoder.finished


@given(st.lists(st.text(min_size=1)), st.lists(st.integers(0)))
def test_text_survives_any_cut(tokens: list[str], cuts: list[int]) -> None:
    """However the network cuts a stream, the text is that which was sent."""
    chunks, finished = decoded(cut_anyhow(b"".join(chat_stream(*tokens)), cuts))
    response = ModelResponse.of(chunks)
    assert response.text == "".join(tokens)
    assert response.finish_reason == "stop"
    assert finished


def test_usage_and_timings_come_from_the_last_chunk() -> None:
    """Tokens as the service counts them, and the engine's milliseconds as seconds."""
    response = ModelResponse.of(decoded(chat_stream("a", "b"))[0])
    assert response.usage is not None
    assert response.usage.input_tokens == 32
    assert response.usage.output_tokens == 2
    assert response.usage.cached_tokens == 24
    assert response.timings is not None
    assert response.timings.prompt_s == pytest.approx(0.07)
    assert response.timings.generation_s == pytest.approx(0.03)


def test_a_stream_without_its_end_is_not_finished() -> None:
    """End of file is no finish marker."""
    assert not decoded(chat_stream("a", "b")[:-3])[1]


def test_reasoning_is_kept_apart() -> None:
    """Both names that look-alikes give it are known."""
    for name in ("reasoning_content", "reasoning"):
        event = chat_event(choices=[{"index": 0, "delta": {name: "hm", "content": None}}])
        (chunk,) = decoded([event])[0]
        assert (chunk.reasoning, chunk.text) == ("hm", "")


def test_an_error_inside_the_stream_is_an_error() -> None:
    """Status 200 does not make it an answer."""
    with pytest.raises(InStreamError):
        decoded([b'data: {"error": {"message": "overloaded", "code": 503}}\n\n'])


@pytest.mark.parametrize(
    "stream",
    [
        b'event: error\ndata: {"message": "tool use failed", "status_code": 400}\n\n',
        b'data: {"error": {"code": 400}, "choices": [{"index": 0, "finish_reason": "length"}]}\n\n',
    ],
    ids=["named event", "beside choices"],
)
def test_an_error_is_one_wherever_it_stands(stream: bytes) -> None:
    """As an event of that name (Groq), or beside a choice that seems to finish (OpenRouter)."""
    with pytest.raises(InStreamError):
        decoded([stream])


def test_oddities_of_look_alikes_are_survived() -> None:
    """Lists as content, a second choice, empty data, and a space after the end."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    content = [thinking, {"type": "text", "text": "a"}]
    stream = [
        chat_event(choices=[{"index": 0, "delta": {"content": content}}]),
        chat_event(choices=[{"index": 1, "delta": {"content": "other"}}]),
        b"data:\n\ndata: null\n\n",
        b"data: [DONE] \n\n",
    ]
    chunks, finished = decoded(stream)
    response = ModelResponse.of(chunks)
    assert (response.text, response.reasoning, finished) == ("a", "hm", True)


def test_what_came_before_an_error_in_the_same_bytes_is_kept() -> None:
    """The network may bring words and error in one piece."""
    stream = chat_event("a") + chat_event("b") + b'data: {"error": "no"}\n\n'
    chunks = openai_chat.ChunkDecoder().feed(stream, 0.0)
    assert [next(chunks).text, next(chunks).text] == ["a", "b"]
    with pytest.raises(InStreamError):
        next(chunks)


def test_unknown_fields_are_kept() -> None:
    """What is not understood can still be read in ``raw``."""
    (chunk,) = decoded([chat_event("a", obfuscation="xyz")])[0]
    assert chunk.raw is not None
    assert chunk.raw["obfuscation"] == "xyz"


def test_a_chat_request_holds_what_was_given_and_no_more() -> None:
    """Parameters left to the model's default are not sent; extra ones are."""
    body = openai_chat.build_chat_request(
        [ChatMessage("user", "hi")],
        "m",
        ModelParameters(temperature=0, stop="END", extra_body={"min_p": 0.1}),
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "stop": ["END"],
        "min_p": 0.1,
    }


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=1), min_size=1))
def test_vectors_come_as_numbers_or_base64_in_the_order_of_their_index(
    vectors: list[list[float]],
) -> None:
    """Both encodings give the same float32 numbers, whatever order they come in."""
    rows = [{"index": n, "embedding": vector} for n, vector in enumerate(vectors)]
    packed = [
        {"index": n, "embedding": base64.b64encode(np.array(v, dtype="<f4").tobytes()).decode()}
        for n, v in enumerate(vectors)
    ]
    assert parse_embeddings({"data": rows[::-1]}) == vectors
    assert parse_embeddings({"data": packed[::-1]}) == vectors


def recorded_streams() -> list[tuple[bytes, str]]:
    """Every recorded chat stream without tools: its bytes, and the answer by a plain reading."""
    file = RECORDED / "openai_chat.jsonl"
    if not file.is_file():
        return []
    streams = []
    for line in file.read_text("utf-8").splitlines():
        record = json.loads(line)
        if record["kind"] != "sse" or record["status"] != 200:
            continue
        text, plain = "", True
        for event in record["body"].replace("\r\n", "\n").split("\n"):
            if event.startswith("data:") and "[DONE]" not in event:
                data = json.loads(event.removeprefix("data:"))
                for choice in data.get("choices") or []:
                    content = (choice.get("delta") or {}).get("content")
                    plain &= choice["index"] == 0 and isinstance(content, str | None)
                    text += content if isinstance(content, str) else ""
                plain &= not data.get("error")
        if plain:
            streams.append((record["body"].encode(), text))
    return streams


STREAMS = recorded_streams()


@pytest.mark.skipif(not STREAMS, reason="the recorded traffic is not beside the checkout")
@settings(max_examples=examples(20), deadline=None)
@given(st.lists(st.integers(0), max_size=30))
def test_recorded_answers_come_out_whole(cuts: list[int]) -> None:
    """Every recorded plain stream, cut anew, gives the text that a plain reading gives."""
    for body, text in STREAMS:
        assert ModelResponse.of(decoded(cut_anyhow(body, cuts))[0]).text == text


rows_as_json = st.lists(
    st.fixed_dictionaries(
        {"embedding": st.just(None), "index": st.just(0)},
        optional={"object": st.text(max_size=20), 'say "embedding":': st.text(max_size=20)},
    ),
    min_size=1,
    max_size=4,
)


@given(rows_as_json, st.booleans(), st.booleans(), st.sampled_from([None, 1]), st.data())
@settings(max_examples=examples(200))
def test_vectors_set_apart_are_the_same(
    rows: list[dict[str, object]],
    is_base64: bool,
    escapes: bool,
    indent: int | None,
    data: st.DataObject,
) -> None:
    """However the JSON is written, and whatever else stands in it, as when all of it is read."""
    for number, row in enumerate(rows):
        vector = np.array(data.draw(st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3)))
        packed = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        row["embedding"] = packed if is_base64 else vector.tolist()
        row["index"] = len(rows) - 1 - number
    reply = {"data": rows, "usage": {"prompt_tokens": 3}, "model": 'an "embedding":"AAAA" one'}
    body = json.dumps(reply, indent=indent)
    body = body.replace("/", "\\/") if escapes else body
    rest, vectors = extract_vectors(body.encode())
    assert parse_packed_vectors(json.loads(rest), vectors) == parse_packed_vectors(reply)
    if is_base64 and not (escapes and "/" in "".join(str(row["embedding"]) for row in rows)):
        assert len(vectors) == len(rows)


@given(st.binary(max_size=60))
def test_whatever_comes_can_be_taken_apart(junk: bytes) -> None:
    """It is then no JSON, or not what is wanted; and without vectors it is as it came."""
    body = b'{"data": [{"embedding": "' + junk
    rest, _ = extract_vectors(body)
    assert isinstance(rest, bytes)
    assert extract_vectors(junk.replace(b'"embedding":', b""))[0] == junk.replace(
        b'"embedding":', b""
    )
