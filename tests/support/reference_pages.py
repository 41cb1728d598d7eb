"""
The pages of ``docs/reference``, made from the code, and the drawing of the architecture.

    python -m tests.support.reference_pages

writes them all; a test makes them again and compares.
"""

from __future__ import annotations

import builtins
import inspect
import json
import os
from argparse import Action
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin
from unittest.mock import patch

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from llm_magics import errors
from llm_magics.notebook.commands import COMMANDS, USAGE
from llm_magics.notebook.commands.registry import names_by_group
from llm_magics.notebook.parsers import (
    OptionParser,
    bench_parser,
    compare_parser,
    embed_parser,
    gate_parser,
    llm_cell_parser,
)
from llm_magics.providers import built_in_providers, provider_type, service_names
from llm_magics.providers.configs import ProviderConfig
from llm_magics.providers.remote_config import RemoteConfig
from llm_magics.providers.services import services
from llm_magics.settings.schema import Settings
from tests.support import column_meanings
from tests.support.docstrings import attributes, markdown, one_line, table, text_of
from tests.support.drawing import architecture
from tests.support.reference_python import python
from tests.support.service_pages import service_parts

DOCS = Path(__file__).parents[2] / "docs"
_SURFACE = Path(__file__).parents[1] / "data" / "public_surface.json"

# The modules of the subcommands, in the order of the page.


def magics() -> str:
    """The magics with their flags, and the subcommands of ``%llm``."""
    parts = [
        "# Magics",
        (
            "`%load_ext llm_magics` makes these magics available. In a notebook, `%%llm?`, `%embed?` and "
            "`%llm help NAME` show the same descriptions."
        ),
        "## `%%llm`",
        "Ask a model the prompt in the cell. `{{ name }}` inserts a variable of the notebook.",
        _synopsis("%%llm", llm_cell_parser()),
        _flag_table(llm_cell_parser()),
        "## `%embed`",
        "Embed a column or a list of the notebook.",
        _synopsis("%embed EXPR", embed_parser()),
        _flag_table(embed_parser()),
        "## `%%embed`",
        "Embed the lines of the cell, one text per line. The result is a DataFrame.",
        _synopsis("%%embed", embed_parser("%%embed")),
        _flag_table(embed_parser("%%embed")),
        "## `%llm`",
        "`%llm` is followed by a subcommand.",
    ]
    parsers = {"bench": bench_parser, "compare": compare_parser, "gate": gate_parser}
    for heading, names in names_by_group().items():
        parts.append(f"### {heading}")
        for name in names:
            text = markdown(inspect.getdoc(COMMANDS[name]) or "")
            parts += [f"#### `%llm {name}`", f"```text\n%llm {USAGE[name]}\n```", text]
            parts += [_flag_table(parsers[name]())] if name in parsers else []
    return _page(parts)


def _synopsis(magic: str, parser: OptionParser) -> str:
    positional = [each for each in parser._actions if not each.option_strings]
    names = (
        ""
        if "EXPR" in magic
        else "".join(f" [{each.metavar or each.dest} …]" for each in positional)
    )
    return f"```text\n{magic}{names} [FLAGS]\n```"


def _flag_table(parser: OptionParser) -> str:
    rows = [[f"`{_flag(each)}`", one_line(str(each.help or ""))] for each in parser._actions]
    return table(["flag", "meaning"], rows)


def _flag(action: Action) -> str:
    names = ", ".join(action.option_strings)
    value = "|".join(map(str, action.choices)) if action.choices else str(action.metavar or "")
    if action.nargs in ("?", "*"):
        value = f"[{value}{' …' if action.nargs == '*' else ''}]"
    return f"{names} {value}".strip()


