"""
Convert JSON schemas to the subset that each service accepts.

A schema may use keywords that a service does not support. `compile_schema` rewrites it: references
are inlined, ``allOf`` is merged, ``oneOf`` becomes ``anyOf``, ``enum`` values get a type, a root
that is not an object is wrapped in one, and unsupported limits move into the description. The
result accepts every value that the original accepts (with nulls for optional fields), so an answer
is always validated against the original afterwards.

Sources: OpenAI's guide to structured outputs and ``openai.lib._pydantic``; Anthropic's guide and
``anthropic.transform_schema``; Google's guide (ai.google.dev/gemini-api/docs/structured-output,
November 2026); Groq's and Cerebras's documentation; llama.cpp's ``json-schema-to-grammar``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from llm_magics.parameters import Tool
from llm_magics.schemas import is_strict
from llm_magics.wire.schema_forms import (
    FlatSchema,
    InexpressibleSchemaError,
    JSONSchema,
    flatten_schema,
    get_json_type,
)

# The field that holds an answer whose schema is not an object.
WRAPPER = "answer"

_FORMATS = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"]
)
_NUMBER_LIMITS = frozenset(
    ["multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]
)

# Keywords that do not restrict the value, or that the compiler has already processed.
_IGNORED = frozenset(
    ["$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "examples", "deprecated",
     "readOnly", "writeOnly"]
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """
    The subset of JSON schemas that one service accepts.

    Attributes:
        is_strict: every object is closed and requires all of its properties.
        requires_all: optional properties must be required and nullable instead.
        keywords: the supported limits; all others become part of the description.
        formats: the supported string formats.
        max_min_items: the largest supported ``minItems``; ``None`` for no maximum.
        has_recursion: whether a schema may refer to itself.
        wraps: whether the root must be an object.
        types_enums: whether ``enum`` needs a ``type`` next to it.
        falls_back: whether an inexpressible schema may be sent unchanged, without a guarantee.
        max_properties, max_levels, max_values, max_characters: the maximum size of a schema.
    """

    is_strict: bool = True
    requires_all: bool = True
    keywords: frozenset[str] = frozenset()
    formats: frozenset[str] = frozenset()
    max_min_items: int | None = None
    has_recursion: bool = True
    wraps: bool = True
    types_enums: bool = True
    falls_back: bool = True
    max_properties: int = 5000
    max_levels: int = 10
    max_values: int = 1000
    max_characters: int = 120_000


OPENAI = Dialect(
    keywords=_NUMBER_LIMITS | {"pattern", "format", "minItems", "maxItems"}, formats=_FORMATS
)
# Azure's documentation lists all limits as unsupported, as do services that pass a schema on.
PLAIN = Dialect()
# For unknown servers: strict as OpenAI if no field is optional, because nulls for optional fields
# are specific to OpenAI, otherwise without a guarantee.
UNKNOWN = replace(OPENAI, is_strict=False, requires_all=False)
ANTHROPIC = Dialect(
    requires_all=False,
    keywords=frozenset({"format", "minItems"}),
    formats=_FORMATS | {"uri"},
    max_min_items=1,
    has_recursion=False,
    types_enums=False,
    falls_back=False,
)
# Gemini's ``responseJsonSchema``, for all models since 2.5.
GEMINI = Dialect(
    is_strict=False,
    requires_all=False,
    keywords=frozenset({"minimum", "maximum", "minItems", "maxItems", "format"}),
    formats=frozenset({"date-time", "date", "time"}),
    wraps=False,
)
CEREBRAS = Dialect(
    has_recursion=False, falls_back=False, max_properties=500, max_values=500,
    max_characters=5000,
)  # fmt: skip
# Engines that convert the schema to a grammar support nearly all keywords, and any root.
GRAMMAR = Dialect(
    is_strict=False,
    requires_all=False,
    keywords=_NUMBER_LIMITS
    | {"pattern", "format", "minItems", "maxItems", "minLength", "maxLength"},
    formats=_FORMATS | {"uri"},
    wraps=False,
    max_levels=100,
)
# For services that only guarantee some JSON object; the schema itself is in the prompt.
JSON_OBJECT = Dialect(is_strict=False, requires_all=False)

# With more repetitions, llama.cpp rejects the grammar or takes minutes to parse it.
_MAX_REPETITIONS = 500


@dataclass(frozen=True, slots=True)
class CompiledSchema:
    """
    A schema in the dialect of one service.

    Attributes:
        schema: the schema to send.
        is_strict: whether ``strict`` may be set.
        is_wrapped: whether the answer is in the field ``WRAPPER`` of an object.
    """

    schema: JSONSchema
    is_strict: bool
    is_wrapped: bool


def compile_schema(schema: Mapping[str, Any], dialect: Dialect) -> CompiledSchema | None:
    """
    Return ``schema`` in ``dialect``; ``None`` if the service cannot enforce it.

    >>> compile_schema({"enum": ["a", "b"]}, OPENAI).schema["properties"]["answer"]
    {'enum': ['a', 'b'], 'type': 'string'}
    """
    return _compile(json.dumps(dict(schema)), dialect)


@lru_cache(maxsize=64)
def _compile(text: str, dialect: Dialect) -> CompiledSchema | None:
    """Compile the schema in ``text``; cached, because all requests of a batch share it."""
    schema = json.loads(text)
    try:
        flat = flatten_schema(schema)
    except InexpressibleSchemaError:
        return None
    if flat.definitions and not dialect.has_recursion:
        return None
    if dialect is UNKNOWN and _requires_all([flat.schema, *flat.definitions.values()]):
        dialect = OPENAI
    compiler = _Compiler(dialect)
    try:
        body = compiler.compile(_find_root(flat))
        definitions = {name: compiler.compile(each) for name, each in flat.definitions.items()}
    except InexpressibleSchemaError:
        if not dialect.falls_back:
            return None
        body, definitions, may_be_strict = _find_root(flat), dict(flat.definitions), False
    else:
        is_closed = dialect is not UNKNOWN and is_strict([body, definitions])
        may_be_strict = dialect.is_strict or is_closed
    is_wrapped = dialect.wraps and not _is_object(body)
    if is_wrapped:
        body = _wrap(body)
    if definitions:
        body = {**body, "$defs": definitions}
    return (
        CompiledSchema(body, may_be_strict, is_wrapped)
        if _is_within_bounds(body, dialect)
        else None
    )


def _requires_all(schema: Any) -> bool:
    """Return whether no object in ``schema`` has an optional property."""
    return all(
        set(each.get("properties") or ()) <= set(each.get("required") or ())
        for each in _walk(schema)
        if each.get("type") == "object"
    )


def _find_root(flat: FlatSchema) -> JSONSchema:
    """Return the root schema, which may be one of the definitions."""
    reference = str(flat.schema.get("$ref", ""))
    return flat.definitions.get(reference.removeprefix("#/$defs/"), flat.schema)


def convert_tool_schema(schema: Mapping[str, Any]) -> JSONSchema:
    """
    Return the schema of a tool's arguments in a form that services accept.

    References are inlined, ``allOf`` and ``oneOf`` are rewritten, and the root is an object. A
    schema that cannot be rewritten is returned unchanged.
    """
    try:
        flat = flatten_schema(schema)
    except InexpressibleSchemaError:
        return dict(schema)
    body = _find_root(flat)
    body = body if _is_object(body) else {**body, "type": "object"}
    return {**body, "$defs": dict(flat.definitions)} if flat.definitions else body


def unwrap_answer(value: Any) -> Any:
    """Return ``value`` without the object in which `compile_schema` wraps an answer, if any."""
    return value[WRAPPER] if isinstance(value, dict) and set(value) == {WRAPPER} else value


def _wrap(body: JSONSchema) -> JSONSchema:
    return {
        "type": "object",
        "properties": {WRAPPER: body},
        "required": [WRAPPER],
        "additionalProperties": False,
    }


def _is_object(body: Mapping[str, Any]) -> bool:
    return body.get("type") == "object" and "anyOf" not in body and "$ref" not in body


class _Compiler:
    """Rewrites flattened schemas for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def compile(self, schema: JSONSchema) -> JSONSchema:  # noqa: PLR0911 (one case each)
        """Return ``schema`` in the dialect, or raise `InexpressibleSchemaError`."""
        if "$ref" in schema:  # recursive; other references are inlined
            return {"$ref": schema["$ref"]}
        if "anyOf" in schema:
            branches = [self.compile(each) for each in schema["anyOf"]]
            compiled: JSONSchema = {
                "anyOf": [b for n, b in enumerate(branches) if b not in branches[:n]]
            }
            return _add_description(compiled, schema, {"anyOf"})
        if "enum" in schema:
            return self._values(schema)
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._array(schema)
        if not isinstance(kind, str):
            if self._dialect.is_strict:
                raise InexpressibleSchemaError
            return self._with_limits({}, schema, set())
        return self._with_limits({"type": kind}, schema, {"type"})

    def _values(self, schema: JSONSchema) -> JSONSchema:
        values = schema["enum"]
        if any(isinstance(each, dict | list) for each in values) and self._dialect.is_strict:
            raise InexpressibleSchemaError
        compiled: JSONSchema = {"enum": list(values)}
        kinds = list(dict.fromkeys(map(get_json_type, values)))
        if self._dialect.types_enums and kinds:
            compiled["type"] = kinds[0] if len(kinds) == 1 else kinds
        return _add_description(compiled, schema, {"enum", "type"})

    def _object(self, schema: JSONSchema) -> JSONSchema:
        dialect = self._dialect
        properties = schema.get("properties") or {}
        more = schema.get("additionalProperties")
        is_open = bool(more) or "patternProperties" in schema or (not properties and more is None)
        done = {"type", "properties", "required", "additionalProperties"}
        if not dialect.is_strict:
            fields = {name: schema[name] for name in done if name in schema}
            if properties:
                fields["properties"] = {
                    name: self.compile(each) for name, each in properties.items()
                }
            if isinstance(more, dict):
                fields["additionalProperties"] = self.compile(more)
            if "patternProperties" in schema:  # grammars ignore it: allow any property
                fields.pop("additionalProperties", None)
            return self._with_limits(fields, schema, done)
        if is_open:
            raise InexpressibleSchemaError
        required = schema.get("required") or []
        compiled: JSONSchema = {
            "type": "object",
            "properties": {
                name: self._property(each, is_optional=name not in required)
                for name, each in properties.items()
            },
            "required": list(properties) if dialect.requires_all else list(required),
            "additionalProperties": False,
        }
        if not dialect.requires_all and "required" not in schema:
            del compiled["required"]
        return self._with_limits(compiled, schema, done)

    def _property(self, schema: JSONSchema, *, is_optional: bool) -> JSONSchema:
        compiled = self.compile(schema)
        return make_nullable(compiled) if is_optional and self._dialect.requires_all else compiled

    def _array(self, schema: JSONSchema) -> JSONSchema:
        items, first = schema.get("items"), schema.get("prefixItems")
        compiled: JSONSchema = {"type": "array"}
        done = {"type", "items"}
        if first and not self._dialect.is_strict:
            compiled["prefixItems"] = [self.compile(each) for each in first]
            done.add("prefixItems")
        elif first:  # a tuple becomes a list of any of its types
            kinds = [self.compile(each) for each in first]
            kinds += [self.compile(items)] if isinstance(items, dict) and items else []
            kinds = [each for number, each in enumerate(kinds) if each not in kinds[:number]]
            compiled["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
            done.add("prefixItems")
        if isinstance(items, dict) and "items" not in compiled:
            compiled["items"] = self.compile(items)
        if "items" not in compiled and self._dialect.is_strict:
            raise InexpressibleSchemaError
        return self._with_limits(compiled, schema, done)

    def _with_limits(self, compiled: JSONSchema, schema: JSONSchema, done: set[str]) -> JSONSchema:
        """Add the supported limits of ``schema`` to ``compiled``, and describe the others in it."""
        taken = {name: value for name, value in schema.items() if self._takes(name, value)}
        return _add_description({**compiled, **taken}, schema, done | set(taken))

    def _takes(self, name: str, value: Any) -> bool:
        dialect = self._dialect
        if name not in dialect.keywords:
            return False
        if name == "format":
            return value in dialect.formats
        if name == "minItems" and dialect.max_min_items is not None:
            return bool(value <= dialect.max_min_items)
        if dialect.is_strict:
            return True
        if name == "pattern":  # a grammar matches the whole text
            return str(value).startswith("^") and str(value).endswith("$")
        return name in _NUMBER_LIMITS or value <= _MAX_REPETITIONS


def make_nullable(schema: JSONSchema) -> JSONSchema:
    """Return ``schema``, changed to also accept null."""
    if schema.get("type") == "null" or None in schema.get("enum", ()):
        return schema
    branches = schema.get("anyOf", [schema])
    if any(each.get("type") == "null" or None in each.get("enum", ()) for each in branches):
        return schema
    if "anyOf" in schema:
        return {**schema, "anyOf": [*branches, {"type": "null"}]}
    about: JSONSchema = {n: schema[n] for n in ("description", "title") if n in schema}
    inner = {name: value for name, value in schema.items() if name not in about}
    return {"anyOf": [inner, {"type": "null"}], **about}


def _add_description(compiled: JSONSchema, schema: JSONSchema, done: set[str]) -> JSONSchema:
    """Add title, description and unsupported keywords of ``schema`` to ``compiled`` as text."""
    for name in ("description", "title"):
        if name in schema:
            compiled[name] = schema[name]
    left = {
        name: value
        for name, value in schema.items()
        if name not in done | _IGNORED | {"description", "title"}
    }
    if left.get("default", 0) is None:
        del left["default"]
    if left:
        listed = ", ".join(f"{name}: {_to_text(value)}" for name, value in left.items())
        before = f"{compiled['description']}\n\n" if compiled.get("description") else ""
        compiled["description"] = f"{before}{{{listed}}}"
    return compiled


def _to_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _walk(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, list):
        for each in schema:
            yield from _walk(each)
    elif isinstance(schema, dict):
        yield schema
        for each in schema.values():
            yield from _walk(each)


def _is_within_bounds(body: JSONSchema, dialect: Dialect) -> bool:
    """Return whether a schema is within the service's size limits."""
    properties = values = characters = 0
    for each in _walk(body):
        if isinstance(named := each.get("properties"), dict):
            properties += len(named)
            characters += sum(map(len, named))
        if isinstance(listed := each.get("enum"), list):
            values += len(listed)
            characters += sum(len(str(value)) for value in listed)
    return (
        properties <= dialect.max_properties
        and values <= dialect.max_values
        and characters <= dialect.max_characters
        and _count_levels(body) <= dialect.max_levels
    )


def _count_levels(schema: Any) -> int:
    """Return the nesting depth of objects in ``schema``."""
    if isinstance(schema, list):
        return max(map(_count_levels, schema), default=0)
    if not isinstance(schema, dict):
        return 0
    inside = max(map(_count_levels, schema.values()), default=0)
    return inside + (schema.get("type") == "object")


def build_function(tool: Tool) -> dict[str, Any]:
    """Return the definition of a tool's function, with a schema that services accept."""
    return {**tool.as_dict(), "parameters": convert_tool_schema(tool.parameters)}
