"""
What an answer must look like: a JSON schema, however a user writes it, and the check of it.

A schema is given as a pydantic class (or anything pydantic knows: a dataclass, a TypedDict,
``list[int]``), as a JSON schema, or in short: ``"name, age int?, tags list[str]"``, where ``?``
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

# The types of the short form. What is not named is a text.
_TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
}

# So many places where an answer does not fit are told of.
_MOST_MISFITS = 3

# So many references are followed from one to the next: more lead in a circle.
_MOST_REFERENCES = 20

# One of these at least stands in every JSON schema that says anything.
_KEYWORDS = frozenset(
    ["type", "properties", "items", "enum", "const", "anyOf", "oneOf", "allOf", "not", "$ref"]
)

_FIELD = re.compile(
    r"(?P<name>\w+)(?P<early>\?)?(?:\s+(?P<type>[^:\s][^:]*?))?(?:\s*:\s*(?P<about>.+))?"
)


def schema_of(spec: Any) -> dict[str, Any]:
    """
    The JSON schema that ``spec`` stands for.

    >>> schema_of("name, age int, tags list[str]")["properties"]["tags"]
    {'type': 'array', 'items': {'type': 'string'}}

    Raises:
        ConfigurationError: it stands for none.
    """
    if isinstance(spec, Mapping):
        if spec and not _KEYWORDS & set(spec):
            msg = f"A schema has none of the words of JSON schemas: {list(spec)[:5]}."
            raise ConfigurationError(msg, hint='Write fields in short: "name, age int".')
        return _checked(dict(spec))
    if isinstance(spec, str):
        if spec.lstrip().startswith("{"):
            return _checked(_decoded(spec))
        return _short(spec)
    from pydantic import BaseModel, TypeAdapter
    from pydantic.errors import PydanticUserError

    # Of a function pydantic would take the arguments for what is wanted.
    if inspect.isroutine(spec) or isinstance(type(spec), type(BaseModel)):
        msg = f"{spec!r:.60} is no schema."
        raise ConfigurationError(
            msg, hint="Give a pydantic class, a JSON schema, or fields in short."
        )
    try:
        schema: dict[str, Any] = closed(TypeAdapter(spec).json_schema())
        return schema
    except PydanticUserError as error:
        msg = f"No schema can be made of {spec!r}: {error.message.splitlines()[0]}"
        raise ConfigurationError(
            msg, hint="Give a pydantic class, a JSON schema, or fields in short."
        ) from None


def _decoded(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except ValueError as error:
        msg = f"The schema is no valid JSON: {error}."
        raise ConfigurationError(msg, hint='Or write fields in short: "name, age int".') from None
    assert isinstance(schema, dict)  # it begins with a brace
    return schema


def _checked(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema``, which is one by the rules of JSON schemas."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path)
        msg = f"The schema is not valid{f' at {where}' if where else ''}: {error.message[:200]}"
        raise ConfigurationError(msg, hint="See https://json-schema.org.") from None
    return schema


def _short(text: str) -> dict[str, Any]:
    properties, required = {}, []
    for part in _parts(text):
        found = _FIELD.fullmatch(" ".join(part.split()))
        if found is not None and found["name"] in properties:
            msg = f'The schema names "{found["name"]}" twice.'
            raise ConfigurationError(msg, hint="Give each field a name of its own.")
        if found is None:
            msg = f'"{part}" is no field of a schema.'
            raise ConfigurationError(msg, hint='Write it like "name, age int, tags list[str]".')
        kind, about = (found["type"] or "").strip(), (found["about"] or "").strip()
        if not kind and about.removesuffix("?").strip() in _TYPES:  # "age: int", as in Python
            kind, about = about, ""
        described = {"description": about} if about else {}
        is_optional = bool(found["early"]) or kind.endswith("?")
        made = _type(kind.removesuffix("?").strip() or "str", part)
        properties[found["name"]] = {**(_or_null(made) if is_optional else made), **described}
        if not is_optional:
            required.append(found["name"])
    if not properties:
        msg = "The schema names no field."
        raise ConfigurationError(msg, hint='Write it like "name, age int, tags list[str]".')
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _parts(text: str) -> list[str]:
    """``text`` cut at commas and line ends that stand in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character in ",\n" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema``, accepting null too."""
    kinds = schema.get("anyOf", [schema])
    nothing = {"type": "null"}
    return {"anyOf": kinds if nothing in kinds else [*kinds, nothing]}


def _type(name: str, part: str) -> dict[str, Any]:
    name = name.strip()
    if name.endswith("?"):
        return _or_null(_type(name[:-1], part))
    if name.startswith("list[") and name.endswith("]"):
        return {"type": "array", "items": _type(name[5:-1], part)}
    if name == "list":
        return {"type": "array", "items": {"type": "string"}}
    if "|" in name:
        return _choice([each.strip() for each in name.split("|")], part)
    if name not in _TYPES:
        msg = f'"{part}" has no type that is known.'
        hint = f"{nearest(name, [*_TYPES, 'list'])} A choice is written red|green|blue."
        raise ConfigurationError(msg, hint=hint)
    return dict(_TYPES[name])


def _choice(names: list[str], part: str) -> dict[str, Any]:
    """Of types, where all of them are such (``int|None``); else of texts."""
    if all(name in _TYPES or name in ("None", "null") for name in names):
        nothing = {"type": "null"}
        kinds = [nothing if name in ("None", "null") else _type(name, part) for name in names]
        return {"anyOf": kinds}
    return {"enum": names}


def closed(schema: Any) -> Any:
    """``schema`` in which no object takes what is not named; some services insist on it."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(value) for name, value in schema.items()}
    if made.get("type") == "object" and "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


