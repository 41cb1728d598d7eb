"""
Rendering of model text as safe HTML, with syntax highlighting.

JupyterLab trusts the outputs of cells that a user runs, and would run scripts in them. So Markdown
is rendered here, with a renderer that escapes raw HTML, ignores images, and allows only links that
have no effect until clicked. Pygments splits code into tokens. See `styles` for the colours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from functools import cache
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

from llm_magics._util import typesetting
from llm_magics._util.text import display_name, replace_lone_surrogates, strip_controls
from llm_magics.notebook import styles
from llm_magics.notebook.markdown_rules import (
    align_tables,
    mark_tasks,
    parse_displayed_formula,
    parse_inline_formula,
)
from llm_magics.secrets import scrub

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.ruler import RuleOptionsType
    from markdown_it.token import Token
    from pygments.lexer import Lexer


# Languages that models use often. A lexer can be slow on malicious text, so only these languages
# and only short texts are highlighted.
_LANGUAGES = frozenset(
    [
        "python",
        "py",
        "python3",
        "pycon",
        "ipython",
        "bash",
        "sh",
        "shell",
        "console",
        "json",
        "yaml",
        "toml",
        "ini",
        "sql",
        "javascript",
        "js",
        "typescript",
        "ts",
        "jsx",
        "tsx",
        "html",
        "xml",
        "css",
        "java",
        "kotlin",
        "scala",
        "c",
        "cpp",
        "c++",
        "csharp",
        "go",
        "rust",
        "r",
        "julia",
        "ruby",
        "php",
        "perl",
        "lua",
        "swift",
        "diff",
        "dockerfile",
        "docker",
        "make",
        "makefile",
    ]
)
_MAX_CODE = 20_000

# For a token type and its subtypes: a colour that is readable on light and dark pages, and the
# name of the colour of JupyterLab's editor.
_COLOURS = (
    ("Comment", "#6d7c7c", "comment"),
    ("Keyword", "#0a8c3d", "keyword"),
    ("Operator.Word", "#0a8c3d", "keyword"),
    ("String", "#c35755", "string"),
    ("Number", "#578529", "number"),
    ("Name.Function", "#4177d9", "def"),
    ("Name.Class", "#4177d9", "def"),
    ("Name.Decorator", "#8665d7", "meta"),
    ("Name.Builtin", "#388484", "builtin"),
    ("Name.Tag", "#0a8c3d", "tag"),
    ("Name.Attribute", "#4177d9", "attribute"),
    ("Generic.Deleted", "#c35755", "string"),
    ("Generic.Inserted", "#0a8c3d", "keyword"),
)


def highlight(code: str, language: str, *, is_draft: bool = False) -> str:
    """
    Return ``code`` as escaped HTML, highlighted if the language is supported.

    With ``is_draft``, the colours are literal, and not those of JupyterLab's theme.
    """
    language = language.lower()
    if language not in _LANGUAGES or len(code) > _MAX_CODE:
        return escape(code)
    return "".join(_colour_spans(_lexer(language).get_tokens(code), is_draft))


@cache
def _lexer(language: str) -> Lexer:
    from pygments.lexers import get_lexer_by_name

    return get_lexer_by_name(language, stripnl=False, ensurenl=False)


def _colour_spans(tokens: Iterable[tuple[Any, str]], is_draft: bool) -> Iterator[str]:
    """Yield the tokens as HTML, with one element for adjacent tokens of the same colour."""
    for style, group in groupby(tokens, lambda token: _style(token[0], is_draft)):
        text = escape("".join(word for _, word in group))
        yield f'<span style="{style}">{text}</span>' if style and text.strip() else text


@cache
def _style(kind: Any, is_draft: bool) -> str:
    from pygments.token import string_to_tokentype

    for name, literal, ours in _COLOURS:
        if kind in string_to_tokentype(
            "Literal." + name if name in ("String", "Number") else name
        ):
            variable = f"--jp-mirror-editor-{ours}-color"
            return f"color:{literal}" if is_draft else styles.colour(literal, variable)
    return ""


# The key of `render_answer`'s argument in the environment of the renderer.
_IS_DRAFT = "is_draft"

_LINKS = re.compile(r"(?:https?://|mailto:|#)", re.IGNORECASE)


def to_plain_text(text: str) -> str:
    """Return ``text`` without control characters and API keys."""
    return scrub(strip_controls(replace_lone_surrogates(text)))


def render_answer(text: str, model: str = "", *, is_draft: bool = False) -> str:
    """
    Render ``text`` (Markdown with TeX) as HTML that is safe in a trusted cell.

    A rule on its left sets it apart from the author's prose; with ``model``, the name of the model
    is a small tag above it. ``is_draft`` means that the text is incomplete: its HTML is smaller,
    because it is sent again with each update.

    Frontends typeset the text between dollar signs or TeX brackets in HTML. So harmless formulas
    are marked to be typeset, and all other text is marked to be ignored: the text between two
    prices is not a formula.
    """
    tag = styles.model_tag(escape(to_plain_text(display_name(model)))) if model else ""
    rendered = tag + _renderer().render(to_plain_text(text), {_IS_DRAFT: is_draft})
    kind = typesetting.IGNORE if typesetting.may_contain_formula(rendered) else ""
    return styles.ruled(rendered, kind)


def escape_html(text: str) -> str:
    """Return ``text`` as HTML without markup, in which formulas are not typeset."""
    return typesetting.mark_ignored(escape(to_plain_text(text)), "span")


@cache
def _renderer() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    # Models start a new line where they want one, so single line breaks are kept.
    renderer = MarkdownIt("commonmark", {"html": False, "breaks": True})
    renderer.enable(["table", "strikethrough"])
    renderer.core.ruler.push("task_lists", mark_tasks)
    renderer.core.ruler.push("table_alignment", align_tables)
    renderer.disable("image")
    renderer.validateLink = lambda url: _LINKS.match(url) is not None  # type: ignore[method-assign]
    renderer.add_render_rule("link_open", _link_open)
    renderer.add_render_rule("fence", _fence)
    dollarmath_plugin(
        renderer, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True
    )
    renderer.inline.ruler.before("escape", "bracket_formula", parse_inline_formula)
    ends: RuleOptionsType = {"alt": ["paragraph", "blockquote", "list"]}
    renderer.block.ruler.before("fence", "bracket_formula", parse_displayed_formula, ends)
    for kind in ("math_inline", "math_inline_double", "math_block"):
        renderer.add_render_rule(kind, _formula)
    return renderer


def _formula(
    self: Any, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    """Return a formula as HTML that the frontend typesets if the formula is harmless."""
    is_inline = tokens[index].type == "math_inline"
    tag, mark = ("span", "$") if is_inline else ("div", "$$")
    content = tokens[index].content.strip()
    formula = typesetting.sanitize_formula(content)
    kind = typesetting.IGNORE if formula is None else typesetting.PROCESS
    text = escape(content if formula is None else formula)
    return f'<{tag} class="{kind}">{mark}{text}{mark}</{tag}>'


def _fence(
    self: Any, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    """Return a highlighted code block in a box, with the name of its language."""
    language = tokens[index].info.strip().partition(" ")[0]
    code = highlight(tokens[index].content, language, is_draft=bool(env.get(_IS_DRAFT)))
    return styles.code_box(code, escape(language))


def _link_open(
    self: Any, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer")
    tokens[index].attrSet("target", "_blank")
    rendered: str = self.renderToken(tokens, index, options, env)
    return rendered
