"""
Configuration of the documentation site.

    sphinx-build -n -W --keep-going -c docs . FOLDER

The source folder is the root of the repository, so that pages link to notebooks and to files at the
top with the same relative links on the site and on a forge.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from ipython_pygments_lexers import IPython3Lexer
from sphinx.application import Sphinx

from llm_magics import __version__

project = "llm_magics"
author = "The llm_magics authors"
version = release = __version__

extensions = ["myst_nb"]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "notebooks/*.ipynb",
    "notebooks/data/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]

nb_execution_mode = "off"  # notebooks are stored executed; nbval checks their outputs
nb_render_error_lexer = "text"  # errors end with a hint, which is not part of a Python traceback
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "pydata_sphinx_theme"
html_title = "llm_magics"
html_show_sourcelink = False
html_theme_options: dict[str, Any] = {
    "navbar_align": "left",
    "show_prev_next": True,
    "use_edit_page_button": False,
    # The tables of services need the width of the page.
    "secondary_sidebar_items": {"**": ["page-toc"], "docs/reference/services": []},
}

# Pages that list other pages: their list items and table rows make the table of contents.
_LISTING_PAGES = re.compile(r"docs/(?:.+/)?index|docs/tutorial")
_LISTED = re.compile(r"^(?:- |\| ?)\[[^\]]*\]\(([^)#:]+)\.(?:md|ipynb)\)", re.MULTILINE)


def add_table_of_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append a hidden toctree of the pages that ``docname`` lists, which a forge need not show."""
    if not _LISTING_PAGES.fullmatch(docname):
        return
    folder = posixpath.dirname(docname)
    listed = [posixpath.normpath(f"{folder}/{target}") for target in _LISTED.findall(source[0])]
    if listed:
        entries = "\n".join(f"/{target}" for target in listed)
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"


def write_start_page(app: Sphinx, error: Exception | None) -> None:
    """Write an ``index.html`` at the top of the site that leads to the first page."""
    if error is None and app.builder.format == "html":
        start = '<!doctype html><meta http-equiv="refresh" content="0; url=docs/index.html">\n'
        Path(app.outdir, "index.html").write_text(start, "utf-8")


def setup(app: Sphinx) -> None:
    """Register the two functions above, and a lexer that knows magics for ``python`` blocks."""
    app.add_lexer("python", IPython3Lexer)
    app.connect("source-read", add_table_of_contents)
    app.connect("build-finished", write_start_page)
