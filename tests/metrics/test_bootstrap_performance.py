"""Metrics of bootstrap replicates by weights against resampled rows given to scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from medvlm_probe.metrics.bootstrap_performance import performance_replicates, replicate_weights
from medvlm_probe.metrics.ranking import label_ranking_average_precision


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = (rng.random((80, 3)) < (0.5, 0.3, 0.05)).astype(float)
    labels[rng.random((80, 3)) < 0.1] = np.nan
    return labels, rng.normal(size=(80, 3)).round(1), rng.integers(100, 150, 80)


def test_every_metric_of_every_replicate(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, groups = sample
    weights = replicate_weights(groups, 25, np.random.default_rng(0))
    assert (weights.sum(axis=1) == len(np.unique(groups))).all()
    found = performance_replicates(labels, scores, groups, weights, thresholds=[0.0, 0.5, np.nan])
    codes = np.unique(groups, return_inverse=True)[1]
    for b, drawn in enumerate(weights):
        rows = np.repeat(np.arange(80), drawn[codes].astype(int))
        y, s = labels[rows], scores[rows]
        assert found.overall["label_ranking_average_precision"][b] == pytest.approx(
            label_ranking_average_precision(y, s)
        )
        for k, threshold in enumerate((0.0, 0.5)):
            known = ~np.isnan(y[:, k])
            truth, score = y[known, k], s[known, k]
            predicted = score >= threshold
            wanted = {
                "recall": reference.recall_score(truth, predicted),
                "precision": reference.precision_score(truth, predicted),
                "f1": reference.f1_score(truth, predicted),
                "specificity": reference.recall_score(truth, predicted, pos_label=0),
                "auroc": reference.roc_auc_score(truth, score),
                "average_precision": reference.average_precision_score(truth, score),
            }
            for metric, value in wanted.items():
                assert found.by_label[metric][b, k] == pytest.approx(value, abs=1e-12)
    assert np.isnan(found.by_label["recall"][:, 2]).all()
    assert np.isnan(found.overall["exact_match"]).all()


def test_exact_match_and_undefined_replicates() -> None:
    labels = np.array([[1.0], [0.0], [0.0]])
    weights = np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
    found = performance_replicates(labels, labels, np.arange(3), weights, thresholds=[0.5])
    assert found.overall["exact_match"].tolist() == [1.0, 1.0]
    assert found.by_label["auroc"][0, 0] == 1.0
    assert np.isnan(found.by_label["auroc"][1, 0])
    assert np.isnan(found.by_label["recall"][1, 0])
