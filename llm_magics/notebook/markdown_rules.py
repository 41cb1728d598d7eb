"""Rules of the Markdown renderer: task lists, alignment of table columns, and TeX in brackets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token


_TASK = re.compile(r"\[([ xX])\](?=\s)")


def mark_tasks(state: StateCore) -> None:
    """
    Replace ``[ ]`` and ``[x]`` at the start of list items by ☐ and ☑.

    They are characters, not checkboxes, because a checkbox could not be used.
    """
    tokens = state.tokens
    for item, paragraph, text in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if item.type != "list_item_open" or paragraph.type != "paragraph_open":
            continue
        first = text.children[0] if text.children else None
        found = _TASK.match(first.content) if first is not None and first.type == "text" else None
        if first is not None and found is not None:
            box = "☐" if found[1] == " " else "☑"
            first.content = box + first.content[found.end() :]
            item.attrSet("style", "list-style:none")


# A number as in a report: with a sign, a currency, a unit of up to three letters, or a percentage.
_NUMBER = re.compile(
    r"[~≈<>±+\-\N{MINUS SIGN}$€£¥\s]*\d[\d,.'\s]*(?:[eE][+-]?\d+)?\s*[^\W\d]{0,3}%?"
)
_NO_VALUE = frozenset({"", "-", "–", "—", "n/a", "N/A"})

# A style per cell would make a huge table much larger.
_MAX_CELLS = 2_000


def align_tables(state: StateCore) -> None:
    """Align columns of numbers to the right and others to the left, where the text does not."""
    tokens = state.tokens
    start = 0
    for position, token in enumerate(tokens):
        if token.type == "table_open":
            start = position
        elif token.type == "table_close":
            _align_table(tokens[start:position])


def _align_table(tokens: Sequence[Token]) -> None:
    rows: list[list[tuple[Token, str]]] = []
    for token, content in pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append((token, content.content))
    if not rows or len(rows) * len(rows[0]) > _MAX_CELLS:
        return
    for column in zip(*rows, strict=False):
        side = "right" if _is_numeric([text for _, text in column[1:]]) else "left"
        for cell, _ in column:
            if cell.attrGet("style") is None:
                cell.attrSet("style", f"text-align:{side}")


def _is_numeric(texts: Sequence[str]) -> bool:
    values = [text for text in (text.strip(" *`") for text in texts) if text not in _NO_VALUE]
    return bool(values) and all(_NUMBER.fullmatch(text) for text in values)


# The closing bracket of a formula is looked for so far, so that a hostile text takes linear time.
_MAX_FORMULA_CHARS, _MAX_FORMULA_LINES = 4_000, 60

_CLOSING = {r"\(": r"\)", r"\[": r"\]"}


def parse_inline_formula(state: StateInline, silent: bool) -> bool:
    r"""Read ``\(x\)`` and ``\[x\]`` in a paragraph as a formula in the line and a displayed one."""
    opening, start = state.src[state.pos : state.pos + 2], state.pos + 2
    closing = _CLOSING.get(opening)
    end = state.src.find(closing, start, start + _MAX_FORMULA_CHARS) if closing else -1
    if end < 0 or not state.src[start:end].strip():
        return False
    if not silent:
        kind = "math_inline" if opening == r"\(" else "math_inline_double"
        state.push(kind, "math", 0).content = state.src[start:end]
    state.pos = end + 2
    return True


def parse_displayed_formula(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    r"""Read ``\[x\]``, with no text before or after it, as a displayed formula."""
    if state.is_code_block(start) or not _line(state, start).startswith(r"\["):
        return False
    for line in range(start, min(end, start + _MAX_FORMULA_LINES)):
        if state.sCount[line] < state.blkIndent and not state.isEmpty(line):
            return False  # the list item, or the like, ends here
        _, closing, rest = _line(state, line)[2 * (line == start) :].partition(r"\]")
        if not closing:
            continue
        content = state.getLines(start, line + 1, state.blkIndent, False).strip()[2:-2]
        if rest.strip() or not content.strip():
            return False  # it is a part of a paragraph
        if not silent:
            token = state.push("math_block", "math", 0)
            token.block, token.content, token.map = True, content, [start, line + 1]
            state.line = line + 1
        return True
    return False


def _line(state: StateBlock, line: int) -> str:
    return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]
