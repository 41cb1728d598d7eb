"""
Inline styles of outputs, for light and dark pages and for untrusted notebooks.

In an untrusted notebook, JupyterLab removes ``<style>``, ``var()`` and SVG, but not literal inline
styles. So colours are literal ones that are readable on light and dark pages; where JupyterLab's
theme has its own, its variable follows. All outputs contain their styles, because some
frontends display each output in a separate frame.
"""

from __future__ import annotations

_LINE = "rgba(128,128,128,.4)"


def colour(literal: str, variable: str) -> str:
    """Return the declaration of a text colour: ``variable`` where it exists, else ``literal``."""
    return f"color:{literal};color:var({variable},{literal})"


# Text of less importance than the answer; this grey can be read on light and dark pages.
MUTED = "color:#797979"
FAILURE = colour("#d24b45", "--jp-error-color1")
# In the differences between two texts.
REMOVED = "background-color:rgba(248,81,73,.25)"
ADDED = "background-color:rgba(46,160,67,.25);text-decoration:none"
SMALL = f"font-size:12px;{MUTED}"


def ruled(html: str, kind: str = "") -> str:
    """Return ``html`` with a thin rule on its left; ``kind`` is a class of the element."""
    named = f' class="{kind}"' if kind else ""
    return f'<div{named} style="border-left:3px solid {_LINE};padding-left:12px">{html}</div>'


def model_tag(name: str) -> str:
    """Return the name of a model, already escaped, as a small line above its answer."""
    return f'<div style="{SMALL}">{name}</div>'


def small(html: str, kind: str = "") -> str:
    """Return ``html`` as small, muted text; ``kind`` is a class of the element."""
    named = f' class="{kind}"' if kind else ""
    return f'<small{named} style="{MUTED}">{html}</small>'


def code_box(code: str, language: str) -> str:
    """
    Return code, as HTML, in a box with the name of its language, already escaped.

    One click selects all of the code, in trusted notebooks.
    """
    label = (
        f'<div style="{SMALL};padding:2px 8px;border-bottom:1px solid {_LINE}">{language}</div>'
        if language
        else ""
    )
    return (
        f'<div style="border:1px solid {_LINE};border-radius:4px;margin-bottom:1em">{label}'
        '<pre style="margin:0;padding:6px 8px;overflow-x:auto;white-space:pre;user-select:all">'
        f'<code style="white-space:pre">{code}</code></pre></div>\n'
    )
