"""The built wheel: what is in it, and that it works with nothing beside it."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

import llm_magics
from tests.packaging.environments import ROOT, made, packages, said

# Installed packages, dependencies of dependencies included; COMPARISON states the number.
MOST_PACKAGES = 60
COMPARISON = ROOT / "docs" / "explanation" / "comparison.md"

ALONE = """
import sys
import llm_magics as lm
heavy = {"pandas", "ipywidgets", "httpx", "jinja2", "IPython"} & set(sys.modules)
assert not heavy, heavy
assert lm.ask("Hello, {{ name }}.", model="echo/echo", variables={"name": "you"}).text == "Hello, you."
assert lm.embed(["a", "b"], model="echo/echo").shape == (2, 64)
import pandas as pd
frame = pd.DataFrame({"text": ["a", None]}).llm.embed("text", model="echo/echo")
assert frame.llm.report.counts["ok"] == 1
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "llm_magics")
shell.run_cell_magic("llm", "echo/lorem --max-tokens 3 -o ans", "Anything")
assert shell.user_ns["ans"].usage.output_tokens == 3
try:
    lm.ask("Hello", model="local/smollm2-135m")
except lm.errors.ConfigurationError as error:
    print(error.hint)
"""


def test_what_is_in_the_wheel(wheel: Path) -> None:
    """The package with its types and tables, its licence, and nothing of the tests."""
    names = zipfile.ZipFile(wheel).namelist()
    ours = {
        name
        for name in names
        if not name.startswith(f"jupyter_llm_magics-{llm_magics.__version__}")
    }
    sources = {
        f"llm_magics/{path.relative_to(ROOT / 'llm_magics').as_posix()}"
        for path in (ROOT / "llm_magics").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours == sources
    assert "llm_magics/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_what_is_in_the_source(built: Path) -> None:
    """What is needed to build it and to test it."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "tests/conftest.py"} <= names
    assert "notebooks/data/reviews.csv" in names


def test_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """With its own requirements only: it asks, embeds, and says how to have a model here."""
    python = made(tmp_path / "env", wheel)
    assert "pip install xllamacpp" in said(python, ALONE, tmp_path)
    count = len(packages(python, tmp_path))
    assert count <= MOST_PACKAGES
    (stated,) = re.findall(r"Installed packages[^|]*\| (\d+),", COMPARISON.read_text("utf-8"))
    assert abs(int(stated) - count) <= 3, count
