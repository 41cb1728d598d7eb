"""The pages are compared as they are for everybody: without the reader's own settings and prompts."""

from __future__ import annotations

import os
import tempfile

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Give the kernels of nbval a folder of settings with nothing in it, and the cells in order."""
    if config.getoption("nbval", default=False) or config.getoption("nbval_lax", default=False):
        config.option.randomly_reorganize = False  # pytest-randomly shuffles what is in a file
        for name in [each for each in os.environ if each.startswith("LLM_MAGICS_")]:
            if name != "LLM_MAGICS_REPLAY":  # it says what the run is
                del os.environ[name]
        os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp()
