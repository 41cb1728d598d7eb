"""
Tracebacks without keys in them, and without what could change a terminal.

``%xmode Verbose`` shows the variables of every function, and an error of another package may
quote a request, or an answer. So what IPython is about to show of any error is read over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_magics._util.terminal import coloured
from llm_magics.secrets import redact

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_SHOW = "_showtraceback"


def guard(shell: InteractiveShell) -> None:
    """Have keys and controls taken out of all tracebacks that ``shell`` shows."""
    unguard(shell)
    show = getattr(shell, _SHOW)

    def show_without_keys(kind: Any, error: Any, lines: Any) -> None:
        told = str(error)
        kept = error if _shown(told) == told else _shown(told)
        show(kind, kept, [_shown(line) for line in lines])

    show_without_keys.llm_magics = True  # type: ignore[attr-defined]
    setattr(shell, _SHOW, show_without_keys)


def _shown(text: str) -> str:
    return coloured(redact(text))


def unguard(shell: InteractiveShell) -> None:
    """Take that back."""
    if hasattr(vars(shell).get(_SHOW), "llm_magics"):
        delattr(shell, _SHOW)
