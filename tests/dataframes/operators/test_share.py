"""``df.llm.share``: shares of a table with intervals, from a few answers and many predictions."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors
from tests.support.judge import Judge

GOOD = "{{ text }} is good"
FREE: dict[str, Any] = {"oracle": "good", "proxy": None}


def reviews(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Reviews with a label, vectors and scores that predict it, and a product."""
    rng = np.random.default_rng(seed)
    good = rng.random(rows) < 0.4
    vectors = rng.normal(size=(rows, 8))
    vectors[:, 0] += 2.5 * good
    return pd.DataFrame(
        {
            "text": [f"{'yes' if each else 'no'} {number}" for number, each in enumerate(good)],
            "product": rng.choice(["lamp", "chair"], rows, p=[0.7, 0.3]),
            "good": good,
            "score": np.clip(0.3 + 0.4 * good + rng.normal(0, 0.25, rows), 0, 1),
            "vector": list(vectors),
        }
    )


def test_each_group_has_an_estimate() -> None:
    """In the order of the groups, with the columns of ``by`` first; the truth is inside."""
    frame = reviews()
    found = frame.llm.share(GOOD, by="product", labels=100, **FREE)
    names = ["product", "share", "low", "high", "rows", "labels", "labels_to_halve"]
    assert found.columns.tolist() == names
    assert found["product"].tolist() == ["chair", "lamp"]
    assert found["rows"].tolist() == frame["product"].value_counts()[found["product"]].tolist()
    assert found["labels"].sum() == 100
    truth = frame.groupby("product")["good"].mean().to_numpy()
    assert (found["low"] <= truth).all()
    assert (truth <= found["high"]).all()
    assert (found["labels_to_halve"] > 30).all()


def test_all_labels_are_the_truth() -> None:
    """With as many labels as rows, every interval has width zero."""
    frame = reviews(50)
    found = frame.llm.share(GOOD, labels=50, **FREE)
    assert found.iloc[0, :3].tolist() == [frame["good"].mean()] * 3
    assert found["labels_to_halve"].tolist() == [0]
    assert found.llm.report.groups["method"].tolist() == ["all known"]
    assert str(found.llm.report) == "50 labels of 50 rows · 95 % confidence"


def test_the_order_of_the_table_does_not_matter() -> None:
    """The same rows are drawn from it, with any index; another seed draws others."""
    frame = reviews()
    found = frame.llm.share(GOOD, by="product", labels=60, **FREE)
    shuffled = frame.sample(frac=1, random_state=1).set_index("product", drop=False)
    other = shuffled.llm.share(GOOD, by=["product"], labels=60, **FREE)
    pd.testing.assert_frame_equal(found, other)
    seeded = frame.llm.share(GOOD, by="product", labels=60, seed=5, **FREE)
    assert seeded["share"].tolist() != found["share"].tolist()


@pytest.mark.parametrize("proxy", ["auto", "score"])
def test_a_proxy_makes_intervals_narrower(proxy: str) -> None:
    """Vectors, of which the best column is chosen, and a column of scores."""
    frame = reviews()
    frame["text"] = [f"review {number}" for number in range(len(frame))]
    found = frame.llm.share(GOOD, labels=100, oracle="good", proxy=proxy)
    report = found.llm.report
    assert (
        report.proxy
        == {"auto": "vectors in the column vector", "score": "the column score"}[proxy]
    )
    assert report.correlation > 0.5
    assert report.width_ratio < 0.85
    assert found.loc[0, "low"] <= frame["good"].mean() <= found.loc[0, "high"]
    details = report.groups.iloc[0]
    ratio = (found["high"] - found["low"])[0] / (details.high_alone - details.low_alone)
    assert details.width_ratio == pytest.approx(ratio)
    assert f"(correlation {report.correlation:.2f})" in str(report)


def test_a_model_is_asked_once_about_each_text(service: Judge) -> None:
    """Equal texts are one label; rows without a text are left out."""
    frame = pd.DataFrame({"text": ["yes", "no", "yes", None, "yes"]}, index=[1, 1, 2, 3, 3])
    found = frame.llm.share(GOOD, proxy=None)
    assert sorted(service.paid) == ["no is good", "yes is good"]
    assert found.iloc[0].tolist() == [0.75, 0.75, 0.75, 4, 2, 0]
    report = found.llm.report
    assert (report.missing, report.calls, report.oracle) == (1, 2, "lab/m")


def test_more_labels_pay_for_the_difference_only(service: Judge) -> None:
    """The rows of the smaller sample are in the larger one, also by other groups."""
    frame = reviews(60)
    frame.llm.share(GOOD, labels=10, proxy=None)
    first = frame.llm.share(GOOD, labels=20, proxy=None)
    assert len(service.paid) == len({*service.paid}) == 20
    assert (first.llm.report.calls, first.llm.report.cached) == (10, 10)
    frame.llm.share(GOOD, labels=20, by="product", confidence=0.8, proxy=None)
    assert len(service.paid) < 30


