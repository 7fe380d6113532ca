"""The two-way bootstrap against loops that draw, and against the variance of a balanced table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.bootstrap_calibration import calibration_replicates
from medvlm_probe.metrics.calibration import calibration_in_the_large
from medvlm_probe.metrics.calibration_forms import evenly_spaced
from medvlm_probe.metrics.calibration_kernel import kde_bandwidth, kernel_weights
from medvlm_probe.metrics.two_way_bootstrap import (
    TwoWaySample,
    TwoWayWeights,
    mean_of,
    not_worse,
    spread_of,
    two_way_difference,
    two_way_estimate,
    two_way_sample,
    two_way_weights,
)

D, G = 20, 60


def table(rng: np.random.Generator, d: int = D, g: int = G, *, of_draws: float = 1.0) -> np.ndarray:
    """Return a balanced table of draws and groups."""
    return of_draws * rng.normal(size=(d, 1)) + 2 * rng.normal(size=(1, g)) + 0.5 * rng.normal(size=(d, g)) + 1


def sampled(values: np.ndarray, weights: TwoWayWeights) -> TwoWaySample:
    return two_way_sample(values.mean(axis=1), values @ weights.groups.T / values.shape[1], weights)


def test_replicates_are_means_of_what_is_drawn_both_ways() -> None:
    rng = np.random.default_rng(0)
    values, weights = table(rng, 4, 5), two_way_weights(4, 5, 30, rng)
    assert (weights.draws.sum(axis=1) == 4).all()
    assert (weights.groups.sum(axis=1) == 5).all()
    found = sampled(values, weights)
    for b in range(30):
        rows, columns = (np.repeat(np.arange(len(w)), w.astype(int)) for w in (weights.draws[b], weights.groups[b]))
        assert found.both[b] == pytest.approx(values[np.ix_(rows, columns)].mean())
        assert found.groups_alone[b] == pytest.approx(values[:, columns].mean())
    once = sampled(values[:1], weights)
    assert np.array_equal(once.both, once.groups_alone)
    assert once.deviation == 0


def test_the_error_is_that_of_a_balanced_table() -> None:
    rng = np.random.default_rng(1)
    values = table(rng)
    spread = spread_of(sampled(values, two_way_weights(D, G, 20_000, rng)))
    of_draws, of_groups = values.mean(axis=1).var(ddof=1) / D, values.mean(axis=0).var(ddof=1) / G
    expected = math.sqrt(of_draws + of_groups)
    assert expected < spread.error < 1.05 * expected  # a little too wide: what both share counts twice
    both = of_draws**2 / (D - 1) + of_groups**2 / (G - 1)
    assert spread.freedom == pytest.approx((of_draws + of_groups) ** 2 / both, rel=0.05)
    fixed = spread_of(sampled(values[:1], two_way_weights(D, G, 20_000, rng)))
    assert fixed.freedom == pytest.approx(G - 1)
    assert fixed.error == pytest.approx(values[0].std(ddof=1) / math.sqrt(G), rel=0.03)


def test_a_difference_is_paired_and_says_what_it_could_find() -> None:
    rng = np.random.default_rng(2)
    weights, values = two_way_weights(D, G, 500, rng), table(rng)
    other = values + 0.3 + 0.1 * rng.normal(size=values.shape)
    sample = sampled(other, weights).less(sampled(values, weights))
    found = two_way_difference(sample, 120, family=10)
    spread = spread_of(sample)
    assert found.estimate.value == pytest.approx((other - values).mean())
    assert found.estimate.low < 0.3 < found.estimate.high < found.estimate.low + 0.1
    assert found.p_value == pytest.approx(2 * stats.t.sf(found.estimate.value / spread.error, spread.freedom))
    assert two_way_difference(sample, 120).p_value == found.p_value
    # With that true difference, the first step of Holm's procedure rejects in four of five cases.
    step = stats.t.ppf(1 - 0.05 / 20, spread.freedom)
    assert stats.t.sf(step - found.smallest_detectable / spread.error, spread.freedom) == pytest.approx(0.8)
    same = two_way_difference(sampled(values, weights).less(sampled(values, weights)), 120)
    assert (same.estimate.low, same.estimate.high, same.p_value, same.smallest_detectable) == (0, 0, 1, 0)
    with pytest.raises(InputError, match="same draws"):
        sample.less(sampled(values, two_way_weights(D, G, 9, rng)))


def test_what_is_undefined_or_too_small_says_so() -> None:
    rng = np.random.default_rng(3)
    weights, values = two_way_weights(D, G, 200, rng), table(rng)
    whole = sampled(values, weights)
    assert two_way_estimate(whole, 10).reliable
    holes = np.where(np.arange(200) < 4, np.nan, whole.both)
    some = TwoWaySample(whole.values, holes, whole.groups_alone, G)
    assert math.isfinite(two_way_estimate(some, 10).low)
    assert not two_way_estimate(some, 10).reliable
    nothing = TwoWaySample(whole.values * np.nan, holes * np.nan, holes * np.nan, G)
    assert math.isnan(two_way_difference(nothing, 10).p_value)
    assert not_worse(nothing, 0.01) == "not enough evidence"
    assert not two_way_estimate(sampled(values[:4], two_way_weights(4, G, 200, rng)), 10).reliable
    assert two_way_estimate(whole, 10, bounds=(0.9, 1.1)).high <= 1.1
    with pytest.raises(InputError, match="do not fit 20 draws"):
        two_way_sample(np.zeros(3), np.zeros((3, 200)), weights)


def test_not_worse_needs_evidence() -> None:
    rng = np.random.default_rng(4)
    weights = two_way_weights(D, G, 500, rng)
    noise = 0.05 * rng.normal(size=(D, G))
    assert not_worse(sampled(noise, weights), 0.05) == "pass"
    assert not_worse(sampled(noise - 0.2, weights), 0.05) == "fail"
    assert not_worse(sampled(20 * noise, weights), 0.05) == "not enough evidence"


def test_the_mean_of_labels_is_the_sample_of_their_mean() -> None:
    rng = np.random.default_rng(5)
    weights, one, other = two_way_weights(D, G, 50, rng), table(rng), table(rng)
    found, expected = mean_of([sampled(one, weights), sampled(other, weights)]), sampled((one + other) / 2, weights)
    for name in ("values", "both", "groups_alone"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))


def test_kernel_error_and_calibration_in_the_large_of_drawn_images() -> None:
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(40), 3)
    p = rng.random(120)
    y = (rng.random(120) < p**1.5).astype(float)
    weights = two_way_weights(2, 40, 6, rng).groups
    found = calibration_replicates(p, y, groups, weights)
    at = evenly_spaced(p, 96)
    kernel = kernel_weights(p, at, kde_bandwidth(p))
    for b, drawn in enumerate(weights):
        of_images = drawn[groups]
        rows = np.repeat(np.arange(120), of_images.astype(int))
        assert found["calibration_in_the_large"][b] == pytest.approx(calibration_in_the_large(p[rows], y[rows]))
        gaps = [abs(np.average(y, weights=k * of_images) - p[j]) for k, j in zip(kernel, at, strict=True)]
        assert found["ece_kde"][b] == pytest.approx(np.average(gaps, weights=of_images[at]))
