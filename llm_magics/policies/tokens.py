"""
About how many tokens a prompt takes, without the tokenizer of its model.

Rather too many than too few: it is used for what may be spent. English has four letters to a
token, most other scripts one to two; in bytes of UTF-8 that is three for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llm_magics.parameters import ModelParameters
from llm_magics.types import ChatMessage

_BYTES_A_TOKEN = 3
_Add = Callable[[Iterable[int]], int]

# What stands around a message.
_A_MESSAGE = 4
# What values of a schema take at most; a string is taken to be a short paragraph.
_SIMPLE = {"boolean": 2, "null": 2, "integer": 8, "number": 8}
_A_STRING, _USUAL_ITEMS, _MAX_DEPTH = 120, 10, 12
# A picture of the size that the services scale to.
_A_PICTURE = 1500


def of_text(text: str) -> int:
    """Of one text."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_A_TOKEN)


def of_answer_to(schema: Mapping[str, Any]) -> int | None:
    """Return about the most tokens of an answer that fits a JSON schema, if that is bounded."""
    return _most(schema, schema, _MAX_DEPTH)


def _most(schema: Any, root: Mapping[str, Any], depth: int) -> int | None:
    """Return the bound of one part of a schema; ``None`` where it may be anything."""
    if not isinstance(schema, Mapping) or not depth:
        return None
    if isinstance(ref := schema.get("$ref"), str):
        return _most(_pointed_at(root, ref), root, depth - 1)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values:
        return max(of_text(json.dumps(value, ensure_ascii=False, default=str)) for value in values)
    add, parts = _parts(schema)
    if parts:
        return _together(add, (_most(each, root, depth - 1) for each in parts))
    return _most_of_kind(schema.get("type"), schema, root, depth)


def _parts(schema: Mapping[str, Any]) -> tuple[_Add, list[Any]]:
    """Return the schemas that one is made of, and how their bounds add up."""
    for name, add in (("anyOf", max), ("oneOf", max), ("allOf", sum)):
        if isinstance(parts := schema.get(name), list):
            return add, parts
    kinds = schema.get("type")
    return max, [{**schema, "type": kind} for kind in kinds] if isinstance(kinds, list) else []


def _most_of_kind(
    kind: Any, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int
) -> int | None:
    if isinstance(kind, str) and kind in _SIMPLE:
        return _SIMPLE[kind]
    if kind == "string":
        longest = schema.get("maxLength")
        return min(_A_STRING, longest) if type(longest) is int else _A_STRING
    if kind == "array":
        items = schema.get("maxItems")
        count = items if type(items) is int else _USUAL_ITEMS
        item = _most(schema.get("items"), root, depth - 1)
        return None if item is None else count * (item + 1) + 2
    if kind == "object" and isinstance(schema.get("properties"), Mapping):
        fields = schema["properties"].items()
        names = sum(of_text(str(name)) + 2 for name, _ in fields)
        values = _together(sum, (_most(each, root, depth - 1) for _, each in fields))
        return None if values is None else names + values + 2
    return None


def _together(add: _Add, bounds: Iterable[int | None]) -> int | None:
    found = list(bounds)
    known = [bound for bound in found if bound is not None]
    return add(known) if known and len(known) == len(found) else None


def _pointed_at(root: Mapping[str, Any], ref: str) -> Any:
    found: Any = root
    for part in ref.removeprefix("#").strip("/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) and part else found
    return found


def of_messages(messages: Iterable[ChatMessage], parameters: ModelParameters) -> int:
    """Of a conversation with its pictures, its schema and its tools."""
    tokens = sum(
        of_text(message.content) + _A_MESSAGE + len(message.images) * _A_PICTURE
        for message in messages
    )
    beside = [parameters.schema] if parameters.schema else []
    beside += [tool.as_dict() for tool in parameters.tools]
    return tokens + sum(of_text(json.dumps(each, default=str)) for each in beside)
