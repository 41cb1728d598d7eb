"""The widget of `lm.label`, and the counts of labels that a saved notebook shows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anywidget
import traitlets
from IPython.core.getipython import get_ipython
from IPython.display import publish_display_data

from llm_magics._util.filesystem import display_path
from llm_magics._util.text import escape_controls
from llm_magics._util.widget_views import read_view
from llm_magics.dataframes.map_widget import is_watched
from llm_magics.errors import LLMError
from llm_magics.host import TRANSIENT_KEY
from llm_magics.secrets import redact
from llm_magics.settings.config import config

if TYPE_CHECKING:
    from llm_magics.evaluations.labelling import Labelling

_FOLDER = Path(__file__).parent
_VIEW = "application/vnd.jupyter.widget-view+json"


class LabelWidget(anywidget.AnyWidget):
    """
    The item to label, its labels as buttons, and a note.

    The view sends ``{"kind": "label", "item": …, "label": …, "note": …}`` with the number of a label,
    and ``skip``, ``undo`` and ``retry`` as other kinds.

    Attributes:
        item: ``key`` and ``fields`` (pairs of name and text) of the current item; empty after the last.
        labels: the texts of the labels.
        question: the text above the labels.
        progress: ``labelled``, ``skipped`` and ``count``.
        message: the text of an error.
        place: where the labels are saved, and by whom.
        turn: a number that increases with each answer of the kernel.
    """

    _esm = read_view(_FOLDER / "label.js")
    _css = read_view(_FOLDER / "label.css")

    item = traitlets.Dict().tag(sync=True)
    labels = traitlets.List().tag(sync=True)
    question = traitlets.Unicode("").tag(sync=True)
    progress = traitlets.Dict().tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)
    place = traitlets.Unicode("").tag(sync=True)
    turn = traitlets.Int(0).tag(sync=True)


class LabelView:
    """Displays a `Labelling`, and does what the widget asks for."""

    def __init__(self, labelling: Labelling) -> None:
        self._labelling = labelling
        self._display_id = uuid4().hex
        self._is_displayed = False
        self.widget = LabelWidget(
            labels=[escape_controls(str(each)) for each in labelling.labels],
            question=escape_controls(labelling.question),
            place=escape_controls(f"{labelling.annotator}, {display_path(labelling.path)}"),
        )
        self.widget.on_msg(lambda _, content, __: self.receive(content))
        self.render()

    def display(self) -> None:
        """Display the widget where a person watches, and the counts of labels in any notebook."""
        shell = get_ipython()
        if not hasattr(shell, "kernel") or config.render == "text":
            sys.stdout.write(f"{self._labelling}\n")
            return
        self.render()
        if is_watched():
            view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
            publish_display_data({_VIEW: view}, {TRANSIENT_KEY: "widget"})
        self._show_counts(update=False)
        self._is_displayed = True

    def receive(self, content: Any) -> None:
        """Do what a message of the view asks for."""
        message = ""
        try:
            self._act(content if isinstance(content, dict) else {})
        except LLMError as error:
            message = redact(f"{error} {error.hint or ''}".strip())
        except (KeyError, TypeError, ValueError):
            message = "This message of the widget is unknown."
        try:
            self.render(message)
            if self._is_displayed:
                self._show_counts(update=True)
        except LLMError as error:  # the file cannot be read
            self._say(redact(f"{error} {error.hint or ''}".strip()))

    def _act(self, content: dict[str, Any]) -> None:
        kind, item, note = content["kind"], str(content.get("item")), str(content.get("note", ""))
        if kind == "label":
            labels = dict(enumerate(self._labelling.labels))
            self._labelling.add(labels[int(content["label"])], item=item, note=note)
        elif kind == "skip":
            self._labelling.skip(item=item, note=note)
        elif kind == "undo":
            self._labelling.undo()
        elif kind == "retry":
            self._labelling.retry_skipped()
        else:
            raise KeyError(kind)

    def render(self, message: str = "") -> None:
        """
        Send the current item to the view.

        Raises:
            UsageError: the file of labels cannot be read.
        """
        current = self._labelling.current()
        labelled, skipped, count = self._labelling.progress()
        fields = {} if current is None else current.fields
        pairs = [[escape_controls(name), escape_controls(text)] for name, text in fields.items()]
        with self.widget.hold_sync():
            self.widget.item = {} if current is None else {"key": current.key, "fields": pairs}
            self.widget.progress = {"labelled": labelled, "skipped": skipped, "count": count}
            self._say(message)

    def _say(self, message: str) -> None:
        """Answer the view with a message, which may be empty."""
        with self.widget.hold_sync():
            self.widget.message = escape_controls(message)
            self.widget.turn += 1

    def _show_counts(self, *, update: bool) -> None:
        """Display the counts of labels, which are saved with the notebook."""
        import html

        counts = self._labelling.counts()
        text = html.escape(str(self._labelling))
        data = {
            "text/plain": f"{self._labelling}\n{counts!r}",
            "text/html": f"<p>{text}</p>{counts._repr_html_()}",  # type: ignore[operator]
        }
        publish_display_data(data, transient={"display_id": self._display_id}, update=update)
