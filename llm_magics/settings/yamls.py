"""YAML of whoever wrote it: plain values, or an error that is one."""

from __future__ import annotations

from typing import Any


def decoded(text: str) -> Any:
    """
    The value in ``text``.

    Raises:
        ValueError: it is no YAML, or one of its values is not what it says it is.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except Exception as error:  # its constructors raise whatever their conversions do
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from None
