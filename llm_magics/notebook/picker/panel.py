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

from llm_magics._util.text import display_name, escape_controls, replace_lone_surrogates
from llm_magics.errors import LLMError, UsageError
from llm_magics.host import current_host
from llm_magics.notebook import markdown
from llm_magics.notebook.frontend import display_mode
from llm_magics.notebook.picker import fields, rows
from llm_magics.notebook.picker.background import CHECKING, BackgroundTask, ProviderListings
from llm_magics.notebook.picker.rows import SHORT_NAMES, Row
from llm_magics.notebook.picker.table import CopyableLines, ModelTable
from llm_magics.providers.base import ModelInfo
from llm_magics.runtime.session import Session, session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


ALL = "all"

# The settings that the two uses of a model change.
_SETTINGS = {"chat": "model", "embedding": "embedding_model"}


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
        self._rows: list[Row] = []
        self._complaint = ""
        self._listings = ProviderListings(session, self.render)
        self._task = BackgroundTask(session, self._task_changed)
        self._create_widgets()
        session.config.watch(self._settings_changed)
        self._listings.request_all(timeout_s)
        self.render()

    def _create_widgets(self) -> None:
        """Create the widgets and register their event handlers."""
        self.table = ModelTable(columns=list(rows.COLUMNS), numbers=list(rows.NUMBERS))
        self.fields = {each.key: fields.create_field(each) for each in fields.PARAMETERS}
        self.footer = widgets.Checkbox(
            description="show tokens, cost and time under answers", indent=False
        )
        self.lines = CopyableLines()
        self.totals = widgets.HTML()
        self.table.on_msg(lambda _, content, buffers: self.receive(content))
        self.table.observe(self._turn_to_provider, "provider")
        self.table.observe(lambda _: self._search_changed(), "query")
        self.footer.observe(self._set_footer, "value")
        for key, field in self.fields.items():
            field.observe(
                lambda change, key=key: self._set(key, fields.parse_field(change["new"])), "value"
            )
        parameters = widgets.HBox(list(self.fields.values()), layout={"flex_flow": "row wrap"})
        self.box = widgets.VBox([self.table, parameters, self.footer, self.lines, self.totals])
        self.box.add_class("llm-widget").add_class("llm-pick-panel")

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
        self._rows = self._all_rows()
        with self.table.hold_sync():
            self.table.providers = self._providers()
            self.table.rows = rows.table_rows(self._rows, self._capabilities())
            self.table.chosen = {
                use: {
                    "name": replace_lone_surrogates(name),
                    "label": markdown.to_plain_text(display_name(name)),
                }
                for use, name in self._chosen().items()
            }
        self._render_work()
        for key, field in self.fields.items():
            field.value = fields.setting_text(config, key)
        self.footer.value = config.footer != "never"
        self.lines.lines = [markdown.to_plain_text(line) for line in fields.magic_lines(config)]
        self.totals.value = fields.totals_html(
            self._session.runs.totals(), self._session.budget.left_usd
        )

    def _render_work(self) -> None:
        """Display the running task and the message, which change more often than the rest."""
        with self.table.hold_sync():
            self.table.task = self._running_task()
            self.table.message = self._message()

    def _chosen(self) -> dict[str, str]:
        return {use: self._session.config.get(key) for use, key in _SETTINGS.items()}

    def _all_rows(self) -> list[Row]:
        """Return aliases and routes, which can be picked like models, and all models."""
        config = self._session.config
        short = [Row(name, ModelInfo(name)) for name in (*config.aliases, *config.routes)]
        models = {name: self._listings.models.get(name, []) for name in self._listings.names}
        return [*short, *rows.create_rows(models)]

    def _providers(self) -> list[dict[str, Any]]:
        """Return what the table displays of each provider."""
        can = self._capabilities()
        shown = [
            {
                "name": name,
                **self._listings.health.get(name, CHECKING).as_displayed(),
                "pulls": "pull" in can[name],
            }
            for name in self._listings.names
        ]
        if self._listings.unlisted:
            others = ", ".join(self._listings.unlisted)
            words = "available with a key"
            shown.append(
                {"name": "more", "status": "", "words": words, "detail": others, "pulls": False}
            )
        if any(row.provider == SHORT_NAMES for row in self._rows):
            shown.insert(
                0, {"name": SHORT_NAMES, "status": "", "words": "", "detail": "", "pulls": False}
            )
        return shown

    def _capabilities(self) -> dict[str, tuple[str, ...]]:
        return {name: self._listings.capabilities(name) for name in self._listings.names}

    def _running_task(self) -> dict[str, Any]:
        if not self._task.is_going_on:
            return {}
        progress = self._task.progress
        text = str(progress or f"{self._task.name} …")
        return {"text": _plain(text), "fraction": progress.fraction if progress else None}

    def _message(self) -> dict[str, Any]:
        text = self._complaint or self._task.said
        if not text or (self._task.is_going_on and not self._complaint):
            return {}
        return {"text": _plain(text), "error": bool(self._complaint) or self._task.failed}

    def saved_table(self) -> dict[str, str]:
        """Return the table saved in the notebook: all models, with the chosen ones first."""
        chosen = self._chosen()
        return {
            "text/plain": rows.format_text(self._rows, chosen),
            "text/html": _TABLE_STYLE + rows.format_html(self._rows, chosen),
        }

    # Event handlers.

    def receive(self, content: dict[str, Any]) -> None:
        """Do what a message of the table asks for; ignore messages about unknown models."""
        kind, model = content.get("kind"), str(content.get("model", ""))
        if kind == "use":
            self._touched(lambda: self._use(model, str(content.get("use"))))
        elif kind == "pull" and model:
            self._touched(lambda: self._begin(self._task.pull, model))
        elif kind == "delete" and model:
            self._touched(lambda: self._begin(self._task.delete, model))
        elif kind == "cancel":
            self._touched(self._task.stop)
        elif kind == "refresh":
            self._touched(lambda: self._listings.request(self._displayed(), is_forced=True))

    def _touched(self, act: Callable[[], object]) -> None:
        """Call ``act`` for a change by the user; ignore changes made by `render`."""
        with self._lock:
            if self._is_rendering:
                return
            self._forget_message()
        try:
            act()
        except LLMError as error:
            self._complaint = f"{error} {error.hint or ''}".strip()
        self.render()

    def _forget_message(self) -> None:
        self._complaint = ""
        self._task.said = ""

    def _use(self, name: str, use: str) -> None:
        row = next((row for row in self._rows if row.name == name), None)
        if row is None or use not in (*_SETTINGS, *(row.uses or ["other"])):
            return
        fields.check_printable(name)
        if row.info.capabilities and use not in row.uses:
            msg = f"{display_name(name)} is a model for {', '.join(row.info.capabilities)}."
            raise UsageError(msg, hint="Select a chat or an embedding model.")
        self._session.config.set(_SETTINGS[use], name)

    def _begin(self, work: Callable[[str], None], model: str) -> None:
        if self._task.is_going_on:
            msg = f"{self._task.name} is not finished."
            raise UsageError(msg, hint="Wait until it is, or cancel it.")
        fields.check_printable(model)
        work(model)

    def _displayed(self) -> list[str]:
        """Return the providers whose models are displayed."""
        return [name for name in self._listings.names if self.table.provider in (ALL, name)]

    def _search_changed(self) -> None:
        self._forget_message()
        with self._lock:
            self._render_work()

    def _turn_to_provider(self, _: Any) -> None:
        self._touched(lambda: self._listings.request(self._displayed()))

    def _set(self, key: str, value: Any) -> None:
        def set_it() -> None:
            if fields.setting_text(self._session.config, key) != (value or ""):
                self._session.config.set(key, value)

        self._touched(set_it)

    def _set_footer(self, change: Any) -> None:
        footer = "auto" if change["new"] else "never"
        self._touched(lambda: self._session.config.set("footer", footer))

    def _settings_changed(self) -> None:
        """Display changed settings; a message about the previous ones is outdated."""
        self._forget_message()
        self.render()

    def _task_changed(self) -> None:
        """Render the task's progress; when it has ended, request the listings again."""
        if not self._task.is_going_on:
            self._complaint = ""  # that it was running
            self._listings.request(self._listings.names, is_forced=True)
        with self._lock:
            self._render_work()

    def after_cell(self, *_: object) -> None:
        """Update the panel after a cell, which may have changed the cost."""
        if not self._task.failed:
            self._task.said = ""
        self.render()

    def close(self) -> None:
        """Close the panel and cancel its requests."""
        self._session.config.unwatch(self._settings_changed)
        self._listings.close()
        self.box.close()

    def __repr__(self) -> str:
        ready = sum(health.status == "ok" for health in self._listings.health.values())
        model = self._session.config.model
        return f"Picker(model={model!r}, ready={ready}/{len(self._listings.names)})"


