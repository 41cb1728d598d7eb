"""Results of evaluations: means, differences with earlier runs, failures, and files."""

from __future__ import annotations

import json
import os
import pickle
import stat
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_magics as lm
from llm_magics.errors import UsageError
from llm_magics.evaluations import stored
from llm_magics.evaluations.comparisons import common_items
from llm_magics.evaluations.datasets import EvaluationSet
from llm_magics.evaluations.results import EvaluationResults
from tests.support.prepared_python import run_prepared

ECHO, LOREM = "echo/echo", "echo/lorem"


def rows_of(count: int) -> list[dict[str, Any]]:
    """Return items of which every second one is easy."""
    return [
        {"id": f"i{n}", "text": f"text {n}", "expected": f"text {n}" if n % 2 else "other"}
        for n in range(count)
    ]


def results_of(
    scores: dict[tuple[str, str, int], float], data: EvaluationSet, **about: Any
) -> EvaluationResults:
    """Return results with these scores by item, model and repeat."""
    rows = [
        {
            "item": item,
            "asked": model,
            "repeat": repeat,
            "prompt": item,
            "text": "x",
            "score_s": score,
            "error": None,
            "finish_reason": "stop",
            "cached": False,
            "retries": 0,
            "cost_usd": 0.0,
            "output_tokens": 1,
            **({"cluster": item[:1]} if about.get("cluster") else {}),
        }
        for (item, model, repeat), score in scores.items()
    ]
    return EvaluationResults.of_rows(rows, about, data)


def test_means_are_over_items() -> None:
    """Repeats of an item are averaged first, and the interval is that of items."""
    data = EvaluationSet([{"id": id_, "text": id_} for id_ in ("a", "b", "c")])
    scores = {("a", "m", 0): 1.0, ("b", "m", 0): 0.0, ("c", "m", 0): 1.0}
    more = scores | {("a", "m", repeat): 1.0 for repeat in range(1, 9)}
    one, other = (results_of(each, data).summary() for each in (scores, more))
    for name in ("score_s", "score_s_low", "score_s_high"):
        assert one.loc["m", name] == pytest.approx(other.loc["m", name])
    assert results_of(more, data).item_scores()["m"].tolist() == [1, 0, 1]
    with pytest.raises(UsageError, match="These results have no score"):
        lm.evaluate(lambda row: row.text, data).item_scores()


def test_clusters_widen_intervals() -> None:
    """Items of the same document count as one, if they are alike."""
    items = [f"{letter}{n}" for letter in "abcdef" for n in range(10)]
    data = EvaluationSet([{"id": id_, "text": id_} for id_ in items])
    scores = {(id_, "m", 0): float(id_[0] in "ace") for id_ in items}
    alone = results_of(scores, data).summary().loc["m"]
    grouped = results_of(scores, data, cluster="doc").summary().loc["m"]
    widths = [row["score_s_high"] - row["score_s_low"] for row in (alone, grouped)]
    assert widths[1] > 2.5 * widths[0]
    both = scores | {(id_, "n", 0): 1.0 for id_ in items}
    row = results_of(both, data, cluster="doc").differences().iloc[0]
    assert row["test"] == "clustered t"
    assert row["p"] > 0.05
    assert results_of(both, data).differences().iloc[0]["p"] < 1e-6


def test_a_run_is_compared_with_the_previous_one() -> None:
    """Of the same name, paired by item; a positive difference means that it is now better."""
    data = EvaluationSet(rows_of(12))
    then = lm.evaluate("not {{ text }}", data, ECHO, score="exact", name="n")
    lm.evaluate("{{ text }}", data, ECHO, score="exact", name="other")
    now = lm.evaluate("{{ text }}", data, ECHO, score="exact", name="n")
    for differences in (
        now.differences(),
        now.differences(other="previous"),
        now.differences(other=then),
        now.differences(other=then.attrs["id"]),
    ):
        row = differences.iloc[0]
        assert row["model"] == f"{ECHO} @ {then.attrs['id']}"
        assert (row["other"], row["n"], row["difference"]) == (ECHO, 12, 0.5)
        assert differences.attrs["items"]["compared"] == 12
    named = now.differences(other="other").iloc[0]
    assert (named["model"], named["difference"]) == (f"{ECHO} @ other", 0)
    with pytest.raises(UsageError, match="No earlier run of 'n'"):
        then.differences()
    with pytest.raises(UsageError, match="got DataFrame"):
        now.differences(other=pd.DataFrame({"a": [1]}))  # type: ignore[arg-type]


