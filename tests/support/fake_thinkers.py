"""
Services that want their thinking back: each refuses a conversation as the real one does.

They call the tool ``weather`` once for each city of `CITIES` and answer when its results are
there. What they gave with an answer must come back unchanged where the real service demands
it, and nothing that another service made may come at all.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from tests.support.serving import Asked, Says, as_json, chat_event

CITIES = ("Oslo", "Rome")
KEY = "a-key-of-the-test"

# What a message of the assistant, and a call in it, may hold in OpenAI's format.
_OF_MESSAGE = {"role", "content", "tool_calls"}
_OF_CALL = {"id", "type", "function"}


def turns(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The messages after each of the user's, up to the next."""
    found: list[list[dict[str, Any]]] = [[]]
    for message in messages:
        if message["role"] == "user":
            found.append([])
        else:
            found[-1].append(message)
    return found


class FakeThinker:
    """A chat server. ``fields`` are those of its answers beyond OpenAI's, ``beside`` of calls."""

    fields: ClassVar[set[str]] = set()
    beside: ClassVar[set[str]] = set()

    def __init__(self, *, fails_after: int | None = None) -> None:
        self.given: list[dict[str, Any]] = []
        self.fails_after = fails_after

    def __call__(self, asked: Asked) -> Says:
        if asked.method == "GET":
            return as_json({"data": [{"id": "thinker"}]})
        if self.fails_after is not None and len(self.given) >= self.fails_after:
            return as_json({"error": {"message": "down", "type": "server_error"}}, 500)
        body = asked.json()
        wrong = self.wrong(body["messages"])
        if wrong:
            return self.refusal(wrong)
        message = self.answer(body)
        self.given.append(message)
        return self.says(message)

    def refusal(self, words: str) -> Says:
        """What is wrong with a request."""
        error = {"message": words, "type": "invalid_request_error", "param": None, "code": None}
        return as_json({"error": error}, 400)

    def wrong(self, messages: list[dict[str, Any]]) -> str | None:
        """What the service finds wrong with a conversation."""
        for place, message in enumerate(messages):
            if message["role"] == "assistant":
                foreign = set(message) - _OF_MESSAGE - self.fields
                for call in message.get("tool_calls") or []:
                    foreign |= set(call) - _OF_CALL - self.beside
                if foreign:
                    return f"messages.{place}: property {min(foreign)!r} is unsupported"
        return unpaired(messages) or self.wrong_thinking(messages)

    def wrong_thinking(self, messages: list[dict[str, Any]]) -> str | None:
        """What is missing or modified of its thinking."""
        return None

    def known(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """The answer of this service that ``message`` is, if it is one."""
        ids = [call["id"] for call in message.get("tool_calls") or []]
        for given in self.given:
            if ids == [call["id"] for call in given.get("tool_calls") or []] and (
                ids or message["content"] == given["content"]
            ):
                return given
        return None

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Calls of the tool, or an answer when they are not wanted or have their results."""
        number = len(self.given)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": f"Cold, {type(self).__name__}, {number}.",
        }
        if body.get("tools") and body["messages"][-1]["role"] != "tool":
            message["content"] = "Let me look."
            message["tool_calls"] = [
                {
                    "id": f"call_{number}_{place}",
                    "type": "function",
                    "function": {"name": "weather", "arguments": json.dumps({"city": city})},
                }
                for place, city in enumerate(CITIES)
            ]
        return message | self.thinking(number, message)

    def thinking(self, number: int, message: dict[str, Any]) -> dict[str, Any]:
        """What is added to an answer."""
        return {}

    def says(self, message: dict[str, Any]) -> Says:
        """The answer as a stream: thinking in pieces, text, calls in pieces."""
        events = [self.event(delta) for delta in self.deltas(message)]
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        return Says([*events, chat_event(finish_reason=reason), b"data: [DONE]\n\n"])

    def event(self, delta: dict[str, Any]) -> bytes:
        """A piece."""
        return chat_event(choices=[{"index": 0, "delta": delta, "finish_reason": None}])

    def deltas(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """The pieces of an answer."""
        made = self.thinking_deltas(message)
        made.append({"content": message["content"]})
        for index, call in enumerate(message.get("tool_calls") or []):
            text = call["function"]["arguments"]
            begun = {**call, "index": index}
            begun["function"] = {**call["function"], "arguments": text[:4]}
            made.append({"tool_calls": [begun]})
            made.append({"tool_calls": [{"index": index, "function": {"arguments": text[4:]}}]})
        return made

    def thinking_deltas(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """The pieces of its thinking."""
        return []


def unpaired(messages: list[dict[str, Any]]) -> str | None:
    """Calls without results, and results without calls."""
    left: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in left:
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
            left.remove(message["tool_call_id"])
        elif left:
            return f"An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. Missing: {left}"
        left += [call["id"] for call in message.get("tool_calls") or []]
    return None


class FakeDeepSeek(FakeThinker):
    """DeepSeek, and services like it: thinking as text, demanded with calls, refused elsewhere."""

    fields: ClassVar[set[str]] = {"reasoning_content"}
    name = "reasoning_content"
    is_demanded = True  # of the calls of others too

    def thinking(self, number: int, message: dict[str, Any]) -> dict[str, Any]:
        return {self.name: f"\nIt asks for {number}. \u2028é"}

    def thinking_deltas(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        text = message[self.name]
        return [{"role": "assistant", "content": None, self.name: text[:5]}, {self.name: text[5:]}]

    def wrong_thinking(self, messages: list[dict[str, Any]]) -> str | None:
        for turn in turns(messages):
            has_calls = any(message.get("tool_calls") for message in turn)
            for message in turn:
                if message["role"] != "assistant":
                    continue
                if not has_calls and self.name in message:
                    return f"{self.name} in the input is not supported"
                given = self.known(message)
                if has_calls and self.name not in message and (self.is_demanded or given):
                    return f"The {self.name} in the thinking mode must be passed back to the API."
                if has_calls and given and message[self.name] != given[self.name]:
                    return f"The {self.name} was modified"
        return None


class FakeVLLM(FakeDeepSeek):
    """Newer vLLM servers, Cerebras and others: the same under another name."""

    fields: ClassVar[set[str]] = {"reasoning"}
    name = "reasoning"
    is_demanded = False


class FakeGemini(FakeThinker):
    """Google's OpenAI-compatible address: a signature with the first call, and with text."""

    fields: ClassVar[set[str]] = {"extra_content"}
    beside: ClassVar[set[str]] = {"extra_content"}

    def thinking(self, number: int, message: dict[str, Any]) -> dict[str, Any]:
        signed = {"google": {"thought_signature": f"c2lnbmVk{number}=="}}
        if "tool_calls" not in message:
            return {"extra_content": signed}
        first, *rest = message["tool_calls"]
        return {"tool_calls": [{**first, "extra_content": signed}, *rest]}

    def thinking_deltas(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        extra = message.get("extra_content")
        return [{"role": "assistant", "extra_content": extra}] if extra else []

    def deltas(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Whole calls, all with the index 0, as Google sends them."""
        made = [*self.thinking_deltas(message), {"content": message["content"]}]
        calls = message.get("tool_calls") or []
        return [*made, *({"tool_calls": [{**call, "index": 0}]} for call in calls)]

    def refusal(self, words: str) -> Says:
        return as_json(
            [{"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}}], 400
        )

    def wrong_thinking(self, messages: list[dict[str, Any]]) -> str | None:
        for place, message in enumerate(messages):
            given = self.known(message) if message["role"] == "assistant" else None
            if given and given.get("extra_content") != message.get("extra_content"):
                return f"position {place}: the thought_signature was modified"
            for call, made in zip(message.get("tool_calls") or [], (given or {}).get("tool_calls") or [], strict=False):  # fmt: skip
                if call.get("extra_content") not in (None, made.get("extra_content")):
                    return f"position {place}: thought_signature is not valid"
        for message in turns(messages)[-1]:
            if message.get("tool_calls") and "extra_content" not in message["tool_calls"][0]:
                return "Function call is missing a thought_signature in functionCall parts. This is required for tools to work correctly."
        return None


class FakeOpenRouter(FakeThinker):
    """OpenRouter before a Claude: details in pieces, to be sent back as one list."""

    fields: ClassVar[set[str]] = {"reasoning_details"}

    def thinking(self, number: int, message: dict[str, Any]) -> dict[str, Any]:
        shape = {"format": "anthropic-claude-v1", "index": 0}
        text = {"type": "reasoning.text", "text": f"About {number}.", "signature": f"sig{number}"}
        hidden = {"type": "reasoning.encrypted", "data": f"enc{number}", "id": f"tool_{number}"}
        return {"reasoning_details": [{**text, **shape}, {**hidden, **shape, "index": 1}]}

    def thinking_deltas(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        text, hidden = message["reasoning_details"]
        begun = {name: value for name, value in text.items() if name != "signature"}
        pieces = [
            {**begun, "text": text["text"][:3]},
            {**begun, "text": text["text"][3:]},
            {**{name: begun[name] for name in ("type", "format", "index")}, "signature": text["signature"]},
            hidden,
        ]  # fmt: skip
        return [{"reasoning": each.get("text"), "reasoning_details": [each]} for each in pieces]

    def wrong_thinking(self, messages: list[dict[str, Any]]) -> str | None:
        for message in messages:
            given = self.known(message) if message["role"] == "assistant" else None
            if given and message.get("reasoning_details") != given["reasoning_details"]:
                return "The reasoning_details were modified"
            if message.get("reasoning_details") and not given:
                return "Invalid signature in reasoning_details"
        return None
