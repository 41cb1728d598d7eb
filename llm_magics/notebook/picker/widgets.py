"""The parts of the panel: rows of models, fields for parameters, and HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import ipywidgets as widgets

from llm_magics._util.table_text import format_columns
from llm_magics._util.text import (
    display_name,
    escape_controls,
    escape_invisible,
    format_usd,
    pluralize,
    quote_word,
    strip_controls,
)
from llm_magics.errors import UsageError
from llm_magics.notebook import markdown
from llm_magics.notebook.parsers import parse_setting_value as read
from llm_magics.notebook.parsers import strip_comment
from llm_magics.notebook.picker.background import Health
from llm_magics.providers.base import ModelInfo
from llm_magics.runtime.storage.run_log import Totals
from llm_magics.settings.config import Config

# Browsers collapse plain spaces in the options of a list.
_SPACE = "\N{NO-BREAK SPACE}"

# A longer name is cut in the list; it would make the column too wide.
_MAX_NAME = 44

COLUMNS = ("model", "size", "context", "price", "capabilities", "state")

# The maximum number of rows of the table that is saved with the notebook.
_MAX_SAVED = 40


@dataclass(frozen=True, slots=True)
class Row:
    """One model that can be picked, by its full name."""

    name: str
    info: ModelInfo

    @property
    def cells(self) -> tuple[str, ...]:
        """The text of each column of the row."""
        info = self.info
        cells = (
            display_name(self.name),
            _size(info.size_bytes),
            _context(info.context),
            _price(info.input_usd, info.output_usd),
            display_name(", ".join(info.capabilities)),
            _state(info),
        )
        return tuple(markdown.to_plain_text(text) for text in cells)


def create_rows(offered: Mapping[str, Sequence[ModelInfo]]) -> list[Row]:
    """Return the models of the providers; models without chat are last."""
    rows = [Row(f"{name}/{info.name}", info) for name, infos in offered.items() for info in infos]
    return sorted(
        rows, key=lambda row: bool(row.info.capabilities) and "chat" not in row.info.capabilities
    )


def filter_rows(rows: Iterable[Row], query: str) -> list[Row]:
    """Return the rows in which all words of ``query`` occur."""
    words = query.lower().split()
    return [row for row in rows if all(word in " ".join(row.cells).lower() for word in words)]


def list_labels(rows: Sequence[Row]) -> list[str]:
    """Return the labels of the list, with aligned columns."""
    cells = [(_cut(row.cells[0]), *row.cells[1:]) for row in rows]
    return format_columns(cells).replace(" ", _SPACE).split("\n") if cells else []


def format_text(rows: Sequence[Row], chosen: str) -> str:
    """Return the table as plain text, with the chosen model marked."""
    lines = [("", *COLUMNS), *_marked(rows, chosen)]
    return "\n".join([format_columns(lines), *_more(rows)])


def format_html(rows: Sequence[Row], chosen: str) -> str:
    """Return the table as HTML, with the chosen model marked."""
    head = "".join(f"<th>{name}</th>" for name in ("", *COLUMNS))
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>"
        for line in _marked(rows, chosen)
    )
    more = "".join(f"<p>{line}</p>" for line in _more(rows))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="llm-pick-table mathjax_ignore">{table}{more}</div>'


def _marked(rows: Sequence[Row], chosen: str) -> list[tuple[str, ...]]:
    first = sorted(rows, key=lambda row: row.name != chosen)[:_MAX_SAVED]
    return [("→" if row.name == chosen else "", *row.cells) for row in first]


def _more(rows: Sequence[Row]) -> list[str]:
    return [f"and {len(rows) - _MAX_SAVED:,} more"] if len(rows) > _MAX_SAVED else []


def _cut(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def _size(size_bytes: int | None) -> str:
    if not size_bytes:
        return ""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


def _context(tokens: int | None) -> str:
    if tokens is None:
        return ""
    if tokens >= 1_000_000:
        return f"{tokens / 1e6:.3g}M"
    return f"{tokens / 1000:.0f}k" if tokens >= 10_000 else f"{tokens:,}"


def _price(input_usd: float | None, output_usd: float | None) -> str:
    """Return the price in US dollars per million input and output tokens."""
    if input_usd is None:
        return ""
    if not input_usd and not output_usd:
        return "free"
    return f"${input_usd:g}" if output_usd is None else f"${input_usd:g} / ${output_usd:g}"


def _state(info: ModelInfo) -> str:
    if info.loaded:
        return "loaded"
    return "not downloaded" if info.pulled is False else ""


class Parameter(NamedTuple):
    """A setting with a field, and the placeholder of the field."""

    key: str
    hint: str
    width: str = "7.5em"


PARAMETERS = (
    Parameter("temperature", "0 or more"),
    Parameter("max_tokens", "maximum tokens"),
    Parameter("top_p", "0 to 1"),
    Parameter("seed", "a number"),
    Parameter("system", "system message for every prompt", "26em"),
)


def create_field(parameter: Parameter) -> widgets.VBox:
    """Create a text field with its name above it."""
    name = widgets.HTML(f"<small>{parameter.key}</small>", layout={"margin": "0 2px"})
    text = widgets.Text(
        placeholder=parameter.hint,
        continuous_update=False,
        layout={"width": parameter.width},
    )
    return widgets.VBox([name, text])


def setting_text(config: Config, key: str) -> str:
    """Return the text of a setting for its field."""
    value = config.get(key)
    return "" if value is None else str(value)


def parse_field(text: str) -> Any:
    """Return the value of a field, or ``None`` if it is empty; the settings convert its type."""
    return text.strip() or None


def magic_lines(config: Config) -> list[str]:
    """
    Return the ``%llm`` lines that would set the model and parameters, one line each, quoted.

    A value that cannot be quoted becomes a comment, because the user runs these lines and model
    names come from services.
    """
    commands = [_use(config.model)]
    for parameter in PARAMETERS:
        value = setting_text(config, parameter.key)
        if value and config.source(parameter.key) == "set in this session":
            commands.append(_set(parameter.key, value))
    return commands


def check_printable(model: str) -> None:
    """
    Refuse a model whose name has control characters or line breaks: no magic could name it.

    Raises:
        UsageError: the name has such characters.
    """
    if strip_controls(model) != model or len(model.splitlines()) > 1 or "\t" in model:
        msg = f"{display_name(model)} cannot be selected: its name has control characters."
        raise UsageError(msg, hint="Rename the model at its service.")


def _use(model: str) -> str:
    spelled = quote_word(model)
    if spelled is None:
        return f"# The name {display_name(model)} does not fit on one %llm line."
    return f"%llm use {spelled}"


def _set(key: str, value: str) -> str:
    """Return the line that sets ``key``, in the first form that is parsed as ``value``."""
    if escape_invisible(value) == value:
        for form in (value, f'"{value}"', f"'{value}'"):
            # A question mark at the end would show IPython's help, a backslash continue the line.
            if form[-1] not in "?\\" and read(strip_comment(form).strip()) == value:
                return f"%llm config {key} {form}"
    return f"# The value of {key} does not fit on one %llm config line."


STYLE = """<style>
.llm-pick select { font-family: var(--jp-code-font-family, monospace); font-size: 12px; }
.llm-pick .llm-line { user-select: all; padding: 2px 6px; white-space: pre;
  background: var(--jp-layout-color2, #8882); border-radius: 3px; }
.llm-pick small { opacity: .75; }
</style>"""

# Hide the table if there is a panel, and hide JupyterLab's message about a panel without a kernel.
TABLE_STYLE = """<style>
.jp-OutputArea:has(.llm-pick) .llm-pick-table { display: none; }
.jp-OutputArea:has(.llm-pick-table) .jp-OutputArea-output.jupyter-widgets:not(:has(*)) { display: none; }
</style>"""

# The colour of a status. The text is always shown as well.
_COLOURS = {
    "ok": "var(--jp-success-color1, #388e3c)",
    "unavailable": "var(--jp-error-color1, #d32f2f)",
}
_WORDS = {"ok": "ready", "unavailable": "not ready", "asking": "asking"}

# JavaScript that uses the browser's clipboard, because the kernel may run on another machine.
_COPY = (
    "navigator.clipboard.writeText(this.dataset.line)"
    ".then(() => {this.textContent = 'copied'; setTimeout(() => {this.textContent = 'copy'}, 1500)})"
)


def health_html(name: str, state: Health) -> str:
    """Return the status of a provider as HTML, with text and colour."""
    colour = _COLOURS.get(state.status, "gray")
    words = _WORDS.get(state.status, state.status)
    detail = f": {state.detail}" if state.detail and state.status != "asking" else ""
    return (
        f'<span style="color: {colour}">●</span> '
        f"<b>{_safe(name)}</b> is {_safe(words)}{_safe(detail)}"
    )


def active_model_html(model: str) -> str:
    """Return the line with the active model."""
    return f"using <b>{_name(model)}</b>"


def totals_html(total: Totals, left_usd: float | None) -> str:
    """Return the calls, tokens and cost of the session as HTML."""
    parts = [pluralize(total.calls, "call"), f"{total.tokens:,} tokens"]
    parts.append(format_usd(total.cost_usd))
    if total.unpriced:
        parts.append(f"{total.unpriced:,} of unknown cost")
    if left_usd is not None:
        parts.append(f"{format_usd(left_usd)} of the budget left")
    return f"<small>this session: {_safe(' · '.join(parts))}</small>"


def copyable_lines_html(lines: Sequence[str]) -> str:
    """Return the equivalent ``%llm`` lines with a copy button as HTML."""
    text = html.escape(markdown.to_plain_text("\n".join(lines)), quote=True)
    return (
        f'<div style="display: flex; gap: 6px; align-items: start">'
        f'<code class="llm-line">{text}</code>'
        f'<button class="jupyter-button llm-copy" data-line="{text}" onclick="{html.escape(_COPY)}"'
        ' style="width: 5em" title="copy to the clipboard">copy</button></div>'
    )


def status_html(text: str, *, is_wrong: bool) -> str:
    """Return a message in the colour of success or failure as HTML."""
    colour = _COLOURS["unavailable" if is_wrong else "ok"] if text else "inherit"
    return f'<span style="color: {colour}">{_safe(text)}</span>'


def _safe(text: str) -> str:
    # Escape last: the backslashes it adds must not count as TeX in escape_html.
    return escape_controls(markdown.escape_html(text))


def _name(text: str) -> str:
    return escape_invisible(markdown.escape_html(text))
