"""The widgets of the panel whose views are written in JavaScript: the table and the copied lines."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

from llm_magics._util.widget_views import read_view

_FOLDER = Path(__file__).parent


class ModelTable(anywidget.AnyWidget):
    """
    A table of models, with the providers above it and messages below it.

    The view filters the rows, so that a search needs no answer of the kernel. It sends a message
    for everything that the user asks for: ``{"kind": "use", "use": "chat", "model": …}``, and
    ``refresh``, ``pull``, ``delete`` and ``cancel`` as other kinds.

    Attributes:
        columns: the headers of the columns.
        numbers: those of the columns that are aligned on the right.
        providers: ``name``, ``status``, ``words``, ``detail`` and ``pulls`` of each provider.
        provider: the provider whose models are displayed, or ``all``.
        query: the text in the search field.
        rows: ``name``, ``provider``, ``uses``, ``cells`` and ``actions`` of each model.
        chosen: the model used for ``chat`` and for ``embedding``, as ``name`` and ``label``.
        task: the ``text`` and ``fraction`` of the running pull or delete; empty if there is none.
        message: the ``text`` of a message, and whether it is about an ``error``; empty if none.
    """

    _esm = read_view(_FOLDER / "table.js")
    _css = read_view(_FOLDER / "panel.css")

    columns = traitlets.List().tag(sync=True)
    numbers = traitlets.List().tag(sync=True)
    providers = traitlets.List().tag(sync=True)
    provider = traitlets.Unicode("all").tag(sync=True)
    query = traitlets.Unicode("").tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    chosen = traitlets.Dict().tag(sync=True)
    task = traitlets.Dict().tag(sync=True)
    message = traitlets.Dict().tag(sync=True)


class CopyableLines(anywidget.AnyWidget):
    """
    Lines of code with a button that copies them.

    The browser copies them, because the kernel may run on another machine.
    """

    _esm = (_FOLDER / "lines.js").read_text("utf-8")

    lines = traitlets.List().tag(sync=True)