def test_a_cheap_model_is_a_proxy(service: Judge) -> None:
    """It is asked about all rows; for answers, if its service returns no log probabilities."""
    frame = reviews(60)
    found = frame.llm.share(GOOD, labels=30, proxy="lab/cheap")
    report = found.llm.report
    assert report.proxy == "the answers of lab/cheap"
    assert report.correlation == pytest.approx(1)
    assert report.calls > 30


@pytest.mark.parametrize("price", [1e-6, 1e3])
def test_a_proxy_that_costs_more_than_it_saves_is_not_used(service: Judge, price: float) -> None:
    """The setting ``proxy_model``, against the price of labels that would help as much."""
    lm.config.prices = {
        "lab/m": {"input_usd": 1, "output_usd": 1},
        "lab/cheap": {"input_usd": price, "output_usd": price},
    }
    lm.config.proxy_model = "lab/cheap"
    frame = reviews(120)[["text"]].assign(text=lambda each: each["text"] + " " + "x" * 300)
    service.holds = lambda said: hash_of(said) % 2 == 0
    found = frame.llm.share(GOOD, labels=40, yes=True)
    is_used = found.llm.report.proxy == "the answers of lab/cheap"
    assert is_used == (price < 1)


def hash_of(said: str) -> int:
    """A number that no keyword predicts."""
    return sum(map(int, said.split()[1])) if said.split()[1:] else 0


def test_failures_are_listed(service: Judge) -> None:
    """They count on neither side, and are in the report by index."""
    frame = pd.DataFrame({"text": ["yes 1", "yes 2", "no 3", "bad", "bad"]}, index=list("abcde"))
    service.poison = {"bad"}
    with pytest.warns(UserWarning, match="2 failed"):
        found = frame.llm.share(GOOD, proxy=None)
    assert found["share"].tolist() == [pytest.approx(2 / 3)]
    report = found.llm.report
    assert report.failed == 2
    assert report.groups["failed"].tolist() == [2]
    assert report.frame().index.tolist() == ["d", "e"]
    assert "Not that" in report.frame()["error"].iloc[0]
    with pytest.raises(errors.ProviderError, match="Not that"):
        frame.llm.share(GOOD, proxy=None, on_error="raise")


def test_a_dry_run_sends_nothing(service: Judge) -> None:
    """It estimates the labels and the proxy; stored answers cost nothing."""
    lm.config.prices = {"lab/*": {"input_usd": 1, "output_usd": 10}}
    frame = reviews(50)
    estimate = frame.llm.share(GOOD, labels=20, proxy=None, dry_run=True)
    assert (estimate.rows, estimate.prompts) == (50, 20)
    assert estimate.cost_usd > 0
    both = frame.llm.share(GOOD, labels=20, proxy="lab/cheap", dry_run=True)
    assert both.prompts > 20
    assert service.paid == []
    frame.llm.share(GOOD, labels=20, proxy=None)
    assert frame.llm.share(GOOD, labels=20, proxy=None, dry_run=True).prompts == 0


def test_the_cost_is_confirmed(service: Judge) -> None:
    """Before the first prompt; not for a call whose answers are stored."""
    lm.config.prices = {"lab/*": {"input_usd": 1e6, "output_usd": 1e6}}
    frame = reviews(10)
    with pytest.raises(errors.UsageError, match="Confirmation is required"):
        frame.llm.share(GOOD, proxy=None)
    assert service.paid == []
    frame.llm.share(GOOD, proxy=None, yes=True)
    assert frame.llm.share(GOOD, proxy=None).llm.report.calls == 0


def test_an_interrupt_loses_nothing(service: Judge) -> None:
    """The exception has an estimate from the labels so far, and the same call continues."""
    frame = reviews(100)

    def interrupt(said: str) -> bool:
        if len(service.paid) == 12:
            os.kill(os.getpid(), signal.SIGINT)
            service.delay_s = 5.0
        return "yes" in said

    service.holds = interrupt
    with pytest.raises(errors.Interrupted, match="of 40 labels are stored") as stopped:
        frame.llm.share(GOOD, labels=40, proxy=None, concurrency=1)
    partial = stopped.value.partial
    known = int(partial.loc[0, "labels"])
    assert known >= 10
    service.holds, service.delay_s = (lambda said: "yes" in said), 0.0
    expected = frame.llm.share(GOOD, labels=known, proxy=None)
    pd.testing.assert_frame_equal(partial, expected)
    frame.llm.share(GOOD, labels=40, proxy=None)
    assert len({*service.paid}) == 40


