"""``lm.evaluate``: tasks of all kinds, scores, costs, and what an interrupt leaves."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llm_magics as lm
from llm_magics.errors import (
    BudgetError,
    DeclinedError,
    Interrupted,
    LLMError,
    TemplateError,
    UsageError,
)
from llm_magics.evaluations import stored
from llm_magics.evaluations.datasets import EvaluationSet
from llm_magics.host import current_host
from llm_magics.runtime.session import session

ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "one", "expected": "one"},
    {"id": "b", "text": "two", "expected": "three"},
    {"id": "c", "text": "four", "expected": None},
]
ECHO, LOREM = "echo/echo", "echo/lorem"


def test_a_prompt_is_asked_for_each_item_and_model() -> None:
    """The rows have the item, the model, the rendered prompt, the answer and its scores."""
    with pytest.warns(UserWarning, match="For 2 of 6 answers expected has no value"):
        runs = lm.evaluate("{{ text }}", ROWS, [ECHO, LOREM], score=["exact", len])
    assert list(runs.columns[:8]) == [
        "item",
        "asked",
        "repeat",
        "prompt",
        "expected",
        "text",
        "score_exact",
        "score_len",
    ]
    echo = runs[runs.asked == ECHO]
    assert echo["item"].tolist() == ["a", "b", "c"]
    assert echo["prompt"].tolist() == echo["text"].tolist() == ["one", "two", "four"]
    assert echo["score_exact"].tolist()[:2] == [1, 0]
    assert math.isnan(echo["score_exact"].iloc[2])
    assert echo["score_len"].tolist() == [3, 3, 4]
    assert runs.attrs["digest"] == EvaluationSet(ROWS).digest
    assert runs.attrs["models"] == [ECHO, LOREM]
    assert json.loads(json.dumps(runs.attrs)) == runs.attrs


def test_missing_inputs_are_empty_in_prompts() -> None:
    """And names with spaces are read from the row."""
    data = [{"a b": "x", "c": None}, {"a b": "y", "c": 2}]
    runs = lm.evaluate("{{ row['a b'] }}-{{ c }}", data, ECHO)
    assert runs["text"].tolist() == ["x-", "y-2"]


def test_a_prompt_file_is_a_task(tmp_path: Path) -> None:
    """With its model, system message and defaults; data are never rendered as templates."""
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "brief.md").write_text(
        "---\nmodel: echo/echo\ndefaults: {tone: calm}\n---\n{{ tone }}: {{ input }}\n", "utf-8"
    )
    runs = lm.evaluate("brief", [{"text": "{{ 7 * 7 }}"}])
    assert runs["text"].tolist() == ["calm: {{ 7 * 7 }}"]
    assert runs["asked"].tolist() == [ECHO]
    assert runs.attrs["task"]["kind"] == "prompt file"
    assert runs.attrs["name"] == "brief"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{{ txt }}", "uses {{ txt }}, which is not an input"),
        ("Say something", "no {{ column }}, and no prompt file"),
        (3, "Invalid task: got int"),
        (lambda row: row, "has no parameter model"),
    ],
)
def test_tasks_that_cannot_be_run_are_refused(task: Any, message: str) -> None:
    """Before anything is sent."""
    with pytest.raises(UsageError, match=message):
        lm.evaluate(task, ROWS, [ECHO])
    assert not len(session.runs)


def test_arguments_are_checked() -> None:
    """Splits, clusters, scores without expected answers, and misspelled names."""
    for arguments, message in [
        ({"split": "test"}, "no split"),
        ({"cluster": "doc"}, "no column 'doc'"),
        ({"score": "exat"}, "Unknown score"),
        ({"score": "judge"}, "only one model"),
        ({"repeat": 0}, "Invalid value for repeat"),
        ({"temperatur": 1}, "Unknown parameter"),
        ({"scores": "exact"}, "Unknown argument"),
    ]:
        with pytest.raises(UsageError, match=message):
            lm.evaluate("{{ text }}", ROWS, ECHO, **arguments)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="needs expected answers"):
        lm.evaluate("{{ text }}", [{"text": "x"}], ECHO, score="exact")


def test_a_function_is_a_task() -> None:
    """It gets the item; its calls are counted in the cost and the tokens of its row."""

    def task(row: Any) -> Any:
        first = lm.ask(row.text, model=ECHO)
        return lm.ask(f"{first} again", model=ECHO)

    runs = lm.evaluate(task, ROWS, score=lambda answer, row: row["text"] in answer)
    assert runs["text"].tolist() == ["one again", "two again", "four again"]
    assert runs["asked"].unique().tolist() == ["task"]
    assert runs["model"].tolist() == ["echo"] * 3
    assert (runs["output_tokens"] > 2).all()
    assert runs["score_function"].tolist() == [1, 1, 1]
    assert runs["cost_usd"].tolist() == [0, 0, 0]


def test_an_asynchronous_function_gets_the_model() -> None:
    """And may return any JSON value, which is scored as its text."""

    async def task(row: Any, model: str) -> dict[str, Any]:
        answer = await lm.aask(row["text"], model=model)
        return {"label": answer.text, "length": len(answer.text)}

    runs = lm.evaluate(task, ROWS, [ECHO], score="json_valid")
    assert runs["text"].iloc[0] == '{"label":"one","length":3}'
    assert runs["score_json_valid"].tolist() == [1, 1, 1]


def test_a_function_that_fails_does_not_stop_the_others() -> None:
    """Its row has the error and scores 0; without a value too."""

    def task(row: Any) -> str | None:
        if row["id"] == "a":
            raise KeyError("x")
        return None if row["id"] == "b" else "four"

    with pytest.warns(UserWarning, match="2 of 3 answers failed and score 0"):
        runs = lm.evaluate(task, ROWS, score=lambda answer: 1)
    assert runs["score_function"].tolist() == [0, 0, 1]
    assert runs["error"].iloc[0] == "KeyError: 'x'"
    assert "returned nothing" in runs["error"].iloc[1]
    assert runs.failures()["item"].tolist() == ["a", "b"]


def test_a_function_of_a_table_is_a_task() -> None:
    """One call for all items; the value is its new column, or all of several."""

    def task(df: pd.DataFrame, **options: Any) -> Any:
        return df.llm.prompt("say {{ text }}", into="said", **options)

    runs = lm.evaluate(task, ROWS, [ECHO], repeat=2, score=len)
    assert runs["text"].tolist() == ["say one", "say two", "say four"] * 2
    assert runs["repeat"].tolist() == [0, 0, 0, 1, 1, 1]
    assert len(session.runs) == 6

    two = lm.evaluate(lambda df: df.assign(x=1, y=df["text"]), ROWS)
    assert two["text"].iloc[0] == '{"x":1,"y":"one"}'
    listed = lm.evaluate(lambda df: list(df["text"]), ROWS)
    assert listed["text"].tolist() == ["one", "two", "four"]
    with pytest.raises(UsageError, match="Repeats would be copies"):
        lm.evaluate(lambda df: df, ROWS, repeat=2)
    with pytest.warns(UserWarning, match="3 of 3 answers failed"):
        lm.evaluate(lambda df: ["x"], ROWS)


def test_failed_scores_do_not_discard_answers() -> None:
    """They are missing, with a warning, and do not count in means."""

    def score(answer: str) -> float:
        return 1.0 if answer == "one" else 1 / 0

    with pytest.warns(UserWarning, match="score failed for 2 of 3 answers"):
        runs = lm.evaluate("{{ text }}", ROWS, ECHO, score=score)
    assert runs.summary().loc[ECHO, "score_score"] == 1


def test_a_dry_run_sends_nothing() -> None:
    """It returns the numbers and the cost; that of functions is unknown."""
    lm.config.prices = {"echo/*": {"input_usd": 1.0, "output_usd": 2.0}}
    plan = lm.evaluate("{{ text }}", ROWS, [ECHO, LOREM], repeat=2, dry_run=True)
    assert (plan.items, plan.models, plan.repeat, plan.answers) == (3, 2, 2, 12)
    assert plan.prompts == 12
    assert plan.cost_usd is not None
    assert plan.cost_usd > 0
    assert "12 prompts to send" in str(plan)
    of_function = lm.evaluate(lambda row: "x", ROWS, dry_run=True)
    assert of_function.cost_usd is None
    assert not len(session.runs)


def test_costs_are_confirmed() -> None:
    """Of prompts before anything is sent, and of functions after their first calls."""
    lm.config.prices = {"echo/*": {"input_usd": 1e6, "output_usd": 1e6}}
    with pytest.raises(UsageError, match="Confirmation is required"):
        lm.evaluate("{{ text }}", ROWS, ECHO)
    assert not len(session.runs)
    assert len(lm.evaluate("{{ text }}", ROWS, ECHO, yes=True)) == 3

    many = [{"id": number, "text": "x"} for number in range(20)]
    with pytest.raises(UsageError, match="12 further answers") as caught:
        lm.evaluate(lambda row: lm.ask(row.text, model=ECHO), many)
    assert len(caught.value.partial) == 8  # type: ignore[attr-defined]
    runs = lm.evaluate(lambda row: lm.ask(row.text, model=ECHO), many, yes=True)
    assert runs["cost_usd"].sum() > 1


def test_a_spent_budget_ends_the_run_with_its_results() -> None:
    """They are in the error, and stored."""
    lm.config.prices = {"echo/*": {"input_usd": 1e6, "output_usd": 1e6}}
    lm.config.budget = 25.0
    with pytest.raises(BudgetError) as caught:
        lm.evaluate(lambda row: lm.ask(row.text, model=ECHO), ROWS, concurrency=1, name="budget")
    partial = caught.value.partial  # type: ignore[attr-defined]
    assert len(partial) > 0
    assert lm.load_evaluation("budget").attrs["stopped"]


def test_an_interrupt_returns_the_answers_so_far() -> None:
    """And the same call with resume=True asks only for the rest."""
    asked = []

    def task(row: Any) -> str:
        asked.append(row.id)
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            while True:  # until the interrupt stops it
                lm.ask(row.text, model=ECHO)
        return str(lm.ask(row.text, model=ECHO))

    many = [{"id": number, "text": f"text {number}"} for number in range(6)]
    with pytest.raises(Interrupted) as caught:
        lm.evaluate(task, many, concurrency=1)
    partial = caught.value.partial
    assert partial["item"].tolist() == ["0", "1"]
    assert partial.attrs["stopped"] == "after 2 of 6 answers"
    runs = lm.evaluate(task, many, concurrency=1, resume=True)
    assert runs["text"].tolist() == [f"text {number}" for number in range(6)]
    assert asked == ["0", "1", "2", "2", "3", "4", "5"]


def test_an_interrupt_before_the_first_answer_leaves_nothing() -> None:
    """No row, and no stored run."""

    def task(row: Any) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        while True:  # until the interrupt stops it
            lm.ask(row.text, model=ECHO)

    with pytest.raises(Interrupted) as caught:
        lm.evaluate(task, ROWS, concurrency=1)
    assert len(caught.value.partial) == 0
    assert len(lm.list_evaluations()) == 0


def test_an_interrupted_score_keeps_the_answers() -> None:
    """They are in the exception, and stored."""

    def score(answer: str) -> float:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="all 3 answers are complete") as caught:
        lm.evaluate("{{ text }}", ROWS, ECHO, score=score, name="scored")
    assert caught.value.partial["text"].tolist() == ["one", "two", "four"]
    assert lm.load_evaluation("scored")["text"].tolist() == ["one", "two", "four"]


def test_a_second_interrupt_while_scoring_keeps_the_answers() -> None:
    """They are in the exception and stored without scores, and the run can be continued."""
    asked, many = [], [{"id": number, "text": f"text {number}"} for number in range(4)]

    def task(df: pd.DataFrame, **options: Any) -> Any:
        asked.append(options["fresh"])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return df["text"]

    def score(answer: str) -> float:
        if len(asked) == 2:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(Interrupted) as caught:
        lm.evaluate(task, many, repeat=2, score=score, name="twice")
    assert len(caught.value.partial) == 4
    found = lm.load_evaluation("twice")
    assert found["text"].tolist() == [f"text {number}" for number in range(4)]
    assert found.attrs["stopped"]
    runs = lm.evaluate(task, many, repeat=2, score=score, name="twice", resume=True)
    assert (len(asked), runs["score_score"].tolist()) == (3, [1.0] * 8)


def test_an_interrupt_while_storing_keeps_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file with the rows so far is not deleted before they are in another one."""
    asked = []

    def task(row: Any) -> str:
        asked.append(row.id)
        return str(row.text)

    def write(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stored, "write_run", write)
        with pytest.raises(KeyboardInterrupt):
            lm.evaluate(task, ROWS, name="stored")
    assert lm.list_evaluations()["stopped"].tolist() == ["because its process ended"]
    assert len(lm.evaluate(task, ROWS, name="stored", resume=True)) == len(asked) == 3


