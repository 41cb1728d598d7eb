"""Whether answers are right: scores, judges, and what becomes of answers that failed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics.benchmarking import scorers
from llm_magics.benchmarking.measurements import Measurements
from llm_magics.benchmarking.scorers import Scorer
from llm_magics.errors import Interrupted, UsageError
from tests.support.prepared_python import run_prepared
from tests.support.serving import Asked, Says, as_json, chat_stream, serving


def score_of(scorer: Scorer, answer: str, expected: Any = None) -> float:
    """What one answer scores."""
    return float(scorer.score(answer, expected))


@pytest.mark.parametrize(
    ("scorer", "answer", "expected", "score"),
    [
        (scorers.exact(), " Paris.\n", "paris", 1),
        (scorers.exact(), "It is Paris", "Paris", 0),
        (scorers.exact(ignore_case=False), "paris", "Paris", 0),
        (scorers.exact(), "42", 42, 1),
        (scorers.contains(), "The capital is Paris, of course", "paris", 1),
        (scorers.contains(), "Parisian", "Paris", 0),
        (scorers.contains(), "red and blue", ["Blue", "red"], 1),
        (scorers.contains(), "red", ["blue", "red"], 0),
        (scorers.contains(), "C++ (really)", "c++", 1),
        (scorers.regex(r"\d{4}"), "in 1984", None, 1),
        (scorers.regex(r"^\d{4}$"), "in 1984", None, 0),
        (scorers.regex(), "in 1984", "19..", 1),
        (scorers.json_valid(), '{"a": 1}', None, 1),
        (scorers.json_valid(), 'Here:\n```json\n{"a": 1}\n```', None, 1),
        (scorers.json_valid(), "{a: 1", None, 0),
        (scorers.fits("name, age int"), '{"name": "x", "age": 3}', None, 1),
        (scorers.fits("name, age int"), '{"name": "x", "age": "old"}', None, 0),
        (scorers.fits("name, age int"), "x is 3", None, 0),
        (scorers.numeric(), "3 + 4 = 7", 7, 1),
        (scorers.numeric(), "about 1,234.5 m", "1234.5", 1),
        (scorers.numeric(), "−5 °C", -5, 1),
        (scorers.numeric(rel=0.01), "3.14", 3.14159, 1),
        (scorers.numeric(), "3.14", 3.14159, 0),
        (scorers.numeric(abs=1), "10", 11, 1),
        (scorers.numeric(), "none", 3, 0),
        (scorers.numeric(), "6.02e23", 6.02e23, 1),
        (scorers.numeric(), "The range is 5-10", 10, 1),
        (scorers.numeric(), "on 2024-01-15", 15, 1),
        (scorers.numeric(), "it is -15", -15, 1),
        (scorers.exact(), "5", 5.0, 1),
        (scorers.exact(), "", "...", 0),
    ],
)
def test_what_is_right(scorer: Scorer, answer: str, expected: Any, score: float) -> None:
    """Each by its own rule."""
    assert score_of(scorer, answer, expected) == score


def test_likeness_is_that_of_vectors() -> None:
    """The cosine, 1 for the same text, and 0 for nothing said."""
    lm.config.embedding_model = "echo/echo"
    scorer = scorers.similar()
    assert score_of(scorer, "a whale", "a whale") == pytest.approx(1, abs=1e-6)
    one, other = lm.embed(["a whale", "a tax form"])
    cosine = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert score_of(scorer, "a whale", "a tax form") == pytest.approx(max(0, cosine), abs=1e-6)
    assert score_of(scorer, " ", "a whale") == 0


def test_scores_stand_beside_the_answers() -> None:
    """By name, as functions, several at once; with what was expected in its column."""

    def short(answer: str) -> bool:
        return len(answer) < 4

    def longer(answer: str, expected: str) -> int:
        return len(answer) - len(expected)

    runs = lm.compare(
        ["a b", "c"],
        ["echo/echo", "echo/nope"],
        expected=["a b", "d"],
        score=["exact", short, longer, scorers.regex("[ab]")],
    )
    assert runs.expected.tolist() == ["a b", "a b", "d", "d"]
    assert runs.score_exact.tolist() == [1, 0, 0, 0]
    assert runs.score_short.tolist() == [1, 0, 1, 0]
    assert runs.score_longer.tolist() == [0, 0, 0, 0]
    assert runs.score_regex.tolist() == [1, 0, 0, 0]
    told = runs.summary()
    assert told.score_exact.tolist() == [0.5, 0.0]
    assert told.failed.tolist() == [0, 2]


def test_scores_can_be_named_and_given_later() -> None:
    """A mapping names them; answers that are there are not asked for again."""
    runs = lm.compare(["a", "b"], "echo/echo")
    count = len(lm.runs())
    with pytest.warns(UserWarning, match="1 of 2"):
        scored = runs.scored({"is_a": lambda answer: answer == "a"}).scored("exact", {"a": "a"})
    assert len(lm.runs()) == count
    assert scored.score_is_a.tolist() == [1, 0]
    assert scored.score_exact.tolist()[0] == 1
    assert math.isnan(scored.score_exact.tolist()[1])  # nobody said what is right
    assert "score_is_a" not in runs


def test_a_score_that_fails_loses_no_answer() -> None:
    """It is missing in that row, and a warning says how often and why."""

    def brittle(answer: str) -> float:
        return 1 / (len(answer) - 1)

    with pytest.warns(UserWarning, match=r"brittle failed for 1 of 2 answers \(ZeroDivisionError"):
        runs = lm.compare(["a", "abc"], "echo/echo", score=brittle)
    assert runs.text.tolist() == ["a", "abc"]
    assert math.isnan(runs.score_brittle.iloc[0])
    assert runs.score_brittle.iloc[1] == 0.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"score": "exactly", "expected": "x"}, "'exactly'"),
        ({"score": "exact"}, "exact needs expected"),
        ({"score": 5}, "score: 5"),
        ({"score": "exact", "expected": ["a", "b", "c"]}, "expected has 3 values"),
        ({"repeat": 0}, "repeat: 0"),
        ({"concurrency": 0}, "concurrency: 0"),
        ({"max_token": 1}, "parameter: max_token"),
    ],
)
def test_a_slip_costs_nothing(options: dict[str, Any], says: str) -> None:
    """It is told of before anything is asked."""
    count = len(lm.runs())
    with pytest.raises(UsageError, match=says):
        lm.compare(["a", "b"], "echo/echo", **options)
    assert len(lm.runs()) == count


def test_a_wrong_pattern_is_a_slip() -> None:
    """Said when it is written."""
    with pytest.raises(UsageError, match="regular expression"):
        scorers.regex("(")


class Bench:
    """A service where each model has its answers, and one of them judges by ``verdict``."""

    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict
        self.judged: list[str] = []

    def __call__(self, asked: Asked) -> Says:
        body = asked.json()
        text = body["messages"][-1]["content"]
        if body["model"] != "judge":
            return Says(chat_stream(f"{body['model']} says {text}"))
        self.judged.append(text)
        first, second = (
            re.search(
                rf'<answer_{place} id="(\w+)">\n(.*)\n</answer_{place} id="\1">', text, re.DOTALL
            )[2]
            for place in "AB"
        )
        told = self.verdict(first, second)
        if isinstance(told, Says):
            return told
        return Says(chat_stream(f'{{"better": "{told}"}}'))


def judged(
    verdict: Any, models: list[str], prompts: list[str], checked: Any = None, **more: Any
) -> tuple[Any, Bench]:
    """Measurements with the scores of a judge, and the service."""
    service = Bench(verdict)
    with serving(service) as server:
        lm.config.providers = {
            "lab": {"type": "openai", "base_url": f"{server.url}/v1", "api_key": "k"}
        }
        runs = lm.compare(
            prompts, models, score=scorers.judge("lab/judge", checked=checked), **more
        )
    return runs, service


def test_a_judge_sees_each_pair_in_both_orders() -> None:
    """The better one wins, whichever place it stands in."""
    runs, service = judged(
        lambda first, second: "A" if first < second else "B", ["lab/a", "lab/b"], ["x", "y"]
    )
    assert len(service.judged) == 4
    assert runs.score_judge.tolist() == [1, 0, 1, 0]
    assert runs.attrs["judges"] == {"judge": 1.0}
    assert runs.wins().loc["lab/a", "lab/b"] == 1.0


def test_a_judge_that_goes_by_place_decides_nothing() -> None:
    """The first answer always: that is a tie, and the report says how often orders agreed."""
    runs, _ = judged(lambda first, second: "A", ["lab/a", "lab/b"], ["x", "y"])
    assert runs.score_judge.tolist() == [0.5] * 4
    assert runs.attrs["judges"] == {"judge": 0.0}
    assert "in both orders for 0% of the pairs" in runs.report()


def test_a_report_says_whether_a_judge_was_compared_with_people() -> None:
    """With the summary of the comparison, also under another name."""
    unchecked, _ = judged(lambda first, second: "A", ["lab/a", "lab/b"], ["x"])
    assert (
        "judge has not been compared with people's labels: lm.agreement(…)" in unchecked.report()
    )
    agreement = lm.agreement(["A", "B", "A"], ["A", "B", "B"])
    checked, _ = judged(lambda first, second: "A", ["lab/a", "lab/b"], ["x"], agreement)
    report = checked.report()
    assert "judge was compared with people's labels: 3 of 3 items labelled by 1 person" in report
    assert "has not been compared" not in report
    assert "judge checks" not in report


def test_a_judge_of_three() -> None:
    """Each pair of models at each prompt, twice; a score is the share of pairs won."""
    runs, service = judged(
        lambda first, second: "tie" if {first[0], second[0]} == {"b", "c"} else
        ("A" if first < second else "B"),
        ["lab/a", "lab/b", "lab/c"], ["x"],
    )  # fmt: skip
    assert len(service.judged) == 6
    assert runs.score_judge.tolist() == [1.0, 0.25, 0.25]


def test_a_judge_is_told_what_is_right_and_what_is_an_answer() -> None:
    """Whatever an answer says stands between its marks."""
    _, service = judged(lambda first, second: "A", ["lab/a", "lab/b"], ["x"], expected="forty-two")
    assert "<right_answer>\nforty-two\n</right_answer>" in service.judged[0]
    assert "<question>\nx\n</question>" in service.judged[0]


def test_a_judge_that_cannot_be_asked_loses_no_answer() -> None:
    """The answers are there, unscored, with a warning; scoring can be tried again."""
    refuse = as_json({"error": {"message": "no", "code": "invalid_value"}}, 400)
    with pytest.warns(UserWarning, match="judge failed"):
        runs, _ = judged(lambda first, second: refuse, ["lab/a", "lab/b"], ["x"])
    assert runs.text.tolist() == ["a says x", "b says x"]
    assert runs.score_judge.isna().all()


def test_an_interrupt_while_scoring_keeps_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the exception."""

    def stop(answer: str) -> float:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="scoring") as caught:
        lm.compare(["a", "b"], "echo/echo", score=stop)
    assert caught.value.partial.text.tolist() == ["a", "b"]


