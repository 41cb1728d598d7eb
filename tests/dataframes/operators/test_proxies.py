"""Proxies: cheap scores that predict answers, and the choice among them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import ModelParameters, errors, providers
from llm_magics.dataframes.operators import classifiers, proxy_choice
from llm_magics.dataframes.operators.chosen_proxy import ChosenProxy
from llm_magics.dataframes.operators.classifiers import (
    KeywordClassifier,
    VectorClassifier,
    count_words,
    stratified_folds,
)
from llm_magics.dataframes.operators.model_proxies import ModelAnswers, ModelConfidence
from llm_magics.dataframes.operators.proxies import ColumnScores, Proxy, read_scores
from llm_magics.dataframes.operators.proxy_choice import (
    ProxyTask,
    auc,
    candidates,
    compare,
    measure,
    named_proxies,
)
from llm_magics.dataframes.operators.questions import statement_texts
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.providers.echo import EchoProvider
from llm_magics.types import StreamChunk, TokenLogprob, Usage
from tests.support.judge import Judge
from tests.support.serving import Asked, Says, as_json, chat_event, serving

SPEC = RowPrompts(text="{{ text }} is good", model="lab/oracle", parameters={"temperature": 0.5})


def task_of(frame: pd.DataFrame) -> ProxyTask:
    """The task of predicting whether the texts of ``frame`` are good."""
    statements = statement_texts(frame, SPEC)
    rows = np.flatnonzero(statements.codes >= 0)
    return ProxyTask(frame=frame, rows=rows, statements=statements, prompt_spec=SPEC)


def separable(count: int, width: int = 8, *, seed: int = 0) -> tuple[Any, Any]:
    """Vectors, and labels that mostly depend on their first dimension."""
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(count, width)).astype(np.float32)
    labels = (vectors[:, 0] + 0.3 * draw.normal(size=count) > 0.5).astype(np.int8)
    return vectors, labels


def test_a_column_of_scores_is_a_proxy() -> None:
    """Of the rows with a question; a missing score says nothing."""
    frame = pd.DataFrame({"text": ["a", None, "b", "c"], "score": [0, 0.9, None, 1]})
    proxy = ColumnScores(frame, "score", np.array([0, 2, 3]))
    assert proxy.predict().tolist() == [0.0, 0.5, 1.0]
    assert proxy.held_out(np.array([2]), np.array([1], np.int8)).tolist() == [1.0]
    assert not proxy.learns
    assert proxy.name == "the column score"
    assert read_scores(pd.Series([True, pd.NA], dtype="boolean")).tolist() == [1.0, 0.5]
    assert read_scores(pd.Series([1, None], dtype=object)).tolist() == [1.0, 0.5]


@pytest.mark.parametrize("wrong", [1.5, -0.1, "high", float("inf"), [1]])
def test_another_score_is_refused(wrong: Any) -> None:
    """The error names the value and the column."""
    with pytest.raises(errors.UsageError, match="score has the score") as raised:
        read_scores(pd.Series([0.5, wrong], dtype=object, name="score"))
    assert repr(wrong) in str(raised.value)


def test_a_classifier_learns_from_labels() -> None:
    """Its probabilities are calibrated: of rows with probability p, about p are positive."""
    vectors, labels = separable(3000)
    proxy = VectorClassifier(vectors, "vector", np.arange(3000))
    proxy.fit(np.arange(400), labels[:400])
    scores = proxy.predict()
    unseen, truth = scores[400:], labels[400:]
    assert auc(unseen, truth) > 0.95
    assert abs(unseen.mean() - truth.mean()) < 0.03
    for low, high in ((0.05, 0.3), (0.3, 0.7), (0.7, 0.95)):
        inside = (unseen > low) & (unseen < high)
        assert abs(unseen[inside].mean() - truth[inside].mean()) < 0.12
    assert proxy.learns
    assert proxy.name == "vectors in the column vector"


@pytest.mark.parametrize("labels", [[], [0], [1, 1, 1], [0, 1], [0, 0, 0, 1], [1, 1, 0, 0]])
def test_few_labels_give_cautious_scores(labels: list[int]) -> None:
    """With a single class, those of its smoothed base rate."""
    vectors, _ = separable(50)
    proxy = VectorClassifier(vectors, "vector", np.arange(50))
    given = np.array(labels, np.int8)
    proxy.fit(np.arange(len(given)), given)
    scores = proxy.predict()
    assert ((scores > 0) & (scores < 1)).all()
    if len(set(labels)) < 2:
        assert np.ptp(scores) == 0
        assert scores[0] == pytest.approx((sum(labels) + 1) / (len(labels) + 2))
    else:
        assert np.ptp(scores) > 0
    assert len(proxy.held_out(np.arange(len(given)), given)) == len(given)


def test_held_out_values_do_not_depend_on_the_own_label() -> None:
    """Labels that are noise cannot be predicted."""
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(100, 80)).astype(np.float32)
    labels = draw.integers(0, 2, 100).astype(np.int8)
    proxy = VectorClassifier(vectors, "vector", np.arange(100))
    assert abs(auc(proxy.held_out(np.arange(100), labels), labels) - 0.5) < 0.15
    proxy.fit(np.arange(100), labels)
    assert np.ptp(proxy.predict()) < 0.5  # although it could learn them by heart


def test_rows_without_a_vector_have_a_score() -> None:
    """Also rows of which all vectors are zero."""
    vectors, labels = separable(40)
    column = pd.Series([*vectors[:38], None, np.zeros(8, np.float32)])
    proxy = VectorClassifier(column, "vector", np.arange(40))
    proxy.fit(np.arange(38), labels[:38])
    assert np.isfinite(proxy.predict()).all()


TEXTS = [f"{word} battery {number}" for number in range(30) for word in ("great", "dead")]


def test_keywords_predict_labels() -> None:
    """By words; equal texts have one row of features."""
    frame = pd.DataFrame({"text": [*TEXTS, None, "great stuff", "great stuff", "dead loss"]})
    task = task_of(frame)
    proxy = KeywordClassifier(task.statements, task.statements.codes[task.rows])
    labels = np.array([text.startswith("great") for text in TEXTS], np.int8)
    proxy.fit(np.arange(60), labels)
    scores = proxy.predict()
    assert len(scores) == 63
    assert scores[60] == scores[61] > 0.7
    assert scores[62] < 0.3
    assert proxy.name == "keywords"


@pytest.mark.parametrize(
    "texts",
    [["", " "], ["…", "!!"], ["電池が切れた。" * 5, "電池が良い。" * 5], ["a"], ["  a b"] * 3],
)
def test_texts_of_any_script_have_features(texts: list[str]) -> None:
    """Also those without spaces or words."""
    features = count_words(texts)
    assert features.shape[0] == len(texts)
    assert features.dtype == np.float32


def test_folds_have_both_classes() -> None:
    """Each has about the same share of them; fewer folds for a rare class."""
    labels = np.array([1] * 3 + [0] * 7, np.int8)
    folds = stratified_folds(labels)
    assert set(folds) == {0, 1, 2}
    assert [int(labels[folds == fold].sum()) for fold in range(3)] == [1, 1, 1]


def test_auc_counts_ties_as_one_half() -> None:
    """It is the share of pairs in the right order."""
    values, labels = np.array([0.1, 0.5, 0.5, 0.9]), np.array([0, 1, 0, 1], np.int8)
    assert auc(values, labels) == (3 + 0.5) / 4
    assert math.isnan(auc(values, np.zeros(4, np.int8)))


class Sure:
    """A service with log probabilities: each text says how probable yes is."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.has_logprobs = True

    def __call__(self, asked: Asked) -> Says:
        if asked.path == "/models":
            return as_json({"data": [{"id": "m"}]})
        body = asked.json()
        self.bodies.append(body)
        statement = body["messages"][-1]["content"].partition("\n\n")[2]
        if "bad" in statement:
            return as_json({"error": {"message": "Not that.", "code": "invalid_value"}}, 400)
        if "answers" in body["response_format"]["json_schema"]["schema"]["properties"]:
            rows = [{"id": row["id"], "answer": _p(row["text"]) > 0.5} for row in json.loads(statement)]  # fmt: skip
            return Says(self._events([('{"answers": ' + json.dumps(rows) + "}", 1.0, {})]))
        p = _p(statement)
        likely, other = ("true", "false") if p > 0.5 else ("false", "true")
        tokens = [('{"answer": ', 1.0, {}), (likely, max(p, 1 - p), {other: min(p, 1 - p)}), ("}", 1.0, {})]  # fmt: skip
        return Says(self._events(tokens))

    def _events(self, tokens: list[tuple[str, float, dict[str, float]]]) -> list[bytes]:
        events = []
        for token, probability, others in tokens:
            top = [{"token": t, "bytes": None, "logprob": math.log(p)} for t, p in {token: probability, **others}.items()]  # fmt: skip
            content = {"token": token, "bytes": None, "logprob": math.log(probability), "top_logprobs": top}  # fmt: skip
            logprobs = {"logprobs": {"content": [content]}} if self.has_logprobs else {}
            choice = {"index": 0, "delta": {"content": token}, **logprobs}
            events.append(chat_event(choices=[choice]))
        return [*events, chat_event(finish_reason="stop"), b"data: [DONE]\n\n"]


