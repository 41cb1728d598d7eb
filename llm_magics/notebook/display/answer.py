"""
Display of one answer: what the cell waits for, the model's thoughts, and the streamed text.

There are three displays with one interface: live in an interactive notebook, static in an
unattended notebook, and plain text in a terminal. Live and static leave the same outputs in the
notebook.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from llm_magics.host import Progress, terminal_progress
from llm_magics.notebook import markdown
from llm_magics.notebook.display.output import (
    Bundle,
    SegmentSplitter,
    UpdatableOutput,
    UpdatePacer,
    WaitingDisplay,
)
from llm_magics.notebook.display.thoughts import ThoughtsDisplay, thoughts_bundle
from llm_magics.notebook.frontend import display_mode
from llm_magics.notebook.provenance import PROVENANCE_KEY
from llm_magics.secrets import partial_secret_length

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


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


def create_answer_display(
    shell: InteractiveShell, model: Callable[[], str] = str, *, stream: bool = True
) -> AnswerDisplay:
    """
    Return the display for ``shell``; without ``stream``, one that shows only the full answer.

    ``model`` returns the name of the model that answers, or ``""`` while it is unknown.
    """
    mode = display_mode(shell)
    if mode == "text":
        return TextDisplay()
    publish = shell.display_pub.publish
    if mode == "live":
        return (
            LiveDisplay(publish, model) if stream else StaticDisplay(publish, model, is_live=True)
        )
    return StaticDisplay(publish, model)


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
    """
    Publishes each segment once, when the answer is complete.

    With ``is_live``, it shows before what the cell waits for, in the output of the first segment.
    """

    def __init__(
        self,
        publish: Callable[..., Any],
        model: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
        *,
        is_live: bool = False,
    ) -> None:
        self._publish = publish
        self._model = model
        self._segmenter = SegmentSplitter()
        self._segments: list[str] = []
        self._thoughts = ""
        self._first = UpdatableOutput(publish)
        self._waiting = WaitingDisplay(self._first, model, clock) if is_live else None

    def think(self, text: str) -> None:
        self._thoughts += text

    def rethink(self) -> None:
        """Move all segments to the thoughts."""
        self._thoughts += "\n\n".join([*self._segments, self._segmenter.open])
        self._segmenter, self._segments = SegmentSplitter(), []

    def show_progress(self, progress: Progress | None) -> None:
        """Display progress if a user watches."""
        if self._waiting is not None and progress is not None:
            self._waiting(progress)

    def catch_up(self) -> None:
        if self._waiting is not None:
            self._waiting.tick()

    def write(self, text: str) -> None:
        self._segments += self._segmenter.feed(text)

    def close(self) -> None:
        bundles = [thoughts_bundle(self._thoughts)] if self._thoughts.strip() else []
        segments = [each for each in [*self._segments, self._segmenter.open] if each.strip()]
        bundles += [
            _bundle(segment, "" if number else self._model())
            for number, segment in enumerate(segments)
        ]
        for number, bundle in enumerate(bundles, 1):
            metadata = dict(self._about) if segments and number == len(bundles) else {}
            if number == 1 and self._first.is_shown:
                self._first.show(bundle, metadata)
            else:
                self._publish(data=bundle, metadata=metadata)
        if not bundles:
            self._first.clear()


class LiveDisplay(_BaseDisplay):
    """
    Publishes a segment and updates it as it grows; see `UpdatePacer` and `SegmentSplitter`.

    Updates have only the HTML; the last one also has the plain text. Before the answer starts, its
    output shows what the cell waits for.
    """

    def __init__(
        self,
        publish: Callable[..., Any],
        model: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publish = publish
        self._clock = clock
        self._model = model
        self._segmenter = SegmentSplitter()
        self._pacer = UpdatePacer(clock)
        self._output = UpdatableOutput(publish)
        self._written: list[tuple[UpdatableOutput, str]] = []  # complete segments
        self._waiting: WaitingDisplay | None = WaitingDisplay(self._output, model, clock)
        self._thinking: ThoughtsDisplay | None = None

    def show_progress(self, progress: Progress | None) -> None:
        if self._waiting is not None:
            self._waiting(progress)

    def think(self, text: str) -> None:
        if self._thinking is None:
            self._waiting = None
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
        if self._waiting is not None:
            self._waiting.tick()
        if self._thinking is not None:
            self._thinking.tick()
        if self._pacer.is_due(self._segmenter.open_length):
            self._show(self._segmenter.open, _frame)

    def close(self) -> None:
        if self._thinking is not None:
            self._thinking.close()
        self._show(self._segmenter.open, _bundle, self._about)
        if self._waiting is not None:  # nothing was received
            self._waiting(None)

    def _show(
        self,
        segment: str,
        rendered: Callable[[str, str], Bundle],
        metadata: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if not segment.strip():
            return
        bundle = rendered(segment, "" if self._written else self._model())
        self._waiting = None
        self._output.show(bundle, metadata)
        self._pacer.sent(sum(len(data.encode()) for data in bundle.values()))


def _bundle(segment: str, model: str) -> Bundle:
    plain = markdown.to_plain_text(segment.strip("\n"))
    return {"text/plain": plain, "text/html": markdown.render_answer(segment, model)}


def _frame(segment: str, model: str) -> Bundle:
    return {"text/html": markdown.render_answer(segment, model, is_draft=True)}
