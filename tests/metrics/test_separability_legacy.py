"""The published separability against a reading of its definition in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.errors import InputError
from medvlm_probe.metrics.separability import legacy_separability

AS_PUBLISHED = [
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding",
]  # fmt: skip
IU_XRAY_TEST = [10, 62, 77, 25, 7, 5, 10, 32, 3, 19, 8, 19, 24, 272]


def read_from_the_paper(embeddings: np.ndarray, names_of_images: list[list[str]]) -> tuple[float, float, float]:
    """An image's class is the first in the study's list that it carries; plain means of Euclidean distances."""
    by_class: dict[str, list[np.ndarray]] = {}
    for vector, names in zip(embeddings, names_of_images, strict=True):
        first = min(names or ["No Finding"], key=AS_PUBLISHED.index)
        by_class.setdefault(first, []).append(vector)
    centres = {name: sum(vectors) / len(vectors) for name, vectors in by_class.items()}
    within = [
        sum(math.dist(vector, centres[name]) for vector in vectors) / len(vectors) for name, vectors in by_class.items()
    ]
    names = sorted(by_class)
    between = [math.dist(centres[a], centres[b]) for k, a in enumerate(names) for b in names[k + 1 :]]
    intra, inter = sum(within) / len(within), sum(between) / len(between)
    return intra, inter, inter / intra


def test_against_a_reading_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice([1.0, 0.0, -1.0, np.nan], size=(200, 14), p=[0.08, 0.7, 0.1, 0.12])
    labels[:, CHEXPERT_LABELS.index("pneumothorax")] = 0
    labels[labels[:, CHEXPERT_LABELS.index("fracture")] == 1, CHEXPERT_LABELS.index("no_finding")] = 1
    embeddings = rng.normal(size=(200, 12)) * 5 + 3
    words = {name: name.replace("_", " ").title() for name in CHEXPERT_LABELS}
    expected = read_from_the_paper(
        embeddings, [[words[CHEXPERT_LABELS[k]] for k in np.flatnonzero(row == 1)] for row in labels]
    )
    found = legacy_separability(embeddings, labels, CHEXPERT_LABELS)
    assert (found.intra, found.inter, found.ratio) == pytest.approx(expected, rel=1e-12)
    assert found.missing == ("pneumothorax",)
    assert [words[name] for name in found.classes] == [name for name in AS_PUBLISHED if name != "Pneumothorax"]
    assert sum(found.sizes) == 200
    assert math.isnan(found.null_ratio)


def test_what_chance_gives_at_the_sizes_of_the_study(rng: np.random.Generator) -> None:
    """Isotropic vectors: small classes' centroids scatter, so the ratio is near .6 without any separation."""
    labels = np.zeros((sum(IU_XRAY_TEST), 14))
    order = [name.lower().replace(" ", "_") for name in AS_PUBLISHED]
    labels[np.arange(len(labels)), np.repeat(np.arange(14), IU_XRAY_TEST)] = 1
    found = legacy_separability(rng.normal(size=(len(labels), 512)), labels, order, n_permutations=99, rng=rng)
    assert found.sizes == tuple(IU_XRAY_TEST)
    assert 0.4 < found.null_low < found.null_ratio < found.null_high < 0.7
    assert found.null_low - 0.01 < found.ratio < found.null_high + 0.01
    assert found.p_value > 0.01
    apart = rng.normal(size=(len(labels), 512)) + 0.3 * (labels @ rng.normal(size=(14, 512)))
    assert legacy_separability(apart, labels, order, n_permutations=99, rng=rng).p_value == 0.01


def test_images_without_a_class_and_other_label_sets(rng: np.random.Generator) -> None:
    labels = np.array([[1, 0], [0, 0], [0, 1], [1, 1], [0, 1]])
    embeddings = rng.normal(size=(5, 3))
    found = legacy_separability(embeddings, labels, ("mass", "cardiomegaly"))
    assert found.classes == ("cardiomegaly", "mass")
    assert found.sizes == (3, 1)
    assert found.n_without_class == 1
    single = legacy_separability(embeddings, np.ones((5, 1)), ("mass",), rng=rng)
    assert math.isnan(single.ratio)
    with pytest.raises(InputError, match="do not fit 5 embeddings"):
        legacy_separability(embeddings, labels[:4], ("mass", "cardiomegaly"))


def test_null_moves_whole_groups() -> None:
    """Ten images of each patient coincide: permuting images would find any assignment by patient significant."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 10)
    labels = (np.arange(12)[:, None] % 3 == np.arange(3)).astype(float)[groups]
    embeddings = rng.normal(size=(12, 20))[groups] + 0.01 * rng.normal(size=(120, 20))
    whole = legacy_separability(embeddings, labels, ("a", "b", "c"), groups, n_permutations=199, rng=rng)
    images = legacy_separability(embeddings, labels, ("a", "b", "c"), n_permutations=199, rng=rng)
    assert images.p_value == 0.005
    assert whole.p_value > 0.05
