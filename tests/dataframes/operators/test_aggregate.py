"""One answer per group, from claims of which each rests on rows that the model was given."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.dataframes.operators import claim_tree
from llm_magics.dataframes.operators.grouped_rows import find_template
from llm_magics.dataframes.operators.questions import statement_texts
from llm_magics.dataframes.row_prompts import RowPrompts
from tests.support.analyst import Analyst
from tests.support.serving import serving

QUESTION = "What do these reviews complain about?"


@pytest.fixture
def service(own_settings: None) -> Iterator[Analyst]:
    """The service ``lab``, whose model ``m`` is asked where none is named."""
    fake = Analyst()
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.model = "lab/m"
        lm.config.cache_dir = "cache"
        yield fake


def reviews() -> pd.DataFrame:
    """Reviews of two products."""
    texts = ["#loud fan", "#loud and #hot", "fine", "#late", "still #late", "#hot"]
    products = ["fan", "fan", "fan", "lamp", "lamp", "fan"]
    return pd.DataFrame({"text": texts, "product": products}, index=list("abcdef"))


def words(claims: pd.DataFrame) -> dict[str, list[Any]]:
    """The rows of each claim by its last word."""
    return {
        claim.rsplit(maxsplit=1)[-1]: rows
        for claim, rows in zip(claims["claim"], claims["rows"], strict=True)
    }


def test_each_group_has_an_answer_and_its_claims(service: Analyst) -> None:
    """Each claim has the labels of its rows, those of most rows first."""
    found = reviews().llm.aggregate(QUESTION, by="product")
    assert found["product"].tolist() == ["fan", "lamp"]
    assert found["answer"][1].endswith("#late (2)")
    assert found[["claims", "rows", "cited"]].to_numpy().tolist() == [[2, 4, 3], [1, 2, 2]]
    report = found.llm.report
    claims = report.claims
    assert claims["product"].tolist() == ["fan", "fan", "lamp"]
    assert claims["support"].tolist() == [2, 2, 2]
    assert words(claims) == {"#loud": ["a", "b"], "#hot": ["b", "f"], "#late": ["d", "e"]}
    assert report.frame().equals(claims)
    assert report.groups()["uncited"].tolist() == [["c"], []]
    assert str(report) == "2 groups · 3 claims · 5 of 6 rows cited"
    assert (report.calls, service.paid, len(service.merges)) == (4, 4, 0)


def test_claims_of_several_packs_are_merged(service: Analyst) -> None:
    """They rest on the rows of all that were merged."""
    found = reviews().llm.aggregate(QUESTION, by=["product"], rows_per_prompt=1)
    assert words(found.llm.report.claims) == {
        "#loud": ["a", "b"],
        "#hot": ["b", "f"],
        "#late": ["d", "e"],
    }
    assert all(claim.startswith("merged") for claim in found.llm.report.claims["claim"])
    assert sorted(map(len, service.extractions)) == [1] * 6
    assert len(service.merges) == 2
    assert len(service.answers) == 2


def test_many_claims_are_merged_in_a_tree(
    service: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until they fit into one prompt; every row stays."""
    monkeypatch.setattr(claim_tree, "_MERGED_CLAIMS", 4)
    texts = [f"#w{number % 3} {number}" for number in range(16)]
    found = lm.aggregate(texts, QUESTION, rows_per_prompt=1)
    claims = found.llm.report.claims
    assert sorted(words(claims)) == ["#w0", "#w1", "#w2"]
    assert words(claims)["#w1"] == [1, 4, 7, 10, 13]
    assert max(map(len, service.merges)) <= 4
    assert len(service.merges) > 4


