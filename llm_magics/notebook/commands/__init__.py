"""The subcommands of ``%llm``, each with its usage, and its docstring for help."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from llm_magics.errors import Interrupted, UsageError, nearest
from llm_magics.notebook.commands import ask, benchmarks, history, models, settings
from llm_magics.notebook.commands.registry import COMMANDS, PROSE, USAGE, Variables, command
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.parsers import bench_parser, compare_parser, strip_comment

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["COMMANDS", "ask", "benchmarks", "history", "models", "run", "settings"]


def run(shell: InteractiveShell, line: str, variables: Variables) -> Any:
    """What ``%llm`` does with its line."""
    name, _, rest = line.strip().partition(" ")
    if not name or name.startswith("#"):
        name, rest = "help", ""
    if name not in COMMANDS:
        msg = f'%llm has no subcommand "{name}".'
        raise UsageError(msg, hint=nearest(name, COMMANDS))
    if name not in PROSE:
        rest = strip_comment(rest)
    if rest.strip() and USAGE[name] == name:
        msg = f"%llm {name} takes nothing more, and was given {rest.strip()!r}."
        raise UsageError(msg, hint=f"Write %llm {name}.")
    try:
        return COMMANDS[name](shell, rest.strip(), variables)
    except Interrupted:
        raise
    except KeyboardInterrupt:
        msg = f"Stopped %llm {name}."
        raise Interrupted(msg) from None


# Their flags are listed in their help.
_PARSERS = {"bench": bench_parser, "compare": compare_parser}


def _print_help(name: str) -> None:
    if name not in COMMANDS:
        msg = f'%llm has no subcommand "{name}".'
        raise UsageError(msg, hint=nearest(name, COMMANDS))
    print_safe(f"%llm {USAGE[name]}\n\n{inspect.getdoc(COMMANDS[name])}")
    if name in _PARSERS:
        print_safe(f"\n{_PARSERS[name]().format_help()}")


@command("help [NAME]")
def help_(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Show this, or all there is to know of one subcommand."""
    if rest:
        _print_help(rest)
        return
    lines = ["%%llm [MODEL] …   the prompt in the lines below; %%llm? lists its flags", ""]
    width = max(map(len, USAGE.values()))
    helps = {name: (inspect.getdoc(COMMANDS[name]) or "").splitlines()[0] for name in COMMANDS}
    lines += [f"%llm {USAGE[name]:{width}} {helps[name]}" for name in COMMANDS]
    lines += ["", "%embed EXPR --into COLUMN   vectors for a column; %embed? lists its flags"]
    print_safe("\n".join(lines))
