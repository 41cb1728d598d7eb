"""``lm.label``: labels of several people in a file that is only appended to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import llm_magics as lm
from llm_magics.errors import UsageError
from llm_magics.evaluations.label_widget import LabelView

FRAME = pd.DataFrame(
    {"text": [f"text {n}" for n in range(20)], "model": ["m"] * 20}, index=range(100, 120)
)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def finish(labelling: Any, label: Any) -> None:
    """Label all items that are left."""
    while labelling.current() is not None:
        labelling.add(label)


def test_labels_are_saved_as_they_are_given(tmp_path: Path) -> None:
    """In a file that the object shows; another call continues."""
    first = lm.label(FRAME, "text", ["good", "bad"])
    first.add("good", note="sure")
    first.add("bad")
    assert str(first) == "2 of 20 items labelled by me · saved in labels-text.jsonl"
    lines = (tmp_path / "labels-text.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["good", "bad"]
    assert "text " not in lines[0].replace("text/", "")  # the texts stay in the data
    again = lm.label(FRAME[::-1], labels=["good", "bad"])
    assert again.progress() == (2, 0, 20)
    assert again.current() == first.current()
    table = again.frame()
    assert table["label"].tolist() == ["good", "bad"]
    assert table["note"].tolist() == ["sure", ""]
    assert set(table["item"]) <= set(FRAME.index)
    assert table["time"].dt.tz is not None


def test_the_order_is_shuffled_and_blind() -> None:
    """Another order for each annotator; only the columns named are shown."""
    orders = []
    for name in ("anna", "ben"):
        labelling = lm.label(FRAME, "text", annotator=name)
        keys = []
        while (item := labelling.current()) is not None:
            assert list(item.fields) == ["text"]
            keys.append(item.key)
            labelling.skip()
        orders.append(keys)
    assert orders[0] != orders[1]
    assert set(orders[0]) == set(orders[1])


def test_a_sample_is_the_same_for_all_and_part_of_a_larger_one() -> None:
    """With the same seed."""

    def items(**options: Any) -> set[str]:
        return set(lm.label(FRAME, "text", **options)._items)

    small = items(n=5, annotator="anna")
    assert len(small) == 5
    assert small == items(n=5, annotator="ben") != items(n=5, seed=1)
    assert small < items(n=10)
    assert len(items(n=100)) == 20


def test_annotators_see_their_own_progress() -> None:
    """And all labels are in the table for `lm.agreement`."""
    anna = lm.label(FRAME, "text", annotator="anna")
    ben = lm.label(FRAME, "text", annotator="ben")
    finish(anna, "yes")
    ben.add("no")
    assert ben.progress() == (1, 0, 20)
    assert ben.counts()["items"].tolist() == [0, 1]
    wide = ben.wide()
    assert wide.index.equals(FRAME.index)
    assert wide.notna().sum().to_dict() == {"anna": 20, "ben": 1}
    report = lm.agreement(pd.Series("yes", index=FRAME.index), ben)
    assert report.ratings.annotators == ["anna", "ben"]
    long = lm.agreement(pd.Series("yes", index=FRAME.index), ben.frame())
    pd.testing.assert_frame_equal(long.frame(), report.frame())


def test_undo_takes_back_the_last_label_or_skip() -> None:
    """Step by step, until nothing is left; the item is shown again."""
    labelling = lm.label(FRAME, "text")
    first = labelling.current()
    labelling.add("yes")
    labelling.skip()
    assert labelling.progress() == (1, 1, 20)
    labelling.undo()
    labelling.undo()
    labelling.undo()
    assert labelling.progress() == (0, 0, 20)
    assert labelling.current() == first
    assert labelling.frame().empty


def test_skipped_items_can_be_shown_again() -> None:
    """At the end."""
    labelling = lm.label(FRAME[:2], "text")
    labelling.skip()
    labelling.add("yes")
    assert labelling.current() is None
    with pytest.raises(UsageError, match="No item is left"):
        labelling.add("yes")
    labelling.retry_skipped()
    assert labelling.current() is not None


def test_equal_rows_are_labelled_once() -> None:
    """Rows without a text are not shown; the index may have repeated labels or several levels."""
    frame = pd.DataFrame({"text": ["a", "a", None, "b", ""]}, index=[0, 0, 1, 1, 2])
    labelling = lm.label(frame, labels=[1, 2])
    assert labelling.progress() == (0, 0, 2)
    finish(labelling, np.int64(2))
    assert labelling.wide()["me"].tolist() == [2, 2, None, 2, None]
    assert len(labelling.frame()) == 3
    index = pd.MultiIndex.from_product([["x"], range(5)])
    assert lm.label(frame.set_axis(index), labels=[1, 2]).frame()["item"].tolist()[-1][0] == "x"


@pytest.mark.parametrize(
    "data", [["a", "b"], pd.Series(["a", "b"]), pl.DataFrame({"text": ["a", "b"]})]
)
def test_other_tables_and_lists(data: Any) -> None:
    """Have the same items."""
    assert lm.label(data).progress() == (0, 0, 2)
    assert lm.label(data[:0]).current() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "tex"}, "column 'tex' does not exist"),
        ({"labels": ["a"]}, "two different labels"),
        ({"labels": ["a", "a"]}, "two different labels"),
        ({"labels": [None, "a"]}, "must be a text"),
        ({"annotator": " "}, "annotator must be a name"),
        ({"n": 0}, "Invalid value for n"),
    ],
)
def test_invalid_arguments(options: dict, message: str) -> None:
    """Say what is wrong."""
    with pytest.raises(UsageError, match=message):
        lm.label(FRAME, **options)


def test_a_file_of_another_task_is_not_used() -> None:
    """Labels of these items that cannot be chosen are an error; unknown labels are too."""
    labelling = lm.label(FRAME, "text", ["good", "bad"])
    with pytest.raises(UsageError, match="Unknown label"):
        labelling.add("fine")
    with pytest.raises(UsageError, match="Unknown item"):
        labelling.add("good", item="none")
    labelling.add("good")
    with pytest.raises(UsageError, match="has the label 'good'"):
        lm.label(FRAME, "text", ["yes", "no"])


def test_damaged_lines_are_ignored(tmp_path: Path) -> None:
    """A line that was cut does not join the next one; other lines are no labels."""
    labelling = lm.label(FRAME, "text")
    labelling.add("yes")
    path = tmp_path / "labels-text.jsonl"
    with path.open("ab") as file:
        file.write(
            b'{"action": "label", "item": "x", "annotator": [1], "time": "", "label": {}}\n'
        )
        file.write(b'[1]\nnot json\n{"action": "label", "ite')
    labelling.add("no")
    assert lm.label(FRAME, "text").progress() == (2, 0, 20)
    path.unlink()
    assert labelling.progress() == (0, 0, 20)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    """Is an error that names the file; the item is not counted."""
    labelling = lm.label(FRAME, "text", path="file/labels.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"was not saved in file/labels.jsonl"):
        labelling.add("yes", item=next(iter(labelling._items)))


WRITER = """
import sys
import llm_magics as lm
labelling = lm.label([f"text {n}" for n in range(60)], annotator=sys.argv[1], path="both.jsonl")
print("ready", flush=True)
while labelling.current() is not None:
    labelling.add("yes")
