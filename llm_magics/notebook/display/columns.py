"""The answers of several models beside each other, growing as they come."""

from __future__ import annotations

import difflib
import html
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_magics._util.text import display_name
from llm_magics.notebook import markdown
from llm_magics.notebook.display.output import Bundle, UpdatableOutput, UpdatePacer
from llm_magics.notebook.provenance import PROVENANCE_KEY

_ROW = '<div style="display: flex; flex-wrap: wrap; gap: 1.5em">'
_COLUMN = '<div style="flex: 1 1 16em; min-width: 0">'


class Columns:
    """
    Shows one text a column, live or once at the end; both leave the same output.

    Where there is no room they stand below each other.
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
        self._is_live = is_live
        self._pacer = UpdatePacer(clock)

    def write(self, number: int, text: str) -> None:
        """More of one of the answers."""
        self._texts[number] += text
        self._pacer.grew(len(text))
        self.catch_up()

    def rethink(self, number: int) -> None:
        """Drop what was written of one of the answers: it was thinking."""
        self._texts[number] = ""

    def catch_up(self) -> None:
        """Display text that was held back, if an update is due."""
        if self._is_live and self._pacer.is_due(sum(map(len, self._texts))):
            frame = {"text/html": _html(self._names, self._texts, self._failures)}
            self._output.show(frame)
            self._pacer.sent(len(frame["text/html"].encode()))

    def fail(self, number: int, why: str) -> None:
        """One of the answers ended with an error."""
        self._failures[number] = why

    def close(self, about: Sequence[Mapping[str, Any]] = ()) -> None:
        """Show all of them, ``about`` telling where each comes from, and where they differ."""
        metadata = {PROVENANCE_KEY: [dict(each) for each in about]} if any(about) else {}
        columns = (self._names, self._texts, self._failures)
        bundle = {"text/plain": _plain(*columns), "text/html": _html(*columns)}
        if self._is_live:
            self._output.show(bundle, metadata)
        else:
            self._publish(data=bundle, metadata=metadata)
        differing = compare_texts(self._names, self._texts)
        if differing:
            self._publish(data=differing, metadata={})


def _plain(names: Sequence[str], texts: Sequence[str], failures: Sequence[str]) -> str:
    parts = []
    for name, text, why in zip(names, texts, failures, strict=True):
        said = "\n".join(part for part in (text.strip(), why and f"({why})") if part)
        parts.append(f"{name}:\n{said}")
    return markdown.to_plain_text("\n\n".join(parts))


def _html(names: Sequence[str], texts: Sequence[str], failures: Sequence[str]) -> str:
    columns = "".join(
        f"{_COLUMN}<strong>{markdown.escape_html(name)}</strong>{markdown.render_safe(text)}{_failure_html(why)}</div>"
        for name, text, why in zip(names, texts, failures, strict=True)
    )
    return f"{_ROW}{columns}</div>"


def _failure_html(why: str) -> str:
    said = html.escape(markdown.to_plain_text(why))
    return f'<p class="mathjax_ignore"><em>{said}</em></p>' if why else ""


def compare_texts(names: Sequence[str], texts: Sequence[str]) -> Bundle | None:
    """
    What the others say otherwise than the first, word by word, folded.

    ``None`` where there is nothing to compare with.
    """
    first, *others = ((name, text) for name, text in zip(names, texts, strict=True) if text)
    plain, folded = [], []
    for name, text in others:
        words, count = _mark_differences(first[1], text)
        summary = f"{name} differs from {first[0]} in {count:,} word{'' if count == 1 else 's'}"
        plain.append(summary)
        folded.append(
            f'<details class="mathjax_ignore"><summary><em>{html.escape(markdown.to_plain_text(summary))}</em>'
            f"</summary><p>{words}</p></details>"
        )
    return {"text/plain": "\n".join(plain), "text/html": "".join(folded)} if plain else None


def _mark_differences(one: str, other: str) -> tuple[str, int]:
    """``other`` with what it lacks of ``one`` struck out, and the number of words in question."""
    before, after = (re.findall(r"\S+\s*", markdown.to_plain_text(text)) for text in (one, other))
    parts, count = [], 0
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        gone, come = html.escape("".join(before[a:b])), html.escape("".join(after[c:d]))
        if kind == "equal":
            parts.append(come)
            continue
        count += max(b - a, d - c)
        parts += [f"<del>{gone}</del>" if gone else "", f"<ins>{come}</ins>" if come else ""]
    return "".join(parts), count
