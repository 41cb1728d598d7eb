"""Tokens that were counted and not streamed, and tool calls that come in pieces: exact times."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from llm_magics.benchmarking.latencies import chunk_timestamps
from llm_magics.benchmarking.measure import MeasuredCall
from llm_magics.runtime.response import Response
from llm_magics.runtime.storage.run_log import measure, unstreamed_tokens
from llm_magics.types import EngineTimings, ModelResponse, StreamChunk, ToolCall, Usage
from llm_magics.wire import (
    anthropic_answers,
    gemini_answers,
    ollama,
    openai_chat,
    openai_responses,
)

ENCRYPTED = {"type": "reasoning", "encrypted_content": "x"}


def visible(count: int = 21, start_s: float = 4.0, gap_s: float = 0.02) -> list[StreamChunk]:
    """So many tokens of an answer at an even pace, and nothing else."""
    return [StreamChunk("x", elapsed_s=start_s + gap_s * n) for n in range(count)]


def row(chunks: list[StreamChunk]) -> dict[str, Any]:
    """The figures that bench and compare make of ``chunks``."""
    answer = ModelResponse.of(chunks)
    usage = answer.usage or Usage()
    response = Response(answer.text, "a/b", usage=usage, reasoning=answer.reasoning)
    return MeasuredCall(model="a/b", response=response, chunks=chunks).answer()


def both(chunks: list[StreamChunk]) -> tuple[float | None, float | None, float | None]:
    """TTFT, ITL and tokens/s, which must be the same in the log and in a bench."""
    timing, told = measure(chunks, ModelResponse.of(chunks).usage), row(chunks)
    assert told["ttft_s"] == timing.ttft_s
    for ours, theirs in (
        (told["itl_ms"], timing.itl_ms),
        (told["tokens_per_s"], timing.tokens_per_s),
    ):
        assert ours == (None if theirs is None else pytest.approx(theirs))
    return timing.ttft_s, timing.itl_ms, timing.tokens_per_s


def test_hidden_thinking_is_in_no_gap() -> None:
    """200 hidden tokens, then 21 visible ones at 20 ms: 20 ms and 50 tokens/s, not 1.8 and 550."""
    last = StreamChunk(
        elapsed_s=4.41, finish_reason="stop", usage=Usage(9, 221, reasoning_tokens=200)
    )
    assert both([*visible(), last]) == pytest.approx((4.0, 20, 50))
    assert row([*visible(), last])["tpot_ms"] == pytest.approx(20.5)
    assert row([*visible(), last])["reasoning_tokens"] == 200
    assert row([*visible(), last])["output_tokens"] == 221


def test_encrypted_thinking_is_hidden_too() -> None:
    """What must go back with the answer is not thinking that was streamed."""
    block = StreamChunk(elapsed_s=3.9, reasoning_blocks=(ENCRYPTED,))
    last = StreamChunk(elapsed_s=4.41, usage=Usage(9, 221, reasoning_tokens=200))
    assert both([block, *visible(), last]) == pytest.approx((4.0, 20, 50))


def test_hidden_thinking_of_unknown_length_leaves_the_gaps_unknown() -> None:
    """Claude counts the thinking it keeps back among the rest: nothing is made up."""
    block = StreamChunk(elapsed_s=3.9, reasoning_blocks=(ENCRYPTED,))
    last = StreamChunk(elapsed_s=4.41, usage=Usage(9, 221))
    assert both([block, *visible(), last]) == (4.0, None, None)


def test_a_summary_counts_for_the_first_token_alone() -> None:
    """Its tokens are others than those that were counted."""
    summary = [StreamChunk("", "hm ", 1.0 + n, piece="summary") for n in range(3)]
    last = StreamChunk(elapsed_s=4.41, usage=Usage(9, 221, reasoning_tokens=200))
    chunks = [*summary, *visible(), last]
    assert both(chunks) == pytest.approx((1.0, 20, 50))
    assert chunk_timestamps(chunks).kinds.startswith("sssaaa")
    assert row([*summary, *visible(), last._replace(usage=Usage(9, 221))])["itl_ms"] is None


def test_streamed_thinking_is_counted() -> None:
    """Twenty tokens of thinking and twenty-one of the answer have forty gaps."""
    thoughts = [StreamChunk("", "h", 3.6 + 0.02 * n) for n in range(20)]
    last = StreamChunk(elapsed_s=4.41, usage=Usage(9, 41, reasoning_tokens=20))
    assert both([*thoughts, *visible(), last]) == pytest.approx((3.6, 20, 50))


def test_several_tokens_in_a_chunk_are_several_tokens() -> None:
    """Speculative decoding: 41 visible tokens in 21 chunks, behind hidden ones."""
    last = StreamChunk(elapsed_s=4.41, usage=Usage(9, 241, reasoning_tokens=200))
    assert both([*visible(), last]) == pytest.approx((4.0, 10, 100))


def test_the_thoughts_of_gemini_are_a_summary() -> None:
    """They stand for 200 tokens that were not streamed; the answer has 3 in 0.2 s."""
    thoughts = {"text": "**Plan**", "thought": True}
    events = [
        {"candidates": [{"content": {"parts": [part]}}]}
        for part in (thoughts, {"text": "a"}, {"text": "b"}, {"text": "c"})
    ]
    last = {
        "candidates": [{"finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 9,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 200,
            "totalTokenCount": 212,
        },
    }
    chunks = fed(gemini_answers.ChunkDecoder(), sse(*events, last))
    assert both(chunks) == pytest.approx((0.1, 100, 10))
    assert chunk_timestamps(chunks).kinds.startswith("saaa")
    assert row(chunks)["reasoning_tokens"] == 200


@pytest.mark.parametrize(
    "usage", [Usage(9, 201, reasoning_tokens=200), Usage(9, 200, reasoning_tokens=300)]
)
def test_one_visible_token_has_no_gap(usage: Usage) -> None:
    """Nor has none, whatever a service counts."""
    assert both([*visible(2), StreamChunk(elapsed_s=5.0, usage=usage)])[1:] == (None, None)


def test_without_a_count_the_pieces_count() -> None:
    """A bench takes each for a token; the log says nothing."""
    assert measure(visible(), None).itl_ms is None
    assert row(visible())["itl_ms"] == pytest.approx(20)
    summary = [StreamChunk("", "hm", 3.98, piece="summary"), *visible()]
    assert row(summary)["itl_ms"] == pytest.approx(20)


def test_an_engines_own_times_are_of_all_tokens() -> None:
    """It measured the thinking that it did not show."""
    timings = EngineTimings(generation_s=4.4)
    last = StreamChunk(elapsed_s=4.41, usage=Usage(9, 221, reasoning_tokens=200), timings=timings)
    timing = measure([*visible(), last], last.usage)
    assert timing.itl_ms == pytest.approx(20)
    assert timing.tokens_per_s == pytest.approx(221 / 4.4)


def fed(decoder: Any, events: Iterable[tuple[float, bytes]]) -> list[StreamChunk]:
    """The chunks of ``events``, each read at its time."""
    return [chunk for at, data in events for chunk in decoder.feed(data, at)]


def sse(*events: dict[str, Any]) -> list[tuple[float, bytes]]:
    """Events, one every 100 ms."""
    return [
        (round(0.1 * n, 1), f"data: {json.dumps(event)}\n\n".encode())
        for n, event in enumerate(events, 1)
    ]


def delta(finish: str | None = None, **told: Any) -> dict[str, Any]:
    """A chat's event."""
    return {"choices": [{"index": 0, "delta": told, "finish_reason": finish}]}


