"""What is said of few measurements holds as often as it says."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_magics as lm
from llm_magics._util import statistics
from llm_magics._util.statistics import bootstrap, holm, mean_interval, paired_test
from llm_magics.benchmarking.analysis import _round_up
from llm_magics.benchmarking.measurements import Measurements
from llm_magics.errors import UsageError

pytest.importorskip("scipy")


def answers(**scores: list[float]) -> Measurements:
    """Measurements of models with these scores, of as many prompts."""
    rows = [
        {
            "asked": model,
            "prompt": f"p{n}",
            "error": None,
            "cached": False,
            "finish_reason": "stop",
            "retries": 0,
            "cost_usd": 0.0,
            "output_tokens": 3,
            "e2e_s": 1.0 + n,
            "score_exact": score,
        }
        for model, told in scores.items()
        for n, score in enumerate(told)
    ]
    return Measurements(pd.DataFrame(rows))


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_intervals_hold_what_they_promise(statistic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 samples of 40 the true figure lies in about 95 of 100 intervals."""
    monkeypatch.setattr(statistics, "_MAX_RESAMPLES", 500)
    draw = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        low, high = bootstrap(draw.normal(5, 2, 40), statistic)
        hits += low <= 5 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_of_one_value_nothing_is_said() -> None:
    """Nor of none, nor of what is missing."""
    for values in ([], [1.0], [1.0, math.nan]):
        assert all(math.isnan(edge) for edge in bootstrap(values, np.mean))
    assert bootstrap([2.0, 2.0, 2.0], np.median) == (2.0, 2.0)


def test_the_same_table_twice() -> None:
    """Resampling draws the same again."""
    values = np.random.default_rng(2).normal(size=30)
    assert bootstrap(values, np.median) == bootstrap(values, np.median)


@settings(deadline=None)  # the first time scipy is imported
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_exact(pairs: list[tuple[bool, bool]]) -> None:
    """The share of all ways in which the pairs that differ could fall that are as uneven."""
    one, other = np.array(pairs, float).T
    told = paired_test(one, other)
    better, worse = int((other > one).sum()), int((other < one).sum())
    n = better + worse
    ways = sum(math.comb(n, k) for k in range(n + 1) if abs(k - n / 2) >= abs(better - n / 2))
    assert told.name == "McNemar"
    assert told.p == pytest.approx(min(1.0, ways / 2**n))


@pytest.mark.parametrize("is_binary", [True, False])
def test_where_nothing_differs_little_is_found(is_binary: bool) -> None:
    """At most one time in twenty, or little more."""
    draw = np.random.default_rng(3)
    found = 0
    for _ in range(400):
        one, other = draw.random((2, 30))
        if is_binary:
            one, other = (one < 0.6).astype(float), (other < 0.6).astype(float)
        found += paired_test(one, other).p < 0.05
    assert found / 400 <= 0.08


@pytest.mark.parametrize("is_binary", [True, False])
def test_so_many_would_do(is_binary: bool) -> None:
    """With as many pairs as it says, a difference like the one seen is found in four of five runs."""
    draw = np.random.default_rng(4)

    def sample(n: int) -> tuple[Any, Any]:
        if is_binary:
            kind = draw.random(n)
            one = (kind < 0.5).astype(float)
            other = one.copy()
            other[kind < 0.06] = 0  # lost by the other
            other[kind > 0.78] = 1  # won by it
            return one, other
        one = draw.normal(0, 1, n)
        return one, one + draw.normal(0.25, 1, n)

    needed = paired_test(*sample(20_000)).needed
    assert needed is not None
    found = sum(paired_test(*sample(needed)).p < 0.05 for _ in range(400))
    assert 0.7 <= found / 400 <= 0.9


