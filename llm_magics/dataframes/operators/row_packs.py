"""Packs of consecutive rows that share a prompt, and how many tokens they may have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_magics._async.bridge import bridge
from llm_magics.providers.base import ModelInfo
from llm_magics.providers.model_catalog import complete_info
from llm_magics.runtime.answer_bounds import text_tokens
from llm_magics.runtime.routing import find_route
from llm_magics.runtime.session import session

# The tokens of the braces, the id and the names around a text.
_TOKENS_PER_ROW = 20

_CUT_MARK = " […]"

# The context of a model whose size is unknown; local models often have no larger one.
_UNKNOWN_CONTEXT = 4096

# The part of the context that a prompt and its answer may fill. Long prompts are answered worse.
_SHARE = 0.6
_MOST_TOKENS = 16_000


def usable_tokens(model: str) -> int:
    """
    Return the tokens that the rows of a prompt and its answer may have.

    The context is that of the package's table, not of the service's list of models: the same call
    must put the same rows into a prompt, or stored answers would not be found.
    """
    route = bridge.run(find_route(session, model))
    info = complete_info(route.provider.name, ModelInfo(route.model))
    return min(int((info.context or _UNKNOWN_CONTEXT) * _SHARE), _MOST_TOKENS)


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
