"""The reference pages are what the code says, and leave nothing out."""

from __future__ import annotations

from itertools import pairwise

import pytest

import llm_magics
from llm_magics.notebook.commands import COMMANDS
from tests.support.drawing import ROWS
from tests.support.reference_pages import DOCS, PAGES, undescribed_columns
from tests.support.reference_python import documented_names
from tests.test_imports import MODULES, ORDER

# Types that the page describes where they are returned, and what IPython calls.
NOT_ON_THE_PAGE = {
    "ChatMessage",
    "ModelParameters",
    "ModelResponse",
    "StreamChunk",
    "load_ipython_extension",
    "unload_ipython_extension",
}


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    """After a change run ``python -m tests.support.reference_pages``."""
    assert (DOCS / name).read_text("utf-8") == PAGES[name]()


def test_every_subcommand_has_a_heading() -> None:
    """Also one in a module that is new."""
    page = (DOCS / "reference" / "magics.md").read_text("utf-8")
    assert not [name for name in COMMANDS if f"#### `%llm {name}`" not in page]


def test_every_column_has_a_meaning() -> None:
    """Of all tables on the page."""
    assert not {table: names for table, names in undescribed_columns().items() if names}


def test_every_public_name_is_documented() -> None:
    """On the page of the Python interface, but for a few types."""
    assert documented_names() | NOT_ON_THE_PAGE == set(llm_magics.__all__)


def test_the_drawing_has_each_package_in_the_order_of_imports() -> None:
    """From the top to the bottom; modules of no package are ordered too."""
    entries = [entry.partition(".")[0] for row in ORDER for entry in row]
    rows = [[each for name, _ in row for each in name.split(", ")] for row in ROWS]
    names = {name.partition(".")[0] for name in MODULES} - {"", "__main__"}
    assert {name for row in rows for name in row} == names
    for above, below in pairwise(rows):
        assert max(map(entries.index, above)) < min(map(entries.index, below))
