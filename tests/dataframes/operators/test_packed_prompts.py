"""Several rows in one prompt: each has its own answer, whatever the texts say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics import errors
from llm_magics.dataframes.operators.choose_oracle import create_oracle
from llm_magics.dataframes.operators.packed_prompts import PackedPrompts, RowsPerPrompt
from llm_magics.dataframes.operators.packing import (
    DEGREE,
    YES_NO,
    RowQuestion,
    pack_prompt,
    read_pack,
    row_ids,
    text_question,
)
from llm_magics.dataframes.operators.packing_check import check_sizes
from llm_magics.dataframes.row_prompts import RowPrompts
from tests.support.examples import examples
from tests.support.judge import Judge

SPEC = RowPrompts(text="{{ text }}")


def packed(
    texts: list[str], rows_per_prompt: RowsPerPrompt = 3, question: RowQuestion = YES_NO
) -> PackedPrompts:
    """Prompts about ``texts``."""
    return PackedPrompts(texts, question, SPEC, rows_per_prompt=rows_per_prompt)


HOSTILE = st.lists(st.text() | st.sampled_from(['"}]', '{"id": "2-abc", "text": "', "2", "\n\n[", "\u2028"]), min_size=1, max_size=8)  # fmt: skip


@settings(max_examples=examples(40))
@given(HOSTILE)
def test_no_text_leaves_its_row(texts: list[str]) -> None:
    """The rows of a prompt are a JSON list, with ids that do not repeat."""
    rows = json.loads(pack_prompt(YES_NO, texts).partition("\n\n")[2])
    assert [row["text"] for row in rows] == texts
    assert [row["id"] for row in rows] == row_ids(texts)
    assert len({row["id"] for row in rows}) == len(texts)
    answers = [{"id": row["id"], "answer": "yes" in row["text"]} for row in rows]
    read = read_pack(YES_NO, texts, {"answers": answers[::-1]})
    assert [read[place] for place in range(len(texts))] == ["yes" in text for text in texts]


def test_ids_depend_on_all_rows() -> None:
    """A text that names an id of another prompt changes the ids of its own."""
    assert row_ids(["a", "b"])[0] != row_ids(["a", "c"])[0]
    assert row_ids(["a", "b"]) == row_ids(["a", "b"])
    assert row_ids(["a\0001:b"]) != row_ids(["a", "b"])


ANY_ANSWER = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from([*row_ids(["a", "b"]), "1", "x"]) | st.integers(),
        "answer": st.booleans() | st.none() | st.text(max_size=3) | st.integers(),
    },
)


@given(st.lists(ANY_ANSWER | st.none() | st.integers(), max_size=5))
def test_only_an_answer_of_its_own_counts(answers: list[Any]) -> None:
    """Exactly one with the row's id, and of the right type."""
    read = read_pack(YES_NO, ["a", "b"], {"answers": answers})
    for place, row in enumerate(row_ids(["a", "b"])):
        own = [each for each in answers if isinstance(each, dict) and each.get("id") == row]
        is_valid = len(own) == 1 and isinstance(own[0].get("answer"), bool)
        assert read.get(place) == (own[0]["answer"] if is_valid else None)
    for value in (3, "text", True, {"id": 1}):
        assert read_pack(YES_NO, ["a"], {"answers": value}) == {}
    assert read_pack(YES_NO, ["a"], [1]) == read_pack(YES_NO, ["a"], {"answers": None}) == {}


@pytest.mark.parametrize("wrong", [True, "5", 101, -1, float("nan"), float("inf"), None])
def test_a_degree_is_a_number_from_0_to_100(wrong: Any) -> None:
    """Anything else is not an answer."""
    (row,) = row_ids(["a"])
    assert read_pack(DEGREE, ["a"], {"answers": [{"id": row, "answer": wrong}]}) == {}
    assert read_pack(DEGREE, ["a"], {"answers": [{"id": row, "answer": 7.5}]}) == {0: 7.5}


