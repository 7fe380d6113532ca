"""Intervals of proportions and F1 against scipy's, brute force, and properties."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.proportions import (
    clopper_pearson_interval,
    design_effect,
    f1,
    proportion,
    proportion_bounds,
    wilson_interval,
)
from medvlm_probe.types import FloatArray

Interval = Callable[..., tuple[FloatArray, FloatArray]]


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (1, 5), (5, 5), (40, 50), (199, 200)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_plain_intervals_agree_with_scipy(successes: int, n: int, level: float) -> None:
    result = stats.binomtest(successes, n)
    for method, interval in (("wilson", wilson_interval), ("exact", clopper_pearson_interval)):
        expected = result.proportion_ci(level, method=method)
        low, high = interval(np.array([successes]), np.array([n]), level=level)
        assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_plain_intervals_of_no_images_are_undefined() -> None:
    for interval in (wilson_interval, clopper_pearson_interval):
        assert np.isnan(interval(np.array(0), np.array(0))).all()


@pytest.mark.parametrize(("n", "interval"), [(12, clopper_pearson_interval), (60, wilson_interval)])
def test_images_that_are_their_own_groups_get_the_plain_interval(n: int, interval: Interval) -> None:
    estimate = proportion(np.arange(n) < 9, np.arange(n))
    low, high = interval(np.array(9), np.array(n))
    assert (estimate.low, estimate.high) == pytest.approx((float(low), float(high)))


def test_design_effect_of_many_groups_is_that_of_the_ratio_estimator() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 5, 3000)
    found = np.where(rng.random(3000) < 0.7, counts, 0)  # whole groups succeed or fail
    effect, df = design_effect(found, counts)
    expected = (counts**2).sum() / counts.sum()
    assert effect == pytest.approx(expected, rel=0.05)
    assert 1000 < df < 3008


def test_design_effect_by_a_loop() -> None:
    found, counts = np.array([2.0, 0, 1, 3, 1]), np.array([2.0, 1, 1, 3, 3])
    n, p = counts.sum(), found.sum() / counts.sum()
    deviations = [
        (found.sum() - x) / (n - m) * (n - m) / n - p * (n - m) / n for x, m in zip(found, counts, strict=True)
    ]
    squares = np.array([(d / (1 - m / n)) ** 2 for d, m in zip(deviations, counts, strict=True)])
    estimated = 4 / 5 * squares.sum() / (p * (1 - p) / (n - 1))
    effective = squares.sum() ** 2 / (squares**2).sum()
    df = min(4, 2 * 5 * (effective - 1) / (5 - effective))
    assumed = 1 + 0.5 * ((counts**2).sum() / n - 1)
    effect, total_df = design_effect(found, counts)
    assert effect == pytest.approx(max(1, (df * estimated + 8 * assumed) / (df + 8)))
    assert total_df == pytest.approx(df + 8)


def test_all_or_none_have_intervals_with_width() -> None:
    groups = np.array([0, 0, 1, 2, 2, 2])
    every, none = proportion(np.ones(6, bool), groups), proportion(np.zeros(6, bool), groups)
    assert every.value == every.high == 1
    assert none.value == none.low == 0
    assert every.low == pytest.approx(1 - none.high)
    independent = proportion(np.ones(6, bool), np.arange(6))
    assert 0.3 < every.low < independent.low < 0.6


def test_no_images_give_an_undefined_estimate() -> None:
    nothing = proportion(np.zeros(0, bool), np.zeros(0, int))
    assert math.isnan(nothing.value)
    assert math.isnan(nothing.low)
    assert (nothing.n, nothing.n_groups, nothing.reliable) == (0, 0, False)
    assert nothing.to_json()["value"] is None


def test_one_group_says_little() -> None:
    alone = proportion(np.arange(6) < 3, np.zeros(6, int))
    assert alone.high - alone.low > 0.7


def test_copies_of_images_within_groups_hardly_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    successes, groups = rng.random(200) < 0.8, np.arange(200)
    once = proportion(successes, groups)
    copied = proportion(np.repeat(successes, 5), np.repeat(groups, 5))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), abs=0.01)
    naive = proportion(np.repeat(successes, 5), np.arange(1000))
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_narrower_level_gives_narrower_bounds() -> None:
    rng = np.random.default_rng(0)
    successes, groups = rng.random(80) < 0.8, rng.integers(0, 40, 80)
    at_95, at_90 = proportion(successes, groups), proportion(successes, groups, level=0.9)
    assert at_95.low < at_90.low < at_90.high < at_95.high


def test_wrong_input_is_refused() -> None:
    with pytest.raises(InputError, match="booleans"):
        proportion(np.array([1.0, 0.0, np.nan]), np.arange(3))
    with pytest.raises(InputError, match="one group each"):
        proportion(np.array([True, False]), np.arange(3))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=60))
def test_bounds_hold_the_value_and_ignore_order_and_names(rows: list[tuple[bool, int]]) -> None:
    successes, groups = np.array([s for s, _ in rows]), np.array([g for _, g in rows])
    estimate = proportion(successes, groups)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.high - estimate.low > 0
    assert estimate.n_groups == len(set(groups))
    mirrored = proportion(~successes, groups)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((estimate.low, estimate.high))
    shuffled = proportion(successes[::-1], 100 - 7 * groups[::-1])
    assert (shuffled.low, shuffled.high) == pytest.approx((estimate.low, estimate.high))


def test_vectorised_bounds_are_those_of_single_calls() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([1, 2, 3, 2, 6])
    found = rng.binomial(counts, 0.6, size=(20, 5))
    low, high = proportion_bounds(found, counts)
    for row in range(20):
        successes = np.concatenate([np.arange(m) < x for x, m in zip(found[row], counts, strict=True)])
        single = proportion(successes, np.repeat(np.arange(5), counts))
        assert (single.low, single.high) == pytest.approx((low[row], high[row]))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_f1_agrees_with_scikit_learn(rows: list[tuple[bool, bool]]) -> None:
    labels, predictions = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    estimate = f1(labels, predictions, np.arange(len(rows)))
    if not (labels | predictions).any():
        assert math.isnan(estimate.value)
        assert not estimate.reliable
    else:
        assert estimate.value == pytest.approx(f1_score(labels, predictions, zero_division=0))
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert estimate.low < estimate.high
    assert estimate.n == len(rows)
