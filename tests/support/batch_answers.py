"""
Answers in OpenAI's formats, each a function of its request.

A text repeats the prompt, so that an answer on the wrong row is found.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.support.batch_fakes import Answer, Request
from tests.support.fake_openai import _packed, unit
from tests.support.schema_rules import sample


def answer_to(prompt: str) -> str:
    """The text that answers ``prompt``."""
    return f"answer to: {prompt}"


def prompt_of(body: dict[str, Any]) -> str:
    """The text of the last message."""
    messages = body.get("messages") or body.get("input") or ""
    content = messages if isinstance(messages, str) else messages[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def fitting(schema: dict[str, Any], prompt: str) -> Any:
    """A value that fits ``schema``: texts repeat the prompt, and it decides between the labels."""
    if "enum" in schema:
        number = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4])
        return schema["enum"][number % len(schema["enum"])]
    if "properties" in schema:
        return {name: fitting(each, prompt) for name, each in schema["properties"].items()}
    is_text = schema.get("type") == "string" and not {"format", "pattern"} & schema.keys()
    return answer_to(prompt) if is_text else sample(schema)


def text_of(body: dict[str, Any], schema: dict[str, Any] | None) -> str:
    """The text of the answer to ``body``: JSON if there is a schema."""
    prompt = prompt_of(body)
    return answer_to(prompt) if schema is None else json.dumps(fitting(schema, prompt))


def tokens_in(value: Any) -> int:
    """A number of tokens that depends on the length alone."""
    return len(json.dumps(value)) // 4 + 1


def openai_answer(request: Request) -> Answer:
    """The answer of a service with OpenAI's formats, by the path of the request."""
    kind = request.path.rpartition("/")[2]
    answers = {"completions": _chat, "responses": _response, "embeddings": _embeddings}
    return Answer(answers[kind](request.body))


def _chat(body: dict[str, Any]) -> dict[str, Any]:
    format_ = body.get("response_format") or {}
    schema = (format_.get("json_schema") or {}).get("schema")
    text = text_of(body, {"properties": {}} if format_.get("type") == "json_object" else schema)
    message = {"role": "assistant", "content": text}
    sent, written = tokens_in(body["messages"]), tokens_in(text)
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_795_000_000,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": sent,
            "completion_tokens": written,
            "total_tokens": sent + written,
        },
    }


def _response(body: dict[str, Any]) -> dict[str, Any]:
    format_ = (body.get("text") or {}).get("format") or {}
    text = text_of(body, format_.get("schema"))
    content = {"type": "output_text", "text": text, "annotations": []}
    sent, written = tokens_in(body["input"]), tokens_in(text)
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [content],
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_795_000_000,
        "model": body["model"],
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "output": [message],
        "usage": {
            "input_tokens": sent,
            "output_tokens": written,
            "total_tokens": sent + written,
        },
    }


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vectors: list[Any] = [unit(text) for text in texts]
    if body.get("encoding_format") == "base64":
        vectors = [_packed(vector) for vector in vectors]
    sent = tokens_in(texts)
    return {
        "object": "list",
        "model": body["model"],
        "data": [
            {"object": "embedding", "index": n, "embedding": vector}
            for n, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": sent, "total_tokens": sent},
    }
