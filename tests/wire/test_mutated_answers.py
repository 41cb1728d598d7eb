"""
Answers of a hostile or broken service: thousands of them, mutated from good ones, to every call.

Whatever comes, a call ends with a value of the promised types or with an `LLMError`.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import httpx
import pytest

from llm_magics import ChatMessage, ModelParameters, ModelResponse
from llm_magics.attachments import Transcript
from llm_magics.errors import LLMError, ProviderError, StreamInterrupted
from llm_magics.host import Progress
from llm_magics.http import client
from llm_magics.providers import create_provider, lmstudio
from llm_magics.providers.base import ModelInfo
from llm_magics.types import EngineTimings, PackedVectors, StreamChunk, ToolCall, Usage
from tests.support.examples import examples
from tests.support.fake_searchers import (
    SearchingClaude,
    SearchingGemini,
    SearchingResponses,
    SearchingRouter,
)
from tests.support.recorded import records
from tests.support.serving import Asked, Says

SSE, JSON, NDJSON, TEXT = (
    "text/event-stream",
    "application/json",
    "application/x-ndjson",
    "text/plain",
)

HI = [ChatMessage("user", "hi")]
WHOLE, STREAM = ModelParameters(), ModelParameters(stream=True)
WAV = b"RIFF\x24\0\0\0WAVEfmt "


class Seed(NamedTuple):
    """A good answer, as the service sends it."""

    content_type: str
    body: bytes
    status: int = 200


def as_json(body: Any, status: int = 200) -> Seed:
    """A whole JSON body."""
    return Seed(JSON, json.dumps(body).encode(), status)


def as_events(*events: Any) -> Seed:
    """A stream of server-sent events: of objects, or of texts as they are."""
    lines = (each if isinstance(each, str) else f"data: {json.dumps(each)}" for each in events)
    return Seed(SSE, "".join(f"{line}\n\n" for line in lines).encode())


def as_lines(*events: Any) -> Seed:
    """A stream of JSON lines."""
    return Seed(NDJSON, "".join(f"{json.dumps(each)}\n" for each in events).encode())


def searched(*services: Callable[[Asked], Says]) -> list[Seed]:
    """Answers of services that have searched the web."""
    body: dict[str, Any] = {"model": "m", "messages": [], "tools": [{"type": "function"}]}
    says = [each(Asked("POST", "/responses", {}, json.dumps(body).encode())) for each in services]
    return [Seed(each.content_type, b"".join(each.pieces), each.status) for each in says]


def named(event: dict[str, Any]) -> str:
    """An event with its type as its name."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}"


def delta(finish: str | None = None, **parts: Any) -> dict[str, Any]:
    """A piece of a chat completion."""
    return {
        "id": "c1",
        "model": "m",
        "choices": [{"index": 0, "delta": parts, "finish_reason": finish}],
    }


USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 4,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
TIMINGS = {"prompt_ms": 4.5, "predicted_ms": 9.5}
CALL = {
    "index": 0,
    "id": "call_1",
    "type": "function",
    "function": {"name": "f", "arguments": '{"a": 1}'},
}
REFUSED = [
    as_json(
        {
            "error": {
                "message": "no such model",
                "type": "invalid_request_error",
                "code": "model_not_found",
                "param": "model",
            }
        },
        404,
    ),
    as_json({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, 429),
    as_json(
        {"error": {"message": "context length 10 of 5", "code": "context_length_exceeded"}}, 400
    ),
    as_json({"error": "model 'm' not found"}, 404),
    as_json([{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}], 503),
    as_json(
        {
            "type": "error",
            "error": {"type": "overloaded_error", "message": "busy"},
            "request_id": "r1",
        },
        529,
    ),
    as_json({"detail": [{"loc": ["body", "model"], "msg": "field required"}]}, 422),
    Seed("text/html", b"<html><body>Bad gateway</body></html>", 502),
]
CHAT = [
    as_events(
        delta(role="assistant", content=""),
        delta(content="Hel"),
        delta(content="lo"),
        delta("stop"),
        {"choices": [], "usage": USAGE, "timings": TIMINGS},
        "data: [DONE]",
    ),
    as_events(
        delta(reasoning_content="hm", content=None),
        delta(tool_calls=[CALL]),
        delta("tool_calls"),
        "data: [DONE]",
    ),
    as_events(
        delta(
            content=[
                {"type": "thinking", "thinking": [{"type": "text", "text": "a"}]},
                {"type": "text", "text": "b"},
            ]
        ),
        delta("stop", reasoning_details=[{"type": "reasoning.text", "text": "x", "summary": "y"}]),
        "data: [DONE]",
    ),
    as_json(
        {
            "id": "c",
            "choices": [
                {
                    "index": 0,
                    "message": {"content": "hi", "tool_calls": [CALL], "refusal": None},
                    "finish_reason": "stop",
                }
            ],
            "usage": USAGE,
            "stats": {"time_to_first_token": 0.1, "generation_time": 0.2},
        }
    ),
    as_events(delta(content="a"), {"error": {"code": 502, "message": "broke"}}),
    as_events(
        {
            "id": "c",
            "choices": [
                {
                    "index": 0,
                    "delta": {},
                    "finish_reason": "error",
                    "error": {"code": 504, "message": "m"},
                }
            ],
        },
        "data: [DONE]",
    ),
]
COMPLETION = [
    as_events(
        {"choices": [{"index": 0, "text": "a"}]},
        {"choices": [{"index": 0, "text": "b", "finish_reason": "stop"}], "usage": USAGE},
        "data: [DONE]",
    ),
    as_json({"choices": [{"index": 0, "text": "hi", "finish_reason": "length"}], "usage": USAGE}),
]
MODELS = [
    as_json(
        {
            "object": "list",
            "data": [
                {
                    "id": "m",
                    "object": "model",
                    "context_length": 8,
                    "max_model_len": 9,
                    "owned_by": "x",
                    "supported_parameters": ["tools"],
                    "architecture": {"input_modalities": ["text", "image"]},
                    "pricing": {"prompt": "0.000001", "completion": "0.000002"},
                    "capabilities": {"completion_chat": True},
                    "top_provider": {"max_completion_tokens": 5},
                },
                {
                    "id": "n",
                    "type": "embedding",
                    "meta": {"n_ctx_train": 512, "size": 5},
                    "status": {"value": "loaded"},
                },
            ],
        }
    ),
    as_json(
        [{"id": "m", "type": "chat", "context_length": 8, "pricing": {"input": 1, "output": 2}}]
    ),
]
VECTORS = [
    as_json(
        {
            "data": [{"index": 0, "embedding": [0.1, 0.2]}, {"index": 1, "embedding": [0.3, 0.4]}],
            "usage": {"prompt_tokens": 4},
        }
    ),
    as_json(
        {
            "data": [
                {"index": 0, "embedding": "AACAPwAAAEA="},
                {"index": 1, "embedding": "AACAPwAAAEA="},
            ],
            "usage": {"prompt_tokens": 4},
        }
    ),
]
RESPONSE = {
    "id": "r",
    "status": "completed",
    "output": [
        {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "t"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "hi"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ],
    "usage": {"input_tokens": 3, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 1}},
}
RESPONSES = [
    as_events(
        *map(
            named,
            [
                {"type": "response.created", "response": {"id": "r"}},
                {"type": "response.reasoning_summary_text.delta", "delta": "hm"},
                {"type": "response.output_text.delta", "delta": "hi"},
                {"type": "response.output_item.done", "item": RESPONSE["output"][2]},
                {"type": "response.output_item.done", "item": RESPONSE["output"][0]},
                {"type": "response.completed", "response": RESPONSE},
            ],
        )
    ),
    as_json(RESPONSE),
    as_events(
        named(
            {
                "type": "response.incomplete",
                "response": {
                    "status": "incomplete",
                    "incomplete_details": {"reason": "max_output_tokens"},
                    "output": [],
                },
            }
        )
    ),
    as_events(named({"type": "error", "error": {"code": "server_error", "message": "m"}})),
]
MESSAGE = [
    as_events(
        *map(
            named,
            [
                {
                    "type": "message_start",
                    "message": {
                        "id": "m",
                        "usage": {
                            "input_tokens": 3,
                            "cache_read_input_tokens": 1,
                            "cache_creation_input_tokens": 2,
                        },
                    },
                },
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "thinking", "thinking": ""},
                },
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "thinking_delta", "thinking": "hm"},
                },
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "signature_delta", "signature": "s"},
                },
                {"type": "content_block_stop", "index": 0},
                {
                    "type": "content_block_start",
                    "index": 1,
                    "content_block": {"type": "text", "text": ""},
                },
                {
                    "type": "content_block_delta",
                    "index": 1,
                    "delta": {"type": "text_delta", "text": "hi"},
                },
                {"type": "content_block_stop", "index": 1},
                {
                    "type": "content_block_start",
                    "index": 2,
                    "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
                },
                {
                    "type": "content_block_delta",
                    "index": 2,
                    "delta": {"type": "input_json_delta", "partial_json": "{}"},
                },
                {"type": "content_block_stop", "index": 2},
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "end_turn"},
                    "usage": {"output_tokens": 4},
                },
                {"type": "message_stop"},
            ],
        )
    ),
    as_json(
        {
            "id": "m",
            "type": "message",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "hi"},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            ],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 3, "output_tokens": 4},
        }
    ),
    as_events(named({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})),
]
OLLAMA_END = {
    "model": "m",
    "done": True,
    "done_reason": "stop",
    "total_duration": 5,
    "load_duration": 1,
    "prompt_eval_count": 3,
    "prompt_eval_duration": 2,
    "eval_count": 4,
    "eval_duration": 2,
}
PULL = as_lines(
    {"status": "pulling manifest"},
    {"status": "pulling abc", "digest": "sha256:abc", "total": 10},
    {"status": "pulling abc", "digest": "sha256:abc", "total": 10, "completed": 5},
    {"status": "success"},
)
TAG = {
    "name": "m:latest",
    "model": "m:latest",
    "size": 5,
    "digest": "d",
    "capabilities": ["completion", "tools"],
    "details": {"family": "llama", "context_length": 8},
}
SHOW = as_json(
    {
        "capabilities": ["completion", "vision", "embedding"],
        "details": {"family": "bert"},
        "model_info": {"general.architecture": "llama", "llama.context_length": 2048},
        "parameters": "num_ctx 2048",
        "template": "{{ .Prompt }}",
    }
)
OLLAMA = {
    "/api/chat": [
        as_lines(
            {
                "model": "m",
                "message": {"role": "assistant", "content": "hi", "thinking": "hm"},
                "done": False,
            },
            {
                "message": {
                    "content": "",
                    "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
                },
                "done": False,
            },
            {"message": {"content": ""}, **OLLAMA_END},
        ),
        as_json({"message": {"role": "assistant", "content": "hi"}, **OLLAMA_END}),
        as_lines({"message": {"content": "a"}, "done": False}, {"error": "broke"}),
        as_lines({"error": '{"error":{"code":500,"message":"broke","type":"server_error"}}'}),
    ],
    "/api/generate": [as_lines({"response": "hi", "done": False}, {"response": "", **OLLAMA_END})],
    "/api/embed": [
        as_json({"model": "m", "embeddings": [[0.1, 0.2], [0.3, 0.4]], "prompt_eval_count": 4})
    ],
    "/api/tags": [as_json({"models": [TAG]})],
    "/api/ps": [
        as_json(
            {
                "models": [
                    {
                        **TAG,
                        "context_length": 8,
                        "expires_at": "2026-01-01T00:00:00Z",
                        "size_vram": 1,
                    }
                ]
            }
        )
    ],
    "/api/show": [SHOW],
    "/api/version": [as_json({"version": "0.30.0"})],
    "/api/pull": [PULL],
    "/api/delete": [Seed(TEXT, b"")],
}
LMSTUDIO = {
    "/chat/completions": CHAT,
    "/completions": COMPLETION,
    "/embeddings": VECTORS,
    "/models/load": [
        as_json({"type": "llm", "instance_id": "m", "load_time_seconds": 1.5, "status": "loaded"})
    ],
    "/models/unload": [as_json({"instance_id": "m"})],
    "/models/download": [
        as_json(
            {"job_id": "j", "status": "downloading", "total_size_bytes": 10, "downloaded_bytes": 5}
        ),
        as_json({"status": "already_downloaded"}),
    ],
    "/download/status/": [
        as_json(
            {"job_id": "j", "status": "completed", "total_size_bytes": 10, "downloaded_bytes": 10}
        )
    ],
    "/api/v1/models": [
        as_json(
            {
                "models": [
                    {
                        "key": "m",
                        "type": "llm",
                        "max_context_length": 8,
                        "size_bytes": 5,
                        "capabilities": {
                            "vision": True,
                            "trained_for_tool_use": True,
                            "reasoning": {"allowed_options": ["on"]},
                        },
                        "loaded_instances": [{"id": "m", "config": {"context_length": 4}}],
                    }
                ]
            }
        ),
        as_json({"error": "Unexpected endpoint"}),
    ],
    "/api/v0/models": [
        as_json(
            {
                "data": [
                    {
                        "id": "m",
                        "type": "vlm",
                        "max_context_length": 8,
                        "loaded_context_length": 4,
                        "state": "loaded",
                        "capabilities": ["tool_use"],
                    }
                ]
            }
        )
    ],
    "/v1/models": MODELS,
}
HUGGINGFACE = {
    "/chat/completions": CHAT,
    "/models": [as_json({"data": [{"id": "o/m", "architecture": {"input_modalities": ["text", "image"]}, "providers": [{"provider": "p", "status": "live", "context_length": 8, "supports_tools": True, "supports_structured_output": True, "pricing": {"input": 1, "output": 2}}]}]})],
    "/feature-extraction": [as_json([[0.1, 0.2], [0.3, 0.4]]), as_json([[[0.1, 0.2], [0.2, 0.3]], [[0.1, 0.2]]])],
}  # fmt: skip
OPENAI = {
    "/chat/completions": [
        *CHAT,
        *searched(
            SearchingRouter(),
            SearchingRouter(streams=False, lists={"citations": ["https://a.example", 3]}),
        ),
    ],
    "/completions": COMPLETION,
    "/responses": [*RESPONSES, *searched(SearchingResponses(), SearchingResponses(streams=False))],
    "/embeddings": VECTORS,
    "/models": MODELS,
    "/images/generations": [
        as_json({"data": [{"b64_json": "aGk="}, {"url": "https://pictures.test/a.png"}]})
    ],
    "/a.png": [Seed("image/png", b"\x89PNG")],
    "/audio/transcriptions": [
        as_json(
            {
                "text": "hello",
                "language": "en",
                "duration": 1.5,
                "segments": [{"start": 0.0, "text": "hello"}],
            }
        ),
        Seed(TEXT, b"hello\n"),
    ],
}
ANTHROPIC = {
    "/messages/count_tokens": [as_json({"input_tokens": 5})],
    "/messages": [*MESSAGE, *searched(SearchingClaude(), SearchingClaude(streams=False))],
    "/models": [
        as_json(
            {
                "data": [
                    {
                        "id": "m",
                        "display_name": "M",
                        "type": "model",
                        "created_at": "2026-01-01T00:00:00Z",
                        "max_input_tokens": 5,
                        "max_tokens": 3,
                    }
                ],
                "has_more": False,
                "first_id": "m",
                "last_id": "m",
            }
        )
    ],
}


