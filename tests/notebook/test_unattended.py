"""Where nobody watches: papermill, captured output, plain IPython; each shows an answer once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.support.kernels import Kernel
from tests.support.nested import nbval, plain_environment

pytestmark = pytest.mark.kernel

CELLS = [
    "%load_ext llm_magics",
    'who = "you"',
    "%%llm echo/echo -o ans\nhello **{{ who }}**\n\n```python\nx = 1\n```",
    "print(ans.text.splitlines()[0])",
    "%embed [who, 'b'] --model echo/echo -o v",
    "%llm pick",
]


def notebook(folder: Path) -> Path:
    """A notebook of `CELLS`, whose second cell holds papermill's parameters."""
    path = folder / "in.ipynb"
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def test_papermill_runs_it_and_nbval_agrees(tmp_path: Path) -> None:
    """With a parameter of its own; what it leaves is what an unattended run compares with."""
    given, made = notebook(tmp_path), tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(given), str(made), "-p", "who", "world"]
    done = subprocess.run(
        [*command, "--no-progress-bar"],
        cwd=tmp_path,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    left = nbformat.read(made, as_version=4)
    answer = next(cell for cell in left.cells if cell.source.startswith("%%llm"))
    (shown,) = answer.outputs
    assert "<strong>world</strong>" in shown.data["text/html"]
    assert shown.metadata["llm_magics"]["model"] == "echo/echo"
    assert "7 passed" in nbval(made, "--nbval")


def test_a_failing_prompt_fails_papermill(tmp_path: Path) -> None:
    """With the two lines of the error, and the cells before it kept."""
    given, made = notebook(tmp_path), tmp_path / "out.ipynb"
    book = nbformat.read(given, as_version=4)
    book.cells[3].source = "%%llm echo/ecko\nhi"
    nbformat.write(book, given)
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(given), str(made), "--no-progress-bar"],
        cwd=tmp_path,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Did you mean echo?" in done.stderr
    assert nbformat.read(made, as_version=4).cells[3].outputs


def test_captured_output_is_one_output(watched_kernel: Kernel) -> None:
    """``%%capture`` takes each answer once, whole, though somebody watches the notebook."""
    ran = watched_kernel.run("%%capture cap\n%llm config model echo/lorem\n%llm ask hi")
    assert ran.outputs == []
    assert watched_kernel.value("len(cap.outputs)") == 1
    assert watched_kernel.value("'text/html' in cap.outputs[0].data") is True


def test_plain_ipython_prints_the_answer_and_the_table(tmp_path: Path) -> None:
    """As text, once, and no widget."""
    script = tmp_path / "script.ipy"
    script.write_text(
        "\n".join([CELLS[0], "%llm config model echo/echo", "%llm ask hello **you**", "%llm pick"])
    )
    command = [sys.executable, "-m", "IPython", "--no-banner", "--quick", str(script)]
    done = subprocess.run(
        command, cwd=tmp_path, env=plain_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.count("hello **you**") == 1
    assert "chat       echo/echo" in done.stdout
    assert "VBox" not in done.stdout