def test_runs_over_other_items_are_not_compared_unless_asked() -> None:
    """The error names the items that are missing or changed."""
    rows = rows_of(6)
    then = lm.evaluate("{{ text }}", rows, ECHO, score="exact")
    changed = [{**rows[1], "expected": "new"}, *rows[2:], {"id": "i9", "text": "x"}]
    with pytest.warns(UserWarning, match="expected has no value"):
        now = lm.evaluate("{{ text }}", changed, ECHO, score="exact")
    message = r"1 changed \(i1\), 1 missing in the other run \(i9\), 1 missing in this run \(i0\)"
    with pytest.raises(UsageError, match=message):
        now.differences(other=then)
    common = now.differences(other=then, common=True)
    assert common.iloc[0]["n"] == 4
    assert common.attrs["items"] == {
        "compared": 4,
        "changed": ["i1"],
        "only_now": ["i9"],
        "only_then": ["i0"],
    }
    elsewhere = lm.evaluate("{{ text }}", [{"id": "z", "text": "x"}], ECHO)
    with pytest.raises(UsageError, match="no items in common"):
        elsewhere.differences(other=then)


def test_other_labels_and_splits_do_not_matter() -> None:
    """The same inputs and expected answers are the same items."""
    then = lm.evaluate("{{ text }}", rows_of(4), ECHO, score="exact")
    rows = [{**row, "label_anna": "x", "split": "test"} for row in rows_of(4)]
    now = lm.evaluate("{{ text }}", rows, ECHO, score="exact")
    assert now.attrs["digest"] != then.attrs["digest"]
    assert now.differences(other=then).iloc[0]["n"] == 4


def test_comparisons_need_a_common_model_and_score() -> None:
    """Single models of different names are compared; of several, some must be the same."""
    data = EvaluationSet(rows_of(4))
    one = lm.evaluate("{{ text }}", data, ECHO, score="exact")
    other = lm.evaluate("{{ text }}", data, LOREM, score="exact")
    both = lm.evaluate("{{ text }}", data, [ECHO, LOREM])
    assert other.differences(other=one).iloc[0]["other"] == LOREM
    assert len(both.differences(other=both.scored("exact"), by="e2e_s")) == 2
    with pytest.raises(UsageError, match="The other run has no column score_exact"):
        one.differences(other=both)
    renamed = both.assign(asked=both["asked"] + "x").scored("exact")
    with pytest.raises(UsageError, match="no model in common"):
        one.differences(other=renamed)
    with pytest.raises(UsageError, match="Pass only one"):
        one.differences(other=one, baseline=ECHO)


def test_changed_scorers_are_reported() -> None:
    """A run that was scored by other code is not compared silently."""
    data = EvaluationSet(rows_of(3))
    then = lm.evaluate("{{ text }}", data, ECHO, score={"s": lambda answer: 1})
    now = lm.evaluate("{{ text }}", data, ECHO, score={"s": lambda answer: 0})
    with pytest.warns(UserWarning, match="scored by different versions of s"):
        now.differences(other=then)
    again = then.scored({"s": lambda answer: 0})
    assert now.differences(other=again)["difference"].tolist() == [0]
    other = again.scored({"s": lambda answer: 0.5})
    with pytest.warns(UserWarning, match="scored by different versions of s"):
        now.differences(other=other)


def test_failures_are_the_worst_answers() -> None:
    """Errors first, then the lowest scores; right answers are left out."""
    data = EvaluationSet([{"id": id_, "text": id_} for id_ in "abcd"])
    scores = {("a", "m", 0): 1.0, ("b", "m", 0): 0.5, ("c", "m", 0): 0.0, ("d", "m", 0): 0.0}
    runs = results_of(scores, data)
    runs.loc[runs["item"] == "d", "error"] = "ProviderError: x"
    assert runs.failures()["item"].tolist() == ["d", "c", "b"]
    assert runs.failures(1)["item"].tolist() == ["d"]
    assert runs.drop(columns="score_s").failures()["item"].tolist() == ["d"]


