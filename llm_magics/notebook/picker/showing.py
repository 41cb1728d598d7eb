"""
The panel put into the cell, and a table for wherever there is no panel.

A panel lives as long as its kernel, and a file opened without one would show an error in its
place. So a plain table is an output of its own, in sight where the panel is not.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from llm_magics import host
from llm_magics.notebook.watching import rendering
from llm_magics.runtime.session import session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magics.notebook.picker.panel import Picker

# How long providers are waited for: where what they tell later can be put in, and elsewhere.
_WATCHED_S = 4.0
_UNATTENDED_S = 10.0

# The panel of each cell, which goes when the cell makes another.
_panels: dict[str, Picker] = {}


def pick(shell: InteractiveShell) -> None:
    """Show a panel, and a plain table for whoever opens the file; unattended, that alone."""
    from llm_magics.notebook.picker.panel import Picker

    key = host.running().key
    _forget(shell, key)
    shown_in = rendering(shell)
    panel = Picker(session, _WATCHED_S if shown_in == "live" else _UNATTENDED_S)
    table = panel.table()
    if shown_in == "text":
        sys.stdout.write(f"{table['text/plain']}\n")
    if shown_in == "live":
        _panels[key] = panel
        shell.events.register("post_run_cell", panel.after_cell)
        view = {
            kind: data for kind, data in panel.box._repr_mimebundle_().items() if "widget" in kind
        }
        shell.display_pub.publish(data=view, metadata={})
    else:
        panel.close()
    if shown_in != "text":
        shell.display_pub.publish(data=table, metadata={})


def _forget(shell: InteractiveShell, key: str) -> None:
    panel = _panels.pop(key, None)
    if panel is not None:
        shell.events.unregister("post_run_cell", panel.after_cell)
        panel.close()
