"""What changes where there are very many images: caps that the results state, and sums in blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medvlm_probe.shift import frechet, mmd, outlier_scores, shift_tests
from medvlm_probe.shift.outlier_scores import METHODS, OutlierInputs, fit_outlier_score
from medvlm_probe.shift.two_samples import site_permutations, two_samples


def test_nearest_neighbours_of_many_reference_images_are_sought_in_a_sample(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, own, other = rng.normal(size=(3, 900, 6))
    reference, own, other = reference + 2, own + 2, other * 1.5 + np.r_[0, 2, 2, 2, 2, 2]
    whole = fit_outlier_score("knn", OutlierInputs(reference))
    monkeypatch.setitem(outlier_scores.METHODS, "knn", replace(METHODS["knn"], at_most=300))
    sampled, again = (fit_outlier_score("knn", OutlierInputs(reference)) for _ in range(2))
    drawn = np.sort(np.random.default_rng(0).choice(900, 300, replace=False))
    alone = fit_outlier_score("knn", OutlierInputs(reference[drawn]))
    assert (whole.n_reference, sampled.n_reference) == (900, 300)
    new = OutlierInputs(np.concatenate([own, other]))
    np.testing.assert_array_equal(sampled.scores(new), alone.scores(new))
    np.testing.assert_array_equal(sampled.scores(new), again.scores(new))
    truth = np.repeat([0, 1], 900)
    aurocs = [roc_auc_score(truth, fitted.scores(new)) for fitted in (whole, sampled)]
    assert aurocs[0] == pytest.approx(aurocs[1], abs=0.02)
    assert aurocs[0] > 0.6


def test_no_test_draws_more_permutations_for_many_patients(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(20, 4)) + 3

    def drawn(n_permutations: int) -> list[int]:
        rng = np.random.default_rng(0)
        found = shift_tests.test_shift(x, y, tests=("mmd", "energy", "frechet"), n_permutations=n_permutations, rng=rng)
        return [test.n_permutations for test in found.tests]

    assert drawn(150) == [150] * 3
    monkeypatch.setattr(shift_tests, "MANY_GROUPS", 49)
    monkeypatch.setattr(shift_tests, "PERMUTATIONS_OF_MANY", 99)
    assert drawn(150) == [99] * 3
    assert drawn(50) == [50] * 3


def test_shrinkage_summed_in_blocks_is_the_same(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = two_samples(rng.normal(size=(60, 5)), rng.normal(size=(40, 5)), np.arange(60) // 2, np.arange(40) + 100)
    moments = frechet.group_moments(samples, 5)
    whole = moments.shrinkage(20)
    monkeypatch.setattr(frechet, "_GROUPS_AT_ONCE", 7)
    assert moments.shrinkage(20) == pytest.approx(whole, rel=1e-12)


def test_random_features_stand_in_for_the_kernel_of_many_patients(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = two_samples(rng.normal(size=(80, 5)), rng.normal(size=(60, 5)) + 0.5)
    permutations = site_permutations(samples.of_site, 99, rng)
    exact = mmd.mmd_test(samples, permutations, np.random.default_rng(0))
    monkeypatch.setattr(mmd, "EXACT_GROUPS", 100)
    features = mmd.mmd_test(samples, permutations, np.random.default_rng(0))
    assert "random features" in features.settings
    assert "random features" not in exact.settings
    assert features.effect.value == pytest.approx(exact.effect.value, abs=0.01)
    assert features.p_value == exact.p_value == 0.01
