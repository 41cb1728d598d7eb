"""``join``: pairs of rows of two tables, with a model or a function as the oracle."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.dataframes.operators import join
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.host import TerminalHost, install_host
from tests.support.judge import Judge
from tests.support.serving import Asked, Says, as_json, serving

STATEMENT = "{{ left.text }} matches {{ right.text }}"
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "jetty"]


def names(count: int) -> list[str]:
    """Different names of three words."""
    return [
        f"{WORDS[n % 10]} {WORDS[n // 10 % 10]} {WORDS[n // 100 % 10]}{n}" for n in range(count)
    ]


def matches(said: str) -> bool:
    """Return whether both names of a statement are equal, without the last letter."""
    left, right = said.split(" matches ")
    return left == right[:-1]


@pytest.fixture
def service(own_settings: None) -> Iterator[Judge]:
    """The service ``lab``, whose model ``m`` is asked where none is named."""
    fake = Judge(matches)
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.model = "lab/m"
        lm.config.cache_dir = "cache"
        yield fake


def same_name(row: pd.Series[Any]) -> bool:
    """An oracle without a model."""
    return matches(f"{row['left.text']} matches {row['right.text']}")


def tables(count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables, in different orders, in which each row has one partner."""
    left = pd.DataFrame({"text": names(count), "a": range(count)})
    right = pd.DataFrame({"text": [f"{each}s" for each in names(count)], "b": range(count)})
    return left, right.sample(frac=1, random_state=0)


def test_a_model_is_asked_about_all_pairs_of_small_tables(service: Judge) -> None:
    """The result has the columns of both tables, and the report says why."""
    left, right = tables(3)
    found = left.llm.join(right, STATEMENT)
    assert found.columns.tolist() == ["text_x", "a", "text_y", "b"]
    assert found.a.tolist() == found.b.tolist() == [0, 1, 2]
    assert len(service.paid) == 9
    report = found.llm.report
    assert str(report) == "3 of 9 pairs · 9 asked (100 %) · recall 1: the tables are small"
    assert (report.calls, report.cached, report.oracle) == (9, 0, "lab/m")
    assert report.frame().answer.sum() == 3
    assert left.llm.join(right, STATEMENT).llm.report.cached == 9
    assert len(service.paid) == 9


def test_unlikely_pairs_are_not_asked() -> None:
    """But a random sample of them, so that the promise holds."""
    left, right = tables(150)
    found = left.llm.join(right, STATEMENT, oracle=same_name)
    assert found.a.tolist() == found.b.tolist() == list(range(150))
    report = found.llm.report
    assert (report.candidates, report.is_complete, report.pairs) == ("ngrams", False, 22_500)
    assert report.asked == report.calls < 0.3 * report.pairs
    assert report.recall_interval[0] >= 0.9
    assert report.estimated_recall == 1
    assert report.why_complete == ""
    assert "recall at least 0.9" in str(report)
    assert sum(report.sources.values()) == report.asked
    frame = report.frame()
    assert {*frame.source} == {"pilot", "candidate", "sample"}
    assert frame[frame.answer].left.sort_values().tolist() == list(range(150))


def test_the_order_of_the_tables_does_not_matter() -> None:
    """The same pairs are asked, in another order."""
    left, right = tables(60)
    asked = []
    for one, other in ((left, right), (left[::-1], right.sort_values("b"))):
        report = one.llm.join(other, STATEMENT, oracle=same_name).llm.report
        asked.append(set(report.frame()[["left", "right"]].itertuples(index=False, name=None)))
    assert asked[0] == asked[1]
    other_seed = left.llm.join(right, STATEMENT, oracle=same_name, seed=1).llm.report.frame()
    assert set(other_seed[["left", "right"]].itertuples(index=False, name=None)) != asked[0]


