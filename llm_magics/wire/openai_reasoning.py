"""
Reasoning that services with OpenAI's chat format require to be sent back.

DeepSeek, Moonshot and Z.ai require ``reasoning_content``, newer vLLM servers and Cerebras
``reasoning``, OpenRouter and MiniMax ``reasoning_details``, and Google the ``extra_content`` of a
tool call or of the message, with its signature.

Sources: https://api-docs.deepseek.com/guides/thinking_mode,
https://openrouter.ai/docs/use-cases/reasoning-tokens and
https://ai.google.dev/gemini-api/docs/thought-signatures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_magics.attachments import ReasoningBlock
from llm_magics.types import ChatMessage

# Fields with the thinking as text.
_TEXT_FIELDS = ("reasoning_content", "reasoning")

# Fields of a message that are sent back; those with text are sent back only with tool calls.
FIELDS = (*_TEXT_FIELDS, "reasoning_details", "extra_content")

# Fields of a tool call that are sent back.
_CALL_FIELDS = ("extra_content", "thought_signature")

# The value that Google accepts as the signature of a call by another model.
_NO_SIGNATURE = "skip_thought_signature_validator"

# Fields of a detail that are streamed in pieces.
_STREAMED_FIELDS = ("text", "summary", "data", "signature")


def build_message_fields(message: ChatMessage, *, uses_tools: bool) -> dict[str, Any]:
    """Return the fields of ``message`` that its service requires."""
    fields: dict[str, Any] = {}
    for block in message.reasoning_blocks:
        for name in FIELDS:
            is_required = uses_tools or name not in _TEXT_FIELDS
            if (
                name in block
                and is_required
                and "tool_call_id" not in block
                and "type" not in block
            ):
                fields[name] = block[name]
    return fields


def build_call_fields(message: ChatMessage, call_id: str) -> dict[str, Any]:
    """Return the extra fields of a call of ``message``, such as a signature."""
    found: dict[str, Any] = {}
    for block in message.reasoning_blocks:
        if block.get("tool_call_id") == call_id and "type" not in block:
            found |= {name: block[name] for name in _CALL_FIELDS if name in block}
    return found


def extract_call_fields(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the extra fields of a call that must be sent back with it."""
    return {name: call[name] for name in _CALL_FIELDS if call.get(name)}


class ReasoningCollector:
    """Collects the reasoning that must be sent back with an answer, from its pieces."""

    known = frozenset(FIELDS)

    def __init__(self, origin: str, *, has_tools: bool) -> None:
        """Set ``has_tools`` to collect the reasoning text of answers without tool calls too."""
        self._origin = origin
        self._has_tools = has_tools
        self._texts: dict[str, list[str]] = {}
        self._details: list[Any] = []
        self._extra: dict[str, Any] = {}

    def add(self, delta: Mapping[str, Any], *, is_whole: bool = False) -> None:
        """Add the reasoning in ``delta``; ``is_whole`` means a complete message, not a delta."""
        for name in _TEXT_FIELDS:
            if isinstance(text := delta.get(name), str):
                self._texts.setdefault(name, []).append(text)
        if isinstance(extra := delta.get("extra_content"), Mapping):
            self._extra |= extra
        details = delta.get("reasoning_details")
        for each in details if isinstance(details, list) else ():
            if isinstance(each, Mapping):
                self._add_detail(each, is_whole=is_whole)

    def _add_detail(self, detail: Mapping[str, Any], *, is_whole: bool) -> None:
        """Append ``detail`` to the last one if it continues it; otherwise start a new one."""
        last = self._details[-1] if self._details else None
        same = ("type", "index", "id")
        is_rest = last is not None and all(
            name not in detail or detail[name] is None or last.get(name) in (None, detail[name])
            for name in same
        )
        is_single = is_whole or "index" not in detail
        if last is None or not is_rest or is_single or "data" in last:
            self._details.append(dict(detail))
        else:
            _join(last, detail)

    def take(self, calls: Mapping[str, Mapping[str, Any]]) -> tuple[ReasoningBlock, ...]:
        """
        Return the blocks that must be sent back, after the answer is complete.

        Args:
            calls: the extra fields of each call, by its id.
        """
        blocks = tuple(ReasoningBlock(each, self._origin) for each in self._blocks(calls))
        self._texts, self._details, self._extra = {}, [], {}
        return blocks

    def _blocks(self, calls: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        if self._details:
            yield {"reasoning_details": self._details}
        elif self._texts and (calls or self._has_tools):
            yield {name: "".join(pieces) for name, pieces in self._texts.items()}
        if self._extra:
            yield {"extra_content": self._extra}
        for call_id, extra in calls.items():
            if extra:
                yield {"tool_call_id": call_id, **extra}


def _join(last: dict[str, Any], detail: Mapping[str, Any]) -> None:
    for name, value in detail.items():
        if name in _STREAMED_FIELDS and isinstance(value, str) and isinstance(last.get(name), str):
            last[name] += value
        elif value is not None or name not in last:
            last[name] = value


def remove_reasoning(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages of a request without the thinking that was sent back."""
    stripped = []
    for message in messages:
        if message.get("role") != "assistant":
            stripped.append(dict(message))
            continue
        fields = {name: value for name, value in message.items() if name not in FIELDS}
        if "tool_calls" in fields:
            calls = fields["tool_calls"]
            fields["tool_calls"] = [
                {name: value for name, value in call.items() if name not in _CALL_FIELDS}
                for call in calls
            ]
        stripped.append(fields)
    return stripped


def add_empty_reasoning(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages of a request, with empty thinking for calls that have none."""
    return [
        {**message, "reasoning_content": ""}
        if message.get("tool_calls") and "reasoning_content" not in message
        else dict(message)
        for message in messages
    ]


def mark_missing_signatures(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Return the messages of a request, with the first call of each marked if it has no signature.

    The mark is the value that Google defines for calls by another model.
    """
    marked = []
    for message in messages:
        calls = message.get("tool_calls")
        if calls and not any(call.get("extra_content") for call in calls):
            first = {**calls[0], "extra_content": {"google": {"thought_signature": _NO_SIGNATURE}}}
            marked.append({**message, "tool_calls": [first, *calls[1:]]})
        else:
            marked.append(dict(message))
    return marked
