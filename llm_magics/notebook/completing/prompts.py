"""What can stand between ``{{`` and ``}}``: the notebook's names, and the filters behind a bar."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llm_magics.notebook.completing.lines import Offer, variables

# Open at the cursor, up to the word that is being written.
_OPEN = re.compile(r"\{\{(?!.*\}\})(?P<before>.*?)(?P<word>\w*)$")
_ASKING = re.compile(r"\s*%%?llm\b")


def offer(text: str, cursor_line: int, before: str) -> Offer | None:
    """What could follow ``before``, the cursor's line up to it, in a cell of ``text``."""
    lines = text.splitlines()
    is_ours = _ASKING.match(before) or (cursor_line > 0 and _ASKING.match(lines[0]))
    found = _OPEN.search(before)
    if not is_ours or found is None:
        return None
    past, word = found["before"].rstrip(), found["word"]
    if past.endswith("|"):
        return Offer("filter", _filters(), word)
    if past.endswith((".", "'", '"')):
        return None  # an attribute or a text: Python knows more of these
    return Offer("variable", variables(), word)


def _filters() -> Iterable[str]:
    from llm_magics.runtime.prompts.templates import filters

    return filters()