def _gemini(*parts: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    """One event of Gemini's, or a whole answer."""
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if reason is not None:
        candidate |= {"finishReason": reason}
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 1, "totalTokenCount": 8, "serviceTier": "standard"}  # fmt: skip
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"}


_CALLED = {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}, "thoughtSignature": "aGk="}
GEMINI = {
    ":countTokens": [as_json({"totalTokens": 5})],
    ":batchEmbedContents": [as_json({"embeddings": [{"values": [0.5, -0.5]}] * 2, "usageMetadata": {"promptTokenCount": 2}})],
    ":streamGenerateContent": [
        as_events(_gemini({"text": "hm", "thought": True}), _gemini({"text": "hi"}), _gemini({"text": "", "thoughtSignature": "aGk="}, reason="STOP")),
        as_events(_gemini({"text": "I ask"}, _CALLED), _gemini({"functionCall": {"name": "f"}}, reason="STOP")),
        as_json(_gemini({"text": "hi"}, _CALLED, reason="MAX_TOKENS")),
        *searched(SearchingGemini(), SearchingGemini(streams=False, in_part=1)),
        as_events({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 5}}),
        as_json([{"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED", "details": [{"@type": "x", "retryDelay": "7s"}, {"violations": [{"quotaId": "PerDay"}]}, {"reason": "API_KEY_INVALID"}]}}], 429),
    ],
    "/models": [as_json({"models": [{"name": "models/m", "inputTokenLimit": 5, "outputTokenLimit": 3, "supportedGenerationMethods": ["generateContent", "embedContent"], "thinking": True}]})],
}  # fmt: skip


