"""Packs of consecutive rows that share a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_magics.runtime.answer_bounds import text_tokens

# The tokens of the braces, the id and the names around a text.
_TOKENS_PER_ROW = 20

_CUT_MARK = " […]"


def pack(tokens: Sequence[int], max_tokens: int, max_rows: int) -> Iterator[range]:
    """
    Yield ranges of consecutive rows that share a prompt, as few as possible.

    Args:
        tokens: the tokens of each row, see `row_tokens`.
        max_tokens: the maximum tokens of a range. A longer row is alone in its range.
        max_rows: the maximum number of rows of a range.
    """
    start, total = 0, 0
    for row, size in enumerate(tokens):
        if row > start and (total + size > max_tokens or row - start >= max_rows):
            yield range(start, row)
            start, total = row, 0
        total += size
    if len(tokens) > start:
        yield range(start, len(tokens))


def row_tokens(text: str) -> int:
    """Return the estimated tokens of a row in a prompt."""
    return text_tokens(text) + _TOKENS_PER_ROW


def cut_text(text: str, max_tokens: int) -> str:
    """Return ``text``, or its beginning if it has more than ``max_tokens`` by `row_tokens`."""
    if row_tokens(text) <= max_tokens:
        return text
    size = 3 * max(0, max_tokens - _TOKENS_PER_ROW) - len(_CUT_MARK.encode())
    start = text.encode("utf-8", "replace")[: max(0, size)].decode("utf-8", "ignore")
    return start + _CUT_MARK