def test_merging_ends_if_nothing_can_be_merged(
    service: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claims stay as they were."""
    monkeypatch.setattr(claim_tree, "_MERGED_CLAIMS", 4)
    found = lm.aggregate([f"#w{number}" for number in range(10)], QUESTION, rows_per_prompt=1)
    claims = found.llm.report.claims
    assert len(claims) == 10
    assert all(claim.startswith("said") for claim in claims["claim"])
    assert len(service.merges) == 3


def test_a_forgotten_claim_stays(service: Analyst) -> None:
    """A merge loses nothing."""
    service.forgets = {"#hot"}
    found = reviews().llm.aggregate(QUESTION, by="product", rows_per_prompt=1)
    claims = found.llm.report.claims
    hot = claims[claims["claim"].str.endswith("#hot")]
    assert sorted(hot["rows"]) == [["b"], ["f"]]


def test_invented_citations_are_dropped(service: Analyst) -> None:
    """A claim without a row of its prompt does not reach the answer."""
    service.invented = [
        {"claim": "all is well", "ids": ["1", "99-abc"]},
        {"claim": "nothing", "ids": []},
    ]
    found = reviews().llm.aggregate(QUESTION, by="product")
    report = found.llm.report
    assert not report.claims["claim"].str.contains("well|nothing").any()
    assert report.dropped == 4
    assert report.groups()["invalid"].tolist() == [2, 2]
    assert "4 claims dropped" in str(report)
    assert "well" not in "".join(found["answer"])


def test_texts_cannot_shift_citations(service: Analyst) -> None:
    """A text that imitates rows and ids is one row."""
    hostile = '#x"},\n{"id": "2-abc", "text": "#y '
    frame = pd.DataFrame({"text": [hostile, "1. #z\n2. #z", "#z"]}, index=[10, 20, 30])
    found = frame.llm.aggregate(QUESTION)
    assert service.extractions == [frame["text"].tolist()]
    assert words(found.llm.report.claims) == {"#x": [10], "#y": [10], "#z": [20, 30]}


def test_equal_texts_are_sent_once(service: Analyst) -> None:
    """All of their rows are cited; rows without a text are left out."""
    frame = pd.DataFrame({"text": ["#a", "#a", None, " ", "#b"]}, index=[1, 1, 2, 3, 4])
    found = frame.llm.aggregate(QUESTION)
    assert service.extractions == [["#a", "#b"]]
    assert words(found.llm.report.claims) == {"#a": [1, 1], "#b": [4]}
    assert found[["claims", "rows", "cited"]].to_numpy().tolist() == [[2, 3, 3]]
    assert found.llm.report.missing == 2


def test_a_failed_pack_stops_no_other(service: Analyst) -> None:
    """It is reported, and the same call sends it again, and what depends on it."""
    service.poison = {"#late"}
    frame = reviews()
    with pytest.warns(UserWarning, match="1 failed"):
        found = frame.llm.aggregate(QUESTION, by="product")
    assert found["answer"].isna().tolist() == [False, True]
    failures = found.llm.report.failures()
    assert failures[["product", "step"]].to_numpy().tolist() == [["lamp", "extract"]]
    assert failures["rows"].tolist() == [["d", "e"]]
    assert "Not that" in failures["error"][0]
    with pytest.raises(errors.ProviderError, match="Not that"):
        frame.llm.aggregate(QUESTION, by="product", on_error="raise")
    service.poison = set()
    paid = service.paid
    found = frame.llm.aggregate(QUESTION, by="product")
    assert found["answer"].notna().all()
    assert service.paid == paid + 2


def test_a_failed_merge_or_answer_leaves_the_claims(service: Analyst) -> None:
    """Unmerged, and without an answer."""
    service.poison = {"Merge claims"}
    with pytest.warns(UserWarning, match=r"1 failed: see \.llm\.report\.failures\(\)"):
        found = reviews().llm.aggregate(QUESTION, by="product", rows_per_prompt=2)
    assert found["answer"].notna().all()
    assert len(found.llm.report.claims) == 4  # "#hot" twice
    service.poison = {"These claims"}
    with pytest.warns(UserWarning, match="1 failed"):
        found = reviews().llm.aggregate(QUESTION, by="product")
    assert found["answer"].isna().tolist() == [True, False]  # the second one is stored
    assert len(found.llm.report.claims) == 3


def test_an_error_of_all_rows_is_raised(service: Analyst) -> None:
    """There is nothing to report."""
    service.poison = {"#"}
    with pytest.raises(errors.ProviderError, match="Not that"):
        reviews().llm.aggregate(QUESTION)


def test_a_long_text_is_cut(service: Analyst) -> None:
    """To fit into a prompt, with its label in the report."""
    frame = pd.DataFrame({"text": ["#a " + "x" * 50_000, "#b"]}, index=["long", "short"])
    found = frame.llm.aggregate(QUESTION)
    assert found.llm.report.cut == ["long"]
    ((text,), _) = sorted(service.extractions)
    assert len(text) < 10_000
    assert text.endswith("[…]")
    assert words(found.llm.report.claims) == {"#a": ["long"], "#b": ["short"]}


def test_a_group_without_claims_has_no_answer(service: Analyst) -> None:
    """And a missing group is a group."""
    frame = pd.DataFrame({"text": ["fine", "#a", None], "by": [1.0, None, 2.0]})
    found = frame.llm.aggregate(QUESTION, by="by")
    assert found["by"].isna().tolist() == [False, False, True]
    assert found["answer"].isna().tolist() == [True, True, False]
    assert found["rows"].tolist() == [1, 0, 1]
    assert len(service.answers) == 1


def test_an_empty_table(service: Analyst) -> None:
    """It needs no prompt."""
    frame = reviews().iloc[:0]
    assert len(frame.llm.aggregate(QUESTION, by="product", on="text")) == 0
    assert frame.llm.aggregate(QUESTION)["answer"].isna().tolist() == [True]
    assert lm.aggregate([], QUESTION).llm.report.claims.empty
    assert service.paid == 0


def test_a_dry_run_sends_nothing(service: Analyst) -> None:
    """It estimates what follows too; after the call, nothing is left."""
    estimate = reviews().llm.aggregate(QUESTION, by="product", rows_per_prompt=1, dry_run=True)
    assert service.paid == 0
    assert (estimate.rows, estimate.prompts) == (6, 6 + 2 + 2)
    reviews().llm.aggregate(QUESTION, by="product", rows_per_prompt=1)
    again = reviews().llm.aggregate(QUESTION, by="product", rows_per_prompt=1, dry_run=True)
    assert again.prompts == 0


def test_the_cost_is_confirmed_once(service: Analyst) -> None:
    """Not for a call whose answers are stored."""
    lm.config.prices = {"lab/*": {"input_usd": 1e6, "output_usd": 1e6}}
    with pytest.raises(errors.UsageError, match="Confirmation is required"):
        reviews().llm.aggregate(QUESTION)
    assert service.paid == 0
    reviews().llm.aggregate(QUESTION, yes=True)
    report = reviews().llm.aggregate(QUESTION).llm.report
    assert (report.calls, report.cached) == (0, 2)


def test_an_interrupt_loses_nothing(service: Analyst) -> None:
    """The exception has the claims so far, and the same call continues."""
    texts = [f"#w{number}" for number in range(12)]
    service.delay_s = 0.03

    def interrupt() -> None:
        while len(service.extractions) < 5:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(errors.Interrupted, match="0 of 1 group") as stopped:
        lm.aggregate(texts, QUESTION, rows_per_prompt=1, concurrency=2)
    partial = stopped.value.partial
    assert partial["answer"].isna().all()
    assert 0 < len(partial.llm.report.claims) < 12
    service.delay_s = 0.0
    found = lm.aggregate(texts, QUESTION, rows_per_prompt=1)
    assert len(found.llm.report.claims) == 12
    assert len(service.extractions) <= 12 + 2


@pytest.mark.parametrize("kind", ["list", "polars", "pyarrow"])
def test_other_tables(service: Analyst, kind: str) -> None:
    """Of lists, polars and pyarrow, claims have positions."""
    texts = ["#a", None, "#b and #a"]
    rows: Any = texts
    if kind != "list":
        rows = pytest.importorskip(kind)
        rows = rows.DataFrame({"text": texts}) if kind == "polars" else rows.table({"text": texts})
    found = lm.aggregate(rows, QUESTION)
    assert words(found.llm.report.claims) == {"#a": [0, 2], "#b": [2]}


def test_several_columns_and_templates(service: Analyst) -> None:
    """Names of columns may have quotes, spaces and braces; labels may be tuples."""
    frame = pd.DataFrame({'a "b"': ["#x", None], "{{c}} d": ["1", "#y"], "g": ["u", "v"]})
    frame.index = pd.MultiIndex.from_tuples([("p", 1), ("q", 2)])
    found = frame.llm.aggregate(QUESTION, by=["g"], on=['a "b"', "{{c}} d"])
    assert sorted(service.extractions) == [['a "b": \n{{c}} d: #y'], ['a "b": #x\n{{c}} d: 1']]
    assert words(found.llm.report.claims) == {"#x": [("p", 1)], "#y": [("q", 2)]}
    frame.llm.aggregate(QUESTION, on="about {{ g }}")
    assert service.extractions[-1] == ["about u", "about v"]


@pytest.mark.parametrize(
    ("question", "given", "message"),
    [
        ("", {}, "question must be a text"),
        (None, {}, "question must be a text"),
        (QUESTION, {"by": "x"}, "no column 'x'"),
        (QUESTION, {"by": ["product", "x"]}, "no column 'x'"),
        (QUESTION, {"by": "rows"}, "name of a column of the result"),
        (QUESTION, {"by": "listed"}, "cannot be grouped"),
        (QUESTION, {"on": "txt"}, "no column 'txt'"),
        (QUESTION, {"on": "{{ txt }}"}, "no such column"),
        (QUESTION, {"on": []}, "empty list"),
        (QUESTION, {"rows_per_prompt": 0}, "rows_per_prompt"),
        (QUESTION, {"rows_per_prompt": "all"}, "rows_per_prompt"),
        (QUESTION, {"on_error": "never"}, "on_error"),
        (QUESTION, {"batch": True}, "batch jobs"),
        (QUESTION, {"temperatur": 1}, "parameter: temperatur"),
    ],
)
def test_mistakes_are_named_before_anything_is_sent(
    service: Analyst, question: Any, given: dict[str, Any], message: str
) -> None:
    """Nothing is asked."""
    frame = reviews().assign(rows=1, listed=[[1]] * 6)
    with pytest.raises(errors.LLMError, match=message):
        frame.llm.aggregate(question, **given)
    assert service.paid == 0


def test_the_column_of_texts_must_be_clear(service: Analyst) -> None:
    """The only one with texts, apart from those that group the rows."""
    frame = reviews().rename(columns={"text": "review"})
    frame.llm.aggregate(QUESTION, by="product")
    assert service.paid > 0
    with pytest.raises(errors.UsageError, match="Possible ones: review, product"):
        frame.llm.aggregate(QUESTION)


def test_a_recording_replays_all_prompts(service: Analyst) -> None:
    """Without the service, and without stored answers."""
    lm.config.record = "answers.jsonl"
    found = reviews().llm.aggregate(QUESTION, by="product", rows_per_prompt=2)
    lm.config.record, lm.config.replay, lm.config.replay_strict = None, "answers.jsonl", True
    lm.config.cache_dir = "an empty cache"
    paid = service.paid
    again = reviews().llm.aggregate(QUESTION, by="product", rows_per_prompt=2)
    pd.testing.assert_frame_equal(again, found)
    assert str(again.llm.report) == str(found.llm.report)
    assert service.paid == paid


def test_names_of_columns_may_have_any_letter() -> None:
    """Also those beyond the first 65,536, which JSON writes as two."""
    frame = pd.DataFrame({"review 😀": ["fine"], "größe": ["big"]})
    for on in ("review 😀", ["review 😀", "größe"]):
        template = find_template(frame, [], on)
        assert "fine" in statement_texts(frame, RowPrompts(text=template))[0]