@pytest.mark.parametrize("kind", ["list", "polars", "pyarrow"])
def test_other_tables(kind: str) -> None:
    """Lists, polars and pyarrow; a list is the column ``text``."""
    texts = ["yes", "no", None, "yes"]
    rows: Any = texts
    if kind != "list":
        rows = pytest.importorskip(kind)
        rows = rows.DataFrame({"text": texts}) if kind == "polars" else rows.table({"text": texts})
    found = lm.share(rows, GOOD, oracle=lambda row: row["text"] == "yes", proxy=None)
    assert found.iloc[0].tolist() == [2 / 3, 2 / 3, 2 / 3, 3, 3, 0]
    assert found.llm.report.missing == 1


def test_tiny_tables() -> None:
    """An empty one, one row, groups with missing values, and a MultiIndex."""
    frame = reviews(6)
    empty = frame.head(0).llm.share(GOOD, **FREE)
    assert empty[["rows", "labels", "labels_to_halve"]].to_numpy().tolist() == [[0, 0, 0]]
    assert empty["share"].isna().all()
    assert len(frame.head(0).llm.share(GOOD, by="product", **FREE)) == 0
    one = frame.head(1).llm.share(GOOD, by=["product", "good"], **FREE)
    assert one[["share", "rows"]].to_numpy().tolist() == [[float(frame["good"].iloc[0]), 1]]
    frame["product"] = ["lamp", None, "chair", None, "lamp", "chair"]
    frame.index = pd.MultiIndex.from_product([["a", "b"], [1, 2, 3]], names=["product", "n"])
    found = frame.llm.share(GOOD, by="product", **FREE)
    assert found["product"].isna().tolist() == [False, False, True]
    assert found["rows"].tolist() == [2, 2, 2]


def test_simultaneous_intervals_are_wider() -> None:
    """All of them hold together with the confidence."""
    frame = reviews()
    single = frame.llm.share(GOOD, by="product", **FREE)
    together = frame.llm.share(GOOD, by="product", simultaneous=True, **FREE)
    assert (together["low"] < single["low"]).all()
    assert (together["high"] > single["high"]).all()
    assert "for all groups together" in str(together.llm.report)


def test_the_picture_has_a_line_for_each_group() -> None:
    """With their names as they are, and in grey the intervals of labels alone."""
    pytest.importorskip("matplotlib")
    frame = reviews(80)
    frame["product"] = frame["product"].str.replace("lamp", "$x$ _lamp")
    figure = frame.llm.share(GOOD, by="product", labels=40, **FREE).llm.report.plot()
    (axes,) = figure.axes
    names = [each.get_text() for each in axes.get_yticklabels()]
    assert names == ["$x$ _lamp", "chair"]
    assert len(axes.collections) == 2
    assert figure._repr_png_().startswith(b"\x89PNG")
    whole = frame.llm.share(GOOD, labels=40, **FREE).llm.report.plot()
    assert [each.get_text() for each in whole.axes[0].get_yticklabels()] == ["all"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": 0}, "value for labels"),
        ({"confidence": 95}, "value for confidence"),
        ({"simultaneous": "yes"}, "value for simultaneous"),
        ({"seed": 0.5}, "value for seed"),
        ({"by": "shop"}, "no column 'shop'"),
        ({"by": "vector"}, "cannot be grouped"),
        ({"by": "share"}, "column of the result"),
        ({"oracle": 5}, "value for oracle"),
        ({"oracle": "text"}, "neither true nor false"),
        ({"proxy": 5}, "value for proxy"),
        ({"proxy": "text"}, "has the score"),
        ({"batch": True}, "cannot use batch jobs"),
        ({"label": 5}, "labels"),
    ],
)
def test_mistakes_are_found_before_anything_is_asked(given: dict[str, Any], message: str) -> None:
    """They say which argument is wrong."""
    frame = reviews(4).assign(share=1)
    with pytest.raises(errors.UsageError) as found:
        frame.llm.share(GOOD, **{**FREE, **given})
    assert message in f"{found.value} {found.value.hint}"


@pytest.mark.dask
def test_dask_needs_some_columns_only() -> None:
    """The result is that of pandas; a function reads all columns."""
    dd = pytest.importorskip("dask.dataframe")
    frame = reviews(80)
    expected = frame.llm.share(GOOD, by="product", labels=40, oracle="good", proxy="score")
    parts = dd.from_pandas(frame, npartitions=3)
    found = parts.llm.share(GOOD, by="product", labels=40, oracle="good", proxy="score")
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    with pytest.raises(errors.UsageError, match="no column"):
        parts.llm.share(GOOD, by="shop", oracle="good")


def test_scipy_is_required_before_labels_are_paid(
    service: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint names the extra."""
    monkeypatch.setattr("llm_magics._util.validation.find_spec", lambda name: None)
    with pytest.raises(errors.UsageError, match="share needs scipy") as raised:
        reviews(30).llm.share(GOOD, proxy=None)
    assert "operators" in str(raised.value.hint)
    assert service.paid == []
