"""Evaluation sets: what is read, what is refused and with which line, and the digest."""

from __future__ import annotations

import json
import math
import random
import string
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.errors import UsageError
from llm_magics.evaluations.datasets import EvaluationSet
from llm_magics.evaluations.items import canonical_json, canonical_value

ROWS: list[dict[str, Any]] = [
    {"id": "a", "question": "2 + 2?", "expected": 4, "label_anna": "easy", "split": "test"},
    {"id": "b", "question": "3 + 3?", "expected": 6, "label_anna": "hard", "split": "train"},
    {"id": "c", "question": "0 / 0?", "expected": None, "split": "test"},
]


def write(path: Path, *lines: str) -> Path:
    """Write lines to a file, and return its path."""
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def test_items_have_inputs_expected_answers_labels_and_splits() -> None:
    """By the names of their columns."""
    data = EvaluationSet(ROWS)
    assert data.inputs == ("question",)
    assert data.labels == ("anna",)
    assert data.splits == {"test": 2, "train": 1}
    assert data["b"].expected == 6
    assert data["c"].expected is None
    assert data.has_expected
    assert list(data.frame.columns) == ["question", "expected", "label_anna", "split"]
    assert [item.id for item in data.split("test")] == ["a", "c"]


def test_columns_can_have_other_names() -> None:
    """Of expected answers, ids, splits and the labels of people."""
    frame = pd.DataFrame(
        {"key": [7, 8], "q": ["x", "y"], "gold": ["1", "2"], "first": ["p", None], "part": "dev"}
    )
    data = EvaluationSet(frame, id="key", expected="gold", split="part", labels={"anna": "first"})
    assert data.inputs == ("q",)
    assert [item.id for item in data] == ["7", "8"]
    assert [item.labels for item in data] == [{"anna": "p"}, {}]
    with pytest.raises(UsageError, match="no column 'golden'"):
        EvaluationSet(frame, expected="golden")
    with pytest.raises(UsageError, match="cannot be called 'expected'"):
        EvaluationSet(ROWS, expected="question", inputs=["expected"])


def test_labels_may_be_a_mapping_in_each_item() -> None:
    """From the names of people."""
    data = EvaluationSet([{"text": "x", "labels": {"anna": "p", "bob": None}}])
    assert data[0].labels == {"anna": "p"}


def read_as(suffix: str, rows: list[dict[str, Any]], folder: Path) -> EvaluationSet:
    """Return the set of ``rows``, read from a format."""
    frame = pd.DataFrame(rows)
    if suffix == "jsonl":
        return EvaluationSet(write(folder / "d.jsonl", *map(json.dumps, rows)))
    if suffix == "parquet":
        frame.to_parquet(folder / "d.parquet")
        return EvaluationSet(folder / "d.parquet")
    if suffix == "arrow":
        return EvaluationSet(pytest.importorskip("pyarrow").Table.from_pandas(frame))
    if suffix == "polars":
        return EvaluationSet(pytest.importorskip("polars").DataFrame(rows))
    return EvaluationSet(frame)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "frame", "arrow", "polars"])
def test_the_digest_is_that_of_the_content(suffix: str, tmp_path: Path) -> None:
    """Whatever the format, and in any order of rows and columns."""
    data = EvaluationSet(ROWS)
    rows = [dict(reversed(row.items())) for row in reversed(ROWS)]
    rows[0] |= {"label_anna": None}
    again = read_as(suffix, rows, tmp_path)
    assert again.digest == data.digest
    assert EvaluationSet(again.frame).digest == data.digest
    other = [*ROWS[:-1], {**ROWS[-1], "expected": 0}]
    assert EvaluationSet(other).digest != data.digest


def test_a_saved_set_is_read_again(tmp_path: Path) -> None:
    """With the same order, columns and digest."""
    data = EvaluationSet(ROWS)
    data.save(tmp_path / "saved.jsonl")
    again = EvaluationSet(tmp_path / "saved.jsonl")
    assert (again.digest, again.name) == (data.digest, "saved")
    assert again.items == data.items
    with pytest.raises(UsageError, match="Could not write"):
        data.save(tmp_path / "saved.jsonl" / "below.jsonl")