@pytest.mark.parametrize(
    ("how", "a", "b"),
    [
        ("inner", [1, 2], [10, 20]),
        ("left", [0, 1, 2], [None, 10, 20]),
        ("right", [1, 2, None], [10, 20, 30]),
        ("outer", [0, 1, 2, None], [None, 10, 20, 30]),
    ],
)
def test_rows_without_a_pair_stay_if_wanted(how: Any, a: list[Any], b: list[Any]) -> None:
    """As with `pandas.merge`; index labels may be repeated."""
    left = pd.DataFrame({"text": ["x", "y", "z"], "a": [0, 1, 2]}, index=[5, 5, 5])
    right = pd.DataFrame({"text": ["ys", "zs", None], "b": [10, 20, 30]}, index=[1, 1, 2])
    found = left.llm.join(right, STATEMENT, how, oracle=same_name)
    assert found.a.astype("Int64").tolist() == [pd.NA if each is None else each for each in a]
    assert found.b.astype("Int64").tolist() == [pd.NA if each is None else each for each in b]
    assert found.index.tolist() == list(range(len(a)))
    assert found.llm.report.missing == (0, 1)


def test_names_of_columns_get_suffixes_only_where_needed() -> None:
    """Two columns with the same name are refused."""
    left = pd.DataFrame({"text": ["x"], "k": [1]})
    right = pd.DataFrame({"text": ["xs"], "k": [2], "text_x": [3]})
    with pytest.raises(errors.UsageError, match="two columns with the name text_x"):
        left.llm.join(right, STATEMENT, oracle=same_name)
    found = left.llm.join(right, STATEMENT, oracle=same_name, suffixes=("", "_r"))
    assert found.columns.tolist() == ["text", "k", "text_r", "k_r", "text_x"]
    with pytest.raises(errors.UsageError, match="Invalid value for suffixes"):
        left.llm.join(right, STATEMENT, oracle=same_name, suffixes="_x")  # type: ignore[arg-type]


def test_lists_and_arrow_tables_are_joined_too() -> None:
    """A list is the column ``text``."""
    pa = pytest.importorskip("pyarrow")
    right = pa.table({"text": ["bs", "as"], "n": [1, 2]})
    found = lm.join(["a", "b"], right, STATEMENT, oracle=same_name)
    assert found.n.tolist() == [2, 1]  # type: ignore[union-attr]
    assert found.llm.report.found == 2


def test_empty_tables_and_rows_without_texts() -> None:
    """They have no pairs; the columns stay."""
    empty = pd.DataFrame({"text": pd.Series([], dtype=object)})
    found = empty.llm.join(empty, STATEMENT, oracle=same_name)
    assert found.columns.tolist() == ["text_x", "text_y"]
    assert str(found.llm.report).startswith("0 of 0 pairs")
    missing = pd.DataFrame({"text": [None, ""]})
    assert len(missing.llm.join(empty, STATEMENT, "outer", oracle=same_name)) == 2


