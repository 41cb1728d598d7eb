"""What tells a cell from all others, so that its turn in a thread is found when it runs again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any

from llm_magics import host
from llm_magics.host import Cell

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionInfo, InteractiveShell


def follow(shell: InteractiveShell) -> None:
    """Have `cells` told of every cell that begins to run."""
    own = _Follower(shell)
    shell.events.register("pre_run_cell", own.begin)
    shell.llm_magics_follower = own
    host.begin(Cell(_in_metadata(shell), _stored(shell) - 1))  # the cell that is running


def unfollow(shell: InteractiveShell) -> None:
    """Take that back."""
    own = shell.__dict__.pop("llm_magics_follower", None)
    if own is not None:
        shell.events.unregister("pre_run_cell", own.begin)
    host.begin(Cell())


def labeller(shell: InteractiveShell) -> Callable[[CodeType], str | None]:
    """Return a function that names the cell of a code object as IPython's tracebacks do."""
    name_of = getattr(shell.compile, "format_code_name", None)

    def label(code: CodeType) -> str | None:
        found = name_of(code.co_filename) if name_of else None
        return " ".join(found) if found else None

    return label


class _Follower:
    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell

    def begin(self, info: ExecutionInfo) -> None:
        """IPython's event before a cell runs."""
        if info.silent:
            return
        key = info.cell_id or _in_metadata(self._shell) or self._by_text(info.raw_cell)
        host.begin(Cell(str(key), _stored(self._shell)))

    def _by_text(self, text: str) -> str:
        """
        For frontends that do not say which cell it is.

        A terminal has no cells, and whoever runs a notebook unattended runs each once: there
        the same words twice are two turns.
        """
        from llm_magics.notebook.watching import is_watched

        is_terminal = type(self._shell).__name__ == "TerminalInteractiveShell"
        if is_terminal or (hasattr(self._shell, "kernel") and not is_watched(self._shell)):
            return ""
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _stored(shell: InteractiveShell) -> int:
    """
    How many cells are in the history, which is the number of the next one.

    (``execution_count`` is raised before a cell runs, or after it, as IPython's version has it.)
    """
    return len(shell.history_manager.input_hist_parsed)


def _in_metadata(shell: InteractiveShell) -> str:
    """The cell's id in the request that runs it, where IPython itself was not told."""
    get_parent = getattr(shell, "get_parent", None)
    metadata: Any = (get_parent() or {}).get("metadata") if get_parent else None
    if not isinstance(metadata, dict):
        return ""
    colab = metadata.get("colab")
    return str(
        metadata.get("cellId") or (colab.get("cell_id") if isinstance(colab, dict) else "") or ""
    )
