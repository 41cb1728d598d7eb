"""
The public surface of the package as plain data: names, signatures, flags, columns, formats.

``tests/data/public_surface.json`` has it as it was released last; ``test_public_surface`` compares.
After a change on purpose: ``python -m tests.support.public_surface > tests/data/public_surface.json``.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import json
import re
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args

import dask.dataframe
import pandas as pd
from IPython.core.interactiveshell import InteractiveShell
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from traitlets.config import Config

import llm_magics as lm
from llm_magics import errors, providers
from llm_magics.providers.services import services

PACKAGE = Path(lm.__file__).parent
SNAPSHOT = Path(__file__).parents[1] / "data" / "public_surface.json"

# Names of environment variables, as they stand in the code.
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*_(?:[A-Z0-9]+_)*(?:KEY|URL|HOST|TOKEN|PATH|HOME|ID)")
_ADDRESS_IN_MEMORY = re.compile(r" at 0x[0-9a-f]+")


def signature(function: Callable[..., Any]) -> str:
    """Return the signature of ``function``: the names of modules and addresses left out."""
    told = _ADDRESS_IN_MEMORY.sub("", str(inspect.signature(function)))
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])", "", told)


def members(owner: object) -> dict[str, str]:
    """Return the public methods of a class or an object with signatures, and its other names."""
    found = {}
    for name in dir(owner):
        if name.startswith("_"):
            continue
        member = inspect.getattr_static(owner, name)
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        found[name] = signature(member) if inspect.isfunction(member) else "attribute"
    return found


def own_members(kind: type) -> dict[str, str]:
    """Return the members that ``kind`` and its bases in this package define."""
    ours = {name for base in kind.__mro__ if _is_ours(base) for name in vars(base)}
    fields = getattr(kind, "model_fields", {})
    ours |= set(fields)
    found = {name: told for name, told in members(kind).items() if name in ours}
    return found | {name: str(_annotation(field)) for name, field in fields.items()}


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "llm_magics"


def _annotation(field: Any) -> str:
    kind = getattr(field, "annotation", field)
    told = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    told = re.sub(r"BeforeValidator\(.*?PydanticUndefined\)", "validated", told)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])", "", told)


def python_names() -> dict[str, Any]:
    """``lm.*``: signatures of functions, members and constructors of classes."""
    found: dict[str, Any] = {}
    for name in lm.__all__:
        value = getattr(lm, name)
        if inspect.isclass(value):
            found[name] = {"()": signature(value), **own_members(value)}
        elif callable(value):
            found[name] = signature(value)
        elif inspect.ismodule(value):
            found[name] = {
                each: signature(function)
                for each, function in inspect.getmembers(value, inspect.isfunction)
                if function.__module__ == value.__name__ and not each.startswith("_")
            }
        else:
            found[name] = own_members(type(value))
    return found


def accessors() -> dict[str, Any]:
    """``.llm`` on frames and series of pandas and Dask."""
    frame = pd.DataFrame({"text": ["a"]})
    lazy = dask.dataframe.from_pandas(frame, npartitions=1)
    owners = {
        "pandas.DataFrame.llm": frame.llm,
        "pandas.Series.llm": frame.text.llm,
        "dask.DataFrame.llm": lazy.llm,
        "dask.Series.llm": lazy.text.llm,
    }
    return {name: own_members(type(owner)) for name, owner in owners.items()}


def magics() -> dict[str, Any]:
    """The magics, their flags with their choices, and the subcommands with their usage."""
    from llm_magics.notebook import commands
    from llm_magics.notebook import parsers as options

    parsers = {
        "%%llm": options.llm_cell_parser(),
        "%embed": options.embed_parser(),
        "%%embed": options.embed_parser("%%embed"),
        "%llm bench": options.bench_parser(),
        "%llm compare": options.compare_parser(),
        "%llm gate": options.gate_parser(),
    }
    flags = {
        magic: {
            "/".join(action.option_strings) or action.dest: [
                action.nargs, action.metavar, action.choices and list(action.choices),
                action.default,
            ]
            for action in parser._actions
        }
        for magic, parser in parsers.items()
    }  # fmt: skip
    return {"flags": flags, "subcommands": dict(sorted(commands.USAGE.items()))}


def settings() -> dict[str, Any]:
    """Every setting with its type and default, and those of each provider."""
    from llm_magics.settings.schema import Settings

    found: dict[str, Any] = {"": _fields(Settings)}
    for name in providers.built_in_providers():
        found[f"providers.{name}"] = _fields(providers.provider_type(name).config_type)
    found["address parts"] = {
        name: [part.name for part in each.parts] for name, each in services().items() if each.parts
    }
    return found


def _fields(model: type[BaseModel]) -> dict[str, list[str]]:
    return {
        name: [
            _annotation(field),
            "" if field.default is PydanticUndefined else repr(field.default),
            *sorted(repr(each) for each in field.metadata if not hasattr(each, "func")),
        ]
        for name, field in model.model_fields.items()
    }


def environment_variables() -> list[str]:
    """All names of environment variables that stand in the code and in the file of services."""
    found = {"LLM_MAGICS_<SETTING>"}
    found |= {variable for each in services().values() for variable in each.variables}
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text("utf-8")
        if _VARIABLE.search(source) is None:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} if _VARIABLE.fullmatch(node.value) else set()
    return sorted(found)


def error_classes() -> dict[str, list[str]]:
    """Each class of ``llm_magics.errors`` with its bases and its constructor."""
    return {
        name: [
            *(b.__name__ for b in kind.__mro__[1:] if issubclass(b, BaseException)),
            signature(kind),
        ]
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if _is_ours(kind) and issubclass(kind, BaseException)
    }


def plugins() -> dict[str, Any]:
    """What a provider in another package may rely on, and the group it registers under."""
    from llm_magics.providers import base

    return {
        "group": providers._GROUP,
        "providers": providers.built_in_providers(),
        "services": providers.service_names(),
        "registered": sorted(each.name for each in entry_points(group=providers._GROUP)),
        "names": sorted(providers.__all__),
        "provider": own_members(base.BaseModelProvider),
        "config": own_members(base.ProviderConfig),
    }


def columns(folder: Path) -> dict[str, Any]:
    """The columns of every table that a user gets, made with the provider ``echo``."""
    lm.config.model = lm.config.embedding_model = "echo/echo"
    lm.config.vectors = folder / "vectors"
    lm.config.history = folder / "history.sqlite"
    frame = pd.DataFrame({"text": ["a blue whale", "a red fox", "a red dog"]})
    embedded = frame.copy().llm.embed("text")
    schema, fits = "animal, legs int", '{"animal": "{{ text }}", "legs": 4}'
    runs = lm.bench(models=["echo/echo", "echo/lorem"], prompts=["a"], repeat=3, warmup=0)
    scored = lm.compare(
        models=["echo/echo", "echo/lorem"], prompts=["a", "b", "c"], expected=["a", "b", "c"],
        score="exact",
    )  # fmt: skip
    tables = {
        "lm.models": lm.models("echo"),
        "lm.jobs": lm.jobs(),
        "df.llm.embed": embedded,
        "df.llm.prompt": frame.copy().llm.prompt("{{ text }}"),
        "df.llm.prompt(schema=…)": frame.copy().llm.prompt(fits, schema=schema),
        "df.llm.nearest": embedded.llm.nearest("fox", k=2),
        "df.llm.dedupe": embedded.llm.dedupe(),
        "lm.prompt": lm.prompt(frame, "{{ text }}"),
        "lm.prompt(schema=…)": lm.prompt(frame, fits, schema=schema),
        "lm.nearest": lm.nearest(embedded.vector, "fox", k=2),
        "lm.dedupe": lm.dedupe(embedded.vector),
        "lm.bench": runs,
        "lm.bench.summary": runs.summary(),
        "lm.bench.differences": runs.differences(),
        "lm.compare": scored,
        "lm.compare.summary": scored.summary(),
        "lm.runs": lm.runs(),
        "lm.history": lm.history(),
    }
    found = {name: described(table) for name, table in tables.items()}
    InteractiveShell.clear_instance()
    in_memory = Config({"HistoryManager": {"hist_file": ":memory:"}})
    shell = InteractiveShell.instance(config=in_memory)
    shell.run_line_magic("load_ext", "llm_magics")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            shell.run_cell_magic("llm", "--thread", "hello")
            for line in (
                "providers",
                "health",
                "runs",
                "cost",
                "cost week",
                "cost by month",
                "cost by model",
                "threads",
                "config",
                "models echo",
            ):
                found[f"%llm {line}"] = described(shell.run_line_magic("llm", line))
    finally:
        shell.run_line_magic("unload_ext", "llm_magics")
        shell.history_manager.end_session()
        InteractiveShell.clear_instance()
    return found


def described(table: Any) -> Any:
    """Return the names and types of a table's columns and index, or the type of what it is."""
    if isinstance(table, pd.Series):
        return [table.name, _dtype(table.dtype)]
    table = getattr(table, "frame", table)
    if not isinstance(table, pd.DataFrame):
        return type(table).__name__
    index = [f"[{name}]" for name in table.index.names if name]
    return [*index, *(f"{name}: {_dtype(dtype)}" for name, dtype in table.dtypes.items())]