def test_results_are_loaded_as_they_were_saved(tmp_path: Path) -> None:
    """From a file that only the user can read, with items, types and attributes."""
    rows = [{**row, "label_anna": "p", "split": "test"} for row in rows_of(3)]
    runs = lm.evaluate("{{ text }}", rows, [ECHO, LOREM], score=["exact", len], cluster="text")
    path = tmp_path / "runs.jsonl"
    runs.save(path)
    loaded = lm.load_evaluation(path)
    pd.testing.assert_frame_equal(pd.DataFrame(loaded), pd.DataFrame(runs))
    assert loaded.data.digest == runs.data.digest == runs.attrs["digest"]
    without = [
        {k: v for k, v in each.attrs.items() if k != "load_average"} for each in (runs, loaded)
    ]
    assert without[0] == without[1]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    pd.testing.assert_frame_equal(loaded.summary(), runs.summary())
    assert pickle.loads(pickle.dumps(runs)).data.digest == runs.data.digest
    assert runs[runs.asked == ECHO].data.digest == runs.data.digest
    with pytest.raises(UsageError, match="do not have their items"):
        EvaluationResults(pd.DataFrame(runs)).data  # noqa: B018


def test_each_run_is_stored(tmp_path: Path) -> None:
    """And listed with its scores, unless the setting is off."""
    lm.evaluate("{{ text }}", rows_of(4), [ECHO, LOREM], score="exact", name="first run/1")
    runs = lm.evaluate("{{ text }}", rows_of(4), ECHO, name="second")
    listed = lm.list_evaluations()
    assert listed["name"].tolist() == ["second", "first run/1", "first run/1"]
    assert listed["model"].tolist() == [ECHO, ECHO, LOREM]
    assert listed["score_exact"].tolist()[1:] == [0.5, 0]
    assert listed["digest"].tolist() == [runs.attrs["digest"][:12]] * 3
    assert listed["stopped"].isna().all()
    assert len(lm.load_evaluation("first run/1")) == 8
    for name in ("secnd", "x" * 5000, "a\0b", ""):
        with pytest.raises(UsageError, match="No stored evaluation is called"):
            lm.load_evaluation(name)
    with pytest.raises(UsageError, match="got NoneType"):
        lm.load_evaluation(None)  # type: ignore[arg-type]
    folder = tmp_path / "evaluations"
    assert not list(folder.glob("*.part*"))
    lm.config.evaluations = "off"
    assert not len(lm.list_evaluations())
    lm.evaluate("{{ text }}", rows_of(4), ECHO, name="third")
    assert len(list(folder.iterdir())) == 2


def test_old_runs_are_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When there are more than the limit."""
    monkeypatch.setattr(stored, "_MAX_RUNS", 2)
    for name in ("one", "two", "three"):
        lm.evaluate("{{ text }}", rows_of(1), ECHO, name=name)
        for age, path in enumerate(sorted((tmp_path / "evaluations").iterdir())):
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 1 - age / 100))
    assert set(lm.list_evaluations()["name"]) == {"two", "three"}
    monkeypatch.setattr(stored, "_MAX_BYTES", 1)
    lm.evaluate("{{ text }}", rows_of(1), ECHO, name="\U00020000" * 300)
    assert lm.list_evaluations()["name"].str.len().tolist() == [300]


def test_only_stored_runs_are_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other files in the folder stay, also saved results, and so does a run that is in progress."""
    folder = tmp_path / "evaluations"
    first = lm.evaluate("{{ text }}", rows_of(1), ECHO, name="first")
    first.save(folder / "saved.jsonl")
    EvaluationSet(rows_of(2)).save(folder / "data.jsonl")
    (folder / "gate.baseline.jsonl").write_text('{"format": "llm_magics answers 1"}\n', "utf-8")
    (folder / "old.part.jsonl").write_text("{}\n", "utf-8")
    journal = stored.open_journal({**first.attrs, "id": "now", "name": "now"}, first.data)
    assert journal is not None
    others = {path.name for path in folder.iterdir()} - {f"{first.attrs['id']}.jsonl"}
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    for limit in ("_MAX_RUNS", "_MAX_BYTES"):
        monkeypatch.setattr(stored, limit, 1)
        last = lm.evaluate("{{ text }}", rows_of(1), ECHO, name="last")
        left = {path.name for path in folder.iterdir()}
        assert left == others | {f"{last.attrs['id']}.jsonl"}
    journal.remove()