# The values that stand where others should.
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**63, 2**70, -(2**70), 10**400, math.nan, math.inf, -math.inf, "", "\ud800",
    "a\udfff\0b", "x" * 5000, "1e999", "NaN", [], [None], [[]], {}, {"": {}}, {"error": {}}, {"a": [1, {"b": None}]},
    "\u202e\x1b]52;c;aGk=\x07", [1] * 50, "data: [DONE]\n\n",
]  # fmt: skip
WHOLE_BODIES = [
    b"", b"\n", b"null", b"[]", b"{}", b"5", b"true", b'"text"', b"NaN", b"-Infinity", b"1e999", b"[" * 100_000,
    b'{"a":' * 50_000, b"[" * 950 + b"]" * 950, b'{"error":' * 450 + b"1" + b"}" * 450, b"\xff\xfe\0", b"\0" * 100, b"\xef\xbb\xbf{}", b"data: " + b"[" * 100_000 + b"\n\n",
    b"data: {\n\n", b"data: null\n\ndata: [DONE]\n\n", b"data: 5\n\n", b"event: error\ndata: x\n\n", b"data:\n\n" * 50,
    b'{"error": null}', b'{"error": []}', b'{"error": {"message": 5, "code": {}, "type": []}}', b'{"detail": 5}', b"[[[[5]]]]",
]  # fmt: skip


