"""Tab completion for the lines of the magics and for prompts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin

from llm_magics._util.text import quote_word
from llm_magics.errors import LLMError
from llm_magics.notebook import parsers
from llm_magics.parameters import REASONING_LEVELS, TIERS

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext
    from IPython.core.interactiveshell import InteractiveShell


class Candidates(NamedTuple):
    """Names of a ``kind`` that could replace ``fragment``."""

    kind: str
    names: Iterable[str]
    fragment: str


_WORDS = {
    "budget": ["off"],
    "cache": ["on", "off", "clear", "clear vectors"],
    "cost": ["cells"],
    "jobs": ["cancel", "forget"],
    "mcp": ["add", "allow", "remove", "stop", "test", "token"],
    "record": ["off"],
    "replay": ["off", "--strict", "--speed"],
    "trust": ["off"],
}
_FLAGS = {
    "jobs": ["--yes"],
    "image": ["-o", "--output", "--model", "--size", "-p", "--option"],
    "key": ["--forget"],
    "mcp": ["--env", "--forget", "--timeout", "--token-env"],
    "replay": ["--strict", "--speed"],
    "transcribe": ["-o", "--output", "--model", "-p", "--option"],
}
# Subcommands whose argument is a model, and the capability that it needs.
_MODEL_COMMANDS = {"use": "chat", "pull": "", "delete": "", "models": "", "explain": ""}
# Settings whose value is a model, and the capability that it needs.
_MODEL_SETTINGS = {"model": "chat", "embedding_model": "embeddings"}
# Subcommands that take several models and have their own flags.
_BENCHMARK_PARSERS = {"bench": parsers.bench_parser, "compare": parsers.compare_parser}


def find_candidates(magic: str, line: str) -> Candidates:
    """Return the candidates for the last word of ``line``, with the cursor at its end."""
    *words, fragment = line.split(" ")
    words = [word for word in words if word]
    if magic == "%%llm" and words[-1:] == ["--tools"]:  # names separated by commas
        return Candidates("function", _functions(), fragment.rpartition(",")[2])
    kind, names = _magic_candidates(magic, words, fragment)
    return Candidates(kind, names, fragment)


def _magic_candidates(magic: str, words: list[str], fragment: str) -> tuple[str, Iterable[str]]:
    last = words[-1] if words else ""
    if magic == "%llm":
        return _command_candidates(words, fragment)
    if last == "--model":
        return "model", _models("chat" if magic == "%%llm" else "embeddings")
    if last in ("--attach", "--image"):
        return "path", [*variables(), *_paths(fragment)]
    if last in _VALUES:
        return _VALUES[last]()
    if fragment.startswith("-"):
        parser = parsers.llm_cell_parser() if magic == "%%llm" else parsers.embed_parser(magic)
        return "flag", parser.flags
    is_model = magic == "%%llm" and not last.startswith("-")
    return ("model", _models("chat")) if is_model else ("", [])


def _command_candidates(words: list[str], fragment: str) -> tuple[str, Iterable[str]]:
    """Return the candidates after ``%llm`` and ``words``."""
    from llm_magics.notebook.commands import COMMANDS

    if not words:
        return "command", COMMANDS
    if words[-1] in ("--model", "--judge"):
        return "model", _models("chat" if words[-1] == "--judge" else "")
    if words[0] in _BENCHMARK_PARSERS:
        return _benchmark_candidates(words, fragment)
    if fragment.startswith("-"):
        is_gate = words[0] == "gate"
        return "flag", parsers.gate_parser().flags if is_gate else _FLAGS.get(words[0], [])
    if len(words) > 1:
        return _later_candidates(*words)
    return _argument_candidates(words[0])


def _later_candidates(command: str, *words: str) -> tuple[str, Iterable[str]]:
    """Return the candidates after the first argument of a subcommand."""
    if command == "mcp":
        return _server_candidates(words)
    if command == "jobs":
        return _job_candidates(words)
    is_setting = command == "config" and len(words) == 1
    return _setting_candidates(words[0]) if is_setting else ("", [])


def _server_candidates(words: Sequence[str]) -> tuple[str, Iterable[str]]:
    """Return the servers after an action of ``%llm mcp``, or the tools of one that runs."""
    if words[0] == "allow" and len(words) > 1:
        from llm_magics.mcp.servers import servers

        running = servers.running(words[1])
        return "tool", [each["name"] for each in running.listed] if running else []
    return _servers() if len(words) == 1 and words[0] != "add" else ("", [])


def _job_candidates(words: Sequence[str]) -> tuple[str, Iterable[str]]:
    """Return the jobs after an action of ``%llm jobs``: those that it applies to."""
    from llm_magics.runtime.session import session

    if len(words) != 1 or words[0] not in _WORDS["jobs"]:
        return "", []
    try:
        known = session.journal.jobs()
    except LLMError:  # the command itself will report the error
        return "", []
    return "job", [each.id for each in known if each.is_active or words[0] == "forget"]


def _servers() -> tuple[str, list[str]]:
    from llm_magics.settings.config import config

    return "server", list(config.servers())


def _benchmark_candidates(words: list[str], fragment: str) -> tuple[str, Iterable[str]]:
    if fragment.startswith("-"):
        return "flag", _BENCHMARK_PARSERS[words[0]]().flags
    if words[-1] in ("--prompts", "--expected"):
        return "variable", list(variables())
    if words[-1] in ("--reasoning", "--tier"):
        return _VALUES[words[-1]]()
    if words[-1] == "--arrival":
        return "value", ["poisson", "constant"]
    if words[-1] == "--score":
        from llm_magics.benchmarking.scorers import SCORERS

        return "score", [*SCORERS, *_functions()]
    return ("", []) if words[-1].startswith("-") else ("model", _models())


def _argument_candidates(command: str) -> tuple[str, Iterable[str]]:
    """Return the candidates for the first argument of a subcommand."""
    from llm_magics.runtime.session import session

    if command in _MODEL_COMMANDS:
        return "model", _models(_MODEL_COMMANDS[command])
    if command == "config":
        return "setting", [key for key, *_ in session.config.items()]
    if command == "key":
        return "provider", session.providers.known_names()
    if command == "threads":
        return "thread", [*session.conversations.names(), "clear"]
    return "word", _WORDS.get(command, [])


def _setting_candidates(setting: str) -> tuple[str, Iterable[str]]:
    """Return the values of a setting, if it has a fixed set of values."""
    from llm_magics.settings.schema import Settings

    if setting in _MODEL_SETTINGS:
        return "model", _models(_MODEL_SETTINGS[setting])
    if setting.startswith("providers.") and setting.endswith(".token_provider"):
        from llm_magics.providers.identity import IDENTITIES

        return "value", [*IDENTITIES, "none"]
    field = Settings.model_fields.get(setting)
    if field is None:
        return "", []
    if field.annotation is bool:
        return "value", ["true", "false"]
    is_choice = get_origin(field.annotation) is Literal
    return "value", get_args(field.annotation) if is_choice else []


def _templates() -> tuple[str, list[str]]:
    from llm_magics.runtime.prompts import prompt_files

    return "template", list(prompt_files.names())


def _threads() -> tuple[str, list[str]]:
    from llm_magics.runtime.session import session

    return "thread", session.conversations.names()


def variables() -> dict[str, Any]:
    """Return the variables of the notebook, without those that Python and IPython define."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return {}
    internal = shell.user_ns_hidden
    return {
        name: value
        for name, value in shell.user_ns.items()
        if not name.startswith("_") and name not in internal
    }


