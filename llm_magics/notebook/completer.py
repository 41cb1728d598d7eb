"""Tab completion on the lines of the magics. It never asks the network."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.completer import SimpleCompletion, context_matcher

from llm_magics.notebook import options

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext

_LINE = re.compile(r"^\s*(%%?(?:llm|embed))\s(.*)$")
_WORDS = {
    "budget": ["off"],
    "cache": ["on", "off", "clear"],
    "cost": ["cells"],
    "record": ["off"],
    "replay": ["off"],
    "trust": ["off"],
}
_MODEL_COMMANDS = ("use", "pull", "delete", "models")


@context_matcher(identifier="llm_magics.complete")
def complete(context: CompletionContext) -> dict[str, Any]:
    """Subcommands, flags, their values, models and settings."""
    found = _LINE.match(context.line_with_cursor[: context.cursor_position])
    if found is None or (context.cursor_line != 0 and found[1].startswith("%%")):
        return {"completions": []}
    magic, before = found.groups()
    *words, fragment = before.split(" ")
    words = [word for word in words if word]
    kind, names = _candidates(magic, words, fragment)
    matching = [name for name in names if name.startswith(fragment)]
    return {
        "completions": [SimpleCompletion(text=name, type=kind) for name in sorted(matching)],
        "matched_fragment": fragment,
        "suppress": bool(matching),
    }


def _candidates(magic: str, words: list[str], fragment: str) -> tuple[str, list[str]]:
    last = words[-1] if words else ""
    if magic == "%llm":
        return _of_command(words)
    if last in _VALUES:
        return _VALUES[last]()
    if fragment.startswith("-"):
        parser = options.llm_cell_parser() if magic == "%%llm" else options.embed_parser(magic)
        return "flag", parser.flags
    return ("model", _models()) if magic == "%%llm" and not last.startswith("-") else ("", [])


def _of_command(words: list[str]) -> tuple[str, list[str]]:
    from llm_magics.engine.session import session
    from llm_magics.notebook.commands import COMMANDS

    if not words:
        return "command", list(COMMANDS)
    if words[0] in _MODEL_COMMANDS and len(words) == 1:
        return "model", _models()
    if words[0] == "config" and len(words) == 1:
        from llm_magics.settings.config import config

        return "setting", [key for key, *_ in config.items()]
    if words == ["key"]:
        return "provider", session.providers.known_names()
    if words == ["threads"]:
        return "thread", [*session.threads.names(), "clear"]
    return ("word", _WORDS.get(words[0], [])) if len(words) == 1 else ("", [])


def _templates() -> tuple[str, list[str]]:
    from llm_magics.policies import prompt_files

    return "template", list(prompt_files.names())


def _threads() -> tuple[str, list[str]]:
    from llm_magics.engine.session import session

    return "thread", session.threads.names()


# What can follow a flag.
_VALUES: dict[str, Callable[[], tuple[str, list[str]]]] = {
    "--model": lambda: ("model", _models()),
    "--template": _templates,
    "-t": _templates,
    "--thread": _threads,
    "--format": lambda: ("format", list(options.FORMATS)),
    "-f": lambda: ("format", list(options.FORMATS)),
}


def _models() -> list[str]:
    """The models known without asking: those built in, those in use, those listed before."""
    from llm_magics.engine.session import session
    from llm_magics.providers.echo import MODELS
    from llm_magics.providers.local.catalog import STARTERS
    from llm_magics.settings.config import config

    built_in = [f"echo/{name}" for name in MODELS] + [f"local/{name}" for name in STARTERS]
    named = [*config.aliases, *config.routes]
    told = session.listings.names()
    return sorted({*built_in, *named, *told, config.model, config.embedding_model})
