"""
Display of one answer: the streamed text, the model's thoughts, and a footer.

There are three displays with one interface: live in an interactive notebook, static in an
unattended notebook, and plain text in a terminal. Live and static leave the same outputs in the
notebook. The footer shows the model, tokens, times and cost in one line. It is a separate output,
because its values differ in each run. By default, only interactive notebooks have a footer.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from llm_magics._util.text import display_name, format_usd, pluralize
from llm_magics.host import Progress, terminal_progress
from llm_magics.notebook import markdown
from llm_magics.notebook.display.output import (
    Bundle,
    ProgressBar,
    SegmentSplitter,
    UpdatableOutput,
    UpdatePacer,
)
from llm_magics.notebook.frontend import display_mode
from llm_magics.notebook.provenance import PROVENANCE_KEY
from llm_magics.runtime.response import INTERRUPTED, Response
from llm_magics.secrets import partial_secret_length
from llm_magics.wire.finish_reasons import is_cut

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def show_footer(publish: Callable[..., Any], response: Response) -> None:
    """Publish the footer of ``response``."""
    words = format_footer(response)
    small = f'<small class="mathjax_ignore" style="opacity: 0.7">{html.escape(words)}</small>'
    publish(data={"text/plain": words, "text/html": small}, metadata={})


def format_footer(response: Response) -> str:
    """Return the text of the footer of ``response``."""
    parts = [
        display_name(response.model),
        *_tokens(response),
        *_times(response),
        *_ending(response),
    ]
    return markdown.to_plain_text(" · ".join(part for part in parts if part))


def _tokens(response: Response) -> list[str]:
    read, written = response.usage.input_tokens, response.usage.output_tokens
    if read is None and written is None:
        return []
    known = ["?" if count is None else f"{count:,}" for count in (read, written)]
    return [f"{known[0]} → {known[1]} tokens"]


def _times(response: Response) -> list[str]:
    timing = response.timing
    parts = []
    if timing.load_s >= 0.05:
        parts.append(f"{timing.load_s:.1f} s to load")
    if timing.e2e_s is not None:
        parts.append(f"{timing.e2e_s:.1f} s")
    if timing.tokens_per_s is not None:
        parts.append(f"{timing.tokens_per_s:,.0f} tokens/s")
    return parts


def _ending(response: Response) -> list[str]:
    parts = []
    if response.cached:
        parts.append("cached")
    elif response.cost_usd:
        parts.append(format_usd(response.cost_usd))
    if is_cut(response.finish_reason):
        parts.append("cut at max_tokens")
    if response.finish_reason == INTERRUPTED:
        parts.append("interrupted")
    return parts


_REFRESH_S = 0.5


class ThoughtsDisplay:
    """
    Displays the thoughts of one answer in ``output``.

    While they arrive, only the number of words is displayed. Then the text is displayed folded.
    """

    def __init__(
        self, output: UpdatableOutput, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._output = output
        self._clock = clock
        self._pieces: list[str] = []
        self._updated_at = clock()

    def write(self, text: str) -> None:
        """Add text to the thoughts."""
        self._pieces.append(text)
        if self._clock() - self._updated_at >= _REFRESH_S:
            self._updated_at = self._clock()
            self._output.show({"text/html": f"<em>thinking: {self._words()}</em>"})

    def close(self) -> None:
        """Display all thoughts, folded."""
        self._output.show(thoughts_bundle("".join(self._pieces)))

    def _words(self) -> str:
        return _count_words("".join(self._pieces))


def thoughts_bundle(thoughts: str) -> Bundle:
    """Return the output of thoughts, as displayed and saved."""
    words = _count_words(thoughts)
    inner = html.escape(markdown.to_plain_text(thoughts.strip()))
    return {
        "text/plain": f"(thought: {words})",
        "text/html": (
            f"<details><summary><em>thought: {words}</em></summary>"
            f'<pre class="mathjax_ignore" style="white-space: pre-wrap">{inner}</pre></details>'
        ),
    }


def _count_words(text: str) -> str:
    words = len(text.split())
    return pluralize(words, "word")


class AnswerDisplay(Protocol):
    """Displays an answer while it streams; at the end of the block, displays all of its text."""

    def write(self, text: str) -> None:
        """Add text to the answer."""

    def think(self, text: str) -> None:
        """Add text to the model's thoughts, which precede the answer."""

    def rethink(self) -> None:
        """Treat all text so far as thoughts; the answer starts now."""

    def tell(self, about: Mapping[str, Any]) -> None:
        """Store the provenance of the answer in the metadata of the output."""

    def catch_up(self) -> None:
        """Display text that was held back; called periodically while nothing arrives."""

    def show_progress(self, progress: Progress | None) -> None:
        """Display the progress before the answer starts; ``None`` ends it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None: ...


def create_answer_display(shell: InteractiveShell, *, stream: bool = True) -> AnswerDisplay:
    """Return the display for ``shell``; without ``stream``, one that shows only the full answer."""
    mode = display_mode(shell)
    if mode == "text":
        return TextDisplay()
    if mode == "live" and stream:
        return LiveDisplay(shell.display_pub.publish)
    return StaticDisplay(shell.display_pub.publish)


class _BaseDisplay:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        self.close()

    def think(self, text: str) -> None:
        """Ignore the model's thoughts."""

    def tell(self, about: Mapping[str, Any]) -> None:
        """Record the provenance of the answer for the output's metadata."""
        self._about = {PROVENANCE_KEY: dict(about)}

    _about: Mapping[str, Any] = MappingProxyType({})

    def catch_up(self) -> None:
        """Do nothing, because no text is held back."""

    def close(self) -> None:
        """Display the remaining text."""


