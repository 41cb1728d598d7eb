"""Display of several models' answers side by side, with their differences word by word."""

from __future__ import annotations

import difflib
import html
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_magics._util.text import display_name, pluralize
from llm_magics.notebook import markdown, styles
from llm_magics.notebook.display.output import Bundle, UpdatableOutput, UpdatePacer
from llm_magics.notebook.provenance import PROVENANCE_KEY

_GRID = (
    "display:grid;grid-template-columns:repeat(auto-fit,minmax(16em,1fr));column-gap:1.5em;"
    "row-gap:1em"
)

# A larger display is updated less often by the clock alone: it is sent again as a whole.
_CLOCK_BYTES_PER_S = 8_000


class Columns:
    """
    Displays one answer per column, live or once at the end; both leave the same output.

    Live, the name of each model has the seconds next to it until its answer has ended. In a narrow
    window the columns are stacked.
    """

    def __init__(
        self,
        publish: Callable[..., Any],
        names: Sequence[str],
        *,
        is_live: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = UpdatableOutput(publish)
        self._publish = publish
        self._names = [display_name(each) for each in names]
        self._texts = [""] * len(names)
        self._failures = [""] * len(names)
        self._seconds: list[int | None] = [None] * len(names)  # those of ended answers
        self._is_live = is_live
        self._clock = clock
        self._pacer = UpdatePacer(clock)
        self._started_at = self._shown_at = clock()
        self._shown_bytes = 0
        self._is_due = False

    def write(self, number: int, text: str) -> None:
        """Add text to one of the answers."""
        self._texts[number] += text
        self._pacer.grew(len(text))
        self.catch_up()

    def rethink(self, number: int) -> None:
        """Discard the text of one of the answers so far, because it was thinking."""
        self._texts[number] = ""

    def end(self, number: int, failure: str = "") -> None:
        """Record that one of the answers has ended, with the error if it failed."""
        if self._seconds[number] is None:
            self._seconds[number] = int(self._clock() - self._started_at)
            self._failures[number] = failure
            self._is_due = True

    def catch_up(self) -> None:
        """Display what was held back and the seconds, if an update is due."""
        if not self._is_live:
            return
        is_due = self._pacer.is_due(sum(map(len, self._texts)))
        if is_due or self._is_due or self._is_clock_due():
            self._is_due = False
            frame = {"text/html": self._html(is_final=False)}
            self._output.show(frame)
            self._shown_at, self._shown_bytes = self._clock(), len(frame["text/html"].encode())
            self._pacer.sent(self._shown_bytes)

    def _is_clock_due(self) -> bool:
        pause_s = max(1.0, self._shown_bytes / _CLOCK_BYTES_PER_S) if self._shown_bytes else 0.25
        return None in self._seconds and self._clock() - self._shown_at >= pause_s

    def close(self, about: Sequence[Mapping[str, Any]] = ()) -> None:
        """Display all answers and their differences; ``about`` has the provenance of each."""
        if not any(self._texts):  # the error of the cell contains those of the models
            self._output.clear()
            return
        metadata = {PROVENANCE_KEY: [dict(each) for each in about]} if any(about) else {}
        bundle = {"text/plain": self._plain(), "text/html": self._html(is_final=True)}
        if self._is_live:
            self._output.show(bundle, metadata)
        else:
            self._publish(data=bundle, metadata=metadata)
        differing = compare_texts(self._names, self._texts)
        if differing:
            self._publish(data=differing, metadata={})

    def _plain(self) -> str:
        parts = []
        for name, text, why in zip(self._names, self._texts, self._failures, strict=True):
            content = "\n".join(part for part in (text.strip(), why and f"({why})") if part)
            parts.append(f"{name}:\n{content}")
        return markdown.to_plain_text("\n\n".join(parts))

    def _html(self, *, is_final: bool) -> str:
        now = int(self._clock() - self._started_at)
        columns = []
        for name, text, why, seconds in zip(
            self._names, self._texts, self._failures, self._seconds, strict=True
        ):
            shown = now if seconds is None else seconds
            tag = name if is_final or not shown else f"{name} · {shown} s"
            answer = markdown.render_answer(text, tag, is_draft=not is_final)
            columns.append(f'<div style="min-width:0">{answer}{_failure_html(why)}</div>')
        return f'<div style="{_GRID}">{"".join(columns)}</div>'


def _failure_html(why: str) -> str:
    return f'<p class="mathjax_ignore" style="{styles.FAILURE}">{_escape(why)}</p>' if why else ""


def _escape(text: str) -> str:
    return html.escape(markdown.to_plain_text(text))


# Texts with less than this share of words in common are not variants of each other.
_MIN_LIKENESS = 0.5
# Comparing takes time for each pair of equal words: in a text that repeats itself, for their square.
_MAX_EQUAL_PAIRS = 4_000_000


def compare_texts(names: Sequence[str], texts: Sequence[str]) -> Bundle | None:
    """
    Return the differences of the other texts from the first one, word by word, folded.

    Return ``None`` if no other text is similar to it.
    """
    first, *others = ((name, text) for name, text in zip(names, texts, strict=True) if text)
    plain, folded = [], []
    for name, text in others:
        marked = _mark_differences(first[1], text)
        if marked is None:
            continue
        words, count = marked
        if not count:
            summary = f"{name} answered the same as {first[0]}"
            plain.append(summary)
            folded.append(f"<div>{styles.small(_escape(summary), 'mathjax_ignore')}</div>")
            continue
        summary = f"{name} differs from {first[0]} in {pluralize(count, 'word')}"
        plain.append(summary)
        folded.append(
            f'<details class="mathjax_ignore" style="{styles.MUTED}"><summary>'
            f"<em>{_escape(summary)}</em>"
            f"</summary><p>{words}</p></details>"
        )
    return {"text/plain": "\n".join(plain), "text/html": "".join(folded)} if plain else None


def _mark_differences(one: str, other: str) -> tuple[str, int] | None:
    """
    Return ``other`` as HTML with its differences from ``one``, and their number of words.

    Return ``None`` if the texts are not similar, or repeat the same words too often to be compared.
    """
    before, after = (re.findall(r"\S+\s*", markdown.to_plain_text(text)) for text in (one, other))
    counts = Counter(before)
    if sum(counts[word] for word in after) > _MAX_EQUAL_PAIRS:
        return None
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    if matcher.quick_ratio() < _MIN_LIKENESS or matcher.ratio() < _MIN_LIKENESS:
        return None
    parts, count = [], 0
    for kind, a, b, c, d in matcher.get_opcodes():
        removed, added = html.escape("".join(before[a:b])), html.escape("".join(after[c:d]))
        if kind == "equal":
            parts.append(added)
            continue
        count += max(b - a, d - c)
        parts += [
            f'<del style="{styles.REMOVED}">{removed}</del>' if removed else "",
            f'<ins style="{styles.ADDED}">{added}</ins>' if added else "",
        ]
    return "".join(parts), count
