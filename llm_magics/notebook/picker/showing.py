"""The panel put into the cell, or its table where there are no widgets or nobody watches."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from llm_magics import cells
from llm_magics.engine.session import session
from llm_magics.notebook.watching import rendering

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magics.notebook.picker.panel import Picker

# How long providers are waited for: where what they tell later can be put in, and elsewhere.
_WATCHED_S = 1.0
_UNATTENDED_S = 10.0

# The panel of each cell, which goes when the cell makes another.
_panels: dict[str, Picker] = {}


def pick(shell: InteractiveShell) -> None:
    """Show a panel; unattended, and in what is saved of it, a plain table."""
    from llm_magics.notebook.picker.panel import Picker

    key = cells.running().key
    _forget(shell, key)
    shown_in = rendering(shell)
    panel = Picker(session, _WATCHED_S if shown_in == "live" else _UNATTENDED_S)
    table = panel.table()
    if shown_in == "live":
        _panels[key] = panel
        shell.events.register("post_run_cell", panel.after_cell)
        shell.display_pub.publish(data={**panel.box._repr_mimebundle_(), **table}, metadata={})
        return
    panel.close()
    if shown_in == "text":
        sys.stdout.write(f"{table['text/plain']}\n")
    else:
        shell.display_pub.publish(data=table, metadata={})


def _forget(shell: InteractiveShell, key: str) -> None:
    panel = _panels.pop(key, None)
    if panel is not None:
        shell.events.unregister("post_run_cell", panel.after_cell)
        panel.close()
