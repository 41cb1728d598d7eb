"""Importing costs next to nothing, and rooms import only what stands below them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import llm_magics
from llm_magics import providers
from tests.support.prepared_python import run_prepared

PACKAGE = Path(llm_magics.__file__).parent
ROOT = Path(__file__).parents[1]
HEAVY = {
    "pandas",
    "numpy",
    "ipywidgets",
    "anywidget",
    "httpx",
    "jinja2",
    "pydantic",
    "pydantic_core",
    "markdown_it",
    "yaml",
}

# From the top to the foundations: a module imports only from rows below its own, or from the
# same entry. The longest entry that a module's name begins with is the one that counts.
ORDER = [
    ["notebook.extension", "__main__", "pytest_plugin"],
    ["notebook.magics", "notebook.completion"],
    ["notebook.commands"],
    ["notebook.prompt_cell"],
    ["notebook.compare_cell"],
    ["notebook.embed_cell", "notebook.tool_calls", "notebook.picker"],
    ["notebook.display"],
    [
        "notebook.parsers",
        "notebook.frontend",
        "notebook.provenance",
        "notebook.markdown",
    ],
    ["notebook"],
    ["evaluations"],
    ["benchmarking.bench", "benchmarking.compare"],
    ["benchmarking.job_run"],
    ["benchmarking.measurements"],
    ["benchmarking.workload", "benchmarking.evaluation"],
    [
        "benchmarking.plots",
        "benchmarking.report",
        "benchmarking.tool_metrics",
        "benchmarking.measure",
    ],
    ["benchmarking.scorers"],
    ["benchmarking.judge"],
    ["benchmarking.analysis", "benchmarking.contenders", "benchmarking.latencies"],
    ["benchmarking"],
    ["dataframes.accessor"],
    ["dataframes.operators.methods"],
    ["dataframes.series_accessor"],
    ["dataframes.map"],
    ["dataframes.map_widget"],
    ["dataframes.dask", "dataframes.plot"],
    [
        "dataframes.operators.share",
        "dataframes.operators.join",
        "dataframes.operators.topk",
        "dataframes.operators.aggregate",
    ],
    ["dataframes.operators"],
    ["dataframes.search"],
    ["dataframes.prompting"],
    ["dataframes.answer_columns"],
    ["dataframes.classify", "dataframes.confidence"],
    [
        "dataframes.embed",
        "dataframes.prompt_run",
        "dataframes.projection",
    ],
    ["dataframes.row_texts"],
    ["dataframes.row_prompts"],
    ["dataframes.batch_job", "dataframes.embedding_run"],
    ["dataframes.reports", "dataframes.vector_display"],
    ["dataframes.vectors"],
    [
        "dataframes.row_attachments",
        "dataframes.rows",
        "dataframes.vector_plot",
        "dataframes.map_selection",
    ],
    ["dataframes.arrow"],
    ["dataframes"],
    ["past_runs"],
    ["api"],
    ["mcp"],
    ["runtime.confirm"],
    ["runtime.jobs.prompt_jobs"],
    ["runtime.batch", "runtime.jobs"],
    ["runtime.structured", "runtime.media_calls"],
    ["runtime.chat", "runtime.embedding"],
    ["runtime.answer_lookup", "runtime.attempts", "runtime.models"],
    ["runtime.delivery", "runtime.doctor"],
    ["runtime.routing"],
    ["runtime.session"],
    ["runtime.history"],
    ["runtime.telemetry"],
    ["runtime.model_list_cache", "runtime.provider_pool", "runtime.prompts"],
    ["runtime.response"],
    ["runtime.pricing"],
    [
        "runtime.storage",
        "runtime.policies",
        "runtime.parsing",
        "runtime.answer_bounds",
        "runtime.search_fees",
        "runtime.tier_prices",
    ],
    ["runtime"],
    ["providers"],
    ["_async"],
    ["wire"],
    ["settings", "sandbox"],
    ["tools"],
    ["schemas", "types"],
    ["parameters"],
    ["documents"],
    ["attachments", "citations", "http", "usage"],
    ["_util"],
    ["errors"],
    ["secrets"],
    ["host"],
    ["_util.text"],
]
RANK = {entry: -row for row, entries in enumerate(ORDER) for entry in entries}
# They import on first use what is above them.
OUTSIDE = {"", "_util.import_hooks"}


def last_line_of(script: str, *arguments: str) -> Any:
    """What a script prints at its end, in a fresh Python."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@cache
