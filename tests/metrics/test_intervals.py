"""The group jackknife, score intervals and folds against loops, closed forms and edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.intervals import (
    auroc_variance,
    binomial_variance,
    effective_size,
    group_folds,
    jackknife_interval,
    jackknife_variance,
    leave_one_out,
    paired_mean,
    score_bounds,
    score_interval,
)
from medvlm_probe.metrics.proportions import wilson_interval


def means_without(values: np.ndarray) -> np.ndarray:
    return (values.sum() - values) / (len(values) - 1)


def test_jackknife_of_a_mean_is_the_t_interval() -> None:
    values = stats.norm.ppf((np.arange(30) + 0.5) / 30)  # light tails: all G - 1 degrees of freedom
    estimate = jackknife_interval(values.mean(), means_without(values), n=30)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (estimate.n, estimate.n_groups, estimate.reliable) == (30, 30, True)


@pytest.mark.parametrize("n_groups", [2, 3])
def test_two_and_three_groups_carry_one_and_two_degrees_of_freedom(n_groups: int) -> None:
    values = np.random.default_rng(0).standard_normal(n_groups)
    assert jackknife_variance(means_without(values))[1] == pytest.approx(n_groups - 1)


def test_degrees_of_freedom_follow_the_groups_that_carry_the_variance() -> None:
    rng = np.random.default_rng(0)
    scarce, plenty = rng.standard_normal((500, 3)), rng.standard_normal((500, 300)) / 1000
    df = jackknife_variance(np.concatenate([scarce - scarce.mean(1, keepdims=True), plenty], axis=1))[1]
    assert 1.5 < np.median(df) < 2.5


def test_log_and_logit_intervals_are_those_of_the_transformed_values() -> None:
    values = np.random.default_rng(0).uniform(0.2, 0.9, 25)
    without = means_without(values)
    for transform, forward, backward in (
        ("log", np.log, np.exp),
        ("logit", lambda x: np.log(x / (1 - x)), lambda x: 1 / (1 + np.exp(-x))),
    ):
        plain = jackknife_interval(float(forward(values.mean())), forward(without), n=25)
        estimate = jackknife_interval(values.mean(), without, n=25, transform=transform)  # type: ignore[arg-type]
        assert (estimate.low, estimate.high) == pytest.approx((backward(plain.low), backward(plain.high)))
        assert estimate.value == values.mean()


def test_jackknife_is_undefined_without_groups_or_values() -> None:
    for value, without in ((1.0, np.array([1.0])), (math.nan, np.ones(20)), (1.0, np.append(np.ones(20), np.nan))):
        estimate = jackknife_interval(value, without, n=3)
        assert math.isnan(estimate.low)
        assert not estimate.reliable


def test_jackknife_calls_few_groups_edges_and_no_variance_unreliable() -> None:
    values = np.random.default_rng(0).uniform(0.2, 0.9, 12)
    without = means_without(values)
    assert jackknife_interval(values.mean(), without, n=12).reliable
    assert not jackknife_interval(values.mean(), without, n=12, min_groups=13).reliable
    assert not jackknife_interval(values.mean(), without, n=12, n_scarce=4).reliable
    assert not jackknife_interval(1.0, np.append(without, 1.0), n=12, transform="logit").reliable
    assert not jackknife_interval(0.5, np.full(12, 0.5), n=12).reliable
    assert not jackknife_interval(values.mean(), without, n=12, degrees_of_freedom=2).reliable


def test_a_wider_t_quantile_of_given_degrees_of_freedom_is_used() -> None:
    without = means_without(np.random.default_rng(0).standard_normal(20))
    wide = jackknife_interval(0.0, without, n=20, degrees_of_freedom=4)
    narrow = jackknife_interval(0.0, without, n=20, degrees_of_freedom=400)
    assert wide.high / narrow.high == pytest.approx(stats.t.ppf(0.975, 4) / stats.t.ppf(0.975, 400))


def test_effective_size_by_hand() -> None:
    groups = np.array([5, 5, 5, 7, 7, 9])
    assert effective_size(groups, 0.0) == 6
    assert effective_size(groups, 1.0) == pytest.approx(36 / 14)
    assert effective_size(np.repeat(np.arange(8), 3), 1.0) == pytest.approx(8)
    assert effective_size(np.arange(6)) == 6
    assert effective_size(np.array([], dtype=int)) == 0


@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 200), (40, 15)])
def test_auroc_variance_is_that_of_simulated_normal_scores(m: int, n: int) -> None:
    rng = np.random.default_rng(0)
    positives, negatives = rng.standard_normal((20000, m)) + 1.2, rng.standard_normal((20000, n))
    ranks = stats.rankdata(np.concatenate([positives, negatives], axis=1), axis=1)
    aurocs = (ranks[:, :m].sum(axis=1) - m * (m + 1) / 2) / (m * n)
    x = stats.norm.cdf(1.2 / np.sqrt(2))
    assert auroc_variance(m, n)(np.array(x)) == pytest.approx(aurocs.var(), rel=0.05)


def test_auroc_variance_is_nil_at_the_edges_and_symmetric() -> None:
    variance = auroc_variance(5, 5)
    x = np.linspace(0, 1, 11)
    np.testing.assert_allclose(variance(x), variance(1 - x), atol=1e-12)
    assert variance(np.array([0.0, 1.0])) == pytest.approx([0, 0], abs=1e-12)


def test_score_interval_solves_its_equation() -> None:
    rng = np.random.default_rng(0)
    without = 0.8 + 0.01 * rng.standard_normal(40)
    working = binomial_variance(30)
    estimate = score_interval(0.8, without, working, n=50)
    variance, df = jackknife_variance(without)
    scale = (df * variance / working(np.array(0.8)) + 4) / (df + 4)
    for x in (estimate.low, estimate.high):
        assert (0.8 - x) ** 2 == pytest.approx(stats.t.ppf(0.975, df + 4) ** 2 * scale * working(np.array(x)))
    assert estimate.low < 0.8 < estimate.high


def test_score_interval_of_many_independent_images_is_wilsons() -> None:
    successes = (np.arange(4000) % 10 < 8).astype(float)
    estimate = score_interval(successes.mean(), means_without(successes), binomial_variance(4000), n=4000)
    low, high = wilson_interval(successes.sum(), np.array(4000))
    assert (estimate.low, estimate.high) == pytest.approx((float(low), float(high)), abs=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("working", [binomial_variance(3), auroc_variance(3, 200)])
def test_score_interval_has_width_at_the_edges(value: float, working: object) -> None:
    estimate = score_interval(value, np.full(9, value), working, n=200)  # type: ignore[arg-type]
    assert estimate.high - estimate.low > 0.3
    assert value in (estimate.low, estimate.high)


def test_score_interval_uses_the_working_variance_where_a_group_cannot_be_left_out() -> None:
    working = auroc_variance(1, 50)
    estimate = score_interval(0.9, np.append(np.full(50, 0.9), np.nan), working, n=51, n_scarce=1)
    assert estimate.high - estimate.low > 0.5
    assert not estimate.reliable


def test_score_interval_rescales_a_declared_range() -> None:
    rng = np.random.default_rng(0)
    without = 0.4 + 0.02 * rng.standard_normal(30)
    plain = score_interval(0.4, without, binomial_variance(30), n=30)
    scaled = score_interval(1 + 13 * 0.4, 1 + 13 * without, binomial_variance(30), n=30, bounds=(1, 14))
    assert (scaled.low, scaled.high) == pytest.approx((1 + 13 * plain.low, 1 + 13 * plain.high))
    with pytest.raises(InputError, match="range"):
        score_interval(1.2, without, binomial_variance(30), n=30)


def test_score_interval_of_an_undefined_value_is_undefined() -> None:
    estimate = score_interval(math.nan, np.full(5, math.nan), binomial_variance(3), n=5)
    assert math.isnan(estimate.low)
    assert not estimate.reliable


@given(
    st.floats(0, 1),
    st.lists(st.floats(0, 1), min_size=2, max_size=12),
    st.integers(1, 50),
    st.sampled_from([0.9, 0.95]),
)
def test_score_bounds_hold_the_value_within_the_range(
    value: float, others: list[float], size: int, level: float
) -> None:
    for working in (binomial_variance(size), auroc_variance(size, 20)):
        low, high = score_bounds(np.array([value]), np.array([others]), working, level=level)
        assert 0 <= low[0] <= value <= high[0] <= 1


def test_leave_one_out_by_weights_is_recomputation() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.standard_normal((30, 2)), rng.integers(10, 17, 30)

    def weighted_means(weights: np.ndarray) -> np.ndarray:
        return weights @ values / weights.sum(axis=1, keepdims=True)

    expected = [values[groups != g].mean(axis=0) for g in np.unique(groups)]
    for block_size in (None, 1, 3):
        np.testing.assert_allclose(leave_one_out(weighted_means, groups, block_size=block_size), expected)


def test_folds_hold_whole_groups_and_spread_them_evenly_in_each_stratum() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.permutation(50), 2)
    strata = (groups < 11).astype(int)
    folds = group_folds(groups, 10, rng, strata=strata)
    for g in range(50):
        assert len(set(folds[groups == g])) == 1
    for s in (0, 1):
        sizes = np.bincount(folds[strata == s], minlength=10)
        assert sizes.max() - sizes.min() <= 2
    assert (np.bincount(folds) == 10).all()
    assert set(group_folds(np.array([4, 4, 9]), 10, rng)) == {0, 1}


def test_paired_mean_leaves_out_groups_and_undefined_values() -> None:
    values = np.array([0.1, 0.3, -0.2, np.nan, 0.4, 0.0])
    groups = np.array([7, 7, 3, 3, 9, 9])
    without = [np.nanmean(values[groups != g]) for g in (3, 7, 9)]
    found = paired_mean(values, groups)
    wanted = jackknife_interval(float(np.nanmean(values)), np.array(without), n=5)
    assert (found.value, found.low, found.high) == pytest.approx((wanted.value, wanted.low, wanted.high))
    assert (found.n, found.n_groups) == (5, 3)
