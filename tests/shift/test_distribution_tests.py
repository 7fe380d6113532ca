"""Fréchet distance, directions and facts against scipy, scikit-learn and loops."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import linalg, stats
from sklearn.covariance import ledoit_wolf_shrinkage

from medvlm_probe.errors import InputError
from medvlm_probe.shift.direction_tests import direction_shifts
from medvlm_probe.shift.distribution_distance import SortedNumbers, uniform_reach
from medvlm_probe.shift.fact_tests import fact_tests
from medvlm_probe.shift.frechet import covariance_distances, frechet_test, group_moments, principal_coordinates, thinned
from medvlm_probe.shift.two_samples import site_permutations, two_samples


def test_covariance_distance_is_scipys(rng: np.random.Generator) -> None:
    a, b = (np.stack([np.cov(rng.normal(size=(6, 30))) for _ in range(3)]) for _ in range(2))
    expected = [np.trace(x + y - 2 * linalg.sqrtm(x @ y).real) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(covariance_distances(a, b), expected, rtol=1e-6)


def test_frechet_distance_by_hand(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(60, 5)), 1.5 * rng.normal(size=(40, 5)) + 1
    samples = two_samples(x, y, space="raw")
    moments = group_moments(samples, 64)
    assert moments.n_directions == 5
    assert moments.share == pytest.approx(1)
    found = frechet_test(samples, site_permutations(samples.of_site, 99, rng), np.random.default_rng(2))
    site, reference = thinned(samples.of_site[None], np.random.default_rng(2).permutation(100))
    assert site.sum() == reference.sum() == 40
    vectors = samples.points.exact(slice(None))
    shrinkage = moments.shrinkage(40)
    parts = []
    for mask in (site[0], reference[0]):
        z = vectors[mask]
        covariance = np.cov(z.T)
        covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 5 * np.eye(5)
        parts.append((z.mean(axis=0), covariance))
    (m, a), (n, b) = parts
    expected = ((m - n) ** 2).sum() + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert found.statistic == pytest.approx(expected, rel=1e-4)
    assert found.effect.value == pytest.approx(found.statistic - found.null[1])
    assert found.p_value == 0.01
    assert "40 groups of each" in found.settings


def test_shrinkage_is_ledoit_and_wolfs(rng: np.random.Generator) -> None:
    x = rng.normal(size=(120, 6)) * np.arange(1, 7)
    samples = two_samples(x[:70], x[70:], space="raw")
    expected = ledoit_wolf_shrinkage(x - x.mean(axis=0), assume_centered=True)
    assert group_moments(samples, 64).shrinkage(120) == pytest.approx(expected, rel=1e-3)


def test_moments_average_the_images_of_a_patient(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(12), rng.integers(1, 5, 12))
    x = rng.normal(size=(len(groups), 3))
    split = int(np.searchsorted(groups, 6))
    samples = two_samples(x[:split], x[split:], groups[:split], groups[split:], space="raw")
    moments = group_moments(samples, 3)
    coordinates, _ = principal_coordinates(samples.points, 3)
    rows, columns = np.tril_indices(3)
    for g in range(12):
        z = coordinates[samples.groups == g]
        np.testing.assert_allclose(moments.means[g], z.mean(axis=0), rtol=1e-4)
        np.testing.assert_allclose(moments.products[g], (z.T @ z / len(z))[rows, columns], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(50, 4), (10, 30)])
def test_coordinates_keep_distances(shape: tuple[int, int], rng: np.random.Generator) -> None:
    x = rng.normal(size=shape)
    samples = two_samples(x[:5], x[5:], space="raw")
    coordinates, share = principal_coordinates(samples.points, 64)
    assert share == pytest.approx(1, abs=1e-5)
    centred = samples.points.centred
    np.testing.assert_allclose(coordinates @ coordinates.T, centred @ centred.T, atol=1e-3)
    assert (np.diff(coordinates.var(axis=0)) <= 1e-6).all()


def test_distance_is_scipys_for_one_image_a_patient(rng: np.random.Generator) -> None:
    numbers = rng.normal(size=90).round(1)
    of_site = rng.permutation(90) < 35
    found = SortedNumbers.of(numbers, np.arange(90)).distances(of_site[None])[0]
    assert found == pytest.approx(stats.ks_2samp(numbers[of_site], numbers[~of_site]).statistic, abs=1e-6)


def test_distance_gives_each_patient_one_vote(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(20), rng.integers(1, 6, 20))
    numbers = rng.integers(0, 9, len(groups)).astype(float)
    masks = rng.random((4, 20)) < 0.5
    found = SortedNumbers.of(numbers, groups).distances(masks)
    for mask, distance in zip(masks, found, strict=True):
        gaps = []
        for t in range(9):
            below = np.array([(numbers[groups == g] <= t).mean() for g in range(20)])
            gaps.append(abs(below[mask].mean() - below[~mask].mean()))
        assert distance == pytest.approx(max(gaps), abs=1e-6)


def test_reach_shrinks_with_patients(rng: np.random.Generator) -> None:
    few, many = (
        uniform_reach([SortedNumbers.of(rng.normal(size=n), np.arange(n))], np.arange(n) % 2 == 0, rng)
        for n in (40, 4000)
    )
    assert many < few / 5
    assert few == pytest.approx(1.36 * np.sqrt(2 / 20), rel=0.3)


def test_directions_name_the_one_that_moved(rng: np.random.Generator) -> None:
    scale = np.array([5.0, 3.0, 2.0, 1.0])
    x, y = rng.normal(size=(150, 4)) * scale, rng.normal(size=(100, 4)) * scale
    y[:, 1] += 5
    samples = two_samples(x, y, space="raw")
    test, shifts = direction_shifts(samples, site_permutations(samples.of_site, 199, rng), rng)
    moved = [shift.direction for shift in shifts if shift.p_adjusted <= 0.05]
    assert max(shifts, key=lambda shift: shift.distance.value).direction in moved
    assert len(moved) < 4
    assert test.p_value == pytest.approx(1 / 200)
    assert test.p_value == pytest.approx(min(shift.p_adjusted for shift in shifts))
    assert test.effect.low > 0.2


def test_categories_are_cramers(rng: np.random.Generator) -> None:
    first, second = rng.choice(["ap", "pa", "ll"], 80, p=[0.5, 0.3, 0.2]), rng.choice(["ap", "pa"], 60)
    (test,) = fact_tests({"view": (first, second)}, {}, n_permutations=4999, rng=rng)
    table = np.array([[(side == name).sum() for name in ("ap", "ll", "pa")] for side in (first, second)])
    chi2, p, *_ = stats.chi2_contingency(table, correction=False)
    assert test.p_value == pytest.approx(p, abs=0.02)
    # Without a shift the squared V averages (categories - 1) / (images - 1); the effect is freed from that.
    assert test.effect.value == pytest.approx(np.sqrt(max(0, chi2 / 140 - 2 / 139)), abs=0.01)
    assert test.shares["ap"] == pytest.approx(((first == "ap").mean(), (second == "ap").mean()))
    assert test.effect.low <= test.effect.value <= test.effect.high


def test_numbers_are_standardised_by_patient(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(30), rng.integers(1, 4, 30))
    other = np.repeat(np.arange(25), 2) + 100
    ages, others = rng.normal(60, 10, len(groups)), rng.normal(50, 15, len(other))
    ages[3] = np.nan
    (test,) = fact_tests({}, {"age": (ages, others)}, groups, other, n_permutations=199, rng=rng)
    sides = []
    for values, g in ((ages, groups), (others, other)):
        g, values = g[np.isfinite(values)], values[np.isfinite(values)]
        first = np.mean([values[g == c].mean() for c in np.unique(g)])
        second = np.mean([(values[g == c] ** 2).mean() for c in np.unique(g)])
        sides.append((first, second - first**2))
    (m, v), (n, w) = sides
    assert test.difference.value == pytest.approx((n - m) / np.sqrt((v + w) / 2))
    assert test.means == pytest.approx((m, n))
    assert (test.n_known, test.n_unknown) == ((len(groups) - 1, 50), (1, 0))
    assert test.p_adjusted == test.p_value


def test_a_fact_that_one_side_lacks_is_undefined(rng: np.random.Generator) -> None:
    tests = fact_tests(
        {"scanner": (["a"] * 10, [None] * 8), "sex": (["F", "M"] * 5, ["F", "M"] * 4)},
        {"age": (np.arange(10), np.full(8, np.nan))},
        n_permutations=99,
        rng=rng,
    )
    scanner, sex, age = tests
    assert np.isnan([scanner.p_value, age.p_value, scanner.effect.value]).all()
    assert scanner.n_unknown == (0, 8)
    assert sex.p_adjusted == sex.p_value == 1.0  # of three facts, one can be tested
    assert json.loads(json.dumps([test.to_json() for test in tests], allow_nan=False))[0]["p_value"] is None


def test_facts_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="different lengths"):
        fact_tests({"view": (["a"] * 4, ["a"] * 5)}, {"age": (np.ones(3), np.ones(5))}, rng=rng)
    with pytest.raises(InputError, match="categorical"):
        fact_tests({}, {"age": (["old"] * 4, ["old"] * 5)}, rng=rng)


def test_constants_have_an_interval_and_no_standardised_difference(rng: np.random.Generator) -> None:
    (test,) = fact_tests({}, {"width": (np.full(50, 256.1), np.full(20, 224.3))}, n_permutations=99, rng=rng)
    assert test.effect.value == 1.0
    assert test.effect.low == pytest.approx(0.05 ** (1 / 20))
    assert np.isnan(test.difference.value)
