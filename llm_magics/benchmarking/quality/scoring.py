"""Scores put beside the answers."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from llm_magics.benchmarking.quality import judging, scorers
from llm_magics.benchmarking.quality.judging import Judge
from llm_magics.benchmarking.quality.scorers import Scorer
from llm_magics.benchmarking.results.differences import SCORE
from llm_magics.errors import UsageError


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
        return [_one(each) for each in given]
    return [_one(given)]


def _one(given: Any, name: str | None = None) -> Scorer | Judge:
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
    except TypeError:
        return lambda answer, _: function(answer)
    except ValueError:  # written in C, and tells nothing of itself
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
    by_prompt = dict(zip(prompts, right_for(prompts, expected), strict=True))
    return [by_prompt[prompt] for prompt in frame["prompt"]]


def right_for(prompts: Sequence[str], expected: Any) -> list[Any]:
    """
    What is right for each of ``prompts``: one for all, one for each, or by prompt.

    Raises:
        UsageError: there are not as many as prompts.
    """
    if isinstance(expected, Mapping):
        return [expected.get(prompt) for prompt in prompts]
    if isinstance(expected, str) or not isinstance(expected, Iterable):
        return [expected] * len(prompts)
    given = list(expected)
    if len(given) != len(prompts):
        msg = f"expected has {len(given):,} values, and there are {len(prompts):,} prompts."
        raise UsageError(msg, hint="Give one for each prompt, in their order, or by prompt.")
    return given


def add_scores(frame: pd.DataFrame, score: Any, expected: Any = None) -> None:
    """Put the columns ``score_…`` into ``frame``, and ``expected`` where that is given."""
    wanted = scorers_of(score)
    right = expected_of(frame, expected)
    if expected is not None:
        frame["expected"] = pd.Series(right, index=frame.index, dtype="object")
    for each in wanted:
        if isinstance(each, Judge):
            scores, agreed = judging.verdicts(frame, each)
            frame.attrs["judge_agreed"] = agreed
        else:
            scores = _scores(frame, each, right)
        frame[f"{SCORE}{each.name}"] = scores


def check(score: Any, expected: Any) -> None:
    """Slips are told of before anything is sent."""
    for each in scorers_of(score):
        if isinstance(each, Scorer) and each.needs_expected and expected is None:
            msg = f"The score {each.name} needs to know what is right."
            raise UsageError(msg, hint="Give expected=[…], one for each prompt.")


def _scores(frame: pd.DataFrame, scorer: Scorer, expected: list[Any]) -> list[float]:
    told: list[float] = []
    wrong: list[Exception] = []
    for text, error, right in zip(frame["text"], frame["error"], expected, strict=True):
        if error is not None and not pd.isna(error):
            told.append(0.0)
            continue
        if scorer.needs_expected and (right is None or right is pd.NA):
            told.append(math.nan)
            continue
        try:
            told.append(float(scorer.score(text, right)))
        except Exception as failure:  # the user's own code, which must not lose paid answers
            told.append(math.nan)
            wrong.append(failure)
    if wrong:
        msg = (
            f"The score {scorer.name} failed for {len(wrong):,} of {len(frame):,} answers"
            f" ({type(wrong[0]).__name__}: {wrong[0]}); it is missing there."
        )
        warnings.warn(msg, stacklevel=2)
    return told