def test_csv_has_texts_only(tmp_path: Path) -> None:
    """NA is a text; an empty field is missing; the line of a field with breaks is its first."""
    path = write(tmp_path / "d.csv", 'question,expected\n"a\nb",NA\nc,')
    items = [(item.inputs["question"], item.expected) for item in EvaluationSet(path)]
    assert items == [("a\nb", "NA"), ("c", None)]
    write(path, 'question,expected\n"a\nb",NA\nc,d,e')
    with pytest.raises(UsageError, match=r"d\.csv, line 4: 3 fields, but the header has 2"):
        EvaluationSet(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "b", "text": ', r"line 2, column \d+"),
        ('["text"]', "line 2: it is not a JSON object"),
        ('{"id": "b"}', "line 2: the input 'text' is missing"),
        ('{"id": "b", "text": "x", "expectd": 1}', "line 2: unknown column 'expectd'"),
        ('{"id": "a", "text": "x"}', "line 2: the id 'a' is also that of line 1"),
        ('{"text": "x"}', "line 2: the id is missing"),
        ('{"id": "b", "text": null}', "line 2: all inputs are missing"),
        ('{"id": "b", "text": "x", "text": "y"}', "line 2: the name 'text' occurs twice"),
        ('{"id": "b", "text": 1e999}', "line 2: the column 'text': an infinite number"),
        ('{"id": "b", "text": Infinity}', "line 2: Infinity is not a JSON value"),
        ('{"id": ["b"], "text": "x"}', "line 2: the id must be a text or an integer"),
        ('{"id": true, "text": "x"}', "line 2: the id must be a text or an integer"),
        ('{"id": "b", "text": "x", "split": 3}', "line 2: the split must be a text"),
        ('{"id": "b", "text": "x", "labels": "p"}', "line 2: labels is not an object"),
        ('{"id": "b", "text": ' + "[" * 100_000, "line 2"),
    ],
)
def test_mistakes_are_reported_with_their_line(line: str, message: str, tmp_path: Path) -> None:
    """A file with a mistake is refused as a whole."""
    path = write(tmp_path / "d.jsonl", '{"id": "a", "text": "x"}', line)
    with pytest.raises(UsageError, match=message):
        EvaluationSet(path)


def test_files_that_are_not_sets_are_refused(tmp_path: Path) -> None:
    """Missing ones, folders, unknown formats, and bytes that are not text."""
    (tmp_path / "f.jsonl").mkdir()
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "\xff"}\n')
    (tmp_path / "p.parquet").write_bytes(b"PAR1 nonsense")
    for name, message in {
        "d.jsonl": "does not exist",
        "d.xlsx": "unknown format",
        "f.jsonl": "is not a file",
        "b.jsonl": "line 1: byte 11 is not UTF-8",
        "p.parquet": "Could not read",
    }.items():
        with pytest.raises(UsageError, match=message):
            EvaluationSet(tmp_path / name)


