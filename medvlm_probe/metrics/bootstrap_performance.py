"""Every metric of classification and ranking on every bootstrap replicate at once, from group weights.

Replicates answer what intervals of single metrics cannot: how a difference between two models, or any function of
several metrics, varies when other patients are drawn. Counts of a replicate are one matrix product of the group weights
with the counts by group; nothing loops over replicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.metrics.bootstrap import group_bootstrap_weights
from medvlm_probe.metrics.classification import checked_groups
from medvlm_probe.metrics.ranked_scores import ranked_scores
from medvlm_probe.metrics.ranking import checked_ranking, ranking_rows
from medvlm_probe.types import FloatArray, IntArray

_NUMBERS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Replicates:
    """Metrics of B replicates; NaN where a replicate leaves one undefined.

    Attributes:
        by_label: metric (`classification.METRICS`) to (B, L).
        overall: ranking metric, and `exact_match`, to (B,).
    """

    by_label: Mapping[str, NDArray[np.float64]]
    overall: Mapping[str, NDArray[np.float64]]


def replicate_weights(groups: IntArray, n_resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how often each group is drawn in each replicate, (B, G), in the order of `np.unique(groups)`."""
    return np.asarray(group_bootstrap_weights(np.arange(len(np.unique(groups))), n_resamples, rng), dtype=np.float64)


def performance_replicates(
    labels: ArrayLike, scores: ArrayLike, groups: IntArray, weights: FloatArray, *, thresholds: Sequence[float]
) -> Replicates:
    """Return every metric under each set of group weights.

    Args:
        labels: 1, 0 or NaN (left out, label by label; from ranking metrics the whole row), (n, L).
        scores: finite, (n, L).
        groups: (n,).
        weights: (B, G), as `replicate_weights` draws them; the same weights for two models pair their replicates.
        thresholds: the least score at which each label is predicted, (L,); NaN where none is chosen.

    Raises:
        InputError: shapes or values that do not fit.
    """
    y, s = checked_ranking(labels, scores)
    codes = checked_groups(groups, len(y))
    n_groups = weights.shape[1]
    drawn = np.ascontiguousarray(weights.T)
    limits = np.asarray(thresholds, dtype=np.float64)
    rows = ranking_rows(y, s)
    exact = np.where(np.isnan(y).any(axis=1), np.nan, ((s >= limits) == (y == 1)).all(axis=1).astype(np.float64))
    if np.isnan(limits).any():
        exact = np.full(len(y), np.nan)
    means = {
        "label_ranking_average_precision": rows.average_precision,
        "coverage_error": rows.coverage,
        "ranking_loss": rows.loss,
        "exact_match": exact,
    }
    return Replicates(
        by_label=_threshold_replicates(y, s, codes, weights, limits) | _rank_replicates(y, s, codes, drawn, n_groups),
        overall={name: _weighted_means(values, codes, weights) for name, values in means.items()},
    )


def _threshold_replicates(
    y: FloatArray, s: FloatArray, codes: IntArray, weights: FloatArray, limits: FloatArray
) -> dict[str, NDArray[np.float64]]:
    predicted = s >= limits
    counts = [
        weights @ _by_group(mask.astype(np.float64), codes, weights.shape[1])
        for mask in (predicted & (y == 1), predicted & (y == 0), ~predicted & (y == 1), ~predicted & (y == 0))
    ]
    tp, fp, fn, tn = (np.where(np.isnan(limits), np.nan, count) for count in counts)
    return {
        "recall": _ratio(tp, tp + fn),
        "precision": _ratio(tp, tp + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "specificity": _ratio(tn, tn + fp),
    }


def _rank_replicates(
    y: FloatArray, s: FloatArray, codes: IntArray, drawn: FloatArray, n_groups: int
) -> dict[str, NDArray[np.float64]]:
    n_replicates = drawn.shape[1]
    auroc, precision = np.empty((n_replicates, y.shape[1])), np.empty((n_replicates, y.shape[1]))
    for k in range(y.shape[1]):
        known = ~np.isnan(y[:, k])
        ranked = ranked_scores(y[known, k] == 1, s[known, k], codes[known], n_groups)
        step = max(1, _NUMBERS_AT_ONCE // max(1, ranked.positives.shape[0]))
        for start in range(0, n_replicates, step):
            part = slice(start, start + step)
            auroc[part, k], precision[part, k] = ranked.auroc_and_average_precision(drawn[:, part])
    return {"auroc": auroc, "average_precision": precision}


def _by_group(values: FloatArray, codes: IntArray, n_groups: int) -> NDArray[np.float64]:
    """Return the sums of (n, L) values by group, (G, L)."""
    return np.stack([np.bincount(codes, weights=column, minlength=n_groups) for column in values.T], axis=1)


def _weighted_means(values: FloatArray, codes: IntArray, weights: FloatArray) -> NDArray[np.float64]:
    defined = ~np.isnan(values)
    both = np.stack([np.where(defined, values, 0.0), defined.astype(np.float64)], axis=1)
    sums = weights @ _by_group(both, codes, weights.shape[1])
    return _ratio(sums[:, 0], sums[:, 1])


def _ratio(numerator: FloatArray, denominator: FloatArray) -> NDArray[np.float64]:
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)
