"""Registration, dispatch and help of the subcommands of ``%llm``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llm_magics.errors import Interrupted, UsageError, nearest
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.parsers import (
    bench_parser,
    compare_parser,
    embed_parser,
    gate_parser,
    llm_cell_parser,
    split_words,
    strip_comment,
)

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

Variables = Mapping[str, Any]
Command = Callable[["InteractiveShell", str, Variables], Any]

__all__ = [
    "COMMANDS",
    "GROUPS",
    "PROSE",
    "USAGE",
    "Command",
    "Variables",
    "command",
    "names_by_group",
    "on_or_off",
    "one_word",
    "run",
    "show_help",
]

COMMANDS: dict[str, Command] = {}
USAGE: dict[str, str] = {}

# The headings of the help, by the module that defines the subcommands.
GROUPS = {
    "ask": "Prompting",
    "models": "Models and providers",
    "benchmarks": "Comparing and measuring",
    "evaluations": "Evaluations",
    "history": "Calls, cost and recordings",
    "jobs": "Batch jobs",
    "mcp": "Tools of MCP servers",
    "settings": "Settings and keys",
    "registry": "Help",
}

# Subcommands whose line is prose, in which # does not start a comment.
PROSE: set[str] = set()


def command(usage: str, *, is_prose: bool = False) -> Callable[[Command], Command]:
    """
    Register a function as a subcommand. Its docstring is the text of its help.

    Args:
        usage: the name of the subcommand, followed by its arguments.
        is_prose: whether its line is a text for a model, in which ``#`` does not start a comment.
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
    """
    Return the only word of the line.

    Raises:
        UsageError: the line does not have exactly one word.
    """
    words = split_words(rest)
    if len(words) != 1:
        received = f" (got {rest!r})" if rest else ""
        msg = f"%llm {name} takes {what}{received}."
        raise UsageError(msg, hint=f"Use: %llm {name} {example}")
    return words[0]


def on_or_off(name: str, rest: str) -> bool:
    """
    Return whether the line is ``on``.

    Raises:
        UsageError: the line is not ``on`` or ``off``.
    """
    if rest not in ("on", "off"):
        msg = f"%llm {name} takes on or off (got {rest!r})."
        raise UsageError(msg, hint=f"Use: %llm {name} on")
    return rest == "on"


def run(shell: InteractiveShell, line: str, variables: Variables) -> Any:
    """Run the subcommand on the line of ``%llm``, or show the help."""
    name, _, rest = line.strip().partition(" ")
    if not name or name.startswith("#"):
        name, rest = "help", ""
    if name not in COMMANDS:
        msg = f'%llm has no subcommand "{name}".'
        raise UsageError(msg, hint=nearest(name, COMMANDS))
    if name not in PROSE:
        rest = strip_comment(rest)
    if rest.strip() and USAGE[name] == name:
        msg = f"%llm {name} takes no arguments (got {rest.strip()!r})."
        raise UsageError(msg, hint=f"Use: %llm {name}")
    try:
        return COMMANDS[name](shell, rest.strip(), variables)
    except Interrupted:
        raise
    except KeyboardInterrupt:
        msg = f"%llm {name} was stopped."
        raise Interrupted(msg) from None


def names_by_group() -> dict[str, list[str]]:
    """Return the names of the subcommands below each heading of the help."""
    groups: dict[str, list[str]] = {heading: [] for heading in GROUPS.values()}
    for name, function in COMMANDS.items():
        groups[GROUPS[function.__module__.rpartition(".")[2]]].append(name)
    return groups


# The parsers of subcommands whose help lists their flags.
_PARSERS = {"bench": bench_parser, "compare": compare_parser, "gate": gate_parser}

# The magics themselves, whose flags ``%llm help llm`` and ``%llm help embed`` list.
_MAGICS = {"llm": llm_cell_parser, "embed": embed_parser}


def _print_help(name: str) -> None:
    if name in _MAGICS:
        print_safe(_MAGICS[name]().format_help())
        return
    if name not in COMMANDS:
        msg = f'%llm has no subcommand "{name}".'
        raise UsageError(msg, hint=nearest(name, COMMANDS))
    print_safe(f"%llm {USAGE[name]}\n\n{inspect.getdoc(COMMANDS[name])}")
    if name in _PARSERS:
        print_safe(f"\n{_PARSERS[name]().format_help()}")


def show_help(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Show this overview, or the details of one subcommand, of llm or of embed."""
    if rest:
        _print_help(rest)
        return
    lines = [
        "%%llm [MODEL …]            send the lines below to a model; flags: %llm help llm",
        "%embed EXPR --into COLUMN  embed a column of texts; flags: %llm help embed",
    ]
    width = max(map(len, USAGE.values()))
    helps = {name: (inspect.getdoc(COMMANDS[name]) or "").splitlines()[0] for name in COMMANDS}
    for heading, names in names_by_group().items():
        lines += ["", heading]
        lines += [f"  %llm {USAGE[name]:{width}}  {helps[name]}" for name in names]
    print_safe("\n".join(lines))
