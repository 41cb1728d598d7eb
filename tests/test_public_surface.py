"""What users and other packages rely on changes on purpose only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.public_surface import SECTIONS, SNAPSHOT, as_json


@pytest.mark.parametrize("section", SECTIONS)
def test_the_public_surface_is_as_it_was(section: str, tmp_path: Path) -> None:
    """Names, signatures, flags, settings, columns and formats equal the stored snapshot."""
    stored = json.loads(SNAPSHOT.read_text("utf-8"))[section]
    assert as_json(SECTIONS[section](tmp_path)) == stored
