"""The fields of the panel, the lines with the same effect, and the totals of the session."""

from __future__ import annotations

import html
from typing import Any, NamedTuple

import ipywidgets as widgets

from llm_magics._util.text import (
    display_name,
    escape_invisible,
    format_usd,
    pluralize,
    quote_word,
    replace_lone_surrogates,
    strip_controls,
)
from llm_magics.errors import UsageError
from llm_magics.notebook.parsers import parse_setting_value as read
from llm_magics.notebook.parsers import strip_comment
from llm_magics.runtime.storage.run_log import Totals
from llm_magics.settings.config import Config


class Parameter(NamedTuple):
    """A setting with a field: its name, the label and placeholder of the field, and its width."""

    key: str
    label: str
    hint: str
    width: str = "8em"


PARAMETERS = (
    Parameter("temperature", "temperature", "0 or more"),
    Parameter("max_tokens", "max tokens", "1 or more"),
    Parameter("top_p", "top p", "0 to 1"),
    Parameter("seed", "seed", "a number"),
    Parameter("system", "system message", "for every prompt", "24em"),
)


def create_field(parameter: Parameter) -> widgets.Text:
    """Create a text field with its label above it."""
    return widgets.Text(
        description=parameter.label,
        placeholder=parameter.hint,
        continuous_update=False,
        style={"description_width": "auto"},
        layout={"width": parameter.width, "flex_flow": "column"},
    )


def setting_text(config: Config, key: str) -> str:
    """Return the text of a setting for its field."""
    value = config.get(key)
    return "" if value is None else replace_lone_surrogates(str(value))


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
    if config.source("embedding_model") == "set in this session":
        commands.append(_set("embedding_model", config.embedding_model))
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


def totals_html(total: Totals, left_usd: float | None) -> str:
    """Return the calls, tokens and cost of the session as HTML."""
    parts = [pluralize(total.calls, "call"), f"{total.tokens:,} tokens"]
    parts.append(format_usd(total.cost_usd))
    if total.unpriced:
        parts.append(f"{total.unpriced:,} of unknown cost")
    if left_usd is not None:
        parts.append(f"{format_usd(left_usd)} of the budget left")
    return f"this session: {html.escape(' · '.join(parts))}"
