"""What magics print beside their results."""

from __future__ import annotations

import sys

from llm_magics._util.terminal import escaped
from llm_magics.notebook import inert


def say(text: str) -> None:
    """Print a line, with characters escaped that could change a terminal or hide something."""
    sys.stdout.write(f"{inert.plain(escaped(text))}\n")
