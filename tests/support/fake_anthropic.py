"""
Anthropic's Messages without models: recorded shapes and the documented refusals.

It checks what it is sent as the service does; its text is made up from the prompt.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from typing import Any

from tests.support.document_rules import wrong_document
from tests.support.schema_rules import sample, wrong_for_claude
from tests.support.serving import Asked, Says, as_json

CHAT = "claude-sonnet-test"
MODELS = ["claude-fable-test", "claude-haiku-test", "claude-old-test", "claude-opus-test", CHAT]


def refusal(kind: str, message: str, status: int) -> Says:
    """A refusal in Anthropic's shape."""
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return as_json(error, status)


def event(kind: str, **more: Any) -> bytes:
    """One event of a stream."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


def signature(text: str) -> str:
    """What this service signs its thinking with."""
    return hashlib.sha256(text.encode()).hexdigest()


# What a block of a request may be.
KINDS = {"text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking"}


def wrong_roles(body: dict[str, Any]) -> str | None:
    """Roles that the format does not have."""
    strange = {turn["role"] for turn in body["messages"]} - {"user", "assistant"}
    return "messages: unexpected role" if strange else None


def wrong_turns(turns: list[dict[str, Any]]) -> str | None:
    """Blank texts and turns, foreign blocks, calls without results and results without calls."""
    return next(_complaints(turns), None)


def _complaints(turns: list[dict[str, Any]]) -> Iterator[str]:
    if not turns:
        yield "messages: at least one message is required"
        return
    if turns[0]["role"] != "user":
        yield 'messages: first message must use the "user" role'
    yield from _of_ids(turns)
    for place, turn in enumerate(turns):
        yield from _of_blocks(f"messages.{place}", turn["content"])
        yield from _of_results(place, turns)
    last = turns[-1]["content"][-1].get("text", "")
    if turns[-1]["role"] == "assistant" and last != last.rstrip():
        yield "messages: final assistant content cannot end with trailing whitespace"


def _of_blocks(place: str, blocks: list[dict[str, Any]]) -> Iterator[str]:
    if not blocks:
        yield f"{place}: all messages must have non-empty content except for the optional final assistant message"
        return
    for number, block in enumerate(blocks):
        if block["type"] not in KINDS:
            yield f"{place}.content.{number}: Input tag '{block['type']}' found using 'type' does not match any of the expected tags"
        if block["type"] == "document" and (wrong := wrong_document(block)):
            yield f"{place}.content.{number}.document.{wrong}"
        if block["type"] == "text" and not block["text"].strip():
            yield "messages: text content blocks must contain non-whitespace text"
    if blocks[-1]["type"] in ("thinking", "redacted_thinking"):
        yield f"{place}: The final block in an assistant message cannot be `thinking`."


def _of_ids(turns: list[dict[str, Any]]) -> Iterator[str]:
    ids = [b["id"] for turn in turns for b in turn["content"] if b["type"] == "tool_use"]
    if len(set(ids)) < len(ids):
        yield "messages: `tool_use` ids must be unique"
    if not all(re.fullmatch("[a-zA-Z0-9_-]+", each) for each in ids):
        yield "messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"


def _of_results(place: int, turns: list[dict[str, Any]]) -> Iterator[str]:
    """Results stand first in the turn after their calls."""
    blocks = turns[place]["content"]
    wanted = [block["id"] for block in blocks if block["type"] == "tool_use"]
    told = turns[place + 1]["content"] if place + 1 < len(turns) else []
    if sorted(str(each.get("tool_use_id")) for each in told[: len(wanted)]) != sorted(wanted):
        yield f"messages.{place}: `tool_use` ids were found without `tool_result` blocks immediately after: {wanted}"
    known = {block.get("id") for block in (turns[place - 1]["content"] if place else [])}
    for number, block in enumerate(blocks):
        if block["type"] == "tool_result" and block["tool_use_id"] not in known:
            yield f"messages.{place}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {block['tool_use_id']}"


def wrong_signatures(turns: list[dict[str, Any]]) -> str | None:
    """Thinking that this service did not write, or that was changed."""
    for place, turn in enumerate(turns):
        for number, block in enumerate(turn["content"]):
            if block["type"] == "thinking" and block["signature"] != signature(block["thinking"]):
                return (
                    f"messages.{place}.content.{number}: Invalid `signature` in `thinking` block"
                )
    return None


def _streamed(blocks: list[dict[str, Any]]) -> list[bytes]:
    """An answer of these blocks, each in pieces."""
    made = [
        event(
            "message_start", message={"id": "msg_1", "usage": {"input_tokens": 7}, "content": []}
        )
    ]
    for index, block in enumerate(blocks):
        kind = block["type"]
        begun = {"thinking": {**block, "thinking": "", "signature": ""}, "text": {**block, "text": ""}, "tool_use": {**block, "input": {}}}.get(kind, block)  # fmt: skip
        made.append(event("content_block_start", index=index, content_block=begun))
        deltas: list[dict[str, Any]] = []
        if kind == "thinking":
            text = block["thinking"]
            deltas = [
                {"type": "thinking_delta", "thinking": piece} for piece in (text[:3], text[3:])
            ]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif kind == "text":
            deltas = [{"type": "text_delta", "text": block["text"]}]
        elif kind == "tool_use":
            text = json.dumps(block["input"])
            deltas = [
                {"type": "input_json_delta", "partial_json": piece}
                for piece in (text[:5], text[5:])
            ]
        made += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
        made.append(event("content_block_stop", index=index))
    return made


def _ended(stop: str, tokens: int) -> list[bytes]:
    delta, usage = {"stop_reason": stop}, {"output_tokens": tokens}
    return [event("message_delta", delta=delta, usage=usage), event("message_stop")]


class FakeAnthropic:
    """
    Call it with a request. ``refuses`` are parameters that its models do not take.

    With ``cities`` it calls the tool ``weather`` for each of them.
    """

    def __init__(
        self,
        *refuses: str,
        key: str = "a-key-of-the-test",
        page: int = 2,
        cities: tuple[str, ...] = (),
    ) -> None:
        self.refuses = refuses
        self.cities = cities
        self.answers = 0
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
        if (
            wrong := wrong_roles(body)
            or wrong_turns(body["messages"])
            or wrong_signatures(body["messages"])
        ):
            return wrong
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
        said = [turn for turn in body["messages"] if turn["role"] == "assistant"]
        is_open = any(block["type"] == "tool_result" for block in body["messages"][-1]["content"])
        if is_open and said[-1]["content"][0]["type"] not in ("thinking", "redacted_thinking"):
            kind = said[-1]["content"][0]["type"]
            return (
                f"messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kind}`. "
                "When `thinking` is enabled, a final `assistant` message must start with a thinking block."
            )
        return None

    def rounds(self, body: dict[str, Any]) -> Says | None:
        """Thinking and calls of ``weather`` where that is a tool and has not been called."""
        last = body["messages"][-1]["content"]
        if not self.cities or not body.get("tools") or last[-1]["type"] == "tool_result":
            return None
        self.answers += 1
        thoughts = []
        if body.get("thinking", {}).get("type") == "enabled":
            text = f"About {self.answers}. \u2028é"
            thoughts = [
                {"type": "thinking", "thinking": text, "signature": signature(text)},
                {"type": "redacted_thinking", "data": f"enc{self.answers}"},
            ]
        calls = [
            {"type": "tool_use", "id": f"toolu_{self.answers}_{n}", "name": "weather", "input": {"city": city}}
            for n, city in enumerate(self.cities)
        ]  # fmt: skip
        blocks = [*thoughts, {"type": "text", "text": "Let me look."}, *calls]
        return Says([*_streamed(blocks), *_ended("tool_use", 9)])

    def message(self, body: dict[str, Any]) -> Says:
        assert body["stream"] is True
        if (called := self.rounds(body)) is not None:
            return called
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
            gap_s=0.002 if len(words) > 100 else 0.0,
        )
