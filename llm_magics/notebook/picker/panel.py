"""
The panel of ``%llm pick``: its widgets and their events, and its output in the cell.

A panel works only while its kernel runs. A notebook opened without the kernel would display an error
instead. So a plain table is a separate output, which is visible if the panel is not.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from llm_magics._util.text import display_name
from llm_magics.errors import LLMError
from llm_magics.host import current_host
from llm_magics.notebook.frontend import display_mode
from llm_magics.notebook.picker import widgets as fields
from llm_magics.notebook.picker import widgets as markup
from llm_magics.notebook.picker import widgets as rows
from llm_magics.notebook.picker.background import CHECKING, BackgroundTask, ProviderListings
from llm_magics.notebook.picker.widgets import Row
from llm_magics.providers.base import ModelInfo
from llm_magics.runtime.models import require_chat
from llm_magics.runtime.session import Session, session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


ALL = "all"
SHORT_NAMES = "aliases"


class Picker:
    """
    A view of the settings. The panel changes the settings, and displays changes made elsewhere.

    Widgets are changed by the user in the main thread, and updated in the bridge's thread. A lock
    separates the two. It is not held while settings are changed, because other panels watch them.
    """

    def __init__(self, session: Session, timeout_s: float) -> None:
        """Create the panel, waiting at most ``timeout_s`` for providers; others are added later."""
        self._session = session
        self._lock = threading.RLock()
        self._is_rendering = False
        self._visible_rows: list[Row] = []
        self._deleting = ""
        self._complaint = ""
        self._listings = ProviderListings(session, self.render)
        self._task = BackgroundTask(session, self._task_changed)
        self._create_widgets()
        session.config.watch(self.render)
        self._listings.request_all(timeout_s)
        self.render()

    def _create_widgets(self) -> None:
        """Create the widgets and register their event handlers."""
        names = [ALL, *([SHORT_NAMES] if self._short_names() else []), *self._listings.names]
        self.providers = widgets.ToggleButtons(options=names, style={"button_width": "auto"})
        self.filter = widgets.Text(placeholder="filter by name, capability, loaded …")
        self.refresh = widgets.Button(description="refresh", layout={"width": "auto"})
        self.list = widgets.Select(options=[], rows=9, layout={"width": "100%"})
        self.health, self.active_model = widgets.HTML(), widgets.HTML()
        self.fields = {each.key: fields.create_field(each) for each in fields.PARAMETERS}
        self.pull = widgets.Button(description="pull", layout={"width": "auto"})
        self.delete = widgets.Button(description="delete", layout={"width": "auto"})
        self.stop = widgets.Button(description="stop", layout={"width": "auto"})
        self.bar = widgets.FloatProgress(min=0, max=1, layout={"width": "14em"})
        self.progress, self.said = widgets.HTML(), widgets.HTML()
        self.footer = widgets.Checkbox(
            description="show tokens, cost and time under answers", indent=False
        )
        self.line, self.totals = widgets.HTML(), widgets.HTML()
        self._listen()
        self.box = self._create_layout()

    def _listen(self) -> None:
        self.providers.observe(self._turn_to_provider, "value")
        self.filter.observe(lambda _: self._touched(self.render), "value")
        self.refresh.on_click(lambda _: self._listings.request(self._providers(), is_forced=True))
        self.list.observe(self._pick, "value")
        self.pull.on_click(lambda _: self._pull())
        self.delete.on_click(lambda _: self._delete())
        self.stop.on_click(lambda _: self._task.stop())
        self.footer.observe(self._set_footer, "value")
        for key, box in self.fields.items():
            box.children[1].observe(
                lambda change, key=key: self._set(key, fields.parse_field(change["new"])), "value"
            )

    def _create_layout(self) -> widgets.VBox:
        row = widgets.HBox
        wrapped = {"flex_flow": "row wrap"}
        box = widgets.VBox(
            [
                widgets.HTML(markup.STYLE, layout={"display": "none"}),
                self.providers,
                self.health,
                row([self.filter, self.refresh]),
                self.list,
                row([self.pull, self.delete, self.stop, self.bar, self.progress], layout=wrapped),
                row(list(self.fields.values()), layout=wrapped),
                row([self.active_model, self.footer], layout=wrapped),
                self.line,
                self.said,
                self.totals,
            ]
        )
        box.add_class("llm-pick")
        return box

    # Display.

    def render(self) -> None:
        """Display the settings, and the models and health of the providers."""
        with self._lock:
            self._is_rendering = True
            try:
                self._render()
            finally:
                self._is_rendering = False

    def _render(self) -> None:
        config = self._session.config
        chosen = config.model
        self._visible_rows = rows.filter_rows(self._rows(), self.filter.value)
        options = list(
            zip(
                rows.list_labels(self._visible_rows),
                [row.name for row in self._visible_rows],
                strict=True,
            )
        )
        if list(self.list.options) != options:
            self.list.options = options
        self.list.value = chosen if chosen in [row.name for row in self._visible_rows] else None
        self.health.value = "<br>".join(
            markup.health_html(name, self._listings.health.get(name, CHECKING))
            for name in self._reported_providers()
        )
        self.active_model.value = markup.active_model_html(chosen)
        for key, box in self.fields.items():
            box.children[1].value = fields.setting_text(config, key)
        self.footer.value = config.footer != "never"
        self.line.value = markup.copyable_lines_html(fields.magic_lines(config))
        self.totals.value = markup.totals_html(
            self._session.runs.totals(), self._session.budget.left_usd
        )
        self._render_work()

    def _render_work(self) -> None:
        progress, is_busy = self._task.progress, self._task.is_going_on
        pullable, chosen = self._pullable_model(), self._chosen()
        self.pull.disabled = is_busy or not pullable
        self.pull.description = f"pull {display_name(pullable)}" if pullable else "pull"
        can_go = chosen is not None and chosen.info.pulled is True
        self.delete.disabled = is_busy or not can_go
        is_sure = chosen is not None and chosen.name == self._deleting
        self.delete.description = (
            f"really delete {display_name(self._deleting)}?" if is_sure else "delete"
        )
        self.delete.button_style = "danger" if is_sure else ""
        for widget in (self.stop, self.bar, self.progress):
            widget.layout.display = None if is_busy else "none"
        self.bar.value = (progress.fraction or 0.0) if progress else 0.0
        self.progress.value = (
            markup.status_html(str(progress or "…"), is_wrong=False) if is_busy else ""
        )
        said = self._complaint or self._task.said
        is_wrong = bool(self._complaint) or self._task.failed
        self.said.value = markup.status_html(said, is_wrong=is_wrong)

    def table(self) -> dict[str, str]:
        """Return the table saved in the notebook: all models, with the chosen one first."""
        everything = self._rows(of_all=True)
        chosen = self._session.config.model
        return {
            "text/plain": rows.format_text(everything, chosen),
            "text/html": markup.TABLE_STYLE + rows.format_html(everything, chosen),
        }

    def _rows(self, *, of_all: bool = False) -> list[Row]:
        names = self._listings.names if of_all else self._providers()
        offered = {name: self._listings.models.get(name, []) for name in names}
        short = self._short_names() if of_all or self.providers.value in (ALL, SHORT_NAMES) else []
        return [*short, *rows.create_rows(offered)]

    def _short_names(self) -> list[Row]:
        """Return aliases and routes as rows; they can be picked like models."""
        config = self._session.config
        return [Row(name, ModelInfo(name)) for name in (*config.aliases, *config.routes)]

    def _providers(self) -> list[str]:
        if self.providers.value == ALL:
            return self._listings.names
        return [] if self.providers.value == SHORT_NAMES else [self.providers.value]

    def _reported_providers(self) -> list[str]:
        """Return the providers whose health is displayed: the selected one, or all that are ready."""
        if self.providers.value != ALL:
            return self._providers()
        health = self._listings.health
        return [
            name for name in self._listings.names if name in health and health[name].status == "ok"
        ]

    def _chosen(self) -> Row | None:
        chosen = self._session.config.model
        return next((row for row in self._visible_rows if row.name == chosen), None)

    def _pullable_model(self) -> str:
        """Return the model to pull: the chosen one, or the typed one if no row matches."""
        chosen = self._chosen()
        typed = self.filter.value.strip()
        if typed and not self._visible_rows and " " not in typed:
            provider = self.providers.value
            is_bare = provider not in (ALL, SHORT_NAMES) and not typed.startswith(f"{provider}/")
            return f"{provider}/{typed}" if is_bare else typed if "/" in typed else ""
        return chosen.name if chosen is not None and chosen.info.pulled is False else ""

    # Event handlers.

    def _touched(self, act: Callable[[], object]) -> None:
        """Call ``act`` for a change by the user; ignore changes made by `render`."""
        with self._lock:
            if self._is_rendering:
                return
            self._complaint = self._deleting = ""
        try:
            act()
        except LLMError as error:
            self._complaint = f"{error} {error.hint or ''}".strip()
            self.render()

    def _turn_to_provider(self, _: Any) -> None:
        self._touched(self.render)
        self._listings.request(self._providers())

    def _pick(self, change: Any) -> None:
        name = change["new"]

        def pick() -> None:
            info = next((row.info for row in self._visible_rows if row.name == name), None)
            if info is not None:
                fields.check_printable(name)
                require_chat(name, info.capabilities)
                self._session.config.model = name

        self._touched(pick)

    def _set(self, key: str, value: Any) -> None:
        def set_it() -> None:
            if fields.setting_text(self._session.config, key) != (value or ""):
                self._session.config.set(key, value)

        self._touched(set_it)

    def _set_footer(self, change: Any) -> None:
        footer = "auto" if change["new"] else "never"
        self._touched(lambda: self._session.config.set("footer", footer))

    def _pull(self) -> None:
        pullable = self._pullable_model()
        if pullable and not self._task.is_going_on:
            self._complaint = ""
            self._task.pull(pullable)
            self.render()

    def _delete(self) -> None:
        chosen = self._chosen()
        if chosen is None or self._task.is_going_on:
            return
        if self._deleting == chosen.name:
            self._deleting = ""
            self._task.delete(chosen.name)
        else:
            self._deleting = chosen.name  # a second click deletes
        self.render()

    def _task_changed(self) -> None:
        """Render the task's progress; when it has ended, request the listings again."""
        if not self._task.is_going_on:
            self._listings.request(self._listings.names, is_forced=True)
        self.render()

    def after_cell(self, *_: object) -> None:
        """Update the panel after a cell, which may have changed the cost."""
        self.render()

    def close(self) -> None:
        """Close the panel and cancel its requests."""
        self._session.config.unwatch(self.render)
        self._listings.close()
        self.box.close()

    def __repr__(self) -> str:
        ready = sum(health.status == "ok" for health in self._listings.health.values())
        model = self._session.config.model
        return f"Picker(model={model!r}, ready={ready}/{len(self._listings.names)})"


