"""
The web search tools of services, and the citations in their answers.

| format | tool | citations |
|---|---|---|
| OpenAI Responses (OpenAI, xAI, Perplexity) | ``web_search`` | annotations of the text; Perplexity: markers such as ``[1]`` and a list of results |
| chat completions (OpenRouter) | ``openrouter:web_search`` | annotations of the message |
| Anthropic | ``web_search_20250305`` | blocks of text with citations |
| Gemini | ``googleSearch`` | ``groundingMetadata``, with offsets in bytes |

Sources (November 2026): https://developers.openai.com/api/docs/guides/tools-web-search,
https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool,
https://ai.google.dev/gemini-api/docs/google-search, https://docs.x.ai/developers/tools/citations,
https://openrouter.ai/docs/guides/features/server-tools/web-search, and the types of openai 3.57.0,
anthropic 2.14.0, google-genai 3.6.1 and perplexityai 0.46.1. OpenAI removed its chat models with
web search on 2026-07-23, and xAI the parameter ``search_parameters`` of its chats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any
from urllib.parse import quote_plus

from llm_magics._util.text import count_or_none
from llm_magics.citations import Citation, Search

# The maximum number of searches per answer where the service has a limit, and for estimates.
MAX_SEARCHES = 5

ANTHROPIC_TOOL = {"type": "web_search_20250305", "name": "web_search", "max_uses": MAX_SEARCHES}
GEMINI_TOOL: dict[str, Any] = {"googleSearch": {}}
OPENROUTER_TOOL = {"type": "openrouter:web_search"}
RESPONSES_TOOL = {"type": "web_search"}

# The fields of an answer in the chat format that list its sources.
SOURCE_FIELDS = frozenset({"citations", "search_results"})


def has_search_tool(body: Mapping[str, Any]) -> bool:
    """Return whether a request in one of OpenAI's formats has a search tool."""
    kinds = {OPENROUTER_TOOL["type"], RESPONSES_TOOL["type"]}
    return any(tool.get("type") in kinds for tool in _mappings(body.get("tools")))