def test_a_folder_that_cannot_be_written_does_not_stop_a_run(tmp_path: Path) -> None:
    """The results are returned, with a warning."""
    (tmp_path / "file").write_text("", "utf-8")
    lm.config.evaluations = tmp_path / "file" / "below"
    with pytest.warns(UserWarning, match="could not be stored"):
        runs = lm.evaluate("{{ text }}", rows_of(2), ECHO)
    assert len(runs) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}\n",
        "[1]\n",
        '{"llm_magics_evaluation": 1}\n',
        '{"llm_magics_evaluation": 2, "about": {}, "scores": []}\n',
        '{"llm_magics_evaluation": 1, "about": {}, "scores": [1]}\n',
        '{"llm_magics_evaluation": 1, "about": {}, "scores": []}\nx\n',
        "\0" * 100,
    ],
)
def test_damaged_files_are_refused(text: str, tmp_path: Path) -> None:
    """And left out of the list of stored runs."""
    path = tmp_path / "evaluations" / "bad.jsonl"
    path.parent.mkdir()
    path.write_text(text, "utf-8")
    with pytest.raises(UsageError):
        lm.load_evaluation(path)
    assert len(lm.list_evaluations()) == 0


@pytest.mark.parametrize("kept", [0, 1])
def test_a_file_without_its_items_is_refused(kept: int, tmp_path: Path) -> None:
    """The answers to the others could not be scored or compared."""
    runs = lm.evaluate("{{ text }}", rows_of(2), ECHO)
    path = tmp_path / "runs.jsonl"
    runs.save(path)
    header, *items, first, second = path.read_text("utf-8").splitlines(keepends=True)
    assert len(items) == 2
    path.write_text("".join([header, *items[:kept], first, second]), "utf-8")
    with pytest.raises(UsageError, match="items of its answers are missing"):
        lm.load_evaluation(path)


def test_files_hold_no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys in prompts and answers are masked."""
    key = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"
    from llm_magics import secrets

    secrets.register_secret(key)
    runs = lm.evaluate("{{ text }}", [{"text": f"my key is {key}"}], ECHO)
    runs.save(tmp_path / "runs.jsonl")
    for path in (tmp_path / "runs.jsonl", *(tmp_path / "evaluations").iterdir()):
        assert key not in path.read_text("utf-8")
    secrets.forget_secret(key)


def test_items_with_masked_keys_are_the_same_items(tmp_path: Path) -> None:
    """Their digests are those of the texts before keys were masked; older files have none."""
    key = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"
    rows = [{"id": "a", "text": f"my key is {key}"}, {"id": "b", "text": "x"}]
    path, copy = tmp_path / "runs.jsonl", tmp_path / "copy.jsonl"
    now = lm.evaluate("{{ text }}", rows, ECHO, name="masked")
    now.save(path)
    lm.load_evaluation(path).save(copy)
    for each in (path, copy, "masked"):
        then = lm.load_evaluation(each)
        assert key not in then.data.items[0].inputs["text"]
        assert common_items(now._digests(), then[then.item != "c"]._digests()).is_all
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    older = [{name: line[name] for name in line if name != "digest"} for line in lines]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in older), "utf-8")
    assert common_items(now._digests(), lm.load_evaluation(path)._digests()).changed == ["a"]
    lines[1]["digest"] = 7
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    assert common_items(now._digests(), lm.load_evaluation(path)._digests()).changed == ["a"]


@pytest.mark.parametrize("value", [float("inf"), object(), {1: 2}, b"x", 10**2000])
def test_a_column_that_json_cannot_store_is_named(value: Any, tmp_path: Path) -> None:
    """The file is not written."""
    runs = lm.evaluate("{{ text }}", rows_of(2), ECHO)
    runs["mine"] = pd.Series([None, value], dtype="object")
    with pytest.raises(UsageError, match="The column 'mine' cannot be stored") as caught:
        runs.save(tmp_path / "runs.jsonl")
    assert "drop" in str(caught.value.hint)
    del runs["mine"]
    runs.attrs["mine"] = value
    with pytest.raises(UsageError, match="The attribute 'mine' cannot be stored"):
        runs.save(tmp_path / "runs.jsonl")
    assert not (tmp_path / "runs.jsonl").exists()


KILLED = """
import os, signal
import llm_magics as lm

