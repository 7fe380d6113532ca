"""The permutation test of the energy distance: its null against recomputation, and which images it draws."""

from __future__ import annotations

import numpy as np
import pytest

from medvlm_probe.metrics import energy_test
from medvlm_probe.metrics.energy_test import energy_permutation_test, subset_of_groups
from medvlm_probe.metrics.pairwise import points_of
from medvlm_probe.metrics.resampling import group_permutations, sequential_p_value
from medvlm_probe.metrics.separability import class_distances


def cohort(seed: int, prevalence: float, unknown: float, n: int = 90) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = np.sort(rng.integers(0, n // 2, n))
    labels = (rng.random(n) < prevalence).astype(np.float32)
    labels[rng.random(n) < unknown] = np.nan
    return rng.normal(size=(n, 5)).astype(np.float32), labels, np.unique(groups, return_inverse=True)[1]


@pytest.mark.parametrize(("gather_share", "enough"), [(0.0, 200), (1.0, 200), (1.0, 5)])
@pytest.mark.parametrize(("prevalence", "unknown"), [(0.1, 0.0), (0.5, 0.0), (0.9, 0.0), (0.3, 0.3), (0.2, 0.7)])
def test_p_value_is_that_of_recomputed_distances(
    monkeypatch: pytest.MonkeyPatch, prevalence: float, unknown: float, gather_share: float, enough: int
) -> None:
    """Both ways of summing, whichever class is the largest, give what class_distances gives for permuted labels."""
    monkeypatch.setattr(energy_test, "_GATHER_SHARE", gather_share)
    monkeypatch.setattr(energy_test, "_STRIP", 32)
    monkeypatch.setattr(energy_test, "PERMUTATIONS_AT_ONCE", 16)
    monkeypatch.setattr(energy_test, "ENOUGH_EXCEEDANCES", enough)
    embeddings, labels, groups = cohort(4, prevalence, unknown)
    strata = (groups % 2).astype(np.int64)
    test = energy_permutation_test(
        points_of(embeddings, "l2", np.arange(len(groups))),
        labels[:, None],
        groups,
        strata,
        n_permutations=60,
        max_images=1000,
        rng=np.random.default_rng(7),
    )
    drawn = group_permutations(groups, n_permutations=60, rng=np.random.default_rng(7), strata=strata)
    assert test.n_images == len(drawn.kept)

    def energy(permuted: np.ndarray) -> float:
        return class_distances(embeddings[drawn.kept], permuted, groups[drawn.kept])[0].energy_distance.statistic

    observed = energy(labels[drawn.kept])
    null = np.array([energy(labels[drawn.kept][row]) for row in drawn.index])
    assert null.std() > 0
    expected, _ = sequential_p_value(observed - 1e-6, [null], n_exceedances=enough)
    assert test.p_values[0] == expected


def test_identical_vectors_are_ties() -> None:
    (entry,) = class_distances(np.ones((40, 3)), [0, 1] * 20, n_permutations=99, rng=np.random.default_rng(0))
    assert entry.energy_distance.p_value == 1.0


def test_without_a_partner_there_is_no_test() -> None:
    rng = np.random.default_rng(0)
    (entry,) = class_distances(rng.normal(size=(4, 3)), [0, 1, 0, 1], strata=[0, 1, 2, 3], n_permutations=99, rng=rng)
    assert np.isnan(entry.energy_distance.p_value)


def test_sites_that_differ_alone_are_no_evidence() -> None:
    """A label that is common where embeddings lie elsewhere: pooled it is seen, within sites it is not."""
    rng = np.random.default_rng(1)
    sites = np.repeat([0, 1], 100)
    labels = (rng.random(200) < np.where(sites == 1, 0.7, 0.1)).astype(float)
    embeddings = rng.normal(size=(200, 8)) + 2 * sites[:, None]
    pooled = class_distances(embeddings, labels, n_permutations=199, rng=rng)[0].energy_distance
    within = class_distances(embeddings, labels, strata=sites, n_permutations=199, rng=rng)[0].energy_distance
    assert pooled.p_value == 1 / 200
    assert within.p_value > 0.05
    assert within.statistic == pooled.statistic


def test_subset_holds_whole_groups_and_favours_rare_labels() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(3000), rng.integers(1, 4, 3000))
    labels = (rng.random((len(groups), 3)) < (0.6, 0.1, 0.002)).astype(float)
    chosen = subset_of_groups(labels, groups, 600, rng)
    assert 590 <= len(chosen) <= 600
    assert (np.diff(chosen) > 0).all()
    assert np.isin(groups, groups[chosen]).sum() == len(chosen)
    assert labels[chosen, 2].sum() == labels[:, 2].sum() > 0
    assert 0.2 < labels[chosen, 0].mean() < 0.9
    np.testing.assert_array_equal(subset_of_groups(labels, groups, len(groups), rng), np.arange(len(groups)))
