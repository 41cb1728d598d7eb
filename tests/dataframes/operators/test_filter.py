"""Filtering a table: the target is kept, the cost is agreed to, and nothing is paid for twice."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.dataframes.operators import filter_run
from llm_magics.host import TerminalHost, install_host
from tests.support.judge import Judge

STATEMENT = "{{ text }} is good"


def reviews(count: int, *, seed: int = 0, rate: float = 0.3) -> pd.DataFrame:
    """Texts with labels, and a score that mostly predicts them."""
    draw = np.random.default_rng(seed)
    label = draw.random(count) < rate
    score = 1 / (1 + np.exp(-(6 * label - 3 + draw.normal(size=count))))
    text = [f"{'yes' if good else 'no'} {number}" for number, good in enumerate(label)]
    return pd.DataFrame({"text": text, "label": label, "score": score})


def quality(frame: pd.DataFrame, kept: pd.DataFrame) -> tuple[float, float]:
    """Precision and recall of the rows that were kept."""
    positive = set(frame.index[frame["label"]])
    right = len(positive & set(kept.index))
    return right / max(len(kept), 1), right / max(len(positive), 1)


def test_the_default_target_is_precision_and_recall() -> None:
    """The report says what is guaranteed, and where each decision came from."""
    frame = reviews(1500)
    kept = frame.llm.filter(STATEMENT, oracle="label", proxy="score")
    precision, recall = quality(frame, kept)
    assert precision >= 0.9
    assert recall >= 0.9
    report = kept.llm.report
    assert set(report.bound) == {"precision", "recall"}
    assert report.asked < 1000
    assert report.saved == 1500 - report.asked
    assert report.proxy == "the column score"
    assert "at least" in str(report)
    assert "proxy: the column score, AUC" in str(report)
    decisions = report.frame()
    assert decisions.index.equals(frame.index)
    assert (decisions["source"] == "oracle").sum() == report.asked
    assert (decisions["source"] == "proxy").sum() == report.decided_by_proxy
    assert decisions.index[decisions["decision"]].equals(kept.index)
    asked = decisions["source"] == "oracle"
    assert (decisions["decision"] == frame["label"])[asked].all()


def test_the_accuracy_of_all_rows_can_be_the_target() -> None:
    """It counts the rows that are dropped too."""
    frame = reviews(1500)
    kept = frame.llm.filter(STATEMENT, accuracy=0.9, oracle="label", proxy="score")
    is_kept = frame.index.isin(kept.index)
    assert (is_kept == frame["label"]).mean() >= 0.9
    assert list(kept.llm.report.bound) == ["accuracy"]


def test_a_target_that_no_rows_would_keep_has_a_warning() -> None:
    """An accuracy of 0.9 says little where few rows are positive."""
    frame = reviews(600, rate=0.03)
    report = frame.llm.filter(STATEMENT, accuracy=0.9, oracle="label", proxy="score").llm.report
    assert "Returning no rows" in report.warning
    assert report.warning in str(report)


@pytest.mark.parametrize("target", ["precision", "recall"])
def test_precision_or_recall_alone_spends_the_calls(target: str) -> None:
    """No more than ``max_calls``."""
    frame = reviews(1500)
    kept = frame.llm.filter(
        STATEMENT, **{target: 0.9}, oracle="label", proxy="score", max_calls=300
    )
    assert kept.llm.report.asked <= 300
    assert dict(zip(["precision", "recall"], quality(frame, kept), strict=True))[target] >= 0.9


def test_the_order_of_the_table_does_not_matter() -> None:
    """The same rows are asked and kept; another seed asks others."""
    frame = reviews(400)
    options: dict[str, Any] = {"accuracy": 0.9, "oracle": "label", "proxy": "score"}
    one = frame.llm.filter(STATEMENT, **options)
    other = frame.sort_values("label").llm.filter(STATEMENT, **options)
    assert set(one.index) == set(other.index)
    assert one.llm.report.asked == other.llm.report.asked
    sources = one.llm.report.frame()["source"]
    again = frame.llm.filter(STATEMENT, **options, seed=1).llm.report.frame()["source"]
    assert (sources != again).any()


def test_every_row_of_a_small_table_is_asked() -> None:
    """Whatever its index is; rows without a text or a label are left out."""
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2), ("b", 2), ("c", 3)])
    frame = pd.DataFrame(
        {"a text": ["x", "x", None, "z", "w"], "label": [True, False, True, None, True]},
        index=index,
    )
    kept = frame.llm.filter('{{ row["a text"] }} is good', oracle="label")
    assert kept["a text"].tolist() == ["x", "w"]
    assert kept.index.tolist() == [("a", 1), ("c", 3)]
    report = kept.llm.report
    assert (report.missing, report.asked) == (2, 3)
    assert "because the table is small" in report.reason
    decisions = report.frame()
    assert decisions["source"].tolist() == ["oracle", "oracle", "missing", "missing", "oracle"]
    assert decisions["decision"].isna().tolist() == [False, False, True, True, False]


def test_without_a_proxy_every_row_is_asked() -> None:
    """The report says why, and has no picture."""
    frame = reviews(100)
    kept = frame.llm.filter(STATEMENT, oracle="label", proxy=None)
    assert kept.index.equals(frame.index[frame["label"]])
    assert "proxy=None" in kept.llm.report.reason
    with pytest.raises(errors.UsageError, match="nothing to plot"):
        kept.llm.report.plot()


def test_an_empty_table_has_an_empty_result() -> None:
    """Also one in which all texts are missing."""
    for texts in ([], [None, ""]):
        kept = pd.DataFrame({"text": pd.Series(texts, dtype=object)}).llm.filter(
            STATEMENT, oracle=bool
        )
        assert len(kept) == 0
        assert kept.llm.report.asked == 0


SMALL = [f"{'yes' if number % 3 else 'no'} {number}" for number in range(9)]


@pytest.mark.parametrize(
    "rows",
    [
        SMALL,
        tuple(SMALL),
        np.array(SMALL, object),
        pd.Series(SMALL, name="text", index=[5] * 9),
        pd.DataFrame({"text": SMALL}),
        pl.Series("text", SMALL),
        pl.DataFrame({"text": SMALL}),
        pa.table({"text": SMALL}),
        pa.array(SMALL),
        pa.chunked_array([SMALL[:2], SMALL[2:]]),
    ],
    ids=lambda rows: f"{type(rows).__module__.partition('.')[0]}.{type(rows).__name__}",
)
def test_the_result_is_of_the_same_kind(rows: Any) -> None:
    """A list, an array, a column, or a table of any library."""
    kept = lm.filter(rows, STATEMENT, oracle=lambda row: "yes" in row["text"])
    assert type(kept) is type(rows)
    again, report = lm.filter(
        rows, STATEMENT, oracle=lambda row: "yes" in row["text"], return_report=True
    )
    assert type(again) is type(rows)
    assert len(again) == len(kept) == report.kept == 6
    assert report.frame()["decision"].tolist() == ["yes" in text for text in SMALL]
    column = kept["text"] if hasattr(rows, "columns") else kept
    assert [str(each) for each in column] == [text for text in SMALL if "yes" in text]
    if isinstance(rows, pd.DataFrame | pd.Series):
        assert kept.llm.report.kept == 6
        assert again.llm.report is report


def test_failures_of_a_list_name_the_way_to_the_report(service: Judge) -> None:
    """A list cannot hold it; an interrupt has it too."""
    service.poison = {"no 3"}
    texts = ["yes 1", "no 2", "no 3"]
    with pytest.warns(UserWarning, match="return_report=True"):
        assert lm.filter(texts, STATEMENT) == ["yes 1"]
    with pytest.warns(UserWarning, match="the report's frame"):
        kept, report = lm.filter(texts, STATEMENT, return_report=True)
    assert (kept, report.failed) == (["yes 1"], 1)
    assert isinstance(lm.filter(texts, STATEMENT, return_report=True, dry_run=True).prompts, int)

    def interrupt(statement: str) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        service.delay_s = 5.0
        return True

    service.holds = interrupt
    with pytest.raises(errors.Interrupted) as raised:
        lm.filter([*texts[:2], "yes 4"], STATEMENT, return_report=True, concurrency=1)
    partial, report = raised.value.partial
    assert partial == ["yes 1"]
    assert report.precision is None


def test_an_iterator_becomes_a_list() -> None:
    """It can be read only once."""
    assert lm.filter(iter(["a yes", "b"]), STATEMENT, oracle=lambda row: "yes" in row["text"]) == [
        "a yes"
    ]


def test_a_second_run_pays_nothing(service: Judge) -> None:
    """A tighter target pays for part of the rows only."""
    frame = reviews(150)
    first = frame.llm.filter(STATEMENT, accuracy=0.85, proxy="score")
    paid = len(service.paid)
    assert first.llm.report.calls == paid
    again = frame.llm.filter(STATEMENT, accuracy=0.85, proxy="score")
    assert again.index.equals(first.index)
    assert (again.llm.report.calls, again.llm.report.cached) == (0, paid)
    assert set(again.llm.report.frame()["source"]) == {"cache", "proxy"}
    tighter = frame.llm.filter(STATEMENT, accuracy=0.95, proxy="score").llm.report
    assert tighter.cached > 0.9 * paid
    assert str(first.llm.report) == str(again.llm.report)


def test_rows_that_fail_are_listed(service: Judge) -> None:
    """They are in no result; with ``raise``, their error is raised."""
    service.poison = {"no 3", "no 5"}
    frame = pd.DataFrame({"text": [f"{'yes' if n % 2 == 0 else 'no'} {n}" for n in range(9)]})
    with pytest.warns(UserWarning, match="2 failed"):
        kept = frame.llm.filter(STATEMENT)
    assert kept.index.tolist() == [0, 2, 4, 6, 8]
    assert kept.llm.report.failed == 2
    decisions = kept.llm.report.frame()
    assert decisions["decision"].isna().sum() == 2
    assert "Not that" in decisions["error"][3]
    with pytest.raises(errors.ProviderError, match="Not that"):
        frame.llm.filter(STATEMENT, on_error="raise")


def test_an_interrupt_has_the_rows_so_far(service: Judge) -> None:
    """Their answers are stored."""
    frame = pd.DataFrame({"text": [f"yes {n}" for n in range(9)]})
    service.interrupt_at(4)
    with pytest.raises(errors.Interrupted, match="of 9 rows") as raised:
        frame.llm.filter(STATEMENT, concurrency=1)
    partial = raised.value.partial
    assert 3 <= len(partial) < 9
    assert partial.llm.report.precision is None
    assert (partial.llm.report.frame()["source"] == "").any()
    service.holds, service.delay_s = (lambda said: True), 0.0
    assert len(frame.llm.filter(STATEMENT)) == 9
    assert len(set(service.paid)) == 9


class Asked(TerminalHost):
    """A host that answers questions, and records them and the reports."""

    def __init__(self, answer: str | None) -> None:
        super().__init__()
        self.answer = answer
        self.questions: list[str] = []
        self.reports: list[str] = []

    def ask(self, question: str) -> str | None:
        self.questions.append(question)
        return self.answer

    def report(self, summary: str, problem: str = "") -> None:
        self.reports.append(summary)


@pytest.fixture
def host() -> Iterator[Asked]:
    """A host whose user says yes."""
    asked = Asked("y")
    install_host(asked)
    yield asked
    install_host(TerminalHost())


def test_the_plan_is_shown_after_the_pilot(service: Judge, host: Asked) -> None:
    """With the expected share of the rows, and of the cost."""
    lm.config.prices = {"lab/m": {"input_usd": 10.0, "output_usd": 10.0}}
    lm.config.confirm_above_usd = 0.03
    frame = reviews(400)
    kept = frame.llm.filter(STATEMENT, accuracy=0.9, proxy="score")
    plan, result = host.reports
    assert "% of 400 rows, about $" in plan
    assert "instead of $" in plan
    assert result == str(kept.llm.report)
    assert kept.llm.report.expected < 400
    assert len(host.questions) == 1
    assert "of 400 rows, about $" in host.questions[0]


def test_the_plan_has_the_expected_cost_of_this_run(service: Judge, host: Asked) -> None:
    """Stored answers are free, and are named; without a missing one, there is no question."""
    lm.config.prices = {"lab/m": {"input_usd": 10.0, "output_usd": 10.0}}
    lm.config.confirm_above_usd = 0.001
    frame = reviews(200)
    frame.llm.filter(STATEMENT, accuracy=0.85, proxy="score", concurrency=16)
    first, _ = host.reports
    paid, asked = len(service.paid), len(host.questions)
    assert "already stored" not in first
    frame.llm.filter(STATEMENT, accuracy=0.85, proxy="score")
    _, _, again, _ = host.reports
    share = first.partition(", about")[0]
    assert again == f"{share}; {paid} answers already stored"
    assert len(host.questions) == asked
    report = frame.llm.filter(STATEMENT, accuracy=0.95, proxy="score").llm.report
    tighter = host.reports[4]
    assert len(host.questions) == asked + 1
    assert "about $" in tighter
    assert "answers already stored" in tighter
    stored = int(tighter.partition("; ")[2].split()[0])
    assert abs(stored - report.cached) < 25
    dollars = [float(each) for each in re.findall(r"\$([0-9.]+)", tighter)]
    first_dollars = [float(each) for each in re.findall(r"\$([0-9.]+)", first)]
    assert dollars[0] < dollars[1] < first_dollars[1]


def test_a_paid_proxy_is_chosen_again(service: Judge, host: Asked) -> None:
    """Although its scores and the oracle's answers are stored: the same call asks nothing new."""
    lm.config.prices = {
        "lab/m": {"input_usd": 10.0, "output_usd": 10.0},
        "lab/small": {"input_usd": 0.1, "output_usd": 0.1},
    }
    frame = reviews(100)
    options: dict[str, Any] = {"accuracy": 0.95, "proxy": "lab/small"}
    first = frame.llm.filter(STATEMENT, **options).llm.report
    again = frame.llm.filter(STATEMENT, **options).llm.report
    assert (again.proxy, again.asked) == (first.proxy, first.asked)
    assert first.proxy_calls >= 100
    # One prompt finds out again that the service returns no log probabilities.
    assert (again.calls, again.proxy_calls) == (0, 1)


