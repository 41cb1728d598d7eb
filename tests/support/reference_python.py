"""The reference of the Python interface, made from signatures and docstrings."""

from __future__ import annotations

import inspect
from typing import Any

import dask.dataframe
import pandas as pd

import llm_magics as lm
from llm_magics import types
from llm_magics.benchmarking import judge
from llm_magics.evaluations.agreement_report import Agreement
from llm_magics.evaluations.labelling import Labelling
from tests.support.docstrings import description, signature

_FUNCTIONS = {
    "Prompting": ["ask", "stream"],
    "Embedding and search": ["embed", "nearest", "dedupe", "index", "matrix", "plot"],
    "Columns and lists": ["prompt", "extract", "classify"],
    "Operators over tables": ["filter", "share", "join", "topk", "aggregate"],
    "Comparing and measuring": ["compare", "bench"],
    "Evaluating": ["evaluate", "load_evaluation", "list_evaluations"],
    "People and judges": ["agreement", "label"],
    "Models, calls and jobs": ["models", "runs", "history", "response", "rerun", "jobs"],
}
# Members for other parts of the package.
_INTERNAL = {
    "credentials_here",
    "files",
    "for_provider",
    "set_here",
    "unwatch",
    "watch",
    "misfit",
    "of",
    "to_file",
    "named",
}
_ASYNC = {name: f"a{name}" for name in lm.__all__ if f"a{name}" in lm.__all__}


SCORER_MODULES = (lm.scorers.__name__, judge.__name__)


def python() -> list[str]:
    """Return the parts of the page."""
    parts = [
        "# Python interface",
        "```python\nimport llm_magics as lm\n```",
        (
            "Functions that have an asynchronous form name it. It takes the same arguments, and you "
            "`await` it (or iterate it with `async for`)."
        ),
    ]
    for heading, names in _FUNCTIONS.items():
        parts.append(f"## {heading}")
        for name in names:
            parts += _function(f"lm.{name}", getattr(lm, name), _ASYNC.get(name))
    frame = pd.DataFrame({"text": ["a"]})
    lazy = dask.dataframe.from_pandas(frame, npartitions=1)
    parts += [
        "## DataFrames",
        "Importing `llm_magics` adds `.llm` to the DataFrames and columns of pandas.",
    ]
    parts += _members("df.llm", type(frame.llm))
    parts += ["## Columns of a DataFrame", "The same functions for one column."]
    parts += _members("df.text.llm", type(frame.text.llm))
    parts += ["## Dask", "The same for Dask's DataFrames. Nothing is sent before `compute()`."]
    parts += _members("ddf.llm", type(lazy.llm))
    parts += ["## Response", description(lm.Response), *_members("answer", lm.Response)]
    parts += ["## Usage", description(types.Usage)]
    parts += ["## Measurements", description(lm.Measurements), *_members("runs", lm.Measurements)]
    for kind, owner in ((lm.EvaluationSet, "data"), (lm.EvaluationResults, "runs")):
        parts += [f"## {kind.__name__}", description(kind), *_members(owner, kind)]
    parts += ["## Agreement", description(Agreement), *_members("agreement", Agreement)]
    parts += ["## Labels", description(Labelling), *_members("labels", Labelling)]
    parts += [
        "## Scorers",
        "`from llm_magics import scorers`. Pass a scorer, or its name, as `score` to `lm.compare`.",
    ]
    for name, function in inspect.getmembers(lm.scorers, inspect.isfunction):
        if function.__module__ in SCORER_MODULES and not {name, name[:1]} & {*_INTERNAL, "_"}:
            parts += _function(f"scorers.{name}", function)
    parts += [
        "## Configuration",
        description(type(lm.config)),
        *_members("lm.config", type(lm.config)),
    ]
    return parts


def documented_names() -> set[str]:
    """Return the names of ``lm`` that have a place on the page."""
    functions = {name for names in _FUNCTIONS.values() for name in names}
    return functions | {_ASYNC[each] for each in functions if each in _ASYNC} | {
        "Response", "Measurements", "EvaluationSet", "EvaluationResults", "scorers", "config",
    }  # fmt: skip


def _function(name: str, function: Any, awaited: str | None = None) -> list[str]:
    parts = [
        f"### `{name}`",
        f"```python\n{signature(name, function)}\n```",
        description(function),
    ]
    return [*parts, f"Asynchronous form: `lm.{awaited}`."] if awaited else parts


def _members(owner: str, kind: type) -> list[str]:
    parts = []
    for name in sorted(vars_of(kind)):
        member = inspect.getattr_static(kind, name)
        if isinstance(member, property):
            parts += [f"### `{owner}.{name}`", description(member.fget)]
        elif inspect.isfunction(member):
            parts += _function(f"{owner}.{name}", member)
    return parts


def vars_of(kind: type) -> set[str]:
    """Return the public members that ``kind`` and its bases in this package define."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("llm_magics")]
    names = {name for base in ours for name in vars(base) if not name.startswith("_")}
    return names - _INTERNAL