# The time to wait for providers. A live panel can add their models later; a static table cannot.
_LIVE_TIMEOUT_S = 4.0
_STATIC_TIMEOUT_S = 10.0

# The panel of each cell. It is closed when the cell creates another one.
_panels: dict[str, Picker] = {}


def pick(shell: InteractiveShell) -> None:
    """Display a panel, and a plain table for the saved notebook; unattended, only the table."""
    key = current_host().current_cell.key
    _remove_panel(shell, key)
    mode = display_mode(shell)
    panel = Picker(session, _LIVE_TIMEOUT_S if mode == "live" else _STATIC_TIMEOUT_S)
    table = panel.table()
    if mode == "text":
        sys.stdout.write(f"{table['text/plain']}\n")
    if mode == "live":
        _panels[key] = panel
        shell.events.register("post_run_cell", panel.after_cell)
        view = {
            kind: data for kind, data in panel.box._repr_mimebundle_().items() if "widget" in kind
        }
        shell.display_pub.publish(data=view, metadata={})
    else:
        panel.close()
    if mode != "text":
        shell.display_pub.publish(data=table, metadata={})


def _remove_panel(shell: InteractiveShell, key: str) -> None:
    panel = _panels.pop(key, None)
    if panel is not None:
        shell.events.unregister("post_run_cell", panel.after_cell)
        panel.close()
