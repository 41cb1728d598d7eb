"""How far long work has come, as a bar in the cell."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_magics.host import View, terminal_view
from llm_magics.notebook.displays.outputs import Bundle, Output
from llm_magics.notebook.watching import rendering
from llm_magics.progress import Progress

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_REFRESH_S = 0.2


def progress_view(shell: InteractiveShell) -> View:
    """Where work that is no answer shows its progress: nowhere, if nobody watches."""
    shown_in = rendering(shell)
    if shown_in == "text":
        return terminal_view()
    if shown_in == "static":
        return lambda progress: None
    return Bar(Output(shell.display_pub.publish))


class Bar:
    """Shows progress in ``output``, a few times a second; gone when the work has ended."""

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output
        self._clock = clock
        self._shown_at = float("-inf")

    def __call__(self, progress: Progress | None) -> None:
        if progress is None:
            self._output.clear()
        elif self._clock() - self._shown_at >= _REFRESH_S or progress.fraction == 1:
            self._shown_at = self._clock()
            self._output.show(_bundle(progress))


def _bundle(progress: Progress) -> Bundle:
    from llm_magics.notebook import inert  # loading the extension should not import it

    fraction = progress.fraction
    value = f' value="{fraction:.3f}"' if fraction is not None else ""
    told = inert.plain(str(progress))
    words = html.escape(told)
    return {
        "text/plain": told,
        "text/html": f'<progress{value} style="width: 14em"></progress> <code>{words}</code>',
    }
