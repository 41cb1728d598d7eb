"""Display of a model's thoughts: dimmed while they stream, folded when the answer starts."""

from __future__ import annotations

import html
import time
from collections.abc import Callable

from llm_magics._util.text import pluralize
from llm_magics.notebook import markdown, styles
from llm_magics.notebook.display.output import Bundle, UpdatableOutput

_REFRESH_S = 0.5
# While thoughts stream, only their end is displayed, so that each update has the same size.
_SHOWN_CHARACTERS = 1_200
_CHARACTERS_A_TOKEN = 4


class ThoughtsDisplay:
    """Displays the thoughts of one answer in ``output``; ``clock`` is in seconds."""

    def __init__(
        self, output: UpdatableOutput, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._output = output
        self._clock = clock
        self._pieces: list[str] = []
        self._end = ""
        self._length = 0
        self._started_at = self._updated_at = clock()

    def write(self, text: str) -> None:
        """Add text to the thoughts."""
        self._pieces.append(text)
        self._length += len(text)
        self._end = (self._end + text)[-_SHOWN_CHARACTERS:]
        self.tick()

    def tick(self) -> None:
        """Update the display, at most twice per second."""
        now = self._clock()
        if now - self._updated_at >= _REFRESH_S:
            self._updated_at = now
            self._output.show({"text/html": self._live_html(now - self._started_at)})

    def close(self) -> None:
        """Display all thoughts, folded."""
        self._output.show(thoughts_bundle("".join(self._pieces)))

    def _live_html(self, seconds: float) -> str:
        tokens = pluralize(max(1, self._length // _CHARACTERS_A_TOKEN), "token")
        return (
            f'<div style="{styles.MUTED}"><em>thinking … {seconds:.0f} s, about {tokens}</em>'
            f"{_thoughts_html(self._end)}</div>"
        )


def thoughts_bundle(thoughts: str) -> Bundle:
    """Return the output of thoughts, as displayed and saved."""
    words = pluralize(len(thoughts.split()), "word")
    return {
        "text/plain": f"(thought: {words})",
        "text/html": (
            f'<details style="{styles.MUTED}"><summary><em>thought: {words}</em></summary>'
            f"{_thoughts_html(thoughts)}</details>"
        ),
    }


def _thoughts_html(thoughts: str) -> str:
    text = html.escape(markdown.to_plain_text(thoughts.strip()))
    # Lab gives its text colour to <pre>, so the colour is repeated.
    return f'<pre class="mathjax_ignore" style="white-space:pre-wrap;{styles.MUTED}">{text}</pre>'
