"""
Normalise JSON schemas: remove references, ``allOf``, ``oneOf`` and lists of types.

The remaining keywords are ``type``, ``enum``, ``anyOf`` and the limits. Only a schema that refers
to itself retains its references.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

JSONSchema = dict[str, Any]

# Keywords with schemas: one schema, schemas by name, and a list of schemas.
_ONE = ("items", "additionalProperties")
_BY_NAME = ("properties", "patternProperties")
_LISTED = ("anyOf", "prefixItems")

# The keywords of each type, to split a schema with several types.
_KEYWORDS = {
    "object": frozenset(
        ["properties", "required", "additionalProperties", "patternProperties", "propertyNames",
         "minProperties", "maxProperties"]
    ),
    "array": frozenset(
        ["items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"]
    ),
    "string": frozenset(["minLength", "maxLength", "pattern", "format"]),
    "number": frozenset(
        ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]
    ),
}  # fmt: skip
_KEYWORDS["integer"] = _KEYWORDS["number"]
_ANNOTATIONS = ("description", "title", "default", "examples")

# Definitions are inlined, and a discriminator only repeats what the branches state.
_DROPPED = frozenset(["$defs", "definitions", "discriminator"])

# Inlining can grow exponentially if references contain references; a larger schema is not sent.
_MAX_SCHEMAS = 20_000


class InexpressibleSchemaError(Exception):
    """The schema cannot be expressed in a dialect."""


@dataclass(frozen=True, slots=True)
class FlatSchema:
    """A normalised schema; ``definitions`` contains the recursive ones."""

    schema: JSONSchema
    definitions: Mapping[str, JSONSchema]


def flatten_schema(schema: Mapping[str, Any]) -> FlatSchema:
    """
    Return ``schema`` in normalised form.

    Raises:
        InexpressibleSchemaError: a reference is invalid or points to another document, or the
            schema contradicts itself.
    """
    work = _Flattener(schema)
    body = work.flatten(dict(schema), ())
    return FlatSchema(body, work.definitions)


def get_json_type(value: Any) -> str:
    """Return the JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    kinds = ((int, "integer"), (float, "number"), (str, "string"), (list, "array"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "object")


class _Flattener:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._recursive = _find_recursive(root)
        self._names: dict[str, str] = {}
        self._seen = 0
        self.definitions: dict[str, JSONSchema] = {}

    def flatten(self, schema: Any, within: tuple[str, ...]) -> JSONSchema:
        """Return ``schema`` in normalised form; ``within`` are the references that led to it."""
        self._seen += 1
        if self._seen > _MAX_SCHEMAS:
            raise InexpressibleSchemaError
        if schema is True:
            return {}
        if not isinstance(schema, Mapping):
            raise InexpressibleSchemaError
        form = {name: value for name, value in schema.items() if name not in _DROPPED}
        reference = form.pop("$ref", None)
        if reference is not None:
            return self._resolve(reference, form, within)
        parts = form.pop("allOf", None) or ()
        if (either := form.pop("oneOf", None)) is not None:
            parts = [*parts, {"anyOf": either}]
        for part in parts:
            form = merge_schemas(form, self.flatten(part, within))
        form = self._flatten_parts(form, within)
        return _split_types(_normalize_values(form))

    def _resolve(self, reference: Any, beside: JSONSchema, within: tuple[str, ...]) -> JSONSchema:
        """Return the target of a reference, merged with the keywords next to it."""
        if reference not in self._recursive:
            found = self.flatten(resolve_reference(self._root, reference), (*within, reference))
            return merge_schemas(found, self.flatten(beside, within)) if beside else found
        if any(name not in _ANNOTATIONS for name in beside):
            raise InexpressibleSchemaError
        if reference not in self._names:
            last = unquote(str(reference).rpartition("/")[2]).strip("#") or "root"
            name = last if last not in self._names.values() else f"{last}_{len(self._names)}"
            self._names[reference] = name
            found = dict(resolve_reference(self._root, reference))
            definition = self.flatten(found, (reference,))
            if "$ref" in definition:  # a bare reference to itself has no meaning
                raise InexpressibleSchemaError
            self.definitions[name] = definition
        return {"$ref": f"#/$defs/{self._names[reference]}"}

    def _flatten_parts(self, schema: JSONSchema, within: tuple[str, ...]) -> JSONSchema:
        flattened = dict(schema)
        for name in _ONE:
            if isinstance(flattened.get(name), Mapping):
                flattened[name] = self.flatten(flattened[name], within)
            elif name == "items" and flattened.get(name) is True:
                flattened[name] = {}
        for name in _BY_NAME:
            if isinstance(flattened.get(name), Mapping):
                flattened[name] = {
                    key: self.flatten(each, within) for key, each in flattened[name].items()
                }
        for name in _LISTED:
            if isinstance(flattened.get(name), list):
                flattened[name] = [self.flatten(each, within) for each in flattened[name]]
        return flattened


def resolve_reference(root: Mapping[str, Any], reference: Any) -> Any:
    """
    Return the part of ``root`` that a local reference names.

    Raises:
        InexpressibleSchemaError: it does not exist.
    """
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise InexpressibleSchemaError
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if key == "":
            continue
        if isinstance(found, list) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, Mapping) and key in found:
            found = found[key]
        else:
            raise InexpressibleSchemaError
    if not isinstance(found, Mapping):
        raise InexpressibleSchemaError
    return found