def test_values_that_are_not_sets_are_refused(tmp_path: Path) -> None:
    """Empty ones, other types, and tables whose columns are not unique."""
    for empty in ([], pd.DataFrame({"text": []}), write(tmp_path / "e.jsonl", "")):
        with pytest.raises(UsageError, match="has no items"):
            EvaluationSet(empty)
    with pytest.raises(UsageError, match=r"^e\.jsonl has no items"):
        EvaluationSet(write(tmp_path / "e.jsonl", ""))
    with pytest.raises(UsageError, match="a column whose name is not a text: ''"):
        EvaluationSet(write(tmp_path / "c.csv", "text,", "x,y"))
    with pytest.raises(UsageError, match="Invalid data: got int"):
        EvaluationSet(3)
    with pytest.raises(UsageError, match="Item 0 of the list is str"):
        EvaluationSet(["x"])
    with pytest.raises(UsageError, match="two columns called 'a'"):
        EvaluationSet(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(UsageError, match="no inputs"):
        EvaluationSet([{"id": "a", "expected": "x"}])


def test_repeated_inputs_are_items_of_their_own() -> None:
    """Their ids do not depend on the order, and a warning counts them."""
    rows = [{"text": "x", "expected": each} for each in ("1", "2", "1", None)]
    with pytest.warns(UserWarning, match="3 items of the evaluation set repeat the inputs"):
        data = EvaluationSet(rows)
    assert len({item.id for item in data}) == 4
    with pytest.warns(UserWarning, match="repeat"):
        again = EvaluationSet(rows[::-1])
    assert again.digest == data.digest
    assert all(again[item.id].expected == item.expected for item in data)


def test_values_of_pandas_become_json() -> None:
    """Missing values of all kinds are null; integers that pandas made floats are integers."""
    frame = pd.DataFrame(
        {
            "n": pd.Series([1, None]),
            "when": pd.to_datetime(["2026-01-02", None]),
            "flag": pd.array([True, pd.NA], dtype="boolean"),
            "text": ["a", "b"],
        }
    )
    first, second = EvaluationSet(frame)
    assert first.inputs == {"n": 1, "when": "2026-01-02T00:00:00", "flag": True, "text": "a"}
    assert second.inputs == {"n": None, "when": None, "flag": None, "text": "b"}
    times = {"when": np.datetime64("2026-01-02", "ns"), "span": np.timedelta64(5, "s")}
    values = EvaluationSet([times])[0].inputs
    assert values == {"when": "2026-01-02T00:00:00", "span": "0 days 00:00:05"}
    with pytest.raises(UsageError, match="row 0: the column 'x': a value of the type bytes"):
        EvaluationSet(pd.DataFrame({"x": [b"1"]}))
    with pytest.raises(UsageError, match="item 0: the column 'x': an integer of more than 1,000"):
        EvaluationSet([{"x": 10**5000}])


def test_samples_are_stable() -> None:
    """A larger sample contains a smaller one, whatever the order of the items."""
    data = EvaluationSet([{"id": number, "text": "x"} for number in range(50)])
    small, large = data.sample(5, seed=3), data.sample(20, seed=3)
    assert {item.id for item in small} <= {item.id for item in large}
    shuffled = EvaluationSet(data.frame.sample(frac=1, random_state=1))
    assert {item.id for item in shuffled.sample(5, seed=3)} == {item.id for item in small}
    assert {item.id for item in data.sample(5, seed=4)} != {item.id for item in small}
    with pytest.raises(UsageError, match="Invalid value for n"):
        data.sample(51)
    with pytest.raises(UsageError, match="no split 'tset'"):
        EvaluationSet(ROWS).split("tset")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ANY_ROWS = st.lists(st.dictionaries(st.sampled_from("xyz"), JSON, min_size=1), max_size=8)


@given(JSON)
def test_canonical_values_are_json(value: Any) -> None:
    """They survive a file, and are their own canonical values."""
    canonical = canonical_value(value)
    assert canonical_value(json.loads(canonical_json(canonical))) == canonical
    assert canonical_value(canonical) == canonical


@given(ANY_ROWS, st.integers())
def test_any_records_are_read_or_refused(rows: list[dict[str, Any]], seed: int) -> None:
    """With the same digest in another order, or with an error."""
    names = sorted({name for row in rows for name in row})
    rows = [{"id": id_, **{name: row.get(name) for name in names}} for id_, row in enumerate(rows)]
    try:
        data = EvaluationSet(rows)
    except UsageError:
        inputs = [[row[name] for name in names] for row in rows]
        assert not rows or any(all(canonical_value(v) in (None, "") for v in r) for r in inputs)
        return
    random.Random(seed).shuffle(rows)
    assert EvaluationSet(rows).digest == data.digest


@given(st.binary(max_size=60) | st.text(string.printable, max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """A file is a set of items, or a `UsageError`."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("jsonl", "csv"):
            path = Path(folder) / f"d.{suffix}"
            path.write_bytes(data)
            try:
                items = EvaluationSet(path)
            except UsageError:
                continue
            assert len(items)


def test_missing_values_are_not_texts() -> None:
    """NaN, None, NaT and pd.NA are missing; an empty text is not."""
    for value in (None, math.nan, np.float64("nan"), pd.NA, pd.NaT):
        assert canonical_value(value) is None
    assert canonical_value("") == ""