def test_a_run_that_was_stopped_while_scoring_is_only_scored() -> None:
    """It is not the previous run of another one, and its answers are not asked again."""
    asked: list[str] = []
    data = lm.EvaluationSet(ROWS)

    def task(row: Any) -> str:
        asked.append(row.id)
        return str(row.text)

    def interrupt(answer: str) -> float:
        raise KeyboardInterrupt

    first = lm.evaluate(task, data, score=len, name="scored")
    with pytest.raises(Interrupted, match="all 3 answers are complete") as caught:
        lm.evaluate(task, data, score=interrupt, name="scored")
    assert "resume=True" in str(caught.value.hint)
    assert caught.value.partial.attrs["stopped"] == "while scoring"
    assert "stopped" not in caught.value.partial.scored(len).attrs
    assert lm.list_evaluations()["stopped"].tolist()[0] == "while scoring"
    asked.clear()
    runs = lm.evaluate(task, data, score=len, name="scored", resume=True)
    assert asked == []
    assert "stopped" not in runs.attrs
    assert stored.find_previous(runs.attrs).attrs["id"] == first.attrs["id"]


def test_aevaluate_does_not_block_the_loop() -> None:
    """For prompts and for functions."""

    async def both() -> list[lm.EvaluationResults]:
        return [
            await lm.aevaluate("{{ text }}", ROWS, ECHO),
            await lm.aevaluate(lambda row: row["text"], ROWS),
            await lm.aevaluate(lambda df: df["text"], ROWS),
        ]

    for runs in asyncio.run(both()):
        assert runs["text"].tolist() == ["one", "two", "four"]


