"""
Updatable outputs: splitting a long answer into segments, pacing of updates, progress.

Each update of a display sends its whole content again, so a long answer is split into several
displays. The split depends only on complete lines of the text, so the same text is split at the
same positions, whether it is streamed or not.

With an update per token, an answer of n bytes would transfer O(n²) bytes; with too few updates, it
looks stuck. So there are at most ten updates per second. Within this limit, the budget of bytes
grows with the length of the text. It is larger after 160 new characters (or 4 % of a long segment),
and if the display has not changed for 0.4 s.
"""

from __future__ import annotations

import html
import re
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llm_magics._util.text import display_name, escape_controls
from llm_magics.host import TRANSIENT_KEY, Progress, ProgressDisplay, terminal_progress
from llm_magics.notebook import markdown
from llm_magics.notebook.frontend import display_mode

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


# A segment with this many characters ends at the next end of a paragraph. The first segments are
# small, so that updates are fast. Later segments grow, because JupyterLab shows at most fifty
# outputs per cell.
_FIRST_SEGMENT_CHARACTERS = 1500
_SEGMENT_CHARACTERS = 2000
_FIRST_SEGMENTS = 25
_GROWING_AFTER = 42
_GROWTH = 2.5

# A fence may be inside a list or a quote. The text after backticks must not contain backticks.
_FENCE = re.compile(r"\s*(?:(?:[-*+>]|\d+[.)])\s+)*(```+(?=[^`]*$)|~~~+)(.*)")

# A line that starts a paragraph, heading, fence or table, and does not continue an earlier block.
_STARTS_BLOCK = re.compile(r"(?![-*+>]\s|\d+[.)]\s)\S")


class SegmentSplitter:
    """Splits a streamed answer into segments."""

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
        """The length of `open`, computed without joining its lines."""
        return self._length + len(self._rest)

    def feed(self, text: str) -> list[str]:
        """Add text; return the segments that it completes."""
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
        if self._closed < _FIRST_SEGMENTS:
            return _FIRST_SEGMENT_CHARACTERS
        return _SEGMENT_CHARACTERS * _GROWTH ** max(0, self._closed - _GROWING_AFTER)

    def _follow_fence(self, line: str) -> None:
        mark = _FENCE.match(line)
        if mark is None:
            return
        if not self._fence:
            self._fence = mark[1]
        elif mark[1].startswith(self._fence) and not mark[2].strip():
            self._fence = ""


# The content of a display, by MIME type.
Bundle = dict[str, str]