def _mappings(values: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the objects in a list of a service; anything else is skipped."""
    if isinstance(values, list | tuple):
        yield from (each for each in values if isinstance(each, Mapping))


def parse_annotations(annotations: Any, base: int = 0) -> list[Citation]:
    """
    Return the citations in annotations of OpenAI's formats, flat or nested.

    Args:
        annotations: the list in a part of a response, in a message, or in a delta.
        base: the number of characters of the answer before the annotated text.
    """
    found = []
    for annotation in _mappings(annotations):
        nested = annotation.get("url_citation")
        facts = nested if isinstance(nested, Mapping) else annotation
        if annotation.get("type") not in ("url_citation", None) or not facts.get("url"):
            continue
        citation = Citation(
            title=facts.get("title") or "",
            url=facts.get("url") or "",
            cited_text=facts.get("content") or "",
            start=facts.get("start_index"),
            end=facts.get("end_index"),
        )
        found.append(citation.moved(base))
    return found


def parse_response_items(items: Any) -> tuple[list[Citation], list[Search]]:
    """
    Return the citations and searches in all output items of a response.

    Perplexity's responses have a list of results, and markers in the text instead of annotations.
    """
    citations: list[Citation] = []
    sources: list[Citation] = []
    searches: list[Search] = []
    text = ""
    for item in _mappings(items):
        kind = item.get("type")
        if kind == "message":
            for part in _mappings(item.get("content")):
                citations += parse_annotations(part.get("annotations"), len(text))
                text += part.get("text") or part.get("refusal") or ""
        elif kind == "web_search_call":
            searches += _parse_search_call(item)
        elif kind == "search_results":
            sources += parse_sources(item.get("results"))
            queries = item.get("queries")
            searches += [Search(query=each) for each in queries or [""]]
    return citations or place_markers(text, sources), searches


def _parse_search_call(item: Mapping[str, Any]) -> list[Search]:
    """Return the searches of a call; opening a page, or finding words in it, does not count."""
    action = item.get("action")
    action = action if isinstance(action, Mapping) else {}
    if action.get("type", "search") != "search":
        return []
    error = "failed" if item.get("status") == "failed" else ""
    queries = action.get("queries") or [action.get("query") or ""]
    return [Search(query=each, error=error) for each in queries if isinstance(each, str)]


def parse_sources(results: Any) -> list[Citation]:
    """Return the numbered sources in a list of addresses or of search results, as Perplexity's."""
    found = []
    for position, result in enumerate(results if isinstance(results, list) else (), 1):
        if isinstance(result, str):
            found.append(Citation(number=position, url=result))
        elif isinstance(result, Mapping) and result.get("url"):
            found.append(
                Citation(
                    number=count_or_none(result.get("id")) or position,
                    title=result.get("title") or "",
                    url=result["url"],
                    cited_text=result.get("snippet") or "",
                )
            )
    return found


_MARKER = re.compile(r"\[(\d{1,3})\]")


def place_markers(text: str, sources: Sequence[Citation]) -> list[Citation]:
    """Return a citation for each marker such as ``[1]`` in ``text``, and for unmarked sources."""
    by_number = {source.number: source for source in sources}
    placed = [
        replace(by_number[int(found[1])], start=found.start(), end=found.end())
        for found in _MARKER.finditer(text)
        if int(found[1]) in by_number
    ]
    marked = {citation.number for citation in placed}
    return [*placed, *(each for each in by_number.values() if each.number not in marked)]


class ChatSources:
    """
    The sources of an answer in the chat format: annotations, or a list and markers in the text.

    A service repeats its list in every event, and `take` returns the citations once, at the end.
    """

    def __init__(self) -> None:
        self.text: list[str] = []
        self._annotated: list[Citation] = []
        self._listed: list[Citation] = []

    def annotate(self, annotations: Any) -> None:
        """Add the annotations of a delta or a message."""
        self._annotated += parse_annotations(annotations)

    def add(self, event: Mapping[str, Any]) -> None:
        """Read the list in an event; search results have more facts than addresses alone."""
        listed = parse_sources(event.get("search_results")) or parse_sources(
            event.get("citations")
        )
        self._listed = listed or self._listed

    def take(self) -> tuple[Citation, ...]:
        """Return the citations so far."""
        found = self._annotated or place_markers("".join(self.text), self._listed)
        self._annotated, self._listed = [], []
        return tuple(found)


def count_chat_searches(usage: Mapping[str, Any]) -> int | None:
    """Return the number of searches in the usage of a chat: OpenRouter's or Perplexity's."""
    tools = usage.get("server_tool_use")
    if isinstance(tools, Mapping):
        return count_or_none(tools.get("web_search_requests"))
    return count_or_none(usage.get("num_search_queries"))


def count_response_searches(response: Mapping[str, Any], searches: int) -> int | None:
    """
    Return the number of billed searches of a response.

    OpenAI, xAI and Perplexity report it in different fields; without any, ``searches`` counts if
    the request had the tool.
    """
    usage = response.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    for reported in (
        _dig(response, "tool_usage", "web_search", "num_requests"),
        _dig(usage, "server_side_tool_usage_details", "web_search_calls"),
        _dig(usage, "tool_calls_details", "web_search", "invocation"),
        _dig(usage, "tool_calls_details", "search_web", "invocation"),
    ):
        if (count := count_or_none(reported)) is not None:
            return count
    tools = {tool.get("type") for tool in _mappings(response.get("tools"))}
    return searches if searches or RESPONSES_TOOL["type"] in tools else None


def _dig(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


_UNITS: Mapping[str, tuple[str, str, str]] = {
    "char_location": ("character", "start_char_index", "end_char_index"),
    "page_location": ("page", "start_page_number", "end_page_number"),
    "content_block_location": ("block", "start_block_index", "end_block_index"),
    "search_result_location": ("block", "start_block_index", "end_block_index"),
}


def parse_block_citations(citations: Any, start: int, end: int) -> list[Citation]:
    """Return the citations of a block of text of Anthropic's, which is at ``start`` to ``end``."""
    found = []
    for each in _mappings(citations):
        unit, first, last = _UNITS.get(str(each.get("type")), ("", "", ""))
        source_end = count_or_none(each.get(last))
        if unit == "page" and source_end is not None:
            source_end -= 1  # the service reports the page after the last one
        source = each.get("url") or each.get("source")
        found.append(
            Citation(
                title=each.get("title") or each.get("document_title") or "",
                url=source or "",
                cited_text=each.get("cited_text") or "",
                start=start,
                end=end,
                document=each.get("document_index"),
                unit=unit,  # type: ignore[arg-type]
                source_start=each.get(first),
                source_end=source_end,
            )
        )
    return found


def parse_block_search(block: Mapping[str, Any], queries: dict[str, str]) -> list[Search]:
    """
    Return the search of a block of Anthropic's with results or an error.

    Args:
        block: any block of an answer.
        queries: the words of the searches so far, by id; those of ``block`` are added.
    """
    if block.get("type") == "server_tool_use" and block.get("name") == "web_search":
        queries[str(block.get("id"))] = str(_dig(block, "input", "query") or "")
    if block.get("type") != "web_search_tool_result":
        return []
    content = block.get("content")
    error = content.get("error_code") or "error" if isinstance(content, Mapping) else ""
    return [Search(query=queries.get(str(block.get("tool_use_id")), ""), error=error)]


# More passages than an answer has; placing each of them takes time for the whole answer.
_MAX_SUPPORTS = 2000

_SUGGESTION_URL = "https://www.google.com/search?q="


def parse_grounding(
    metadata: Mapping[str, Any], parts: Sequence[str]
) -> tuple[list[Citation], list[Search]]:
    """
    Return the citations and searches in the grounding metadata of Gemini.

    The terms of the service require to show its search suggestions, so each search has the address
    of its results.

    Args:
        metadata: the metadata.
        parts: the texts of the parts of the answer.
    """
    chunks = metadata.get("groundingChunks")
    pages = [_parse_page(each) for each in (chunks if isinstance(chunks, list) else ())]
    citations = []
    cited: set[int] = set()
    for support in islice(_mappings(metadata.get("groundingSupports")), _MAX_SUPPORTS):
        segment = support.get("segment")
        start, end = _place(segment if isinstance(segment, Mapping) else {}, parts)
        for index in support.get("groundingChunkIndices") or ():
            if type(index) is int and 0 <= index < len(pages) and pages[index]:
                cited.add(index)
                citations.append(Citation(**pages[index], start=start, end=end))
    citations += [
        Citation(**page) for index, page in enumerate(pages) if page and index not in cited
    ]
    return citations, [
        Search(query=query, url=f"{_SUGGESTION_URL}{quote_plus(query)}")
        for query in _queries(metadata)
    ]


def _queries(metadata: Mapping[str, Any]) -> list[str]:
    """Return the different queries; the service does not bill empty ones."""
    queries = metadata.get("webSearchQueries")
    words = [each for each in (queries if isinstance(queries, list) else ()) if each]
    return list(dict.fromkeys(each for each in words if isinstance(each, str)))


def _parse_page(chunk: Any) -> dict[str, Any]:
    """Return the number, the title and the address of a source; empty if it has none."""
    for kind in ("web", "retrievedContext", "maps"):
        page = chunk.get(kind) if isinstance(chunk, Mapping) else None
        if isinstance(page, Mapping) and (page.get("uri") or page.get("title")):
            return {
                "title": page.get("title") or page.get("domain") or "",
                "url": page.get("uri") or "",
                "cited_text": page.get("text") or "",
            }
    return {}


def _place(segment: Mapping[str, Any], parts: Sequence[str]) -> tuple[int | None, int | None]:
    """
    Return the position of a segment in the answer, in characters.

    The service counts bytes from the start of a part, or of the whole text of a streamed answer.
    The text of the segment decides which of both.
    """
    whole, quoted = "".join(parts), segment.get("text")
    first, last = segment.get("startIndex") or 0, segment.get("endIndex")
    if type(first) is not int or type(last) is not int:
        return None, None
    number = segment.get("partIndex") or 0
    before = parts[: number if type(number) is int else 0]
    for base in dict.fromkeys((len("".join(before)), 0)):
        text = whole[base:].encode("utf-8", "surrogatepass")
        start = len(text[:first].decode("utf-8", "ignore"))
        end = len(text[:last].decode("utf-8", "ignore"))
        if not quoted or whole[base + start : base + end] == quoted:
            return base + start, base + end
    if not isinstance(quoted, str) or quoted not in whole:
        return None, None
    at = whole.index(quoted)
    return at, at + len(quoted)