def test_recordings_replay_an_evaluation(tmp_path: Path) -> None:
    """With equal answers and scores, and without new calls."""
    lm.config.record = tmp_path / "answers.jsonl"
    first = lm.evaluate("{{ text }}", ROWS, LOREM, score=len, repeat=2)
    lm.config.record = None
    lm.config.replay, lm.config.replay_strict = tmp_path / "answers.jsonl", True
    second = lm.evaluate("{{ text }}", ROWS, LOREM, score=len, repeat=2)
    assert second["text"].tolist() == first["text"].tolist()
    assert second["cached"].all()
    with pytest.warns(UserWarning, match="3 of 3 answers failed"):
        changed = lm.evaluate("now {{ text }}", ROWS, LOREM)
    assert changed["error"].str.startswith("ReplayMissError").all()


def test_declining_a_cost_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, and nothing was sent."""
    lm.config.prices = {"echo/*": {"input_usd": 1e6, "output_usd": 1e6}}
    monkeypatch.setattr(current_host(), "ask", lambda question: "n")
    with pytest.raises(DeclinedError, match="Nothing was sent"):
        lm.evaluate("{{ text }}", ROWS, ECHO)
    assert issubclass(DeclinedError, LLMError)
    assert not len(session.runs)


def test_calls_for_all_items_are_continued_too() -> None:
    """A call whose answers are complete is not repeated."""
    calls = []

    def task(df: pd.DataFrame, **options: Any) -> Any:
        calls.append(options["fresh"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return df["text"]

    with pytest.raises(Interrupted) as caught:
        lm.evaluate(task, ROWS, repeat=3)
    assert len(caught.value.partial) == 3
    runs = lm.evaluate(task, ROWS, repeat=3, resume=True)
    assert runs["repeat"].value_counts().to_dict() == {0: 3, 1: 3, 2: 3}
    assert len(calls) == 4


@pytest.mark.parametrize(
    "setting",
    [
        {"aliases": {"mine": {"model": LOREM}}},
        {"routes": {"mine": [LOREM]}},
        {"model": LOREM},
    ],
    ids=["alias", "route", "default"],
)
def test_a_run_is_not_continued_with_another_model(setting: dict[str, Any]) -> None:
    """The name in the call is the same, but not the model that it stands for."""
    lm.config.model = ECHO
    lm.config.aliases = {"mine": {"model": ECHO}}
    asked = []

    def task(row: Any, model: str) -> str:
        asked.append(row.id)
        if len(asked) == 3:
            raise BudgetError("stop")
        return row.text

    with pytest.raises(BudgetError):
        lm.evaluate(task, ROWS, "mine", concurrency=1)
    for name, value in setting.items():
        if name == "routes":
            lm.config.aliases = {}
        setattr(lm.config, name, value)
    asked[:] = ["x"] * 3
    lm.evaluate(task, ROWS, "mine", concurrency=1, resume=True)
    assert asked[3:] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("setting", "own", "is_continued"),
    [
        ({"system": "Be brief."}, {}, False),
        ({"temperature": 0.5}, {}, False),
        ({"max_tokens": 7}, {}, False),
        ({"stop": ["x"]}, {}, False),
        ({"system": "Be brief."}, {"system": "Be kind."}, True),
        ({"temperature": 0.5}, {"temperature": 0.1}, True),
    ],
)
@pytest.mark.parametrize(
    "task", ["{{ text }}", lambda row, **_: lm.ask(row.text, model=ECHO).text]
)
def test_a_run_is_not_continued_with_other_settings(
    task: Any, setting: dict[str, Any], own: dict[str, Any], is_continued: bool
) -> None:
    """The defaults of the session count, unless the call or the prompt file has its own values."""

    def interrupt(answer: str) -> float:
        raise KeyboardInterrupt

    models = ECHO if isinstance(task, str) else None
    with pytest.raises(Interrupted):
        lm.evaluate(task, ROWS, models, score=interrupt, **own)
    for name, value in setting.items():
        setattr(lm.config, name, value)
    plan = lm.evaluate(task, ROWS, models, resume=True, dry_run=True, **own)
    # a function may pass its own arguments on or not
    assert plan.done == (3 if is_continued and models else 0)


def test_resume_without_an_incomplete_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """All items are asked."""
    notes: list[str] = []
    monkeypatch.setattr(current_host(), "note", notes.append)
    assert len(lm.evaluate("{{ text }}", ROWS, ECHO, resume=True)) == 3
    assert notes == [
        "No incomplete run has the same task, data, models and parameters: all items are asked."
    ]


def test_a_changed_setting_of_a_prompt_file_is_another_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default values of a file change its prompts."""
    monkeypatch.chdir(tmp_path)
    digests = set()
    for words in (3, 4, 4):
        file = f"---\ndefaults: {{words: {words}}}\n---\n{{{{ words }}}} {{{{ text }}}}"
        (tmp_path / "prompts").mkdir(exist_ok=True)
        (tmp_path / "prompts" / "brief.md").write_text(file, "utf-8")
        runs = lm.evaluate("brief", ROWS, ECHO)
        assert runs["text"].iloc[0] == f"{words} one"
        digests.add(runs.attrs["task"]["digest"])
    assert len(digests) == 2
    with pytest.raises(TemplateError, match="brieff"):
        lm.evaluate("brieff", ROWS, ECHO)


def test_expected_json_is_compared_with_the_value_of_a_function() -> None:
    """The order of names does not count."""
    data = [{"text": "x", "expected": {"a": "é", "b": [1, None]}}]
    runs = lm.evaluate(lambda row: {"b": [1, None], "a": "é"}, data, score="exact")
    assert runs["score_exact"].tolist() == [1]
    runs = lm.evaluate(lambda row: "no JSON", data, score="exact")
    assert runs["score_exact"].tolist() == [0]
