"""
The format of requests to Anthropic's Messages API; `llm_magics.wire.anthropic_answers` reads answers.

In a request, the roles of user and assistant alternate, no text is blank, tool results come first
in the turn after their calls, and thinking blocks are sent back unchanged at their original
positions.

Sources: https://docs.anthropic.com/en/api/messages and /messages-streaming, and
https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_magics.attachments import ReasoningBlock
from llm_magics.parameters import ModelParameters
from llm_magics.schemas import close_objects
from llm_magics.types import ChatMessage, ToolCall
from llm_magics.wire.anthropic_files import encode_document, encode_image
from llm_magics.wire.schema_dialects import ANTHROPIC, compile_schema, convert_tool_schema
from llm_magics.wire.thinking import BUDGETS, level_of
from llm_magics.wire.tool_calls import encode_arguments
from llm_magics.wire.web_search import ANTHROPIC_TOOL

_THINKING = frozenset({"thinking", "redacted_thinking"})
# Blocks of tools that the service runs itself: they must be sent back until the answer is complete.
_SERVER_TOOL_BLOCK = re.compile(r"(?:server|mcp)_tool_use|[a-z_]+_tool_result")
# Characters that are not allowed in ids.
_INVALID_ID_CHARACTERS = re.compile(r"[^A-Za-z0-9_-]")
# The user turn that is inserted before a conversation that starts with an answer.
_BLANK = {"type": "text", "text": "(blank)"}

# The stop reason of an answer that is paused during the searches of the service.
PAUSED = "pause_turn"

# The API requires a limit and has no default; every current model supports this one.
DEFAULT_MAX_TOKENS = 4096

_CACHE_CONTROL = {"cache_control": {"type": "ephemeral"}}


def is_returned(block: Mapping[str, Any]) -> bool:
    """Return whether ``block`` of an answer must be sent back with it."""
    kind = block.get("type")
    if not isinstance(kind, str) or kind == "tool_result":
        return False
    return kind in _THINKING or _is_of_search(block) or bool(_SERVER_TOOL_BLOCK.fullmatch(kind))


def _is_of_search(block: Mapping[str, Any]) -> bool:
    """Return whether ``block`` is a web search, its results, or text that cites them."""
    if block.get("type") == "server_tool_use":
        return block.get("name") == "web_search"
    if block.get("type") != "text":
        return block.get("type") == "web_search_tool_result"
    kinds = {each.get("type") for each in block.get("citations") or ()}
    return kinds == {"web_search_result_location"}


def _build_turns(
    messages: Sequence[ChatMessage], *, searches: bool = False
) -> list[dict[str, Any]]:
    """
    Return the turns of ``messages``, with consecutive messages of one role merged.

    If the request ``searches`` the web, the results of earlier searches are sent back, which the
    service encrypts; it cannot cite them otherwise.
    """
    turns: list[dict[str, Any]] = []
    for message, is_last_round in zip(messages, _mark_last_round(messages), strict=True):
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _encode_blocks(message, is_last_round=is_last_round, searches=searches)
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        if turn["role"] == "user":
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    if turns and turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [dict(_BLANK)]})
    if turns and turns[-1]["role"] == "assistant":
        _strip_trailing_space(turns[-1]["content"][-1])
    return turns


def _mark_last_round(messages: Sequence[ChatMessage]) -> list[bool]:
    """Return for each message whether it follows the last user message."""
    last = max((n for n, each in enumerate(messages) if each.role == "user"), default=-1)
    return [index > last for index in range(len(messages))]


def _lacks_thinking(turns: Sequence[Mapping[str, Any]]) -> bool:
    """
    Return whether the last turn has results of tool calls that no thinking block precedes.

    The service refuses to enable thinking in the middle of such a turn.
    """
    if len(turns) < 2 or turns[-1]["role"] != "user":
        return False
    if not any(block["type"] == "tool_result" for block in turns[-1]["content"]):
        return False
    said = turns[-2]["content"]
    return said[0]["type"] not in _THINKING and any(each["type"] == "tool_use" for each in said)


def _encode_blocks(
    message: ChatMessage, *, is_last_round: bool, searches: bool
) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [_encode_result(message)]
    said = [
        *map(encode_document, message.attachments),
        *map(encode_image, message.images),
        *_encode_content(message, is_last_round, searches),
    ]
    if all(block["type"] in _THINKING for block in said):
        return []  # a turn may not end with thinking
    return said


def _encode_content(
    message: ChatMessage, is_last_round: bool, searches: bool
) -> Iterator[dict[str, Any]]:
    """Yield the text and calls of a message, with returned blocks at their original positions."""
    text_at = calls_at = 0
    for each in map(ReasoningBlock.of, message.reasoning_blocks):
        is_wanted = searches if _is_of_search(each) else is_last_round
        if not is_returned(each) or not (each["type"] in _THINKING or is_wanted):
            continue
        text_to, calls_to = each.at
        if each["type"] == "text" and not message.content.startswith(each["text"], text_to):
            continue  # the text was changed
        yield from _encode_text(message.content[text_at:text_to])
        yield from map(_encode_call, message.tool_calls[calls_at:calls_to])
        text_at, calls_at = max(text_at, text_to), max(calls_at, calls_to)
        if each["type"] == "text":
            text_at += len(each["text"])
        yield dict(each)
    yield from _encode_text(message.content[text_at:])
    yield from map(_encode_call, message.tool_calls[calls_at:])


def _encode_text(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _encode_call(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": _encode_id(call.id),
        "name": call.name,
        "input": encode_arguments(call),
    }


def _encode_result(message: ChatMessage) -> dict[str, Any]:
    content: Any = message.content
    if message.images:
        content = [*_encode_text(message.content), *map(encode_image, message.images)]
    return {
        "type": "tool_result",
        "tool_use_id": _encode_id(message.tool_call_id),
        "content": content,
    }


def _encode_id(call_id: str) -> str:
    """Return an id with only characters that the service accepts: other services use more."""
    return _INVALID_ID_CHARACTERS.sub("_", call_id)


def _strip_trailing_space(block: dict[str, Any]) -> None:
    """Remove trailing whitespace, which the beginning of an answer to continue must not have."""
    if block["type"] == "text":
        block["text"] = block["text"].rstrip()


def build_messages_request(
    messages: Sequence[ChatMessage],
    model: str,
    parameters: ModelParameters,
    *,
    cache: bool = False,
) -> dict[str, Any]:
    """
    Return the body of ``POST /v1/messages``.

    With ``cache``, the tools, the system message and the conversation are marked to be cached.
    These are three of the four marks that a request may have.
    """
    system = "\n\n".join(
        each.content for each in messages if each.role == "system" and each.content.strip()
    )
    said = [each for each in messages if each.role != "system"]
    turns = _build_turns(said, searches=parameters.search)
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": output_limit(parameters),
        "messages": turns,
        "stream": True,
    }
    if system:
        body["system"] = [{"type": "text", "text": system}]
    for name in () if parameters.reasoning else ("temperature", "top_p"):  # refused with thinking
        if (value := getattr(parameters, name)) is not None:
            body[name] = value
    if parameters.stop:
        body["stop_sequences"] = list(parameters.stop)
    body |= _encode_tools(parameters) | _encode_thinking(parameters)
    if parameters.schema is not None:
        compilation = compile_schema(parameters.schema, ANTHROPIC)
        schema = compilation.schema if compilation else close_objects(dict(parameters.schema))
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    else:
        _request_citations(turns)
    if cache:
        _mark_for_cache(body)
    return {**body, **parameters.extra_body}


def _request_citations(turns: Sequence[Mapping[str, Any]]) -> None:
    """Let the model cite its documents, which the service refuses together with a schema."""
    for turn in turns:
        for block in turn["content"]:
            if block["type"] == "document":
                block["citations"] = {"enabled": True}


def _encode_tools(parameters: ModelParameters) -> dict[str, Any]:
    tools: list[dict[str, Any]] = [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": convert_tool_schema(tool.parameters),
        }
        for tool in parameters.tools
    ]
    if parameters.search:
        tools.append(dict(ANTHROPIC_TOOL))
    if not tools:
        return {}
    choice = parameters.tool_choice
    if choice is None:
        return {"tools": tools}
    kinds = {"auto": "auto", "none": "none", "required": "any"}
    chosen = {"type": kinds[choice]} if choice in kinds else {"type": "tool", "name": choice}
    return {"tools": tools, "tool_choice": chosen}


def output_limit(parameters: ModelParameters) -> int:
    """Return ``max_tokens`` of a request, which the service requires."""
    limit = parameters.max_tokens or DEFAULT_MAX_TOKENS
    budget = BUDGETS[level_of(parameters.reasoning)] if parameters.reasoning else 0
    # Thinking counts as output too, so the limit must leave enough tokens for the answer.
    return limit if limit > budget else limit + budget


def _encode_thinking(parameters: ModelParameters) -> dict[str, Any]:
    reasoning = parameters.reasoning
    if not reasoning:
        return {} if reasoning is None else {"thinking": {"type": "disabled"}}
    budget = BUDGETS[level_of(reasoning)]
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def use_adaptive_thinking(body: dict[str, Any]) -> None:
    """Replace the budget with an effort level, which newer models require."""
    budget = body.pop("thinking")["budget_tokens"]
    effort = next(name for name in ("low", "medium", "high", "max") if BUDGETS[name] >= budget)
    body["thinking"] = {"type": "adaptive"}
    body["output_config"] = {**body.get("output_config", {}), "effort": effort}


def has_thinking(body: Mapping[str, Any]) -> bool:
    """Return whether a request sends thinking blocks back."""
    return any(
        block["type"] in _THINKING for turn in body["messages"] for block in turn["content"]
    )


def remove_thinking(body: dict[str, Any]) -> None:
    """Remove thinking blocks, and disable thinking if the request continues a turn with calls."""
    for turn in body["messages"]:
        turn["content"] = [block for block in turn["content"] if block["type"] not in _THINKING]
    if _lacks_thinking(body["messages"]):
        body.pop("thinking", None)


def build_count_request(
    messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
) -> dict[str, Any]:
    """Return the body of ``POST /v1/messages/count_tokens``, a subset of the message request."""
    body = build_messages_request(messages, model, parameters)
    counted = ("model", "messages", "system", "tools", "tool_choice", "thinking")
    return {name: body[name] for name in counted if name in body}


def _mark_for_cache(body: dict[str, Any]) -> None:
    last = body["messages"][-1]["content"] if body["messages"] else None
    for blocks in (body.get("tools"), body.get("system"), last):
        if blocks:
            blocks[-1] = {**blocks[-1], **_CACHE_CONTROL}