def settings() -> str:
    """Every setting, those of providers, and the environment variables."""
    parts = [
        "# Settings",
        (
            "Set a value with `%llm config KEY VALUE`, with `lm.config.KEY = value`, in "
            "`llm_magics.yaml`, or in the environment variable `LLM_MAGICS_<SETTING>`. See "
            "[how to change settings](../how-to/settings.md)."
        ),
        "## General",
        _setting_table(Settings, list(Settings.model_fields), {}),
    ]
    for name, heading in {"aliases": "An alias", "routes": "A route", "prices": "A price"}.items():
        model = _model_in(Settings.model_fields[name].annotation)
        parts += [
            f"## {heading}",
            f"Each value in `{name}` can have these fields.",
            _setting_table(model, list(model.model_fields), attributes(model)),
        ]
    parts += [
        "## Providers",
        (
            "These are keys below `providers.NAME`, as in `%llm config providers.local.threads 2`. The "
            "environment variable is `LLM_MAGICS_<NAME>_<SETTING>`, as in `LLM_MAGICS_LOCAL_THREADS`."
        ),
        "### All providers",
        _setting_table(
            ProviderConfig, list(ProviderConfig.model_fields), attributes(ProviderConfig)
        ),
        "### Providers over HTTP",
        _setting_table(RemoteConfig, _own_fields(RemoteConfig), attributes(RemoteConfig)),
    ]
    for name in built_in_providers():
        model = provider_type(name).config_type
        if fields := _own_fields(model):
            parts += [f"### `{name}`", _setting_table(model, fields, _described(model))]
    parts += ["## Environment variables", _variables()]
    return _page(parts)


def _own_fields(model: type[BaseModel]) -> list[str]:
    shared: dict[str, FieldInfo] = {}
    for base in (ProviderConfig, RemoteConfig):
        if model is not base and issubclass(model, base):
            shared |= base.model_fields
    fields = model.model_fields
    return [
        name
        for name in fields
        if name not in shared
        or (
            fields[name] is not shared[name]
            and _default(fields[name], name) != _default(shared[name], name)
        )
    ]


def _described(model: type[BaseModel]) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base.__doc__:
            found |= attributes(base)
    return found


def _setting_table(model: type[BaseModel], names: list[str], described: dict[str, str]) -> str:
    fields = model.model_fields
    rows = [
        [
            f"`{name}`",
            f"`{_type(fields[name])}`",
            _default(fields[name], name),
            one_line(fields[name].description or described.get(name, "")),
        ]
        for name in names
    ]
    return table(["setting", "type", "default", "meaning"], rows)


def _model_in(annotation: Any) -> type[BaseModel]:
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation if issubclass(annotation, BaseModel) else BaseModel
    found = [_model_in(each) for each in get_args(annotation)]
    return next((each for each in found if each is not BaseModel), BaseModel)


def _type(field: FieldInfo) -> str:
    words = list(dict.fromkeys(_type_words(field.annotation)))
    return "mapping" if "mapping" in words else " | ".join(words)


_TYPE_WORDS = {
    "str": "text", "int": "integer", "float": "number", "bool": "true | false", "Path": "path",
    "Secret": "key", "dict": "mapping", "tuple": "list", "list": "list", "Callable": "function",
}  # fmt: skip


def _type_words(annotation: Any) -> list[str]:
    if annotation in (None, type(None)):
        return []
    if isinstance(annotation, str):
        return [annotation]
    name = getattr(get_origin(annotation) or annotation, "__name__", "")
    if name in _TYPE_WORDS:
        return [_TYPE_WORDS[name]]
    return [word for each in get_args(annotation) for word in _type_words(each)]


def _default(field: FieldInfo, name: str) -> str:
    for part, words in _MADE_DEFAULTS.items():
        if field.default_factory is not None and part in f"{name}: {field.annotation}":
            return words
    if field.default_factory is not None:
        kept = {key: os.environ[key] for key in ("HOME", "PATH") if key in os.environ}
        with patch.dict(os.environ, kept, clear=True):
            value = field.default_factory()  # type: ignore[call-arg]
    else:
        value = field.default
    if value is PydanticUndefined:
        return "required"
    if value in (None, "", (), {}, []):
        return "none"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


# Defaults that depend on the machine or the user, by a part of the name and the type.
_MADE_DEFAULTS = {
    "Secret": "its environment variable",
    "Path": "in your cache folder",
    "threads: ": "depends on the machine",
}


