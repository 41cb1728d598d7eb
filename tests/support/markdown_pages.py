"""The Markdown pages of the project, with their links, anchors and code blocks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
_PARSER = MarkdownIt("commonmark").enable("table")


def pages() -> list[Path]:
    """Return every page: those at the top, those of the site, and the templates of the forge."""
    folders = ("docs", "notebooks", ".github")
    found = [
        *ROOT.glob("*.md"),
        *(path for name in folders for path in (ROOT / name).rglob("*.md")),
    ]
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


def name_of(path: Path) -> str:
    """Return the path of a page below the root, with slashes."""
    return path.relative_to(ROOT).as_posix()


def links(path: Path) -> list[str]:
    """Return the addresses of the links and pictures on a page."""
    found = []
    for token in _inline(path):
        for child in token.children or []:
            address = child.attrs.get("href") or child.attrs.get("src")
            if address:
                found.append(str(address))
    return found


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as a forge and the site make them."""
    found: set[str] = set()
    tokens = _PARSER.parse(path.read_text("utf-8"))
    for before, token in itertools.pairwise(tokens):
        if before.type == "heading_open":
            text = "".join(
                child.content
                for child in token.children or []
                if child.type in ("text", "code_inline")
            )
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            number = 0
            while (anchor := f"{slug}-{number}" if number else slug) in found:
                number += 1
            found.add(anchor)
    return found


def code_blocks(path: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in a language."""
    return [
        token.content
        for token in _PARSER.parse(path.read_text("utf-8"))
        if token.type == "fence" and token.info.strip() == language
    ]


def code_spans(path: Path) -> list[str]:
    """Return the code spans of a page."""
    return [
        child.content
        for token in _inline(path)
        for child in token.children or []
        if child.type == "code_inline"
    ]


def sentences(path: Path) -> list[str]:
    """Return the sentences of a page's paragraphs and lists; those of tables and headings not."""
    tokens = _PARSER.parse(path.read_text("utf-8"))
    found: list[str] = []
    for before, token in itertools.pairwise(tokens):
        if before.type == "paragraph_open":
            text = "".join(
                " " if child.type == "softbreak" else child.content
                for child in token.children or []
                if child.type in ("text", "code_inline", "softbreak")
            )
            found += re.split(r"(?<=[.!?])\s+(?=\S)", text)
    return [sentence for sentence in found if sentence.strip()]


def _inline(path: Path) -> Iterator[Token]:
    return (token for token in _PARSER.parse(path.read_text("utf-8")) if token.type == "inline")