def _find_recursive(root: Mapping[str, Any]) -> set[str]:
    """Return the references that lead back to themselves."""
    leads: dict[str, set[str]] = {}
    waiting = list(_find_references(root))
    while waiting:
        reference = waiting.pop()
        if reference in leads:
            continue
        leads[reference] = set(_find_references(resolve_reference(root, reference)))
        waiting += leads[reference]
    return {each for each in leads if each in _find_reachable(each, leads)}


def _find_reachable(start: str, leads: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [*leads[start]]
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting += leads[each]
    return seen


def _find_references(schema: Any) -> list[str]:
    """Return the references in ``schema``, without those in unused definitions."""
    if isinstance(schema, list):
        return [found for each in schema for found in _find_references(each)]
    if not isinstance(schema, Mapping):
        return []
    found = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
    for name, each in schema.items():
        if name not in ("$defs", "definitions", "enum", "const", "default", "examples"):
            found += _find_references(each)
    return found


def merge_schemas(one: JSONSchema, other: JSONSchema) -> JSONSchema:
    """
    Return a schema for the values that match both schemas.

    Raises:
        InexpressibleSchemaError: such values do not exist, or one schema cannot express them.
    """
    if "$ref" in one or "$ref" in other:
        if not other or not one:
            return one or other
        raise InexpressibleSchemaError
    both = dict(one)
    for name, value in other.items():
        both[name] = value if name not in both else _merge_keyword(name, both[name], value)
    if (kinds := _list_types(both)) is not None and not kinds:
        raise InexpressibleSchemaError
    return both


def _list_types(schema: JSONSchema) -> list[str] | None:
    kind = schema.get("type")
    return None if kind is None else kind if isinstance(kind, list) else [kind]


def _merge_keyword(name: str, one: Any, other: Any) -> Any:  # noqa: PLR0911 (one case each)
    """Return the combined value of a keyword that both schemas have."""
    if one == other or name in ("title", "description", "default", "examples"):
        return other
    if name in ("properties", "patternProperties"):
        both = {key: merge_schemas(one[key], other[key]) for key in one if key in other}
        return {**one, **other, **both}
    if name == "required":
        return [*one, *(each for each in other if each not in one)]
    if name in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
        return max(one, other)
    if name in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
        return min(one, other)
    if name == "enum":
        return [each for each in one if each in other]
    if name == "type":
        return _intersect_types(one, other)
    if name == "items":
        return merge_schemas(one, other)
    if name == "additionalProperties" and False in (one, other):
        return False
    raise InexpressibleSchemaError


def _intersect_types(one: Any, other: Any) -> Any:
    ones = one if isinstance(one, list) else [one]
    others = other if isinstance(other, list) else [other]
    both = [each for each in ones if each in others]
    if "number" in ones and "integer" in others:
        both.append("integer")
    if "integer" in ones and "number" in others:
        both.append("integer")
    return both[0] if len(both) == 1 else both


def _normalize_values(schema: JSONSchema) -> JSONSchema:
    """Replace ``const`` with ``enum``, and add the type that the keywords imply."""
    valued = dict(schema)
    if "const" in valued:
        value = valued.pop("const")
        valued["enum"] = (
            _merge_keyword("enum", valued["enum"], [value]) if "enum" in valued else [value]
        )
    if "type" not in valued and not {"enum", "anyOf", "$ref"} & set(valued):
        for kind, names in _KEYWORDS.items():
            if names & set(valued):
                valued["type"] = kind
                break
    return valued


def _split_types(schema: JSONSchema) -> JSONSchema:
    """Replace a list of types with ``anyOf``, without other keywords next to it."""
    about = {name: schema[name] for name in _ANNOTATIONS if name in schema}
    kinds = _list_types(schema)
    if "enum" in schema:
        values = [each for each in schema["enum"] if kinds is None or _has_type(each, kinds)]
        enum: JSONSchema = {"enum": values, **about}
        if len(types := {get_json_type(each) for each in values}) == 1:
            enum["type"] = types.pop()
        return enum
    if isinstance(schema.get("type"), list):
        rest = {name: value for name, value in schema.items() if name not in about}
        branches = [_select_type(kind, rest) for kind in schema["type"]]
        return {"anyOf": branches, **about} if len(branches) > 1 else {**branches[0], **about}
    if "anyOf" in schema:
        beside = {n: v for n, v in schema.items() if n not in about and n != "anyOf"}
        branches = [
            _split_types(merge_schemas(beside, each)) if beside else each
            for each in schema["anyOf"]
        ]
        opened = [
            inner
            for each in branches
            for inner in (each["anyOf"] if set(each) == {"anyOf"} else [each])
        ]
        return {"anyOf": opened, **about} if len(opened) > 1 else {**opened[0], **about}
    return schema


def _has_type(value: Any, kinds: list[str]) -> bool:
    kind = get_json_type(value)
    return kind in kinds or (kind == "integer" and "number" in kinds)


def _select_type(kind: str, schema: JSONSchema) -> JSONSchema:
    """Return the part of a schema with several types that applies to one of them."""
    others = frozenset().union(*_KEYWORDS.values()) - _KEYWORDS.get(kind, frozenset())
    return {**{n: v for n, v in schema.items() if n not in others}, "type": kind}
