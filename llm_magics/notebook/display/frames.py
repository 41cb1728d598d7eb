"""
Display of DataFrames whose texts may come from models: only formulas that draw are typeset.

A frame does not say where its texts come from. So the HTML and the text of every pandas and
polars frame that IPython displays are filtered, as soon as pandas and this package are imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llm_magics._util.text import escape_controls

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

# By module and name: pandas calls its frame one or the other, by its version.
_KINDS = (
    ("pandas", "DataFrame"),
    ("pandas.core.frame", "DataFrame"),
    ("pandas.io.formats.style", "Styler"),
    ("polars.dataframe.frame", "DataFrame"),
    ("polars.series.series", "Series"),
)
# These have no HTML of their own.
_KINDS_OF_TEXT = (*_KINDS, ("pandas", "Series"), ("pandas.core.series", "Series"))


def sanitize_frames(shell: InteractiveShell) -> None:
    """Display frames without the formulas in them that could do more than draw."""
    for formatter, printed, kinds in _printers(shell):
        for kind in kinds:
            # A way that the user, or another package, has set up stays.
            if kind not in formatter.deferred_printers and not _is_set_up(formatter, kind):
                formatter.for_type_by_name(*kind, printed)


def restore_frames(shell: InteractiveShell) -> None:
    """Take that back."""
    for formatter, printed, kinds in _printers(shell):
        for kind in kinds:
            if formatter.deferred_printers.get(kind) is printed:
                del formatter.deferred_printers[kind]
        for kind, printer in list(formatter.type_printers.items()):
            if printer is printed:
                formatter.pop(kind)


def _printers(
    shell: InteractiveShell,
) -> list[tuple[Any, Callable[..., Any], tuple[tuple[str, str], ...]]]:
    formatters = shell.display_formatter.formatters
    return [
        (formatters["text/html"], _html, _KINDS),
        (formatters["text/plain"], _text, _KINDS_OF_TEXT),
    ]


def _is_set_up(formatter: Any, kind: tuple[str, str]) -> bool:
    return any((each.__module__, each.__name__) == kind for each in formatter.type_printers)


def _html(frame: Any) -> str | None:
    html = frame._repr_html_()
    from llm_magics._util import typesetting  # loading the extension should not import it

    return None if html is None else typesetting.sanitize_table(html)


def _text(frame: Any, printer: Any, cycle: bool) -> None:
    """Print the text of a frame without what could change a terminal."""
    for number, line in enumerate(escape_controls(repr(frame)).split("\n")):
        if number:
            printer.break_()
        printer.text(line)


def _sanitize_running_shell() -> None:
    """Without ``%load_ext`` too: ``lm.compare(…)`` in a notebook gives a frame."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        sanitize_frames(shell)


_sanitize_running_shell()
