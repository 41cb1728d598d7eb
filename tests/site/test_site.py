"""
The documentation site builds strictly, from all pages, and loads nothing from elsewhere.

Run as ``pytest tests/site``. A site that is already built is named in ``BUILT_SITE``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.markdown_pages import ROOT, name_of, pages

# Checks of addresses in JSON Schemas, which take a second to load; Sphinx and notebooks have none.
SPHINX = """
import runpy, sys
sys.modules["rfc3987_syntax"] = None
runpy.run_module("sphinx", run_name="__main__")
"""
REMOTE = re.compile(r"<(?:script|link|img)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^>]*>")


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as CI does."""
    strict = ["-q", "-n", "-W", "--keep-going", "-c", source / "docs"]
    command = [sys.executable, "-c", SPHINX, *strict, source, site]
    return subprocess.run(command, capture_output=True, text=True, cwd=source, check=False)


def test_each_page_and_notebook_is_on_the_site(tmp_path: Path) -> None:
    """The README and the templates of the forge are not; nothing comes from another host."""
    site = Path(os.environ.get("BUILT_SITE") or tmp_path / "site")
    if not site.exists():
        done = build(ROOT, site)
        assert done.returncode == 0, done.stderr
    names = map(name_of, pages())
    sources = [name for name in names if not name.startswith(".github/") and name != "README.md"]
    sources += [f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")]
    for name in sources:
        assert (site / name).with_suffix(".html").exists(), name
    assert (site / "index.html").exists()
    # No script, style sheet, font or picture. In the same test, so that the site is built once.
    for path in site.rglob("*.html"):
        assert not REMOTE.findall(path.read_text("utf-8")), path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text("utf-8"))


def test_a_dead_link_and_an_unlisted_page_fail_the_build(tmp_path: Path) -> None:
    """Both are errors, each with the name of its page."""
    small = tmp_path / "small"
    (small / "docs" / "how-to").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "conf.py", small / "docs")
    pages = {
        "index.md": "# Start\n\n- [How-to guides](how-to/index.md)\n",
        "how-to/index.md": "# How-to guides\n\n- [Listed](listed.md)\n",
        "how-to/listed.md": "# Listed\n\n[alive](index.md#how-to-guides)\n",
    }
    for name, text in pages.items():
        (small / "docs" / name).write_text(text, "utf-8")
    unlisted = small / "docs" / "unlisted.md"
    unlisted.write_text("# Unlisted\n\n[dead](how-to/index.md#no-heading)\n", "utf-8")
    done = build(small, tmp_path / "site")
    assert done.returncode
    warnings = [line for line in done.stderr.splitlines() if line]
    assert len(warnings) == 2, done.stderr
    assert all("unlisted" in line for line in warnings)
