"""
Whether an answer is right, as a number: 1 is right, 0 is wrong.

    lm.compare(prompts, models, expected=["Paris", "42"], score="exact")
    lm.compare(prompts, models, score=[scorers.json_valid(), scorers.fits("name, age int")])
    lm.compare(prompts, models, score=lambda answer: len(answer) < 100)

A scorer is any function of the answer, or of the answer and what was expected, to a number or a
truth. Those here have a name, which can be passed instead, and which is in the name of their column:
``score_exact``. An answer that failed scores 0: none is no right one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llm_magics.benchmarking.judge import judge
from llm_magics.errors import ParseError, UsageError, nearest
from llm_magics.runtime.parsing import parse_json
from llm_magics.schemas import parse_schema, validate_answer

# Of an answer, and of what was expected.
Score = Callable[[str, Any], float | bool]


__all__ = [
    "Scorer",
    "contains",
    "exact",
    "fits",
    "json_valid",
    "judge",
    "numeric",
    "regex",
    "similar",
]


@dataclass(frozen=True)
class Scorer:
    """
    A score and what its column is called.

    Attributes:
        needs_expected: whether there must be something that is expected.
    """

    name: str
    score: Score
    needs_expected: bool = False


def exact(*, ignore_case: bool = True) -> Scorer:
    """
    Whether the answer equals the expected text, ignoring surrounding space and a final full
    stop.
    """

    def score(answer: str, expected: Any) -> bool:
        return _normalize(answer, ignore_case) == _normalize(expected, ignore_case)

    return Scorer("exact", score, needs_expected=True)


def contains(*, ignore_case: bool = True) -> Scorer:
    """Whether the answer contains the expected text as a word; a list: all of its texts."""

    def score(answer: str, expected: Any) -> bool:
        parts = expected if isinstance(expected, list | tuple | set) else [expected]
        flags = re.IGNORECASE if ignore_case else 0
        return all(
            re.search(rf"(?<!\w){re.escape(str(part))}(?!\w)", answer, flags) for part in parts
        )

    return Scorer("contains", score, needs_expected=True)


def regex(pattern: str | None = None) -> Scorer:
    """Whether ``pattern``, or the expected pattern, matches the answer."""
    try:
        known = None if pattern is None else re.compile(pattern)
    except re.error as error:
        msg = f"Invalid regular expression {pattern!r:.60}: {error}."
        raise UsageError(msg, hint="See https://docs.python.org/3/library/re.html") from None

    def score(answer: str, expected: Any) -> bool:
        return bool(known.search(answer) if known else re.search(str(expected), answer))

    return Scorer("regex", score, needs_expected=pattern is None)


def json_valid() -> Scorer:
    """Whether the answer contains a JSON value, also in a fenced block."""

    def score(answer: str, _: Any) -> bool:
        return _succeeds(lambda: parse_json(answer))

    return Scorer("json_valid", score)


def fits(schema: Any) -> Scorer:
    """
    Whether the JSON in the answer matches ``schema``: a pydantic class, a JSON schema, or
    short field definitions.
    """
    parsed_schema = parse_schema(schema)

    def score(answer: str, _: Any) -> bool:
        return _succeeds(lambda: validate_answer(parse_json(answer), parsed_schema))

    return Scorer("fits", score)


def numeric(*, rel: float = 1e-6, abs: float = 1e-9) -> Scorer:  # noqa: A002 (as in math.isclose)
    """
    Whether the last number in the answer equals the expected one, within ``rel`` (relative)
    or ``abs``.
    """

    def score(answer: str, expected: Any) -> bool:
        found, expected_numbers = _find_numbers(answer), _find_numbers(str(expected))
        if not expected_numbers:
            msg = f"{expected!r:.40} is not a number"
            raise ValueError(msg)
        if not found:
            return False
        return _is_close(found[-1], expected_numbers[-1], rel, abs)

    return Scorer("numeric", score, needs_expected=True)


def similar(model: str | None = None) -> Scorer:
    """The cosine similarity of the answer and the expected text, at least 0."""

    def score(answer: str, expected: Any) -> float:
        from llm_magics.dataframes.embed import embed

        if not answer.strip():
            return 0.0
        one, other = embed([answer, str(expected)], model=model)
        cosine = float(one @ other / ((one @ one) * (other @ other)) ** 0.5)
        return max(0.0, cosine)

    return Scorer("similar", score, needs_expected=True)


SCORERS: dict[str, Callable[[], Scorer]] = {
    "exact": exact,
    "contains": contains,
    "regex": regex,
    "json_valid": json_valid,
    "numeric": numeric,
    "similar": similar,
}


def named(name: str) -> Scorer:
    """
    The scorer that is called so.

    Raises:
        UsageError: there is none.
    """
    if name not in SCORERS:
        msg = f"Unknown score: {name!r:.60}."
        raise UsageError(msg, hint=nearest(name, [*SCORERS, "judge"]))
    return SCORERS[name]()


def _normalize(value: Any, ignore_case: bool) -> str:
    if isinstance(value, float) and value.is_integer():  # integers, in a column with gaps
        value = int(value)
    text = " ".join(str(value).split()).removesuffix(".")
    return text.casefold() if ignore_case else text


def _succeeds(find: Callable[[], Any]) -> bool:
    try:
        find()
    except ParseError:
        return False
    return True


# A hyphen between two numbers is none of a minus.
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-+−])?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?"
)


def _find_numbers(text: str) -> list[float]:
    candidates = (match.replace(",", "").replace("−", "-") for match in _NUMBER.findall(text))
    return [float(each) for each in candidates if re.search(r"\d", each) and _is_number(each)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_close(one: float, other: float, rel: float, abs_: float) -> bool:
    return abs(one - other) <= max(rel * abs(other), abs_)
