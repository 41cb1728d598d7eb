"""The subcommands of ``%llm``. Their docstrings are the text of ``%llm help NAME``."""

from __future__ import annotations

from llm_magics.notebook.commands import (
    ask,
    benchmarks,
    evaluations,
    history,
    jobs,
    mcp,
    models,
    settings,
)
from llm_magics.notebook.commands.registry import COMMANDS, USAGE, command, run, show_help

__all__ = [
    "COMMANDS",
    "USAGE",
    "ask",
    "benchmarks",
    "evaluations",
    "history",
    "jobs",
    "mcp",
    "models",
    "run",
    "settings",
]

command("help [NAME]")(show_help)
