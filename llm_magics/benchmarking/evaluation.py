"""Scoring of answers: compute scores and add them as columns."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import wraps
from typing import Any

import pandas as pd

from llm_magics._util.text import pluralize
from llm_magics.benchmarking import judge as judging
from llm_magics.benchmarking import scorers
from llm_magics.benchmarking.analysis import SCORE_PREFIX, occurrences, score_columns
from llm_magics.benchmarking.judge import Judge
from llm_magics.benchmarking.scorers import RowScorer, Scorer
from llm_magics.errors import LLMError, UsageError
from llm_magics.host import warn

AnyScorer = Scorer | RowScorer | Judge
# Returns a Series for each row of a frame, for scorers that read it.
ReadRows = Callable[[pd.DataFrame], Sequence[Any]]


def parse_scorers(score: Any) -> list[AnyScorer]:
    """
    Return the scorers that ``score`` specifies.

    Args:
        score: a scorer, its name or a function; a list of these; or a mapping from column
            names (without ``score_``) to these.

    Raises:
        UsageError: a value is not a scorer, its name or a function.
    """
    if score is None:
        return []
    if isinstance(score, Mapping):
        return [_parse_scorer(each, str(name)) for name, each in score.items()]
    if isinstance(score, list | tuple):
        return _make_unique([_parse_scorer(each) for each in score])
    return [_parse_scorer(score)]


def _make_unique(parsed: list[AnyScorer]) -> list[AnyScorer]:
    """Number scorers that have the same name, so that each has its own column."""
    unique: list[AnyScorer] = []
    for each in parsed:
        count = sum(other.name == each.name for other in parsed[: len(unique)])
        unique.append(replace(each, name=f"{each.name}_{count + 1}") if count else each)
    return unique


def _parse_scorer(score: Any, name: str | None = None) -> AnyScorer:
    if score in ("judge", judging.judge):
        score = judging.judge()
    if isinstance(score, str):
        score = scorers.named(score)
    if isinstance(score, Judge):
        return replace(score, name=name or score.name)
    if isinstance(score, Scorer):
        return Scorer(name or score.name, score.score, score.needs_expected)
    if isinstance(score, RowScorer):
        return RowScorer(name or score.name, score.score)
    if score in scorers.SCORERS.values():  # scorers.exact instead of scorers.exact()
        return _parse_scorer(score(), name)
    if callable(score):
        name = name or _function_name(score)
        row_score = _with_row(score)
        return (
            RowScorer(name, row_score) if row_score else Scorer(name, _with_two_arguments(score))
        )
    msg = f"Invalid score: {score!r:.60}."
    raise UsageError(
        msg, hint='Pass a function of the answer, or the name of a scorer such as "exact".'
    )


def _function_name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "score")
    return name if name.isidentifier() else "function"


def _with_row(function: Callable[..., Any]) -> scorers.RowScore | None:
    """Return ``function`` with three arguments if it has a parameter ``row``, otherwise ``None``."""
    try:
        signature = inspect.signature(function)
        if "row" not in signature.parameters:
            return None
        has_expected = _can_bind(signature, "answer", "expected", row={})
    except (TypeError, ValueError):  # it has no signature (written in C)
        return None

    def score(answer: str, expected: Any, row: Any) -> Any:
        arguments = (answer, expected) if has_expected else (answer,)
        return function(*arguments, row=row)

    return wraps(function)(score)


def _can_bind(signature: inspect.Signature, *args: Any, **kwargs: Any) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _with_two_arguments(function: Callable[..., Any]) -> scorers.Score:
    """Return ``function`` as a function of the answer and the expected answer."""
    try:
        signature = inspect.signature(function)
        signature.bind("answer", "expected")
    except (TypeError, ValueError):  # it takes one argument, or it has no signature (written in C)

        def score(answer: str, _: Any) -> Any:
            return function(answer)

        return wraps(function)(score)
    return function


def expected_by_row(frame: pd.DataFrame, expected: Any) -> list[Any]:
    """
    Return the expected answer of each row.

    Args:
        expected: see `expected_by_prompt`; or one value per row of one model and repeat if a prompt
            occurs more than once. By default the column ``expected``.

    Raises:
        UsageError: the number of values differs from the number of prompts.
    """
    if expected is None:
        return frame["expected"].tolist() if "expected" in frame else [None] * len(frame)
    prompts = list(dict.fromkeys(frame["prompt"]))
    rows = occurrences(frame)
    keys = list(dict.fromkeys(rows))
    is_list = isinstance(expected, Iterable) and not isinstance(
        expected, str | Mapping | AbstractSet
    )
    if is_list and len(prompts) < len(keys) == len(values := list(expected)):
        by_row = dict(zip(keys, values, strict=True))  # a prompt occurs more than once
        return [by_row[row] for row in rows]
    by_prompt = dict(zip(prompts, expected_by_prompt(prompts, expected), strict=True))
    return [by_prompt[prompt] for prompt in frame["prompt"]]


def expected_by_prompt(prompts: Sequence[str], expected: Any) -> list[Any]:
    """
    Return the expected answer of each of ``prompts``.

    Args:
        expected: one value for all prompts, one value per prompt in the same order, or a
            mapping from prompts.

    Raises:
        UsageError: the number of values differs from the number of prompts, the values have
            no order (a set), or the mapping contains none of the prompts.
    """
    if isinstance(expected, Mapping):
        if not set(prompts) & set(expected):
            msg = "expected contains none of the prompts."
            raise UsageError(msg, hint="Use the exact prompts as keys.")
        return [expected.get(prompt) for prompt in prompts]
    if isinstance(expected, set | frozenset):
        msg = "expected cannot be a set, because a set has no order."
        raise UsageError(msg, hint="Pass a list with one value per prompt.")
    if isinstance(expected, str) or not isinstance(expected, Iterable):
        return [expected] * len(prompts)
    values = list(expected)
    if len(values) != len(prompts):
        msg = f"expected has {len(values):,} values for {len(prompts):,} prompts."
        raise UsageError(
            msg, hint="Pass one value per prompt in the same order, or a dict keyed by prompt."
        )
    return values


def add_scores(
    frame: pd.DataFrame,
    score: Any,
    expected: Any = None,
    *,
    yes: bool = False,
    read_rows: ReadRows | None = None,
) -> None:
    """
    Insert the columns ``score_…`` into ``frame`` after the answers, and ``expected`` if given.

    A score that cannot be computed is NaN, with a warning; the other scores are computed.

    Args:
        read_rows: returns the rows for scorers that read them; by default those of ``frame``.
    """
    parsed = parse_scorers(score)
    right = expected_by_row(frame, expected)
    if expected is not None:
        frame["expected"] = pd.Series(right, index=frame.index, dtype="object")
    for each in parsed:
        scores = (
            _judge_scores(frame, each, yes)
            if isinstance(each, Judge)
            else _rule_scores(frame, each, right, read_rows or _records)
        )
        _insert_scores(frame, f"{SCORE_PREFIX}{each.name}", scores)


def _records(frame: pd.DataFrame) -> list[Any]:
    return [row for _, row in frame.iterrows()]


def _insert_scores(frame: pd.DataFrame, name: str, scores: list[float]) -> None:
    """Insert the column after the existing scores, or after the answers if there are none."""
    if name in frame:
        frame[name] = scores
        return
    columns = [str(each) for each in frame.columns]
    before = [*score_columns(frame)] or [each for each in ("text",) if each in columns]
    position = columns.index(before[-1]) + 1 if before else len(columns)
    frame.insert(position, name, scores)


def _judge_scores(frame: pd.DataFrame, judge: Judge, yes: bool) -> list[float]:
    try:
        found = judging.judge_pairs(frame, judge, yes=yes)
    except LLMError as error:
        msg = f"The judge failed; the answers are complete but have no judgement: {error} Judge them later with .scored(…)."
        warn(msg)
        return [math.nan] * len(frame)
    if found.unjudged:
        msg = f"The judge returned no verdict for {pluralize(found.unjudged, 'pair')}; these count for neither model."
        warn(msg)
    for name, value in (
        ("judges", found.agreed),
        ("judge_checks", judge.checked or ""),
        ("judge_costs_usd", found.cost_usd),
    ):
        frame.attrs[name] = {**frame.attrs.get(name, {}), judge.name: value}
    return found.scores


def rule_scorers(score: Any) -> list[Scorer | RowScorer]:
    """Return the scorers that do not call a model as a judge."""
    return [each for each in parse_scorers(score) if not isinstance(each, Judge)]


def check_scorers(
    score: Any,
    expected: Any,
    models: int,
    hint: str = "Pass expected=[…] with one value per prompt.",
) -> None:
    """
    Check ``score`` before anything is sent; the ``hint`` says how to add expected answers.

    Raises:
        UsageError: a score is invalid, needs expected answers that are missing, or is a judge
            although there is only one model.
    """
    for each in parse_scorers(score):
        if isinstance(each, Judge) and models < 2:
            msg = "A judge compares two answers, but there is only one model."
            raise UsageError(msg, hint="Pass at least two models.")
        if isinstance(each, Scorer) and each.needs_expected and expected is None:
            msg = f"The score {each.name} needs expected answers."
            raise UsageError(msg, hint=hint)


def _rule_scores(
    frame: pd.DataFrame, scorer: Scorer | RowScorer, expected: list[Any], read_rows: ReadRows
) -> list[float]:
    scores: list[float] = []
    wrong: list[BaseException] = []
    unknown = 0
    needs_expected = isinstance(scorer, Scorer) and scorer.needs_expected
    rows = read_rows(frame) if isinstance(scorer, RowScorer) else [None] * len(frame)
    columns = (frame["text"], frame["error"], expected, rows)
    for text, error, right, row in zip(*columns, strict=True):
        if error is not None and not pd.isna(error):
            scores.append(0.0)
        elif needs_expected and is_missing(right):
            unknown += 1
            scores.append(math.nan)
        else:
            arguments = (text, right, row) if isinstance(scorer, RowScorer) else (text, right)
            scores.append(_score_answer(scorer.score, arguments, wrong))
    if wrong:
        msg = (
            f"The score {scorer.name} failed for {len(wrong):,} of {len(frame):,} answers"
            f" ({type(wrong[0]).__name__}: {wrong[0]}); they have no score."
        )
        warn(msg)
    if unknown:
        msg = f"For {unknown:,} of {len(frame):,} answers expected has no value: they have no score {scorer.name}."
        warn(msg)
    return scores


def _score_answer(
    score: Callable[..., Any], arguments: tuple[Any, ...], wrong: list[BaseException]
) -> float:
    try:
        found = float(score(*arguments))
    except (Exception, SystemExit) as failure:  # user code must not discard paid answers
        wrong.append(failure)
        return math.nan
    if math.isinf(found):
        wrong.append(ValueError("not a finite number"))
        return math.nan
    return found


def is_missing(value: Any) -> bool:
    """Whether ``value`` is missing: ``None``, NaN or ``pandas.NA``."""
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))
