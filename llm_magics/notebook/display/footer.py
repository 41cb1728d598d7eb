"""
The footer of an answer: model, tokens, times and cost in one line.

Its values differ in each run, so it is a separate output, and an unattended notebook has none. Such
outputs are marked in their metadata; see `TRANSIENT_KEY`.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any, Literal

from llm_magics._util.text import display_name, format_usd
from llm_magics.host import TRANSIENT_KEY
from llm_magics.notebook import markdown, styles
from llm_magics.runtime.response import INTERRUPTED, Response
from llm_magics.wire.finish_reasons import is_cut


def show_transient(
    publish: Callable[..., Any], text: str, kind: Literal["footer", "hint"]
) -> None:
    """Publish a line that only interactive notebooks have, marked as such."""
    text = markdown.to_plain_text(text)
    small = styles.small(html.escape(text), "mathjax_ignore")
    publish(data={"text/plain": text, "text/html": small}, metadata={TRANSIENT_KEY: kind})


def show_footer(publish: Callable[..., Any], response: Response) -> None:
    """Publish the footer of ``response``."""
    show_transient(publish, format_footer(response), "footer")


def format_footer(response: Response) -> str:
    """Return the text of the footer of ``response``."""
    parts = [
        display_name(response.model),
        *_tokens(response),
        *_times(response),
        *_ending(response),
    ]
    return " · ".join(part for part in parts if part)


def _tokens(response: Response) -> list[str]:
    read, written = response.usage.input_tokens, response.usage.output_tokens
    if read is None and written is None:
        return []
    known = ["?" if count is None else f"{count:,}" for count in (read, written)]
    thought, searches = response.usage.reasoning_tokens, response.usage.searches
    searched = [] if searches is None else [_count_searches(searches)]
    return [
        f"{known[0]} → {known[1]} tokens" + (f" ({thought:,} thinking)" if thought else ""),
        *searched,
    ]


def _count_searches(count: int) -> str:
    return "1 search" if count == 1 else f"{count:,} searches"


def _times(response: Response) -> list[str]:
    timing = response.timing
    parts = []
    if timing.load_s >= 0.05:
        parts.append(f"{timing.load_s:.1f} s to load")
    if timing.e2e_s is not None:
        parts.append(f"{timing.e2e_s:.1f} s")
    if timing.tokens_per_s is not None:
        parts.append(f"{timing.tokens_per_s:,.0f} tokens/s")
    return parts


def _ending(response: Response) -> list[str]:
    parts = []
    if response.cached:
        parts.append("cached")
    elif response.cost_usd:
        parts.append(format_usd(response.cost_usd))
    if is_cut(response.finish_reason):
        parts.append("cut at max_tokens")
    if response.finish_reason == INTERRUPTED:
        parts.append("interrupted")
    return parts
