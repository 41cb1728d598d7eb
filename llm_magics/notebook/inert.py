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
from html import escape
from typing import TYPE_CHECKING, Any

from llm_magics import terminal
from llm_magics.notebook.highlighting import highlighted
from llm_magics.secrets import scrub
from llm_magics.types import whole_text

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

# What a formula could link, fetch, style or define by: such a one is shown as it is written.
_NO_FORMULA = re.compile(
    r"\\\\?\s*(?:bbox|catcode|class|csname|cssId|data|def|enclose|gdef|edef|xdef|href|html\w*|include\w*|input"
    r"|let|mmlToken|newcommand|newenvironment|renewcommand|renewenvironment|require|style|url)(?![A-Za-z])"
)
_BARE_DOLLAR = re.compile(r"(?<!\\)\$")

_LINKS = re.compile(r"(?:https?://|mailto:|#)", re.IGNORECASE)


def plain(text: str) -> str:
    """Return ``text`` without control characters and without keys."""
    return scrub(terminal.plain(whole_text(text)))


def html(text: str) -> str:
    """
    ``text``, read as Markdown with TeX, as HTML that is safe in a trusted cell.

    Frontends typeset what stands between dollars in HTML. So formulas are marked as such, and
    the rest as not: two prices in a sentence are no formula.
    """
    rendered: str = _renderer().render(plain(text))
    return f'<div class="mathjax_ignore">{rendered}</div>' if "$" in rendered else rendered


@cache
def _renderer() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin
    from mdit_py_plugins.texmath import texmath_plugin

    renderer = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    renderer.disable("image")
    renderer.validateLink = lambda url: _LINKS.match(url) is not None  # type: ignore[method-assign]
    renderer.add_render_rule("link_open", _link_open)
    renderer.add_render_rule("fence", _fence)
    dollarmath_plugin(
        renderer, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True
    )
    texmath_plugin(renderer, delimiters="brackets")
    for kind in ("math_inline", "math_inline_double", "math_block"):
        renderer.add_render_rule(kind, _formula)
    return renderer


def _formula(
    self: Any, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    """A formula as it was written, for the frontend to typeset."""
    is_inline = tokens[index].type == "math_inline"
    tag, mark = ("span", "$") if is_inline else ("div", "$$")
    # A dollar within would end it, and what follows would be read as something else.
    content = escape(_BARE_DOLLAR.sub(r"\\$", tokens[index].content.strip()))
    kind = "ignore" if _NO_FORMULA.search(content) else "process"
    return f'<{tag} class="mathjax_{kind}">{mark}{content}{mark}</{tag}>'


def _fence(
    self: Any, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    """A block of code, in colours."""
    language = tokens[index].info.strip().partition(" ")[0]
    return f"<pre><code>{highlighted(tokens[index].content, language)}</code></pre>\n"


def _link_open(
    self: Any, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer")
    tokens[index].attrSet("target", "_blank")
    rendered: str = self.renderToken(tokens, index, options, env)
    return rendered
