"""The permutation test of class_distances keeps its level on grouped images; one that permutes images does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medvlm_probe.metrics.separability import class_distances, crowding

N_SIMULATIONS = 1000
N_PERMUTATIONS = 199
SIZES = np.array([1, 2, 3, 2, 1, 4, 2, 3] * 4 + [6])
"""Images of each patient; one has more than any other and must be thinned."""

GROUPS = np.repeat(np.arange(len(SIZES)), SIZES)
SITES = (np.arange(len(SIZES)) % 2)[GROUPS]


def null_cohort(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings correlated at .8 within patients, shifted between two sites, and labels that do not depend on them.

    Two labels vary within patients, are alike within them, and are commoner at one site; some are unknown.
    """
    patient = rng.standard_normal((len(SIZES), 8))[GROUPS]
    embeddings = np.sqrt(0.8) * patient + np.sqrt(0.2) * rng.standard_normal((len(GROUPS), 8)) + SITES[:, None]
    chance = rng.beta(1, 1, (len(SIZES), 2))[GROUPS] * np.where(SITES == 1, 1.0, 0.5)[:, None]
    labels = (rng.random(chance.shape) < chance).astype(float)
    labels[rng.random(labels.shape) < 0.05] = np.nan
    return embeddings, labels


@pytest.mark.slow
def test_energy_test_keeps_its_level() -> None:
    rng = np.random.default_rng(0)
    p_values, adjusted = np.empty((2, N_SIMULATIONS, 2))
    for k in range(N_SIMULATIONS):
        embeddings, labels = null_cohort(rng)
        found = class_distances(
            embeddings, labels, GROUPS, strata=SITES, n_permutations=N_PERMUTATIONS, rng=rng, space="raw"
        )
        p_values[k] = [entry.energy_distance.p_value for entry in found]
        adjusted[k] = [entry.energy_distance.p_adjusted for entry in found]
    assert 0.037 <= (p_values <= 0.05).mean() <= 0.064
    assert ((p_values <= 0.05).mean(axis=0) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / N_SIMULATIONS)).all()
    assert (adjusted.min(axis=1) <= 0.05).mean() <= 0.064
    assert stats.kstest(p_values[:, 0], "uniform").pvalue > 0.001


def test_permuting_images_does_not_keep_it() -> None:
    """What the test would do if each image counted as a patient."""
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(100):
        embeddings, labels = null_cohort(rng)
        (entry,) = class_distances(
            embeddings, labels[:, 0], strata=SITES, n_permutations=N_PERMUTATIONS, rng=rng, space="raw"
        )
        rejected += entry.energy_distance.p_value <= 0.05
    assert rejected >= 15


@pytest.mark.slow
def test_crowding_keeps_its_level() -> None:
    rng = np.random.default_rng(1)
    below = np.zeros((400, 2, 2, 2), dtype=bool)
    for k in range(len(below)):
        embeddings, labels = null_cohort(rng)
        found = crowding(
            embeddings, labels, GROUPS, strata=SITES, n_neighbors=5, n_permutations=N_PERMUTATIONS, rng=rng, space="raw"
        )
        below[k] = found.p_more <= 0.05, found.p_less <= 0.05
    shares = below.mean(axis=0)
    assert (shares <= 0.05 + 3.3 * np.sqrt(0.05 * 0.95 / len(below))).all()
    assert (shares >= 0.02).all()
