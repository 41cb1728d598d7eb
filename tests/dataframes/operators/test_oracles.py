"""Oracles of operators: each question is asked once, and what was paid for stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from llm_magics import errors
from llm_magics.dataframes.operators import prompt_waves
from llm_magics.dataframes.operators.choose_oracle import create_oracle
from llm_magics.dataframes.operators.known_oracles import read_labels
from llm_magics.dataframes.operators.oracle import FAILED, NO, YES
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.host import Progress, ProgressDisplay, TerminalHost, install_host
from tests.support.judge import Judge

SPEC = RowPrompts(text="{{ text }} is good")


def numbers(*items: int) -> Any:
    """Items of an oracle."""
    return np.array(items, np.int32)


def test_equal_rows_are_one_item(service: Judge) -> None:
    """It is asked once, in a prompt of its own; rows without a text have no item."""
    frame = pd.DataFrame({"text": ["yes a", "b", "yes a", None, " "]}, index=[7, 7, 8, 9, 9])
    oracle = create_oracle(frame, SPEC)
    assert oracle.items.tolist() == [0, 1, 0, -1, -1]
    assert oracle.digests.dtype == "V16"
    assert oracle.ask(numbers(1, 0, 1)).tolist() == [NO, YES, NO]
    assert oracle.ask(numbers(0, 1)).tolist() == [YES, NO]
    assert sorted(service.paid) == ["b is good", "yes a is good"]
    assert (oracle.name, oracle.calls, oracle.cached) == ("lab/m", 2, 0)
    assert oracle.ask(numbers()).tolist() == []


def test_another_oracle_pays_nothing_for_stored_answers(service: Judge) -> None:
    """Only with ``fresh``, which asks each item once."""
    frame = pd.DataFrame({"text": ["yes a", "b", "c"]})
    create_oracle(frame, SPEC).ask(numbers(0, 1))
    again = create_oracle(frame, SPEC)
    assert again.ask(numbers(2, 1, 0)).tolist() == [NO, NO, YES]
    assert (again.calls, again.cached) == (1, 2)
    assert again.is_cached.tolist() == [True, True, False]
    assert len(service.paid) == 3
    fresh = create_oracle(frame, RowPrompts(text=SPEC.text, fresh=True))
    fresh.ask(numbers(0))
    fresh.ask(numbers(0))
    assert len(service.paid) == 4


def test_digests_depend_on_the_contents_alone(service: Judge) -> None:
    """Not on the order of the rows."""
    first = create_oracle(pd.DataFrame({"text": ["a", "b"]}), SPEC)
    second = create_oracle(pd.DataFrame({"text": ["c", "b", "a"]}), SPEC)
    assert first.digests.tolist() == second.digests[::-1].tolist()[:2]


def test_an_item_that_fails_stops_no_other(service: Judge) -> None:
    """It has its error; asking again does not send it again."""
    service.poison = {"bad"}
    oracle = create_oracle(pd.DataFrame({"text": ["yes", "bad", "c"]}), SPEC)
    assert oracle.may_fail
    assert oracle.ask(numbers(0, 1, 2)).tolist() == [YES, FAILED, NO]
    assert oracle.ask(numbers(1)).tolist() == [FAILED]
    assert list(oracle.errors) == [1]
    assert "Not that" in str(oracle.errors[1])


def test_an_error_of_all_items_is_raised(service: Judge) -> None:
    """An invalid key, a model that does not exist, and rows that all fail."""
    frame = pd.DataFrame({"text": ["a", "b"]})
    service.status = 401
    with pytest.raises(errors.AuthenticationError):
        create_oracle(frame, SPEC).ask(numbers(0, 1))
    service.status = 400
    oracle = create_oracle(frame, SPEC)
    assert oracle.ask(numbers(0)).tolist() == [FAILED]  # the other may succeed
    with pytest.raises(errors.ProviderError, match="Not now"):
        oracle.ask(numbers(1))


def test_an_interrupt_loses_no_answer(service: Judge) -> None:
    """Those that arrived are stored, and the oracle has them."""
    frame = pd.DataFrame({"text": [f"yes {n}" for n in range(9)]})
    oracle = create_oracle(frame, RowPrompts(text=SPEC.text, concurrency=1))
    service.interrupt_at(4)
    with pytest.raises(KeyboardInterrupt):
        oracle.ask(np.arange(9, dtype=np.int32))
    service.holds, service.delay_s = (lambda said: True), 0.0
    known = oracle.calls
    assert known >= 3
    assert (oracle.ask(np.arange(9, dtype=np.int32)) == YES).all()
    assert oracle.calls == 9
    assert len(set(service.paid)) == 9


class Shown(TerminalHost):
    """A host that records what the displays of progress show."""

    def __init__(self) -> None:
        super().__init__()
        self.displays: list[list[Progress | None]] = []

    def create_progress_display(self) -> ProgressDisplay:
        self.displays.append([])
        return self.displays[-1].append


def test_all_waves_share_one_line_of_progress(service: Judge) -> None:
    """It counts all of them, and disappears at the end."""
    host = Shown()
    install_host(host)
    try:
        oracle = create_oracle(pd.DataFrame({"text": list("abcd")}), SPEC)
        with oracle:
            oracle.expect(4)
            oracle.ask(numbers(0))
            oracle.ask(numbers(1, 2))
    finally:
        install_host(TerminalHost())
    (shown,) = host.displays
    assert shown[-1] is None
    assert None not in shown[:-1]
    last = shown[-2]
    assert last is not None
    assert (last.done, last.total) == (3, 4)


def test_the_estimate_leaves_out_what_is_known(service: Judge) -> None:
    """Answers in the cache and in this oracle; that of many items is scaled up from a sample."""
    oracle = create_oracle(pd.DataFrame({"text": ["a", "b", "c"]}), SPEC)
    oracle.ask(numbers(0))
    estimate = oracle.estimate(numbers(0, 1, 2))
    assert estimate is not None
    assert estimate.prompts == 2
    other = create_oracle(pd.DataFrame({"text": ["c", "a"]}), SPEC).estimate(numbers(0, 1))
    assert other is not None
    assert other.prompts == 1


def test_a_label_column_has_an_item_for_each_labelled_row() -> None:
    """Equal texts may have different labels; a missing label or text is a row without an item."""
    frame = pd.DataFrame(
        {"text": ["a", "a", "b", None, "c"], "label": [True, False, None, True, np.bool_(True)]}
    )
    oracle = create_oracle(frame, SPEC, "label")
    assert oracle.items.tolist() == [0, 1, -1, -1, 2]
    assert oracle.ask(numbers(2, 1, 0)).tolist() == [YES, NO, YES]
    assert not oracle.may_fail
    assert oracle.estimate(numbers(0)) is None
    assert oracle.digests[0] == oracle.digests[1] != oracle.digests[2]


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        ([True, False], "bool"),
        ([1, 0], "int64"),
        ([1.0, np.nan], "float64"),
        ([True, pd.NA], "boolean"),
        ([1, pd.NA], "Int64"),
        ([1, None], "object"),
        ([True, None], "bool[pyarrow]"),
    ],
)
def test_labels_may_be_of_any_boolean_type(labels: list[Any], dtype: str) -> None:
    """Booleans, 0 and 1, with missing values."""
    read = read_labels(pd.Series(labels, dtype=dtype))
    assert read[0] == 1
    assert read[1] in (0, -1)
    assert (read[1] == -1) == bool(pd.isna(labels[1]))


@pytest.mark.parametrize("wrong", ["yes", 2, 0.5, [True], float("inf")])
def test_another_label_is_refused(wrong: Any) -> None:
    """The error names the value and the column."""
    column = pd.Series([True, wrong], dtype=object, name="human")
    with pytest.raises(errors.UsageError, match="human has the label") as raised:
        read_labels(column)
    assert repr(wrong) in str(raised.value)


def test_a_function_is_called_once_for_each_row() -> None:
    """Its errors, and results of other types, are failures of their rows."""
    frame = pd.DataFrame({"text": ["a", "b", "c", "d", None], "n": [0, 1, 2, 3, 4]}, index=[5] * 5)
    called = []

    def positive(row: pd.Series[Any]) -> Any:
        called.append(row["n"])
        return [np.bool_(True), False, "yes"][row["n"]]

    oracle = create_oracle(frame, SPEC, positive)
    assert oracle.items.tolist() == [0, 1, 2, 3, -1]
    assert oracle.ask(numbers(0, 1, 2, 3, 0)).tolist() == [YES, NO, FAILED, FAILED, YES]
    assert called == [0, 1, 2, 3]
    assert "returned 'yes'" in str(oracle.errors[2])
    assert "IndexError" in str(oracle.errors[3])
    assert oracle.name == "the function positive"


def test_a_function_that_always_fails_raises_its_error() -> None:
    """A misspelled column is not an answer about the rows."""
    oracle = create_oracle(pd.DataFrame({"text": ["a", "b"]}), SPEC, lambda row: row["txt"])
    with pytest.raises(errors.LLMError, match="KeyError: 'txt'"):
        oracle.ask(numbers(0, 1))


def test_a_column_precedes_a_model_of_the_same_name(service: Judge) -> None:
    """The model has a full name; other types are refused."""
    frame = pd.DataFrame({"text": ["a"], "m": [True]})
    assert create_oracle(frame, SPEC, "m").name == "the column m"
    assert create_oracle(frame, SPEC, "lab/m").name == "lab/m"
    with pytest.raises(errors.UsageError, match="Invalid value for oracle: 3"):
        create_oracle(frame, SPEC, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("statement", "message"),
    [("it is good", "names no column"), ("{{ txt }}", "no such column")],
)
def test_a_statement_without_the_row_is_refused(statement: str, message: str) -> None:
    """It would be the same for all rows."""
    frame = pd.DataFrame({"text": ["a"], "label": [True]})
    for oracle in (None, "label", bool):
        with pytest.raises(errors.UsageError, match=message):
            create_oracle(frame, RowPrompts(text=statement), oracle)


def test_the_estimate_of_many_items_is_scaled_up(
    service: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a sample."""
    monkeypatch.setattr(prompt_waves, "MOST_ESTIMATED", 4)
    oracle = create_oracle(pd.DataFrame({"text": list("abcdefghij")}), SPEC)
    oracle.ask(np.arange(0, 10, 2, dtype=np.int32))
    other = create_oracle(pd.DataFrame({"text": list("abcdefghij")}), SPEC)
    estimate = other.estimate(np.arange(10, dtype=np.int32))  # from a, c, f, h
    assert estimate is not None
    assert (estimate.rows, estimate.prompts) == (10, 5)
