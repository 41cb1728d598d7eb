"""A model's thinking in the cell: folded away, above its answer."""

from __future__ import annotations

import html
import time
from collections.abc import Callable

from llm_magics.notebook import inert
from llm_magics.notebook.displays.outputs import Bundle, Output

_REFRESH_S = 0.5


class Thinking:
    """
    Takes the thoughts of one answer.

    While they come only their number of words is shown, in ``output``: thoughts are long, and
    are read after the answer if at all.
    """

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output
        self._clock = clock
        self._pieces: list[str] = []
        self._shown_at = clock()

    def write(self, text: str) -> None:
        """More thoughts."""
        self._pieces.append(text)
        if self._clock() - self._shown_at >= _REFRESH_S:
            self._shown_at = self._clock()
            self._output.show({"text/html": f"<em>thinking: {self._words()}</em>"})

    def close(self) -> None:
        """Show all of them, folded."""
        self._output.show(bundle("".join(self._pieces)))

    def _words(self) -> str:
        return _counted("".join(self._pieces))


def bundle(thoughts: str) -> Bundle:
    """Thoughts as they are shown and saved."""
    words = _counted(thoughts)
    inner = html.escape(inert.plain(thoughts.strip()))
    return {
        "text/plain": f"(thought: {words})",
        "text/html": (
            f"<details><summary><em>thought: {words}</em></summary>"
            f'<pre class="mathjax_ignore" style="white-space: pre-wrap">{inner}</pre></details>'
        ),
    }


def _counted(text: str) -> str:
    words = len(text.split())
    return f"{words:,} word{'' if words == 1 else 's'}"
