"""``%load_ext llm_magics`` and ``%unload_ext``: registration of the extension in the shell."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING

from llm_magics._util.text import wrap_parts
from llm_magics.errors import LLMError
from llm_magics.host import Host, ProgressDisplay, TerminalHost, install_host
from llm_magics.notebook import completion, frontend, magics
from llm_magics.notebook.display.footer import show_transient
from llm_magics.notebook.display.output import create_progress_view, print_safe
from llm_magics.notebook.magics import LLMMagics, keep_empty_cell
from llm_magics.settings.config import config

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magics.runtime.response import Response

# Summaries are broken here, because JupyterLab would break them in the middle of a word.
_LINE_WIDTH = 100

_RESPONSE = ("llm_magics.runtime.response", "Response")


class NotebookHost(Host):
    """The host of this package in IPython, in a notebook or a terminal."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__()
        self._shell = shell
        self._notes: list[str] = []

    def create_progress_display(self) -> ProgressDisplay:
        """Return a progress bar in the cell's output, a terminal line, or nothing if unattended."""
        return create_progress_view(self._shell)

    def report(self, summary: str, problem: str = "") -> None:
        """Print the summary of an operation, with or without a problem; a long one in several lines."""
        print_safe(wrap_parts(summary, _LINE_WIDTH))

    def note(self, text: str) -> None:
        """Print a line after the cell, in an interactive session; the notebook does not save it."""
        self._notes.append(text)

    def end_cell(self, *, is_interrupted: bool) -> None:
        """Display the notes of the cell that has ended, and stop what an interrupt has left."""
        super().end_cell(is_interrupted=is_interrupted)
        notes, self._notes = self._notes, []
        if notes and frontend.is_watched(self._shell):
            for text in notes:
                show_transient(self._shell.display_pub.publish, text, "hint")

    def notebook(self) -> str:
        """Return the path of the notebook, if the frontend has set it."""
        path = self._shell.user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
        return str(path or "")

    def ask(self, question: str) -> str | None:
        """Return the text that the user types below the cell; ``None`` if it runs unattended."""
        return frontend.ask_user(self._shell, question)

    def is_unattended(self) -> bool:
        """Whether the notebook runs in nbclient, papermill or nbval, which allow no input."""
        kernel = getattr(self._shell, "kernel", None)
        return not getattr(kernel, "_allow_stdin", True)

    def shows_full_tracebacks(self) -> bool:
        """Whether the setting ``tracebacks`` is ``full``."""
        try:
            return bool(config.tracebacks == "full")
        except LLMError:  # the settings cannot be read, which is the error being displayed
            return False

    def label_cell(self, code: CodeType) -> str | None:
        """Return the label of ``code``'s cell, as in ``Cell In[3]``."""
        return frontend.label_cell(self._shell, code)

    def typed_line(self, source: str) -> str:
        """Return a magic as the user typed it."""
        return frontend.typed_line(source)


def load(shell: InteractiveShell) -> None:
    """Register the magics, Tab completion, and the display of answers, errors and progress."""
    shell.register_magics(LLMMagics)
    shell.input_transformers_cleanup.extend(_transformers())
    completion.register(shell)
    shell.display_formatter.formatters["text/html"].for_type_by_name(*_RESPONSE, _response_html)
    host = NotebookHost(shell)
    install_host(host)
    frontend.track_cells(shell, host)
    frontend.redact_tracebacks(shell)
    frontend.sanitize_frames(shell)
    config.watch(frontend.apply_nested_loop)


def unload(shell: InteractiveShell) -> None:
    """Undo everything that `load` registered."""
    for kind, names in LLMMagics.magics.items():
        for name in names:
            shell.magics_manager.magics[kind].pop(name, None)
    shell.input_transformers_cleanup[:] = [
        each for each in shell.input_transformers_cleanup if each not in _transformers()
    ]
    completion.unregister(shell)
    shell.display_formatter.formatters["text/html"].pop(".".join(_RESPONSE), None)
    frontend.untrack_cells(shell)
    frontend.restore_tracebacks(shell)
    frontend.restore_frames(shell)
    install_host(TerminalHost())
    config.unwatch(frontend.apply_nested_loop)


def _transformers() -> list[Callable[[list[str]], list[str]]]:
    """Return the transformers of a cell's lines, in the order in which they run."""
    return [keep_empty_cell, magics.call_magics]


def _response_html(response: Response) -> str:
    from llm_magics.notebook.markdown import render_answer

    return render_answer(response.text, response.model)
