"""``%load_ext llm_magics``: what is put into the shell, and taken out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_magics import errors, host, user_code
from llm_magics.notebook import frontend, line_calls
from llm_magics.notebook.completion import complete
from llm_magics.notebook.display import frames
from llm_magics.notebook.display.output import progress_view
from llm_magics.notebook.frontend import asker
from llm_magics.notebook.magics import LLMMagics
from llm_magics.settings.config import config

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_RESPONSE = ("llm_magics.runtime.response", "Response")


def load(shell: InteractiveShell) -> None:
    """Register the magics, Tab completion, and how answers, errors and progress are shown."""
    shell.register_magics(LLMMagics)
    shell.input_transformers_cleanup.extend(_transformers())
    if shell.Completer is not None:
        shell.Completer.custom_matchers.append(complete)
    shell.display_formatter.formatters["text/html"].for_type_by_name(*_RESPONSE, _response_html)
    frontend.follow(shell)
    frontend.guard(shell)
    frames.guard(shell)
    errors.show_full_tracebacks_if(_wants_full_traceback)
    host.show_in(lambda: progress_view(shell))
    host.ask_by(asker(shell))
    user_code.label_cells_by(frontend.labeller(shell))
    config.watch(frontend.nest_if_wanted)


def unload(shell: InteractiveShell) -> None:
    """Take back all that `load` did."""
    for kind, names in LLMMagics.magics.items():
        for name in names:
            shell.magics_manager.magics[kind].pop(name, None)
    shell.input_transformers_cleanup[:] = [
        each for each in shell.input_transformers_cleanup if each not in _transformers()
    ]
    if shell.Completer is not None:
        shell.Completer.custom_matchers[:] = [
            each for each in shell.Completer.custom_matchers if each is not complete
        ]
    shell.display_formatter.formatters["text/html"].pop(".".join(_RESPONSE), None)
    frontend.unfollow(shell)
    frontend.unguard(shell)
    frames.unguard(shell)
    errors.show_full_tracebacks_if(lambda: False)
    host.show_in(host.terminal_view)
    host.ask_by(None)
    user_code.label_cells_by(None)
    config.unwatch(frontend.nest_if_wanted)


def _transformers() -> list[Callable[[list[str]], list[str]]]:
    """Return what changes a cell's lines before IPython reads them, in order."""
    return [keep_empty_cell, line_calls.call_magics]


def keep_empty_cell(lines: list[str]) -> list[str]:
    """
    Give a cell of ours without a body an empty line for one.

    IPython would refuse it itself, with a ``UsageError`` that nbval takes for success.
    """
    if len(lines) == 1 and lines[0].startswith(("%%llm", "%%embed")):
        return [lines[0].rstrip("\n") + "\n", "\n"]
    return lines


# IPython must not ask it whether what is being typed in a terminal is complete.
keep_empty_cell.has_side_effects = True  # type: ignore[attr-defined]


def _response_html(response: object) -> str:
    from llm_magics.notebook.markdown import html

    return html(str(response))


def _wants_full_traceback() -> bool:
    try:
        return bool(config.tracebacks == "full")
    except errors.LLMError:  # the settings cannot be read: that is the error being shown
        return False
