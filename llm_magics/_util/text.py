"""
Text that can be sent and stored, JSON that is bounded, batches, and amounts of money.

Batches are bounded by the number of their texts and bytes. Texts of similar length share a batch:
models pad a batch to its longest text, so one long text among short ones makes all of them cost
more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic_core import from_json


def replace_lone_surrogates(text: str) -> str:
    """Return ``text`` with halves of a character joined, or replaced if they stand alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Bounds(NamedTuple):
    """
    The most that one request may hold.

    OpenAI's are 2,048 texts and 300,000 tokens; a token is three bytes at the least in what
    people embed.
    """

    texts: int = 256
    bytes: int = 900_000


def batches(lengths: Sequence[int], bounds: Bounds) -> Iterator[list[int]]:
    """
    Yield the indices of all texts, batch by batch, the longest first.

    ``lengths`` are in bytes. A text that is longer than ``bounds`` allows is alone in its batch.
    """
    batch: list[int] = []
    size = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and (len(batch) == bounds.texts or size + lengths[index] > bounds.bytes):
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += lengths[index]
    if batch:
        yield batch


# OpenAI's bounds for one request of embeddings: 2,048 texts and 300,000 tokens, a token
# being three bytes of text at the least in what people embed.
MAX_TEXTS = 2048
MAX_BYTES = 300_000 * 3


def batches_in_order(texts: Sequence[str], most_texts: int = MAX_TEXTS) -> Iterator[list[str]]:
    """``texts`` in their order, in portions of ``most_texts`` and ``MOST_BYTES`` at most."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if batch and (len(batch) == most_texts or size + length > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch


# Deeper values would exhaust the stack of whatever walks through them later. pydantic's limit is
# the same.
_MAX_DEPTH = 200


def read_json(data: bytes | str, *, replace_surrogates: bool = True) -> Any:
    """
    Return the value in ``data``, in a third of the time that `json.loads` takes.

    Args:
        data: the JSON text.
        replace_surrogates: replace lone surrogates. Without it they stay: the halves of a character
            may come in two pieces of a stream.

    Raises:
        ValueError: it is not JSON, or it is nested too deeply.
    """
    try:
        return from_json(data)
    except ValueError as error:
        if "recursion limit" in str(error):
            raise
    # Lone surrogates and a byte order mark are read by this one only.
    try:
        value = json.loads(data)
    except RecursionError:
        msg = "it is nested too deeply"
        raise ValueError(msg) from None
    _check_depth(value)
    return _replace_surrogates_in(value) if replace_surrogates else value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    msg = "it is nested too deeply"
    raise ValueError(msg)


def _replace_surrogates_in(value: Any) -> Any:
    if isinstance(value, str):
        return replace_lone_surrogates(value)
    if isinstance(value, dict):
        return {
            replace_lone_surrogates(name): _replace_surrogates_in(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_replace_surrogates_in(each) for each in value]
    return value


def format_usd(usd: float | None) -> str:
    """An amount as people read it: cents, or as many digits as tell it from nothing."""
    if usd is None:
        return "an unknown amount"
    return f"${usd:.2f}" if usd == 0 or usd >= 0.995 else f"${usd:.2g}"


def count_or_none(value: object) -> int | None:
    """``value`` if it is a number of things that a machine can count to, else ``None``."""
    if type(value) is not int or not 0 <= value < 2**63:
        return None
    return value
