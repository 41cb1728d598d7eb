"""The arithmetic of labels: branches, bounds, normalisation and calibration."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.runtime.label_scores import (
    calibrate,
    label_probabilities,
    normalise,
    value_probability,
)
from llm_magics.types import TokenLogprob

LOGS = st.dictionaries(
    st.text(min_size=1, max_size=3), st.floats(-9999, 0), min_size=2, max_size=8
)
WEIGHTS = st.lists(st.floats(0.001, 1), min_size=2, max_size=12)


def token(chosen: str, **probabilities: float) -> TokenLogprob:
    """A token with the probabilities of all alternatives, the most likely first."""
    top = [TokenLogprob(name, math.log(each)) for name, each in probabilities.items()]
    top.sort(key=lambda each: -each.logprob)
    own = next(each for each in top if each.token == chosen)
    return own._replace(top=tuple(top))


@given(LOGS)
def test_probabilities_sum_to_one_and_keep_the_order(logs: dict[str, float]) -> None:
    """Also for logarithms whose exponentials are all 0."""
    found = normalise(logs)
    assert math.isclose(sum(found.values()), 1)
    assert max(found, key=found.__getitem__) in {k for k, v in logs.items() if v == max(logs.values())} or len(set(found.values())) < len(found)  # fmt: skip


@given(LOGS, st.floats(-50, 50))
def test_a_common_factor_does_not_matter(logs: dict[str, float], shift: float) -> None:
    """The scores of labels need not be probabilities."""
    moved = normalise({name: log + shift for name, log in logs.items()})
    for name, each in normalise(logs).items():
        assert math.isclose(each, moved[name], abs_tol=1e-9)


@given(LOGS)
def test_a_text_without_content_has_equal_probabilities(logs: dict[str, float]) -> None:
    """After calibration by itself, no label is preferred."""
    found = calibrate(logs, [logs])
    assert all(math.isclose(each, 1 / len(logs)) for each in found.values())
    assert calibrate(logs, []) == normalise(logs)


def test_calibration_divides_by_the_geometric_mean() -> None:
    """Two neutral texts: the biases are averaged as logarithms."""
    neutral = [{"a": math.log(0.8), "b": math.log(0.2)}, {"a": math.log(0.2), "b": math.log(0.8)}]
    found = calibrate({"a": math.log(0.6), "b": math.log(0.4)}, neutral)
    assert math.isclose(found["a"], 0.6)
    found = calibrate({"a": math.log(0.6), "b": math.log(0.4)}, neutral[:1])
    assert math.isclose(found["a"], (0.6 / 0.8) / (0.6 / 0.8 + 0.4 / 0.2))


LABELS = {"praise": b'praise"', "complaint": b'complaint"', "price": b'price"'}


def test_labels_differ_at_their_first_different_token() -> None:
    """Two labels share a token; the third leaves at the first one."""
    tokens = [
        token('"', **{'"': 0.9, "x": 0.1}),
        token("pr", pr=0.6, compl=0.3, other=0.1),
        token("aise", aise=0.75, ice=0.25),
        token('"', **{'"': 1.0}),
    ]
    found = label_probabilities(tokens, 1, LABELS)
    assert found is not None
    whole = 0.6 * 0.75 + 0.6 * 0.25 + 0.3
    expected = {"praise": 0.45 / whole, "price": 0.15 / whole, "complaint": 0.3 / whole}
    assert found == pytest.approx(expected)


def test_a_token_may_begin_before_the_label() -> None:
    """The quotation mark and the beginning of the label are one token."""
    tokens = [token(' "pr', **{' "pr': 0.5, ' "compl': 0.5}), token('aise"', **{'aise"': 1.0})]
    found = label_probabilities(tokens, 2, {"praise": b'praise"', "complaint": b'complaint"'})
    assert found == pytest.approx({"praise": 0.5, "complaint": 0.5})


def test_a_label_that_begins_another_ends_with_its_mark() -> None:
    """The labels good and good value differ in the token after good."""
    tokens = [token("good", good=1.0), token('"', **{'"': 0.7, " value": 0.3})]
    found = label_probabilities(tokens, 0, {"good": b'good"', "good value": b'good value"'})
    assert found == pytest.approx({"good": 0.7, "good value": 0.3})


def test_labels_that_begin_another_may_be_different_tokens() -> None:
    """``10`` as one token is not an answer ``1``, and counts for its own label."""
    tokens = [token("1", **{"1": 0.6, "10": 0.4}), token('"', **{'"': 0.99, "0": 0.01})]
    found = label_probabilities(tokens, 0, {"1": b'1"', "10": b'10"', "2": b'2"'})
    assert found is not None
    assert found["1"] == pytest.approx(0.6 * 0.99)
    assert found["10"] == pytest.approx(0.4 + 0.6 * 0.01)
    assert found["2"] == pytest.approx(0)


def test_other_tokens_of_the_same_label_count_for_it() -> None:
    """A label can be divided into tokens in several ways."""
    tokens = [token("praise", praise=0.5, pra=0.2, c=0.3)]
    found = label_probabilities(tokens, 0, {"praise": b"praise", "complaint": b"complaint"})
    assert found == pytest.approx({"praise": 0.7, "complaint": 0.3})


def test_an_unseen_label_has_its_bound() -> None:
    """At most the least likely alternative, and at most what remains to 1."""
    labels = {"a": b"a", "b": b"b", "c": b"c"}
    found = label_probabilities([token("a", a=0.5, x=0.4)], 0, labels)
    assert found == pytest.approx({"a": 0.5 / 0.6, "b": 0.05 / 0.6, "c": 0.05 / 0.6})
    found = label_probabilities([token("a", a=0.5, x=0.01)], 0, labels)
    assert found == pytest.approx({"a": 0.5 / 0.52, "b": 0.01 / 0.52, "c": 0.01 / 0.52})
    alone = [TokenLogprob("a", math.log(0.5))]  # a service may return no alternatives
    assert label_probabilities(alone, 0, labels) == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25})


@given(WEIGHTS, st.integers(1, 12))
def test_the_confidence_is_never_overestimated(weights: list[float], listed: int) -> None:
    """With fewer alternatives, the label of the answer is at most as probable as with all."""
    names = [chr(ord("a") + number) for number in range(len(weights))]
    total = sum(weights)
    probabilities = {name: w / total for name, w in zip(names, weights, strict=True)}
    labels = {name: name.encode() for name in names}
    whole = token("a", **probabilities)
    exact = label_probabilities([whole], 0, labels)
    bounded = label_probabilities([whole._replace(top=whole.top[:listed])], 0, labels)
    assert exact == pytest.approx(probabilities)
    assert bounded is not None
    assert math.isclose(sum(bounded.values()), 1)
    assert bounded["a"] <= probabilities["a"] + 1e-9


def test_an_answer_with_none_of_the_labels_has_no_probabilities() -> None:
    """It is not given to the label that is least different."""
    tokens = [token("maybe", maybe=0.9, praise=0.1)]
    assert label_probabilities(tokens, 0, LABELS) is None
    assert label_probabilities([], 0, LABELS) is None


def test_labels_of_other_scripts_may_share_a_part_of_a_character() -> None:
    """Tokens are compared as bytes."""
    first, second = "好".encode(), "坏".encode()
    shared = TokenLogprob("\ufffd", math.log(0.9), first[:1])
    rest = TokenLogprob("\ufffd", math.log(0.75), first[1:])
    other = TokenLogprob("\ufffd", math.log(0.25), second[1:])
    tokens = [shared._replace(top=(shared,)), rest._replace(top=(rest, other))]
    found = label_probabilities(tokens, 0, {"good": first, "bad": second})
    assert found == pytest.approx({"good": 0.75, "bad": 0.25})


def test_the_probability_of_a_value_is_that_of_its_tokens() -> None:
    """Tokens outside the value do not count; one that is partly inside does."""
    tokens = [TokenLogprob("x: ", -9.0), TokenLogprob("12", -0.5), TokenLogprob("3,", -0.25), TokenLogprob(" y", -9.0)]  # fmt: skip
    assert value_probability(tokens, 3, 6) == pytest.approx(math.exp(-0.75))
    assert value_probability(tokens, 99, 100) == 0.0
