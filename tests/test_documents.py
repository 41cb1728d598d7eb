"""README, notebooks and CI say what is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
import yaml

import llm_magics
from llm_magics.engine.session import Session
from llm_magics.providers import get_available_providers
from llm_magics.providers.openai_like.quirks import PROFILES
from llm_magics.secrets import scrub
from llm_magics.settings.config import Config
from llm_magics.settings.schema import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def fenced(language: str) -> list[str]:
    """The README's blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_ci_runs_the_commands_of_the_readme() -> None:
    """Each command line of the README stands in the CI script; only the browser is left out."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    for block in fenced("bash"):
        for command in block.strip().splitlines():
            for part in command.split(" && "):
                if not part.startswith("jupyter lab"):
                    assert (
                        part.replace("pip install", "pip install -q") in script or part in script
                    )


def test_the_readmes_python_is_python() -> None:
    """What is no magic can be parsed, and every lm.name in it exists."""
    for block in fenced("python"):
        if not block.startswith("%"):
            ast.parse(block)
    for name in re.findall(r"\blm\.(\w+)", README):
        assert hasattr(llm_magics, name), name


def test_the_readmes_settings_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example file is accepted, and every provider in it can be made."""
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "GROQ_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    examples = fenced("yaml")
    assert len(examples) > 1
    for example in examples:
        settings = Settings.model_validate(yaml.safe_load(example))
        (tmp_path / "llm_magics.yaml").write_text(example)
        own = Session(Config(tmp_path, {}))
        for name in settings.providers:
            assert own.provider(name).name == name


def test_the_readme_names_every_profile() -> None:
    """Those whose manners are known."""
    for name in PROFILES:
        if name not in ("openai", "other"):
            assert f"`{name}`" in README


def test_the_readme_names_every_provider() -> None:
    """Each has a row in the table."""
    for name in get_available_providers():
        assert f"| `{name}` |" in README


def test_the_changelog_knows_this_version() -> None:
    """The newest heading is the version, or what is to come after it."""
    headings = re.findall(
        r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert headings
    assert {"Unreleased", llm_magics.__version__} & set(headings[:2])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_executed_and_clean(path: Path) -> None:
    """Run from top to bottom; no error, path, key, time stamp, or trace of progress in it."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = path.read_text("utf-8")
    assert scrub(text) == text
    assert "/root" not in text
    assert "/home" not in text
    for cell in code:
        assert "execution" not in cell.metadata
        for output in cell.outputs:
            assert output.output_type != "error"
            assert "<progress" not in str(output)


def test_binder_builds_what_the_notebook_needs() -> None:
    """The package with the embedded engine, and weights fetched by a script that stops at errors."""
    folder = ROOT / "binder"
    assert (folder / "requirements.txt").read_text("utf-8").strip() == "-e .[local,bench,dask]"
    assert (folder / "runtime.txt").read_text("utf-8").startswith("python-3.1")
    script = folder / "postBuild"
    assert script.stat().st_mode & 0o111
    assert "set -e" in script.read_text("utf-8")
    (python,) = re.findall(r"<<'PYTHON'\n(.*?)\nPYTHON", script.read_text("utf-8"), re.DOTALL)
    ast.parse(python)
