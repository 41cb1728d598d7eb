"""``lm.agreement``: labels of a judge and of people in all forms, and the report."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_magics as lm
from llm_magics.errors import UsageError

JUDGE = pd.Series(["yes", "no", "yes", "no", "yes", "yes"], index=list("abcdef"))
PEOPLE = pd.DataFrame(
    {
        "anna": ["yes", "no", "no", "no", "yes", None],
        "ben": ["yes", "no", "yes", None, "no", None],
    },
    index=list("abcdef"),
)
WIDE = {name: [None if pd.isna(each) else each for each in PEOPLE[name]] for name in PEOPLE}


def value(report: Any, statistic: str, between: str = "judge, people") -> Any:
    """Return a row of the report."""
    table = report.frame()
    return table[(table.statistic == statistic) & (table.between == between)].iloc[0]


def test_the_report_has_all_statistics() -> None:
    """Of the judge with each person and the majority, and of people with each other."""
    report = lm.agreement(JUDGE, PEOPLE)
    assert value(report, "agreement", "judge, anna").value == 4 / 5
    assert value(report, "agreement", "judge, majority").n == 3  # c and e are ties
    assert value(report, "agreement", "people").value == 2 / 4  # of those with two labels
    assert value(report, "agreement").value == 3 / 4
    assert value(report, "agreement: judge minus people").value == 1 / 4
    assert value(report, "Cohen's kappa", "judge, ben").n == 4
    assert value(report, "Fleiss' kappa", "people").n == 4
    assert value(report, "Krippendorff's alpha, nominal", "people").n == 4
    assert value(report, "Krippendorff's alpha, nominal").n == 5
    assert report.confusion.to_dict() == {"no": {"no": 2, "yes": 0}, "yes": {"no": 0, "yes": 1}}
    assert report.labels.set_index("label").people.to_dict() == {"no": 2, "yes": 1}
    assert report.labels.precision.tolist() == [1, 1]
    assert str(report).startswith("5 of 6 items labelled by 2 people · agreement 1.00 (0.44 to")


def test_all_forms_of_labels_are_the_same() -> None:
    """Long and wide, by index in any order, polars and pyarrow, and mappings."""
    expected = lm.agreement(JUDGE, PEOPLE).frame()
    long = (
        PEOPLE.rename_axis("item")
        .reset_index()
        .melt("item", var_name="annotator", value_name="label")
    )
    forms: list[tuple[Any, Any]] = [
        (JUDGE, long),
        (JUDGE, PEOPLE[::-1]),
        (dict(JUDGE), PEOPLE),
        (JUDGE.tolist(), pl.DataFrame(WIDE)),
        (pl.Series(JUDGE.tolist()), pa.table(WIDE)),
        (
            JUDGE,
            pl.DataFrame(
                {name: [None if pd.isna(each) else each for each in long[name]] for name in long}
            ),
        ),
        (JUDGE.astype("category"), PEOPLE.astype("string")),
    ]
    for judge, people in forms:
        pd.testing.assert_frame_equal(lm.agreement(judge, people).frame(), expected)


def test_items_match_by_a_multiindex() -> None:
    """A label of people about an item that the judge does not have is counted."""
    index = pd.MultiIndex.from_product([["x", "y"], [1, 2]])
    judge = pd.Series([1, 2, 3, 4], index=index)
    report = lm.agreement(judge[:3], judge[::-1])
    assert value(report, "agreement").value == 1
    assert value(report, "agreement").n == 3
    assert "1 without the judge" in str(report)


def test_equal_indexes_with_repeated_labels_match_by_position() -> None:
    """Others cannot be matched."""
    judge = pd.Series(["a", "b", "a"], index=[0, 0, 1])
    assert value(lm.agreement(judge, judge), "agreement").value == 1
    with pytest.raises(UsageError, match="cannot be matched"):
        lm.agreement(judge, judge[::-1])


@pytest.mark.parametrize(
    ("judge", "people", "options", "message"),
    [
        (["a", "b"], ["a"], {}, "The judge has 2 items and the people 1"),
        (["a", "b"], ["a", "c"], {"labels": ["a", "b"]}, "'c' is not one of the labels"),
        (["a", "b"], ["a", "b"], {"level": "interval"}, "needs numbers"),
        (["a", "b"], ["a", "b"], {"level": "order"}, "Invalid level"),
        (["a", "b"], ["a", "b"], {"confidence": 95}, "Invalid confidence"),
        ([["a"], "b"], ["a", "b"], {}, "must be a text"),
        (["a", "b"], ["a", "b"], {"first": ["a"]}, "first has 1 values for 2 items"),
        (["a", "b"], ["a", "b"], {"first": ["a", "x"]}, "'x' in first is not a label"),
        (["a", "b"], ["a", "b"], {"lengths": pd.DataFrame({"a": [1, 2]})}, "two columns"),
        (pd.DataFrame({"x": [1]}), [1], {}, "must be one column"),
    ],
)
def test_invalid_arguments(judge: Any, people: Any, options: dict, message: str) -> None:
    """Say what is wrong."""
    with pytest.raises(UsageError, match=message):
        lm.agreement(judge, people, **options)


def test_two_labels_of_an_annotator_for_an_item() -> None:
    """Are an error in long format."""
    long = pd.DataFrame({"item": [0, 0], "annotator": ["a", "a"], "label": [1, 2]})
    with pytest.raises(UsageError, match="several labels"):
        lm.agreement([1, 2], long)


@pytest.mark.parametrize(
    ("judge", "people", "note"),
    [
        ([], [], "no item has labels of both"),
        ([None, "a"], ["a", None], "no item has labels of both"),
        ([None, None], [None, math.nan], "no item has labels of both"),
        (
            pd.Series(["a"], index=["x"]),
            pd.Series(["a"], index=["y"]),
            "no item has labels of both",
        ),
        (["a", "a"], ["a", "a"], "both gave the same label to all items"),
        (["a"], ["b"], "one item has no interval"),
    ],
)
def test_what_cannot_be_computed_is_nan_with_a_reason(judge: Any, people: Any, note: str) -> None:
    """Without a warning."""
    report = lm.agreement(judge, people)
    table = report.frame()
    assert table["note"].str.contains(note).any()
    unknown = table[table["value"].isna()]
    assert (unknown["note"] != "").all()
    assert "NaN" not in str(report)
    assert repr(report)
    assert report._repr_html_()


def test_scores_are_numbers() -> None:
    """Booleans with scores count as 0 and 1; a constant judge has no correlation."""
    people = [1.0, 2.0, 4.0, 5.0, 3.0]
    report = lm.agreement([2.0, 3.0, 5.0, 6.0, 4.0], people)
    assert value(report, "mean difference").value == 1
    assert value(report, "rank correlation").value == pytest.approx(1)
    assert report.ratings.level == "interval"
    report = lm.agreement([0.5] * 5, [True, False, True, True, False])
    assert value(report, "mean difference").value == pytest.approx(-0.1)
    assert value(report, "rank correlation").note == "all values are equal"
    assert lm.agreement([True, False], [True, True]).ratings.level == "nominal"
    ratio = lm.agreement([1, 2, 3], [1, 2, 4], level="ratio").frame()
    assert "Krippendorff's alpha, ratio" in ratio["statistic"].tolist()


def test_ordered_labels_have_weights() -> None:
    """By the argument, or by an ordered category."""
    order = ["bad", "fair", "good"]
    judge, people = ["bad", "good", "fair", "bad"], ["bad", "fair", "fair", "good"]
    one = lm.agreement(judge, people, labels=order)
    kind = pd.CategoricalDtype(order, ordered=True)
    other = lm.agreement(pd.Series(judge, dtype=kind), people)
    pd.testing.assert_frame_equal(one.frame(), other.frame())
    assert "Cohen's kappa, quadratic weights" in one.frame()["statistic"].tolist()
    assert one.confusion.index.tolist() == order


def test_many_different_scores_have_no_confusion_matrix() -> None:
    """It would be as large as the square of their number."""
    scores = np.random.default_rng(0).random(60)
    report = lm.agreement(scores, scores)
    assert report.confusion.empty
    assert report.labels.empty
    assert not report.frame()["statistic"].str.contains("kappa").any()


def test_a_judge_that_prefers_the_first_answer_is_found() -> None:
    """Compared with people, whose choice does not depend on the order that the judge saw."""
    rng = np.random.default_rng(0)
    people = rng.choice(["A", "B"], 400)
    first = rng.choice(["A", "B"], 400)
    judge = np.where(rng.random(400) < 0.3, first, people)
    row = value(lm.agreement(judge, people, first=first), "bias: first answer", "judge")
    assert 0.05 < row.low < 0.15 < row.high < 0.25
    row = value(lm.agreement(people, people, first=first), "bias: first answer", "judge")
    assert row.low < 0 < row.high
    ties = lm.agreement(["tie"] * 3, ["A"] * 3, first=["A"] * 3)
    assert value(ties, "bias: first answer", "judge").note
    same = lm.agreement(["A", "B"] * 5, ["A", "A"] * 5, first=["A"] * 10)
    row = value(same, "bias: first answer", "judge")
    assert np.isnan(row.value)
    assert row.note == "the judge always saw the same answer first"


def test_a_judge_that_prefers_long_answers_is_found() -> None:
    """By the lengths of two answers, or of one that it scores."""
    rng = np.random.default_rng(0)
    lengths = pd.DataFrame(rng.integers(10, 1000, (400, 2)), columns=["A", "B"])
    longer = np.where(lengths["A"] > lengths["B"], "A", "B")
    people = rng.choice(["A", "B", "tie"], 400)
    judge = np.where(rng.random(400) < 0.3, longer, people)
    report = lm.agreement(judge, people, lengths=lengths)
    assert value(report, "bias: longer answer", "judge").low > 0.05
    assert value(report, "bias: error and length", "judge").low > 0.1
    scores = rng.integers(1, 6, 400)
    biased = lm.agreement(scores + lengths["A"] / 1000, scores, lengths=lengths["A"])
    assert value(biased, "bias: error and length", "judge").low > 0.9
    wrong = np.where(lengths["A"] > 700, "tie", people)
    nominal = lm.agreement(wrong, people, lengths=lengths["A"])
    assert value(nominal, "bias: error and length", "judge").low > 0.3


def test_labels_are_not_html() -> None:
    """In the report of a notebook."""
    hostile = "<img src=x onerror=alert(1)>\x1b[2J"
    report = lm.agreement([hostile, "b"], pd.DataFrame({hostile: [hostile, "b"]}))
    assert "<img" not in report._repr_html_()
    assert "\x1b" not in repr(report)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(["a", "b", "c", None])] * 3), min_size=0, max_size=12))
def test_any_labels_have_a_report(rows: list[tuple[str | None, ...]]) -> None:
    """Values are within their ranges, or unknown for a reason."""
    table = pd.DataFrame(rows, columns=["judge", "one", "two"], dtype=object)
    report = lm.agreement(table["judge"], table[["one", "two"]])
    frame = report.frame()
    known = frame[frame["value"].notna()]
    assert (
        known["value"].between(-1.01, 1).all()
        or "alpha" in known.loc[~known["value"].between(-1.01, 1), "statistic"].str.cat()
    )
    assert (frame.loc[frame["value"].isna(), "note"] != "").all()
    assert repr(report)


@pytest.mark.parametrize(
    ("judge", "people", "message"),
    [
        (["1", "2"], [1, 2], r"texts \('1'\), and those of people are numbers or booleans \(1\)"),
        ([True, False], ["True", None], "numbers or booleans"),
        ([date(2026, 1, 1)], ["2026-01-01"], "of the type date"),
        ([1.0, np.inf], [1.0, 2.0], "infinite"),
    ],
)
def test_labels_that_cannot_be_equal_are_refused(
    judge: list[Any], people: list[Any], message: str
) -> None:
    """Such as numbers and their texts: otherwise the agreement would be 0."""
    with pytest.raises(UsageError, match=message):
        lm.agreement(judge, people)


def test_labels_that_differ_only_in_case_are_reported() -> None:
    """They count as different; a label that is missing on one side is not reported."""
    with pytest.warns(UserWarning, match=r"'Yes' and 'yes ' differ only in case or spaces"):
        lm.agreement(["Yes", "no"], ["yes ", "no"])
    lm.agreement(["yes", "no"], ["no", "no"])


def test_rows_of_labels_need_an_item_and_an_annotator() -> None:
    """Rows without a label may lack them."""
    rows = pd.DataFrame({"item": [0, 1], "annotator": ["anna", None], "label": ["a", None]})
    assert len(lm.agreement(["a", "b"], rows).frame())
    for name in ("item", "annotator"):
        wrong = rows.assign(label="a", **{name: [None, "x"], "annotator": [None, "anna"]})
        with pytest.raises(UsageError, match="Some labels have no"):
            lm.agreement(["a", "b"], wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ["a", "b", "a"]}, "a label twice"),
        ({"labels": ["a", "b", None]}, "missing value"),
        ({"labels": [["a"], "b"]}, "A label must be"),
        ({"lengths": ["long", "short"]}, "lengths must be numbers"),
    ],
)
def test_invalid_labels_and_lengths_are_refused(arguments: dict[str, Any], message: str) -> None:
    """With a message that says what is allowed."""
    with pytest.raises(UsageError, match=message):
        lm.agreement(["a", "b"], ["b", "b"], **arguments)


def test_the_picture_has_a_line_for_each_score() -> None:
    """With the label as it is, the interval, and the scores of the judge and of people alone."""
    pytest.importorskip("matplotlib")
    judge = JUDGE.replace("yes", "$x$ _yes")
    report = lm.agreement(judge, PEOPLE.replace("yes", "$x$ _yes"))
    figure = report.plot("table")
    (axes,) = figure.axes
    names = [each.get_text() for each in axes.get_yticklabels()]
    table = report.corrected("table")
    assert names == table["score"].tolist() == ["share of $x$ _yes", "share of no"]
    drawn = [list(line.get_xdata()) for line in axes.get_lines()]
    assert drawn == [table[name].tolist() for name in ("estimate", "judge", "people")]
    (intervals,) = axes.collections
    ends = [[segment[0, 0], segment[1, 0]] for segment in intervals.get_segments()]
    assert ends == table[["low", "high"]].to_numpy().tolist()
    assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="Invalid items"):
        report.plot("all")


def test_the_picture_of_numbers_has_one_line() -> None:
    """Their mean, on its own scale."""
    pytest.importorskip("matplotlib")
    (axes,) = lm.agreement([3.0, 4, 5, 4, 5], [3.0, 5, 5, 4, None]).plot().figure.axes
    assert [each.get_text() for each in axes.get_yticklabels()] == ["mean"]
    assert axes.get_xlim()[0] > 0
