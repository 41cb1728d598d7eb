"""
Texts packed into batches that a service takes: bounded by their count, bytes and tokens.

Texts of like length go together: models pad a batch to its longest text, so that one long text
among short ones is paid for by all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


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
    The places of all texts, batch by batch, the longest first.

    ``lengths`` are in bytes. A text that is longer than ``bounds`` allows is alone in its batch.
    """
    batch: list[int] = []
    size = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and (len(batch) == bounds.texts or size + lengths[place] > bounds.bytes):
            yield batch
            batch, size = [], 0
        batch.append(place)
        size += lengths[place]
    if batch:
        yield batch
