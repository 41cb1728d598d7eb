"""CONTRIBUTING.md, and the address of the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support import reference
from tests.support.markdown_pages import ROOT, code_blocks, code_spans, name_of, pages
from tests.test_imports import MODULES

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# The owner is not known yet: these files have the placeholder, and nothing else has.
PLACEHOLDER = "OWNER/jupyter-llm-magics"
USES = {
    ".github/ISSUE_TEMPLATE/config.yml",
    "README.md",
    "docs/how-to/environments.md",
    "docs/tutorial.md",
    *(f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")),
    "pyproject.toml",
    "tests/test_documents.py",
}
FOLDERS = (".ci", ".github", "binder", "docs", "llm_magics", "notebooks", "tests")


def test_the_map_has_every_package() -> None:
    """Each package and module at the top of ``llm_magics`` is in the table."""
    spans = {
        span.removeprefix("llm_magics/").removesuffix(".py") for span in code_spans(CONTRIBUTING)
    }
    names = {name.partition(".")[0] for name in MODULES} - {"", "__main__"}
    assert names <= spans


def test_the_example_is_the_provider_that_is_tested() -> None:
    """The contract of all providers is run over it."""
    assert reference.example() in code_blocks(CONTRIBUTING, "python")


def test_the_commands_are_those_of_ci() -> None:
    """Each check but the live one and the coverage is in the script, wherever the site goes."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    commands = [
        span for span in code_spans(CONTRIBUTING) if " " in span and "LLM_MAGICS" not in span
    ]
    commands = [part for span in commands for part in span.split(" && ")]
    checked = 0
    for command in commands:
        is_check = command.startswith(("pytest", "ruff", "sphinx-build"))
        if is_check and "live" not in command and "--cov" not in command:
            assert command.removesuffix(" ../site") in script, command
            checked += 1
    assert checked > 6


def test_the_paths_exist() -> None:
    """Files and folders that the text names."""
    for span in code_spans(CONTRIBUTING):
        if re.fullmatch(r"\.?\w+/[\w./-]+", span) and "jupyter" not in span:
            assert (ROOT / span).exists() or span == "markov/sea", span


def text_files() -> list[Path]:
    """Return the files of the project that are text."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    found += [path for name in FOLDERS for path in (ROOT / name).rglob("*") if path.is_file()]
    endings = {".md", ".py", ".toml", ".yml", ".yaml", ".txt", ".ipynb", ""}
    return [path for path in found if path.suffix in endings and "__pycache__" not in path.parts]


def test_every_use_of_the_placeholder_is_listed() -> None:
    """So that one who publishes the project finds them all."""
    own = Path(__file__).resolve()
    uses = {
        name_of(path)
        for path in text_files()
        if path != own and PLACEHOLDER.encode() in path.read_bytes()
    }
    assert uses == USES


def test_all_addresses_of_the_project_have_the_placeholder() -> None:
    """Those that PyPI would show."""
    assert {"Documentation", "Source", "Issues", "Changelog"} <= set(PROJECT["urls"])
    assert all(f"https://github.com/{PLACEHOLDER}" in url for url in PROJECT["urls"].values())


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_no_page_claims_that_the_project_is_on_pypi(page: Path) -> None:
    """It is installed from a clone."""
    text = page.read_text("utf-8").lower().replace("_", "-")
    from_git = r"(?!(?:\[[\w,-]+\])? @ git\+)"
    assert not re.search(rf"pip install [^\n`]*(?<![/-])(?:jupyter-)?llm-magics\b{from_git}", text)
    assert not re.search(r"pypi\.org/project/(?:jupyter-)?llm-magics", text)


def test_the_issue_forms_are_valid() -> None:
    """Each template has a name and a text, and the chooser is YAML."""
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    assert yaml.safe_load((folder / "config.yml").read_text("utf-8"))["contact_links"]
    for path in folder.glob("*.md"):
        _, head, body = path.read_text("utf-8").split("---\n", 2)
        assert {"name", "about"} <= set(yaml.safe_load(head))
        assert body.strip()
