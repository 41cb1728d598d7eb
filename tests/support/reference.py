"""The blocks of the README that are made from the code: print them with ``python -m tests.support.reference``."""

from __future__ import annotations

import contextlib
import io
from argparse import Action
from pathlib import Path

from llm_magics.notebook.commands import COMMANDS
from llm_magics.notebook.parsers import llm_cell_parser
from llm_magics.providers import built_in_providers, provider_type


def subcommands() -> str:
    """What ``%llm help`` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        COMMANDS["help"](None, "", {})  # type: ignore[arg-type]
    return printed.getvalue().strip()


def flags() -> str:
    """A line for each flag of ``%%llm``."""
    rows = [(_written(action), str(action.help)) for action in llm_cell_parser()._actions]
    width = max(len(written) for written, _ in rows)
    return "\n".join(f"{written:{width}}  {told}" for written, told in rows)


def _written(action: Action) -> str:
    names = ", ".join(action.option_strings)
    value = str(action.metavar or "")
    if action.choices:
        value = "|".join(map(str, action.choices))
    if action.nargs == "?":
        value = f"[{value}]"
    if action.nargs == "*":
        return f"[{value} …]"
    return f"{names} {value}".strip()


def provider_rows() -> list[str]:
    """A row of the table of providers for each."""
    rows = []
    for name in built_in_providers():
        kind = provider_type(name)
        variables = ", ".join(f"`{each}`" for each in kind.environment) or "–"
        start = f"`{kind.start}`" if kind.start else "–"
        rows.append(f"| `{name}` | {variables} | {start} | {', '.join(kind.capabilities)} |")
    return rows


def example() -> str:
    """The provider that shows how one is written."""
    return Path(__file__).with_name("markov.py").read_text("utf-8")


if __name__ == "__main__":
    print(subcommands(), flags(), *provider_rows(), sep="\n\n")
