"""
Finish reasons: classify whether an answer is complete, for all services and callers.

A service gives the reason for the end of an answer as a word. Only known words for success make an
answer complete; an unknown word is a failure. The words, with their documentation:

| service | words |
|---|---|
| OpenAI chat, completions | stop, length, tool_calls, function_call, content_filter (https://platform.openai.com/docs/api-reference/chat/object) |
| OpenAI Responses | status completed, incomplete (max_output_tokens, content_filter), failed (https://platform.openai.com/docs/api-reference/responses/object) |
| Anthropic | end_turn, stop_sequence, tool_use, max_tokens, pause_turn, refusal, model_context_window_exceeded (https://platform.claude.com/docs/build-with-claude/handling-stop-reasons) |
| Ollama | stop, length; load and unload are sent without an answer (ollama's ``llm/server.go``) |
| Gemini, Vertex | STOP, MAX_TOKENS, CONTINUATION, SAFETY, RECITATION, LANGUAGE, BLOCKLIST, PROHIBITED_CONTENT, SPII, IMAGE_SAFETY, ESCALATION, MODEL_ARMOR, MALFORMED_FUNCTION_CALL, MALFORMED_RESPONSE, UNEXPECTED_TOOL_CALL, OTHER … (https://ai.google.dev/api/generate-content#FinishReason, November 2026) |
| Text Generation Inference | eos_token, stop_sequence, length (its ``router/src/lib.rs``) |
| LM Studio | eosFound, stopStringFound, toolCalls, maxPredictedTokensReached, contextLengthReached, userStopped, modelUnloaded, failed (https://lmstudio.ai/docs/typescript/api-reference/llm-prediction-stop-reason) |
| Together | eos, stop, length, tool_calls, function_call |
| Mistral | stop, length, model_length, error, tool_calls |
| DeepSeek | stop, length, content_filter, tool_calls, insufficient_system_resource |
| Cohere | COMPLETE, STOP_SEQUENCE, TOOL_CALL, MAX_TOKENS, ERROR, ERROR_TOXIC, ERROR_LIMIT |
| Bedrock | end_turn, tool_use, stop_sequence, max_tokens, guardrail_intervened, content_filtered |
| watsonx | stop, eos_token, stop_sequence, max_tokens, token_limit, time_limit, cancelled, error |
| Zhipu | stop, tool_calls, length, sensitive, network_error |
| vLLM, SGLang | stop, length, tool_calls, abort |
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How an answer ended; the values are the names that reports use."""

    OK = "ok"
    CUT = "cut"
    REFUSED = "refused"
    EMPTY = "empty"
    FAILED = "failed"


# Without case and separators, in which services differ: `MAX_TOKENS`, `maxTokens`.
_COMPLETE = frozenset(
    {
        "complete",
        "completed",
        "done",
        "endturn",
        "eos",
        "eosfound",
        "eostoken",
        "functioncall",
        "normal",
        "stop",
        "stopsequence",
        "stopstringfound",
        "toolcall",
        "toolcalls",
        "tooluse",
    }
)
_CUT = frozenset(
    {
        "contextlengthreached",
        "continuation",  # Gemini's limit of one request
        "errorlimit",
        "length",
        "limit",
        "maxcompletiontokens",
        "maxlength",
        "maxnewtokens",
        "maxoutputtokens",
        "maxpredictedtokensreached",
        "maxtokens",
        "modelcontextwindowexceeded",
        "modellength",
        "pauseturn",  # the service expects another request to continue
        "timelimit",
        "tokenlimit",
    }
)
_REFUSED = frozenset(
    {
        "blocklist",
        "contentfilter",
        "contentfiltered",
        "contentpolicyviolation",
        "errortoxic",
        "escalation",
        "guardrail",
        "guardrails",
        "guardrailintervened",
        "imageprohibitedcontent",
        "imagerecitation",
        "imagesafety",
        "language",
        "modelarmor",
        "moderation",
        "prohibitedcontent",
        "recitation",
        "refusal",
        "refused",
        "safety",
        "sensitive",
        "spii",
    }
)
# Temporary failures of the service. Every other unknown word is a permanent failure.
_TRANSIENT = frozenset(
    {
        "abort",
        "aborted",
        "error",
        "failed",
        "insufficientsystemresource",
        "malformedfunctioncall",
        "malformedresponse",
        "modelunloaded",
        "networkerror",
        "servererror",
        "timeout",
        "unexpectedtoolcall",
    }
)
# Used when the service gives no reason.
_NO_REASON = frozenset({"", "finishreasonunspecified", "none", "null", "unspecified"})


def classify_outcome(
    finish_reason: str | None, *, has_text: bool, has_tool_calls: bool = False
) -> Outcome:
    """
    Classify an answer whose stream ended regularly.

    Args:
        finish_reason: the service's word for the end of the answer; ``None`` if it gave no reason.
        has_text: whether there is text other than thinking.
        has_tool_calls: whether there are tool calls.
    """
    reason = _normalize(finish_reason)
    if reason in _REFUSED:
        return Outcome.REFUSED
    has_answer = has_text or has_tool_calls
    if reason in _CUT:
        return Outcome.CUT if has_answer else Outcome.EMPTY
    if reason in _COMPLETE or reason in _NO_REASON:
        return Outcome.OK if has_answer else Outcome.EMPTY
    # Ollama's `load` and `unload` requests have no answer.
    if reason in ("load", "unload") and not has_answer:
        return Outcome.EMPTY
    return Outcome.FAILED


def is_cut(finish_reason: str | None) -> bool:
    """Return whether ``finish_reason`` means that the answer reached a length limit."""
    return _normalize(finish_reason) in _CUT


def is_refusal(finish_reason: str | None) -> bool:
    """Return whether ``finish_reason`` means that the service or the model refused to answer."""
    return _normalize(finish_reason) in _REFUSED


def is_transient(finish_reason: str | None) -> bool:
    """Return whether ``finish_reason`` is a failure that may not happen again."""
    return _normalize(finish_reason) in _TRANSIENT


def _normalize(finish_reason: str | None) -> str:
    """Convert ``FinishReason.MAX_TOKENS``, ``maxTokens`` and ``max-tokens`` to ``maxtokens``."""
    last = str(finish_reason or "").rpartition(".")[2]
    return "".join(filter(str.isalnum, last)).casefold()


# The names that services use for `max_tokens`.
_LIMIT_NAMES = frozenset(
    {
        "maxcompletiontokens",
        "maxlength",
        "maxnewtokens",
        "maxoutputtokens",
        "maxtokens",
        "maxtokenstosample",
        "npredict",
        "numpredict",
    }
)
# The fields in which services nest their parameters.
_NESTED = frozenset({"generationconfig", "inferenceconfig", "options", "parameters"})


def has_limit(max_tokens: int | None, extra_body: Mapping[str, Any]) -> bool:
    """Return whether the user limited the length of the answer, by any parameter name."""
    return max_tokens is not None or _has_limit(extra_body)


def _has_limit(parameters: Mapping[str, Any]) -> bool:
    for name, value in parameters.items():
        plain = _normalize(str(name))
        if plain in _LIMIT_NAMES and isinstance(value, int) and not isinstance(value, bool):
            if value > 0:  # Ollama's -1 and -2 mean no limit
                return True
        elif plain in _NESTED and isinstance(value, Mapping) and _has_limit(value):
            return True
    return False