def _paths(fragment: str) -> list[str]:
    """Return the files and folders that continue ``fragment``; hidden ones only after a dot."""
    folder, slash, name = fragment.rpartition("/")
    try:
        found = list(Path(f"{folder}{slash}" or ".").expanduser().iterdir())
        return [
            f"{folder}{slash}{each.name}{'/' if each.is_dir() else ''}"
            for each in found
            if name.startswith(".") or not each.name.startswith(".")
        ]
    except (OSError, ValueError, RuntimeError):
        return []


def _functions() -> list[str]:
    return [name for name, value in variables().items() if callable(value)]


def _classes() -> list[str]:
    return [name for name, value in variables().items() if isinstance(value, type | dict)]


# Functions that return the candidates for the value of a flag.
_VALUES: dict[str, Callable[[], tuple[str, list[str]]]] = {
    "--template": _templates,
    "-t": _templates,
    "--thread": _threads,
    "--format": lambda: ("format", list(parsers.FORMATS)),
    "--mcp": _servers,
    "--reasoning": lambda: ("level", list(REASONING_LEVELS)),
    "--tier": lambda: ("tier", list(TIERS)),
    "--schema": lambda: ("class", _classes()),
    "-f": lambda: ("format", list(parsers.FORMATS)),
}


def _models(capability: str = "") -> list[str]:
    """
    Return the models known without a request: built-in, in the settings, or listed before.

    With ``capability``, models that are known to lack it are omitted.
    """
    from llm_magics.providers.echo import MODELS
    from llm_magics.providers.local.starters import STARTERS
    from llm_magics.runtime.session import session
    from llm_magics.settings.config import config

    known = {f"local/{name}": starter.capabilities for name, starter in STARTERS.items()}
    known |= {name: info.capabilities for name, info in session.listings.models().items()}
    able = [
        name
        for name, capabilities in known.items()
        if not capabilities or not capability or capability in capabilities
    ]
    chosen = [config.get(key) for key, what in _MODEL_SETTINGS.items() if capability in ("", what)]
    built_in = [f"echo/{name}" for name in MODELS]
    return sorted({*able, *chosen, *built_in, *config.aliases, *config.routes})