def _p(text: str) -> float:
    return float(text.split(maxsplit=1)[0])


@pytest.fixture
def sure(own_settings: None) -> Any:
    """The service ``lab``, with log probabilities."""
    fake = Sure()
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.cache_dir = "cache"
        yield fake


def test_a_model_has_a_confidence(sure: Sure) -> None:
    """Only the rows of the pilot are asked first, equal ones once; a failed one is unknown."""
    frame = pd.DataFrame({"text": ["0.8 a", "0.2 b", None, "0.8 a", "0.6 bad", "0.9 c"]})
    task = task_of(frame)
    proxy = ModelConfidence(task.statements, task.rows, task.prompts_for("lab/m"))
    labels = np.array([1, 0, 1], np.int8)
    assert proxy.held_out(np.array([0, 1, 2]), labels) == pytest.approx([0.8, 0.2, 0.8])
    assert proxy.calls == len(sure.bodies) == 2
    assert proxy.estimate().prompts == 2
    assert proxy.predict() == pytest.approx([0.8, 0.2, 0.8, 0.5, 0.9])
    assert proxy.calls == 4
    assert len(proxy.errors) == 1
    assert "temperature" not in sure.bodies[0]  # it is of the oracle's model
    assert proxy.name == "the confidence of lab/m"


def test_a_model_without_log_probabilities_is_found_out_by_one_call(sure: Sure) -> None:
    """Its confidence is no proxy, its answers are."""
    sure.has_logprobs = False
    lm.config.proxy_model = "lab/m"
    task = task_of(pd.DataFrame({"text": [f"0.{n} a" for n in (1, 2, 3, 7, 8, 9)]}))
    both = proxy_choice.model_proxies(task, "lab/m")
    assert [type(proxy) for proxy in both] == [ModelConfidence, ModelAnswers]
    rows, labels = np.arange(6), np.array([0, 0, 0, 1, 1, 1], np.int8)
    with pytest.raises(errors.UnsupportedError):
        both[0].held_out(rows, labels)
    assert len(sure.bodies) == 1
    ((proxy, quality),) = compare(both, rows, labels)
    assert proxy is both[1]
    assert quality.auc == 1


