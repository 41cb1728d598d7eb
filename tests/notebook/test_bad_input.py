"""What goes wrong in a cell ends it as failed, in two to four lines, and loses nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from llm_magics.settings.config import cache_folder
from tests.support.kernels import Kernel, Result
from tests.support.nested import nbval

pytestmark = pytest.mark.kernel

CELLS = {
    "unknown model": ("%%llm local/smolm2-135m\nhi", "ModelNotFoundError", "smollm2-135m"),
    "unknown provider": ("%%llm locl/smollm2-135m\nhi", "ConfigurationError", "local"),
    "unknown flag": ("%%llm --temprature 1\nhi", "UsageError", "--temperature"),
    "unknown subcommand": ("%llm modles", "UsageError", "models"),
    "undefined name": ("%%llm\nAbout {{ topik }}.", "TemplateError", "topic"),
    "empty cell": ("%%llm", "UsageError", "below %%llm"),
    "blank cell": ("%%llm\n\n  \n", "UsageError", "below %%llm"),
    "prompt too long": ("%%llm\n{{ 'hi ' * 9000 }}", "ContextLengthError", "Shorten"),
    "unknown column": ("%embed df.txt --into v", "UsageError", "df"),
}


@pytest.fixture(scope="module")
def shared_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for all mistakes: each must leave it as good as before."""
    with Kernel(tmp_path_factory.mktemp("kernel")) as kernel:
        kernel.run("%load_ext llm_magics")
        kernel.run("topic = 'the sea'\nans = 'kept'")
        yield kernel


def assert_told_shortly(result: Result, error: str, hint: str) -> None:
    """Failed, in two to four lines, the last of which says what to do; nothing else shown."""
    assert result.status == "error"
    lines = result.error.splitlines()
    assert 2 <= len(lines) <= 4, result.error
    assert lines[0].startswith(f"{error}: ")
    assert lines[-1].startswith("→ ")
    assert hint in result.error
    assert [output["kind"] for output in result.outputs] == ["error"]


@pytest.mark.parametrize("name", CELLS)
def test_a_mistake_ends_the_cell_and_nothing_else(shared_kernel: Kernel, name: str) -> None:
    """The error is told shortly, an earlier answer is kept, and the next cell works."""
    cell, error, hint = CELLS[name]
    assert_told_shortly(shared_kernel.run(cell), error, hint)
    assert shared_kernel.value("ans") == "kept"
    assert shared_kernel.run("%%llm echo/echo\nstill here").text == "still here"


@pytest.mark.parametrize(
    ("text", "hint"), [("modle: x", "model"), ("temperature: hot", "number"), ("a: [", "Fix")]
)
def test_a_wrong_settings_file(tmp_path: Path, text: str, hint: str) -> None:
    """The cell that first needs a setting fails, naming the file; mended, it works."""
    file = tmp_path / "llm_magics.yaml"
    file.write_text(text)
    with Kernel(tmp_path) as kernel:
        assert kernel.run("%load_ext llm_magics").status == "ok"
        result = kernel.run("%%llm echo/echo\nhi")
        assert_told_shortly(result, "ConfigurationError", hint)
        assert str(file) in result.error
        file.write_text("temperature: 0")
        assert kernel.run("%%llm echo/echo\nhi").text == "hi"


def test_no_network_on_first_use(tmp_path: Path) -> None:
    """The cell says that nothing could be fetched; echo still works."""
    offline = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "LLM_MAGICS_CACHE_DIR": str(tmp_path / "cache"),
    }
    with Kernel(tmp_path, **offline) as kernel:
        kernel.run("%load_ext llm_magics")
        assert_told_shortly(kernel.run("%%llm\nhi"), "WeightsError", "network")
        assert kernel.run("%%llm echo/echo\nhi").text == "hi"
        kernel.run("import llm_magics as lm")
        assert kernel.value("lm.runs().finish_reason.tolist()") == ["error", "stop"]


def test_damaged_weights(tmp_path: Path) -> None:
    """The cell says so and sets them aside; run again it fetches them anew and answers."""
    weights = tmp_path / "cache" / "weights"
    weights.mkdir(parents=True)
    shutil.copy(cache_folder() / "weights" / "smollm2-135m.gguf", weights)
    with (weights / "smollm2-135m.gguf").open("r+b") as file:
        file.truncate(50_000_000)
    with Kernel(tmp_path, LLM_MAGICS_CACHE_DIR=str(tmp_path / "cache")) as kernel:
        kernel.run("%load_ext llm_magics")
        result = kernel.run("%%llm --max-tokens 3\nhi")
        assert_told_shortly(result, "WeightsError", "Run the cell again")
        again = kernel.run("%%llm --max-tokens 3\nhi")
        assert again.status == "ok", again.error


def test_nbclient_and_nbval_see_a_failed_cell(tmp_path: Path) -> None:
    """A notebook with a mistake in it does not pass as run."""
    cells = [nbformat.v4.new_code_cell("%load_ext llm_magics", execution_count=1)]
    for count, (cell, *_) in enumerate(CELLS.values(), start=2):
        cells.append(nbformat.v4.new_code_cell(cell, execution_count=count))
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, tmp_path / "mistakes.ipynb")
    said = nbval(tmp_path / "mistakes.ipynb", "--nbval-lax")
    assert f"{len(CELLS)} failed, 1 passed" in said, said[-2000:]
    NotebookClient(notebook, allow_errors=True).execute(cwd=str(tmp_path))
    failed = [cell for cell in notebook.cells if cell.outputs]
    assert len(failed) == len(CELLS)
    assert all(cell.outputs[-1].output_type == "error" for cell in failed)
