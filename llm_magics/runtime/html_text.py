"""
The text of HTML, with Markdown's marks for headings, lists and tables.

Python's own parser takes minutes for a small file of unfinished tags; this one takes time that is
proportional to the length of the file, and needs no more than the visible text.
"""

from __future__ import annotations

import re
from html import unescape

# Elements whose content a reader does not see, and those of them whose content is not HTML.
_SKIPPED = frozenset({"head", "noscript", "script", "style", "svg", "template", "title"})
_RAW = frozenset({"script", "style"})
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "br", "caption", "dd", "div", "dl", "dt",
    "figcaption", "footer", "form", "header", "hr", "main", "nav", "ol", "p", "pre", "section",
    "table", "tbody", "tfoot", "thead", "tr", "ul",
})  # fmt: skip
_HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
_CELLS, _ROWS = frozenset({"td", "th"}), frozenset({"table", "tr"})

_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*+)")
# The rest of a tag; a value in quotes may contain ">". It never backtracks.
_ATTRIBUTES = re.compile(r"""(?:[^>"']++|"[^"]*+"|'[^']*+')*+>""")
_END_OF_RAW = {name: re.compile(f"</{name}(?=[\\s/>])", re.IGNORECASE) for name in _RAW}


def html_to_text(source: str) -> str:
    """Return the visible text of HTML, without scripts, styles and its head."""
    text = _VisibleText()
    _parse(source, text)
    lines = (line.rstrip() for line in "".join(text.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _parse(source: str, text: _VisibleText) -> None:
    at, has_open_quote = 0, False
    while (start := source.find("<", at)) >= 0:
        text.add(source[at:start])
        if source.startswith(("<!", "<?"), start):
            mark = "-->" if source.startswith("<!--", start) else ">"
            end = source.find(mark, start + 2)
            if end < 0:
                return  # an unfinished comment hides the rest
            at = end + len(mark)
            continue
        tag = _TAG.match(source, start)
        if tag is None:
            text.add("<")
            at = start + 1
            continue
        found = None if has_open_quote else _ATTRIBUTES.match(source, tag.end())
        if found is None:  # a quote is open up to the end of the file, also for all later tags
            has_open_quote = True
            end = source.find(">", tag.end()) + 1
            if not end:
                return
        at = found.end() if found is not None else end
        name = tag[2].lower()
        if tag[1]:
            text.end(name)
            continue
        text.start(name)
        if name in _RAW:
            closed = _END_OF_RAW[name].search(source, at)
            if closed is None:
                return
            at = closed.start()
    text.add(source[at:])


class _VisibleText:
    """Collects the text between tags."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._skipped: list[str] = []
        self._is_preformatted = self._has_cell = self._is_in_cell = False

    def start(self, tag: str) -> None:
        """Begin an element."""
        if tag == "body":
            self._skipped.clear()  # the head may be without an end
        if tag in _SKIPPED:
            self._skipped.append(tag)
        elif tag in _HEADINGS:
            self.parts.append(f"\n\n{_HEADINGS[tag]} ")
        elif tag == "li":
            self.parts.append("\n- ")
        elif tag in _CELLS:
            if self._has_cell and self.parts:
                self.parts[-1] = self.parts[-1].rstrip(" ")
                self.parts.append(" | ")
            self._has_cell = self._is_in_cell = True
        elif tag in _BLOCKS:
            if tag in _ROWS:
                self._has_cell = self._is_in_cell = False
            self._break()
            self._is_preformatted = self._is_preformatted or tag == "pre"

    def end(self, tag: str) -> None:
        """End an element."""
        if self._skipped:
            if tag == self._skipped[-1]:
                self._skipped.pop()
        elif tag in _CELLS:
            self._is_in_cell = False
        elif tag in _BLOCKS or tag in _HEADINGS:
            self._is_in_cell = self._is_in_cell and tag not in _ROWS
            self._break()
            self._is_preformatted = self._is_preformatted and tag != "pre"

    def add(self, source: str) -> None:
        """Add text, in which line breaks are spaces unless it is preformatted."""
        if self._skipped or not source:
            return
        text = _unescape(source)
        if not self._is_preformatted:
            text = re.sub(r"\s+", " ", text)
            text = text.lstrip() if self.parts and self.parts[-1][-1:].isspace() else text
        if text:
            self.parts.append(text)

    def _break(self) -> None:
        """Begin a line; the paragraphs of a cell of a table stay on one line."""
        if not self._is_in_cell:
            self.parts.append("\n")
        elif self.parts and not self.parts[-1][-1:].isspace():
            self.parts.append(" ")


def _unescape(source: str) -> str:
    try:
        return unescape(source)
    except ValueError:  # a number of thousands of digits
        return source
