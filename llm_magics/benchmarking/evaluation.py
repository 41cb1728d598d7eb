"""Scores put beside the answers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import pandas as pd

from llm_magics.benchmarking import judge as judging
from llm_magics.benchmarking import scorers
from llm_magics.benchmarking.analysis import SCORE, occurrences, scores_of
from llm_magics.benchmarking.judge import Judge
from llm_magics.benchmarking.scorers import Scorer
from llm_magics.errors import LLMError, UsageError
from llm_magics.user_code import warn


def scorers_of(given: Any) -> list[Scorer | Judge]:
    """
    The scorers that were given: one or several, by name, as functions, or by column.

    Raises:
        UsageError: something is none.
    """
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [_one(each, str(name)) for name, each in given.items()]
    if isinstance(given, list | tuple):
        return _different([_one(each) for each in given])
    return [_one(given)]


def _different(made: list[Scorer | Judge]) -> list[Scorer | Judge]:
    """Two of the same name would be one column."""
    told: list[Scorer | Judge] = []
    for each in made:
        count = sum(other.name == each.name for other in made[: len(told)])
        told.append(replace(each, name=f"{each.name}_{count + 1}") if count else each)
    return told


def _one(given: Any, name: str | None = None) -> Scorer | Judge:
    if given in ("judge", judging.judge):
        given = judging.judge()
    if isinstance(given, str):
        given = scorers.named(given)
    if isinstance(given, Judge):
        return Judge(given.model, given.criteria, name or given.name)
    if isinstance(given, Scorer):
        return Scorer(name or given.name, given.score, given.needs_expected)
    if given in scorers.KNOWN.values():  # scorers.exact, with its call forgotten
        return _one(given(), name)
    if callable(given):
        return Scorer(name or _name_of(given), _of_two(given))
    msg = f"A score cannot be {given!r:.60}."
    raise UsageError(msg, hint='Give it a function of the answer, or a name like "exact".')


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "score")
    return name if name.isidentifier() else "function"


def _of_two(function: Callable[..., Any]) -> scorers.Score:
    """The function, called with what was expected where it takes that."""
    try:
        signature = inspect.signature(function)
        signature.bind("answer", "expected")
    except (TypeError, ValueError):  # it takes one, or is written in C and tells nothing of itself
        return lambda answer, _: function(answer)
    return function


def expected_of(frame: pd.DataFrame, expected: Any) -> list[Any]:
    """
    What is right for each row.

    Raises:
        UsageError: there are not as many as prompts.
    """
    if expected is None:
        return frame["expected"].tolist() if "expected" in frame else [None] * len(frame)
    prompts = list(dict.fromkeys(frame["prompt"]))
    rows = occurrences(frame)
    asked = list(dict.fromkeys(rows))
    is_list = isinstance(expected, Iterable) and not isinstance(
        expected, str | Mapping | AbstractSet
    )
    if is_list and len(prompts) < len(asked) == len(given := list(expected)):
        by_row = dict(zip(asked, given, strict=True))  # a prompt was asked more than once
        return [by_row[row] for row in rows]
    by_prompt = dict(zip(prompts, right_for(prompts, expected), strict=True))
    return [by_prompt[prompt] for prompt in frame["prompt"]]


def right_for(prompts: Sequence[str], expected: Any) -> list[Any]:
    """
    What is right for each of ``prompts``: one for all, one for each, or by prompt.

    Raises:
        UsageError: there are not as many as prompts.
    """
    if isinstance(expected, Mapping):
        if not set(prompts) & set(expected):
            msg = "expected has none of the prompts."
            raise UsageError(msg, hint="Its keys are the prompts, word for word.")
        return [expected.get(prompt) for prompt in prompts]
    if isinstance(expected, set | frozenset):
        msg = "expected cannot be a set, which has no order."
        raise UsageError(msg, hint="Give it a list, one for each prompt.")
    if isinstance(expected, str) or not isinstance(expected, Iterable):
        return [expected] * len(prompts)
    given = list(expected)
    if len(given) != len(prompts):
        msg = f"expected has {len(given):,} values, and there are {len(prompts):,} prompts."
        raise UsageError(msg, hint="Give one for each prompt, in their order, or by prompt.")
    return given


def add_scores(
    frame: pd.DataFrame, score: Any, expected: Any = None, *, yes: bool = False
) -> None:
    """
    Put the columns ``score_…`` into ``frame``, behind the answers, and ``expected`` if given.

    A score that cannot be made is missing, with a warning; the others are there.
    """
    wanted = scorers_of(score)
    right = expected_of(frame, expected)
    if expected is not None:
        frame["expected"] = pd.Series(right, index=frame.index, dtype="object")
    for each in wanted:
        scores = (
            _judged(frame, each, yes) if isinstance(each, Judge) else _scores(frame, each, right)
        )
        _put(frame, f"{SCORE}{each.name}", scores)


def _put(frame: pd.DataFrame, name: str, scores: list[float]) -> None:
    """Behind the scores that are there, or behind the answers."""
    if name in frame:
        frame[name] = scores
        return
    columns = [str(each) for each in frame.columns]
    before = [*scores_of(frame)] or [each for each in ("text",) if each in columns]
    place = columns.index(before[-1]) + 1 if before else len(columns)
    frame.insert(place, name, scores)


def _judged(frame: pd.DataFrame, judge: Judge, yes: bool) -> list[float]:
    try:
        scores, agreed, silent = judging.verdicts(frame, judge, yes=yes)
    except LLMError as error:
        msg = f"The answers are there, and the judge could not be asked: {error} Try .scored(…)."
        warn(msg)
        return [math.nan] * len(frame)
    if silent:
        msg = f"The judge gave no verdict {silent:,} times; those pairs count for nobody."
        warn(msg)
    frame.attrs["judges"] = {**frame.attrs.get("judges", {}), judge.name: agreed}
    return scores


def by_rule(score: Any) -> list[Scorer]:
    """Those of the scorers that ask nobody."""
    return [each for each in scorers_of(score) if isinstance(each, Scorer)]


def check(score: Any, expected: Any, models: int) -> None:
    """
    Slips are told of before anything is sent.

    Raises:
        UsageError: a score is none, needs to know what is right, or has nothing to compare.
    """
    for each in scorers_of(score):
        if isinstance(each, Judge) and models < 2:
            msg = "A judge says which of two answers is better, and there is one model."
            raise UsageError(msg, hint="Name two models at least.")
        if isinstance(each, Scorer) and each.needs_expected and expected is None:
            msg = f"The score {each.name} needs to know what is right."
            raise UsageError(msg, hint="Give expected=[…], one for each prompt.")


def _scores(frame: pd.DataFrame, scorer: Scorer, expected: list[Any]) -> list[float]:
    told: list[float] = []
    wrong: list[BaseException] = []
    unknown = 0
    for text, error, right in zip(frame["text"], frame["error"], expected, strict=True):
        if error is not None and not pd.isna(error):
            told.append(0.0)
        elif scorer.needs_expected and is_missing(right):
            unknown += 1
            told.append(math.nan)
        else:
            told.append(_score(scorer, text, right, wrong))
    if wrong:
        msg = (
            f"The score {scorer.name} failed for {len(wrong):,} of {len(frame):,} answers"
            f" ({type(wrong[0]).__name__}: {wrong[0]}); it is missing there."
        )
        warn(msg)
    if unknown:
        msg = f"For {unknown:,} of {len(frame):,} answers nobody said what is right: {scorer.name} is missing there."
        warn(msg)
    return told


def _score(scorer: Scorer, text: Any, right: Any, wrong: list[BaseException]) -> float:
    try:
        score = float(scorer.score(text, right))
    except (Exception, SystemExit) as failure:  # the user's own code: paid answers outlive it
        wrong.append(failure)
        return math.nan
    if math.isinf(score):
        wrong.append(ValueError("no number that can be counted with"))
        return math.nan
    return score


def is_missing(value: Any) -> bool:
    """Whether nothing is expected: ``None``, NaN and the like."""
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))
