"""
Parse untrusted JSON: fast, with limited depth, without lone surrogates.

It is separate from `_util.text`, which is imported with the extension: the parser is pydantic's,
which is not.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json

from llm_magics._util.text import replace_lone_surrogates

# Deeper values would overflow the stack of functions that walk through them. pydantic has the same
# limit.
_MAX_DEPTH = 200


def read_json(data: bytes | str, *, replace_surrogates: bool = True) -> Any:
    """
    Return the value in ``data``, in a third of the time that `json.loads` takes.

    Args:
        data: the JSON text.
        replace_surrogates: replace lone surrogates. Otherwise they are preserved: the halves of a
            character may be in two pieces of a stream.

    Raises:
        ValueError: it is not JSON, or is nested too deeply.
    """
    try:
        return from_json(data)
    except ValueError as error:
        if "recursion limit" in str(error):
            raise
    # Only this parser accepts lone surrogates and a byte order mark.
    try:
        value = json.loads(data)
    except RecursionError:
        msg = "nested too deeply"
        raise ValueError(msg) from None
    _check_depth(value)
    return _replace_surrogates_in(value) if replace_surrogates else value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    msg = "nested too deeply"
    raise ValueError(msg)


def _replace_surrogates_in(value: Any) -> Any:
    if isinstance(value, str):
        return replace_lone_surrogates(value)
    if isinstance(value, dict):
        return {
            replace_lone_surrogates(name): _replace_surrogates_in(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_replace_surrogates_in(each) for each in value]
    return value
