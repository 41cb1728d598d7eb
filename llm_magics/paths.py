"""Paths, for people."""

from __future__ import annotations

from pathlib import Path


def shown(path: Path) -> str:
    """
    ``path`` as one would write it here: from the working folder, or from home.

    An output of a notebook is then the same on every machine, and tells nobody whose it was.
    """
    try:
        path = path.absolute()
        if path.is_relative_to(Path.cwd()):
            return path.relative_to(Path.cwd()).as_posix()
        if path.is_relative_to(Path.home()):
            return f"~/{path.relative_to(Path.home()).as_posix()}"
    except (OSError, RuntimeError):  # there is no folder, or nobody's home
        pass
    return path.as_posix()
