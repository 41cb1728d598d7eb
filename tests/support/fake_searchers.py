"""
Services that search the web, without a web: they check the tool, and cite two made-up pages.

What they accept and answer is typed by the official packages: anthropic 2.14.0, openai 3.57.0 and
google-genai 3.6.1. OpenRouter's tool and annotations are as documented in November 2026.
"""

from __future__ import annotations

import json
from typing import Any

from anthropic import types as claude
from openai.types.responses.web_search_tool_param import WebSearchToolParam

from tests.support import fake_anthropic, fake_openai
from tests.support.serving import Asked, Says, as_json

# An astral character before the passages, so that bytes, code units and characters differ.
OPENING = "Ärger 🌧️: "
FIRST, SECOND = "It rains in Oslo.", "Rome is dry."
ANSWER = f"{OPENING}{FIRST} {SECOND}"
PAGES = [("Weather in Oslo", "https://yr.example/oslo"), ("Weather in Rome", "https://meteo.example/roma")]  # fmt: skip
QUERIES = ["weather Oslo", "weather Rome"]
SECRET = "encrypted-of-this-answer"


def sse(*events: dict[str, Any], named: bool = True) -> list[bytes]:
    """Events of a stream."""
    head = [f"event: {each['type']}\n" if named else "" for each in events]
    return [
        f"{name}data: {json.dumps(each)}\n\n".encode()
        for name, each in zip(head, events, strict=True)
    ]


def missing_or_unknown(value: dict[str, Any], kind: Any) -> str:
    """What the service finds wrong with the fields of an object of a request."""
    unknown = sorted(value.keys() - kind.__annotations__.keys())
    missing = sorted(kind.__required_keys__ - value.keys())
    if unknown:
        return f"{unknown[0]}: Extra inputs are not permitted"
    return f"{missing[0]}: Field required" if missing else ""


def _cited(number: int, quote: str) -> dict[str, Any]:
    title, url = PAGES[number]
    return {
        "type": "web_search_result_location",
        "cited_text": quote,
        "encrypted_index": f"{SECRET}-{number}",
        "title": title,
        "url": url,
    }


class SearchingClaude:
    """
    Anthropic with its web search tool.

    Args:
        pauses: the number of pauses before the answer.
        error: the error of its second search.
        streams: whether the answer is streamed, or one JSON body.
        hostile: a further citation of the answer.
    """

    def __init__(
        self,
        *,
        pauses: int = 0,
        error: str = "",
        streams: bool = True,
        hostile: dict[str, Any] | None = None,
    ) -> None:
        self.pauses, self.error, self.streams = pauses, error, streams
        self.more = [hostile] if hostile else []

    def __call__(self, asked: Asked) -> Says:
        body = asked.json()
        wrong = self.wrong(body)
        if wrong:
            return fake_anthropic.refusal("invalid_request_error", wrong, 400)
        if "old" in body["model"]:
            words = f"'{body['model']}' does not support tool types: web_search_20250305."
            return fake_anthropic.refusal("invalid_request_error", words, 400)
        return self.answer(body)

    def wrong(self, body: dict[str, Any]) -> str:
        """What it finds wrong: the tool, or blocks that it did not send like that."""
        faults = [
            f"tools.0.{missing_or_unknown(tool, claude.WebSearchTool20250305Param)}"
            for tool in body.get("tools", ())
            if tool.get("type") == "web_search_20250305"
            and missing_or_unknown(tool, claude.WebSearchTool20250305Param)
        ]
        known: set[str] = set()
        blocks = [block for turn in body["messages"] for block in turn["content"]]
        faults += [self.wrong_block(block, known) for block in blocks]
        return next(filter(None, faults), "")

    def wrong_block(self, block: dict[str, Any], known: set[str]) -> str:
        """What it finds wrong with a block; ``known`` are the results before it."""
        kinds: dict[str, Any] = {
            "server_tool_use": claude.ServerToolUseBlockParam,
            "web_search_tool_result": claude.WebSearchToolResultBlockParam,
            "text": claude.TextBlockParam,
        }
        if block["type"] not in kinds:
            return f"Input tag '{block['type']}' found using 'type' does not match"
        if fault := missing_or_unknown(block, kinds[block["type"]]):
            return f"messages: {fault}"
        if block["type"] == "web_search_tool_result" and isinstance(block["content"], list):
            known |= {each["encrypted_content"] for each in block["content"]}
        for cited in block.get("citations") or ():
            if fault := missing_or_unknown(cited, claude.CitationWebSearchResultLocationParam):
                return f"citations: {fault}"
            if cited["encrypted_index"] not in known:
                return "messages: Could not find search result for citation index"
        return ""

    def answer(self, body: dict[str, Any]) -> Says:
        """Two searches and the text that cites them; paused before, as often as asked for."""
        sent = [block for turn in body["messages"] for block in turn["content"]]
        pauses = sum(block["type"] == "server_tool_use" for block in sent)
        if pauses < self.pauses:
            blocks = [*self.search(pauses), {"type": "text", "text": "", "citations": None}]
            return self.say(blocks, "pause_turn", 1)
        blocks = [
            {"type": "text", "text": OPENING},
            *self.search(0),
            *self.search(1),
            {"type": "text", "text": FIRST, "citations": [_cited(0, "rain all day"), _cited(1, "wet")]},
            {"type": "text", "text": " "},
            {"type": "text", "text": SECOND, "citations": [_cited(1, "sunny, dry"), *self.more]},
        ]  # fmt: skip
        if not body.get("tools"):
            return self.say([{"type": "text", "text": ANSWER}], "end_turn", 0)
        return self.say(blocks, "end_turn", 2)

    def search(self, number: int) -> list[dict[str, Any]]:
        title, url = PAGES[number % 2]
        use = {"type": "server_tool_use", "id": f"srvtoolu_{number}", "name": "web_search", "input": {"query": QUERIES[number % 2]}}  # fmt: skip
        content: Any = [
            {"type": "web_search_result", "title": title, "url": url, "encrypted_content": f"{SECRET}-{number}", "page_age": None}
        ]  # fmt: skip
        if self.error and number:
            content = {"type": "web_search_tool_result_error", "error_code": self.error}
        result = {"type": "web_search_tool_result", "tool_use_id": use["id"], "content": content}
        return [use, result]

    def say(self, blocks: list[dict[str, Any]], stop: str, searches: int) -> Says:
        tools = {"web_search_requests": searches, "web_fetch_requests": 0}
        usage = {"input_tokens": 100, "output_tokens": 20, "server_tool_use": tools}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": fake_anthropic.CHAT, "content": [], "stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": 1, "server_tool_use": None}}  # fmt: skip
        if not self.streams:
            whole = {**message, "content": blocks, "stop_reason": stop, "usage": usage}
            return as_json(claude.Message.model_validate(whole).model_dump(mode="json", exclude_unset=True))  # fmt: skip
        events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
        for index, block in enumerate(blocks):
            events += self.streamed(index, block)
        ended = {"stop_reason": stop, "stop_sequence": None}
        events += [
            {"type": "message_delta", "delta": ended, "usage": usage},
            {"type": "message_stop"},
        ]
        return Says(sse(*events))

    def streamed(self, index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
        deltas: list[dict[str, Any]] = []
        begun = block
        if block["type"] == "text":
            begun = {**block, "text": "", "citations": [] if block.get("citations") else None}
            cited = [
                {"type": "citations_delta", "citation": each}
                for each in block.get("citations") or ()
            ]
            half = len(block["text"]) // 2
            texts = [
                {"type": "text_delta", "text": each}
                for each in (block["text"][:half], block["text"][half:])
                if each
            ]
            deltas = [*texts[:1], *cited, *texts[1:]]
        elif block["type"] == "server_tool_use":
            begun = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        return [
            {"type": "content_block_start", "index": index, "content_block": begun},
            *({"type": "content_block_delta", "index": index, "delta": each} for each in deltas),
            {"type": "content_block_stop", "index": index},
        ]  # fmt: skip


class SearchingResponses:
    """OpenAI's Responses with ``web_search``; ``counts`` are further fields of its response."""

    def __init__(self, *, streams: bool = True, status: str = "completed", **counts: Any) -> None:
        self.streams, self.status, self.counts = streams, status, counts

    def __call__(self, asked: Asked) -> Says:
        if asked.path != "/responses":
            return fake_openai.refusal(
                "unknown_parameter", f"Invalid URL (POST {asked.path})", 404
            )
        body = asked.json()
        for tool in body.get("tools", ()):
            if tool["type"] == "web_search" and (
                fault := missing_or_unknown(tool, WebSearchToolParam)
            ):
                return fake_openai.refusal("unknown_parameter", f"tools[0].{fault}", 400, "tools")
        if "nano" in body["model"]:
            words = f"Hosted tool 'web_search' is not supported with {body['model']}."
            return fake_openai.refusal("unsupported_parameter", words, 400, "tools")
        return self.answer(body)

    def answer(self, body: dict[str, Any]) -> Says:
        part = {"type": "output_text", "text": f"{FIRST} {SECOND}", "logprobs": [], "annotations": [
            _annotation(0, 0, len(FIRST)), _annotation(1, len(FIRST) + 1, len(FIRST) + 1 + len(SECOND)),
        ]}  # fmt: skip
        items: list[dict[str, Any]] = [
            {"id": "msg_0", "type": "message", "status": "completed", "role": "assistant", "content": [
                {"type": "output_text", "text": OPENING, "annotations": [], "logprobs": []}]},
            *({"id": f"ws_{number}", "type": "web_search_call", "status": self.status, "action": {"type": "search", "query": query, "queries": [query]}}
              for number, query in enumerate(QUERIES)),
            {"id": "ws_9", "type": "web_search_call", "status": "completed", "action": {"type": "open_page", "url": PAGES[0][1]}},
            {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]},
        ]  # fmt: skip
        usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}  # fmt: skip
        usage |= self.counts.get("usage", {})
        whole = {"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"], "status": "completed", "output": items, "parallel_tool_calls": True, "tool_choice": "auto", "tools": body.get("tools", []), **self.counts, "usage": usage}  # fmt: skip
        if not self.streams:
            return as_json(whole)
        events: list[dict[str, Any]] = [{"type": "response.created", "sequence_number": 0, "response": {**whole, "status": "in_progress", "output": [], "usage": None}}]  # fmt: skip
        for place, item in enumerate(items):
            begun = {**item, "content": []} if item["type"] == "message" else item
            events.append(
                {"type": "response.output_item.added", "output_index": place, "item": begun}
            )
            for each in item.get("content", ()):
                events += _streamed_part(place, item["id"], each)
            events.append(
                {"type": "response.output_item.done", "output_index": place, "item": item}
            )
        events.append({"type": "response.completed", "response": whole})
        numbered = [{**each, "sequence_number": number} for number, each in enumerate(events)]
        return Says(sse(*numbered))


