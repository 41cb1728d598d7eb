"""Where files go."""

from __future__ import annotations

from pathlib import Path

from llm_magics.settings.config import config


def cache_folder() -> Path:
    """What can be fetched or computed again is kept here."""
    folder: Path = config.cache_dir
    return folder.expanduser().absolute()  # or another folder would be meant after a chdir
