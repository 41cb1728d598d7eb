"""
Restrict what MathJax typesets in untrusted text.

JupyterLab typesets every HTML output, including tables of pandas. A definition in one formula
applies to the whole window, including other notebooks. So HTML with untrusted text is marked to be
ignored, except for formulas in it that only draw.
"""

from __future__ import annotations

import re
from functools import cache

IGNORE, PROCESS = "mathjax_ignore", "mathjax_process"

_TOKENS = re.compile(r"\\(?:([A-Za-z]+)|.|$)|\$", re.DOTALL)

# Matched after any backslash, even if it seems escaped: a second line of defence, because chemical
# formulas have another syntax.
_FORBIDDEN = re.compile(
    r"\\\s*(?:\w*(?:def|define\w*|declare\w*|newcommand\w*|newenvironment|tagform|require|setoptions)|let"
    r"|futurelet|global|csname|catcode|char|newextarrow|bbox|class|cssid|data|enclose|eqref|fcolorbox|href"
    r"|html\w*|include\w*|input|label|mathtoolsset|mmltoken|newdocument\w*|ref|style|unicode|url|mathtip"
    r"|texttip|toggle|verb)(?![A-Za-z])",
    re.IGNORECASE,
)

_TEXT = re.compile(r"(<[^>]*>)")

# As in Markdown: no space inside the dollars, and no letter or digit next to them.
_INLINE = re.compile(
    r"(?<![\\$\w])\$(?![\s$])((?:\\.|[^$\\\n]){1,500}?)(?<![\s\\])\$(?![\w$])|\\\(((?:\\.|[^\\\n]){1,500}?)\\\)"
)


@cache
def drawing_commands() -> frozenset[str]:
    """
    Return the names of the TeX commands that only draw, read from ``tex_commands.txt``.

    They are those of all MathJax packages that JupyterLab loads, except the ones that define
    commands, load packages, link, label, style or classify elements, or set options.
    """
    from importlib.resources import files  # loading the extension should not import it

    text = files(__package__).joinpath("tex_commands.txt").read_text("utf-8")
    return frozenset(text.split())


def may_contain_formula(html: str) -> bool:
    """Return whether MathJax could find a formula in ``html``."""
    return "$" in html or "\\" in html


def sanitize_formula(formula: str) -> str | None:
    """
    Return ``formula`` if it can only draw, with the dollars in it escaped.

    Return ``None`` if it could define, load, link, label or style something, or if it is truncated.
    """
    if _FORBIDDEN.search(formula):
        return None
    parts, at = [], 0
    for token in _TOKENS.finditer(formula):
        name, command = token[1], token[0]
        if command == "\\" or (name and name not in drawing_commands()):
            return None
        parts += [formula[at : token.start()], r"\$" if command == "$" else command]
        at = token.end()
    return "".join([*parts, formula[at:]])


def mark_ignored(html: str, tag: str = "div") -> str:
    """Return ``html``, marked to be ignored by MathJax if it could find a formula in it."""
    return f'<{tag} class="{IGNORE}">{html}</{tag}>' if may_contain_formula(html) else html


def sanitize_table(html: str) -> str:
    """Return a table in HTML, in which MathJax typesets only formulas that just draw."""
    if not may_contain_formula(html):
        return html
    parts = _TEXT.split(html)
    parts[::2] = [
        _INLINE.sub(_mark_formula, part) if may_contain_formula(part) else part
        for part in parts[::2]
    ]
    return mark_ignored("".join(parts))


def _mark_formula(found: re.Match[str]) -> str:
    formula = sanitize_formula(found[1] or found[2])
    return found[0] if formula is None else f'<span class="{PROCESS}">${formula}$</span>'
