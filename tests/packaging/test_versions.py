"""The oldest versions that are promised, and every Python that can be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.environments import checkout, interpreters, made, ran, said, uv
from tests.packaging.test_extras import USES
from tests.packaging.test_wheel import ALONE

# They run models, and find their weights in the user's cache.
pytestmark = pytest.mark.weights

# Extras without a browser or a GPU's framework; those behind them come along as new as they are.
LIGHT = ("local", "prices", "plots", "bench", "dask", "index", "keyring", "repair")
TOOLS = ("hypothesis", "ipykernel", "nbclient", "nbformat", "nbval", "pip", "polars", "psutil")
RUNNER = ("pytest", "pytest-timeout", "pytest-xdist")
# Where other packages are leaned on: their oldest versions must bear it.
LEANING = (
    "benchmarking/test_bench_pictures",
    "benchmarking/test_statistics",
    "dataframes/test_dask",
    "dataframes/test_frames",
    "dataframes/test_plots",
    "dataframes/test_prompting_columns",
    "dataframes/test_search",
    "http/test_http",
    "http/test_transport",
    "notebook/test_cell_outputs",
    "notebook/test_magics",
    "notebook/test_command_lines",
    "notebook/test_compare_cell",
    "notebook/test_display",
    "notebook/test_markdown",
    "notebook/test_picker",
    "providers/test_capabilities",
    "providers/test_local",
    "runtime/test_parsing",
    "runtime/test_templates",
    "runtime/test_vector_store",
    "settings/test_config",
    "test_api",
    "test_compact_table",
    "test_schemas",
    "test_tools",
    "test_user_code",
)


def oldest(folder: Path, *extras: str) -> Path:
    """An environment with the lowest version of each requirement that pyproject.toml allows."""
    version, interpreter = next(iter(interpreters().items()))
    if version not in ("3.11", "3.12"):
        pytest.skip(f"the oldest numpy and pandas have no wheels for Python {version}")
    python = made(folder, python=interpreter)
    wanted = [word for extra in extras for word in ("--extra", extra)]
    lowest = ("--resolution", "lowest-direct", "-r", "pyproject.toml", *wanted)
    uv("pip", "install", "--python", python, *lowest)
    return python


def test_the_oldest_versions_alone(wheel: Path, tmp_path: Path) -> None:
    """Without extras nothing else raises a bound: each of ours is the true one."""
    python = oldest(tmp_path / "env")
    uv("pip", "install", "--python", python, "--no-deps", wheel)
    said(python, ALONE, tmp_path)


def test_the_oldest_versions(wheel: Path, tmp_path: Path) -> None:
    """The tests pass on the lowest versions; what these warn of is theirs."""
    python = oldest(tmp_path / "env", *LIGHT)
    uv("pip", "install", "--python", python, "--no-deps", wheel)
    uv("pip", "install", "--python", python, *RUNNER, *TOOLS)
    folder = checkout(tmp_path, "tests", "pyproject.toml", "notebooks", "README.md")
    chosen = [f"tests/{name}.py" for name in LEANING]
    options = ("-n", "2", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default")
    told = ran([python, "-m", "pytest", *options, "--timeout=120", *chosen], folder)
    assert " passed" in told


@pytest.mark.parametrize("version", interpreters())
def test_every_python(wheel: Path, tmp_path: Path, version: str) -> None:
    """The wheel works, alone and with models on this machine."""
    python = made(
        tmp_path / "env",
        f"jupyter-llm-magics[local,bench,dask] @ {wheel.as_uri()}",
        python=interpreters()[version],
    )
    for code in (ALONE.partition("try:")[0], USES["local"], USES["bench"], USES["dask"]):
        said(python, code, tmp_path, XDG_CONFIG_HOME=str(tmp_path / "config"))


def test_nested_loops_on_the_newest_python(wheel: Path, tmp_path: Path) -> None:
    """``loop: nested`` works where asyncio has changed since the oldest Python."""
    found = interpreters()
    newest = max(found, key=lambda version: tuple(map(int, version.split("."))))
    python = made(tmp_path / "env", wheel, *RUNNER, *TOOLS, python=found[newest])
    folder = checkout(tmp_path, "tests", "pyproject.toml")
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    assert "4 passed" in ran([*command, "tests/notebook/test_nested_loop.py"], folder)
