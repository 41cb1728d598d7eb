"""
Lines of ``%llm`` that IPython would read as something else.

IPython takes ``%llm ask Why is the sky blue?`` for a question about an object named ``blue``,
and would show an answer again as the result of its line. Such lines are turned into calls of
the magic first. ``%llm pull?`` shows the help of the subcommand; ``%llm?`` stays IPython's.
"""

from __future__ import annotations

import re
from tokenize import COMMENT, DEDENT, ENCODING, INDENT, NEWLINE, NL

_LINE = re.compile(
    r"""^(?P<space>\s*)(?P<target>[\w.\[\]"', ]+=\s*)?%llm[ \t]+(?P<name>\w+)(?P<rest>.*?)\s*$"""
)

# What these return has been shown while it came.
_SHOWN = frozenset({"ask", "explain", "image"})

_LAYOUT = frozenset({COMMENT, DEDENT, ENCODING, INDENT, NEWLINE, NL})


def call_magics(lines: list[str]) -> list[str]:
    """Return a cell's lines with such lines of ``%llm`` turned into calls."""
    first = next((line for line in lines if line.strip()), "")
    if first.startswith("%%"):  # its body is not Python, or is transformed when it is run
        return lines
    called = {number: call for number, line in enumerate(lines) if (call := _call(line))}
    starts = _starts_of_statements(lines) if called else set()
    return [
        called[number] if number in called and number in starts else line
        for number, line in enumerate(lines)
    ]


# IPython must not ask it whether what is being typed in a terminal is complete.
call_magics.has_side_effects = True  # type: ignore[attr-defined]


def _call(line: str) -> str | None:
    found = _LINE.match(line)
    if found is None:
        return None
    name, rest, target = found["name"], found["rest"], found["target"] or ""
    if name not in _SHOWN and not rest.endswith("?"):
        return None
    text = f"{name}{rest}"
    if rest in ("?", "??"):
        text = f"help {name}"
    end = "" if target or name not in _SHOWN else " and None"  # so that it is not shown again
    return f"{found['space']}{target}get_ipython().run_line_magic('llm', {text!r}){end}\n"


def _starts_of_statements(lines: list[str]) -> set[int]:
    """Return the places of lines on which a statement begins; those within quotes do not."""
    from IPython.core.inputtransformer2 import make_tokens_by_line

    starts = set()
    for tokens in make_tokens_by_line(lines):
        first = next((token for token in tokens if token.type not in _LAYOUT), None)
        if first is not None:
            starts.add(first.start[0] - 1)
    return starts
