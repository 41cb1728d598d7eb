"""Judges and functions as scores of ``lm.evaluate``: verdicts, failures, costs, and recordings."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llm_magics as lm
from llm_magics.benchmarking import scorers
from llm_magics.errors import UsageError
from tests.support.serving import Asked, Says, as_json, chat_stream, serving

ROWS = [{"id": "a", "text": "x"}, {"id": "b", "text": "y", "expected": "why"}]
MODELS = ["lab/long", "lab/short"]
PROMPT = "{{ text }}"
REFUSED = as_json({"error": {"message": "no", "code": "invalid_value"}}, 400)
ANSWERS = re.compile(r'<answer_(?:A|B) id="\w+">\n(.*?)\n</answer_', re.DOTALL)


class Lab:
    """A service with two models, and a judge that prefers the longer answer."""

    def __init__(self) -> None:
        self.refuses: Callable[[str], bool] = lambda text: False
        self.judged: list[str] = []
        self.asked: list[str] = []

    def __call__(self, asked: Asked) -> Says:
        body = asked.json()
        text = body["messages"][-1]["content"]
        if body["model"] == "judge":
            self.judged.append(text)
            return REFUSED if self.refuses(text) else Says(chat_stream(self.verdict(text)))
        self.asked.append(text)
        return Says(chat_stream(f"{text}, at length" if body["model"] == "long" else text))

    def verdict(self, text: str) -> str:
        """Return the verdict in pieces of JSON, or a grade."""
        if "<question>" not in text:
            return "1" if "at length" in text else "0"
        first, second = ANSWERS.findall(text)
        return '{"better": "A"}' if len(first) > len(second) else '{"better": "B"}'


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The service, as the provider ``lab``, with prices."""
    service = Lab()
    with serving(service) as server:
        lm.config.providers = {
            "lab": {"type": "openai", "base_url": f"{server.url}/v1", "api_key": "k"}
        }
        lm.config.prices = {"lab/*": {"input_usd": 1.0, "output_usd": 1.0}}
        yield service


def test_a_judge_compares_the_answers_to_each_item(lab: Lab) -> None:
    """In both orders, with the expected answer; verdicts, agreement and cost are in the results."""
    runs = lm.evaluate(PROMPT, ROWS, MODELS, score=scorers.judge("lab/judge"))
    assert runs["score_judge"].tolist() == [1, 0, 1, 0]
    assert len(lab.judged) == 4
    assert sum("<right_answer>\nwhy\n</right_answer>" in each for each in lab.judged) == 2
    assert runs.attrs["judges"] == {"judge": 1.0}
    calls = lm.runs()
    judged_usd = calls["cost_usd"][calls["model"] == "judge"].sum()
    assert judged_usd > 0
    assert runs.attrs["judge_costs_usd"]["judge"] == pytest.approx(judged_usd)
    assert runs["cost_usd"].sum() + judged_usd == pytest.approx(calls["cost_usd"].sum())


def test_a_report_says_that_a_judge_was_not_compared_with_people(lab: Lab) -> None:
    """Also that of a stored run; with the comparison it has its summary instead."""
    judge = scorers.judge("lab/judge")
    runs = lm.evaluate(PROMPT, ROWS, MODELS, score=judge)
    line = "judge has not been compared with people's labels: lm.agreement(…)."
    for each in (runs, lm.load_evaluation(runs.attrs["id"])):
        assert line in each.report()
        assert "The verdicts of judge cost $0.0" in each.report()
        assert "judge costs usd" not in each.report()
    agreement = lm.agreement(["A", "B", "A"], ["A", "B", "B"])
    checked = runs.scored(scorers.judge("lab/judge", checked=agreement))
    assert line not in checked.report()
    assert "judge was compared with people's labels: 3 of 3 items" in checked.report()


def test_a_judge_that_fails_loses_no_answer(lab: Lab) -> None:
    """The answers have no score and are stored; they can be judged later without asking again."""
    lab.refuses = lambda text: True
    with pytest.warns(UserWarning, match="The judge failed; the answers are complete"):
        runs = lm.evaluate(PROMPT, ROWS, MODELS, score=[scorers.judge("lab/judge"), len])
    assert runs["score_judge"].isna().all()
    assert runs["score_len"].notna().all()
    stored = lm.load_evaluation(runs.attrs["id"])
    assert stored["text"].tolist() == runs["text"].tolist()
    asked = len(lab.asked)
    lab.refuses = lambda text: False
    assert stored.scored(scorers.judge("lab/judge"))["score_judge"].tolist() == [1, 0, 1, 0]
    assert len(lab.asked) == asked


