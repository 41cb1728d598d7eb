"""
One line under an answer: who gave it, and what it took.

It is an output of its own, and its figures differ from run to run: a notebook saved with it is
not the one that runs by itself. So it is shown where the user wants it, and somebody watches.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from llm_magics._util.terminal import shown_name
from llm_magics._util.text import dollars
from llm_magics.completeness import is_cut
from llm_magics.notebook import inert
from llm_magics.runtime.response import INTERRUPTED, Response


def show(publish: Callable[..., Any], response: Response) -> None:
    """Publish the footer of ``response``."""
    words = line(response)
    small = f'<small class="mathjax_ignore" style="opacity: 0.7">{html.escape(words)}</small>'
    publish(data={"text/plain": words, "text/html": small}, metadata={})


def line(response: Response) -> str:
    """The footer of ``response`` in words."""
    parts = [shown_name(response.model), *_tokens(response), *_times(response), *_ending(response)]
    return inert.plain(" · ".join(part for part in parts if part))


def _tokens(response: Response) -> list[str]:
    read, written = response.usage.input_tokens, response.usage.output_tokens
    if read is None and written is None:
        return []
    known = ["?" if count is None else f"{count:,}" for count in (read, written)]
    return [f"{known[0]} → {known[1]} tokens"]


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
        parts.append("given before")
    elif response.cost_usd:
        parts.append(dollars(response.cost_usd))
    if is_cut(response.finish_reason):
        parts.append("cut at max_tokens")
    if response.finish_reason == INTERRUPTED:
        parts.append("interrupted")
    return parts