def test_stored_vectors_find_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one model; given scores are used as they are."""
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((60, 32)).astype(np.float32)
    left, right = tables(60)
    left["vector"] = list(vectors)
    right["vector"] = list(vectors[right.b])
    report = left.llm.join(right, STATEMENT, oracle=same_name).llm.report
    assert (report.candidates, report.found) == ("vectors", 60)
    assert report.asked < 0.75 * report.pairs
    scores = vectors @ vectors[right.b].T
    options = {"oracle": same_name, "candidates": scores, "recall": 0.8}
    report = left.llm.join(right, STATEMENT, **options).llm.report
    assert (report.candidates, report.found) == ("scores", 60)
    with pytest.raises(errors.UsageError, match=r"shape \(60, 60\), got \(2, 2\)"):
        left.llm.join(right, STATEMENT, oracle=same_name, candidates=scores[:2, :2])
    right["vector"] = list(vectors[right.b][:, :8])
    with pytest.raises(errors.UsageError, match="32 and 8 dimensions"):
        left.llm.join(right, STATEMENT, oracle=same_name)
    with pytest.raises(errors.UsageError, match="Invalid value for candidates"):
        left.llm.join(right, STATEMENT, oracle=same_name, candidates="words")


def test_texts_are_embedded_if_wanted(service: Judge) -> None:
    """With the embedding model; also those of another column than the prompt names."""
    lm.config.embedding_model = "echo/echo"
    left, right = tables(20)
    options = {"oracle": same_name, "candidates": "vectors", "on_left": "text"}
    report = left.llm.join(right, STATEMENT, **options).llm.report
    assert (report.candidates, report.found) == ("vectors", 20)


def test_pairs_that_fail_are_listed(service: Judge) -> None:
    """And are not in the result; ``on_error`` raises the error instead."""
    service.poison = {"cedar"}
    left, right = tables(4)
    with pytest.warns(UserWarning, match="7 failed"):
        found = left.llm.join(right, STATEMENT)
    assert found.a.tolist() == [0, 1, 3]
    frame = found.llm.report.frame()
    assert frame.answer.isna().sum() == found.llm.report.failed == 7
    assert frame.error[frame.answer.isna()].str.contains("Not that").all()
    with pytest.raises(errors.LLMError, match="Not that"):
        left.llm.join(right, STATEMENT, on_error="raise")


def test_an_interrupt_keeps_the_pairs_so_far(service: Judge) -> None:
    """They are stored, so that the same call pays only for the others."""
    left, right = tables(6)

    def holds(said: str) -> bool:
        if len(service.paid) == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return matches(said)

    service.holds = holds
    with pytest.raises(errors.Interrupted, match="of 36 pairs have answers") as caught:
        left.llm.join(right, STATEMENT, concurrency=1)
    assert (caught.value.partial.a == caught.value.partial.b).all()
    service.holds = matches
    before = len(service.paid)
    assert len(left.llm.join(right, STATEMENT)) == 6
    assert len(service.paid) - before <= 36 - 18


class Asking(TerminalHost):
    """A user who answers questions."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer
        self.questions: list[str] = []

    def ask(self, prompt: str) -> str | None:
        self.questions.append(prompt)
        return self.answer


def test_the_expected_cost_is_confirmed_after_the_pilot(service: Judge) -> None:
    """With its share of all pairs; the answers of the pilot are stored."""
    lm.config.prices = {"lab/m": {"input_usd": 5.0, "output_usd": 5.0}}
    lm.config.confirm_above_usd = 0.13
    left, right = tables(24)
    host = Asking("n")
    install_host(host)
    try:
        with pytest.raises(errors.DeclinedError, match="answers so far are stored"):
            left.llm.join(right, STATEMENT)
    finally:
        install_host(TerminalHost())
    assert len(host.questions) == 1
    assert "of 576 pairs" in host.questions[0]
    paid = len(service.paid)
    assert 100 < paid <= 200
    estimate = left.llm.join(right, STATEMENT, dry_run=True)
    assert (estimate.rows, len(service.paid)) == (576, paid)
    assert 80 < estimate.prompts < 540
    found = left.llm.join(right, STATEMENT, yes=True)
    assert len(found) == 24
    assert len(service.paid) == found.llm.report.asked
    assert left.llm.join(right, STATEMENT, dry_run=True).prompts == 0


def test_a_dry_run_without_answers_is_about_all_pairs(service: Judge) -> None:
    """Nothing is sent."""
    left, right = tables(60)
    estimate = left.llm.join(right, STATEMENT, dry_run=True)
    assert (estimate.rows, estimate.prompts) == (3_600, 3_600)
    assert service.paid == []
    assert left.llm.join(right, STATEMENT, oracle=same_name, dry_run=True).prompts == 0


def test_the_cost_is_that_of_pairs_not_yet_asked(service: Judge) -> None:
    """Also for the second confirmation, and for a dry run after an interrupted sample."""
    left, right = tables(40)
    lm.config.prices = {"lab/m": {"input_usd": 5.0, "output_usd": 5.0}}
    spec = RowPrompts(text=STATEMENT)
    run = join._Join((left, right), spec, None, recall=0.9, confidence=0.95)
    run.prepare("auto", (None, None), None, 0)
    first = run._order.first(200)[:200]
    run._oracle.ask(run._items(first))
    estimate = run._estimate(100, first)
    assert estimate.prompts == 100
    assert estimate.cost_usd is not None
    assert estimate.cost_usd > 0
    assert run._estimate(-50, first).prompts == 0


