"""The parameters of the panel: a field for each, which shows the setting and changes it."""

from __future__ import annotations

from typing import Any, NamedTuple

import ipywidgets as widgets

from llm_magics._util.terminal import plain, shown_name, visible, word
from llm_magics.errors import UsageError
from llm_magics.notebook.commands.settings import parsed as read
from llm_magics.notebook.options import without_comment
from llm_magics.settings.config import Config


class Parameter(NamedTuple):
    """A setting that has a field, and the hint in it while nothing is set."""

    key: str
    hint: str
    width: str = "7.5em"


PARAMETERS = (
    Parameter("temperature", "0 or more"),
    Parameter("max_tokens", "longest answer"),
    Parameter("top_p", "0 to 1"),
    Parameter("seed", "a number"),
    Parameter("system", "the system message of every prompt", "26em"),
)


def field_of(parameter: Parameter) -> widgets.VBox:
    """A field under its name."""
    name = widgets.HTML(f"<small>{parameter.key}</small>", layout={"margin": "0 2px"})
    text = widgets.Text(
        placeholder=parameter.hint,
        continuous_update=False,
        layout={"width": parameter.width},
    )
    return widgets.VBox([name, text])


def shown(config: Config, key: str) -> str:
    """A setting as it stands in its field."""
    value = config.get(key)
    return "" if value is None else str(value)


def parsed(text: str) -> Any:
    """What a field says: nothing is ``None``, and the settings coerce the rest."""
    return text.strip() or None


def lines(config: Config) -> list[str]:
    """
    Return the magics that would set all of it, each on one line, quoted as magics read them.

    What no line can say becomes a comment: a name may be a service's, and the lines are run.
    """
    told = [_use(config.model)]
    for parameter in PARAMETERS:
        value = shown(config, parameter.key)
        if value and config.source(parameter.key) == "set in this session":
            told.append(_set(parameter.key, value))
    return told


def refuse_unprintable(model: str) -> None:
    """Refuse a model whose name has controls or line breaks: no magic could name it."""
    if plain(model) != model or len(model.splitlines()) > 1 or "\t" in model:
        msg = f"{shown_name(model)} has control characters in its name, and cannot be picked."
        raise UsageError(msg, hint="Give the model another name at its service.")


def _use(model: str) -> str:
    spelled = word(model)
    if spelled is None:
        return f"# The name {shown_name(model)} has characters that cannot be shown on a line."
    return f"%llm use {spelled}"


def _set(key: str, value: str) -> str:
    """Return the line that sets ``key``, in the first form that is read as ``value``."""
    if visible(value) == value:
        for form in (value, f'"{value}"', f"'{value}'"):
            # IPython reads a question mark at the end as a question, a backslash as more lines.
            if form[-1] not in "?\\" and read(without_comment(form).strip()) == value:
                return f"%llm config {key} {form}"
    return f"# The value of {key} does not fit on a line of %llm config."
