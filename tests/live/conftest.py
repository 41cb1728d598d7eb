"""Tests against real servers: they run with ``-m live``, where the environment says where."""

from __future__ import annotations

import os

import pytest

# Read at import: every other test runs without the user's own addresses.
OLLAMA_HOST = os.environ.get("OLLAMA_HOST", "")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the live tests unless they are asked for, and their servers are there."""
    asked = "live" in (config.option.markexpr or "")
    reason = "" if asked else "real servers: pytest -m live tests/live"
    if asked and not OLLAMA_HOST:
        reason = "OLLAMA_HOST does not say where the real server is"
    for item in items:
        if reason and item.get_closest_marker("live"):
            item.add_marker(pytest.mark.skip(reason=reason))