def test_pairs_without_a_verdict_count_for_no_model(lab: Lab) -> None:
    """If the judge fails for one item, the others have their scores."""
    lab.refuses = lambda text: "<question>\nx\n" in text
    with pytest.warns(UserWarning, match="no verdict for 1 pair"):
        runs = lm.evaluate(PROMPT, ROWS, MODELS, score=scorers.judge("lab/judge"))
    assert runs["score_judge"].isna().tolist() == [True, True, False, False]


def test_an_expensive_judge_is_not_asked_without_confirmation(lab: Lab) -> None:
    """The answers are complete, without a score."""
    lm.config.prices = {"lab/judge": {"input_usd": 1e6, "output_usd": 1e6}}
    with pytest.warns(UserWarning, match="The judge failed.*Confirmation is required"):
        runs = lm.evaluate(PROMPT, ROWS, MODELS, score=scorers.judge("lab/judge"))
    assert not lab.judged
    assert runs["text"].notna().all()
    assert runs["score_judge"].isna().all()


def test_verdicts_are_recorded_and_replayed(lab: Lab, tmp_path: Path) -> None:
    """A recording has answers and verdicts; a strict replay gives them without the service."""
    score = scorers.judge("lab/judge")
    lm.config.record = tmp_path / "tape.jsonl"
    first = lm.evaluate(PROMPT, ROWS, MODELS, score=score)
    lm.config.record = None
    lm.config.replay, lm.config.replay_strict = tmp_path / "tape.jsonl", True
    lab.refuses = lambda text: True
    asked = len(lab.asked)
    again = lm.evaluate(PROMPT, ROWS, MODELS, score=score)
    assert again["score_judge"].tolist() == first["score_judge"].tolist() == [1, 0, 1, 0]
    assert len(lab.asked) == asked
    assert again.attrs["judge_costs_usd"] == {"judge": 0.0}


def test_a_judge_is_asked_in_asynchronous_runs(lab: Lab) -> None:
    """As in an ordinary run."""
    score = scorers.judge("lab/judge")
    runs = asyncio.run(lm.aevaluate(PROMPT, ROWS, MODELS, score=score))
    assert runs["score_judge"].tolist() == [1, 0, 1, 0]


def test_a_judge_needs_two_models(lab: Lab) -> None:
    """With one model there is nothing to compare, which is said before anything is sent."""
    with pytest.raises(UsageError, match="only one model"):
        lm.evaluate(PROMPT, ROWS, MODELS[:1], score=scorers.judge("lab/judge"))
    assert not lab.asked


def test_a_function_that_asks_a_model_is_a_score(lab: Lab) -> None:
    """A judge of single answers, also with one model; its calls are recorded like any others."""

    def grade(answer: str, row: Any) -> float:
        return float(lm.ask(f"Grade {answer!r} to {row['text']!r}: 0 or 1", "lab/judge").text)

    runs = lm.evaluate(PROMPT, ROWS, MODELS, score=grade)
    assert runs["score_grade"].tolist() == [1, 0, 1, 0]
    assert len(lm.runs()) == 8
    lab.refuses = lambda text: "'x'" in text
    with pytest.warns(UserWarning, match="grade failed for 1 of 2 answers"):
        runs = lm.evaluate("so {{ text }}", ROWS, MODELS[:1], score=grade)
    assert runs["score_grade"].isna().tolist() == [True, False]


def test_a_function_that_asks_a_model_works_in_asynchronous_runs(lab: Lab) -> None:
    """Calls inside a score do not wait for the event loop that runs the evaluation."""

    def grade(answer: str) -> float:
        return float(lm.ask(f"Grade {answer!r}", "lab/judge").text)

    runs = asyncio.run(lm.aevaluate(PROMPT, ROWS, MODELS[0], score=grade))
    assert runs["score_grade"].tolist() == [1, 1]
