"""``lm.agreement``: how far a judge agrees with people, and people with each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from llm_magics._util.statistics import mean_interval, require_scipy
from llm_magics.benchmarking.measurements import check_confidence
from llm_magics.evaluations import coefficients, judge_bias
from llm_magics.evaluations.agreement_report import Agreement
from llm_magics.evaluations.coefficients import LEVELS, Coefficient, Weights, unknown
from llm_magics.evaluations.ratings import Ratings, read_ratings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# A statistic, whom it is about, and its value.
Row = tuple[str, str, Coefficient]

JUDGE, PEOPLE, MAJORITY = "judge", "people", "majority"

# Kappa and the confusion matrix are for this number of different labels at most.
MAX_LABELS = 50


def agreement(  # noqa: PLR0913 (a public function)
    judge: Any,
    people: Any,
    *,
    labels: Any = None,
    level: str | None = None,
    first: Any = None,
    lengths: Any = None,
    confidence: float = 0.95,
) -> Agreement:
    """
    Compare the labels of a judge with those of people.

    Items are matched by index; lists by position. Items without a label of people count only in
    `Agreement.corrected`.

    Args:
        judge: the judge's label or score of each item: a Series, a list or a mapping.
        people: the labels of one person, as for ``judge``; a DataFrame with a column for each
            person; a DataFrame with the columns ``item``, ``annotator`` and ``label``; or the result
            of `label`. Missing labels are allowed.
        labels: all labels in their order, which makes them ordinal.
        level: ``nominal``, ``ordinal``, ``interval`` or ``ratio``; by default ``interval`` for
            numbers, ``ordinal`` for ordered categories or with ``labels``, otherwise ``nominal``.
        first: for judgements of two answers: the label of the answer that the judge saw first.
        lengths: the length of each answer; for judgements of two answers, a DataFrame with two
            columns that are named as their labels.
        confidence: the confidence of the intervals.

    Returns:
        a report; ``.frame()`` has all statistics.

    Raises:
        UsageError: an argument is invalid, the items do not match, or scipy is not installed.
    """
    require_scipy()
    confidence = check_confidence(confidence)
    ratings = read_ratings(judge, people, labels, level)
    rows = [
        *_shares(ratings, confidence),
        *_kappas(ratings, confidence),
        *_alphas(ratings, confidence),
        *_scores(ratings, confidence),
    ]
    if first is not None:
        biases = judge_bias.position_bias(ratings, first, confidence)
        rows += [(f"bias: {name}", JUDGE, value) for name, value in biases]
    if lengths is not None:
        biases = judge_bias.length_bias(ratings, lengths, confidence)
        rows += [(f"bias: {name}", JUDGE, value) for name, value in biases]
    return Agreement(
        ratings=ratings,
        confidence=confidence,
        statistics=pd.DataFrame(
            [(name, between, *value) for name, between, value in rows],
            columns=["statistic", "between", "value", "low", "high", "n", "note"],
        ),
        confusion=_confusion(ratings),
        labels=_label_table(ratings, confidence),
    )


def _pairs(ratings: Ratings) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Yield whom the judge is compared with, and their labels."""
    for name, codes in zip(ratings.annotators, ratings.people.T, strict=True):
        yield f"{JUDGE}, {name}", codes
    if len(ratings.annotators) > 1:
        yield f"{JUDGE}, {MAJORITY}", ratings.majority


def _is_categorical(ratings: Ratings) -> bool:
    return len(ratings.labels) <= MAX_LABELS


def _shares(ratings: Ratings, confidence: float) -> list[Row]:
    """Return shares of equal labels, and whether people agree more with each other."""
    if not _is_categorical(ratings):
        return []
    name = "agreement"
    rows = []
    for between, codes in _pairs(ratings):
        known = (ratings.judge >= 0) & (codes >= 0)
        same = (ratings.judge == codes)[known].astype(np.float64)
        rows.append((name, between, _mean(same, confidence)))
    if len(ratings.annotators) < 2:
        return rows
    counts = ratings.counts
    people = counts.sum(axis=1)
    usable = np.flatnonzero((people >= 2) & (ratings.judge >= 0))
    counts, people = counts[usable], people[usable]
    with_judge = counts[np.arange(len(usable)), ratings.judge[usable]] / people
    with_people = (counts * (counts - 1)).sum(axis=1) / (people * (people - 1))
    return [
        *rows,
        (name, f"{JUDGE}, {PEOPLE}", _mean(with_judge, confidence)),
        (name, f"{PEOPLE}", _mean(with_people, confidence)),
        (
            f"{name}: {JUDGE} minus {PEOPLE}",
            f"{JUDGE}, {PEOPLE}",
            judge_bias.mean_difference(with_judge - with_people, confidence),
        ),
    ]


