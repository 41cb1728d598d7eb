"""The confidence in labels and fields, one request for each row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.dataframes.classify import NEUTRAL_TEXTS
from llm_magics.dataframes.confidence import find_spans
from tests.support.serving import Asked, Says, as_json, chat_event, serving

LABELS = ["praise", "complaint"]


def entry(token: str, probability: float = 1.0, **others: float) -> dict[str, Any]:
    """A token as OpenAI's chat sends it."""
    top = {token: probability, **others}
    return {
        "token": token,
        "bytes": list(token.encode()),
        "logprob": math.log(probability),
        "top_logprobs": [{"token": t, "bytes": list(t.encode()), "logprob": math.log(p)} for t, p in top.items()],
    }  # fmt: skip


class Sure:
    """
    A service with log probabilities; it is as sure of a label as the text says: "0.8 of praise".

    ``is_plain`` leaves the log probabilities out, ``is_strange`` sends those of other tokens.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.is_plain = self.is_strange = False

    def __call__(self, asked: Asked) -> Says:
        if asked.path == "/models":
            return as_json({"data": [{"id": "m"}]})
        body = asked.json()
        self.bodies.append(body)
        fields = body["response_format"]["json_schema"]["schema"]["properties"]
        text = body["messages"][-1]["content"].rpartition("\n\n")[2]
        probability, _, label = text.partition(" of ")
        if "name" in fields:
            tokens = self.person()
        else:
            (field,) = fields
            rest = 1 - float(probability) or 0.01
            tokens = [entry(f'{{"{field}": "'), entry(label[:3], float(probability), xyz=rest / 2)]
            other = next(each for each in fields[field]["enum"] if each != label)
            tokens[1]["top_logprobs"].append({"token": other[:2], "bytes": None, "logprob": math.log(rest / 2)})  # fmt: skip
            tokens += [entry(label[3:]), entry('"}')]
        return self.says(tokens, with_logprobs=bool(body.get("logprobs")) and not self.is_plain)

    def person(self) -> list[dict[str, Any]]:
        return [
            entry('Here: {"name"'), entry(": "), entry('"Zoë', 0.5), entry(' B."', 0.5),
            entry(', "age": '), entry("3", 0.9), entry("4", 0.5), entry(', "is_nurse"'),
            entry(":"), entry(" true", 0.6, **{" false": 0.3, " null": 0.1}), entry("}"),
        ]  # fmt: skip

    def says(self, tokens: list[dict[str, Any]], *, with_logprobs: bool) -> Says:
        sent = [entry("something else")] * len(tokens) if self.is_strange else tokens
        events = []
        for token, shown in zip(tokens, sent, strict=True):
            logprobs = {"logprobs": {"content": [shown]}} if with_logprobs else {}
            choice = {"index": 0, "delta": {"content": token["token"]}, **logprobs}
            events.append(chat_event(choices=[choice]))
        usage = {"usage": {"prompt_tokens": 9, "completion_tokens": len(tokens)}}
        return Says([*events, chat_event(finish_reason="stop"), chat_event(choices=[], **usage), b"data: [DONE]\n\n"])  # fmt: skip


@pytest.fixture
def service(own_settings: None) -> Iterator[Sure]:
    """The service ``lab``, whose model ``m`` is asked where none is named."""
    fake = Sure()
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.model = "lab/m"
        yield fake


def test_each_label_has_its_confidence(service: Sure) -> None:
    """The probability of the label among the labels; a row without a text has none."""
    frame = pd.DataFrame({"text": ["0.8 of praise", "0.6 of complaint", None]}, index=[7, 5, 5])
    done = frame.llm.classify("text", LABELS, confidence=True)
    assert done is frame
    assert frame["label"].tolist()[:2] == ["praise", "complaint"]
    assert str(frame["label_confidence"].dtype) == "Float64"
    # Half of the rest is of the other label, and half of no label.
    assert frame["label_confidence"].tolist()[:2] == pytest.approx([0.8 / 0.9, 0.6 / 0.8])
    assert frame["label_confidence"].isna().tolist() == [False, False, True]
    assert [body["top_logprobs"] for body in service.bodies] == [20, 20]


def test_the_confidence_of_another_column_has_its_name(service: Sure) -> None:
    """``into`` names both columns; existing ones of the user are not overwritten."""
    frame = pd.DataFrame({"text": ["0.8 of praise"]})
    frame.llm.classify("text", LABELS, into="kind", confidence=True)
    assert list(frame.columns) == ["text", "kind", "kind_confidence"]
    frame.llm.classify("text", LABELS, into="kind", confidence=True)  # again
    taken = pd.DataFrame({"text": ["0.8 of praise"], "label_confidence": [1]})
    with pytest.raises(errors.UsageError, match="label_confidence"):
        taken.llm.classify("text", LABELS, confidence=True)


def test_an_answer_with_log_probabilities_has_a_key_of_its_own(service: Sure) -> None:
    """A label that is stored without its confidence is asked for again, once."""
    texts = ["0.8 of praise"]
    lm.classify(texts, LABELS)
    first = lm.classify(texts, LABELS, confidence=True)
    assert len(service.bodies) == 2
    again = lm.classify(texts, LABELS, confidence=True)
    assert len(service.bodies) == 2
    pd.testing.assert_frame_equal(first, again)  # type: ignore[arg-type]


def test_an_estimate_counts_one_request_for_each_row(service: Sure) -> None:
    """The confidence is in the answer with the label."""
    estimate = lm.classify(["0.8 of praise", "0.6 of praise"], LABELS, confidence=True, dry_run=True)  # fmt: skip
    assert getattr(estimate, "prompts", None) == 2
    assert service.bodies == []


def test_each_field_has_its_confidence(service: Sure) -> None:
    """Free values have that of their tokens, values of a fixed set that among the set."""
    people = lm.extract(["a"], "name, age int, is_nurse bool", confidence=True)
    assert isinstance(people, pd.DataFrame)
    assert people[["name", "age", "is_nurse"]].iloc[0].tolist() == ["Zoë B.", 34, True]
    row = people.iloc[0]
    assert row["name_confidence"] == pytest.approx(0.25)
    assert row["age_confidence"] == pytest.approx(0.45)
    assert row["is_nurse_confidence"] == pytest.approx(0.6 / 0.9)


def test_a_service_without_log_probabilities_is_an_error(service: Sure) -> None:
    """No confidence is made up, and no column is written."""
    service.is_plain = True
    frame = pd.DataFrame({"text": ["0.8 of praise"]})
    with pytest.raises(errors.UnsupportedError, match="log prob"):
        frame.llm.classify("text", LABELS, confidence=True)
    lm.config.providers = {
        "other": {"type": "anthropic", "base_url": "http://127.0.0.1:9", "api_key": "k"}
    }
    with pytest.raises(errors.UnsupportedError, match="log prob"):
        lm.classify(["x"], LABELS, confidence=True, model="other/m")


def test_tokens_of_another_text_give_no_confidence(service: Sure) -> None:
    """The label is used, and a warning says how many rows have no confidence."""
    service.is_strange = True
    with pytest.warns(UserWarning, match="missing in 1 rows"):
        found = lm.classify(["0.8 of praise"], LABELS, confidence=True)
    assert isinstance(found, pd.DataFrame)
    assert found["label"].tolist() == ["praise"]
    assert found["label_confidence"].isna().all()


def test_confidence_is_an_argument_of_classify_and_extract_alone(service: Sure) -> None:
    """A prompt without a schema has no values, and the value is checked."""
    with pytest.raises(errors.UsageError, match="confidence"):
        lm.prompt(["a"], "{{ text }}", confidence=True)
    with pytest.raises(errors.UsageError, match="confidence"):
        lm.classify(["a"], LABELS, confidence=1)  # type: ignore[arg-type]
    assert service.bodies == []


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ('{"a": 1, "b": "x"}', {"a": "1", "b": '"x"'}),
        ('Draft {"a": 2}. Final: { "a" : [1, {"a": 1}] , "b":{} } ok', {"a": '[1, {"a": 1}]', "b": "{}"}),
        ('{"\\u0061": "q\\"}"}', {"a": '"q\\"}"'}),
        ('{"value": {"a": 1}}', {"a": "1"}),
        ("{}", {}),
    ],
)  # fmt: skip
def test_the_fields_of_an_object_are_found_in_a_text(text: str, spans: dict[str, str]) -> None:
    """Whatever surrounds the object, and however it is written."""
    value = {name: json.loads(each) for name, each in spans.items()}
    found = find_spans(text, value)
    assert {name: text[start:end] for name, (start, end) in found.items()} == spans
    assert find_spans(text, {"other": 1}) == {}
    assert find_spans(text, [1]) == {}


@pytest.mark.weights
def test_local_scores_labels(own_settings: None) -> None:
    """Calibrated labels with confidences, none of them cut, counted in the estimate, cached."""
    frame = pd.DataFrame({"text": ["I love it, it is great!", "It broke, what a piece of junk.", None]})  # fmt: skip
    labels = ["positive", "negative"]
    options: dict[str, Any] = {"model": "local/smollm2-135m", "confidence": True}
    estimate = frame.llm.classify("text", labels, dry_run=True, fresh=True, **options)
    assert estimate.prompts == 2 + len(NEUTRAL_TEXTS)
    assert estimate.output_tokens == 2 * estimate.prompts
    frame.llm.classify("text", labels, **options)
    assert frame["label"].tolist()[:2] == labels
    assert frame["label_confidence"].tolist()[:2] > [0.5, 0.5]
    assert str(frame.llm.report) == "2 ok · 1 missing"
    again = lm.classify(frame["text"], labels, **options)
    assert isinstance(again, pd.DataFrame)
    pd.testing.assert_frame_equal(again, frame[["label", "label_confidence"]])


@pytest.mark.weights
def test_local_scores_labels_with_common_beginnings(own_settings: None) -> None:
    """Labels of any form are scored; without confidence, the result is a column."""
    labels = ["good", "good value", "Größe", "质量", 'a "b"']
    found = lm.classify(["A bargain!"], labels, model="local/smollm2-135m")
    assert isinstance(found, pd.Series)
    assert found[0] in labels
    assert list(found.cat.categories) == labels
    empty = lm.classify([None, " "], labels, model="local/smollm2-135m", confidence=True)
    assert isinstance(empty, pd.DataFrame)
    assert empty.isna().all(axis=None)


def test_a_field_with_the_name_of_a_confidence_is_an_error(service: Sure) -> None:
    """Two columns cannot have one name."""
    with pytest.raises(errors.UsageError, match="a_confidence"):
        lm.extract(["x"], "a, a_confidence float", confidence=True)
    frame = pd.DataFrame({"text": ["x"]})
    with pytest.raises(errors.UsageError, match="a_confidence"):
        frame.llm.extract("text", "a, a_confidence float", confidence=True)
