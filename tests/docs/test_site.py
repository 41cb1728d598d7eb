"""The documentation site builds strictly, from all pages, and loads nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.markdown_pages import ROOT, name_of, pages

SOURCES = ("docs", "notebooks", "CHANGELOG.md", "CONTRIBUTING.md")
REMOTE = re.compile(r"<(?:script|link|img)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^>]*>")


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as CI does."""
    strict = ["-q", "-n", "-W", "--keep-going", "-c", source / "docs"]
    command = [sys.executable, "-m", "sphinx", *strict, source, site]
    return subprocess.run(command, capture_output=True, text=True, cwd=source, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_each_page_and_notebook_is_on_the_site(site: Path) -> None:
    """The README and the templates of the forge are not."""
    names = map(name_of, pages())
    sources = [name for name in names if not name.startswith(".github/") and name != "README.md"]
    sources += [f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")]
    for name in sources:
        assert (site / name).with_suffix(".html").exists(), name
    assert (site / "index.html").exists()


def test_pages_load_nothing_from_another_host(site: Path) -> None:
    """No script, style sheet, font or picture."""
    for path in site.rglob("*.html"):
        assert not REMOTE.findall(path.read_text("utf-8")), path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text("utf-8"))


def test_a_dead_link_and_an_unlisted_page_fail_the_build(tmp_path: Path) -> None:
    """Both are errors, each with the name of its page."""
    copy = tmp_path / "copy"
    for name in SOURCES:
        (shutil.copytree if (ROOT / name).is_dir() else _copy)(ROOT / name, copy / name)
    (copy / "docs" / "unlisted.md").write_text(
        "# Unlisted\n\n[dead](how-to/index.md#no-heading)\n"
    )
    done = build(copy, tmp_path / "site")
    assert done.returncode
    warnings = [line for line in done.stderr.splitlines() if "unlisted" in line]
    assert len(warnings) == 2, done.stderr


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