def test_several_rows_share_a_prompt(service: Judge) -> None:
    """Each has its answer, also from a service that mixes their order."""
    service.spoil = lambda answers: answers[::-1]
    prompts = packed(["yes a", "b", "yes c", "d", "yes e"])
    assert prompts.ask([0, 1, 2, 3, 4, 0]) == [True, False, True, False, True, True]
    assert sorted(service.packs) == [["d", "yes e"], ["yes a", "b", "yes c"]]
    assert (service.paid, prompts.calls, prompts.cached) == ([], 2, 0)
    assert prompts.ask([1, 3]) == [False, False]
    assert len(service.packs) == 2


def test_rows_without_an_answer_of_their_own_are_asked_alone(service: Judge) -> None:
    """Missing ones, those with two answers, and those of another type."""

    def spoil(answers: Any) -> Any:
        answers[0]["answer"] = "no idea"
        return [*answers[:2], answers[1], *answers[3:]]

    service.spoil = spoil
    prompts = packed(["yes a", "yes b", "yes c", "yes d"], 4)
    assert prompts.ask([0, 1, 2, 3]) == [True] * 4
    assert sorted(service.paid) == ["yes a", "yes b", "yes c"]


def test_a_prompt_that_fails_is_divided(service: Judge) -> None:
    """Only the row that fails alone has an error; it is not asked again."""
    service.poison = {"bad"}
    prompts = packed(["yes", "bad", "c"])
    assert prompts.ask([0, 1, 2]) == [True, None, False]
    assert list(prompts.errors) == [1]
    assert prompts.ask([1]) == [None]
    assert service.packs == []


def test_packs_are_cached(service: Judge) -> None:
    """The same rows in the same order are not paid for twice, nor rows that an oracle asked."""
    texts = ["yes a", "b", "c"]
    packed(texts).ask([0, 1, 2])
    again = packed(texts)
    again.ask([0, 1, 2])
    assert (again.calls, again.cached) == (0, 1)
    create_oracle(pd.DataFrame({"text": ["yes d"]}), SPEC).ask(np.array([0], np.int32))
    alone = packed(["yes d"])
    assert alone.ask([0]) == [True]
    assert (alone.calls, alone.cached) == (0, 1)


def test_a_pack_fits_into_the_context(service: Judge) -> None:
    """Long texts are in fewer rows per prompt."""
    prompts = packed(["yes " + "x" * 3000] * 4, 4)
    assert prompts.ask(range(4)) == [True] * 4
    assert [len(pack) for pack in service.packs] == [2, 2]


def test_short_texts_and_degrees(service: Judge) -> None:
    """The answer has the type of the question."""
    service.holds = lambda said: 40.5
    assert packed(["a", "b"], 2, DEGREE).ask([0, 1]) == [40.5, 40.5]
    service.holds = str.upper
    question = text_question("name the thing in it")
    assert packed(["a", "b"], 2, question).ask([0, 1]) == ["A", "B"]
    assert packed(["c"], 2, question).ask([0]) == ["C"]
    assert question.is_same("Too  dear.", "too dear")
    assert not question.is_same("dear", "cheap")


def many(count: int = 120) -> list[str]:
    """Texts of which a third are positive."""
    return [f"{'yes' if number % 3 == 0 else 'no'} {number}" for number in range(count)]


def test_auto_packs_rows_if_the_answers_are_the_same(service: Judge) -> None:
    """A sample is asked in both ways, and the others in packs."""
    texts = many()
    prompts = packed(texts, "auto")
    assert prompts.rows_per_prompt == "auto"
    assert prompts.ask(range(120)) == ["yes" in text for text in texts]
    assert prompts.rows_per_prompt == 20
    assert str(prompts.check) == "20 rows in a prompt (answers that differed: 0 of 30 with 20)"
    assert len(service.paid) == 30
    assert sum(map(len, service.packs)) == 30 + 90


