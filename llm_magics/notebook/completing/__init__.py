"""Tab completion on the lines of the magics, and within ``{{ }}``. It never asks the network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from IPython.core.completer import SimpleCompletion, context_matcher

from llm_magics._util.terminal import word
from llm_magics.notebook.completing import lines, prompts
from llm_magics.notebook.completing.lines import Offer

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext

_LINE = re.compile(r"^\s*(%%?(?:llm|embed))\s(.*)$")


@context_matcher(identifier="llm_magics.complete")
def complete(context: CompletionContext) -> dict[str, Any]:
    """What could be written at the cursor; nothing where that is not ours to say."""
    before = context.line_with_cursor[: context.cursor_position]
    offer = prompts.offer(context.full_text, context.cursor_line, before) or _of_line(
        before, context.cursor_line
    )
    if offer is None:
        return {"completions": []}
    matching = [text for name in offer.names if (text := _written(name, offer))]
    return {
        "completions": [SimpleCompletion(text=name, type=offer.kind) for name in sorted(matching)],
        "matched_fragment": offer.fragment,
        "suppress": bool(matching),
    }


def _written(name: str, offer: Offer) -> str | None:
    """Return what to write for ``name``, if ``offer.fragment`` begins it and a line can hold it."""
    spelled = word(name) if offer.kind == "model" else name
    return (
        spelled
        if spelled and (name.startswith(offer.fragment) or spelled.startswith(offer.fragment))
        else None
    )


def _of_line(before: str, cursor_line: int) -> Offer | None:
    found = _LINE.match(before)
    if found is None or (cursor_line != 0 and found[1].startswith("%%")):
        return None
    return lines.offer(*found.groups())
