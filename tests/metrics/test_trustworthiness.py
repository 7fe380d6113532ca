"""Trustworthiness against scikit-learn, on all points and on a subset, and where it is not defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.trustworthiness import trustworthiness


@pytest.mark.parametrize(("n", "k"), [(30, 3), (700, 10), (25, 12)])
def test_equals_scikit_learn(n: int, k: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=(n, 12))
    for picture in (x[:, :2], rng.normal(size=(n, 2))):
        ours = trustworthiness(x, picture, space="raw", n_neighbors=k, rng=rng)
        assert ours.value == pytest.approx(sklearn_trustworthiness(x, picture, n_neighbors=k), abs=1e-5)
        units = x / np.linalg.norm(x, axis=1, keepdims=True)
        ours = trustworthiness(x, picture, n_neighbors=k, rng=rng)
        assert ours.value == pytest.approx(sklearn_trustworthiness(units, picture, n_neighbors=k), abs=1e-5)


def test_a_subset_of_the_points_is_near_and_is_said(rng: np.random.Generator) -> None:
    x = rng.normal(size=(900, 8))
    whole = trustworthiness(x, x[:, :2], space="raw", rng=rng)
    part = trustworthiness(x, x[:, :2], space="raw", max_sources=300, rng=rng)
    assert (part.n_sources, part.n_points, whole.n_sources) == (300, 900, 900)
    assert part.value == pytest.approx(whole.value, abs=0.03)


def test_a_picture_of_the_vectors_themselves_is_perfect_even_with_copies(rng: np.random.Generator) -> None:
    x = np.repeat(rng.normal(size=(40, 2)), 3, axis=0)
    assert trustworthiness(x, x, space="raw", n_neighbors=2, rng=rng).value == 1.0


def test_neighbours_are_held_below_half_and_too_few_points_are_undefined(rng: np.random.Generator) -> None:
    x = rng.normal(size=(9, 3))
    assert trustworthiness(x, x[:, :2], rng=rng).n_neighbors == 4
    few = trustworthiness(x[:3], x[:3, :2], rng=rng)
    assert math.isnan(few.value)
    assert few.to_json()["value"] is None
    with pytest.raises(InputError, match="do not fit"):
        trustworthiness(x, x[:5, :2], rng=rng)