"""


def test_two_kernels_write_at_the_same_time() -> None:
    """No line of either is lost or mixed with another."""
    environment = {**os.environ, "PYTHONPATH": str(Path(lm.__file__).parents[1])}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, name], env=environment, stdout=subprocess.DEVNULL
        )
        for name in ("anna", "ben")
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    lines = Path("both.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 120
    assert (
        len({(json.loads(line)["annotator"], json.loads(line)["item"]) for line in lines}) == 120
    )


def test_a_killed_kernel_loses_no_label() -> None:
    """What it said it had saved is in the file."""
    code = WRITER.replace(
        'labelling.add("yes")', 'labelling.add("yes"); print("saved", flush=True)'
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(lm.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", code, "anna"], env=environment, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(10):
            writer.stdout.readline()
        writer.kill()
        saved = 9 + writer.stdout.read().count("saved")
    labelling = lm.label([f"text {n}" for n in range(60)], annotator="anna", path="both.jsonl")
    assert labelling.progress()[0] >= saved


def test_messages_of_the_widget() -> None:
    """Label the item that was on the screen; wrong ones are refused with a message."""
    labelling = lm.label(FRAME, "text", ["yes", "no"], question="Is it?")
    view = LabelView(labelling)
    key = view.widget.item["key"]
    view.receive({"kind": "label", "item": key, "label": 1, "note": "n"})
    assert labelling.counts()["items"].tolist() == [0, 1]
    assert view.widget.progress == {"labelled": 1, "skipped": 0, "count": 20}
    assert view.widget.item["key"] != key
    for message in (
        {"kind": "label", "item": key, "label": 7},
        {"kind": "label", "item": key, "label": "x"},
        {"kind": "label", "item": key},
        {"kind": "label", "item": key, "label": -1},
        {"kind": "label", "item": "unknown", "label": 0},
        {"kind": "erase"},
    ):
        view.receive(message)
        assert view.widget.message
    view.receive("nonsense")
    view.receive({"kind": "undo"})
    assert view.widget.message == ""
    assert view.widget.item["key"] == key
    view.receive({"kind": "skip", "item": key})
    assert view.widget.progress["skipped"] == 1
    view.receive({"kind": "retry"})
    assert view.widget.progress["skipped"] == 0


def test_a_file_that_cannot_be_read_is_reported_in_the_widget() -> None:
    """The view gets an answer with the reason, and shows the same item."""
    labelling = lm.label(FRAME)
    labelling.add("yes")
    view = LabelView(labelling)
    item, turn = view.widget.item, view.widget.turn
    labelling.path.unlink()
    labelling.path.mkdir()
    view.receive({"kind": "label", "item": item["key"], "label": 0})
    assert view.widget.message.startswith("labels-text.jsonl cannot be read")
    assert view.widget.turn == turn + 1
    assert view.widget.item == item


def test_another_question_is_reported() -> None:
    """Its labels would otherwise be those of the first question."""
    lm.label(FRAME, question="Is it polite?").add("yes")
    lm.label(FRAME, question="Is it polite?")
    lm.label(FRAME)
    with pytest.warns(UserWarning, match=r"has labels for the question 'Is it polite\?'"):
        lm.label(FRAME, question="Is it true?")
    lm.label(FRAME, path="b.jsonl").add("yes")
    with pytest.warns(UserWarning, match="has labels for no question"):
        lm.label(FRAME, path="b.jsonl", question="Is it true?")


def test_people_without_a_label_are_left_out() -> None:
    """Those who only skipped, or have undone all."""
    lm.label(FRAME, annotator="anna").add("yes")
    ben, cleo = (lm.label(FRAME, annotator=name) for name in ("ben", "cleo"))
    ben.skip()
    cleo.add("no")
    cleo.undo()
    assert cleo.annotators() == list(cleo.wide()) == ["anna"]


def test_spaces_around_a_name_do_not_make_another_person() -> None:
    """The labels are continued."""
    lm.label(FRAME, annotator="anna").add("yes")
    assert lm.label(FRAME, annotator=" anna ").progress() == (1, 0, 20)


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    """Also by a longer one."""
    labelling, other = lm.label(FRAME, path="a.jsonl"), lm.label(FRAME, path="b.jsonl")
    labelling.add("yes")
    finish(other, "no")
    (tmp_path / "b.jsonl").replace(tmp_path / "a.jsonl")
    assert labelling.counts()["items"].tolist() == [0, 20]
    (tmp_path / "a.jsonl").unlink()
    assert labelling.progress() == (0, 0, 20)


def test_hostile_and_newer_lines_of_a_file(tmp_path: Path) -> None:
    """Unknown names are ignored, and halves of characters replaced, so that tables can be shown."""
    labelling = lm.label(["a"], path="a.jsonl")
    item = labelling.current()
    assert item is not None
    event = {"action": "label", "item": item.key, "annotator": "\ud800", "time": "x"}
    line = json.dumps({**event, "label": "yes", "note": "\ud800<b>", "new": 1})
    (tmp_path / "a.jsonl").write_text(f"[]\nnull\n{{}}\n{line}\n", "utf-8")
    assert labelling.wide()._repr_html_().encode()
    assert "<b>" not in labelling.frame()._repr_html_().encode().decode()
    assert labelling.annotators() == ["\ufffd"]


@pytest.mark.parametrize(
    "labels",
    [[1.0, float("nan")], [1.0, float("inf")], ["", "x"], [" ", "x"], [1, True], [1, "1"]],
)
def test_labels_can_be_distinguished(labels: list[Any]) -> None:
    """On buttons and in comparisons; a missing one would be no label."""
    with pytest.raises(UsageError, match="label"):
        lm.label(["a"], labels=labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": 5}, "Invalid path"),
        ({"question": None}, "question must be a text"),
        ({"seed": "x"}, "Invalid value for seed"),
        ({"columns": ["text", "text"]}, "not unique"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    """With a message that names the argument."""
    with pytest.raises(UsageError, match=message):
        lm.label(FRAME, **arguments)


def test_an_action_is_fast_with_many_labels() -> None:
    """Each line of the file is parsed once."""
    labelling = lm.label([str(number) for number in range(400)])
    finish(labelling, "yes")
    events = labelling._file.events()
    labelling.undo()
    assert labelling._file.events() is events
    assert labelling.progress() == (399, 0, 400)
