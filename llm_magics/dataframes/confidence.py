"""
Labels and confidences of rows, from the log probabilities of their answers.

The confidence in a value of a fixed set (a label, ``true``) is its probability among the values of
the set: see `llm_magics.runtime.label_scores`. The confidence in any other value is the probability
of its tokens, exactly as they are in the answer. An answer whose tokens cannot be matched with its
JSON has no confidence.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_magics.host import warn
from llm_magics.runtime.label_scores import (
    calibrate,
    label_probabilities,
    value_probability,
)

if TYPE_CHECKING:
    from llm_magics.dataframes.prompt_run import RowPromptRun
    from llm_magics.runtime.response import Response
    from llm_magics.types import TokenLogprob

_DECODER = json.JSONDecoder()
_SPACE = " \t\n\r"

# The length of texts of which few are different, as labels are.
_SHORT = 64


def confidence_name(field: str) -> str:
    """Return the name of the column with the confidence in ``field``."""
    return f"{field}_confidence"


def scored_values(run: RowPromptRun, field: str) -> dict[str, list[Any]]:
    """Return the most probable label for each distinct prompt, and its calibrated probability."""
    biases = [_scores(each) for each in run.neutral]
    values: dict[str, list[Any]] = {field: [], confidence_name(field): []}
    for response in run.answers():
        label = probability = None
        if response is not None:
            probabilities = calibrate(_scores(response), biases)
            label = max(probabilities, key=probabilities.__getitem__)
            probability = probabilities[label]
        values[field].append(label)
        values[confidence_name(field)].append(probability)
    return values


def field_values(run: RowPromptRun, fields: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return each field for each distinct prompt, with its confidence if that is requested."""
    has_confidence = run.spec.confidence
    names = [*fields, *(confidence_name(each) for each in fields if has_confidence)]
    values: dict[str, list[Any]] = {name: [] for name in names}
    incomplete = 0
    for response, rows in zip(run.answers(), run.row_counts.tolist(), strict=True):
        value = None if response is None else response.json()
        record = dict(value) if isinstance(value, dict) else {}
        if has_confidence and response is not None:
            found = field_confidences(response, fields)
            incomplete += rows * any(name not in found for name in record if name in fields)
            record |= {confidence_name(name): value for name, value in found.items()}
        for name in names:
            values[name].append(_shared(record.get(name)))
    if incomplete:
        warn(
            f"The confidence is missing in {incomplete:,} rows: "
            "the tokens that the service returned are not those of the answer."
        )
    return values


def _shared(value: Any) -> Any:
    """Return a short text, such as a label, as one object for all equal ones."""
    return sys.intern(value) if type(value) is str and len(value) <= _SHORT else value


def _scores(response: Response) -> dict[str, float]:
    (scored,) = response.token_logprobs
    return {each.token: each.logprob for each in scored.top}


def field_confidences(response: Response, fields: Mapping[str, Any]) -> dict[str, float]:
    """
    Return the confidence in each field of an answer, if it is known.

    Args:
        response: the answer, with the log probabilities of its tokens.
        fields: the schema of each field by name.
    """
    tokens = response.token_logprobs
    data = b"".join(each.as_bytes for each in tokens)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {}
    spans = find_spans(text, response.json())
    found: dict[str, float] = {}
    for name, (start, end) in spans.items():
        if name not in fields:
            continue
        first, last = len(text[:start].encode()), len(text[:end].encode())
        values = _fixed_values(fields[name])
        confidence = (
            _choice_confidence(tokens, text, (start, end), values)
            if values is not None
            else value_probability(tokens, first, last)
        )
        if confidence is not None:
            found[name] = confidence
    return found


def _fixed_values(schema: Any) -> list[Any] | None:
    """Return the values that a field can have; ``None`` if they are not a fixed set."""
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema:
        return [schema["const"]]
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"])
    if schema.get("type") in ("boolean", "null"):
        return [True, False] if schema["type"] == "boolean" else [None]
    branches = schema.get("anyOf")
    if not isinstance(branches, list) or not branches:
        return None
    parts = [_fixed_values(each) for each in branches]
    return [value for part in parts for value in part or ()] if all(parts) else None


def _choice_confidence(
    tokens: Sequence[TokenLogprob], text: str, span: tuple[int, int], values: Sequence[Any]
) -> float | None:
    """Return the probability of the value at ``span`` among ``values``."""
    start, end = span
    said = text[start:end]
    if len(values) == 1:
        return 1.0
    # What follows the value ends it: 1 is not the beginning of 10.
    following = text[end : end + 1].encode()
    candidates = {_as_json(value, said): _as_json(value, said).encode() for value in values}
    if said not in candidates:
        return None
    ended = {name: each + following for name, each in candidates.items()}
    probabilities = label_probabilities(tokens, len(text[:start].encode()), ended)
    return None if probabilities is None else probabilities[said]


def _as_json(value: Any, said: str) -> str:
    """Return ``value`` as JSON; as ``said`` if that is the same value, written differently."""
    try:
        if json.loads(said) == value and type(json.loads(said)) is type(value):
            return said
    except ValueError:
        pass
    return json.dumps(value, ensure_ascii="\\u" in said)


def find_spans(text: str, value: Any) -> dict[str, tuple[int, int]]:
    """
    Return the position of each field of ``value`` in ``text``, which contains it as a JSON object.

    If there are several such objects, it is the last one; if there is none, the dict is empty.
    """
    if not isinstance(value, dict):
        return {}
    start = text.rfind("{")
    while start >= 0:
        try:
            found, _ = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            found = None
        if found == value:
            return _spans_of(text, start)
        start = text.rfind("{", 0, start)
    return {}


def _spans_of(text: str, start: int) -> dict[str, tuple[int, int]]:
    """Return the positions of the values in the valid object at ``start``."""
    spans: dict[str, tuple[int, int]] = {}
    at = _skip_space(text, start + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        at = _skip_space(text, _skip_space(text, at) + 1)  # the colon
        _, end = _DECODER.raw_decode(text, at)
        spans[name] = (at, end)
        at = _skip_space(text, end)
        if text[at] == ",":
            at = _skip_space(text, at + 1)
    return spans


def _skip_space(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at