def is_strict(schema: Any) -> bool:
    """Whether every object in ``schema`` is closed and needs all it names, as OpenAI's strict mode."""
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
    What a schema was written as, ready to check many answers.

    Attributes:
        schema: as a JSON schema.
        accept: returns what a value becomes, or raises the `ParseError` that says where it does
            not fit.
    """

    schema: Mapping[str, Any]
    accept: Callable[[Any], Any]


def validated(value: Any, spec: Any) -> Any:
    """
    Return ``value``, which fits ``spec``: an instance of it where that is a class.

    A null in a field that may be left out counts as left out: services that must name every
    field send one.

    Raises:
        ParseError: it does not fit; the message says where.
    """
    return _fitting(value, _checker_of(spec))[1]


def fitted(value: Any, spec: Any) -> Any:
    """
    Return the JSON value itself, as it fits ``spec``.

    Raises:
        ParseError: it does not fit.
    """
    return _fitting(value, _checker_of(spec))[0]


def _fitting(value: Any, checker: _Checker) -> tuple[Any, Any]:
    """The value that fits, and what it becomes."""
    try:
        return value, checker.accept(value)
    except ParseError:
        pruned = without_nulls(value, checker.schema)
        if pruned == value:
            raise
        return pruned, checker.accept(pruned)


def _checker_of(spec: Any) -> _Checker:
    if isinstance(spec, Mapping):
        return _written(json.dumps(dict(spec), default=str))
    if isinstance(spec, str):
        return _written(spec)
    try:
        return _of_class(spec)
    except TypeError:  # what cannot be hashed
        return _of_class.__wrapped__(spec)


@lru_cache(maxsize=64)
def _written(text: str) -> _Checker:
    from jsonschema import Draft202012Validator, FormatChecker

    schema = schema_of(text)
    validator = Draft202012Validator(schema, format_checker=FormatChecker())

    def accept(value: Any) -> Any:
        _fits(value, validator)
        return value

    return _Checker(schema, accept)


@lru_cache(maxsize=64)
def _of_class(spec: Any) -> _Checker:
    from pydantic import TypeAdapter, ValidationError

    schema = schema_of(spec)
    adapter = TypeAdapter(spec)

    def accept(value: Any) -> Any:
        try:
            return adapter.validate_python(value, strict=False)
        except ValidationError as error:
            found = [(each["loc"], each["msg"]) for each in error.errors()]
            raise _misfit(found) from None

    return _Checker(schema, accept)


def _fits(value: Any, validator: Any) -> None:
    from referencing.exceptions import Unresolvable

    try:
        errors = sorted(validator.iter_errors(value), key=lambda each: len(each.path))
    except (Unresolvable, RecursionError) as problem:
        msg = f"The schema refers to what is not there, or to itself: {str(problem)[:200]}"
        raise ConfigurationError(msg, hint="Check its $ref.") from None
    if errors:
        raise _misfit([(each.absolute_path, each.message) for each in errors])


def without_nulls(value: Any, schema: Any, root: Any = None) -> Any:
    """Return ``value`` without the nulls of fields that may be left out and accept none."""
    root = schema if root is None else root
    for _ in range(_MOST_REFERENCES):
        if not isinstance(schema, Mapping) or "$ref" not in schema:
            break
        schema = _referred(root, schema["$ref"])
    if not isinstance(schema, Mapping):
        return value
    for part in schema.get("allOf") or ():
        value = without_nulls(value, part, root)
    for branch in schema.get("anyOf") or schema.get("oneOf") or ():
        pruned = without_nulls(value, branch, root)
        if pruned != value and _accepts(branch, pruned, root):
            return pruned
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        return [without_nulls(each, schema["items"], root) for each in value]
    return _with_fields(value, schema, root) if isinstance(value, dict) else value


def _with_fields(value: dict[str, Any], schema: Mapping[str, Any], root: Any) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return value
    required = schema.get("required") or ()
    return {
        name: without_nulls(each, properties.get(name), root)
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


def _referred(root: Any, reference: Any) -> Any:
    """What a local reference leads to; nothing where it leads nowhere."""
    found = root
    for part in str(reference).removeprefix("#").strip("/").split("/"):
        if part:
            found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _misfit(found: Sequence[tuple[Iterable[Any], str]]) -> ParseError:
    """The first few places where an answer does not fit, each with why."""
    places = [
        f"at answer{''.join(f'.{part}' for part in where)}: {why[:200]}"
        for where, why in found[:_MOST_MISFITS]
    ]
    more = f"; and {len(found) - len(places)} more" if len(found) > len(places) else ""
    msg = f"The answer does not fit the schema {'; '.join(places)}{more}"
    return ParseError(msg, hint="Read it as it is from .text, or ask again.")
