"""Estimates of the tokens of a text, and of the longest answer that a schema allows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_BYTES_PER_TOKEN = 3
_Add = Callable[[Iterable[int]], int]

# The maximum number of tokens in a value of a schema; a string is assumed to be a short paragraph.
_TOKENS_BY_TYPE = {"boolean": 2, "null": 2, "integer": 8, "number": 8}
_A_STRING, _USUAL_ITEMS, _MAX_DEPTH = 120, 10, 12


def text_tokens(text: str) -> int:
    """Return the estimated number of tokens in ``text``."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def schema_tokens(schema: Mapping[str, Any]) -> int | None:
    """Return about the maximum tokens of an answer with this JSON schema, if it is bounded."""
    return _max_tokens(schema, schema, _MAX_DEPTH)


def _max_tokens(schema: Any, root: Mapping[str, Any], depth: int) -> int | None:
    """Return the maximum tokens of one part of a schema; ``None`` if it is unbounded."""
    if not isinstance(schema, Mapping) or not depth:
        return None
    if isinstance(ref := schema.get("$ref"), str):
        return _max_tokens(_resolve_ref(root, ref), root, depth - 1)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values:
        return max(
            text_tokens(json.dumps(value, ensure_ascii=False, default=str)) for value in values
        )
    add, parts = _alternatives(schema)
    if parts:
        return _combine_bounds(add, (_max_tokens(each, root, depth - 1) for each in parts))
    return _max_tokens_of_type(schema.get("type"), schema, root, depth)


def _alternatives(schema: Mapping[str, Any]) -> tuple[_Add, list[Any]]:
    """Return the schemas that ``schema`` combines, and the function that combines their bounds."""
    for name, add in (("anyOf", max), ("oneOf", max), ("allOf", sum)):
        if isinstance(parts := schema.get(name), list):
            return add, parts
    kinds = schema.get("type")
    return max, [{**schema, "type": kind} for kind in kinds] if isinstance(kinds, list) else []


def _max_tokens_of_type(
    kind: Any, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int
) -> int | None:
    if isinstance(kind, str) and kind in _TOKENS_BY_TYPE:
        return _TOKENS_BY_TYPE[kind]
    if kind == "string":
        longest = schema.get("maxLength")
        return min(_A_STRING, longest) if type(longest) is int else _A_STRING
    if kind == "array":
        items = schema.get("maxItems")
        count = items if type(items) is int else _USUAL_ITEMS
        item = _max_tokens(schema.get("items"), root, depth - 1)
        return None if item is None else count * (item + 1) + 2
    if kind == "object" and isinstance(schema.get("properties"), Mapping):
        fields = schema["properties"].items()
        names = sum(text_tokens(str(name)) + 2 for name, _ in fields)
        values = _combine_bounds(sum, (_max_tokens(each, root, depth - 1) for _, each in fields))
        return None if values is None else names + values + 2
    return None


def _combine_bounds(add: _Add, bounds: Iterable[int | None]) -> int | None:
    found = list(bounds)
    known = [bound for bound in found if bound is not None]
    return add(known) if known and len(known) == len(found) else None


def _resolve_ref(root: Mapping[str, Any], ref: str) -> Any:
    found: Any = root
    for part in ref.removeprefix("#").strip("/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) and part else found
    return found