def _plain(text: str) -> str:
    return escape_controls(markdown.to_plain_text(text))


# Hide the table if there is a panel, and hide JupyterLab's message about a panel without a kernel.
_TABLE_STYLE = """<style>
.jp-OutputArea:has(.llm-pick) .llm-pick-table { display: none; }
.jp-OutputArea:has(.llm-pick-table) .jp-OutputArea-output.jupyter-widgets:not(:has(*)) { display: none; }
</style>"""

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
    table = panel.saved_table()
    if mode == "text":
        sys.stdout.write(f"{table['text/plain']}\n")
    if mode == "live":
        _panels[key] = panel
        shell.events.register("post_run_cell", panel.after_cell)
        shell.display_pub.publish(data=_view(panel.box), metadata={})
    else:
        panel.close()
    if mode != "text":
        shell.display_pub.publish(data=table, metadata={})


def _view(box: widgets.VBox) -> dict[str, Any]:
    """Return the display data of a widget, which ipywidgets 7 and 8 create differently."""
    kind = "application/vnd.jupyter.widget-view+json"
    return {kind: {"version_major": 2, "version_minor": 0, "model_id": box.model_id}}


def _remove_panel(shell: InteractiveShell, key: str) -> None:
    panel = _panels.pop(key, None)
    if panel is not None:
        shell.events.unregister("post_run_cell", panel.after_cell)
        panel.close()
