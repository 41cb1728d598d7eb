"""The test of the gate: boundaries, error rates, sample sizes and flaky items."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics.evaluations.gate.flaky import deciding_repeats, flaky_items
from llm_magics.evaluations.gate.sequential import (
    boundaries,
    crossing_probability,
    drift_for_power,
    spend,
)
from llm_magics.evaluations.gate.statistics import (
    MAX_LOOKS,
    Plan,
    count_looks,
    holm_rejects,
    look,
    mean_variance,
    required_items,
    wave_ends,
)
from tests.benchmarks.evaluations import gate_errors
from tests.support.examples import examples

NORMAL = NormalDist()
FIFTHS = [0.2, 0.4, 0.6, 0.8, 1.0]


def compare(baseline, new, looks=1):
    """Return the looks at scores, all waves of equal size."""
    n = len(baseline)
    return look(baseline, new, wave_ends(n, looks), n)


def test_boundaries_equal_published_values_of_obrien_and_fleming():
    """The spending function of O'Brien and Fleming's type gives the published boundaries."""
    spent = [2 * (1 - NORMAL.cdf(NORMAL.inv_cdf(1 - 0.0125) / math.sqrt(each))) for each in FIFTHS]
    published = [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]
    assert boundaries(spent, FIFTHS) == pytest.approx(published, abs=2e-4)


def test_boundaries_equal_published_values_of_pocock():
    """The spending function of Pocock's type gives the published boundaries."""
    spent = [0.025 * math.log(1 + (math.e - 1) * each) for each in FIFTHS]
    published = [2.4380, 2.4268, 2.4101, 2.3966, 2.3859]
    assert boundaries(spent, FIFTHS) == pytest.approx(published, abs=2e-4)


def test_boundaries_use_the_error_rate_and_reach_the_power():
    """The boundaries are crossed with the error rate, and with the power under its drift."""
    spent = [spend(0.05, each) for each in FIFTHS]
    bounds = boundaries(spent, FIFTHS)
    assert crossing_probability(bounds, FIFTHS) == pytest.approx(0.05, abs=1e-5)
    drift = drift_for_power(0.05, 0.8, 5)
    assert crossing_probability(bounds, FIFTHS, drift) == pytest.approx(0.8, abs=1e-4)


def test_one_look_needs_the_sum_of_two_quantiles():
    """With one look the drift is that of a test with a fixed sample."""
    assert drift_for_power(0.05, 0.8, 1) == pytest.approx(1.644854 + 0.841621, abs=1e-5)


@pytest.mark.parametrize(("drop", "items"), [(0.05, 736), (0.1, 180)])
def test_sample_size_of_right_and_wrong_answers(drop, items):
    """With one answer on each side, 30 % of them different, 5 points need about 740 items."""
    assert required_items(drop, 0.3 - drop**2) == items


@given(
    variance=st.floats(0, 0.25),
    stored=st.integers(1, 20),
    repeats=st.integers(1, 10),
    drop=st.floats(0.02, 0.9),
)
@settings(max_examples=examples(50), deadline=None)
def test_required_items_and_detectable_drop_agree(variance, stored, repeats, drop):
    """With the required items the drop can be seen, and with three quarters of them it cannot."""
    plan = Plan(variance=variance, stored=stored, repeats=repeats)
    items = plan.required_items(drop)
    assert plan.detectable_drop(items) <= drop + 1e-9
    if items > 8:
        assert plan.detectable_drop(items * 3 // 4) > drop


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_equal_answers_show_no_drop(value):
    """A deterministic model that gives the same answers is never worse."""
    found = compare(np.full((40, 5), value), np.full((40, 1), value))
    assert not found.rejects(0.99)
    assert found.p_value() == 1.0


def test_deterministic_drop_is_found():
    """Five of 100 answers of a deterministic model become wrong: a drop."""
    new = np.ones((100, 1))
    new[::20] = 0
    assert compare(np.ones((100, 5)), new, looks=5).rejects(0.05)


def test_all_items_drop_equally():
    """A drop by the same amount in all items has no variance, and is found."""
    assert compare(np.full((20, 4), 0.8), np.full((20, 2), 0.6)).rejects(0.05)


def test_better_answers_are_not_a_drop():
    """An improvement does not fail."""
    found = compare(np.zeros((50, 5)), np.ones((50, 1)))
    assert not found.rejects(0.9)


def test_improved_and_worse_items_cancel():
    """Equally many improved and worse items are no drop of the mean."""
    baseline = np.repeat([[0.0], [1.0]], 30, axis=0) * np.ones((1, 5))
    assert not compare(baseline, 1 - baseline[:, :1]).rejects(0.2)


def test_items_without_a_score_are_left_out():
    """A missing answer changes nothing, whatever the other side of the item is."""
    rng = np.random.default_rng(0)
    baseline, new = rng.integers(0, 2, (40, 5)) * 1.0, rng.integers(0, 2, (40, 2)) * 1.0
    extra = np.vstack([new, np.full((3, 2), np.nan)])
    with_extra = np.vstack([baseline, np.ones((3, 5))])
    first, second = compare(baseline, new), compare(with_extra, extra)
    assert first.statistics[0] == pytest.approx(second.statistics[0])
    assert abs(first.p_value() - second.p_value()) < 0.05


def test_ragged_repeats_are_compared():
    """Items may have different numbers of answers."""
    baseline, new = np.ones((60, 5)), np.ones((60, 3))
    baseline[::2, 3:], new[::3, 1:] = np.nan, np.nan
    assert compare(baseline, new).p_value() == 1.0
    new[:30, 0] = 0
    assert compare(baseline, new).rejects(0.05)


@given(
    scores=st.lists(
        st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=4, max_size=4),
        min_size=2,
        max_size=30,
    )
)
@settings(max_examples=examples(30), deadline=None)
def test_same_scores_give_the_same_p_value(scores):
    """The permutations depend on nothing but the scores, and p is between 0 and 1."""
    values = np.array(scores)
    first = look(values[:, :3], values[:, 3:], [len(values)], len(values), 199).p_value()
    again = look(values[:, :3], values[:, 3:], [len(values)], len(values), 199).p_value()
    assert 0 < first == again <= 1


