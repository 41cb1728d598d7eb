"""The reference pages are what the code says, and leave nothing out."""

from __future__ import annotations

import pytest

import llm_magics
from llm_magics.notebook.commands import COMMANDS
from tests.support.reference_pages import FOLDER, PAGES, undescribed_columns
from tests.support.reference_python import documented_names

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
def test_a_reference_page_is_up_to_date(name: str) -> None:
    """After a change run ``python -m tests.support.reference_pages``."""
    assert (FOLDER / name).read_text("utf-8") == PAGES[name]()


def test_every_subcommand_has_a_heading() -> None:
    """Also one in a module that is new."""
    page = (FOLDER / "magics.md").read_text("utf-8")
    assert not [name for name in COMMANDS if f"#### `%llm {name}`" not in page]


def test_every_column_has_a_meaning() -> None:
    """Of all tables on the page."""
    assert not {table: names for table, names in undescribed_columns().items() if names}


def test_every_public_name_is_documented() -> None:
    """On the page of the Python interface, but for a few types."""
    assert documented_names() | NOT_ON_THE_PAGE == set(llm_magics.__all__)