def _annotation(number: int, start: int, end: int) -> dict[str, Any]:
    title, url = PAGES[number]
    return {
        "type": "url_citation",
        "start_index": start,
        "end_index": end,
        "title": title,
        "url": url,
    }


def _streamed_part(place: int, item: str, part: dict[str, Any]) -> list[dict[str, Any]]:
    where = {"output_index": place, "item_id": item, "content_index": 0}
    half = len(part["text"]) // 2
    deltas = [
        {"type": "response.output_text.delta", **where, "delta": text, "logprobs": []}
        for text in (part["text"][:half], part["text"][half:])
    ]
    added = [
        {"type": "response.output_text.annotation.added", **where, "annotation_index": number, "annotation": each}
        for number, each in enumerate(part["annotations"])
    ]  # fmt: skip
    empty = {**part, "text": "", "annotations": []}
    return [
        {"type": "response.content_part.added", **where, "part": empty},
        *deltas,
        *added,
        {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **where, "part": part},
    ]


class SearchingRouter:
    """OpenRouter with its server tool; ``lists`` are the fields of Perplexity instead."""

    def __init__(self, *, streams: bool = True, lists: dict[str, Any] | None = None) -> None:
        self.streams, self.lists = streams, lists

    def __call__(self, asked: Asked) -> Says:
        body = asked.json()
        tools = [tool for tool in body.get("tools", ()) if tool["type"] != "function"]
        if any(tool != {"type": "openrouter:web_search"} for tool in tools):
            return as_json({"error": {"message": "Invalid tool", "code": 400}}, 400)
        start = len(OPENING)
        cited = [
            {"type": "url_citation", "url_citation": {"title": title, "url": url, "content": "rain", "start_index": at, "end_index": at + len(text)}}
            for (title, url), text, at in zip(PAGES, (FIRST, SECOND), (start, start + len(FIRST) + 1), strict=True)
        ]  # fmt: skip
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "server_tool_use": {"web_search_requests": 2}}  # fmt: skip
        text, said = ANSWER, {"annotations": cited}
        if self.lists is not None:
            text, said = f"{OPENING}{FIRST}[1] {SECOND}[2][1]", {}
            usage = {"prompt_tokens": 100, "completion_tokens": 20, "num_search_queries": 3}
        more = self.lists or {}
        message = {"role": "assistant", "content": text, **said}
        whole = {"id": "gen-1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": usage, **more}  # fmt: skip
        if not self.streams:
            return as_json(whole)
        half = len(text) // 2
        deltas = [{"content": text[:half]}, {"content": text[half:]}, {"content": "", **said}]
        events = [
            {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": each, "finish_reason": None}], **more}
            for each in deltas
        ]  # fmt: skip
        events.append({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage, **more})  # fmt: skip
        return Says([*sse(*events, named=False), b"data: [DONE]\n\n"])


def grounding(*, in_part: int = 0) -> dict[str, Any]:
    """The metadata of an answer of Gemini; its offsets count bytes."""
    size = {text: len(text.encode()) for text in (OPENING, FIRST, SECOND)}
    first = 0 if in_part else size[OPENING]
    second = first + size[FIRST] + 1
    part = {"partIndex": in_part} if in_part else {}
    return {
        "webSearchQueries": [QUERIES[0], "", QUERIES[1], QUERIES[0]],
        "searchEntryPoint": {"renderedContent": "<style>x</style><div>…</div>"},
        "groundingChunks": [{"web": {"title": title, "uri": url}} for title, url in PAGES],
        "groundingSupports": [
            {"segment": {"startIndex": first, "endIndex": first + size[FIRST], "text": FIRST, **part}, "groundingChunkIndices": [0, 1, 7]},
            {"segment": {"startIndex": second, "endIndex": second + size[SECOND], "text": SECOND, **part}, "groundingChunkIndices": [1]},
        ],
    }  # fmt: skip


class SearchingGemini:
    """Gemini with ``googleSearch``; ``in_part`` puts the opening into a part before the rest."""

    def __init__(self, *, streams: bool = True, in_part: int = 0) -> None:
        self.streams, self.in_part = streams, in_part

    def __call__(self, asked: Asked) -> Says:
        body = asked.json()
        tools = body.get("tools", [])
        names = {name for tool in tools for name in tool}
        if names - {"googleSearch", "functionDeclarations"}:
            return _invalid("Invalid JSON payload received. Unknown name at 'tools[0]'.")
        combined = len(names) == 2 and not body.get("toolConfig", {}).get("includeServerSideToolInvocations")  # fmt: skip
        if combined:
            return _invalid("Please enable tool_config.include_server_side_tool_invocations to use Built-in tools with Function calling.")  # fmt: skip
        if "gemma" in asked.path and tools:
            return _invalid("Search Grounding is not supported.")
        rest = ANSWER[len(OPENING) :]
        texts = (
            [OPENING, rest] if not self.streams and self.in_part else [OPENING, rest[:9], rest[9:]]
        )
        usage = {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120}
        last = {"finishReason": "STOP", "groundingMetadata": grounding(in_part=self.in_part)}
        if not self.streams:
            parts = [{"text": text} for text in (texts if self.in_part else [ANSWER])]
            content = {"parts": parts, "role": "model"}
            return as_json({"candidates": [{"index": 0, "content": content, **last}], "usageMetadata": usage})  # fmt: skip
        contents = [{"parts": [{"text": text}], "role": "model"} for text in texts]
        events: list[dict[str, Any]] = [{"candidates": [{"index": 0, "content": each}]} for each in contents]  # fmt: skip
        events[-1]["candidates"][0] |= last
        events[-1]["usageMetadata"] = usage
        return Says(sse(*events, named=False))


def _invalid(message: str) -> Says:
    return as_json({"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}, 400)