def test_a_cost_that_is_declined_ends_the_call(service: Judge, host: Asked) -> None:
    """The pilot is paid for; a budget or ``yes`` allows the cost without a question."""
    lm.config.prices = {"lab/m": {"input_usd": 10.0, "output_usd": 10.0}}
    lm.config.confirm_above_usd = 0.03
    host.answer = "n"
    frame = reviews(400)
    with pytest.raises(errors.DeclinedError, match="The 16 answers"):
        frame.llm.filter(STATEMENT, accuracy=0.9, proxy="score")
    assert len(service.paid) == 16
    host.answer = None
    with pytest.raises(errors.UsageError, match="not interactive"):
        frame.llm.filter(STATEMENT, accuracy=0.9, proxy="score")
    asked = len(host.questions)
    frame.llm.filter(STATEMENT, accuracy=0.9, proxy="score", yes=True)
    assert len(host.questions) == asked


def test_a_dry_run_sends_nothing(service: Judge) -> None:
    """It estimates all rows, or what is expected once the pilot is stored."""
    frame = reviews(200)
    estimate = frame.llm.filter(STATEMENT, accuracy=0.9, proxy="score", dry_run=True)
    assert (estimate.rows, estimate.prompts) == (200, 200)
    assert service.paid == []
    frame.llm.filter(STATEMENT, accuracy=0.5, proxy="score")
    paid = len(service.paid)
    later = frame.llm.filter(STATEMENT, accuracy=0.95, proxy="score", dry_run=True)
    assert later.prompts < 200
    assert len(service.paid) == paid
    free = frame.llm.filter(STATEMENT, oracle="label", dry_run=True)
    assert free.prompts == 0


