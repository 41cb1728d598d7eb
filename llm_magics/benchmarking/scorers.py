"""
Scorers: functions that rate an answer from 0 (wrong) to 1 (right).

    lm.compare(prompts, models, expected=["Paris", "42"], score="exact")
    lm.compare(prompts, models, score=[scorers.json_valid(), scorers.fits("name, age int")])
    lm.compare(prompts, models, score=lambda answer: len(answer) < 100)
    lm.evaluate(prompt, data, models, score=lambda answer, row: row["city"] in answer)

A scorer is any function of the answer, or of the answer and the expected answer, that returns a
number or a boolean. If it has a parameter called ``row``, it gets a ``pandas.Series``: in
``lm.evaluate`` the columns of the item, elsewhere those of the measurement. Most scorers of this module can also be passed by name. The name of a scorer is
part of the name of its column: ``score_exact``. A failed request scores 0.
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

# A function of an answer and the expected answer.
Score = Callable[[str, Any], float | bool]
# A function of an answer, the expected answer and the row, a Series.
RowScore = Callable[[str, Any, Any], float | bool]


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
    A scoring function and the name of its column.

    Attributes:
        name: the name of the column, without ``score_``.
        score: a function of the answer and the expected answer.
        needs_expected: whether an expected answer is required.
    """

    name: str
    score: Score
    needs_expected: bool = False


@dataclass(frozen=True)
class RowScorer:
    """
    A scoring function that reads the row of the answer, and the name of its column.

    Attributes:
        name: the name of the column, without ``score_``.
        score: a function of the answer, the expected answer and the row.
    """

    name: str
    score: RowScore


def exact(*, ignore_case: bool = True) -> Scorer:
    """
    Check that the answer equals the expected text, ignoring outer space and a final period.

    Expected lists and mappings are compared with the JSON value in the answer.
    """

    def score(answer: str, expected: Any) -> bool:
        if isinstance(expected, list | dict):
            return _equals_json(answer, expected)
        return _normalize(answer, ignore_case) == _normalize(expected, ignore_case)

    return Scorer("exact", score, needs_expected=True)


def contains(*, ignore_case: bool = True) -> Scorer:
    """Check that the answer contains the expected text as a word, or each text of a list."""

    def score(answer: str, expected: Any) -> bool:
        parts = expected if isinstance(expected, list | tuple | set) else [expected]
        flags = re.IGNORECASE if ignore_case else 0
        return all(
            re.search(rf"(?<!\w){re.escape(str(part))}(?!\w)", answer, flags) for part in parts
        )

    return Scorer("contains", score, needs_expected=True)


def regex(pattern: str | None = None) -> Scorer:
    """Check that ``pattern``, or by default the expected pattern, matches in the answer."""
    try:
        known = None if pattern is None else re.compile(pattern)
    except re.error as error:
        msg = f"Invalid regular expression {pattern!r:.60}: {error}."
        raise UsageError(msg, hint="See https://docs.python.org/3/library/re.html") from None

    def score(answer: str, expected: Any) -> bool:
        return bool(known.search(answer) if known else re.search(str(expected), answer))

    return Scorer("regex", score, needs_expected=pattern is None)


def json_valid() -> Scorer:
    """Check that the answer contains a JSON value, which may be in a fenced block."""

    def score(answer: str, _: Any) -> bool:
        return _succeeds(lambda: parse_json(answer))

    return Scorer("json_valid", score)


def fits(schema: Any) -> Scorer:
    """
    Check that the JSON in the answer matches ``schema``.

    Args:
        schema: a pydantic class, a JSON schema, or short field definitions.
    """
    parsed_schema = parse_schema(schema)

    def score(answer: str, _: Any) -> bool:
        return _succeeds(lambda: validate_answer(parse_json(answer), parsed_schema))

    return Scorer("fits", score)


def numeric(*, rel: float = 1e-6, abs: float = 1e-9) -> Scorer:  # noqa: A002 (as in math.isclose)
    """
    Check that the last number in the answer equals the expected number.

    Args:
        rel: the relative tolerance.
        abs: the absolute tolerance; the larger of the two tolerances applies.
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
    """Score the cosine similarity of the answer and the expected text, at least 0."""

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
    Return the scorer called ``name``.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in SCORERS:
        msg = f"Unknown score: {name!r:.60}."
        raise UsageError(msg, hint=nearest(name, [*SCORERS, "judge"]))
    return SCORERS[name]()


def _normalize(value: Any, ignore_case: bool) -> str:
    if isinstance(value, float) and value.is_integer():  # pandas: integers with missing values
        value = int(value)
    text = " ".join(str(value).split()).removesuffix(".")
    return text.casefold() if ignore_case else text


def _equals_json(answer: str, expected: Any) -> bool:
    try:
        return bool(parse_json(answer) == expected)
    except ParseError:
        return False


def _succeeds(find: Callable[[], Any]) -> bool:
    try:
        find()
    except ParseError:
        return False
    return True


# A hyphen between two numbers is not a minus sign.
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
