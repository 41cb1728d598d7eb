"""When the pieces of an answer came, and of which kind each was."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

from llm_magics.runtime.storage.run_log import ANSWER, COUNT, SUMMARY, TOOL, WRITTEN, kinds_of
from llm_magics.types import StreamChunk

__all__ = ["ANSWER", "COUNT", "SUMMARY", "TOOL", "WRITTEN", "Stamps", "stamps_of"]


class Stamps(NamedTuple):
    """
    The times of an answer's pieces, as they were read off the socket.

    Attributes:
        times_s: of each piece, in seconds since the request was sent.
        kinds: a letter for each: ``a`` words of the answer, ``r`` of the thinking
            ("reasoning"), ``s`` of a summary of thinking, ``t`` a tool call or a piece of one,
            ``u`` nothing but a count of tokens ("usage"), ``e`` empty, such as the one that
            only names the role.
    """

    times_s: tuple[float, ...] = ()
    kinds: str = ""

    @classmethod
    def kept(cls, times_s: Any, kinds: Any) -> Stamps:
        """As they come out of a file: of CSV a list is a text, and an empty text is missing."""
        times = json.loads(times_s) if isinstance(times_s, str) else times_s
        return cls(tuple(times), kinds if isinstance(kinds, str) else "")

    @property
    def is_forward(self) -> bool:
        """Whether no piece is earlier than the one before it, nor than the request."""
        return all(one <= next_one for one, next_one in pairwise((0.0, *self.times_s)))

    def of(self, kinds: Iterable[str]) -> list[float]:
        """The times of the pieces of these kinds."""
        wanted = frozenset(kinds)
        return [at for at, kind in zip(self.times_s, self.kinds, strict=True) if kind in wanted]


def stamps_of(chunks: Iterable[StreamChunk]) -> Stamps:
    """The stamps of ``chunks``, all of which have one."""
    told = [(chunk, kind) for chunk, kind in _with_kinds(chunks) if chunk.elapsed_s is not None]
    times = tuple(chunk.elapsed_s or 0.0 for chunk, _ in told)
    return Stamps(times, "".join(kind for _, kind in told))


def _with_kinds(chunks: Iterable[StreamChunk]) -> Iterable[tuple[StreamChunk, str]]:
    chunks = list(chunks)
    return zip(chunks, kinds_of(chunks), strict=True)