lm.config.evaluations = FOLDER

def task(row):
    if row.id == "i3":
        os.kill(os.getpid(), signal.SIGKILL)
    return row.text

rows = [{"id": f"i{n}", "text": f"text {n}"} for n in range(5)]
lm.evaluate(task, rows, concurrency=1, name="killed")
"""


def test_a_killed_process_loses_only_the_answer_under_way(tmp_path: Path) -> None:
    """The others are stored, and the same call continues with resume=True."""
    folder = tmp_path / "evaluations"
    asked = []

    def task(row: Any) -> str:
        asked.append(row.id)
        return str(row.text)

    rows = [{"id": f"i{n}", "text": f"text {n}"} for n in range(5)]
    lm.evaluate(task, rows, name="killed")
    path = next(folder.glob("killed*.jsonl"))
    lines = path.read_text("utf-8").splitlines(keepends=True)
    header = json.loads(lines[0])
    header["about"]["process"] = 2**22 + 1  # of no process
    part = path.with_name(f"{path.stem}.part.jsonl")
    kept = [json.dumps(header) + "\n", *lines[1:-2], lines[-2][:40]]  # as a kill leaves it
    part.write_text("".join(kept), "utf-8")
    path.unlink()
    listed = lm.list_evaluations()
    assert listed["stopped"].tolist() == ["because its process ended"]
    assert len(lm.load_evaluation("killed")) == 3
    asked.clear()
    runs = lm.evaluate(task, rows, name="killed", resume=True)
    assert sorted(asked) == ["i3", "i4"]
    assert runs["text"].tolist() == [f"text {n}" for n in range(5)]


def test_a_run_in_progress_is_not_continued() -> None:
    """Its answers would be paid twice; in the list it is running."""
    rows = [{"id": f"i{n}", "text": f"text {n}"} for n in range(2)]
    found: list[Any] = []

    def task(row: Any) -> str:
        if not found:
            found.append(lm.list_evaluations()["stopped"].tolist())
            try:
                lm.evaluate(task, rows, resume=True)
            except UsageError as error:
                found.append(f"{error} {error.hint}")
        return str(row.text)

    assert len(lm.evaluate(task, rows, concurrency=1)) == 2
    assert found[0] == ["not yet: it is running"]
    assert "This evaluation is still running." in found[1]
    assert "resume" in found[1]
    assert lm.list_evaluations()["stopped"].tolist() == [None]


def test_rows_are_stored_before_the_run_ends(tmp_path: Path) -> None:
    """A process that ends abruptly leaves what it has received."""
    folder = tmp_path / "killed"
    with pytest.raises(AssertionError):
        run_prepared(KILLED.replace("FOLDER", repr(str(folder))))
    part = next(folder.glob("*.part.jsonl"))
    rows = [json.loads(line)["row"] for line in part.read_text("utf-8").splitlines()[6:]]
    assert [row["item"] for row in rows] == ["i0", "i1", "i2"]
    lm.config.evaluations = folder
    assert lm.list_evaluations()["stopped"].tolist() == ["because its process ended"]


IDS = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("xyz"))


@given(IDS, IDS)
def test_items_of_two_runs_are_counted_once(now: dict[str, str], then: dict[str, str]) -> None:
    """Each is the same, changed, or only in one of them."""
    items = common_items(now, then)
    assert sorted([*items.same, *items.changed, *items.only_now, *items.only_then]) == sorted(
        {*now, *then}
    )
    assert items.is_all == (now == then)
    assert all(now[id_] == then[id_] for id_ in items.same)


def test_the_display_is_compact_and_escaped() -> None:
    """Eight columns, and no markup of an answer."""
    runs = lm.evaluate("{{ text }}", [{"text": "<script>alert(1)</script>"}], ECHO, score=len)
    html = runs._repr_html_()
    assert html is not None
    assert "<script>" not in html
    assert html.count("<th ") <= 10
    assert "score_len" in html