def test_copies_of_rows_are_paid_for_once(service: Judge) -> None:
    """A dry run is about different pairs of contents."""
    left, right = tables(5)
    many = pd.concat([left] * 10, ignore_index=True), pd.concat([right] * 8, ignore_index=True)
    estimate = many[0].llm.join(many[1], STATEMENT, dry_run=True)
    assert (estimate.rows, estimate.prompts) == (2_000, 25)
    found = many[0].llm.join(many[1], STATEMENT)
    assert (len(service.paid), found.llm.report.found) == (25, 400)
    assert many[0].llm.join(many[1], STATEMENT, dry_run=True).prompts == 0


def test_an_interrupted_join_promises_nothing(service: Judge) -> None:
    """Its report counts the wave that was cut off."""
    left, right = tables(20)

    def holds(said: str) -> bool:
        if len(service.paid) == 30:
            os.kill(os.getpid(), signal.SIGINT)
            service.delay_s = 5.0
        return matches(said)

    service.holds = holds
    with pytest.raises(errors.Interrupted, match=r"Stopped: (\d+) of 400") as caught:
        left.llm.join(right, STATEMENT, concurrency=2)
    report = caught.value.partial.llm.report
    assert (report.recall_interval, report.estimated_recall) == (None, None)
    assert "recall" not in str(report)
    assert report.asked == len(report.frame()) >= 27
    assert report.sources["pilot"] == report.asked
    assert report.found == len(caught.value.partial)


def test_answers_of_a_function_are_not_stored() -> None:
    """So an interrupt does not say that they are."""
    left, right = tables(6)
    calls: list[str] = []

    def stop(row: pd.Series[Any]) -> bool:
        calls.append(row["left.text"])
        if len(calls) == 10:
            raise KeyboardInterrupt
        return True

    with pytest.raises(errors.Interrupted) as caught:
        left.llm.join(right, STATEMENT, oracle=stop)
    assert caught.value.hint is None
    assert len(caught.value.partial) == 9


def test_a_dry_run_embeds_nothing(own_settings: None) -> None:
    """It adds the cost of the vectors; ``yes`` allows that too."""
    seen: list[str] = []

    def embed(asked: Asked) -> Says:
        texts = asked.json()["input"]
        seen.extend(texts)
        draw = np.random.default_rng(0).standard_normal((len(texts), 8)).tolist()
        return as_json({"data": [{"index": n, "embedding": row} for n, row in enumerate(draw)]})

    left, right = tables(20)
    options: dict[str, Any] = {"candidates": "vectors", "oracle": same_name}
    with serving(embed) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.embedding_model, lm.config.model = "lab/e", "lab/m"
        lm.config.cache_dir = "cache"
        lm.config.prices = {"lab/e": {"input_usd": 1e6}}
        estimate = left.llm.join(right, STATEMENT, **options, dry_run=True)
        assert (estimate.rows, estimate.prompts, seen) == (400, 40, [])
        assert estimate.cost_usd > 40
        asking = left.llm.join(right, STATEMENT, candidates="vectors", dry_run=True)
        assert asking.prompts == 440
        with pytest.raises(errors.UsageError, match="Confirmation is required"):
            left.llm.join(right, STATEMENT, **options)
        assert left.llm.join(right, STATEMENT, **options, yes=True).llm.report.found == 20
        assert len(seen) == 40
        assert left.llm.join(right, STATEMENT, **options, dry_run=True).prompts == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"how": "cross"}, "Invalid value for how"),
        ({"recall": 0}, "Invalid value for recall"),
        ({"recall": True}, "Invalid value for recall"),
        ({"confidence": 1}, "confidence must be below 1"),
        ({"seed": 0.5}, "seed"),
        ({"batch": True}, "join cannot use batch jobs"),
        ({"oracle": 3}, "Invalid value for oracle"),
        ({"model": "lab/m", "oracle": "lab/m"}, "Both oracle and model"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    """Before anything is asked."""
    left, right = tables(2)
    with pytest.raises(errors.UsageError, match=message):
        left.llm.join(right, STATEMENT, **options)
