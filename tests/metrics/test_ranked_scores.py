"""AUROC and average precision of weighted groups, and without each group, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from medvlm_probe.metrics.ranked_scores import (
    auroc_without_groups,
    average_precision_without_groups,
    ranked_scores,
)


def drawn(seed: int, n: int, decimals: int, n_groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    scores = (rng.normal(size=n) + positive).round(decimals)
    return positive, scores, np.unique(rng.integers(0, n_groups, n), return_inverse=True)[1]


def expected(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    kept = weights > 0
    y, s, w = positive[kept], scores[kept], weights[kept]
    auroc = roc_auc_score(y, s, sample_weight=w) if y.any() and not y.all() else np.nan
    return auroc, average_precision_score(y, s, sample_weight=w) if y.any() else np.nan


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(0, 2), st.integers(1, 20))
def test_weighted_statistics(seed: int, n: int, decimals: int, n_groups: int) -> None:
    positive, scores, codes = drawn(seed, n, decimals, n_groups)
    weights = np.random.default_rng(seed).integers(0, 3, (codes.max() + 1, 4)).astype(float)
    found = np.array(ranked_scores(positive, scores, codes, codes.max() + 1).auroc_and_average_precision(weights))
    wanted = np.array([expected(positive, scores, weights[codes, b]) for b in range(4)]).T
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(0, 2), st.integers(1, 20))
def test_without_each_group(seed: int, n: int, decimals: int, n_groups: int) -> None:
    positive, scores, codes = drawn(seed, n, decimals, n_groups)
    wanted = np.array([expected(positive, scores, (codes != g).astype(float)) for g in range(codes.max() + 1)]).T
    np.testing.assert_allclose(auroc_without_groups(positive, scores, codes), wanted[0], atol=1e-12)
    np.testing.assert_allclose(average_precision_without_groups(positive, scores, codes), wanted[1], atol=1e-12)


def test_groups_too_large_for_running_sums() -> None:
    positive, scores, codes = drawn(7, 400, 1, 300)
    codes[:90] = 0
    codes = np.unique(codes, return_inverse=True)[1]
    wanted = [expected(positive, scores, (codes != g).astype(float))[1] for g in range(codes.max() + 1)]
    np.testing.assert_allclose(average_precision_without_groups(positive, scores, codes), wanted, atol=1e-12)


@pytest.mark.parametrize("kind", [True, False])
def test_one_kind_alone(kind: bool) -> None:
    positive, scores, codes = np.full(6, kind), np.arange(6.0), np.arange(6)
    auroc, precision = ranked_scores(positive, scores, codes, 6).auroc_and_average_precision(np.ones((6, 2)))
    assert np.isnan(auroc).all()
    assert np.isnan(precision).all() != kind
    assert np.isnan(auroc_without_groups(positive, scores, codes)).all()
    assert np.isnan(average_precision_without_groups(positive, scores, codes)).all() != kind
