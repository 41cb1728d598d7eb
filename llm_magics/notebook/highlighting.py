"""
Code in an answer, in the colours of the page it stands in.

Pygments tells the words of a language apart. Their colours are JupyterLab's own, which follow
its theme; elsewhere ones that can be read on light and on dark stand in for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pygments.lexer import Lexer

# Those that models write often. A lexer can be slow on text made to be so: no more than these,
# and no long text.
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
_LONGEST = 20_000

# Of a kind of word and all kinds below it: JupyterLab's name of its colour, and one for elsewhere.
_COLOURS = (
    ("Comment", "comment", "#6a8a8a"),
    ("Keyword", "keyword", "#0a8a3c"),
    ("Operator.Word", "keyword", "#0a8a3c"),
    ("String", "string", "#c0504d"),
    ("Number", "number", "#5a8a2a"),
    ("Name.Function", "def", "#4a7ddb"),
    ("Name.Class", "def", "#4a7ddb"),
    ("Name.Decorator", "meta", "#8a6ad8"),
    ("Name.Builtin", "builtin", "#3a8a8a"),
    ("Name.Tag", "tag", "#0a8a3c"),
    ("Name.Attribute", "attribute", "#4a7ddb"),
    ("Generic.Deleted", "string", "#c0504d"),
    ("Generic.Inserted", "keyword", "#0a8a3c"),
)


def highlighted(code: str, language: str) -> str:
    """``code`` as HTML: escaped, and in colours where the language is known."""
    language = language.lower()
    if language not in _LANGUAGES or len(code) > _LONGEST:
        return escape(code)
    return "".join(_pieces(_lexer(language).get_tokens(code)))


@cache
def _lexer(language: str) -> Lexer:
    from pygments.lexers import get_lexer_by_name

    return get_lexer_by_name(language, stripnl=False, ensurenl=False)


def _pieces(tokens: Iterable[tuple[Any, str]]) -> Iterator[str]:
    """Neighbours of one colour in one piece."""
    for style, group in groupby(tokens, lambda token: _style(token[0])):
        text = escape("".join(word for _, word in group))
        yield f'<span style="color:{style}">{text}</span>' if style and text.strip() else text


@cache
def _style(kind: Any) -> str:
    from pygments.token import string_to_tokentype

    for name, ours, elsewhere in _COLOURS:
        if kind in string_to_tokentype(
            "Literal." + name if name in ("String", "Number") else name
        ):
            return f"var(--jp-mirror-editor-{ours}-color,{elsewhere})"
    return ""
