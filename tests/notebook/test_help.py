"""``%llm help``: each subcommand by its name."""

from __future__ import annotations

import inspect

import pytest
from IPython.core.interactiveshell import InteractiveShell

from llm_magics.notebook.commands import COMMANDS
from llm_magics.notebook.commands.registry import USAGE


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_one_subcommand(
    name: str, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own usage and all of its own words, and no other's."""
    shell.run_line_magic("llm", f"help {name}")
    first, _, rest = capsys.readouterr().out.partition("\n")
    assert first == f"%llm {USAGE[name]}"
    words = inspect.getdoc(COMMANDS[name])
    assert words
    assert " ".join(words.split()) in " ".join(rest.split())


def test_help_without_a_name(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each subcommand, with its usage."""
    shell.run_line_magic("llm", "help")
    lines = capsys.readouterr().out.splitlines()
    for usage in USAGE.values():
        assert sum(line.startswith(f"  %llm {usage} ") for line in lines) == 1
