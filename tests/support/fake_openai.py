"""
A server that speaks OpenAI's format without models: it follows the documented protocol.

Its refusals are the recorded ones; its text is made up from the prompt and the seed.
"""

from __future__ import annotations

import base64
import json
import random
import struct
from typing import Any

from tests.support.document_rules import wrong_chat_part
from tests.support.schema_rules import sample, wrong_for_openai
from tests.support.serving import Asked, Says, as_json, chat_event

MODELS = ("gpt-test", "text-embedding-test")


def refusal(code: str | None, message: str, status: int, param: str | None = None) -> Says:
    """A refusal in OpenAI's shape."""
    error = {"code": code, "message": message, "param": param, "type": "invalid_request_error"}
    return as_json({"error": error}, status)


class FakeOpenAI:
    """Call it with a request. ``refuses`` are parameters that its model does not take."""

    models = MODELS

    def __init__(self, *refuses: str, key: str = "a-key-of-the-test") -> None:
        self.refuses = refuses
        self.key = key

    def __call__(self, asked: Asked) -> Says:
        if asked.headers.get("authorization") != f"Bearer {self.key}":
            return refusal("invalid_api_key", "Incorrect API key provided.", 401)
        if asked.path == "/models":
            return as_json({"object": "list", "data": [{"id": name} for name in self.models]})
        body = asked.json()
        if body["model"] not in self.models:
            return self.missing(body)
        for name in self.refuses:
            if name in body:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                return refusal("unsupported_parameter", message, 400, name)
        return self.embeddings(body) if asked.path == "/embeddings" else self.chat(body)

    def chat(self, body: dict[str, Any]) -> Says:
        for message in body.get("messages", ()):
            parts = message["content"] if isinstance(message["content"], list) else []
            if wrong := next(filter(None, map(wrong_chat_part, parts)), None):
                return refusal("invalid_value", wrong, 400, "messages")
        if "response_format" in body:
            return self.wrong_format(body["response_format"]) or self.fitting(body)
        return self.words(body)

    def wrong_format(self, given: dict[str, Any]) -> Says | None:
        """What OpenAI refuses of a format: a schema beyond its strict mode, most of all."""
        if given["type"] != "json_schema":
            return None
        told = given["json_schema"]
        wrong = wrong_for_openai(told["schema"], strict=bool(told.get("strict")))
        message = f"Invalid schema for response_format '{told['name']}': {wrong}"
        return refusal(None, message, 400, "response_format") if wrong else None

    # Whether an answer is null wherever the schema allows it.
    answers_null = False

    def fitting(self, body: dict[str, Any]) -> Says:
        """An answer that fits the schema, a character at a time."""
        schema = body["response_format"].get("json_schema", {}).get("schema", {"type": "object"})
        text = json.dumps(sample(schema, null=self.answers_null))
        longest = body.get("max_completion_tokens") or body.get("max_tokens") or len(text)
        pieces = list(text)
        finish = "length" if longest < len(pieces) else "stop"
        events = [chat_event(piece) for piece in pieces[:longest]]
        events.append(chat_event(finish_reason=finish))
        if body.get("stream_options", {}).get("include_usage"):
            events.append(chat_event(choices=[], **self.usage(len(pieces[:longest]))))
        return Says([*events, b"data: [DONE]\n\n"])

    def counted(self, data: list[Any]) -> int:
        return len(data)

    def missing(self, body: dict[str, Any]) -> Says:
        message = f"The model `{body['model']}` does not exist or you do not have access to it."
        return refusal("model_not_found", message, 404)

    def usage(self, words: int) -> dict[str, Any]:
        return {"usage": {"prompt_tokens": 7, "completion_tokens": words}}

    def embeddings(self, body: dict[str, Any]) -> Says:
        if len(body["input"]) > 2048 or "" in body["input"]:
            return refusal(None, "'$.input' is invalid.", 400, "input")
        data = [
            {"index": n, "embedding": _packed(unit(text)) if body["encoding_format"] == "base64" else unit(text)}
            for n, text in enumerate(body["input"])
        ]  # fmt: skip
        return as_json({"data": data[::-1], "usage": {"prompt_tokens": self.counted(data)}})

    def words(self, body: dict[str, Any]) -> Says:
        assert body["stream"] is True
        prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        draw = random.Random(f"{body.get('seed')} {prompt}")
        longest = body.get("max_completion_tokens") or body.get("max_tokens")
        words = [f" word{draw.randrange(100)}" for _ in range(min(longest or 30, 300))]
        finish = "length" if longest and longest < 300 else "stop"
        if "prompt" in body:
            events = [chat_event(choices=[{"index": 0, "text": word, "finish_reason": None}]) for word in words]  # fmt: skip
        else:
            events = [chat_event(word) for word in words]
        events.append(chat_event(finish_reason=finish))
        if body.get("stream_options", {}).get("include_usage"):
            events.append(chat_event(choices=[], **self.usage(len(words))))
        # A long answer takes its time, so that a test can leave in the middle of it.
        gap_s = 0.002 if len(words) > 100 else 0.0
        return Says([*events, b"data: [DONE]\n\n"], gap_s=gap_s)


def unit(text: str) -> list[float]:
    """A unit vector drawn from ``text``."""
    draw = random.Random(text)
    vector = [draw.gauss(0, 1) for _ in range(16)]
    norm = sum(x * x for x in vector) ** 0.5
    return [x / norm for x in vector]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