class UpdatableOutput:
    """An output that appears with the first `show` and is replaced by later ones."""

    def __init__(self, publish: Callable[..., Any]) -> None:
        self._publish = publish
        self._transient = {"display_id": uuid4().hex}
        self.is_shown = False

    def show(self, bundle: Bundle, metadata: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Display ``bundle``, replacing the previous one."""
        self._publish(
            data=bundle,
            metadata=dict(metadata),
            transient=self._transient,
            update=self.is_shown,
        )
        self.is_shown = True

    def clear(self) -> None:
        """Remove the content of the output, which remains in a notebook that is saved."""
        if self.is_shown:
            self.show({}, {TRANSIENT_KEY: "progress"})


_REFRESH_S = 0.2


def create_progress_view(shell: InteractiveShell) -> ProgressDisplay:
    """Return the progress display for ``shell``; without effect in an unattended notebook."""
    mode = display_mode(shell)
    if mode == "text":
        return terminal_progress()
    if mode == "static":
        return lambda progress: None
    return ProgressBar(UpdatableOutput(shell.display_pub.publish))


class ProgressBar:
    """Displays progress in ``output``, at most five times per second; removed at the end."""

    def __init__(
        self, output: UpdatableOutput, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._output = output
        self._clock = clock
        self._updated_at = float("-inf")

    def __call__(self, progress: Progress | None) -> None:
        if progress is None:
            self._output.clear()
        elif self._clock() - self._updated_at >= _REFRESH_S or progress.fraction == 1:
            self._updated_at = self._clock()
            self._output.show(_bundle(progress))


def _bundle(progress: Progress) -> Bundle:
    from llm_magics.notebook import markdown  # loading the extension should not import it

    fraction = progress.fraction
    value = f' value="{fraction:.3f}"' if fraction is not None else ""
    text = markdown.to_plain_text(str(progress))
    words = html.escape(text)
    return {
        "text/plain": text,
        "text/html": f'<progress{value} style="width: 14em"></progress> <code>{words}</code>',
    }


_FIRST_NOTICE_S = 0.25


class WaitingDisplay:
    """
    Shows in ``output`` what an answer waits for, with the seconds, until the answer starts.

    ``model`` returns the name of the model that is asked, or ``""`` while it is unknown.
    """

    def __init__(
        self,
        output: UpdatableOutput,
        model: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._model = model
        self._clock = clock
        self._started_at = self._task_since = clock()
        self._bar = ProgressBar(output, clock)
        self._is_bar = False
        self._task = ""
        self._shown = ""

    def __call__(self, progress: Progress | None) -> None:
        """Show ``progress``; ``None`` removes it."""
        if progress is None:
            self._output.clear()
            return
        self._is_bar = progress.total is not None and progress.fraction != 1
        if progress.total:
            self._bar(progress)
            self._task, self._task_since = "", self._clock()
        else:
            self._task, self._task_since = str(progress), self._clock()
            self.tick()

    def tick(self) -> None:
        """Update the seconds; called regularly while nothing arrives."""
        now = self._clock()
        if self._is_bar or (now - self._started_at < _FIRST_NOTICE_S and not self._task):
            return
        task = self._task or f"waiting for {display_name(self._model())}".removesuffix(" for ")
        seconds = int(now - self._task_since)
        text = f"{task} …{f' {seconds} s' if seconds else ''}"
        if text != self._shown:
            self._shown = text
            self._output.show(_notice(text))


def _notice(text: str) -> Bundle:
    from llm_magics.notebook import markdown, styles  # loading the extension should not import it

    text = markdown.to_plain_text(text)
    return {"text/plain": text, "text/html": styles.small(html.escape(text), "mathjax_ignore")}


_MIN_INTERVAL_S = 0.1
_MAX_INTERVAL_S = 0.4
_STEP = 160
# For a long segment, the step is a fraction of its length, so that the total stays linear.
_STEP_FRACTION = 0.04
# The budget in bytes: a constant, and an amount per character of the text.
_BUDGET = (6_000, 12)
_BUDGET_WHEN_SLOW = (9_000, 14)
_MAX_BUDGET = (9_000, 24)  # the HTML of a table can be a hundred times as long as its text
_ENVELOPE = 700  # the overhead of a Jupyter message, in bytes


class UpdatePacer:
    """Decides when to update the display of one answer; ``clock`` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent_at = float("-inf")
        self._displayed = 0
        self._total = 0
        self._sent = 0
        self._last_size = 0

    def grew(self, characters: int) -> None:
        """Record that the answer has grown by this number of characters."""
        self._total += characters

    def is_due(self, open_length: int) -> bool:
        """Whether a display of ``open_length`` characters should be sent now."""
        waited = self._clock() - self._sent_at
        if waited < _MIN_INTERVAL_S or self._total == self._displayed:
            return False
        cost = self._sent + _ENVELOPE + max(2 * open_length, self._last_size)
        if self._total - self._displayed >= max(_STEP, _STEP_FRACTION * open_length):
            start, each = _MAX_BUDGET
        elif waited >= _MAX_INTERVAL_S:
            start, each = _BUDGET_WHEN_SLOW
        else:
            start, each = _BUDGET
        return cost <= start + each * self._total

    def sent(self, size: int) -> None:
        """Record that an update of ``size`` bytes was sent."""
        self._sent_at = self._clock()
        self._displayed = self._total
        self._sent += size + _ENVELOPE
        self._last_size = size


def print_safe(text: str) -> None:
    """Print a line with escaped control and invisible characters, and without keys."""
    sys.stdout.write(f"{markdown.to_plain_text(escape_controls(text))}\n")
