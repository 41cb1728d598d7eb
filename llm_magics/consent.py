"""Whoever sits there is asked before something is done that costs; where nobody does, it is not."""

from __future__ import annotations

import sys
from collections.abc import Callable

from llm_magics.errors import UsageError

# Puts a question; ``None`` where nobody is there to answer.
Asker = Callable[[str], str | None]


def _ask_the_terminal(question: str) -> str | None:
    if not (sys.stdin and sys.stdin.isatty()):
        return None
    return input(question)


_ask: Asker = _ask_the_terminal


def ask_by(asker: Asker | None) -> None:
    """Have questions put by ``asker`` from now on; by the terminal, if ``None``."""
    global _ask  # noqa: PLW0603 (one place a process, like sys.displayhook)
    _ask = asker or _ask_the_terminal


def obtain(what: str, how_to_allow: str) -> None:
    """
    Return if somebody allows ``what``, a sentence.

    Raises:
        UsageError: nobody is there to ask, or the answer was not yes.
    """
    answer = _ask(f"{what} Go on? [y/N] ")
    if answer is None:
        msg = f"{what} Nobody is there to allow it."
    elif answer.strip().lower() in ("y", "yes"):
        return
    else:
        msg = f"{what} It was not allowed."
    raise UsageError(f"{msg} Nothing was sent.", hint=how_to_allow)
