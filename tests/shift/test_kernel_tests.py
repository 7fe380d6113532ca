"""Squared MMD and energy distance against loops over all pairs of patients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from medvlm_probe.metrics.permutation import permutation_p_value
from medvlm_probe.shift import mmd
from medvlm_probe.shift.energy import energy_test
from medvlm_probe.shift.group_kernel import group_kernel
from medvlm_probe.shift.mmd import (
    feature_mmd_test,
    fourier_map,
    group_features,
    linear_mmd_test,
    median_bandwidth,
    mmd_test,
    one_image_per_group,
)
from medvlm_probe.shift.two_samples import TwoSamples, site_permutations, two_samples
from medvlm_probe.types import BoolArray, FloatArray, IntArray

KernelOf = Callable[[FloatArray, FloatArray], FloatArray]


@pytest.fixture
def samples(rng: np.random.Generator) -> TwoSamples:
    """Patients of one to five images, more at the reference, shifted at the site."""
    groups = np.repeat(np.arange(14), rng.integers(1, 6, 14)), np.repeat(np.arange(9) + 50, rng.integers(1, 6, 9))
    x, y = (rng.normal(size=(200, 5))[g] + 0.5 * rng.normal(size=(len(g), 5)) for g in groups)
    return two_samples(x + 1, y + 1.4, *groups, space="raw")


def vectors_of(samples: TwoSamples) -> FloatArray:
    return samples.points.exact(slice(None))


def by_hand(x: FloatArray, groups: IntArray, of_site: BoolArray, kernel: KernelOf) -> float:
    """Mean over pairs of different patients of the mean kernel between their images."""
    values = kernel(x, x)
    sums = {"reference": [], "site": [], "across": []}
    for g in range(len(of_site)):
        for h in range(len(of_site)):
            if g != h:
                side = "across" if of_site[g] != of_site[h] else "site" if of_site[g] else "reference"
                sums[side].append(values[np.ix_(groups == g, groups == h)].mean())
    return float(np.mean(sums["reference"]) + np.mean(sums["site"]) - 2 * np.mean(sums["across"]))


def gaussian(bandwidth: float) -> KernelOf:
    return lambda a, b: np.exp(-(cdist(a, b) ** 2) / (2 * bandwidth**2))


def negative_distance(a: FloatArray, b: FloatArray) -> FloatArray:
    return -cdist(a, b)


@pytest.mark.parametrize("name", ["mmd", "energy"])
def test_statistic_null_and_jackknife_against_loops(
    name: str, samples: TwoSamples, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    bandwidth = 1.7
    monkeypatch.setattr(mmd, "median_bandwidth", lambda *_: bandwidth)
    kernel = gaussian(bandwidth) if name == "mmd" else negative_distance
    x, groups, of_site = vectors_of(samples), samples.groups, samples.of_site
    permutations = site_permutations(of_site, 25, rng)
    found = (mmd_test if name == "mmd" else energy_test)(samples, permutations, rng)
    assert found.statistic == pytest.approx(by_hand(x, groups, of_site, kernel), abs=2e-6)
    (masks,) = permutations.blocks()
    null = np.array([by_hand(x, groups, mask, kernel) for mask in masks])
    assert found.null == pytest.approx(tuple(np.quantile(null, [0.05, 0.5, 0.95])), abs=2e-6)
    assert found.p_value == permutation_p_value(found.statistic, null, relative_tolerance=1e-6)
    assert found.effect.value == found.statistic
    assert found.effect.low < found.statistic < found.effect.high
    without = []
    for g in range(len(of_site)):
        kept = groups != g
        codes = np.unique(groups[kept], return_inverse=True)[1]
        without.append(by_hand(x[kept], codes, np.delete(of_site, g), kernel))
    assert jackknife_of(name, samples, bandwidth) == pytest.approx(np.array(without), abs=5e-6)


def jackknife_of(name: str, samples: TwoSamples, bandwidth: float) -> FloatArray:
    """The leave-one-out values that the estimate is made of, caught on their way."""
    from medvlm_probe.shift import group_kernel as module

    caught: list[FloatArray] = []
    original = module.class_jackknife
    try:
        module.class_jackknife = lambda value, without, *rest, **options: (  # type: ignore[assignment]
            caught.append(without) or original(value, without, *rest, **options)
        )
        test = mmd_test if name == "mmd" else energy_test
        test(samples, site_permutations(samples.of_site, 1, np.random.default_rng(0)), np.random.default_rng(0))
    finally:
        module.class_jackknife = original
    return caught[0]


def test_kernel_between_groups_does_not_depend_on_blocks(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(200), rng.integers(1, 12, 200))
    x = rng.normal(size=(len(groups), 3))
    samples = two_samples(x, x[:20] + 1, groups, groups[:20] + 1000, space="raw")
    kernel = group_kernel(samples, lambda values: np.negative(values, out=values))
    y = vectors_of(samples)
    values = -cdist(y, y)
    pairs = [(0, 1), (3, 150), (199, 0), (90, 91)]
    centre = kernel.within[0] - values[np.ix_(samples.groups == 0, samples.groups == 0)].mean() / samples.points.unit
    for g, h in pairs:
        expected = values[np.ix_(samples.groups == g, samples.groups == h)].mean() / samples.points.unit
        assert kernel.between[g, h] - centre == pytest.approx(expected, abs=1e-5)
        assert kernel.between[g, h] == kernel.between[h, g]


def test_bandwidth_is_the_median_distance_between_patients(rng: np.random.Generator) -> None:
    x = rng.normal(size=(80, 4))
    samples = two_samples(x[:50], x[50:], space="raw")
    assert median_bandwidth(samples.points, samples.groups, rng) == pytest.approx(np.median(pdist(x)), rel=1e-5)
    groups = np.repeat(np.arange(20), 4)
    copies = two_samples(x[:48], x[48:], groups[:48], groups[48:], space="raw")
    chosen = one_image_per_group(copies.groups, rng)
    assert copies.groups[chosen].tolist() == list(range(20))


def test_bandwidth_of_copies_is_above_0(rng: np.random.Generator) -> None:
    x = np.ones((40, 3))
    x[[0, 1, 2, 20, 21]] = rng.normal(size=(5, 3))
    for vectors in (x, np.ones((40, 3))):
        samples = two_samples(vectors[:20], vectors[20:], space="raw")
        assert median_bandwidth(samples.points, samples.groups, rng) > 0
        found = mmd_test(samples, site_permutations(samples.of_site, 99, rng), rng)
        assert found.p_value > 0.05


def test_random_features_approximate_the_kernel(samples: TwoSamples, rng: np.random.Generator) -> None:
    x = vectors_of(samples)
    features = fourier_map(5, 4096, 1.7, rng)(x)
    np.testing.assert_allclose((features**2).sum(axis=1), 1, rtol=1e-5)
    assert np.abs(features @ features.T - gaussian(1.7)(x, x)).max() < 0.05
    to_features = fourier_map(5, 16, 1.0, rng)
    means = group_features(to_features, samples.points, samples.groups)
    whole = to_features(samples.points.centred)
    for g in range(len(samples.of_site)):
        np.testing.assert_allclose(means[g], whole[samples.groups == g].mean(axis=0), atol=1e-6)


def test_feature_mmd_is_near_the_exact_one(rng: np.random.Generator) -> None:
    x = rng.normal(size=(900, 24))
    samples = two_samples(x[:500], x[500:] + 0.15, np.arange(500) // 2, np.arange(500, 900), space="raw")
    permutations = site_permutations(samples.of_site, 99, rng)
    exact = mmd_test(samples, permutations, np.random.default_rng(5))
    near = feature_mmd_test(samples, permutations, np.random.default_rng(5), n_frequencies=2048)
    assert near.statistic == pytest.approx(exact.statistic, abs=2e-3)
    assert near.effect.low == pytest.approx(exact.effect.low, abs=2e-3)
    assert near.null == pytest.approx(exact.null, abs=1e-3)
    assert near.p_value == exact.p_value == 0.01


def test_above_the_limit_features_and_drawn_groups_stand_in(
    samples: TwoSamples, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medvlm_probe.shift.mmd.EXACT_GROUPS", 20)
    monkeypatch.setattr("medvlm_probe.shift.energy.EXACT_GROUPS", 20)
    permutations = site_permutations(samples.of_site, 99, rng)
    assert "random features" in mmd_test(samples, permutations, rng).settings
    drawn = energy_test(samples, permutations, rng)
    assert drawn.settings.startswith("raw space, 20 groups")
    assert drawn.effect.n_groups == 20


def test_linear_time_form_is_unbiased(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(1000, 3)), rng.normal(size=(800, 3)) + 1.5
    samples = two_samples(x, y, space="raw")
    permutations = site_permutations(samples.of_site, 199, rng)
    linear = linear_mmd_test(samples, permutations, np.random.default_rng(1))
    exact = mmd_test(samples, permutations, np.random.default_rng(1))
    assert linear.effect.low < exact.statistic < linear.effect.high
    assert linear.p_value == 1 / 200
    assert linear.effect.n == 1600


def test_linear_time_form_uses_each_patient_once(rng: np.random.Generator) -> None:
    """With all patients far apart, every kernel between two of them is 0; a patient met twice would show as 1."""
    x = 100.0 * np.eye(30)
    samples = two_samples(x[:14], x[14:], space="raw")
    found = linear_mmd_test(samples, site_permutations(samples.of_site, 9, rng), rng)
    assert found.statistic == pytest.approx(0, abs=1e-12)
