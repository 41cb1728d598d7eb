"""
Model text made harmless: what a notebook shows of it can neither run nor fetch anything.

JupyterLab trusts the outputs of the cells a user runs, and would run a script in them. So the
Markdown is turned into HTML here, by a renderer that escapes raw HTML, knows no images, and
keeps only links that a reader must click.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from llm_magics.types import whole_text

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_LINKS = re.compile(r"(?:https?://|mailto:|#)", re.IGNORECASE)

# All controls but tab and newline: an escape sequence could rewrite a terminal.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """``text`` without control characters."""
    return _CONTROLS.sub("", whole_text(text))


def html(text: str) -> str:
    """``text``, read as Markdown, as HTML that is safe in a trusted cell."""
    rendered: str = _renderer().render(plain(text))
    return rendered


@cache
def _renderer() -> MarkdownIt:
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    renderer.disable("image")
    renderer.validateLink = lambda url: _LINKS.match(url) is not None  # type: ignore[method-assign]
    renderer.add_render_rule("link_open", _link_open)
    return renderer


def _link_open(
    self: Any, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer")
    tokens[index].attrSet("target", "_blank")
    rendered: str = self.renderToken(tokens, index, options, env)
    return rendered