def _variables() -> str:
    rows = [["`LLM_MAGICS_<SETTING>`", "The setting, in capitals, as in `LLM_MAGICS_MODEL`."]]
    for name in built_in_providers():
        rows += [[f"`{each}`", f"Used by `{name}`."] for each in provider_type(name).environment]
    for name in service_names():
        rows += [[f"`{each}`", f"Used by `{name}`."] for each in services()[name].variables]
    return table(["variable", "meaning"], rows)


def columns() -> str:
    """The columns of the tables, with types and meanings."""
    surface = json.loads(_SURFACE.read_text("utf-8"))["columns"]
    parts = [
        "# Columns",
        (
            "The columns of the DataFrames that llm_magics returns. Text columns are `str` in pandas 3 "
            "and `object` in pandas 2."
        ),
    ]
    for heading, text, names, meanings in column_meanings.SECTIONS:
        types: dict[str, str] = {}
        for name in names:
            types |= _types(surface[name])
        rows = [
            [f"`{column}`", f"`{types.get(column, 'float64')}`", meaning]
            for column, meaning in meanings.items()
        ]
        parts += [f"## {heading}", text, table(["column", "type", "meaning"], rows)]
    return _page(parts)


def _types(described: list[str]) -> dict[str, str]:
    pairs = (each.strip("[]").partition(": ") for each in described)
    return {column: kind or "index" for column, _, kind in pairs}


def undescribed_columns() -> dict[str, set[str]]:
    """Return the columns of each table that have no meaning here."""
    surface = json.loads(_SURFACE.read_text("utf-8"))["columns"]
    endings = ("_low", "_high", "_p90", "_p99", "_p10", "_p1")
    found = {}
    for _, _, names, meanings in column_meanings.SECTIONS:
        for name in names:
            known = set(_types(surface[name]))
            derived = {each for each in known if each.endswith(endings)}
            found[name] = known - derived - set(meanings)
    return found


def error_classes() -> str:
    """The tree of errors with the description of each class."""
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, BaseException) and kind.__module__ == errors.__name__
    ]
    parts = [
        "# Errors",
        (
            "All errors are in `llm_magics.errors`. `str(error)` says what happened, and `error.hint` "
            "says what to do."
        ),
        f"```text\n{_tree(errors.LLMError, kinds)}\n{errors.Interrupted.__name__}\n```",
    ]
    for kind in [*_depth_first(errors.LLMError, kinds), errors.Interrupted]:
        bases = ", ".join(
            f"`{'builtins.' if base is builtins.ConnectionError else ''}{base.__name__}`"
            for base in kind.__bases__
            if not base.__name__.startswith("_")
        )
        parts += [f"## `{kind.__name__}`", f"Base: {bases}", text_of(kind)]
        if found := attributes(kind):
            parts.append(
                table(["attribute", "meaning"], [[f"`{k}`", v] for k, v in found.items()])
            )
    return _page(parts)


def _depth_first(kind: type, kinds: list[type]) -> list[type]:
    children = sorted((each for each in kinds if kind in each.__bases__), key=lambda k: k.__name__)
    return [kind, *(below for each in children for below in _depth_first(each, kinds))]


def _tree(kind: type, kinds: list[type]) -> str:
    depth = len([base for base in kind.__mro__ if base in kinds])
    return "\n".join(
        "    " * (len([base for base in each.__mro__ if base in kinds]) - depth) + each.__name__
        for each in _depth_first(kind, kinds)
    )


def _page(parts: list[str]) -> str:
    note = "<!-- Generated by `python -m tests.support.reference_pages`. Do not edit. -->"
    return "\n\n".join([note, *(part.strip() for part in parts if part.strip())]) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "reference/magics.md": magics,
    "reference/settings.md": settings,
    "reference/columns.md": columns,
    "reference/errors.md": error_classes,
    "reference/services.md": lambda: _page(service_parts()),
    "reference/python.md": lambda: _page(python()),
    "explanation/architecture.svg": architecture,
}


if __name__ == "__main__":
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), "utf-8")
