"""A separability row against plain loops and scikit-learn, and that nothing is scored on what it was fitted on."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from medvlm_probe.metrics.held_out_accuracy import probe_accuracy
from medvlm_probe.metrics.separability import class_distances
from medvlm_probe.metrics.separation_scores import QUANTITIES, labels_in_row, separability_row


@pytest.fixture
def images(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups = np.repeat(np.arange(45), 2)
    labels = (rng.random((90, 3)) < [0.4, 0.5, 0.05]).astype(float)
    labels[:6, 1] = np.nan
    x = rng.normal(size=(90, 6)) + 1.5 * np.nan_to_num(labels) @ np.eye(3, 6)
    return x, labels, groups


def _means(x: np.ndarray, label: np.ndarray, groups: np.ndarray, power: int) -> tuple[float, float, float]:
    sums: dict[tuple[float, float], list[float]] = {}
    for i, j in itertools.permutations(range(len(x)), 2):
        if groups[i] != groups[j] and not np.isnan(label[[i, j]]).any():
            sums.setdefault((label[i], label[j]), []).append(np.linalg.norm(x[i] - x[j]) ** power)
    return float(np.mean(sums[1, 1])), float(np.mean(sums[0, 0])), float(np.mean(sums[1, 0]))


def test_distances_are_the_means_over_labels_of_plain_loops(
    images: tuple[np.ndarray, np.ndarray, np.ndarray], rng: np.random.Generator
) -> None:
    x, labels, groups = images
    assert labels_in_row(labels, groups).tolist() == [True, True, False]
    row = separability_row(x, labels, groups, space="raw", rng=rng)
    assert set(row) == set(QUANTITIES)
    plain = [_means(x, labels[:, k], groups, 1) for k in (0, 1)]
    squares = [_means(x, labels[:, k], groups, 2) for k in (0, 1)]
    for place, name in enumerate(("intra_positive", "intra_negative", "inter")):
        assert row[name].value == pytest.approx(np.mean([means[place] for means in plain]), rel=1e-5)
    assert row["ratio"].value == pytest.approx(np.mean([2 * c / (a + b) for a, b, c in plain]), rel=1e-5)
    between = np.mean([c - (a + b) / 2 for a, b, c in squares])
    spread = np.mean([math.sqrt(a / 2) + math.sqrt(b / 2) for a, b, _ in squares])
    assert row["davies_bouldin"].value == pytest.approx(spread / math.sqrt(between), rel=1e-4)
    fisher = []
    for (a, b, c), label in zip(squares, labels.T, strict=False):
        p = np.nanmean(label)
        fisher.append(p * (1 - p) * (c - (a + b) / 2) / (p * a / 2 + (1 - p) * b / 2))
    assert row["fisher_ratio"].value == pytest.approx(np.mean(fisher), rel=1e-4)
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in row.values())
    assert all("mean over 2 labels" in estimate.method for estimate in row.values())


def test_one_label_agrees_with_class_distances(
    images: tuple[np.ndarray, np.ndarray, np.ndarray], rng: np.random.Generator
) -> None:
    x, labels, groups = images
    row = separability_row(x, labels[:, 0], groups, rng=rng)
    [entry] = class_distances(x, labels[:, 0], groups)
    for name in ("intra_positive", "intra_negative", "inter", "ratio", "silhouette"):
        assert row[name].value == pytest.approx(getattr(entry, name).value, rel=1e-6)


def test_many_images_give_the_plug_in_values(rng: np.random.Generator) -> None:
    label = (rng.random(1500) < 0.3).astype(float)
    x = rng.normal(size=(1500, 4)) + 2 * label[:, None] * np.eye(4)[0]
    row = separability_row(x, label, space="raw", rng=rng)
    means = [x[label == side].mean(axis=0) for side in (1, 0)]
    spreads = [math.sqrt(((x[label == s] - m) ** 2).sum(axis=1).mean()) for s, m in zip((1, 0), means, strict=True)]
    assert row["davies_bouldin"].value == pytest.approx(sum(spreads) / np.linalg.norm(means[0] - means[1]), rel=0.01)
    best = 0.8413  # Phi(1), of the best rule for two normals two deviations apart
    assert row["probe_accuracy"].value == pytest.approx(best, abs=0.03)
    assert row["knn_accuracy"].value == pytest.approx(best, abs=0.06)


def test_noise_is_at_chance_even_in_many_dimensions_with_copies_of_patients(rng: np.random.Generator) -> None:
    found = []
    for _ in range(6):
        groups = np.repeat(np.arange(60), 3)
        label = (np.arange(60) < 20)[groups].astype(float)
        x = rng.normal(size=(60, 200))[groups] + 0.01 * rng.normal(size=(180, 200))
        row = separability_row(x, label, groups, rng=rng)
        found.append((row["probe_accuracy"].value, row["knn_accuracy"].value))
    # Resubstitution, or neighbours of one's own patient, would give 1.
    assert np.abs(np.mean(found, axis=0) - 0.5).max() < 0.1


def test_the_probe_is_linear_discriminant_analysis_with_equal_priors(rng: np.random.Generator) -> None:
    label = (rng.random(2000) < 0.3).astype(float)
    x = rng.normal(size=(2000, 5)) @ rng.normal(size=(5, 5)) + label[:, None]
    folds = rng.integers(0, 5, 2000)
    theirs = []
    for fold in range(5):
        rows = folds == fold
        probe = LinearDiscriminantAnalysis(priors=[0.5, 0.5]).fit(x[~rows], label[~rows])
        theirs.append((label[rows], probe.predict(x[rows])))
    truth, called = (np.concatenate(part) for part in zip(*theirs, strict=True))
    expected = (called[truth == 1].mean() + 1 - called[truth == 0].mean()) / 2
    assert probe_accuracy(x, label[:, None], folds).value[0] == pytest.approx(expected, abs=0.01)


def test_without_enough_groups_nothing_is_claimed(rng: np.random.Generator) -> None:
    x, label = rng.normal(size=(40, 3)), np.r_[np.ones(5), np.zeros(35)]
    row = separability_row(x, label, rng=rng)
    assert all(math.isnan(estimate.value) and not estimate.reliable for estimate in row.values())
