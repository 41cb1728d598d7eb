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

from llm_magics._util import terminal, typesetting
from llm_magics._util.text import replace_lone_surrogates
from llm_magics.notebook.highlighting import highlighted
from llm_magics.secrets import scrub

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_LINKS = re.compile(r"(?:https?://|mailto:|#)", re.IGNORECASE)


def plain(text: str) -> str:
    """Return ``text`` without control characters and without keys."""
    return scrub(terminal.plain(replace_lone_surrogates(text)))


def html(text: str) -> str:
    """
    ``text``, read as Markdown with TeX, as HTML that is safe in a trusted cell.

    Frontends typeset what stands between dollars or TeX's brackets in HTML. So formulas that
    only draw are marked as such, and the rest as not: two prices in a sentence are no formula.
    """
    rendered: str = _renderer().render(plain(text))
    return typesetting.ignored(rendered)


def escaped(text: str) -> str:
    """Return ``text`` as HTML in which nothing is marked up, and nothing is typeset."""
    return typesetting.ignored(escape(plain(text)), "span")


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
    """Return a formula as it was written, for the frontend to typeset if it only draws."""
    is_inline = tokens[index].type == "math_inline"
    tag, mark = ("span", "$") if is_inline else ("div", "$$")
    content = tokens[index].content.strip()
    formula = typesetting.drawn(content)
    kind = typesetting.IGNORE if formula is None else typesetting.PROCESS
    shown = escape(content if formula is None else formula)
    return f'<{tag} class="{kind}">{mark}{shown}{mark}</{tag}>'


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