def _mean(values: NDArray[np.float64], confidence: float) -> Coefficient:
    if not len(values):
        return unknown(0, "no item has labels of both")
    low, high = mean_interval(values, confidence)
    note = "" if math.isfinite(low) else "one item has no interval"
    return Coefficient(float(values.mean()), low, high, len(values), note)


def _kappas(ratings: Ratings, confidence: float) -> list[Row]:
    if not _is_categorical(ratings):
        return []
    count, alpha = len(ratings.labels), 1 - confidence
    weighted = get_args(Weights) if ratings.is_ordered and count > 2 else ()
    rows = []
    for weights in (None, *weighted):
        name = "Cohen's kappa" if weights is None else f"Cohen's kappa, {weights} weights"
        for between, codes in _pairs(ratings):
            known = (ratings.judge >= 0) & (codes >= 0)
            value = coefficients.cohen_kappa(
                ratings.judge[known], codes[known], count, weights, alpha=alpha
            )
            rows.append((name, between, value))
    if len(ratings.annotators) > 1:
        for between, counts, raters in _groups(ratings):
            complete = counts[counts.sum(axis=1) == raters]
            value = coefficients.fleiss_kappa(complete, alpha=alpha)
            rows.append(("Fleiss' kappa", between, value))
    return rows


def _groups(ratings: Ratings) -> Iterator[tuple[str, NDArray[np.int64], int]]:
    """Yield people, and people with the judge, with how many of them gave each label."""
    people = len(ratings.annotators)
    yield PEOPLE, ratings.counts, people
    judged = np.zeros_like(ratings.counts)
    known = np.flatnonzero(ratings.judge >= 0)
    judged[known, ratings.judge[known]] = 1
    yield f"{JUDGE}, {PEOPLE}", ratings.counts + judged, people + 1


def _alphas(ratings: Ratings, confidence: float) -> list[Row]:
    people = ratings.people
    # Items without a label of people say nothing.
    labelled = (people >= 0).any(axis=1)
    everyone = np.column_stack([ratings.judge, people])[labelled]
    groups = [(f"{JUDGE}, {PEOPLE}", everyone)]
    if len(ratings.annotators) > 1:
        groups.insert(0, (PEOPLE, people[labelled]))
    return [
        (
            f"Krippendorff's alpha, {level}",
            between,
            coefficients.krippendorff_alpha(
                ratings.valued(codes)
                if level in ("interval", "ratio")
                else np.where(codes >= 0, codes, np.nan),
                level,
                alpha=1 - confidence,
            ),
        )
        for level in LEVELS[: LEVELS.index(ratings.level) + 1]
        for between, codes in groups
    ]


def _scores(ratings: Ratings, confidence: float) -> list[Row]:
    """Return how the judge's scores differ from the mean of people."""
    if not ratings.is_numeric:
        return []
    judge = ratings.valued(ratings.judge)
    people = judge_bias.row_means(ratings.valued(ratings.people))
    between = f"{JUDGE}, {PEOPLE}"
    return [
        ("mean difference", between, judge_bias.mean_difference(judge - people, confidence)),
        ("rank correlation", between, judge_bias.rank_correlation(judge, people, confidence)),
    ]


def _reference(ratings: Ratings) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the judge's labels and those of most people, where both are known."""
    known = (ratings.judge >= 0) & (ratings.majority >= 0)
    return ratings.judge[known], ratings.majority[known]


def _confusion(ratings: Ratings) -> pd.DataFrame:
    """Return how often the judge gave each label, by the label of most people."""
    labels = ratings.labels if _is_categorical(ratings) else []
    table = np.zeros((len(labels), len(labels)), np.int64)
    if labels:
        judge, people = _reference(ratings)
        np.add.at(table, (people, judge), 1)
    names = pd.Index(labels, dtype=object)
    return pd.DataFrame(table, names.rename(PEOPLE), names.rename(JUDGE))


def _label_table(ratings: Ratings, confidence: float) -> pd.DataFrame:
    """Return the judge's precision and recall for each label, by the label of most people."""
    judge, people = _reference(ratings)
    rows = []
    for number, label in enumerate(ratings.labels if _is_categorical(ratings) else []):
        right = (judge == people).astype(np.float64)
        precision = _mean(right[judge == number], confidence)
        recall = _mean(right[people == number], confidence)
        rows.append((label, recall.n, precision.n, *precision[:3], *recall[:3]))
    columns = ["label", PEOPLE, JUDGE]
    for name in ("precision", "recall"):
        columns += [name, f"{name}_low", f"{name}_high"]
    return pd.DataFrame(rows, columns=columns)