def test_holm_corrects_for_many() -> None:
    """As in a worked example; missing ones do not count; none is above 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    told = holm([0.5, math.nan, 0.9])
    assert told[0] == 1.0
    assert math.isnan(told[1])
    assert told[2] == 1.0


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order(ps: list[float]) -> None:
    """What was less likely stays so, and nothing gets likelier to be a difference."""
    told = holm(ps)
    assert all(p <= q + 1e-12 for p, q in zip(ps, told, strict=True))
    by_p = [q for _, q in sorted(zip(ps, told, strict=True))]
    assert by_p == sorted(by_p)


def test_a_difference_that_is_there() -> None:
    """Is said with its size and its interval, by the name of the better one."""
    draw = np.random.default_rng(5)
    weak = (draw.random(120) < 0.5).astype(float)
    strong = np.maximum(weak, draw.random(120) < 0.5).astype(float)
    row = answers(weak=weak.tolist(), strong=strong.tolist()).differences().iloc[0]
    assert row.test == "McNemar"
    assert row.p_corrected < 0.001
    assert row.low < row.difference < row.high
    assert row.verdict.startswith("strong is better by 0.")
    assert row.verdict.endswith("at n = 120")


def test_a_difference_that_cannot_be_told() -> None:
    """Is not said; how many prompts would do is."""
    one = [1.0] * 11 + [0.0] * 9
    other = [1.0] * 9 + [0.0] * 1 + [1.0] * 4 + [0.0] * 6
    row = answers(a=one, b=other).differences("exact").iloc[0]
    assert row.verdict.startswith("not resolved at n = 20; needs about ")
    assert row.n_needed > 20
    assert answers(a=one, b=one).differences().verdict.tolist() == [
        "no difference found at n = 20"
    ]


def test_times_are_compared_by_requests_and_less_is_better() -> None:
    """Each request is another draw; of tokens a second more is better."""
    rows = []
    draw = np.random.default_rng(6)
    for n in range(40):
        for model, slower in (("quick", 0.0), ("slow", 0.5)):
            took = 1 + slower + draw.normal(0, 0.1)
            rows.append({"asked": model, "prompt": "p", "repeat": n, "error": None, "cached": False,
                         "e2e_s": took, "tokens_per_s": 10 / took})  # fmt: skip
    runs = Measurements(pd.DataFrame(rows))
    for by in ("e2e_s", "tokens_per_s"):
        row = runs.differences(by).iloc[0]
        assert (row.n, row.test) == (40, "Wilcoxon")
        assert row.verdict.startswith("quick is better")
    assert runs.wins("e2e_s").loc["quick", "slow"] > 0.95


def test_repeats_tell_nothing_new_of_a_score() -> None:
    """Five answers to each of four prompts are four prompts."""
    one = answers(a=[1, 0, 1, 1], b=[0, 0, 1, 1])
    many = Measurements(pd.concat([one] * 5, ignore_index=True))
    assert many.differences().n.tolist() == [4]


def test_many_models_are_corrected_for() -> None:
    """Each pair once; or each against the baseline."""
    draw = np.random.default_rng(7)
    runs = answers(**{name: draw.random(25).round(2).tolist() for name in "abcd"})
    told = runs.differences()
    assert len(told) == 6
    assert (told.p_corrected >= told.p).all()
    against = runs.differences(baseline="c")
    assert against.other.tolist() == ["a", "b", "d"]
    with pytest.raises(UsageError, match="model 'e'"):
        runs.differences(baseline="e")
    with pytest.raises(UsageError, match="'exactt'") as caught:
        runs.differences("exactt")
    assert "score_exact" in str(caught.value.hint)
    for wrong in (0, 1, 95, "much"):
        with pytest.raises(UsageError, match="confidence"):
            runs.differences(confidence=wrong)  # type: ignore[arg-type]


def test_wins() -> None:
    """The share of prompts that the row's model wins; a tie is half of one."""
    wins = answers(a=[1, 1, 0, 0], b=[0, 1, 0, 0]).wins()
    assert wins.loc["a", "b"] == 0.625
    assert wins.loc["b", "a"] == 0.375
    assert math.isnan(wins.loc["a", "a"])


def test_prompts_that_one_did_not_answer() -> None:
    """Only those in common are compared; without any, that is said."""
    runs = answers(a=[1, 0, 1], b=[1, 1, 1])
    runs.loc[runs.asked == "b", "score_exact"] = math.nan
    for each in (runs, answers(a=[1, 0, math.nan], b=[math.nan, math.nan, 1])):
        row = each.differences().iloc[0]
        assert row.n == 0
        assert row.verdict == "not compared: no prompt has measurements of both"
    runs.loc[runs.asked == "b", "error"] = "X: y"
    assert runs.differences(baseline="b").verdict.tolist() == ["not compared: no answers from b"]


def test_numbers_of_prompts_are_rounded_up() -> None:
    """Two digits: no estimate is better than that."""
    assert [_round_up(n) for n in (7, 99, 128, 1301, 25_001)] == [7, 99, 130, 1400, 26_000]


def test_without_scipy_the_measurements_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was paid is returned; intervals and tests raise an error that says what to install."""
    monkeypatch.setitem(sys.modules, "scipy", None)
    runs = lm.compare(["a", "b"], ["echo/echo", "echo/lorem"], expected="a", score="exact")
    assert runs.score_exact.tolist() == [1, 0, 0, 0]
    assert len(lm.bench(models="echo/echo", repeat=2)) == 2
    for compute in (runs.summary, runs.differences, runs.report, runs.metrics):
        with pytest.raises(UsageError, match="needs scipy") as caught:
            compute()
        assert 'pip install "jupyter-llm-magics[bench]"' in str(caught.value.hint)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_of_proportions_are_those_of_the_literature(
    right: int, n: int, low: float, high: float
) -> None:
    """Wilson's, as in table I of Newcombe, "Two-sided confidence intervals", 1998."""
    found = mean_interval([1] * right + [0] * (n - right))
    assert found == pytest.approx((low, high), abs=5e-5)


def test_the_interval_of_a_median_is_that_of_all_resamples() -> None:
    """
    Its ends are order statistics, whose probabilities are binomial.

    Source: Efron, "Bootstrap methods: another look at the jackknife", 1979, section 3.
    """
    n = 19  # no resample's probability is near 2.5 or 97.5 %
    values = np.sort(np.random.default_rng(8).lognormal(size=n))

    def below(k: int) -> float:  # the probability that a median is at most the k-th value
        ways = (math.comb(n, i) * (k / n) ** i * (1 - k / n) ** (n - i) for i in range(10, n + 1))
        return sum(ways)

    low, high = (next(k for k in range(1, n + 1) if below(k) > tail) for tail in (0.025, 0.975))
    assert bootstrap(values, np.median) == (values[low - 1], values[high - 1])


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    """Of many values, to a tenth of it."""
    values = np.random.default_rng(9).normal(3, 2, 4000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    low, high = bootstrap(values, np.mean)
    assert low == pytest.approx(values.mean() - half, abs=half / 10)
    assert high == pytest.approx(values.mean() + half, abs=half / 10)
