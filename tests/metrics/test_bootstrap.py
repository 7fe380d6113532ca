"""Bootstrap weights and intervals against loops over resampled groups and known cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medvlm_probe.metrics.bootstrap import (
    bca_bootstrap,
    group_bootstrap_weights,
    strata_with,
    studentised_bootstrap,
)
from medvlm_probe.types import FloatArray


def weighted_mean(values: FloatArray):
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_weights_are_counts_of_whole_groups_and_keep_strata() -> None:
    rng = np.random.default_rng(0)
    groups = np.array([8, 8, 3, 5, 5, 5, 9])
    strata = np.array([1, 1, 0, 1, 1, 1, 0])
    weights = group_bootstrap_weights(groups, 2000, rng, strata=strata)
    assert weights.shape == (2000, 7)
    for g in np.unique(groups):
        assert (np.ptp(weights[:, groups == g], axis=1) == 0).all()
    np.testing.assert_array_equal(weights[:, 2] + weights[:, 6], 2)
    np.testing.assert_array_equal(weights[:, 0] + weights[:, 3], 2)
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.07)
    assert (group_bootstrap_weights(groups, 50, rng)[:, [0, 2, 3, 6]].sum(axis=1) == 4).all()


def test_strata_with_positives_leave_no_replicate_without() -> None:
    groups = np.repeat(np.arange(40), 2)
    positives = np.isin(np.arange(80), [3, 20, 21])
    strata = strata_with(positives, groups)
    assert set(groups[strata == 1]) == {1, 10}
    rng = np.random.default_rng(0)
    assert (group_bootstrap_weights(groups, 500, rng, strata=strata)[:, positives].sum(axis=1) > 0).all()


def test_bca_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=60)
    rng = np.random.default_rng(0)
    [estimate] = bca_bootstrap(weighted_mean(values), np.arange(60), rng=rng, n_resamples=20000)
    expected = stats.bootstrap((values,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(1))
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert estimate.low == pytest.approx(expected.confidence_interval.low, abs=0.03 * width)
    assert estimate.high == pytest.approx(expected.confidence_interval.high, abs=0.03 * width)
    assert estimate.value == pytest.approx(values.mean())


def test_studentised_interval_of_a_mean_is_that_of_a_loop_over_samples() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=60)
    rng = np.random.default_rng(1)
    pivots = []
    for _ in range(20000):
        sample = rng.choice(values, 60)
        pivots.append((sample.mean() - values.mean()) / (sample.std(ddof=1) / math.sqrt(60)))
    error = values.std(ddof=1) / math.sqrt(60)
    expected = values.mean() - np.quantile(pivots, [0.975, 0.025]) * error
    [estimate] = studentised_bootstrap(
        weighted_mean(values), np.arange(60), rng=np.random.default_rng(0), n_resamples=4000, n_folds=60
    )
    assert (estimate.low, estimate.high) == pytest.approx(expected, abs=0.04 * np.ptp(expected))


def test_several_statistics_at_once_are_those_of_single_calls() -> None:
    values = np.random.default_rng(3).random((50, 2))
    groups = np.repeat(np.arange(25), 2)

    def both(weights: FloatArray) -> FloatArray:
        return weights @ values / weights.sum(axis=1, keepdims=True)

    for interval in (studentised_bootstrap, bca_bootstrap):
        pair = interval(both, groups, rng=np.random.default_rng(0), n_resamples=200)
        for m in (0, 1):
            [single] = interval(weighted_mean(values[:, m]), groups, rng=np.random.default_rng(0), n_resamples=200)
            assert single.value == pytest.approx(pair[m].value)
            assert (single.low, single.high) == pytest.approx((pair[m].low, pair[m].high))
        assert pair[0].n_groups == 25
        assert pair[0].reliable == (interval is studentised_bootstrap)  # BCa needs 40 groups


def test_an_edge_value_gets_the_whole_range_or_calls_itself_unreliable() -> None:
    statistic = weighted_mean(np.ones(30))
    [studentised] = studentised_bootstrap(
        statistic, np.arange(30), rng=np.random.default_rng(0), n_resamples=100, transform="logit"
    )
    [bca] = bca_bootstrap(statistic, np.arange(30), rng=np.random.default_rng(0), n_resamples=100)
    assert (studentised.low, studentised.high) == (0, 1)
    assert not studentised.reliable
    assert not bca.reliable


def test_three_positives_without_strata_are_unreliable_and_wide_rather_than_narrow() -> None:
    positives = np.arange(60) < 3
    values = np.where(positives, np.arange(60) % 3, 0)

    def mean_of_positives(weights: FloatArray) -> FloatArray:
        found = weights @ positives
        return np.where(found > 0, weights @ values / np.where(found > 0, found, 1), np.nan)

    [studentised] = studentised_bootstrap(mean_of_positives, np.arange(60), rng=np.random.default_rng(0))
    [bca] = bca_bootstrap(mean_of_positives, np.arange(60), rng=np.random.default_rng(0))
    assert (studentised.low, studentised.high) == (-math.inf, math.inf)
    assert 0 <= bca.low < 1 < bca.high <= 2
    assert not studentised.reliable
    assert not bca.reliable


def test_a_statistic_that_is_never_defined_gives_an_undefined_interval() -> None:
    def undefined(weights: FloatArray) -> FloatArray:
        return np.full(len(weights), np.nan)

    for interval in (studentised_bootstrap, bca_bootstrap):
        [estimate] = interval(undefined, np.arange(30), rng=np.random.default_rng(0), n_resamples=50)
        assert math.isnan(estimate.value)
        assert math.isnan(estimate.low)
        assert not estimate.reliable
