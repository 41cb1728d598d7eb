"""
What services refuse of a JSON schema, as strictly as they do, and values that fit one.

Written from the services' documentation and the errors that people report, and not from the
compiler that they are to judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_OPENAI_KEYWORDS = {
    None: {"title", "description", "$defs", "definitions", "anyOf", "enum", "const", "type"},
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"pattern", "format"},
    "number": {"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
}
_OPENAI_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}  # fmt: skip
_CLAUDE_KEYWORDS = {
    None: {"title", "description", "$defs", "anyOf", "allOf", "enum", "const", "type", "$ref"},
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems"},
    "string": {"format"},
    "number": set(),
}
_PRIMITIVE = (str, int, float, bool, type(None))


def wrong_for_openai(schema: Any, *, strict: bool) -> str | None:
    """What OpenAI says of a schema of a response format; nothing where it takes it."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        kind = schema.get("type") if isinstance(schema, dict) else None
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    if not strict:
        return None
    if "anyOf" in schema:
        return "schema must have type 'object' and not have 'oneOf'/'anyOf' at the top level."
    wrong = next(_openai_faults(schema, schema, ()), None)
    if wrong is None and _depth(schema) > 10:
        return f"{_depth(schema)} levels of nesting exceeds limit of 10."
    if wrong is None and sum(len(each.get("properties", {})) for each in _all(schema)) > 5000:
        return "Schema exceeds the limit of 5000 properties."
    return wrong


def _openai_faults(schema: Any, root: Any, path: tuple[str, ...]) -> Iterator[str]:
    where = f"In context={path!r}, "
    if not isinstance(schema, dict):
        yield f"{where}schema must be an object."
        return
    if "$ref" in schema:
        if others := set(schema) - {"$ref"}:
            yield f"{where}$ref cannot have keywords {others}."
        if _target(root, schema["$ref"]) is None:
            yield f"{where}reference can only point to definitions defined at the top level."
        return
    if "type" not in schema and "anyOf" not in schema:
        yield f"{where}schema must have a 'type' key."
    yield from _unknown_keywords(schema, _OPENAI_KEYWORDS, where)
    yield from _openai_values(schema, where)
    for name, inner in _inner(schema):
        yield from _openai_faults(inner, root, (*path, name))


def _openai_values(schema: Any, where: str) -> Iterator[str]:
    kinds = _kinds(schema)
    if "enum" in schema and not all(isinstance(each, _PRIMITIVE) for each in schema["enum"]):
        yield f"{where}enum values must be primitive."
    if "object" in kinds:
        names = set(schema.get("properties", {}))
        if schema.get("additionalProperties") is not False:
            yield f"{where}'additionalProperties' is required to be supplied and to be false."
        if set(schema.get("required", ())) != names:
            yield f"{where}'required' is required to be supplied and to be an array including every key in properties."
    if "array" in kinds and "items" not in schema:
        yield f"{where}array schema missing items."
    if "format" in schema and schema["format"] not in _OPENAI_FORMATS:
        yield f"{where}'{schema['format']}' is not a valid format."


def wrong_for_claude(schema: Any) -> str | None:
    """What Anthropic says of a schema in ``output_config.format``."""
    return next(_claude_faults(schema, schema, ()), None)


def _claude_faults(schema: Any, root: Any, within: tuple[str, ...]) -> Iterator[str]:
    where = "output_config.format.schema: "
    if not isinstance(schema, dict):
        yield f"{where}Schema type must be an object."
        return
    if "$ref" in schema:
        target = _target(root, schema["$ref"])
        if schema["$ref"] in within or target is None:
            yield f"{where}Circular reference detected in schema definitions."
        else:
            yield from _claude_faults(target, root, (*within, schema["$ref"]))
        return
    if not {"type", "anyOf", "allOf", "enum", "const"} & set(schema):
        yield f"{where}Schema type is required."
    if isinstance(schema.get("type"), list):
        yield f"{where}Schema type must be a string."
        return
    yield from _unknown_keywords(schema, _CLAUDE_KEYWORDS, where)
    yield from _claude_values(schema, where)
    for name, inner in _inner(schema):
        if name != "$defs":
            yield from _claude_faults(inner, root, within)


def _claude_values(schema: Any, where: str) -> Iterator[str]:
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        yield f"{where}For 'object' type, 'additionalProperties' must be explicitly set to false"
    if schema.get("minItems", 0) > 1:
        yield f"{where}For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    if "format" in schema and schema["format"] not in _OPENAI_FORMATS | {"uri"}:
        yield f"{where}For 'string' type, '{schema['format']}' format is not supported"