def test_providers_are_asked_side_by_side_and_rows_keep_their_order() -> None:
    """Each provider one request at a time, unless more are allowed."""
    with (
        serving(Says(chat_stream("x"), delay_s=0.03)) as one,
        serving(Says(chat_stream("y"), delay_s=0.03)) as two,
    ):
        lm.config.providers = {
            "one": {"type": "openai", "base_url": one.url, "api_key": "k"},
            "two": {"type": "openai", "base_url": two.url, "api_key": "k"},
        }
        runs = lm.compare(["a", "b", "c"], ["one/m", "two/m"], repeat=2)
        assert runs.asked.tolist() == ["one/m", "two/m"] * 6
        assert runs.prompt.tolist() == ["a", "a", "b", "b", "c", "c"] * 2
        assert runs["repeat"].tolist() == [0] * 6 + [1] * 6
        assert (one.most_at_once, two.most_at_once) == (1, 1)
        both = runs.sent_s.groupby(runs.asked).agg(["min", "max"])
        assert both["min"].max() < both["max"].min()
        lm.compare(["a", "b", "c"], "one/m", concurrency=3)
        assert one.most_at_once == 3


def test_a_report_is_a_file(tmp_path: Path) -> None:
    """Markdown: figures, quality, differences, how it was measured; nothing breaks out of a table."""
    runs = lm.compare(["a|b\nc", "d"], ["echo/echo", "echo/lorem"], expected="d", score="exact")
    text = runs.report(tmp_path / "report.md")
    assert (tmp_path / "report.md").read_text("utf-8") == text
    for part in (
        "# Models compared",
        "## Quality",
        "## Differences in exact",
        "Method",
    ):
        assert part in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    with pytest.raises(UsageError, match="folder"):
        runs.report(tmp_path / "no" / "report.md")


