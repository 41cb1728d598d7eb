"""Whether an answer is complete: one decision, over every word that services are known to say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.types import ModelResponse
from llm_magics.wire import anthropic_answers, ollama, openai_chat, openai_responses
from llm_magics.wire.finish_reasons import Outcome, classify_outcome, has_limit, is_cut, is_refusal
from tests.support.recorded import needs_recordings
from tests.support.wire_answers import good, holds_error

COMPLETE = (
    "stop STOP eos eos_token stop_sequence STOP_SEQUENCE end_turn tool_use tool_calls tool-calls "
    "function_call eosFound stopStringFound toolCalls COMPLETE completed FinishReason.STOP"
)
CUT = (
    "length max_tokens MAX_TOKENS max_output_tokens model_context_window_exceeded model_length "
    "maxPredictedTokensReached contextLengthReached token_limit pause_turn"
)
REFUSED = (
    "content_filter content-filter refusal safety SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT "
    "SPII IMAGE_SAFETY guardrail_intervened content_filtered ERROR_TOXIC sensitive"
)
FAILED = (
    "error ERROR failed abort cancelled userStopped modelUnloaded network_error OTHER "
    "MALFORMED_FUNCTION_CALL insufficient_system_resource incomplete a_word_of_tomorrow"
)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        *((word, Outcome.OK) for word in COMPLETE.split()),
        *((word, Outcome.CUT) for word in CUT.split()),
        *((word, Outcome.REFUSED) for word in REFUSED.split()),
        *((word, Outcome.FAILED) for word in FAILED.split()),
        *((word, Outcome.OK) for word in (None, "", "null", "FINISH_REASON_UNSPECIFIED")),
    ],
)
def test_each_known_reason_has_its_outcome(reason: str | None, expected: Outcome) -> None:
    """With text, the reason alone decides."""
    assert classify_outcome(reason, has_text=True) is expected
    assert is_cut(reason) is (expected is Outcome.CUT)
    assert is_refusal(reason) is (expected is Outcome.REFUSED)


@pytest.mark.parametrize("reason", [None, "stop", "eos", "end_turn", "length", "load", "unload"])
def test_without_text_and_calls_an_answer_is_empty(reason: str | None) -> None:
    """Tool calls are an answer; thinking alone is not."""
    assert classify_outcome(reason, has_text=False) is Outcome.EMPTY
    if reason not in ("load", "unload"):
        called = classify_outcome(reason, has_text=False, has_tool_calls=True)
        assert called is (Outcome.CUT if reason == "length" else Outcome.OK)


@given(st.text(min_size=1), st.booleans())
def test_no_other_reason_is_complete(reason: str, has_text: bool) -> None:
    """A word that is not known never makes a good answer."""
    known = {
        word.rpartition(".")[2].casefold() for word in f"{COMPLETE} done normal toolcall".split()
    }
    known |= {"tool_call"}
    plain = "".join(filter(str.isalnum, reason.rpartition(".")[2])).casefold()
    is_known = plain in {"".join(filter(str.isalnum, word)) for word in known}
    is_none = plain in {"", "null", "none", "unspecified", "finishreasonunspecified"}
    outcome = classify_outcome(reason, has_text=has_text)
    assert (outcome is Outcome.OK) == (has_text and (is_known or is_none))


@pytest.mark.parametrize(
    ("max_tokens", "extra", "expected"),
    [
        (None, {}, False),
        (8, {}, True),
        (None, {"max_completion_tokens": 8}, True),
        (None, {"max_output_tokens": 8}, True),
        (None, {"max_new_tokens": 8}, True),
        (None, {"num_predict": 8}, True),
        (None, {"options": {"num_predict": 8}}, True),
        (None, {"options": {"num_predict": -1}}, False),
        (None, {"options": {"num_ctx": 8}}, False),
        (None, {"generationConfig": {"maxOutputTokens": 8}}, True),
        (None, {"max_completion_tokens": None, "top_k": 8}, False),
    ],
)
def test_a_limit_may_have_any_of_its_names(
    max_tokens: int | None, extra: dict[str, object], expected: bool
) -> None:
    """What the user limited is known, so that a cut there is no surprise."""
    assert has_limit(max_tokens, extra) is expected


# The recorded calls of Ollama that end without an answer: thoughts alone, or nothing at all.
EMPTY = {
    *("chat load", "chat unload", "generate load", "generate unload", "chat context overflow"),
    *("think stream", "think whole", "think unset", "think level", "think cut"),
    *("v1 think stream", "v1 tools stream", "v1 messages thinking"),
}
BROKEN = {"chat abandoned", "chat runner killed"}

OLLAMA = ("ollama_server", "ollama_server_0.30")
RECORDED: list[tuple[Any, tuple[str, ...], str]] = [
    (openai_chat, ("openai_chat", "openai_completions"), ""),
    (openai_chat, OLLAMA, "/v1/chat"),
    (openai_chat, OLLAMA, "/v1/completions"),
    (openai_responses, ("openai_responses",), ""),
    (openai_responses, OLLAMA, "/v1/responses"),
    (anthropic_answers, ("anthropic_messages",), ""),
    (anthropic_answers, OLLAMA, "/v1/messages"),
    (ollama, ("ollama",), ""),
    (ollama, OLLAMA, "/api/chat"),
    (ollama, OLLAMA, "/api/generate"),
]


def answer(codec: Any, record: dict[str, Any]) -> ModelResponse:
    """What a codec makes of a recorded answer that comes in one piece."""
    decoder = codec.ChunkDecoder()
    if record["kind"] == "json":
        return ModelResponse.of(decoder.decode_body(json.loads(record["body"]), 1.0))
    chunks = [*decoder.feed(record["body"].encode(), 1.0), *decoder.flush(1.0)]
    assert decoder.finished
    return ModelResponse.of(chunks)


@needs_recordings
@pytest.mark.parametrize(("codec", "names", "endpoint"), RECORDED)
def test_every_recorded_answer_is_judged_rightly(
    codec: Any, names: tuple[str, ...], endpoint: str
) -> None:
    """Each regular answer is complete or cut; the others are those that a reader would name."""
    found = [
        record for record in good(*names, endpoint=endpoint) if record.get("name") not in BROKEN
    ]
    assert found
    for record in found:
        if codec is openai_chat and holds_error(record):
            continue
        told = answer(codec, record)
        outcome = classify_outcome(
            told.finish_reason, has_text=bool(told.text), has_tool_calls=bool(told.tool_calls)
        )
        expected = {Outcome.OK, Outcome.CUT}
        if record.get("name") in EMPTY:
            expected.add(Outcome.EMPTY)
        elif '"finish_reason":"content_filter"' in record["body"]:
            expected = {Outcome.REFUSED}
        elif "tool_search" in record.get("path", ""):  # nothing but a call of the service's own
            expected.add(Outcome.EMPTY)
        elif '"status": "queued"' in record["body"]:  # a response that had not begun
            expected = {Outcome.FAILED}
        assert outcome in expected, (record.get("name"), record.get("path"), told.finish_reason)


@pytest.mark.parametrize(
    ("limit", "written", "reason"),
    [
        (30, 30, "length"),
        (30, 29, "stop"),
        (None, 30, "stop"),
        ("30", 30, "stop"),
        (30, None, "stop"),
    ],
)
def test_a_response_as_long_as_it_may_be_was_cut(
    limit: object, written: object, reason: str
) -> None:
    """Ollama 0.30 calls it completed all the same."""
    usage = {"usage": {"output_tokens": written}, "max_output_tokens": limit}
    assert (
        openai_responses.parse_finish_reason({"status": "completed", "output": [], **usage})
        == reason
    )
