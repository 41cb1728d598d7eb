"""JSON out of bytes, for each event of a stream."""

from __future__ import annotations

from typing import Any

from llm_magics._util.text import read_json


def decoded(data: bytes) -> Any:
    """
    Return the value in ``data``; halves of a character stay, for the other may be in the next.

    Raises:
        ValueError: it is not JSON, or it is nested too deeply.
    """
    return read_json(data, whole_characters=False)