def test_a_recording_replays_the_filter(service: Judge) -> None:
    """Without the service."""
    frame = reviews(55)
    lm.config.record = "answers.jsonl"
    kept = frame.llm.filter(STATEMENT, accuracy=0.9, proxy="score")
    lm.config.record = None
    lm.config.replay, lm.config.replay_strict = "answers.jsonl", True
    lm.config.cache_dir = "another-cache"
    paid = len(service.paid)
    again = frame.llm.filter(STATEMENT, accuracy=0.9, proxy="score")
    assert again.index.equals(kept.index)
    assert len(service.paid) == paid


def test_auto_chooses_the_proxy_that_predicts_best() -> None:
    """Among vectors and keywords, by the labels of the pilot."""
    frame = reviews(300)
    draw = np.random.default_rng(0)
    frame["vector"] = list(draw.normal(size=(300, 4)).astype(np.float32))
    report = frame.llm.filter(STATEMENT, accuracy=0.9, oracle="label").llm.report
    assert report.proxy == "keywords"
    assert [each.name for each in report.qualities] == [
        "keywords",
        "vectors in the column vector",
    ]
    assert report.proxy_quality is report.qualities[0]


def test_a_model_is_a_proxy_only_if_it_pays(service: Judge, host: Asked) -> None:
    """Its answers about the pilot decide; then it is asked about all rows in packs."""
    lm.config.prices = {
        "lab/m": {"input_usd": 10.0, "output_usd": 10.0},
        "lab/small": {"input_usd": 0.1, "output_usd": 0.1},
    }
    frame = reviews(150)
    options: dict[str, Any] = {"accuracy": 0.9, "proxy": "lab/small", "yes": True}
    report = frame.llm.filter(STATEMENT, **options).llm.report
    assert report.proxy == "the answers of lab/small"
    assert report.asked < 100
    assert report.proxy_calls > 0
    lm.config.prices = {
        "lab/m": {"input_usd": 0.1, "output_usd": 0.1},
        "lab/small": {"input_usd": 10.0, "output_usd": 10.0},
    }
    frame["text"] += "!"
    report = frame.llm.filter(STATEMENT, **options).llm.report
    assert report.proxy == "none"
    assert report.proxy_calls < 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accuracy": 0.9, "recall": 0.9}, "cannot be combined"),
        ({"accuracy": 1.5}, "accuracy"),
        ({"confidence": 0}, "confidence"),
        ({"max_calls": 0}, "max_calls"),
        ({"model": "lab/m", "oracle": "label"}, "Both oracle and model"),
        ({"accuracy": 0.9, "max_calls": 50}, "max_calls has an effect only"),
        ({"accuracy": 1.0}, "accuracy"),
        ({"batch": True}, "batch jobs"),
        ({"seed": 0.5}, "seed"),
        ({"oracle": 3}, "oracle"),
        ({"proxy": 3}, "proxy"),
        ({"proxy": "text"}, "has the score"),
        ({"temperatur": 1}, "temperatur"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    """Before anything is sent."""
    with pytest.raises(errors.UsageError, match=message):
        reviews(60).llm.filter(STATEMENT, **options)


def test_the_picture_has_the_groups_and_thresholds() -> None:
    """Visible on white and on black."""
    frame = reviews(600)
    report = frame.llm.filter(STATEMENT, oracle="label", proxy="score").llm.report
    figure = report.plot()
    (ax,) = figure.axes
    names = [text.get_text().strip() for text in ax.get_legend().get_texts()]
    assert "dropped by the proxy" in names
    assert "thresholds of the proxy" in names
    assert ax.get_ylim()[1] > max(patch.get_y() + patch.get_height() for patch in ax.patches)
    assert sum(patch.get_height() for patch in ax.patches) == 600
    assert len(ax.lines) == 2
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_few_rows_need_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is imported for it."""

    def refuse(_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(filter_run, "candidates", refuse)
    assert len(reviews(40).llm.filter(STATEMENT, oracle="label")) == reviews(40)["label"].sum()


def dollars(question: str) -> float:
    """Return the cost that a question names."""
    return float(re.findall(r"\$([0-9.,]+)", question)[0].replace(",", ""))


PRICED = {"input_usd": 10.0, "output_usd": 10.0}


@pytest.mark.parametrize("oracle", ["label", "lab/m"])
def test_a_paid_proxy_is_confirmed_whatever_the_oracle_costs(
    service: Judge, host: Asked, oracle: str
) -> None:
    """Its scores of the pilot, then those of all other rows; labels of people are free."""
    lm.config.prices = {"lab/small": PRICED}
    lm.config.confirm_above_usd = 1e-9
    options: dict[str, Any] = {"accuracy": 0.9, "oracle": oracle, "proxy": "lab/small"}
    frame = reviews(120)
    frame.llm.filter(STATEMENT, **options)
    pilot, others = host.questions
    assert "prompts for scores by the confidence of lab/small" in pilot
    assert "for scores by the answers of lab/small" in others
    assert 0 < dollars(pilot) < dollars(others)
    host.answer = "n"
    sent = len(service.packs)
    frame["text"] += "!"
    with pytest.raises(errors.DeclinedError):
        frame.llm.filter(STATEMENT, **options)
    assert len(service.packs) == sent


def test_copies_of_a_text_are_paid_for_once(service: Judge, host: Asked) -> None:
    """The plan, its cost and a dry run are about different texts."""
    lm.config.prices = {"lab/m": PRICED}
    frame = reviews(60)
    copies = pd.concat([frame] * 20, ignore_index=True)
    kept = copies.llm.filter(STATEMENT, accuracy=0.9, proxy="score")
    report = kept.llm.report
    plan = host.reports[0]
    assert "% of 60 different rows" in plan
    assert report.expected <= 60
    assert abs(report.expected - report.asked) <= 20
    lm.config.cache_dir = "another-cache"
    assert copies.llm.filter(STATEMENT, proxy="score", dry_run=True).prompts == 60
    single = frame.llm.filter(STATEMENT, proxy="score", dry_run=True)
    assert dollars(plan.partition("instead of ")[2]) == pytest.approx(single.cost_usd, rel=0.4)


def test_a_paid_proxy_must_save_more_than_it_costs_for_copies_too(
    service: Judge, host: Asked
) -> None:
    """What it saves are questions about different texts, as it costs prompts about them."""
    lm.config.prices = {"lab/m": {"input_usd": 1.0, "output_usd": 1.0}, "lab/small": PRICED}
    copies = pd.concat([reviews(60)] * 20, ignore_index=True)
    report = copies.llm.filter(STATEMENT, accuracy=0.9, proxy="lab/small", yes=True).llm.report
    assert report.proxy == "none"


def test_far_more_questions_than_planned_are_confirmed_again(
    service: Judge, host: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the scores of the pilot were right by chance, and a dry run is never negative."""
    lm.config.prices = {"lab/m": PRICED}
    lm.config.confirm_above_usd = 1e-9
    frame = reviews(200)
    pilot: list[str] = []
    frame.llm.filter(STATEMENT, proxy=None, oracle=lambda row: not pilot.append(row["text"]))
    is_right = frame["text"].isin(pilot[:20]) | (np.arange(200) % 3 > 0)
    frame["score"] = np.where(frame["label"] == is_right, 0.9, 0.1)
    options: dict[str, Any] = {"accuracy": 0.9, "proxy": "score"}

    def decline_more(question: str) -> str:
        host.questions.append(question)
        return "n" if "were expected before" in question else "y"

    monkeypatch.setattr(host, "ask", decline_more)
    with pytest.raises(errors.DeclinedError, match="answers so far are stored"):
        frame.llm.filter(STATEMENT, **options)
    planned, more = (dollars(each) for each in host.questions[-2:])
    assert 0 < more < 10 * planned
    assert frame.llm.filter(STATEMENT, **options, dry_run=True).prompts > 0


@pytest.mark.parametrize("target", ["precision", "recall"])
def test_the_other_measure_is_estimated_by_the_proxy(target: str) -> None:
    """Precision alone leaves the rows that are dropped without a sample."""
    frame = reviews(1500)
    kept = frame.llm.filter(
        STATEMENT, **{target: 0.9}, oracle="label", proxy="score", max_calls=300
    )
    report = kept.llm.report
    precision, recall = quality(frame, kept)
    assert report.precision.value == pytest.approx(precision, abs=0.1)
    assert report.recall.value == pytest.approx(recall, abs=0.1)
    assert report.recall.low <= recall <= report.recall.high


@pytest.mark.parametrize("fresh", [False, True])
def test_only_stored_answers_are_called_so(service: Judge, fresh: bool) -> None:
    """The same call with ``fresh``, or with a function as the oracle, asks again."""
    frame = pd.DataFrame({"text": [f"yes {n}" for n in range(9)]})
    service.interrupt_at(4)
    with pytest.raises(errors.Interrupted) as raised:
        frame.llm.filter(STATEMENT, concurrency=1, fresh=fresh)
    assert bool(raised.value.hint) is not fresh

    def stop(row: pd.Series[Any]) -> bool:
        if row["text"] == "yes 3":
            raise KeyboardInterrupt
        return True

    with pytest.raises(errors.Interrupted) as raised:
        frame.llm.filter(STATEMENT, oracle=stop)
    assert raised.value.hint is None
