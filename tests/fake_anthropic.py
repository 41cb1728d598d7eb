"""
Anthropic's Messages without models: recorded shapes and the documented refusals.

It checks what it is sent as the service does; its text is made up from the prompt.
"""

from __future__ import annotations

import json
import random
from typing import Any

from tests.schema_rules import sample, wrong_for_claude
from tests.serving import Asked, Says, as_json

CHAT = "claude-sonnet-test"
MODELS = ["claude-fable-test", "claude-haiku-test", "claude-old-test", "claude-opus-test", CHAT]


def refusal(kind: str, message: str, status: int) -> Says:
    """A refusal in Anthropic's shape."""
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return as_json(error, status)


def event(kind: str, **more: Any) -> bytes:
    """One event of a stream."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


class FakeAnthropic:
    """Call it with a request. ``refuses`` are parameters that its models do not take."""

    def __init__(self, *refuses: str, key: str = "a-key-of-the-test", page: int = 2) -> None:
        self.refuses = refuses
        self.key = key
        self.page = page

    def __call__(self, asked: Asked) -> Says:
        bearer = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if asked.headers.get("x-api-key", bearer) != self.key:
            return refusal("authentication_error", "invalid x-api-key", 401)
        if "anthropic-version" not in asked.headers:
            return refusal("invalid_request_error", "anthropic-version: header is required", 400)
        if asked.path.startswith("/v1/models"):
            return self.models(asked.path)
        body = asked.json()
        if body["model"] not in MODELS:
            return refusal("not_found_error", f"model: {body['model']}", 404)
        if asked.path == "/v1/messages/count_tokens":
            return self.count(body)
        return self.refused(body, asked.headers["anthropic-version"]) or self.message(body)

    def models(self, path: str) -> Says:
        """The list in pages of ``page``, whatever was asked for."""
        after = path.partition("after_id=")[2]
        start = MODELS.index(after) + 1 if after else 0
        names = MODELS[start : start + self.page]
        data = [{"type": "model", "id": name, "display_name": name.title()} for name in names]
        more = start + self.page < len(MODELS)
        return as_json(
            {"data": data, "has_more": more, "first_id": names[0], "last_id": names[-1]}
        )

    def count(self, body: dict[str, Any]) -> Says:
        for name in ("max_tokens", "stream"):
            if name in body:
                return refusal(
                    "invalid_request_error", f"{name}: Extra inputs are not permitted", 400
                )
        return as_json({"input_tokens": len(json.dumps(body["messages"]).split())})

    def refused(self, body: dict[str, Any], version: str) -> Says | None:
        """What the service finds wrong with a request, if anything."""
        wrong = self.wrong(body, version)
        return refusal("invalid_request_error", wrong, 400) if wrong else None

    def wrong(self, body: dict[str, Any], version: str) -> str | None:
        """The same in its words."""
        if "max_tokens" not in body:
            return "max_tokens: Field required"
        if {turn["role"] for turn in body["messages"]} - {"user", "assistant"}:
            return "messages: unexpected role"
        for name in ("temperature", "top_p", "top_k"):
            if name in body and version >= "2026-10-21":
                return f"{name}: Extra inputs are not permitted"
            if name in body and name in self.refuses:
                return f"`{name}` is deprecated for this model."
        if format_ := body.get("output_config", {}).get("format"):
            wrong = wrong_for_claude(format_["schema"])
            if wrong:
                return wrong
        return self.wrong_thinking(body)

    def wrong_thinking(self, body: dict[str, Any]) -> str | None:
        thinking = body.get("thinking", {})
        if thinking.get("type") != "enabled":
            return None
        if "thinking" in self.refuses:
            return '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive".'
        if thinking["budget_tokens"] >= body["max_tokens"]:
            return "`max_tokens` must be greater than `thinking.budget_tokens`."
        return None

    def message(self, body: dict[str, Any]) -> Says:
        assert body["stream"] is True
        prompt = json.dumps(body["messages"][-1]["content"])
        draw = random.Random(prompt)
        longest = body["max_tokens"]
        words = [
            f" word{draw.randrange(100)}"
            for _ in range(30 if longest >= 4096 else min(longest, 300))
        ]
        stop = "max_tokens" if longest < 300 else "end_turn"
        if format_ := body.get("output_config", {}).get("format"):
            text = json.dumps(sample(format_["schema"]))
            words, stop = [text[at : at + 3] for at in range(0, len(text), 3)], "end_turn"
        usage = {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1}
        delta = [
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
            for word in words
        ]
        return Says(
            [
                event("message_start", message={"id": "msg_1", "usage": usage, "content": []}),
                event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
                event("ping"),
                *delta,
                event("content_block_stop", index=0),
                event(
                    "message_delta",
                    delta={"stop_reason": stop},
                    usage={"output_tokens": len(words)},
                ),
                event("message_stop"),
            ],
            gap_s=0.01 if len(words) > 100 else 0.0,
        )
