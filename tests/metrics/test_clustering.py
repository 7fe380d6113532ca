"""Agreement of clusters: both indices against scikit-learn, intervals and permutations against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.clustering import (
    ClusterAgreement,
    adjusted_rand_index,
    cluster_agreements,
    k_means,
    normalised_mutual_information,
)

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=3, max_size=40)


def agreement(clusters: Any, categories: Any, groups: Any, **options: Any) -> ClusterAgreement:
    [found] = cluster_agreements(clusters, np.asarray(categories)[:, None], groups, **options)
    return found


def _table(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1)
    return table


@given(PAIRS)
def test_both_indices_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs).T
    table = _table(first, second)
    assert adjusted_rand_index(table) == pytest.approx(adjusted_rand_score(first, second), abs=1e-12)
    if len(set(first)) > 1 or len(set(second)) > 1:
        theirs = normalized_mutual_info_score(first, second)
        assert normalised_mutual_information(table) == pytest.approx(theirs, abs=1e-12)


def test_the_jackknife_is_that_of_a_loop(rng: np.random.Generator) -> None:
    groups = rng.integers(0, 40, 90)
    first, second = rng.integers(0, 3, 90), rng.integers(0, 2, 90)
    second[:60] = first[:60] > 0
    found = agreement(first, second, groups, n_permutations=99, rng=rng)
    values = [
        (adjusted_rand_score(first[kept], second[kept]), normalized_mutual_info_score(first[kept], second[kept]))
        for kept in (groups != group for group in np.unique(groups))
    ]
    assert found.adjusted_rand.value == pytest.approx(adjusted_rand_score(first, second))
    for k, estimate in enumerate((found.adjusted_rand, found.mutual_information)):
        without = np.array(values)[:, k]
        n = len(without)
        error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
        assert estimate.low < estimate.value < estimate.high
        assert 1.9 < (estimate.high - estimate.value) / error < 2.5
    assert found.adjusted_rand.reliable
    assert found.to_json()["n_images"] == 90


@pytest.mark.parametrize("of_groups", [False, True])
def test_permutations_find_what_is_there_and_nothing_else(of_groups: bool, rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(60), 3)
    site = (groups % 3).astype(np.int64)
    clusters = np.where(rng.random(180) < 0.8, site, rng.integers(0, 3, 180))
    found = agreement(clusters, site, groups, of_groups=of_groups, n_permutations=199, rng=rng)
    assert found.p_rand == found.p_information == pytest.approx(1 / 200)
    assert found.null_rand_high < 0.1 < found.adjusted_rand.value
    noise = agreement(rng.integers(0, 3, 180), site, groups, of_groups=of_groups, n_permutations=199, rng=rng)
    assert noise.p_rand > 0.01
    assert noise.null_information > 0
    assert not noise.adjusted_rand.reliable or noise.p_rand <= 0.025


@pytest.mark.slow
def test_correlated_images_of_a_patient_do_not_make_clusters(rng: np.random.Generator) -> None:
    rejected = 0
    for _ in range(200):
        groups = np.repeat(np.arange(30), 4)
        category = rng.integers(0, 2, 30)[groups]
        clusters = rng.integers(0, 2, 30)[groups]
        rejected += agreement(clusters, category, groups, n_permutations=99, rng=rng).p_rand <= 0.05
    assert rejected <= 20  # 5 % of 200 and three standard errors


def test_a_patient_at_two_sites_counts_as_two(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(20), 2)
    site = np.r_[np.zeros(20), np.ones(20)].astype(np.int64)
    site[1] = 1
    found = agreement(site, site, groups, of_groups=True, n_permutations=99, rng=rng)
    assert found.adjusted_rand.value == 1.0
    assert found.p_rand == pytest.approx(0.01)


def test_k_means_is_seeded_and_checked(rng: np.random.Generator) -> None:
    centres = 10 * rng.normal(size=(3, 5))
    truth = rng.integers(0, 3, 90)
    x = centres[truth] + rng.normal(size=(90, 5))
    found = k_means(x, 3, seed=1)
    assert adjusted_rand_score(truth, found) == 1.0
    assert np.array_equal(found, k_means(x, 3, seed=1))
    for k in (1, 91):
        with pytest.raises(InputError, match="clusters of 90"):
            k_means(x, k, seed=1)
    with pytest.raises(InputError, match="expected one an image"):
        agreement([0, 1], [0], [0, 1], rng=rng)
    with pytest.raises(InputError, match="one at a time"):
        cluster_agreements([0, 1], [[0, 1], [1, 0]], [0, 1], of_groups=True, rng=rng)


def test_divisions_do_not_feel_each_other(rng: np.random.Generator) -> None:
    groups, clusters = np.arange(80) // 2, rng.integers(0, 3, 80)
    categories = rng.integers(0, 4, (80, 2))
    both = cluster_agreements(clusters, categories, groups, n_permutations=59, rng=np.random.default_rng(1))
    for k in (0, 1):
        options = {"n_permutations": 59, "rng": np.random.default_rng(1)}
        assert both[k] == agreement(clusters, categories[:, k], groups, **options)
