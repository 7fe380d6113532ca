"""The crowding matrix against loops, its null against recomputation, and what it says of labels put side by side."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from medvlm_probe.metrics.resampling import group_permutations, holm
from medvlm_probe.metrics.separability import crowding


def share(points: np.ndarray, labels: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    n_labels = labels.shape[1]
    hits, known = np.zeros((n_labels, n_labels)), np.zeros((n_labels, n_labels))
    for i in range(len(points)):
        others = [j for j in range(len(points)) if groups[j] != groups[i]]
        for j in sorted(others, key=lambda j: math.dist(points[i], points[j]))[:k]:
            for a in range(n_labels):
                for b in range(n_labels):
                    if labels[i, a] == 1:
                        hits[a, b] += labels[j, b] == 1
                        known[a, b] += not math.isnan(labels[j, b])
    with np.errstate(invalid="ignore"):
        return hits / known


@pytest.fixture(scope="module")
def cohort() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(24), [1, 2, 3] * 8)[rng.permutation(48)]
    labels = (rng.random((48, 3)) < (0.5, 0.3, 0.1)).astype(float)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return rng.normal(size=(48, 4)), labels, groups, groups % 2


def test_matrix_and_null_by_hand(cohort: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]) -> None:
    embeddings, labels, groups, sites = cohort
    found = crowding(
        embeddings, labels, groups, n_neighbors=4, strata=sites, n_permutations=25, space="raw",
        rng=np.random.default_rng(9), block_size=17,
    )  # fmt: skip
    assert found.n_left_out == 0
    np.testing.assert_allclose(found.share, share(embeddings, labels, groups, 4), rtol=1e-12)

    order = np.argsort(groups, kind="stable")
    points, values, codes = embeddings[order], labels[order], groups[order]
    drawn = group_permutations(codes, n_permutations=25, rng=np.random.default_rng(9), strata=sites[order])
    null = np.array([share(points, values[row], codes, 4) for row in drawn.index])
    np.testing.assert_allclose(found.expected, null.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.enrichment, found.share / null.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.p_more, (1 + (null >= found.share).sum(axis=0)) / 26)
    np.testing.assert_allclose(found.p_less, (1 + (null <= found.share).sum(axis=0)) / 26)
    two_sided = np.minimum(1, 2 * np.minimum(found.p_more, found.p_less))
    np.testing.assert_allclose(found.p_adjusted, holm(two_sided.ravel()).reshape(3, 3))


def test_labels_side_by_side_crowd() -> None:
    """Two findings share a corner of the space, never an image; a third keeps to itself."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 4, 400)
    corner = np.array([[0, 0], [5, 0], [5, 1], [0, 5]])[kind]
    labels = (kind[:, None] == [1, 2, 3]).astype(float)
    found = crowding(
        corner + rng.normal(size=(400, 2)),
        labels,
        label_names=("a", "b", "c"),
        n_permutations=999,
        rng=rng,
        space="raw",
    )
    assert found.most_crowded[:2] == ("b", "a")
    assert found.most_crowded[2] is None
    assert found.enrichment[0, 1] > 1.5
    assert found.p_adjusted[0, 1] < 0.05
    assert found.enrichment[0, 2] < 0.2
    assert found.p_less[0, 2] == 1 / 1000
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["labels"] == ["a", "b", "c"]


def test_groups_without_a_partner_are_left_out_and_counted(rng: np.random.Generator) -> None:
    groups = np.concatenate([np.repeat(np.arange(10), 2), [50] * 5])
    labels = (rng.random((25, 2)) < 0.5).astype(float)
    found = crowding(rng.normal(size=(25, 3)), labels, groups, n_neighbors=3, n_permutations=19, rng=rng)
    assert found.n_images + found.n_left_out == 25
    assert found.n_left_out == 3


def test_an_absent_label_is_undefined(rng: np.random.Generator) -> None:
    labels = np.zeros((30, 2))
    labels[::3, 0] = 1
    found = crowding(rng.normal(size=(30, 3)), labels, n_permutations=19, rng=rng)
    assert np.isnan(found.share[1]).all()
    assert found.share[0, 1] == 0
    assert math.isnan(found.enrichment[0, 1])
    assert found.to_json()["share"][1] == [None, None]