def test_p_value_is_the_smallest_level():
    """The test rejects at its p-value and not below it."""
    rng = np.random.default_rng(3)
    found = compare((rng.random((60, 5)) < 0.8) * 1.0, (rng.random((60, 1)) < 0.7) * 1.0, looks=3)
    p = found.p_value()
    assert found.rejects(p)
    assert not found.rejects(p - 2e-4)


def test_first_waves_do_not_depend_on_later_ones():
    """A later look repeats the statistics of the earlier ones, so that decisions stay."""
    rng = np.random.default_rng(4)
    baseline, new = (rng.random((100, 5)) < 0.8) * 1.0, (rng.random((100, 1)) < 0.8) * 1.0
    all_looks = compare(baseline, new, looks=5)
    first = look(baseline[:40], new[:40], [20, 40], 100)
    assert (first.statistics == all_looks.statistics[:, :2]).all()
    assert first.times == all_looks.times[:2]


def test_holm_divides_the_error_rate():
    """A check that is just below 5 % fails alone, but not beside four good ones."""
    bad, good = np.ones((400, 2)), compare(np.ones((40, 5)), np.ones((40, 1)))
    bad[:3, 1] = 0
    found = compare(bad[:, :1].repeat(2, axis=1), bad[:, 1:])
    assert 0.01 < found.p_value() <= 0.05
    assert holm_rejects([found], 0.05) == [True]
    assert holm_rejects([found, *[good] * 4], 0.05) == [False] * 5


def test_holm_uses_what_is_left():
    """After one check is rejected, the others share the whole error rate."""
    bad = np.ones((400, 2))
    bad[:3, 1] = 0
    weak = compare(bad[:, :1].repeat(2, axis=1), bad[:, 1:])
    strong = compare(np.ones((100, 5)), np.zeros((100, 1)))
    assert holm_rejects([weak, strong], 0.05) == [True, True]


@pytest.mark.parametrize(("items", "looks"), [(1, 1), (39, 1), (40, 2), (100, 5), (9999, 5)])
def test_at_most_five_looks(items, looks):
    """Each look has at least 20 items, and there are at most five."""
    assert count_looks(items) == looks <= MAX_LOOKS


def test_variance_is_within_items():
    """Items that are always right or always wrong have no variance; coins have theirs."""
    assert mean_variance([[1, 1, 1], [0, 0, 0]]) == 0
    assert mean_variance([[1, 0], [0, 1]]) == pytest.approx(0.5)
    assert math.isnan(mean_variance([[1], [0]]))


@pytest.mark.parametrize(
    ("repeats", "deciding"), [(1, 0), (3, 0), (4, 2), (5, 2), (8, 3), (20, 3)]
)
def test_some_repeats_decide_about_flaky_items(repeats, deciding):
    """The deciding repeats are not compared; with few repeats there are none."""
    assert deciding_repeats(repeats) == deciding


def test_flaky_items_are_at_most_one_in_twenty():
    """Of 100 items that vary, five are flaky, by their keys; of 19 none is."""
    scores = np.tile([0.0, 1.0, 1.0], (100, 1))
    keys = [f"{each:03}" for each in range(100)]
    assert flaky_items(scores, keys).nonzero()[0].tolist() == [0, 1, 2, 3, 4]
    assert not flaky_items(scores[:19], keys[:19]).any()


def test_items_with_equal_answers_are_not_flaky():
    """Items whose scores hardly vary are not flaky, and a missing score is no variation."""
    scores = np.tile([0.5, 0.55, np.nan], (100, 1))
    assert not flaky_items(scores, [str(each) for each in range(100)]).any()


@pytest.mark.parametrize(
    ("name", "gates", "low", "high"),
    [
        ("null 50 mixed 0.8", 50, 0, 7),
        ("null 50 mixed churn", 30, 0, 6),
        ("drop 0.1 even mixed 0.8", 15, 7, 15),
        ("drop 0.1 few fixed 0.8", 20, 12, 20),
    ],
)
def test_slice_of_the_simulation(name, gates, low, high):
    """False alarms and detections are within the bounds of a slice of the measurement."""
    cell = gate_errors.cells()[name]
    alarms = sum(gate_errors.alarm(name, cell, each) for each in range(gates))
    assert low <= alarms <= high
