"""Calls of tools that are written into a text, as in Python."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from llm_magics.media import Tool, ToolCall

_LONGEST_CALL = 2000


def calls_in(text: str, tools: Sequence[Tool]) -> tuple[ToolCall, ...]:
    """
    The calls of ``tools`` in ``text``, such as ``weather("Oslo")``, in their order.

    Arguments are literals, by place or by name; what is anything else is no call.
    """
    by_name = {tool.name: tool for tool in tools}
    found = (_call(node, by_name[name]) for name, node in _written(text, list(by_name)))
    arguments = [each for each in found if each is not None]
    return tuple(ToolCall(f"call_{n}", *each) for n, each in enumerate(arguments))


def _written(text: str, names: Sequence[str]) -> Iterator[tuple[str, ast.Call]]:
    """Each place where one of ``names`` is called in ``text``, read as Python."""
    if not names:
        return
    places = re.finditer(rf"\b({'|'.join(map(re.escape, names))})\(", text)
    for place in places:
        for end in re.finditer(r"\)", text[place.end() : place.end() + _LONGEST_CALL]):
            written = text[place.start() : place.end() + end.end()]
            try:
                node = ast.parse(written, mode="eval").body
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue  # a bracket within a text, or no Python
            if isinstance(node, ast.Call):
                yield place[1], node
            break


def _call(node: ast.Call, tool: Tool) -> tuple[str, str] | None:
    """The tool's name and its arguments as JSON; ``None`` where they are not literals."""
    try:
        places = [ast.literal_eval(each) for each in node.args]
        named = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
        names = tool.parameters.get("properties", {})
        given: dict[str, Any] = dict(zip(names, places, strict=False))
        return tool.name, json.dumps(given | named, ensure_ascii=False)
    except (ValueError, TypeError):
        return None
