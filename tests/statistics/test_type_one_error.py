"""Permutation tests keep their level on grouped images; permuting images does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from medvlm_probe.metrics.permutation import (
    group_label_permutations,
    group_permutations,
    permutation_p_value,
    sequential_p_value,
)
from medvlm_probe.types import FloatArray, IntArray

N_SIMULATIONS = 1000
N_PERMUTATIONS = 199
SIZES = np.array([1, 2, 3, 2, 1, 3, 2] * 4 + [8])
"""Images of each patient, one of them with many; at two sites in turn."""

GROUPS = np.repeat(np.arange(len(SIZES)), SIZES)
SITES = (np.arange(len(SIZES)) % 2)[GROUPS]


def correlated_images(rng: np.random.Generator, correlation: float = 0.8, dimensions: int = 4) -> FloatArray:
    """Embeddings of images, correlated within patients, and different at the two sites, (n, d)."""
    patient = rng.standard_normal((len(SIZES), dimensions))[GROUPS]
    own = rng.standard_normal((len(GROUPS), dimensions))
    return np.sqrt(correlation) * patient + np.sqrt(1 - correlation) * own + SITES[:, None]


def varying_labels(rng: np.random.Generator) -> IntArray:
    """Labels that vary within patients, are alike within them, and are commoner at one site."""
    chance = rng.beta(1, 1, len(SIZES))[GROUPS] * np.where(SITES == 1, 1.0, 0.6)
    return (rng.random(len(GROUPS)) < chance).astype(np.int64)


def energy_distances(labels: FloatArray, distances: FloatArray) -> FloatArray:
    """Energy distance between images with and without a label, for each row of labels (B, n)."""
    y = np.asarray(labels, dtype=np.float64)
    to_positives, total = y @ distances, distances.sum()
    p = y.sum(axis=1)
    q = y.shape[1] - p
    both = np.maximum(p * q, 1)
    pp = (to_positives * y).sum(axis=1)
    pn = to_positives.sum(axis=1) - pp
    nn = total - pp - 2 * pn
    return np.where(p * q > 0, 2 * pn / both - pp / np.maximum(p, 1) ** 2 - nn / np.maximum(q, 1) ** 2, 0.0)


def label_test(rng: np.random.Generator, *, by_image: bool, effect: float = 0.0) -> float:
    labels = varying_labels(rng)
    embeddings = correlated_images(rng) + effect * labels[:, None]
    units, strata = (np.arange(len(GROUPS)), np.zeros_like(SITES)) if by_image else (GROUPS, SITES)
    moved = group_permutations(units, n_permutations=N_PERMUTATIONS, rng=rng, strata=strata)
    kept, distances = labels[moved.kept], cdist(embeddings[moved.kept], embeddings[moved.kept])
    null = energy_distances(kept[moved.index], distances)
    return permutation_p_value(energy_distances(kept[None], distances)[0], null)


def site_test(rng: np.random.Generator, *, by_image: bool) -> float:
    """Compare two sites that do not differ."""
    embeddings = correlated_images(rng) - SITES[:, None]
    units = np.arange(len(GROUPS)) if by_image else GROUPS
    moved = group_label_permutations(SITES, units, n_permutations=N_PERMUTATIONS, rng=rng)
    distances = cdist(embeddings, embeddings)
    null = energy_distances(moved.labels[moved.index][:, moved.row_group], distances)
    return permutation_p_value(energy_distances(SITES[None], distances)[0], null)


def share_rejected(p_values: list[float]) -> float:
    return float(np.mean(np.array(p_values) <= 0.05))


def test_permuting_label_vectors_among_patients_keeps_the_level() -> None:
    rng = np.random.default_rng(0)
    rejected = share_rejected([label_test(rng, by_image=False) for _ in range(2 * N_SIMULATIONS)])
    assert 0.037 <= rejected <= 0.064


def test_permuting_labels_among_images_rejects_far_too_often() -> None:
    rng = np.random.default_rng(0)
    assert share_rejected([label_test(rng, by_image=True) for _ in range(200)]) > 0.2


def test_permuting_label_vectors_finds_a_difference() -> None:
    rng = np.random.default_rng(0)
    assert share_rejected([label_test(rng, by_image=False, effect=1.5) for _ in range(100)]) > 0.9


def test_permuting_patients_between_sites_keeps_the_level() -> None:
    rng = np.random.default_rng(0)
    rejected = share_rejected([site_test(rng, by_image=False) for _ in range(2 * N_SIMULATIONS)])
    assert 0.037 <= rejected <= 0.064


def test_permuting_images_between_sites_rejects_far_too_often() -> None:
    rng = np.random.default_rng(0)
    assert share_rejected([site_test(rng, by_image=True) for _ in range(200)]) > 0.3


@pytest.mark.parametrize("n_exceedances", [5, 20])
def test_sequential_stopping_keeps_the_level(n_exceedances: int) -> None:
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((4000, 400))
    p = np.array([sequential_p_value(x[0], np.split(x[1:], 3), n_exceedances=n_exceedances)[0] for x in draws])
    for level in (0.01, 0.05, 0.1, 0.5):
        assert stats.binom.sf((p <= level).sum() - 1, len(p), level) > 0.001
    assert np.mean(p <= 0.5) > 0.45