def _dtype(dtype: Any) -> str:
    return "object" if str(dtype) == "str" else str(dtype)  # text, before and since pandas 3


def formats(folder: Path) -> dict[str, Any]:
    """The files that are written: recordings, caches, vectors, and what is left in a notebook."""
    from llm_magics.runtime.session import session

    recording, texts = folder / "recording.jsonl", ["a", "b"]
    lm.config.record, lm.config.vectors = recording, folder / "store"
    lm.config.cache, lm.config.cache_dir = True, folder / "cache"
    lm.ask("hello", model="echo/echo", max_tokens=50)
    frame = pd.DataFrame({"text": texts}).llm.embed("text", model="echo/echo")
    lm.config.reset()
    lines = recording.read_text("utf-8").splitlines()
    with contextlib.closing(sqlite3.connect(session.answer_cache.path)) as opened:
        tables = [sql for (sql,) in opened.execute("SELECT sql FROM sqlite_master ORDER BY name")]
        version = opened.execute("PRAGMA user_version").fetchone()[0]
    session.answer_cache.close()
    written = sorted(
        re.sub(r"[0-9a-f]{16,}", "<id>", str(path.relative_to(folder / "store")))
        for path in (folder / "store").rglob("*")
    )
    return {
        "recording": [shape(json.loads(line)) for line in lines],
        "cache": {"path": session.answer_cache.path.name, "version": version, "tables": tables},
        "vectors": written,
        "attrs": shape({k: v for k, v in frame.attrs.items() if isinstance(k, str)}),
    }