class Scorer(EchoProvider):
    """A provider that scores given answers and generates none, as the local one does."""

    name = "scorer"
    capabilities = ("chat", "completion", "choices")
    asked: ClassVar[list[tuple[str, ModelParameters]]] = []

    async def stream_chat(
        self, messages: Any, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        """Yield the more probable of the choices."""
        question, _, statement = messages[-1].content.partition("\n\n")
        Scorer.asked.append((statement, parameters))
        assert "Answer true or false" in question
        if "bad" in statement:
            raise errors.ContentFilterError("Not that.", provider=self.name)
        if not parameters.choices:
            raise errors.UnsupportedError("It generates no text.", provider=self.name)
        p = _p(statement)
        chances = dict(zip(parameters.choices, (p, 1 - p), strict=True))
        top = tuple(TokenLogprob(each, math.log(chance)) for each, chance in chances.items())
        best = max(top, key=lambda each: each.logprob)
        logprobs = (best._replace(top=top),)
        yield StreamChunk(best.token, finish_reason="stop", usage=Usage(5, 1), logprobs=logprobs)


@pytest.fixture
def scorer(own_settings: None, monkeypatch: pytest.MonkeyPatch) -> type[Scorer]:
    """The provider ``scorer``."""
    monkeypatch.setitem(providers._BUILT_IN, "scorer", f"{__name__}:Scorer")
    monkeypatch.setattr(Scorer, "asked", [])
    lm.config.cache_dir = "cache"
    return Scorer


def test_a_model_that_scores_choices_generates_no_answer(scorer: type[Scorer]) -> None:
    """The probability of yes is that of the choice, whichever is more probable."""
    frame = pd.DataFrame({"text": ["0.8 a", "0.2 b", None, "0.8 a", "0.6 bad", "0.9 c"]})
    task = task_of(frame)
    for repeated in range(2):
        proxy, answers = proxy_choice.model_proxies(task, "scorer/echo")
        assert isinstance(proxy, ModelConfidence)
        assert isinstance(answers, ModelAnswers)
        assert proxy.estimate().output_tokens == (1 if repeated else 4) * 2
        labels = np.array([1, 0, 1], np.int8)
        assert proxy.held_out(np.array([0, 1, 2]), labels) == pytest.approx([0.8, 0.2, 0.8])
        assert proxy.predict() == pytest.approx([0.8, 0.2, 0.8, 0.5, 0.9])
        assert list(map(str, proxy.errors.values())) == ["Not that."]
        # The second time, all answers are stored except that of the row that failed.
        assert proxy.calls == (1 if repeated else 4)
    assert {parameters.choices for _, parameters in scorer.asked} == {("true", "false")}
    assert all(parameters.logprobs is None for _, parameters in scorer.asked)


def test_a_filter_may_have_a_proxy_that_scores_choices(scorer: type[Scorer]) -> None:
    """All rows are scored, and the oracle is asked about fewer."""
    draw = np.random.default_rng(0)
    label = draw.random(110) < 0.4
    p = np.clip(0.5 + 0.3 * np.where(label, 1, -1) + 0.1 * draw.normal(size=110), 0.01, 0.99)
    frame = pd.DataFrame({"text": [f"{each:.4f} {n}" for n, each in enumerate(p)], "label": label})
    kept = frame.llm.filter("{{ text }}", accuracy=0.9, oracle="label", proxy="scorer/echo")
    report = kept.llm.report
    assert report.proxy == "the confidence of scorer/echo"
    assert report.asked < 100
    assert (frame.index.isin(kept.index) == label).mean() >= 0.9


def test_a_route_with_another_model_generates_answers(scorer: type[Scorer], sure: Sure) -> None:
    """Because the other model cannot score choices."""
    lm.config.routes = {"either": ["scorer/echo", "lab/m"]}
    lm.config.aliases = {"one": "scorer/echo"}
    task = task_of(pd.DataFrame({"text": ["0.8 a", "0.2 b"]}))
    (only,) = proxy_choice.model_proxies(task, "either")
    assert isinstance(only, ModelAnswers)
    named = proxy_choice.model_proxies(task, "one")
    assert isinstance(named[0], ModelConfidence)
    assert named[0].predict() == pytest.approx([0.8, 0.2])


@pytest.mark.weights
def test_the_local_model_scores_statements(own_settings: None) -> None:
    """Those that are more probably true have higher scores, though all are above one half."""
    good = [
        "I love this phone, it works great",
        "Excellent quality, very happy",
        "Wonderful sound",
    ]
    poor = [
        "It broke after two days, awful",
        "Terrible quality, I want a refund",
        "Useless battery",
    ]
    task = task_of(pd.DataFrame({"text": [*good, *poor]}))
    proxy, _ = proxy_choice.model_proxies(task, "local/smollm2-135m")
    assert isinstance(proxy, ModelConfidence)
    scores = proxy.predict()
    assert ((scores > 0) & (scores < 1)).all()
    assert len(np.unique(scores)) == 6
    assert not proxy.errors


def test_a_model_answers_several_rows_in_a_prompt(service: Judge) -> None:
    """The packs depend on the contents, not on the order of the table."""
    texts = [f"yes {n}" if n % 2 else f"no {n}" for n in range(12)]
    for order in (texts, texts[::-1]):
        task = task_of(pd.DataFrame({"text": order}))
        proxy = ModelAnswers(
            task.statements, task.rows, task.prompts_for("lab/m"), rows_per_prompt=4
        )
        assert proxy.estimate().rows == 12
        assert proxy.predict().tolist() == [float("yes" in text) for text in order]
        assert proxy.name == "the answers of lab/m"
    assert len(service.packs) == 3
    assert proxy.calls == 0


def test_a_model_that_always_fails_raises_its_error(service: Judge) -> None:
    """It is no proxy."""
    service.poison = {"a"}
    task = task_of(pd.DataFrame({"text": ["a", "aa"]}))
    proxy = ModelAnswers(task.statements, task.rows, task.prompts_for("lab/m"))
    with pytest.raises(errors.ProviderError, match="Not that"):
        proxy.predict()


def test_the_candidates_need_no_preparation(service: Judge) -> None:
    """Stored vectors, keywords, and the model of the settings."""
    vectors, _ = separable(6)
    frame = pd.DataFrame(
        {"text": list("abcdef"), "v": list(vectors), "w": [[1.0]] * 5 + [[1.0, 2]]}
    )
    task = task_of(frame)
    assert [each.name for each in candidates(task)] == ["vectors in the column v", "keywords"]
    lm.config.proxy_model = "lab/small"
    names = [each.name for each in candidates(task)]
    assert names[2:] == ["the confidence of lab/small", "the answers of lab/small"]


def test_without_scikit_learn_there_is_a_hint(
    service: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How to install it; a model still is a candidate."""
    task = task_of(pd.DataFrame({"text": ["a", "b"]}))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setattr(proxy_choice, "find_spec", lambda name: None)
    monkeypatch.setattr("llm_magics._util.validation.find_spec", lambda name: None)
    with pytest.raises(errors.UsageError, match="scikit-learn, which is not installed") as raised:
        candidates(task)
    assert "[operators]" in str(raised.value.hint)
    with pytest.raises(errors.UsageError, match="scipy"):
        VectorClassifier(np.ones((2, 2), np.float32), "v", np.arange(2))
    lm.config.proxy_model = "lab/small"
    assert len(candidates(task)) == 2


def test_the_best_proxy_comes_first(service: Judge) -> None:
    """By the loss on held-out labels; one that is listed later only if it is clearly better."""
    vectors, labels = separable(200)
    frame = pd.DataFrame({"text": [f"{'yes' if y else 'no'} {n}" for n, y in enumerate(labels)]})
    frame["v"], frame["noise"] = list(vectors), np.random.default_rng(1).random(200)
    task, rows = task_of(frame), np.arange(200)
    noise, good = ColumnScores(frame, "noise", rows), VectorClassifier(frame["v"], "v", rows)
    found = compare([noise, good], rows, labels)
    assert [proxy for proxy, _ in found] == [good, noise]
    assert found[0][1].log_loss < found[1][1].log_loss
    assert "AUC" in str(found[0][1])
    model = ModelAnswers(task.statements, rows, task.prompts_for("lab/m"), rows_per_prompt=20)
    frame["known"] = labels.astype(float)
    perfect = ColumnScores(frame, "known", rows)
    assert [proxy for proxy, _ in compare([perfect, model, good], rows, labels)] == [
        perfect,
        model,
        good,
    ]


def test_a_reversed_score_predicts_as_well() -> None:
    """The calibration turns it around."""
    _, labels = separable(200)
    values = labels + np.random.default_rng(0).normal(size=200)
    right, wrong = measure("right", values, labels), measure("wrong", -values, labels)
    assert right.log_loss == pytest.approx(wrong.log_loss, rel=0.01)
    assert right.auc == pytest.approx(1 - wrong.auc)
    assert measure("one class", values, np.ones(200, np.int8)).log_loss == math.inf


def test_a_proxy_can_be_named(service: Judge) -> None:
    """A column of scores precedes a model; other types are refused."""
    task = task_of(pd.DataFrame({"text": ["a"], "m": [0.5]}))
    assert [each.name for each in named_proxies(task, "m")] == ["the column m"]
    assert named_proxies(task, "lab/m")[0].name == "the confidence of lab/m"
    with pytest.raises(errors.UsageError, match="Invalid value for proxy: 3"):
        named_proxies(task, 3)


def test_fits_are_fast() -> None:
    """With many labels, the regularization is chosen seldom."""
    vectors, labels = separable(300)
    proxy = VectorClassifier(vectors, "v", np.arange(300))
    chosen: list[int] = []

    def choose(features: Any, labels: Any) -> float:
        chosen.append(len(labels))
        return 0.01

    proxy._choose_c = choose  # type: ignore[method-assign]
    for count in (20, 50, 60, 90, 110, 300):
        proxy.fit(np.arange(count), labels[:count])
    assert chosen == [50, 110, 300]
    assert classifiers._FOLDS_OF_MANY < classifiers._FOLDS


class Fixed(Proxy):
    """A proxy with given scores."""

    learns = False

    def __init__(self, name: str, scores: Any, *, is_paid: bool = False) -> None:
        self.name, self.is_paid = name, is_paid
        self.scores = np.asarray(scores, np.float64)

    def predict(self) -> Any:
        return self.scores

    def held_out(self, rows: Any, labels: Any) -> Any:
        return self.scores[rows]


def test_the_choice_is_made_with_enough_labels() -> None:
    """It is repeated when there are more of them."""
    draw = np.random.default_rng(0)
    labels = draw.permutation(np.repeat([0, 1], 100)).astype(np.int8)
    good, bad = Fixed("good", 0.2 + 0.6 * labels), Fixed("bad", draw.random(200))
    proxy = ChosenProxy([bad, good], 200, lambda *_: False)
    assert (proxy.name, proxy.learns) == ("none", False)
    zeros = np.flatnonzero(labels == 0)[:10]
    proxy.fit(zeros, labels[zeros])
    assert proxy.chosen is bad  # the first one, because nothing is known
    proxy.fit(np.arange(60), labels[:60])
    assert proxy.chosen is good
    assert proxy.quality is proxy.qualities[0]


def test_a_paid_proxy_that_does_not_pay_is_not_chosen() -> None:
    """Without any other, the scores say nothing."""
    labels = np.repeat([0, 1], 20).astype(np.int8)
    paid = Fixed("paid", labels, is_paid=True)
    for pays in (False, True):
        proxy = ChosenProxy([paid], 40, lambda *_, pays=pays: pays)
        proxy.fit(np.arange(40), labels)
        assert proxy.name == ("paid" if pays else "none")
        assert (np.ptp(proxy.predict()) > 0) == pays


def test_the_quality_is_that_on_the_pilot() -> None:
    """Rows asked later are the least certain ones, and do not change the measured quality."""
    rng = np.random.default_rng(3)
    labels = (rng.random(200) < 0.5).astype(np.int8)
    scores = np.where(rng.random(200) < 0.85, labels, 1 - labels) * 0.8 + 0.1
    frame = pd.DataFrame({"text": [f"text {n}" for n in range(200)], "score": scores})
    rows = np.arange(200)
    proxy = ColumnScores(frame, "score", rows)
    is_right = (scores > 0.5) == (labels == 1)
    pilot, hard = rows[:50], rows[50:][~is_right[50:]]
    both = np.concatenate([pilot, hard])
    (_, first), *_ = compare([proxy], pilot, labels[pilot])
    (_, later), *_ = compare([proxy], both, labels[both], pilot)
    assert first.auc == later.auc
    assert later.rows == 50