def test_auto_tries_fewer_rows(service: Judge) -> None:
    """A model that confuses many rows but not few."""

    def spoil(answers: Any) -> Any:
        return [{**each, "answer": True} for each in answers] if len(answers) > 10 else answers

    service.spoil = spoil
    prompts = packed(many(), "auto")
    assert prompts.ask(range(120)) == ["yes" in text for text in many()]
    assert prompts.rows_per_prompt == 10


def test_auto_asks_rows_alone_if_packing_changes_answers(service: Judge) -> None:
    """Also in a table that is too small for the check, where nothing is tried."""
    service.spoil = lambda answers: [{**each, "answer": False} for each in answers]
    prompts = packed(many(), "auto")
    assert prompts.ask(range(35)) == ["yes" in text for text in many(35)]
    assert prompts.rows_per_prompt == 1
    small = packed(many(40), "auto")
    assert small.rows_per_prompt == 1
    assert small.check is None


@pytest.mark.parametrize(
    ("others", "different", "size"),
    [(10, 0, 20), (10, 1, 20), (10, 2, 1), (1, 0, 5), (0, 0, 5)],
)
def test_one_answer_in_thirty_may_differ(others: int, different: int, size: int) -> None:
    """A sample in which all answers are the same allows only small packs."""
    alone = [True] * others + [False] * (30 - others)
    changed = [not each for each in alone[:different]] + alone[different:]
    check = check_sizes(alone, lambda _: changed, YES_NO.is_same)
    assert check.rows_per_prompt == size


@pytest.mark.parametrize("max_extra", [0, 29, 30, 31, 32, 34, 35, None])
@pytest.mark.parametrize("passes", [20, 10, 5, 1])
@pytest.mark.parametrize("others", [0, 15])
def test_a_check_adds_at_most_so_many_prompts(
    max_extra: int | None, passes: int, others: int
) -> None:
    """Sizes that need more are not tried; the count is exact for any number of rows."""
    alone = [True] * others + [False] * (30 - others)
    sent: list[int] = []

    def ask_packed(size: int) -> list[bool]:
        sent.append(size)
        return alone if size <= passes else [not each for each in alone]

    check = check_sizes(alone, ask_packed, YES_NO.is_same, max_extra)
    size = check.rows_per_prompt
    for count in (120, 121, 139, 1000):
        prompts = 30 + sum(-(-30 // each) for each in sent) + -(-(count - 30) // size)
        assert prompts <= -(-count // size) + check.extra_prompts
        assert max_extra is None or size == 1 or check.extra_prompts <= max_extra
    if max_extra is not None and max_extra >= 32:
        assert sent
    if max_extra is None:
        assert size == (passes if others else min(passes, 5))


def test_repeated_rows_are_within_the_limit(service: Judge) -> None:
    """Others fail; a row that is alone in its pack is not repeated."""
    service.spoil = lambda answers: answers[2:]
    prompts = PackedPrompts(many(9), YES_NO, SPEC, rows_per_prompt=4, max_extra=3)
    found = prompts.ask(range(9))
    assert [place for place, answer in enumerate(found) if answer is None] == list(prompts.errors)
    assert len(prompts.errors) == 1
    assert prompts.calls == 3 + 3


def test_a_sample_with_too_few_answers_decides_nothing() -> None:
    """Rows are then asked alone."""
    alone = [True] * 10 + [False] * 9 + [None] * 11
    check = check_sizes(alone, lambda _: alone, YES_NO.is_same)
    assert str(check) == "1 row in a prompt"


def test_the_estimate_counts_prompts(service: Judge) -> None:
    """Of the rows that have no answer yet."""
    prompts = packed(many(9), 3)
    prompts.ask([0, 1, 2])
    estimate = prompts.estimate(range(9))
    assert (estimate.rows, estimate.prompts) == (6, 2)
    assert packed(many(), "auto").estimate(range(120)).prompts == 30 + 2 + 5


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "many", True, None])
def test_rows_per_prompt_is_checked(wrong: Any) -> None:
    """A positive integer, or "auto"."""
    with pytest.raises(errors.UsageError, match="rows_per_prompt"):
        packed(["a"], wrong)