def shape(value: Any) -> Any:
    """Return the keys and types of a JSON value, without its contents."""
    if isinstance(value, Mapping):
        return {key: shape(each) for key, each in sorted(value.items())}
    if isinstance(value, list | tuple):
        kinds: list[Any] = []
        for each in map(shape, value):
            kinds += [] if each in kinds else [each]
        return kinds
    return type(value).__name__


def values() -> dict[str, Any]:
    """The fields of what calls return."""
    from llm_magics import types

    return {
        name: [field.name for field in dataclasses.fields(kind)]
        if dataclasses.is_dataclass(kind)
        else sorted(own_members(kind))
        for name, kind in inspect.getmembers(types, inspect.isclass)
        if name in types.__all__
    }


# Each part of the surface, and the function that finds it; files it writes are in a folder.
SECTIONS: dict[str, Callable[[Path], Any]] = {
    "python": lambda folder: python_names(),
    "accessors": lambda folder: accessors(),
    "magics": lambda folder: magics(),
    "settings": lambda folder: settings(),
    "environment": lambda folder: environment_variables(),
    "errors": lambda folder: error_classes(),
    "plugins": lambda folder: plugins(),
    "values": lambda folder: values(),
    "columns": columns,
    "formats": formats,
}


def as_json(value: Any) -> Any:
    """Return ``value`` as it is after a way through JSON."""
    return json.loads(json.dumps(value, default=str))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        found = {section: find(Path(name)) for section, find in SECTIONS.items()}
    sys.stdout.write(json.dumps(found, indent=1, default=str, ensure_ascii=False) + "\n")
