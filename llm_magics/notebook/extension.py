"""``%load_ext llm_magics``: what is put into the shell, and taken out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_magics import errors, host, user_code
from llm_magics.notebook import frontend, magics
from llm_magics.notebook.completion import complete
from llm_magics.notebook.display import frames
from llm_magics.notebook.display.output import create_progress_view
from llm_magics.notebook.frontend import create_asker
from llm_magics.notebook.magics import LLMMagics, keep_empty_cell
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
    frontend.track_cells(shell)
    frontend.redact_tracebacks(shell)
    frames.sanitize_frames(shell)
    errors.show_full_tracebacks_if(_shows_full_tracebacks)
    host.show_in(lambda: create_progress_view(shell))
    host.ask_by(create_asker(shell))
    user_code.label_cells_by(frontend.create_cell_labeller(shell))
    config.watch(frontend.apply_nested_loop)


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
    frontend.untrack_cells(shell)
    frontend.restore_tracebacks(shell)
    frames.restore_frames(shell)
    errors.show_full_tracebacks_if(lambda: False)
    host.show_in(host.terminal_view)
    host.ask_by(None)
    user_code.label_cells_by(None)
    config.unwatch(frontend.apply_nested_loop)


def _transformers() -> list[Callable[[list[str]], list[str]]]:
    """Return what changes a cell's lines before IPython reads them, in order."""
    return [keep_empty_cell, magics.call_magics]


def _response_html(response: object) -> str:
    from llm_magics.notebook.markdown import render_safe

    return render_safe(str(response))


def _shows_full_tracebacks() -> bool:
    try:
        return bool(config.tracebacks == "full")
    except errors.LLMError:  # the settings cannot be read: that is the error being shown
        return False
