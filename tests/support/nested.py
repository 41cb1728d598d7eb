"""Processes that a test starts, without what runs the test itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def plain_environment() -> dict[str, str]:
    """The environment, without what makes coverage measure, or pytest do more, in a child."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COV", "PYTEST_"))
    }


def nbval(path: Path, *options: str) -> str:
    """What nbval says of the notebook at ``path``."""
    plugins = ["-p", "no:cacheprovider", "-p", "no:randomly"]  # cells run in their order
    command = [sys.executable, "-m", "pytest", path.name, *plugins, *options]
    done = subprocess.run(
        command,
        cwd=path.parent,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout
