"""A text that is longer than the model reads: its beginning, or the mean of its parts."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.errors import ContextLengthError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

Send = Callable[[Sequence[str]], Awaitable["Floats"]]

# Where a service says how long the text is and how long it may be: so much of it surely fits.
_SAYS = re.compile(r"(\d+) tokens\D+?(\d+)")
_MARGIN = 0.9

_MOST_TRIES = 12


async def truncated(text: str, error: ContextLengthError, send: Send) -> Floats:
    """
    The vector of as much of its beginning as the model reads, of shape (1, d).

    Raises:
        ContextLengthError: even a little of it is refused.
    """
    for _ in range(_MOST_TRIES):
        text = text[: int(len(text) * _share(error))]
        if not text.strip():
            break
        try:
            return await send([text])
        except ContextLengthError as again:
            error = again
    raise error


async def mean_of_parts(text: str, error: ContextLengthError, send: Send) -> Floats:
    """
    The mean of its parts, weighted by their lengths and brought to length 1, of shape (1, d).

    Raises:
        ContextLengthError: even small parts are refused.
    """
    size = len(text)
    for _ in range(_MOST_TRIES):
        size = int(size * _share(error))
        parts = _parts(text, size)
        if not parts:
            break
        try:
            rows = await send(parts)
        except ContextLengthError as again:
            error = again
            continue
        mean = np.average(rows, axis=0, weights=[len(part) for part in parts])
        return (mean / np.linalg.norm(mean)).astype(np.float32)[None, :]
    raise error


def _share(error: ContextLengthError) -> float:
    """How much of what was sent is worth a try."""
    said = _SAYS.search(str(error))
    if said:
        longer, longest = sorted(map(int, said.groups()), reverse=True)
        if 0 < longest < longer:
            return longest / longer * _MARGIN
    return 0.5


def _parts(text: str, size: int) -> list[str]:
    """Pieces of at most ``size`` characters, cut between words where there are some."""
    parts: list[str] = []
    while text and size > 0:
        is_last = len(text) <= size
        cut = size if is_last else text.rfind(" ", size // 2, size) + 1 or size
        parts.append(text[:cut])
        text = text[cut:]
    return [part for part in parts if part.strip()]