class TextDisplay(_BaseDisplay):
    """Prints the answer as it arrives, but holds back text that may be the start of a key."""

    def __init__(self) -> None:
        self._wrote = ""
        self._held = ""
        self.show_progress = terminal_progress()

    def write(self, text: str) -> None:
        if not self._wrote:
            self.show_progress(None)
        self._wrote = text or self._wrote
        # Remove complete keys first, because the end of a key may look like the start of another.
        text = markdown.to_plain_text(self._held + text)
        end = len(text) - partial_secret_length(text)
        self._held = text[end:]
        self._print(text[:end])

    def _print(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _print_held(self) -> None:
        self._print(self._held)
        self._held = ""

    def rethink(self) -> None:
        """Print a separator between the thoughts, which are already printed, and the answer."""
        self._print_held()
        if self._wrote:
            sys.stdout.write("\n(the model was still thinking)\n\n")
            self._wrote = "\n"

    def close(self) -> None:
        self._print_held()
        if self._wrote and not self._wrote.endswith("\n"):
            sys.stdout.write("\n")


class StaticDisplay(_BaseDisplay):
    """Publishes each segment once, when the answer is complete."""

    def __init__(self, publish: Callable[..., Any]) -> None:
        self._publish = publish
        self._segmenter = SegmentSplitter()
        self._segments: list[str] = []
        self._thoughts = ""

    def think(self, text: str) -> None:
        self._thoughts += text

    def rethink(self) -> None:
        """Move all segments to the thoughts."""
        self._thoughts += "\n\n".join([*self._segments, self._segmenter.open])
        self._segmenter, self._segments = SegmentSplitter(), []

    def show_progress(self, progress: Progress | None) -> None:
        """Do nothing, because the notebook runs unattended."""

    def write(self, text: str) -> None:
        self._segments += self._segmenter.feed(text)

    def close(self) -> None:
        if self._thoughts.strip():
            self._publish(data=thoughts_bundle(self._thoughts), metadata={})
        segments = [each for each in [*self._segments, self._segmenter.open] if each.strip()]
        for number, segment in enumerate(segments, 1):
            is_last = number == len(segments)
            self._publish(data=_bundle(segment), metadata=dict(self._about) if is_last else {})


class LiveDisplay(_BaseDisplay):
    """
    Publishes a segment and updates it as it grows; see `UpdatePacer` and `SegmentSplitter`.

    Updates have only the HTML; the last one also has the plain text.
    """

    def __init__(
        self, publish: Callable[..., Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._publish = publish
        self._segmenter = SegmentSplitter()
        self._pacer = UpdatePacer(clock)
        self._output = UpdatableOutput(publish)
        self._written: list[tuple[UpdatableOutput, str]] = []  # complete segments
        self._bar: ProgressBar | None = ProgressBar(
            self._output, clock
        )  # until there is text to show
        self._clock = clock
        self._thinking: ThoughtsDisplay | None = None

    def show_progress(self, progress: Progress | None) -> None:
        if self._bar is not None:
            self._bar(progress)

    def think(self, text: str) -> None:
        if self._thinking is None:
            self._bar = None
            self._thinking = ThoughtsDisplay(self._output, self._clock)
            self._output = UpdatableOutput(self._publish)
        self._thinking.write(text)

    def write(self, text: str) -> None:
        if self._thinking is not None and text.strip():
            self._thinking.close()
            self._thinking = None
        self._pacer.grew(len(text))
        for segment in self._segmenter.feed(text):
            self._show(segment, _bundle)
            self._written.append((self._output, segment))
            self._output = UpdatableOutput(self._publish)
        self.catch_up()

    def rethink(self) -> None:
        """Fold all segments as thoughts in the output of the first segment."""
        outputs = [*self._written, (self._output, self._segmenter.open)]
        thoughts = "\n\n".join(segment for _, segment in outputs)
        if not thoughts.strip():
            return
        first, *others = (output for output, _ in outputs)
        first.show(thoughts_bundle(thoughts))
        for output in others:
            output.clear()
        self._segmenter, self._written = SegmentSplitter(), []
        self._output = UpdatableOutput(self._publish)

    def catch_up(self) -> None:
        if self._pacer.is_due(self._segmenter.open_length):
            self._show(self._segmenter.open, _frame)

    def close(self) -> None:
        if self._thinking is not None:
            self._thinking.close()
        self._show(self._segmenter.open, _bundle, self._about)

    def _show(
        self,
        segment: str,
        rendered: Callable[[str], Bundle],
        metadata: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if not segment.strip():
            return
        bundle = rendered(segment)
        self._bar = None
        self._output.show(bundle, metadata)
        self._pacer.sent(sum(len(data.encode()) for data in bundle.values()))


def _bundle(segment: str) -> Bundle:
    return {"text/plain": markdown.to_plain_text(segment.strip("\n")), **_frame(segment)}


def _frame(segment: str) -> Bundle:
    return {"text/html": markdown.render_safe(segment)}
