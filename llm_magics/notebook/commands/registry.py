"""What a subcommand of ``%llm`` is, and those there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llm_magics.errors import UsageError
from llm_magics.notebook.parsers import split_words

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

Variables = Mapping[str, Any]
Command = Callable[["InteractiveShell", str, Variables], Any]

__all__ = [
    "COMMANDS",
    "PROSE",
    "USAGE",
    "Command",
    "Variables",
    "command",
    "on_or_off",
    "one_word",
]

COMMANDS: dict[str, Command] = {}
USAGE: dict[str, str] = {}

# Subcommands whose line is prose, in which a # begins no comment.
PROSE: set[str] = set()


def command(usage: str, *, is_prose: bool = False) -> Callable[[Command], Command]:
    """
    Make a function a subcommand: ``usage`` begins with its name, its docstring is its help.

    ``is_prose``: its line is a text for a model, and a ``#`` in it begins no comment.
    """
    name = usage.partition(" ")[0]

    def register(function: Command) -> Command:
        COMMANDS[name] = function
        USAGE[name] = usage
        if is_prose:
            PROSE.add(name)
        return function

    return register


def one_word(name: str, rest: str, what: str, example: str = "local/smollm2-135m") -> str:
    """The only word of the line."""
    words = split_words(rest)
    if len(words) != 1:
        received = f", and was given {rest!r}" if rest else ""
        msg = f"%llm {name} takes {what}{received}."
        raise UsageError(msg, hint=f"Write %llm {name} {example}.")
    return words[0]


def on_or_off(name: str, rest: str) -> bool:
    """Whether the line says ``on``."""
    if rest not in ("on", "off"):
        msg = f"%llm {name} takes on or off, and was given {rest!r}."
        raise UsageError(msg, hint=f"Write %llm {name} on.")
    return rest == "on"
