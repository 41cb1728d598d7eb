"""The examples on the pages of the documentation run, and its magics and settings are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.kernels import Kernel
from tests.support.markdown_pages import ROOT

PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "docs" / "how-to").glob("*.md"),
]
CELL = re.compile(r"(<!-- not run: [^\n]+ -->\n)?```python\n(.*?)```", re.DOTALL)


def cells_of(page: Path) -> list[str]:
    """Return the cells of a page that can run without a key."""
    return [code for mark, code in CELL.findall(page.read_text("utf-8")) if not mark]


@pytest.fixture(autouse=True)
def own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has a history of its own."""
    monkeypatch.setenv("LLM_MAGICS_HISTORY", str(tmp_path / "history.sqlite"))


@pytest.mark.weights
@pytest.mark.parametrize(
    "page", sorted(page for page in PAGES if cells_of(page)), ids=lambda page: page.stem
)
def test_the_cells_of_a_page_run(page: Path, kernel: Kernel) -> None:
    """From top to bottom, in one kernel, without an error or a magic that is unknown."""
    for code in cells_of(page):
        result = kernel.run(code)
        assert result.status == "ok", f"{code}\n{result.error}"
        assert "UsageError:" not in result.text, code  # IPython prints it for an unknown magic