def test_metrics_are_what_mlflow_takes() -> None:
    """Names of letters, digits and a few signs; numbers only."""
    runs = lm.compare(["a", "d"], ["echo/echo", "echo/lorem"], expected="d", score="exact")
    told = runs.metrics()
    assert told["echo/echo/score_exact"] == 0.5
    assert all(re.fullmatch(r"[\w\-. /:]+", name) for name in told)
    assert all(isinstance(value, float) and math.isfinite(value) for value in told.values())


def test_mlflow_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics by ``log_metrics``, under the same names."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a server would be another test
    mlflow = pytest.importorskip("mlflow")
    runs = lm.compare(["a", "d"], ["echo/echo"], expected="d", score="exact")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with mlflow.start_run() as run:
        mlflow.log_metrics(runs.metrics())
    kept = mlflow.get_run(run.info.run_id).data.metrics
    assert kept == pytest.approx(runs.metrics())


def test_what_is_no_measurement_is_told_of() -> None:
    """A frame without the columns, or without rows."""
    with pytest.raises(UsageError, match="asked"):
        Measurements(pd.DataFrame({"x": [1]})).summary()
    with pytest.raises(UsageError, match="no measurements"):
        lm.compare("a", "echo/echo").iloc[:0].summary()


def test_a_script_without_pandas_imported_first() -> None:
    """``lm.compare`` is all that it needs."""
    code = "import llm_magics as lm\nprint(lm.compare('a', 'echo/echo').text.tolist())"
    assert run_prepared(code).stdout.strip() == "['a']"
