"""Signatures and docstrings of the package as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

# A code span of reStructuredText, or a reference; both are code on a page.
_DOUBLE_TICKS = re.compile(r"``(.+?)``")
_MODULE_NAMES = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])")
_LINE = 88


def markdown(text: str) -> str:
    """Return a docstring's text as Markdown."""
    return _DOUBLE_TICKS.sub(r"`\1`", text.strip())


def one_line(text: str | None) -> str:
    """Return a description on one line, as a sentence, for a table or a list."""
    line = " ".join(markdown(text or "").split())
    if line.partition(" ")[0].isalpha():
        line = line[0].upper() + line[1:]
    return line + ("" if not line or line[-1] in ".:!?…" else ".")


def cell(text: str) -> str:
    """Return ``text`` as a cell of a table: its bars escaped."""
    return text.replace("|", "\\|")


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *([cell(each) for each in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def signature(name: str, function: Callable[..., Any]) -> str:
    """Return the call of ``function`` with its parameters, one a line where it is long."""
    found = inspect.signature(function)
    parameters = [each for each in found.parameters.values() if each.name not in ("self", "cls")]
    written: list[str] = []
    for number, each in enumerate(parameters):
        previous = parameters[number - 1].kind if number else None
        is_first_keyword = each.kind is each.KEYWORD_ONLY and previous not in (
            each.KEYWORD_ONLY,
            each.VAR_POSITIONAL,
        )
        written += ["*", _parameter(each)] if is_first_keyword else [_parameter(each)]
    result = _annotation(found.return_annotation)
    arrow = f" -> {result}" if result else ""
    line = f"{name}({', '.join(written)}){arrow}"
    if len(line) <= _LINE:
        return line
    return "\n".join([f"{name}(", *(f"    {each}," for each in written), f"){arrow}"])


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    kind = _annotation(parameter.annotation)
    written = f"{stars}{parameter.name}" + (f": {kind}" if kind and not stars else "")
    if parameter.default is parameter.empty:
        return written
    equals = " = " if kind else "="
    return f"{written}{equals}{parameter.default!r}"


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return _MODULE_NAMES.sub("", text)


def description(owner: Any) -> str:
    """Return the docstring of ``owner``: its text, then lists of arguments, results and errors."""
    introduction, sections = _sections(owner)
    parts = [introduction] if introduction else []
    for heading, body in sections.items():
        if heading in ("Returns", "Yields"):
            parts.append(f"{heading}: {one_line(body)}")
        else:
            lines = [
                f"- {', '.join(f'`{name}`' for name in names)}: {one_line(text)}"
                for names, text in _entries(body)
            ]
            title = {"Args": "Arguments"}.get(heading, heading)
            parts.append(f"{title}:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def text_of(owner: Any) -> str:
    """Return the docstring of ``owner`` without its sections."""
    return _sections(owner)[0]


def attributes(owner: Any) -> dict[str, str]:
    """Return the attributes that a class's docstring describes, and their descriptions."""
    body = _sections(owner)[1].get("Attributes", "")
    return {name: one_line(text) for names, text in _entries(body) for name in names}


def _sections(owner: Any) -> tuple[str, dict[str, str]]:
    """The text of a docstring in Google's style, and the bodies of its sections by heading."""
    text, *rest = re.split(r"^(\w+):$", inspect.getdoc(owner) or "", flags=re.MULTILINE)
    bodies = dict(zip(rest[::2], map(inspect.cleandoc, rest[1::2]), strict=True))
    return markdown(text), bodies


def _entries(body: str) -> list[tuple[list[str], str]]:
    """The entries of a section: their names, and their text."""
    entries = re.split(r"^([\w.*]+(?:, [\w.*]+)*): ", body, flags=re.MULTILINE)[1:]
    names = [each.split(", ") for each in entries[::2]]
    return list(zip(names, entries[1::2], strict=True))
