"""
Footnotes of an answer: its sources, folded below it, and the searches of the service.

Titles, addresses and quotations come from web pages, so they are shown as text, and only addresses
of web pages are links. Nothing is fetched before a click: no icons and no previews.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from llm_magics._util.text import display_name, escape_controls, one_line, pluralize
from llm_magics.citations import Citation, Search, link_host
from llm_magics.notebook import markdown, styles
from llm_magics.notebook.display.output import Bundle
from llm_magics.notebook.frontend import display_mode
from llm_magics.runtime.response import Response

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

# The longest title, quotation and address, and the maximum number of quotations of one source.
_MAX_TITLE, _MAX_QUOTE, _MAX_URL, _MAX_QUOTES = 200, 300, 200, 5
# The maximum number of pages of one document that are named.
_MAX_PAGES = 20
# The maximum number of sources and of searches; `Response.citations` has all of them.
_MAX_SOURCES = 100


def show_footnotes(shell: InteractiveShell, response: Response, of: str = "") -> None:
    """Show the sources of ``response`` and its searches, if any; ``of`` names the model."""
    bundle = footnotes_bundle(response, of)
    if bundle is None:
        return
    if display_mode(shell) == "text":
        sys.stdout.write(f"{bundle['text/plain']}\n")
    else:
        shell.display_pub.publish(data=bundle, metadata={})


def footnotes_bundle(response: Response, of: str = "") -> Bundle | None:
    """Return the output with the sources and searches of ``response``; ``None`` without any."""
    sources = _group(response.sources)
    suggestions = [each for each in response.searches if each.url and link_host(each.url)]
    suggestions = suggestions[:_MAX_SOURCES]
    if not sources and not suggestions:
        return None
    named = f" of {display_name(of)}" if of else ""
    plain = [f"Sources{named}:"] if named else []
    plain += [line for source in sources[:_MAX_SOURCES] for line in _plain_lines(source)]
    plain += [f"Google Search: {_clean(each.query, _MAX_TITLE)}" for each in suggestions]
    html = _suggestions_html(suggestions) + _sources_html(sources, response.text, named)
    return {"text/plain": "\n".join(plain), "text/html": html}


def _group(citations: Iterable[Citation]) -> list[list[Citation]]:
    """Return the citations of each source, in the order of the numbers."""
    groups: dict[int, list[Citation]] = {}
    for each in citations:
        groups.setdefault(each.number, []).append(each)
    return [groups[number] for number in sorted(groups)]


def _plain_lines(source: Sequence[Citation]) -> Iterator[str]:
    first = source[0]
    address = f" {_clean(first.url, _MAX_URL)}" if first.url else ""
    where = _format_places(source)
    yield f"[{first.number}] {_title(first)}{f', {where}' if where else ''}{address}"


def _sources_html(sources: Sequence[Sequence[Citation]], text: str, named: str) -> str:
    if not sources:
        return ""
    items = "".join(_source_html(source, text) for source in sources[:_MAX_SOURCES])
    if len(sources) > _MAX_SOURCES:
        items += f"<div>The first {_MAX_SOURCES} are shown.</div>"
    count = pluralize(len(sources), "source")
    summary = f"<summary>{count}{escape(markdown.to_plain_text(named))}</summary>"
    return (
        f'<details class="mathjax_ignore" style="{styles.SMALL}">{summary}'
        f'<div style="margin:4px 0 0 1em">{items}</div></details>'
    )


def _source_html(source: Sequence[Citation], text: str) -> str:
    """Return a source with the passages that are quoted from it, or that it supports."""
    first = source[0]
    title = escape(_title(first))
    host = first.host
    if host:
        named = "" if _title(first) == host else f" ({escape(host)})"
        title = f"{_link(first.url, title)}{named}"
    elif first.url:
        title = f"{title} (no link: {escape(_clean(first.url, _MAX_URL))})"
    where = _format_places(source)
    parts = [f"[{first.number}] {title}{f', {escape(where)}' if where else ''}"]
    quotes = dict.fromkeys(_passage(each, text) for each in source)
    parts += [
        f'<div style="margin-left:1.5em">“{escape(quote)}”</div>'
        for quote in [each for each in quotes if each][:_MAX_QUOTES]
    ]
    return f'<div style="margin-bottom:4px;overflow-wrap:anywhere">{"".join(parts)}</div>'


def _suggestions_html(suggestions: Sequence[Search]) -> str:
    """Return links to the searches, which the terms of Google require to show."""
    if not suggestions:
        return ""
    links = " · ".join(
        _link(each.url, escape(_clean(each.query, _MAX_TITLE))) for each in suggestions
    )
    return f'<div class="mathjax_ignore" style="{styles.SMALL}">Google Search: {links}</div>'


def _link(url: str, html: str) -> str:
    return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{html}</a>'


def _title(citation: Citation) -> str:
    """Return the title of a source; without one, its host, its address or its number."""
    document = "" if citation.document is None else f"document {citation.document + 1}"
    named = _clean(citation.title, _MAX_TITLE) or citation.host
    return named or _clean(citation.url, _MAX_URL) or document or "a source without a title"


def _passage(citation: Citation, text: str) -> str:
    """Return the passage of the source; if it is unknown, the passage of the answer."""
    if citation.cited_text.strip():
        return _clean(citation.cited_text, _MAX_QUOTE)
    passage = text[citation.start : citation.end] if citation.start is not None else ""
    is_marker = len(passage) < 8 or "](" in passage
    return "" if is_marker else _clean(passage, _MAX_QUOTE)


def _format_places(source: Iterable[Citation]) -> str:
    """Return the pages of a document that are cited."""
    pages = [
        str(each.source_start)
        if each.source_end in (None, each.source_start)
        else f"{each.source_start}–{each.source_end}"
        for each in source
        if each.unit == "page" and each.source_start is not None
    ]
    different = list(dict.fromkeys(pages))
    listed = ", ".join(different[:_MAX_PAGES]) + (" …" if len(different) > _MAX_PAGES else "")
    return f"page {listed}" if listed else ""


def _clean(text: str, most: int) -> str:
    """Return ``text`` on one line, shortened, with deceptive characters escaped."""
    line = escape_controls(one_line(markdown.to_plain_text(text)).strip())
    return line if len(line) <= most else f"{line[: most - 1]}…"
