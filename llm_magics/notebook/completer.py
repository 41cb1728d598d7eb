"""Tab completion on the lines of the magics. It asks nobody: neither network nor disk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from IPython.core.completer import SimpleCompletion, context_matcher

from llm_magics.notebook import options

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext

_LINE = re.compile(r"^\s*(%%?(?:llm|embed))\s(.*)$")
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
    if last == "--model":
        return "model", _models()
    if last in ("-f", "--format"):
        return "format", list(options.FORMATS)
    if fragment.startswith("-"):
        parser = options.llm_cell_parser() if magic == "%%llm" else options.embed_parser(magic)
        return "flag", parser.flags
    return ("model", _models()) if magic == "%%llm" and not last.startswith("-") else ("", [])


def _of_command(words: list[str]) -> tuple[str, list[str]]:
    from llm_magics.notebook.commands import COMMANDS

    if not words:
        return "command", list(COMMANDS)
    if words[0] in _MODEL_COMMANDS and len(words) == 1:
        return "model", _models()
    if words[0] == "config" and len(words) == 1:
        from llm_magics.settings.config import config

        return "setting", [key for key, *_ in config.items()]
    return "", []


def _models() -> list[str]:
    """The models that are known without asking: those built in, and the one in use."""
    from llm_magics.providers.echo import MODELS
    from llm_magics.providers.local.catalog import STARTERS
    from llm_magics.settings.config import config

    built_in = [f"echo/{name}" for name in MODELS] + [f"local/{name}" for name in STARTERS]
    named = [*config.aliases, *config.routes]
    return sorted({*built_in, *named, config.model, config.embedding_model})
