"""Where Hugging Face's own tools keep a user's token."""

from __future__ import annotations

import os
from pathlib import Path

from llm_magics.secrets import environment_value, stripped

_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def token() -> tuple[str, str]:
    """
    The user's token and where it was found; two empty texts where there is none.

    Like ``huggingface_hub``: the environment first, then the file that ``hf auth login`` writes.
    """
    for name in _VARIABLES:
        if value := environment_value(name):
            return value, name
    path = _file()
    try:
        value = stripped(path.read_text("utf-8"))
    except (OSError, ValueError):  # there is none, or it is not text
        return "", ""
    return (value, f"file {path}") if value else ("", "")


def _file() -> Path:
    if own := os.environ.get("HF_TOKEN_PATH"):
        return Path(own)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "token"