# An unclosed ``{{`` before the cursor, and the word at the cursor.
_OPEN = re.compile(r"\{\{(?!.*\}\})(?P<before>.*?)(?P<word>\w*)$")
_LLM_MAGIC = re.compile(r"\s*%%?llm\b")


def _prompt_candidates(text: str, cursor_line: int, before: str) -> Candidates | None:
    """Return the candidates inside ``{{ … }}``; ``before`` is the line up to the cursor."""
    lines = text.splitlines()
    is_ours = _LLM_MAGIC.match(before) or (cursor_line > 0 and _LLM_MAGIC.match(lines[0]))
    found = _OPEN.search(before)
    if not is_ours or found is None:
        return None
    past, word = found["before"].rstrip(), found["word"]
    if past.endswith("|"):
        return Candidates("filter", _filters(), word)
    if past.endswith((".", "'", '"')):
        return None  # an attribute or a string, which IPython completes
    return Candidates("variable", variables(), word)


def _filters() -> Iterable[str]:
    from llm_magics.runtime.prompts.templates import list_filters

    return list_filters()


_LINE = re.compile(r"^\s*(%%?(?:llm|embed))\s(.*)$")


def complete(context: CompletionContext) -> dict[str, Any]:
    """Return the completions at the cursor; none outside the magics and prompts."""
    from IPython.core.completer import SimpleCompletion

    before = context.line_with_cursor[: context.cursor_position]
    offer = _prompt_candidates(context.full_text, context.cursor_line, before) or _line_candidates(
        before, context.cursor_line
    )
    if offer is None:
        return {"completions": []}
    matching = _matching(offer)
    return {
        "completions": [SimpleCompletion(text=name, type=offer.kind) for name in matching],
        "matched_fragment": offer.fragment,
        "suppress": bool(matching),
    }


def complete_word(before: str, word: str) -> list[str]:
    """
    Return the completions at the end of the line ``before`` for IPython 7.

    It replaces only ``word``, which is what follows the last slash, colon or the like.
    """
    offer = _prompt_candidates(before, 0, before) or _line_candidates(before, 0)
    if offer is None or not offer.fragment.endswith(word):
        return []
    start = len(offer.fragment) - len(word)
    return [text[start:] for text in _matching(offer) if text.startswith(offer.fragment)]


def register(shell: InteractiveShell) -> None:
    """Complete the lines of the magics and prompts in ``shell``."""
    completer = shell.Completer
    if completer is None:
        return
    from IPython.core import completer as module

    if hasattr(module, "context_matcher"):
        module.context_matcher(identifier="llm_magics.complete")(complete)
        completer.custom_matchers.append(complete)
        return

    def complete_in_ipython_7(line: str) -> list[str]:
        before = completer.text_until_cursor
        return complete_word(before, completer.splitter.split_line(before))

    completer.magic_arg_matchers.append(complete_in_ipython_7)


def unregister(shell: InteractiveShell) -> None:
    """Undo `register`."""
    if shell.Completer is not None:
        for matchers in (shell.Completer.custom_matchers, shell.Completer.magic_arg_matchers):
            matchers[:] = [each for each in matchers if each.__module__ != __name__]


def _matching(offer: Candidates) -> list[str]:
    return sorted(text for name in offer.names if (text := _completion_text(name, offer)))


def _completion_text(name: str, offer: Candidates) -> str | None:
    """Return the text that completes ``name``; ``None`` if it does not match or cannot be quoted."""
    spelled = quote_word(name) if offer.kind in ("model", "path") else name
    return (
        spelled
        if spelled and (name.startswith(offer.fragment) or spelled.startswith(offer.fragment))
        else None
    )


def _line_candidates(before: str, cursor_line: int) -> Candidates | None:
    found = _LINE.match(before)
    if found is None or (cursor_line != 0 and found[1].startswith("%%")):
        return None
    return find_candidates(*found.groups())
