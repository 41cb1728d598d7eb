"""The parameters of the panel: a field for each, which shows the setting and changes it."""

from __future__ import annotations

from typing import Any, NamedTuple

import ipywidgets as widgets

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
    """The magics that would set all of it."""
    told = [f"%llm use {config.model}"]
    for parameter in PARAMETERS:
        value = shown(config, parameter.key)
        if value and config.source(parameter.key) == "set in this session":
            told.append(f"%llm config {parameter.key} {value}")
    return told
