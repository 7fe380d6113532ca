"""Ranking metrics against scikit-learn, and where scikit-learn folds undefined rows in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.ranking import (
    bounded_mean,
    coverage_error,
    label_ranking_average_precision,
    ranking_estimates,
    ranking_loss,
    ranking_rows,
    top_k_estimates,
    top_k_recall,
)


def drawn(seed: int, decimals: int, n: int = 40, n_labels: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.random((n, n_labels)) < 0.3).astype(float), rng.normal(size=(n, n_labels)).round(decimals)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_equals_scikit_learn_on_rows_where_each_metric_is_defined(seed: int, decimals: int) -> None:
    labels, scores = drawn(seed, decimals)
    some = labels.any(axis=1)
    both = some & ~labels.all(axis=1)
    assert label_ranking_average_precision(labels, scores) == pytest.approx(
        reference.label_ranking_average_precision_score(labels[some], scores[some]), abs=1e-12
    )
    assert coverage_error(labels, scores) == pytest.approx(
        reference.coverage_error(labels[some], scores[some]), abs=1e-12
    )
    assert ranking_loss(labels, scores) == pytest.approx(
        reference.label_ranking_loss(labels[both], scores[both]), abs=1e-12
    )


def test_rows_without_a_positive_are_not_perfect() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((4000, 14)) < 0.15).astype(float)
    labels[:, 0] = np.where(labels.any(axis=1), labels[:, 0], 1.0)
    labels[:1200] = 0
    scores = rng.normal(size=labels.shape)
    folded_in = reference.label_ranking_average_precision_score(labels, scores)
    ours = label_ranking_average_precision(labels, scores)
    assert ours == pytest.approx(reference.label_ranking_average_precision_score(labels[1200:], scores[1200:]))
    assert folded_in == pytest.approx(0.3 + 0.7 * ours)
    rows = ranking_rows(labels, scores)
    for values in (rows.average_precision, rows.coverage, rows.loss):
        assert np.isnan(values[:1200]).all()
        assert not np.isnan(values[1200:]).any()


def test_large_scores_are_taken_as_they_are() -> None:
    labels, scores = drawn(1, 3, n=500, n_labels=14)
    labels[:, 0] = 1
    logits = 14 + 21 * (scores - scores.min()) / np.ptp(scores)
    assert label_ranking_average_precision(labels, logits) == pytest.approx(
        reference.label_ranking_average_precision_score(labels, scores)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_monotone_maps_and_orders_change_nothing(seed: int, factor: float) -> None:
    labels, scores = drawn(seed, 2)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(labels)), rng.permutation(labels.shape[1])
    before = ranking_rows(labels, scores)
    after = ranking_rows(labels[rows][:, columns], np.exp(factor * scores / 100)[rows][:, columns])
    np.testing.assert_allclose(after.average_precision, before.average_precision[rows])
    np.testing.assert_array_equal(after.coverage, before.coverage[rows])
    np.testing.assert_allclose(after.loss, before.loss[rows])


def test_unknown_labels_leave_their_row_out() -> None:
    labels, scores = drawn(2, 3)
    unknown = labels.copy()
    unknown[::4, 2] = np.nan
    kept = np.arange(len(labels)) % 4 != 0
    assert label_ranking_average_precision(unknown, scores) == label_ranking_average_precision(
        labels[kept], scores[kept]
    )
    assert ranking_rows(unknown, scores).n_unknown == 10
    assert top_k_recall(unknown, scores, 2) == top_k_recall(labels[kept], scores[kept], 2)


@pytest.mark.parametrize("k", [1, 2, 3, 6, 9])
def test_top_k_recall_by_hand(k: int) -> None:
    labels, scores = drawn(3, 1)
    hits, counts = np.zeros(6), np.zeros(6)
    for y, s in zip(labels, scores, strict=True):
        for j in np.flatnonzero(y):
            counts[j] += 1
            hits[j] += (s >= s[j]).sum() <= k
    np.testing.assert_allclose(top_k_recall(labels, scores, k, average=None), hits / counts)
    assert top_k_recall(labels, scores, k) == pytest.approx((hits / counts).mean())
    assert top_k_recall(labels, scores, k, average="micro") == pytest.approx(hits.sum() / counts.sum())
    estimates = top_k_estimates(labels, scores, np.arange(40), k)
    assert [e.value for e in estimates] == pytest.approx((hits / counts).tolist())
    assert [e.n for e in estimates] == counts.tolist()


def test_no_positive_anywhere_is_undefined() -> None:
    nothing, scores = np.zeros((5, 3)), np.random.default_rng(0).normal(size=(5, 3))
    for metric in (label_ranking_average_precision, coverage_error, ranking_loss):
        assert math.isnan(metric(nothing, scores))
    assert math.isnan(top_k_recall(nothing, scores, 1))
    assert math.isnan(ranking_estimates(nothing, scores, np.arange(5))["coverage_error"].value)


def test_estimates_carry_the_plain_values_and_count_groups() -> None:
    labels, scores = drawn(4, 3)
    groups = np.arange(40) // 2
    found = ranking_estimates(labels, scores, groups)
    assert found["label_ranking_average_precision"].value == label_ranking_average_precision(labels, scores)
    assert found["coverage_error"].value == coverage_error(labels, scores)
    assert found["ranking_loss"].value == ranking_loss(labels, scores)
    some = labels.any(axis=1)
    for estimate in found.values():
        assert estimate.low < estimate.value < estimate.high
        assert estimate.n <= some.sum()
        assert estimate.n_groups <= 20
    assert 1 <= found["coverage_error"].low < found["coverage_error"].high <= 6


def test_mean_of_equal_values_still_has_width() -> None:
    estimate = bounded_mean(np.ones(5), np.arange(5), (0.0, 1.0))
    assert estimate.value == estimate.high == 1.0
    assert estimate.low < 0.8


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        (np.zeros((3, 2)), np.zeros((2, 2)), "expected \\(n, L\\)"),
        (np.zeros(3), np.zeros(3), "expected \\(n, L\\)"),
        (np.full((3, 2), -1.0), np.zeros((3, 2)), "uncertainty policy"),
        (np.zeros((3, 2)), np.full((3, 2), np.nan), "NaN or infinity"),
    ],
)
def test_what_is_refused(labels: np.ndarray, scores: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=says):
        ranking_rows(labels, scores)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="expected 1 or more"):
        top_k_recall(np.ones((2, 2)), np.zeros((2, 2)), 0)
