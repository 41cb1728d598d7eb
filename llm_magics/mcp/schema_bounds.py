"""
Whether a server's schema can be checked in a bounded time.

Checks run in the notebook's process, where nothing can interrupt a regular expression, so a server
could stop the kernel with a schema that takes exponential time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The maximum number of subschemas. A definition counts once for each reference to it.
_MAX_SUBSCHEMAS = 2000

# Regular expressions; comparisons of all items with each other; references whose target depends on
# the values.
_UNBOUNDED = frozenset(
    {"pattern", "patternProperties", "uniqueItems", "$dynamicRef", "$recursiveRef"}
)

# Keywords whose values are subschemas by name, and those whose values are not schemas.
_NAMED = frozenset({"properties", "dependentSchemas", "dependencies"})
_NOT_SCHEMAS = frozenset({"$defs", "definitions", "enum", "const", "default", "examples"})


def is_bounded(schema: Mapping[str, Any]) -> bool:
    """Return whether the time to check a value is at most proportional to its size."""
    try:
        _count(schema, schema, frozenset())
    except (_UnboundedError, RecursionError):
        return False
    return True


class _UnboundedError(Exception):
    """The schema is unbounded, or a reference cannot be resolved."""


def _count(schema: Any, root: Mapping[str, Any], active: frozenset[str], counted: int = 0) -> int:
    """Return ``counted`` and the number of subschemas; ``active`` are the references around it."""
    if counted >= _MAX_SUBSCHEMAS:
        raise _UnboundedError
    counted += 1
    for each in _inner(schema):
        counted = _count(each, root, active, counted)
    if isinstance(schema, Mapping) and "$ref" in schema:
        reference = str(schema["$ref"])
        if reference in active:
            raise _UnboundedError
        counted = _count(_resolve(reference, root), root, active | {reference}, counted)
    return counted


def _inner(schema: Any) -> list[Any]:
    """Return the values in ``schema`` that may be schemas."""
    if isinstance(schema, list):
        return schema
    if not isinstance(schema, Mapping):
        return []
    if _UNBOUNDED & schema.keys():
        raise _UnboundedError
    found: list[Any] = []
    for keyword in schema.keys() - _NOT_SCHEMAS:
        value = schema[keyword]
        is_named = keyword in _NAMED and isinstance(value, Mapping)
        found += value.values() if is_named else [value]
    return found


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    """Return the definition to which ``reference`` refers in the same schema."""
    parts = reference.split("/")
    if len(parts) == 3 and parts[0] == "#" and parts[1] in ("$defs", "definitions"):
        definitions = root.get(parts[1])
        if isinstance(definitions, Mapping) and parts[2] in definitions:
            return definitions[parts[2]]
    raise _UnboundedError
