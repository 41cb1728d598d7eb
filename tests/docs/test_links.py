"""Links between pages lead somewhere, and external addresses are well formed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.markdown_pages import ROOT, anchors, links, name_of, pages

LOCAL_HOSTS = ("localhost", "127.0.0.1")


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_each_link_within_the_project_leads_to_a_file_and_a_heading(page: Path) -> None:
    """Relative paths exist below the root, and anchors are those of headings."""
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        assert not parts.path.startswith("/"), link
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if parts.fragment:
            assert parts.fragment in anchors(target), link


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_each_external_address_is_well_formed(page: Path) -> None:
    """A scheme, a host with a dot in it, and no spaces; without TLS only on this machine."""
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme == "mailto" or not parts.scheme:
            continue
        host = parts.hostname or ""
        assert parts.scheme == "https" or (parts.scheme == "http" and host in LOCAL_HOSTS), link
        assert "." in host or host in LOCAL_HOSTS, link
        assert not any(character.isspace() for character in link), link