def _unknown_keywords(schema: Any, known: dict[Any, set[str]], where: str) -> Iterator[str]:
    taken = set(known[None])
    for kind in _kinds(schema):
        taken |= known.get("number" if kind == "integer" else kind, set())
    if unknown := sorted(set(schema) - taken):
        kind = "/".join(_kinds(schema))
        yield f"{where}For '{kind}' type, properties {', '.join(unknown)} are not supported"


def _kinds(schema: Any) -> list[str]:
    kind = schema.get("type", [])
    return kind if isinstance(kind, list) else [kind]


def _inner(schema: Any) -> Iterator[tuple[str, Any]]:
    for name in ("properties", "$defs", "definitions"):
        for key, each in schema.get(name, {}).items():
            yield (key if name == "properties" else "$defs"), each
    if isinstance(schema.get("items"), dict):
        yield "items", schema["items"]
    for name in ("anyOf", "allOf"):
        for each in schema.get(name, ()):
            yield name, each


def _all(schema: Any) -> Iterator[Any]:
    if isinstance(schema, dict):
        yield schema
        for _, each in _inner(schema):
            yield from _all(each)


def _depth(schema: Any) -> int:
    if not isinstance(schema, dict):
        return 0
    return max((_depth(each) for _, each in _inner(schema)), default=0) + (
        schema.get("type") == "object"
    )


def _target(root: Any, reference: str) -> Any:
    if reference == "#":
        return root
    name = reference.removeprefix("#/$defs/").removeprefix("#/definitions/")
    return {**root.get("definitions", {}), **root.get("$defs", {})}.get(name)


def sample(  # noqa: PLR0911 (one case each)
    schema: Any, root: Any = None, *, null: bool = False, depth: int = 0
) -> Any:
    """A value that fits ``schema``; with ``null`` it is null wherever it may be."""
    root = schema if root is None else root
    if "$ref" in schema:
        return sample(_target(root, schema["$ref"]), root, null=null, depth=depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        branches = schema["anyOf"]
        empty = [each for each in branches if each.get("type") == "null"]
        return sample((empty or branches)[0] if null or depth > 4 else branches[0], root, null=null, depth=depth + 1)  # fmt: skip
    if "allOf" in schema:
        return sample(schema["allOf"][0], root, null=null, depth=depth + 1)
    kinds = _kinds(schema)
    kind = "null" if null and "null" in kinds else kinds[0] if kinds else "object"
    if kind == "object":
        return {
            name: sample(each, root, null=null, depth=depth + 1)
            for name, each in schema.get("properties", {}).items()
        }
    if kind == "array":
        if depth > 4 and not schema.get("minItems"):
            return []
        count = max(schema.get("minItems", 0), 1)
        return [sample(schema.get("items", {"type": "null"}), root, null=null, depth=depth + 1)] * count  # fmt: skip
    if kind in ("integer", "number"):
        return max(schema.get("minimum", 7), schema.get("exclusiveMinimum", 6) + 1)
    formats = {"date": "2026-01-02", "date-time": "2026-01-02T03:04:05Z"}
    text = formats.get(schema.get("format", ""), "A text")
    return {"string": text, "boolean": True, "null": None}[kind]


_GEMINI_KEYWORDS = {
    "$anchor", "$defs", "$id", "$ref", "additionalProperties", "anyOf", "description", "enum", "format",
    "items", "maxItems", "maximum", "minItems", "minimum", "oneOf", "prefixItems", "properties",
    "propertyOrdering", "required", "title", "type",
}  # fmt: skip


def wrong_for_gemini(schema: Any) -> str | None:
    """What the Gemini API says of a schema in ``responseJsonSchema``."""
    for each in _all(schema):
        if unknown := set(each) - _GEMINI_KEYWORDS:
            return f"Invalid value at 'generation_config.response_json_schema': unsupported keyword {min(unknown)!r}."
        if "$ref" in each and not all(name.startswith("$") for name in each):
            return "Invalid value at 'generation_config.response_json_schema': $ref cannot have other keywords."
        if each.get("format", "date") not in ("date-time", "date", "time"):
            return f"Invalid value at 'generation_config.response_json_schema': unsupported format {each['format']!r}."
    return None
