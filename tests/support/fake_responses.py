"""
OpenAI's Responses without models: it refuses what the service refuses of a conversation.

Models that do not reason refuse to encrypt their thinking; reasoning items must be its own, of
the same model, unchanged and followed by what they led to; every call needs its output.
"""

from __future__ import annotations

import json
from typing import Any

from tests.support.document_rules import wrong_response_part
from tests.support.fake_openai import refusal
from tests.support.serving import Asked, Says, as_json

CITIES = ("Oslo", "Rome")
REASONING = ("gpt-5", "o4-mini")
OTHERS = ("gpt-4o", "gpt-4.1", "gpt-5-chat-latest")

_TYPES = {"message", "reasoning", "function_call", "function_call_output"}


class FakeResponses:
    """Call it with a request. It calls ``weather`` once for each city if that is a tool."""

    def __init__(self, *, account: str = "org-a", fails_after: int | None = None) -> None:
        self.account = account
        self.fails_after = fails_after
        self.given: list[dict[str, Any]] = []
        self.answers = 0

    def __call__(self, asked: Asked) -> Says:
        if asked.method == "GET":
            return as_json({"data": [{"id": name} for name in (*REASONING, *OTHERS)]})
        if self.fails_after is not None and self.answers >= self.fails_after:
            return as_json({"error": {"message": "down", "type": "server_error"}}, 500)
        body = asked.json()
        reasons = body["model"] in REASONING
        if "reasoning.encrypted_content" in body.get("include", ()) and not reasons:
            words = "Encrypted content is not supported with this model."
            return refusal(None, words, 400, "include")
        return self.wrong(body) or self.answer(body, reasons=reasons)

    def wrong(self, body: dict[str, Any]) -> Says | None:
        """What the service finds wrong with the items."""
        items = body["input"]
        calls: list[str] = []
        for place, item in enumerate(items):
            kind = item.get("type", "message")
            if kind not in _TYPES:
                words = f"Invalid value: '{kind}'. Supported values are: {sorted(_TYPES)}."
                return refusal("invalid_value", words, 400, f"input[{place}]")
            parts = item.get("content") if isinstance(item.get("content"), list) else []
            if wrong_part := next(filter(None, map(wrong_response_part, parts or [])), None):
                return refusal("invalid_value", wrong_part, 400, f"input[{place}]")
            if kind == "reasoning":
                following = items[place + 1] if place + 1 < len(items) else {}
                if wrong := self.wrong_reasoning(body, item, following):
                    return wrong
            if kind == "function_call":
                calls.append(item["call_id"])
            if kind == "function_call_output":
                if item["call_id"] not in calls:
                    words = f"No tool call found for function call output with call_id {item['call_id']}."
                    return refusal(None, words, 400, "input")
                calls.remove(item["call_id"])
        if calls:
            words = f"No tool output found for function call {calls[0]}."
            return refusal(None, words, 400, "input")
        return None

    def wrong_reasoning(
        self, body: dict[str, Any], item: dict[str, Any], following: dict[str, Any]
    ) -> Says | None:
        if not item.get("encrypted_content"):
            words = f"Item with id '{item.get('id')}' not found. Items are not persisted when `store` is set to false."
            return refusal(None, words, 404, "input")
        if not item["encrypted_content"].startswith(f"gAAAA-{self.account}-{body['model']}-"):
            words = f"The encrypted content {item['encrypted_content'][:6]}... could not be verified. Reason: Encrypted content could not be decrypted or parsed."
            return refusal("invalid_encrypted_content", words, 400)
        if item not in self.given:
            return refusal(
                "invalid_encrypted_content", "The item was modified: could not be verified.", 400
            )
        if following != self.given[self.given.index(item) + 1]:
            words = f"Item '{item['id']}' of type 'reasoning' was provided without its required following item."
            return refusal(None, words, 400, "input")
        return None

    def answer(self, body: dict[str, Any], *, reasons: bool) -> Says:
        """Thinking if it reasons, and calls or words."""
        self.answers += 1
        number = self.answers
        output: list[dict[str, Any]] = []
        encrypted = f"gAAAA-{self.account}-{body['model']}-{number}"
        item = {
            "id": f"rs_{number}",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "hm"}],
        }
        if "reasoning.encrypted_content" in body.get("include", ()):
            item["encrypted_content"] = encrypted
        if reasons:
            output.append(item)
        is_asked = body["input"][-1].get("type") != "function_call_output"
        if body.get("tools") and is_asked:
            output += [
                {
                    "id": f"fc_{number}_{place}",
                    "type": "function_call",
                    "status": "completed",
                    "call_id": f"call_{number}_{place}",
                    "name": "weather",
                    "arguments": json.dumps({"city": city}),
                }
                for place, city in enumerate(CITIES)
            ]
        else:
            part = {
                "type": "output_text",
                "annotations": [],
                "logprobs": [],
                "text": f"Cold, {number}.",
            }
            output.append({"id": f"msg_{number}", "type": "message", "status": "completed", "role": "assistant", "content": [part], "phase": "final_answer"})  # fmt: skip
        self.given += output
        return Says(list(_events(output)))


def _events(output: list[dict[str, Any]]) -> Any:
    def event(kind: str, **more: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()

    for index, item in enumerate(output):
        yield event("response.output_item.added", output_index=index, item={**item, "content": []})
        for part in item.get("content") or []:
            yield event("response.output_text.delta", delta=part["text"], output_index=index)
        yield event("response.output_item.done", output_index=index, item=item)
    usage = {"input_tokens": 5, "output_tokens": 7}
    response = {"id": "resp_1", "status": "completed", "output": output, "usage": usage}
    yield event("response.completed", response=response)
