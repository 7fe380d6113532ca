"""The ranking and threshold numbers of the BiomedCLIP study on IU-Xray, by its own definitions, for comparison only.

What differs from the metrics beside it: every label that is not 1 counts as absent and an image without a positive as
"No finding"; scores are stretched between the least and the greatest of each image's own before a threshold, so that
every image gets at least one label and never all; rows on which a ranking metric is undefined count as scikit-learn
counts them. Sadman, Zulkernine and Kwan 2025, arXiv 2506.14136 (its notebook).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.metrics.baselines import NO_FINDING
from medvlm_probe.metrics.macro import macro_f1
from medvlm_probe.metrics.ranking import ranking_rows
from medvlm_probe.types import FloatArray


@dataclass(frozen=True)
class LegacyStudy:
    """The study's numbers: macro-F1, exact match and LRAP larger better, coverage error and ranking loss smaller."""

    macro_f1: float
    exact_match: float
    label_ranking_average_precision: float
    coverage_error: float
    ranking_loss: float


def legacy_study(
    labels: ArrayLike, scores: ArrayLike, *, label_names: Sequence[str], threshold: float = 0.5
) -> LegacyStudy:
    """Return the study's numbers.

    Args:
        labels: 1 is present, everything else absent, (n, L).
        scores: the study's raw products of image and text embeddings, or any others, (n, L).
        label_names: L names.
        threshold: above which a label counts as present, after the stretch.
    """
    y, s = legacy_labels(np.asarray(labels, dtype=np.float64), label_names), np.asarray(scores, dtype=np.float64)
    predicted = row_min_max(s) > threshold
    rows = ranking_rows(y, s)
    return LegacyStudy(
        macro_f1=macro_f1(y, predicted),
        exact_match=float(((y == 1) == predicted).all(axis=1).mean()),
        label_ranking_average_precision=float(np.nan_to_num(rows.average_precision, nan=1.0).mean()),
        coverage_error=float(np.nan_to_num(rows.coverage, nan=0.0).mean()),
        ranking_loss=float(np.nan_to_num(rows.loss, nan=0.0).mean()),
    )


def legacy_labels(labels: FloatArray, label_names: Sequence[str]) -> NDArray[np.float64]:
    """Return labels with 1 and 0 alone; images without a positive get "No finding" where that is a label."""
    y = np.asarray(labels == 1, dtype=np.float64)
    if NO_FINDING in label_names:
        y[~y.any(axis=1), list(label_names).index(NO_FINDING)] = 1.0
    return y


def row_min_max(scores: FloatArray) -> NDArray[np.float64]:
    """Return each row stretched to [0, 1]; a row of equal scores becomes 0."""
    least = scores.min(axis=1, keepdims=True)
    span = scores.max(axis=1, keepdims=True) - least
    return np.asarray((scores - least) / np.where(span > 0, span, 1.0))
