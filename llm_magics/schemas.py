"""
Schemas of answers: parsing and validation.

A schema is a pydantic class (or another type that pydantic supports: a dataclass, a TypedDict,
``list[int]``), a JSON schema, or a short form: ``"name, age int?, tags list[str]"``, where ``?``
marks a field that may be missing or null.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llm_magics.errors import ConfigurationError, ParseError, nearest

# The types of the short form. The default is ``str``.
_TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
}

# The maximum number of mismatches in an error message.
_MAX_MISMATCHES = 3

# The maximum length of a chain of references; a longer one is circular.
_MAX_REFERENCES = 20

# Every JSON schema with an effect has at least one of these keywords.
_KEYWORDS = frozenset(
    ["type", "properties", "items", "enum", "const", "anyOf", "oneOf", "allOf", "not", "$ref"]
)

_FIELD = re.compile(
    r"(?P<name>\w+)(?P<early>\?)?(?:\s+(?P<type>[^:\s][^:]*?))?(?:\s*:\s*(?P<about>.+))?"
)


def parse_schema(spec: Any) -> dict[str, Any]:
    """
    Return ``spec`` as a JSON schema.

    >>> parse_schema("name, age int, tags list[str]")["properties"]["tags"]
    {'type': 'array', 'items': {'type': 'string'}}

    Raises:
        ConfigurationError: ``spec`` is not a valid schema.
    """
    if isinstance(spec, Mapping):
        if spec and not _KEYWORDS & set(spec):
            msg = f"The schema has no JSON schema keyword: {list(spec)[:5]}."
            raise ConfigurationError(msg, hint='Use the short form for fields: "name, age int".')
        return _check_schema(dict(spec))
    if isinstance(spec, str):
        if spec.lstrip().startswith("{"):
            return _check_schema(_decode_schema(spec))
        return _check_text(_parse_fields(spec))
    from pydantic import BaseModel, TypeAdapter
    from pydantic.errors import PydanticUserError

    # For a function, pydantic would derive a schema from its arguments.
    if inspect.isroutine(spec) or isinstance(type(spec), type(BaseModel)):
        msg = f"{spec!r:.60} is not a schema."
        raise ConfigurationError(
            msg, hint='Pass a pydantic class, a JSON schema, or fields such as "name, age int".'
        )
    try:
        schema: dict[str, Any] = close_objects(TypeAdapter(spec).json_schema())
        return _check_text(schema)
    except PydanticUserError as error:
        msg = f"Could not derive a schema from {spec!r}: {error.message.splitlines()[0]}"
        raise ConfigurationError(
            msg, hint='Pass a pydantic class, a JSON schema, or fields such as "name, age int".'
        ) from None


def _decode_schema(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except ValueError as error:
        msg = f"The schema is not valid JSON: {error}."
        raise ConfigurationError(
            msg, hint='Or use the short form for fields: "name, age int".'
        ) from None
    assert isinstance(schema, dict)  # it begins with a brace
    return schema


def _check_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``schema`` if it is a valid JSON schema."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path)
        msg = f"The schema is not valid{f' at {where}' if where else ''}: {error.message[:200]}"
        raise ConfigurationError(msg, hint="See https://json-schema.org.") from None
    return _check_text(schema)


def _check_text(schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``schema`` unless it has a lone surrogate, which cannot be sent: no answer matches."""
    try:
        json.dumps(schema, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        lone = ascii(error.object[error.start])
        msg = f"The schema has a character that is not valid Unicode: {lone}."
        raise ConfigurationError(msg, hint="Remove the character; it is half of a pair.") from None
    return schema


def _parse_fields(text: str) -> dict[str, Any]:
    properties, required = {}, []
    for part in _split_fields(text):
        found = _FIELD.fullmatch(" ".join(part.split()))
        if found is not None and found["name"] in properties:
            msg = f'The schema names "{found["name"]}" twice.'
            raise ConfigurationError(msg, hint="Use a different name for each field.")
        if found is None:
            msg = f'"{part}" is not a valid field.'
            raise ConfigurationError(msg, hint='Example: "name, age int, tags list[str]".')
        kind, about = (found["type"] or "").strip(), (found["about"] or "").strip()
        if not kind and about.removesuffix("?").strip() in _TYPES:  # "age: int", as in Python
            kind, about = about, ""
        described = {"description": about} if about else {}
        is_optional = bool(found["early"]) or kind.endswith("?")
        schema = _parse_type(kind.removesuffix("?").strip() or "str", part)
        properties[found["name"]] = {
            **(_make_nullable(schema) if is_optional else schema),
            **described,
        }
        if not is_optional:
            required.append(found["name"])
    if not properties:
        msg = "The schema has no fields."
        raise ConfigurationError(msg, hint='Example: "name, age int, tags list[str]".')
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _split_fields(text: str) -> list[str]:
    """Split ``text`` at commas and line ends outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character in ",\n" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _make_nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``schema`` with null as an alternative."""
    kinds = schema.get("anyOf", [schema])
    nothing = {"type": "null"}
    return {"anyOf": kinds if nothing in kinds else [*kinds, nothing]}


def _parse_type(name: str, part: str) -> dict[str, Any]:
    name = name.strip()
    if name.endswith("?"):
        return _make_nullable(_parse_type(name[:-1], part))
    if name.startswith("list[") and name.endswith("]"):
        return {"type": "array", "items": _parse_type(name[5:-1], part)}
    if name == "list":
        return {"type": "array", "items": {"type": "string"}}
    if "|" in name:
        return _parse_choice([each.strip() for each in name.split("|")], part)
    if name not in _TYPES:
        msg = f'"{part}" has an unknown type.'
        hint = f"{nearest(name, [*_TYPES, 'list'])} A choice is written red|green|blue."
        raise ConfigurationError(msg, hint=hint)
    return dict(_TYPES[name])


def _parse_choice(names: list[str], part: str) -> dict[str, Any]:
    """Parse alternatives: types if all names are types (``int|None``), otherwise strings."""
    if all(name in _TYPES or name in ("None", "null") for name in names):
        nothing = {"type": "null"}
        kinds = [
            nothing if name in ("None", "null") else _parse_type(name, part) for name in names
        ]
        return {"anyOf": kinds}
    return {"enum": names}


def close_objects(schema: Any) -> Any:
    """Return ``schema`` with objects that accept no other fields; some services require it."""
    if isinstance(schema, list):
        return [close_objects(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {name: close_objects(value) for name, value in schema.items()}
    if copy.get("type") == "object" and "properties" in copy:
        copy.setdefault("additionalProperties", False)
    return copy


def is_strict(schema: Any) -> bool:
    """Whether OpenAI's strict mode accepts ``schema``: all objects closed, all fields required."""
    if isinstance(schema, list):
        return all(is_strict(each) for each in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object":
        names = set(schema.get("properties", {}))
        if schema.get("additionalProperties") is not False or names != set(
            schema.get("required", ())
        ):
            return False
    return all(is_strict(each) for each in schema.values())


@dataclass(frozen=True, slots=True)
class _Checker:
    """
    A schema compiled for repeated validation.

    Attributes:
        schema: the JSON schema.
        accept: a function that returns the validated value, or raises a `ParseError` with the
            mismatches.
    """

    schema: Mapping[str, Any]
    accept: Callable[[Any], Any]


def validate_answer(value: Any, spec: Any) -> Any:
    """
    Validate ``value`` against ``spec`` and return it, as an instance if ``spec`` is a class.

    A null in an optional field counts as missing, because services that require all fields send
    null for missing ones.

    Raises:
        ParseError: the value does not match; the message names the mismatches.
    """
    return _validate(value, _get_checker(spec))[1]


def validate_json(value: Any, spec: Any) -> Any:
    """
    Validate ``value`` against ``spec`` and return it as a JSON value.

    Raises:
        ParseError: the value does not match.
    """
    return _validate(value, _get_checker(spec))[0]


def _validate(value: Any, checker: _Checker) -> tuple[Any, Any]:
    """Return the matching JSON value, and the validated value."""
    try:
        return value, checker.accept(value)
    except ParseError:
        pruned = drop_nulls(value, checker.schema)
        if pruned == value:
            raise
        return pruned, checker.accept(pruned)


def _get_checker(spec: Any) -> _Checker:
    if isinstance(spec, Mapping):
        return _json_checker(json.dumps(dict(spec), default=str))
    if isinstance(spec, str):
        return _json_checker(spec)
    try:
        return _class_checker(spec)
    except TypeError:  # not hashable
        return _class_checker.__wrapped__(spec)


@lru_cache(maxsize=64)
def _json_checker(text: str) -> _Checker:
    from jsonschema import Draft202012Validator, FormatChecker

    schema = parse_schema(text)
    validator = Draft202012Validator(schema, format_checker=FormatChecker())

    def accept(value: Any) -> Any:
        _check_json(value, validator)
        return value

    return _Checker(schema, accept)


@lru_cache(maxsize=64)
def _class_checker(spec: Any) -> _Checker:
    from pydantic import TypeAdapter, ValidationError

    schema = parse_schema(spec)
    adapter = TypeAdapter(spec)

    def accept(value: Any) -> Any:
        try:
            return adapter.validate_python(value, strict=False)
        except ValidationError as error:
            found = [(each["loc"], each["msg"]) for each in error.errors()]
            raise _mismatch_error(found) from None

    return _Checker(schema, accept)


def _check_json(value: Any, validator: Any) -> None:
    from referencing.exceptions import Unresolvable

    try:
        errors = sorted(validator.iter_errors(value), key=lambda each: len(each.path))
    except (Unresolvable, RecursionError) as problem:
        msg = f"The schema has an unresolved or circular reference: {str(problem)[:200]}"
        raise ConfigurationError(msg, hint="Check its $ref.") from None
    if errors:
        raise _mismatch_error([(each.absolute_path, each.message) for each in errors])


def drop_nulls(value: Any, schema: Any, root: Any = None) -> Any:
    """Return ``value`` without nulls in optional fields that do not accept null."""
    root = schema if root is None else root
    for _ in range(_MAX_REFERENCES):
        if not isinstance(schema, Mapping) or "$ref" not in schema:
            break
        schema = _resolve_reference(root, schema["$ref"])
    if not isinstance(schema, Mapping):
        return value
    for part in schema.get("allOf") or ():
        value = drop_nulls(value, part, root)
    for branch in schema.get("anyOf") or schema.get("oneOf") or ():
        pruned = drop_nulls(value, branch, root)
        if pruned != value and _accepts(branch, pruned, root):
            return pruned
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        return [drop_nulls(each, schema["items"], root) for each in value]
    return _drop_null_fields(value, schema, root) if isinstance(value, dict) else value


def _drop_null_fields(
    value: dict[str, Any], schema: Mapping[str, Any], root: Any
) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return value
    required = schema.get("required") or ()
    return {
        name: drop_nulls(each, properties.get(name), root)
        for name, each in value.items()
        if each is not None
        or name in required
        or name not in properties
        or _accepts(properties[name], None, root)
    }


def _accepts(schema: Any, value: Any, root: Mapping[str, Any]) -> bool:
    from jsonschema import Draft202012Validator
    from referencing.exceptions import Unresolvable

    if not isinstance(schema, Mapping):
        return bool(schema)
    named = {name: root[name] for name in ("$defs", "definitions") if name in root}
    try:
        return bool(Draft202012Validator({**named, **schema}).is_valid(value))
    except (Unresolvable, RecursionError):
        return False


def _resolve_reference(root: Any, reference: Any) -> Any:
    """Return the target of a local reference; ``None`` if it does not exist."""
    found = root
    for part in str(reference).removeprefix("#").strip("/").split("/"):
        if part:
            found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _mismatch_error(found: Sequence[tuple[Iterable[Any], str]]) -> ParseError:
    """Return an error that lists the first mismatches with their paths and reasons."""
    places = [
        f"at answer{''.join(f'.{part}' for part in where)}: {why[:200]}"
        for where, why in found[:_MAX_MISMATCHES]
    ]
    more = f"; and {len(found) - len(places)} more" if len(found) > len(places) else ""
    msg = f"The answer does not match the schema {'; '.join(places)}{more}"
    return ParseError(msg, hint="The raw answer is in .text. Try again, or simplify the schema.")