def mutated_value(value: Any, draw: random.Random) -> Any:  # noqa: PLR0911 (a table)
    """``value`` with one thing in it, at any depth, replaced, left out, doubled or renamed."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        kind = draw.random()
        if kind < 0.1:
            return {name: each for name, each in value.items() if name != key}
        if kind < 0.15:
            return {
                **value,
                draw.choice(["error", "type", "index", "id", "done", "\ud800"]): draw.choice(
                    HOSTILE
                ),
            }
        return {**value, key: mutated_value(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        place = draw.randrange(len(value))
        kind = draw.random()
        if kind < 0.1:
            return [*value, *value]
        if kind < 0.2:
            return value[:place]
        return [*value[:place], mutated_value(value[place], draw), *value[place + 1 :]]
    return draw.choice(HOSTILE)


def mutated_json(data: bytes, draw: random.Random) -> bytes:
    """A JSON text with a value in it mutated."""
    try:
        value = json.loads(data)
    except ValueError:
        return mutated_bytes(data, draw)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        value = mutated_value(value, draw)
    return json.dumps(value, ensure_ascii=draw.random() < 0.9).encode("utf-8", "surrogatepass")


def mutated_bytes(data: bytes, draw: random.Random) -> bytes:
    """Bytes cut, doubled, changed or filled with others."""
    place, other = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
    return draw.choice(
        [
            data[:place],
            data[:place] + data[other:],
            data[:other] + data[place:],
            data[:place] + draw.randbytes(4) + data[place:],
            data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
            if place < len(data)
            else data,
            data.replace(b"\n", b"\r"),
            data.replace(b"\n\n", b"\n"),
        ]
    )


def mutated(seed: Seed, draw: random.Random) -> Seed:
    """An answer that is no longer good, most of the time."""
    content_type, body, status = seed
    kind = draw.random()
    if kind < 0.05:
        return seed
    if kind < 0.1:
        body = draw.choice(WHOLE_BODIES)
    elif kind < 0.25:
        body = mutated_bytes(body, draw)
    elif content_type in {SSE, NDJSON}:
        end = b"\n\n" if content_type == SSE else b"\n"
        events = body.removesuffix(end).split(end)
        place = draw.randrange(len(events))
        head, mark, data = events[place].rpartition(b"data: ")
        events[place] = head + mark + mutated_json(data, draw)
        if draw.random() < 0.1:
            events.insert(draw.randrange(len(events)), draw.choice(events))
        body = end.join(events) + end
    else:
        body = mutated_json(body, draw)
    if draw.random() < 0.05:
        content_type = draw.choice(
            [SSE, JSON, NDJSON, TEXT, "text/html", "", "application/json; charset=utf-16"]
        )
    if draw.random() < 0.05:
        status = draw.choice([200, 201, 204, 302, 400, 401, 404, 429, 500, 503])
    return Seed(content_type, body, status)


HEADERS = [
    "retry-after",
    "retry-after-ms",
    "x-request-id",
    "request-id",
    "location",
    "x-should-retry",
]
ODD_HEADERS = [
    "",
    "-1",
    "1e999",
    "nan",
    "Wed, 99 Oct 9999 07:28:00 GMT",
    "Fri, 31 Dec 99999 23:59:59 GMT",
    "9" * 400,
    "x" * 9000,
    "é",
]


class Service:
    """Answers each path with a mutated answer to it."""

    def __init__(self, answers: Mapping[str, list[Seed]]) -> None:
        self.answers = answers
        self.draw = random.Random(0)
        self.sent: list[tuple[str, Seed]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        seeds = next((found for end, found in self.answers.items() if end in path), REFUSED)
        if self.draw.random() < 0.1:
            seeds = REFUSED
        seed = mutated(self.draw.choice(seeds), self.draw)
        self.sent.append((path, seed))
        headers = {"content-type": seed.content_type.encode()}
        if self.draw.random() < 0.2:
            headers[self.draw.choice(HEADERS)] = self.draw.choice(ODD_HEADERS).encode()
        return httpx.Response(seed.status, headers=headers, stream=_Pieces(seed.body, self.draw))


class _Pieces(httpx.AsyncByteStream):
    """A body, cut anywhere."""

    def __init__(self, body: bytes, draw: random.Random) -> None:
        size = draw.choice([len(body) or 1, 1000, 7]) if len(body) < 5000 else 65536
        self.pieces = [body[at : at + size] for at in range(0, len(body), size)]

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        for piece in self.pieces:
            yield piece


def is_text(value: Any) -> bool:
    """A text that can be written down."""
    return isinstance(value, str) and value.encode() is not None


def is_number(value: Any) -> bool:
    """A number that a machine can hold."""
    return type(value) in (int, float) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """A number of things, or nothing."""
    return value is None or (type(value) is int and 0 <= value < 2**63)


def check(value: Any) -> None:  # noqa: C901, PLR0912 (a table)
    """Fail if a result, or any part of it, is not of the type that is promised."""
    if isinstance(value, ModelResponse | StreamChunk):
        assert is_text(value.text), value
        assert is_text(value.reasoning), value
        assert value.finish_reason is None or is_text(value.finish_reason), value
        assert value.usage is None or isinstance(value.usage, Usage)
        for name in {*Usage.__slots__} - {"service_tier"} if value.usage else ():
            assert is_count(getattr(value.usage, name)), value
        tier = value.usage.service_tier if value.usage else None
        assert tier is None or is_text(tier), value
        assert value.timings is None or isinstance(value.timings, EngineTimings)
        for name in EngineTimings.__slots__ if value.timings else ():
            assert getattr(value.timings, name) is None or is_number(getattr(value.timings, name))
        assert all(isinstance(each, ToolCall) for each in value.tool_calls)
        for call in value.tool_calls:
            assert is_text(call.id), call
            assert is_text(call.name), call
            assert is_text(call.arguments_text), call
        assert all(isinstance(each, Mapping) for each in value.reasoning_blocks), value
        for cited in value.citations:
            assert all(map(is_text, (cited.title, cited.url, cited.cited_text))), cited
            assert all(map(is_count, (cited.number, cited.start, cited.end, cited.document)))
        assert all(is_text(each.query) and is_text(each.error) for each in value.searches)
    elif isinstance(value, ModelInfo):
        assert is_text(value.name)
        assert value.name
        assert all(is_text(each) for each in value.capabilities), value
        assert is_count(value.context), value
        assert is_count(value.size_bytes), value
        for price in (value.input_usd, value.output_usd, value.cached_usd, value.written_usd):
            assert price is None or (is_number(price) and price >= 0), value
    elif isinstance(value, PackedVectors):
        assert len(value.data) == 2 * 4 * value.dimensions
        assert value.dimensions or not value.data
    elif isinstance(value, Progress):
        assert is_text(value.task)
        assert is_text(str(value))
        assert is_count(value.done), value
        assert is_count(value.total), value
        assert value.fraction is None or 0 <= value.fraction <= 1
    elif isinstance(value, str):
        assert is_text(value), value
        check(value.data) if isinstance(value, Transcript) else None
    elif isinstance(value, list | tuple):
        for each in value:
            check(each)
    elif isinstance(value, dict):
        assert all(is_text(key) for key in value)


def check_error(error: LLMError) -> None:
    """Fail if an error cannot be shown, or a part of it is not of its type."""
    assert is_text(str(error)), error
    assert len(str(error)) < 5000
    assert error.hint is None or is_text(error.hint)
    assert "".join(error._render_traceback_()).encode() is not None
    if isinstance(error, ProviderError):
        assert error.retry_after is None or (
            is_number(error.retry_after) and error.retry_after >= 0
        )
        assert error.code is None or isinstance(error.code, int) or is_text(error.code), error.code
        assert error.request_id is None or is_text(error.request_id)
        assert error.model is None or is_text(error.model)
        assert isinstance(error.retryable, bool)
    if isinstance(error, StreamInterrupted):
        check(error.partial)


def check_vectors(vectors: Any) -> None:
    """Two vectors of numbers for two texts; whether they can be used is seen further up."""
    assert len(vectors) == 2
    for vector in vectors:
        assert isinstance(vector, list)
        assert all(type(each) in (int, float) for each in vector), vector


Operation = Callable[[Any], Awaitable[Any]]


async def listed(made: AsyncGenerator[Any, None], most: int = 20) -> list[Any]:
    """The first of what is made."""
    found = []
    async for each in made:
        found.append(each)
        if len(found) == most:
            break
    await made.aclose()
    return found


def streamed(kind: str) -> Operation:
    """Asks for an answer as it comes."""

    async def ask(provider: Any) -> Any:
        asked = HI if kind == "generate_chat" else "hi"
        return await listed(await getattr(provider, kind)(asked, "m", STREAM), 1000)

    return ask


async def vectors(provider: Any) -> Any:
    """Asks for two vectors."""
    found = await provider.generate_embeddings(["a", "b"], "m")
    check_vectors(found)
    return None


COMMON: dict[str, Operation] = {
    "chat": lambda provider: provider.generate_chat(HI, "m", WHOLE),
    "stream": streamed("generate_chat"),
    "list": lambda provider: provider.list_models(),
    "describe": lambda provider: provider.describe_models(),
    "health": lambda provider: provider.health_check(),
}
COMPLETE: dict[str, Operation] = {
    "completion": lambda provider: provider.generate_completion("hi", "m", WHOLE),
    "stream completion": streamed("generate_completion"),
}
EMBED: dict[str, Operation] = {
    "embed": vectors,
    "packed": lambda provider: provider.generate_packed(["a", "b"], "m"),
    "shortened": lambda provider: provider.generate_shortened(["a", "b"], "m", 2),
}
MEDIA: dict[str, Operation] = {
    "image": lambda provider: provider.generate_image("a whale", "m"),
    "transcribe": lambda provider: provider.transcribe(WAV, "m"),
    "transcribe at length": lambda provider: provider.transcribe(WAV, "m", format="verbose_json"),
}
OWN_OLLAMA: dict[str, Operation] = {
    "running": lambda provider: provider.running_models(),
    "show": lambda provider: provider.show_model("m"),
    "version": lambda provider: provider.version(),
    "digest": lambda provider: provider.digest("m"),
    "identity": lambda provider: provider.identity("m"),
    "load": lambda provider: provider.load_model("m"),
    "unload": lambda provider: provider.unload_model("m"),
    "delete": lambda provider: provider.delete_model("m"),
    "pull": lambda provider: listed(provider.pull_model("m")),
    "prepare": lambda provider: listed(provider.prepare("m", "chat")),
}
OWN_LMSTUDIO: dict[str, Operation] = {
    "load": lambda provider: provider.load_model("m"),
    "unload": lambda provider: provider.unload_model("m"),
    "pull": lambda provider: listed(provider.pull_model("m")),
    "prepare": lambda provider: listed(provider.prepare("m", "chat")),
}


class Case(NamedTuple):
    """A provider, what its service answers, and what is asked of it."""

    provider: str
    settings: dict[str, Any]
    answers: dict[str, list[Seed]]
    operations: dict[str, Operation]


CASES = {
    "openai": Case("openai", {}, OPENAI, {**COMMON, **COMPLETE, **EMBED, **MEDIA}),
    "responses": Case("openai", {"api": "responses"}, OPENAI, {"chat": COMMON["chat"], "stream": COMMON["stream"]}),
    "base64": Case("openai", {"profile": "azure"}, OPENAI, EMBED),
    "anthropic": Case("anthropic", {}, ANTHROPIC, COMMON),
    "gemini": Case("gemini", {}, GEMINI, {**COMMON, **EMBED}),
    "ollama": Case("ollama", {}, OLLAMA, {**COMMON, **COMPLETE, **EMBED, **OWN_OLLAMA}),
    "lmstudio": Case("lmstudio", {}, LMSTUDIO, {**COMMON, **COMPLETE, **EMBED, **OWN_LMSTUDIO}),
    "huggingface": Case("huggingface", {}, HUGGINGFACE, {**COMMON, **EMBED}),
}  # fmt: skip
RECORDED = {
    "openai": ("openai_chat", "openai_completions", "openai_embeddings", "openai_images"),
    "responses": ("openai_responses",),
    "anthropic": ("anthropic_messages",),
    "ollama": ("ollama", "ollama_server", "ollama_server_0.30"),
}


def with_recorded(name: str, answers: dict[str, list[Seed]]) -> dict[str, list[Seed]]:
    """The answers, and those that real services gave, where they lie beside the checkout."""
    found = {path: list(seeds) for path, seeds in answers.items()}
    types = {"sse": SSE, "json": JSON, "ndjson": NDJSON}
    for record in records(*RECORDED.get(name, ())):
        path = next((end for end in found if str(record["endpoint"]).endswith(end)), None)
        if path and len(record["body"]) < 8000:
            seed = Seed(types.get(record["kind"], TEXT), record["body"].encode(), record["status"])
            found[path].append(seed)
    return found


def bodies_of(case: Case, seed: int, count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Ask ``count`` times, and return how often a value came back."""
    service = Service(case.answers)
    monkeypatch.setattr(client, "_create_transport", lambda url: httpx.MockTransport(service))
    monkeypatch.setattr(lmstudio, "_POLL_S", 0)
    operations = list(case.operations.items())

    async def run() -> int:
        succeeded = 0
        for number in range(count):
            service.draw = draw = random.Random(f"{seed} {number}")
            service.sent.clear()
            name, operation = draw.choice(operations)
            provider = create_provider(
                case.provider,
                base_url="http://127.0.0.1:9",
                api_key="akeyofthetest",
                **case.settings,
            )
            try:
                value = await operation(provider)
                check(value)
                succeeded += 1
            except LLMError as error:
                check_error(error)
            except BaseException as error:
                error.add_note(f"{name}, seed {seed} {number}: {service.sent!r:.3000}")
                raise
            finally:
                await provider.close()
        return succeeded

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of prompts that were cut, and the like
        return asyncio.run(run())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", CASES)
def test_whatever_a_service_answers_ends_well(
    name: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value of the promised types, or an error of ours that can be shown."""
    count = examples(150)
    assert bodies_of(CASES[name], seed, count, monkeypatch) > count // 30


@pytest.mark.parametrize("name", RECORDED)
def test_whatever_becomes_of_recorded_answers_ends_well(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, from answers of real services."""
    case = CASES[name]
    answers = with_recorded(name, case.answers)
    if answers == case.answers:
        pytest.skip("the recorded traffic is not beside the checkout")
    count = examples(300)
    assert bodies_of(case._replace(answers=answers), 9, count, monkeypatch) > count // 30
