"""Calls of tools that are written into a text, as in Python."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from llm_magics.parameters import Tool
from llm_magics.types import ToolCall

_LONGEST_CALL = 2000
_MOST_CALLS, _MOST_PLACES = 20, 200
# A text in quotes, or one sign; only brackets outside of quotes count.
_PART = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|.""", re.DOTALL)


def calls_in(text: str, tools: Sequence[Tool]) -> tuple[ToolCall, ...]:
    """
    The calls of ``tools`` in ``text``, such as ``weather("Oslo")``, in their order.

    Arguments are literals, by place or by name; what Python would not call so is no call.
    """
    by_name = {tool.name: tool for tool in tools}
    found: list[ToolCall] = []
    for name, written in _written(text, list(by_name)):
        arguments = _arguments(written, by_name[name])
        if arguments is not None and len(found) < _MOST_CALLS:
            found.append(ToolCall(f"call_{len(found)}", name, arguments))
    return tuple(found)


def _written(text: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each place where one of ``names`` is called in ``text``, up to its closing bracket."""
    if not names:
        return
    end = 0
    places = re.finditer(rf"(?<![\w.])({'|'.join(map(re.escape, names))})\(", text)
    for place in islice(places, _MOST_PLACES):
        if place.start() < end:  # within the call before
            continue
        length = _length(text[place.end() : place.end() + _LONGEST_CALL])
        end = place.end() + max(0, length)
        if length >= 0:
            yield place[1], f"f({text[place.end() : end]}"


def _length(text: str) -> int:
    """How much of ``text`` there is to the bracket that closes what it begins in; -1 for none."""
    depth = 1
    for part in _PART.finditer(text):
        depth += {"(": 1, ")": -1}.get(part[0], 0)
        if not depth:
            return part.end()
    return -1


def _arguments(written: str, tool: Tool) -> str | None:
    """The arguments of a call as JSON; ``None`` where it cannot be made."""
    names = list(tool.parameters.get("properties", {}))
    try:
        with warnings.catch_warnings(action="ignore"):  # of backslashes, which are the user's
            node = ast.parse(written, mode="eval").body
        if not isinstance(node, ast.Call) or len(node.args) > len(names):
            return None
        given: dict[str, Any] = dict(zip(names, map(ast.literal_eval, node.args), strict=False))
        for each in node.keywords:
            if each.arg is None or each.arg in given:
                return None
            given[each.arg] = ast.literal_eval(each.value)
        arguments = json.dumps(given, ensure_ascii=False, allow_nan=False)
        arguments.encode("utf-8")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return arguments