def loaded_by(code: str) -> set[str]:
    """The modules in memory after ``code`` has run in a fresh Python."""
    return set(last_line_of(f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"))


# Each provider is imported in a fork of a fresh Python that has imported what all need.
EACH_PROVIDER = """
import json, os, sys, tempfile
import llm_magics.http, llm_magics.providers.base
from llm_magics.providers import provider_type

loaded = {}
for name in sys.argv[1:]:
    with tempfile.TemporaryFile("w+") as file:
        if (child := os.fork()) == 0:
            provider_type(name)
            json.dump(list(sys.modules), file)
            file.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, name
        file.seek(0)
        loaded[name] = json.load(file)
print(json.dumps(loaded))
"""


LOAD_EXT = """
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_line_magic("load_ext", "llm_magics")
"""


@pytest.mark.parametrize("code", ["import llm_magics", LOAD_EXT], ids=["import", "load_ext"])
def test_loading_imports_nothing_heavy(code: str) -> None:
    """Neither pandas nor httpx, jinja2, ipywidgets, pydantic, nor any provider."""
    loaded = loaded_by(code)
    before = loaded_by("from IPython.core.interactiveshell import InteractiveShell")
    assert not (loaded - before) & HEAVY
    assert not {name for name in loaded if name.startswith("llm_magics.providers.")}


def test_a_provider_is_imported_when_used_and_no_other() -> None:
    """Nor anything of what only another one needs."""
    homes = {name: home.partition(":")[0] for name, home in providers._BUILT_IN.items()}
    loaded_with = last_line_of(EACH_PROVIDER, *homes)
    for name, own in homes.items():
        loaded = set(loaded_with[name])
        others = set(homes.values()) - {own}
        # huggingface.local stands in the package of huggingface, which comes with it.
        others -= {"llm_magics.providers.huggingface"} if name.endswith("-local") else set()
        assert own in loaded
        assert not others & loaded, name
        packages = {"torch", "transformers", "huggingface_hub", "openai", "anthropic", "google"}
        assert not packages & loaded, name


def name_of(path: Path) -> str:
    """Return the name of a module of the package without that of the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def import_statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Return the import statements of a module, also those inside functions."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def imports_of(path: Path) -> set[str]:
    """Return the modules of the package that a module imports, also inside functions."""
    found = set()
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = (name.partition(".")[2] for name in found if name.startswith("llm_magics."))
    return {name if name in MODULES else name.rpartition(".")[0] for name in ours}


def entry_of(module: str) -> str:
    """Return the entry of `ORDER` that a module belongs to."""
    parts = module.split(".")
    prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next(prefix for prefix in prefixes if prefix in RANK)


def test_imports_go_one_way() -> None:
    """A module imports from the rows below it and from its own entry."""
    against = [
        f"{module} imports {imported}"
        for module in sorted(set(MODULES) - OUTSIDE)
        for imported in sorted(imports_of(MODULES[module]) - {""})
        if not is_below(entry_of(imported), entry_of(module))
    ]
    assert not against


def is_below(imported: str, entry: str) -> bool:
    """Whether ``entry`` may import the entry ``imported``."""
    return imported == entry or RANK[imported] < RANK[entry]


def test_the_order_names_modules_that_exist() -> None:
    """An entry of a module that was merged or renamed is removed."""
    packages = {module.rpartition(".")[0] for module in MODULES}
    assert set(RANK) <= {*MODULES, *packages}


def test_no_policy_imports_another() -> None:
    """Each is independent; what uses several of them is above."""
    for module, path in MODULES.items():
        if module.startswith("runtime.policies."):
            assert not {each for each in imports_of(path) if "policies" in each}, module


def test_httpx_is_imported_in_one_module() -> None:
    """So that its successor can take its place there; httpcore in the two that extend it."""

    def importing(name: str) -> list[str]:
        return sorted(
            str(path.relative_to(PACKAGE))
            for path in PACKAGE.rglob("*.py")
            if name in _imported_by(path)
        )

    assert importing("httpx") == ["http/client.py"]
    assert importing("httpcore") == ["http/connections.py", "http/timing.py"]


def _imported_by(path: Path) -> set[str]:
    return {name for node in import_statements(path) for name in _imported(node)}


def test_wire_formats_are_pure() -> None:
    """They read no socket, file or clock."""
    for path in (PACKAGE / "wire").glob("*.py"):
        for node in import_statements(path):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not {"asyncio", "socket", "time", "os", "pathlib"} & set(names), path


def test_all_that_is_promised_is_there() -> None:
    """``__all__`` is sorted, complete and importable."""
    assert llm_magics.__all__ == sorted(llm_magics.__all__)
    for name in llm_magics.__all__:
        assert getattr(llm_magics, name)
    assert set(llm_magics._HOMES) <= set(dir(llm_magics))
    with pytest.raises(AttributeError):
        llm_magics.no_such_name  # noqa: B018


@pytest.mark.parametrize("home", sorted(set(llm_magics._HOMES.values())))
def test_each_name_can_be_the_first_that_is_used(home: str) -> None:
    """In a Python in which nothing else of the package is imported yet, without a warning."""
    # The names of one module are the same to the import system, and the module comes with any.
    names = [f"lm.{name}" for name, each in llm_magics._HOMES.items() if each == home]
    uses = ", ".join(names)
    code = f"import llm_magics as lm\n{uses}\nimport pandas as pd\npd.DataFrame().llm"
    run_prepared(code, strict=True)


def test_every_test_says_what_it_specifies() -> None:
    """One docstring line on each test."""
    for path in Path(__file__).parent.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_what_is_imported_is_declared() -> None:
    """Every package that the code imports is a requirement, or belongs to an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]
    declared = {re.split(r"[^\w.-]", each)[0].lower().replace("_", "-") for each in wanted}
    # They come with what is declared, such as pydantic's engine; umap is a choice.
    declared |= {"pydantic-core", "tokenizers", "umap-learn", "umap", "distributed"}
    declared |= {"threadpoolctl"}  # of scikit-learn
    known = packages_distributions()
    for path in PACKAGE.rglob("*.py"):
        if path.name == "hosted_secrets.py":
            continue  # it imports packages of the images of Colab, Kaggle and Databricks
        for node in import_statements(path):
            for name in _imported(node):
                owners = {each.lower().replace("_", "-") for each in known.get(name, [name])}
                assert owners & declared, f"{path.name} imports {name}"


def _imported(node: ast.AST) -> list[str]:
    """The packages that a statement imports, but for ours and Python's own."""
    if isinstance(node, ast.Import):
        names = [each.name for each in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module or ""]
    else:
        return []
    tops = {name.partition(".")[0] for name in names}
    return sorted(tops - sys.stdlib_module_names - {"llm_magics"})