def call(**function: str) -> dict[str, Any]:
    """A piece of a call."""
    return {"index": 0, "id": "a", "type": "function", "function": function}


CHAT = sse(
    delta(role="assistant", content=""),
    delta(tool_calls=[call(name="f", arguments="")]),
    delta(tool_calls=[call(arguments='{"a":')]),
    delta(tool_calls=[call(arguments=" 1}")]),
    delta("tool_calls"),
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}},
)
OLD_CHAT = sse(
    delta(role="assistant", content=None),
    delta(function_call={"name": "f", "arguments": ""}),
    delta(function_call={"arguments": '{"a":'}),
    delta(function_call={"arguments": " 1}"}),
    delta("function_call"),
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}},
)
MESSAGES = sse(
    {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "a", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": " 1}"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
)  # fmt: skip
ITEM = {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"a": 1}'}
RESPONSES = sse(
    {"type": "response.created", "response": {}},
    {"type": "response.output_item.added", "item": {**ITEM, "arguments": ""}},
    {"type": "response.function_call_arguments.delta", "delta": '{"a":'},
    {"type": "response.function_call_arguments.delta", "delta": " 1}"},
    {"type": "response.output_item.done", "item": ITEM},
    {"type": "response.completed", "response": {"status": "completed", "output": [ITEM], "usage": {"input_tokens": 5, "output_tokens": 3}}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("codec", "events"),
    [(openai_chat, CHAT), (openai_chat, OLD_CHAT), (anthropic_answers, MESSAGES), (openai_responses, RESPONSES)],
    ids=["chat", "function_call", "messages", "responses"],
)  # fmt: skip
def test_the_first_piece_of_a_tool_call_is_the_first_token(
    codec: Any, events: list[tuple[float, bytes]]
) -> None:
    """Three pieces at 0.2, 0.3 and 0.4 s; that it is whole is known later, and writes nothing."""
    chunks = fed(codec.ChunkDecoder(), events)
    (whole,) = ModelResponse.of(chunks).tool_calls
    assert (whole.name, whole.arguments) == ("f", {"a": 1})
    assert both(chunks) == pytest.approx((0.2, 100, 10))
    assert row(chunks)["ttft_answer_s"] == pytest.approx(0.2)
    assert chunk_timestamps(chunks).kinds.count("t") == 3


def test_a_tool_call_that_comes_whole_is_one_piece() -> None:
    """As Ollama sends them."""
    called = {
        "message": {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        "done": False,
    }
    last = {"done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 3}
    lines = [(at, json.dumps(line).encode() + b"\n") for at, line in ((0.2, called), (0.3, last))]
    chunks = fed(ollama.ChunkDecoder(), lines)
    assert measure(chunks, Usage(5, 3)).ttft_s == pytest.approx(0.2)
    assert chunk_timestamps(chunks).kinds == "te"


def test_two_whole_calls_are_two_pieces() -> None:
    """Where none came in pieces, each is one."""
    chunks = [
        StreamChunk(elapsed_s=at, tool_calls=(ToolCall("a", "f", "{}"),)) for at in (0.2, 0.4)
    ]
    assert chunk_timestamps(chunks).kinds == "tt"
    assert measure(chunks, Usage(1, 3)).itl_ms == pytest.approx(100)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}, Usage(5, 9, None, None, 4)),
        ({"prompt_tokens": 5, "completion_tokens": 9, "output_tokens_details": {"reasoning_tokens": 4}}, Usage(5, 9, None, None, 4)),
        ({"prompt_tokens": 5, "completion_tokens": 9, "reasoning_tokens": 4}, Usage(5, 9, None, None, 4)),
        ({"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": None}, Usage(5, 9)),
        ({"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": "4"}}, Usage(5, 9)),
        ({"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 18, "completion_tokens_details": {"reasoning_tokens": 4}}, Usage(5, 13, None, None, 4)),
    ],
    ids=["OpenAI", "as in Responses", "beside", "null", "no number", "xAI, which counts them apart"],
)  # fmt: skip
def test_thinking_is_counted_wherever_a_service_says_it(
    usage: dict[str, Any], expected: Usage
) -> None:
    """In details of either name, or beside the other counts."""
    (chunk,) = fed(openai_chat.ChunkDecoder(), sse({**delta("stop", content="a"), "usage": usage}))
    assert chunk.usage == expected


def test_thinking_of_responses_and_messages_is_counted() -> None:
    """Of Responses in their details; of Messages where a server has them."""
    details = {"output_tokens_details": {"reasoning_tokens": 4}}
    usage = {"input_tokens": 5, "output_tokens": 9, **details}
    assert openai_responses.parse_usage(usage) == Usage(5, 9, None, None, 4)
    assert anthropic_answers.parse_usage(usage) == Usage(5, 9, 0, None, 4)
    assert unstreamed_tokens(visible(), openai_responses.parse_usage(usage)) == 4
