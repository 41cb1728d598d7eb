"""
Language models in Jupyter notebooks.

    %load_ext llm_magics

    import llm_magics as lm
    lm.ask("…"), lm.stream("…"), lm.embed([…]), lm.runs(), lm.models(), lm.jobs(), lm.config
    lm.history(), lm.response(id), lm.rerun(id)
    lm.prompt(df, "…"), lm.extract, lm.classify, lm.nearest, lm.dedupe, lm.plot
    lm.filter, lm.share, lm.join, lm.topk, lm.aggregate
    lm.evaluate(task, lm.EvaluationSet("…"), models=[…], score="exact"), lm.list_evaluations()

Functions that send requests also have an asynchronous form: ``await lm.aask("…")``.

The import is fast: the module behind each name is imported when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magics.api import aask, amodels, aruns, ask, astream, models, runs, stream
    from llm_magics.benchmarking import scorers
    from llm_magics.benchmarking.bench import abench, bench
    from llm_magics.benchmarking.compare import acompare, compare
    from llm_magics.benchmarking.measurements import Measurements
    from llm_magics.dataframes.embed import aembed, embed
    from llm_magics.dataframes.operators.aggregate import aggregate
    from llm_magics.dataframes.operators.filter import filter
    from llm_magics.dataframes.operators.join import join
    from llm_magics.dataframes.operators.share import share
    from llm_magics.dataframes.operators.topk import topk
    from llm_magics.dataframes.plot import plot
    from llm_magics.dataframes.prompting import classify, extract, prompt
    from llm_magics.dataframes.search import dedupe, index, nearest
    from llm_magics.dataframes.vectors import matrix
    from llm_magics.evaluations.agreement import agreement
    from llm_magics.evaluations.datasets import EvaluationSet
    from llm_magics.evaluations.evaluate import aevaluate, evaluate
    from llm_magics.evaluations.labelling import label
    from llm_magics.evaluations.results import EvaluationResults
    from llm_magics.evaluations.stored import list_evaluations, load_evaluation
    from llm_magics.parameters import ModelParameters
    from llm_magics.past_runs import history, rerun, response
    from llm_magics.runtime.jobs.table import ajobs, jobs
    from llm_magics.runtime.response import Response
    from llm_magics.settings.config import config
    from llm_magics.types import ChatMessage, ModelResponse, StreamChunk

__version__ = "0.1.0"

__all__ = [
    "ChatMessage",
    "EvaluationResults",
    "EvaluationSet",
    "Measurements",
    "ModelParameters",
    "ModelResponse",
    "Response",
    "StreamChunk",
    "aask",
    "abench",
    "acompare",
    "aembed",
    "aevaluate",
    "aggregate",
    "agreement",
    "ajobs",
    "amodels",
    "aruns",
    "ask",
    "astream",
    "bench",
    "classify",
    "compare",
    "config",
    "dedupe",
    "embed",
    "evaluate",
    "extract",
    "filter",
    "history",
    "index",
    "jobs",
    "join",
    "label",
    "list_evaluations",
    "load_evaluation",
    "load_ipython_extension",
    "matrix",
    "models",
    "nearest",
    "plot",
    "prompt",
    "rerun",
    "response",
    "runs",
    "scorers",
    "share",
    "stream",
    "topk",
    "unload_ipython_extension",
]

_HOMES = {
    "ChatMessage": "types",
    "EvaluationResults": "evaluations.results",
    "EvaluationSet": "evaluations.datasets",
    "Measurements": "benchmarking.measurements",
    "ModelParameters": "types",
    "ModelResponse": "types",
    "Response": "runtime.response",
    "StreamChunk": "types",
    "aask": "api",
    "abench": "benchmarking.bench",
    "acompare": "benchmarking.compare",
    "aembed": "dataframes.embed",
    "aevaluate": "evaluations.evaluate",
    "aggregate": "dataframes.operators.aggregate",
    "agreement": "evaluations.agreement",
    "ajobs": "runtime.jobs.table",
    "amodels": "api",
    "aruns": "api",
    "ask": "api",
    "astream": "api",
    "bench": "benchmarking.bench",
    "classify": "dataframes.prompting",
    "compare": "benchmarking.compare",
    "config": "settings.config",
    "dedupe": "dataframes.search",
    "embed": "dataframes.embed",
    "evaluate": "evaluations.evaluate",
    "extract": "dataframes.prompting",
    "filter": "dataframes.operators.filter",
    "history": "past_runs",
    "index": "dataframes.search",
    "jobs": "runtime.jobs.table",
    "join": "dataframes.operators.join",
    "label": "evaluations.labelling",
    "list_evaluations": "evaluations.stored",
    "load_evaluation": "evaluations.stored",
    "matrix": "dataframes.vectors",
    "models": "api",
    "nearest": "dataframes.search",
    "plot": "dataframes.plot",
    "prompt": "dataframes.prompting",
    "rerun": "past_runs",
    "response": "past_runs",
    "runs": "api",
    "scorers": "benchmarking.scorers",
    "share": "dataframes.operators.share",
    "stream": "api",
    "topk": "dataframes.operators.topk",
}


if not TYPE_CHECKING:  # so that type checkers report misspelled names

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            module = import_module(f"{__name__}.{_HOMES[name]}")
            return module if name == "scorers" else getattr(module, name)
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Load the extension, for ``%load_ext llm_magics``."""
    from llm_magics.notebook import extension

    extension.load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Unload the extension, for ``%unload_ext llm_magics``."""
    from llm_magics.notebook import extension

    extension.unload(shell)


def _register_accessor() -> None:
    """Add ``df.llm`` as soon as pandas (or Dask) and this package are imported, in any order."""
    from llm_magics._util.import_hooks import when_imported

    when_imported("pandas", "llm_magics.dataframes.accessor")
    when_imported("pandas", "llm_magics.notebook.frontend")
    when_imported("dask.dataframe", "llm_magics.dataframes.dask")


_register_accessor()
