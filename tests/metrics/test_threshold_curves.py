"""Macro curves against scikit-learn at every threshold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from medvlm_probe.metrics.threshold_curves import macro_threshold_curves


def test_curves_are_scikit_learns_means_over_labels_where_defined(rng: np.random.Generator) -> None:
    labels = (rng.random((60, 4)) < [0.5, 0.2, 0.1, 0.0]).astype(float)
    labels[:7, 0] = np.nan
    scores = rng.normal(size=(60, 4)).round(1)
    found = macro_threshold_curves(labels, scores, n_thresholds=31)
    assert (found.threshold[0], found.threshold[-1]) == (scores.min(), scores.max())
    for place, threshold in enumerate(found.threshold):
        parts: dict[str, list[float]] = {"recall": [], "precision": [], "f1": []}
        for label, score in zip(labels.T, scores.T, strict=True):
            known = ~np.isnan(label)
            truth, called = label[known] == 1, score[known] >= threshold
            if truth.any():
                parts["recall"].append(recall_score(truth, called))
                parts["f1"].append(f1_score(truth, called, zero_division=0))
            if called.any():
                parts["precision"].append(precision_score(truth, called, zero_division=0))
        for name, values in parts.items():
            expected = np.mean(values) if values else np.nan
            assert getattr(found, name)[place] == pytest.approx(expected, nan_ok=True)
