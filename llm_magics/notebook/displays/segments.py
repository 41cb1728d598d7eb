"""
Where a long answer goes on in a new display.

Each update of a display sends all of it again, so a display must not grow for ever. The rule
looks at the text alone, line by complete line: shown live or all at once, the same text is
cut at the same places.
"""

from __future__ import annotations

import re

# Characters after which a display is full at the next paragraph's end: small at first, so that
# short answers move smoothly; in the end ever larger, for JupyterLab shows no more than fifty
# outputs of a cell.
_FULL_AT_FIRST = 2000
_FULL = 3000
_FIRST = 25
_GROWING_AFTER = 40
_GROWTH = 2.0

# Also inside a list or a quote. What stands behind backticks holds none, or it is no fence.
_FENCE = re.compile(r"\s*(?:(?:[-*+>]|\d+[.)])\s+)*(```+(?=[^`]*$)|~~~+)(.*)")

# A line that starts a paragraph, heading, fence or table, and goes on with nothing before it.
_STARTS_BLOCK = re.compile(r"(?![-*+>]\s|\d+[.)]\s)\S")


class Segmenter:
    """Takes an answer piece by piece, and gives the segments that are complete."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._length = 0
        self._rest = ""
        self._fence = ""
        self._after_blank = False
        self._closed = 0

    @property
    def open(self) -> str:
        """The segment that is still growing."""
        return "".join(self._lines) + self._rest

    @property
    def open_length(self) -> int:
        """How long `open` is, without putting it together."""
        return self._length + len(self._rest)

    def feed(self, text: str) -> list[str]:
        """The segments that ``text`` completes."""
        self._rest += text
        if "\n" not in text:
            return []
        *lines, self._rest = self._rest.split("\n")
        return [segment for line in lines if (segment := self._take(line + "\n"))]

    def _take(self, line: str) -> str:
        closed = ""
        if self._breaks_before(line):
            closed = "".join(self._lines)
            self._lines, self._length = [], 0
            self._closed += 1
        self._lines.append(line)
        self._length += len(line)
        self._follow_fence(line)
        self._after_blank = not line.strip()
        return closed

    def _breaks_before(self, line: str) -> bool:
        return (
            self._length >= self._limit()
            and self._after_blank
            and not self._fence
            and _STARTS_BLOCK.match(line) is not None
        )

    def _limit(self) -> float:
        if self._closed < _FIRST:
            return _FULL_AT_FIRST
        return _FULL * _GROWTH ** max(0, self._closed - _GROWING_AFTER)

    def _follow_fence(self, line: str) -> None:
        mark = _FENCE.match(line)
        if mark is None:
            return
        if not self._fence:
            self._fence = mark[1]
        elif mark[1].startswith(self._fence) and not mark[2].strip():
            self._fence = ""
