"""Unweighted means over labels, with intervals from leaving out one group at a time for all labels together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.metrics.classification import (
    AVERAGE_PRECISION_MIN_GROUPS,
    RANK_METRICS,
    Jackknifed,
    checked_groups,
    jackknifed_rank_metric,
)
from medvlm_probe.metrics.intervals import VarianceFunction, binomial_variance, effective_size, score_interval
from medvlm_probe.metrics.ranking import checked_ranking
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

METHOD = "score interval, group jackknife, mean over labels"


def macro_rank_estimates(labels: ArrayLike, scores: ArrayLike, groups: IntArray) -> dict[str, Estimate]:
    """Return macro AUROC and macro average precision, in [0, 1], larger better.

    Labels where a metric is undefined are left out of its mean.

    Args:
        labels: 1, 0 or NaN (left out), (n, L).
        scores: finite, (n, L).
        groups: the independently sampled group of each image, (n,).

    Raises:
        InputError: shapes or values that do not fit.
    """
    y, s = checked_ranking(labels, scores)
    codes = checked_groups(groups, len(y))
    fewest = {"auroc": 2, "average_precision": AVERAGE_PRECISION_MIN_GROUPS}
    return {
        metric: _mean_of(
            [jackknifed_rank_metric(y[:, k], s[:, k], codes, metric) for k in range(y.shape[1])], codes, fewest[metric]
        )
        for metric in RANK_METRICS
    }


def macro_threshold_estimates(labels: ArrayLike, predictions: BoolArray, groups: IntArray) -> dict[str, Estimate]:
    """Return macro recall, precision, F1 and specificity of decisions, in [0, 1], larger better.

    Labels where a metric is undefined (recall without positives, precision without predictions, F1 without either) are
    left out of its mean, where scikit-learn counts 0.

    Args:
        labels: 1, 0 or NaN (left out), (n, L).
        predictions: bool (n, L).
        groups: (n,).
    """
    y, predicted = checked_ranking(labels, np.asarray(predictions, dtype=np.float64))
    codes = checked_groups(groups, len(y))
    parts: dict[str, list[Jackknifed | None]] = {"recall": [], "precision": [], "f1": [], "specificity": []}
    for k in range(y.shape[1]):
        known = ~np.isnan(y[:, k])
        positive, decided, own = y[known, k] == 1, predicted[known, k] == 1, codes[known]
        parts["recall"].append(_jackknifed_share(decided[positive], own[positive]))
        parts["precision"].append(_jackknifed_share(positive[decided], own[decided]))
        union = positive | decided
        parts["f1"].append(_jackknifed_share((positive & decided)[union], own[union], as_f1=True))
        parts["specificity"].append(_jackknifed_share(~decided[~positive], own[~positive]))
    return {metric: _mean_of(found, codes, 2) for metric, found in parts.items()}


def macro_f1(labels: FloatArray, predictions: BoolArray) -> float:
    """Return the plain mean of the labels' F1 over their known entries, as scikit-learn's with zero_division=0."""
    known = ~np.isnan(labels)
    hits = ((labels == 1) & predictions).sum(axis=0)
    size = (labels == 1).sum(axis=0) + (predictions & known).sum(axis=0)
    return float(np.mean(np.where(size > 0, 2 * hits / np.maximum(size, 1), 0.0)))


def macro_f1_without_groups(
    labels: FloatArray, predictions: BoolArray, groups: IntArray
) -> tuple[float, NDArray[np.float64]]:
    """Return `macro_f1` and its value without each group, (G,): for intervals of differences between two decisions."""
    codes = checked_groups(groups, len(labels))
    known = ~np.isnan(labels)
    hits = _sums_by_group((labels == 1) & predictions, codes)
    size = _sums_by_group(labels == 1, codes) + _sums_by_group(predictions & known, codes)
    left_hits, left_size = hits.sum(axis=0) - hits, size.sum(axis=0) - size
    without = np.where(left_size > 0, 2 * left_hits / np.maximum(left_size, 1), 0.0).mean(axis=1)
    return macro_f1(labels, predictions), np.asarray(without)


def _sums_by_group(entries: BoolArray, codes: IntArray) -> NDArray[np.float64]:
    """Return how many entries (n, L) are true in each group, (G, L)."""
    columns = [np.bincount(codes, weights=column.astype(np.float64)) for column in entries.T]
    return np.stack(columns, axis=1)


def _jackknifed_share(successes: BoolArray, groups: IntArray, *, as_f1: bool = False) -> Jackknifed | None:
    """Return a share of successes, or the F1 = 2 J / (1 + J) of a Jaccard index J; None without entries."""
    if not len(successes):
        return None
    present, own = np.unique(groups, return_inverse=True)
    found, counts = np.bincount(own, weights=successes.astype(np.float64)), np.bincount(own).astype(np.float64)
    left = counts.sum() - counts
    without = np.where(left > 0, (found.sum() - found) / np.where(left > 0, left, 1.0), np.nan)
    size = effective_size(own)

    def doubled(share: NDArray[np.float64]) -> NDArray[np.float64]:
        return 2 * share / (1 + share) if as_f1 else share

    def working(x: FloatArray) -> FloatArray:
        # The delta method: dF/dJ = 2 / (1 + J)^2 with J = F / (2 - F).
        jaccard = x / (2 - x)
        return 4 * jaccard * (1 - jaccard) / ((1 + jaccard) ** 4 * size)

    value = float(doubled(np.asarray(successes.mean())))
    variance = working if as_f1 else binomial_variance(size)
    return Jackknifed(value, doubled(without), present, variance, len(successes), len(present))


def _mean_of(parts: Sequence[Jackknifed | None], codes: IntArray, min_groups: int) -> Estimate:
    n_groups = int(codes.max(initial=-1)) + 1
    defined = [part for part in parts if part is not None]
    if not defined:
        return Estimate(math.nan, math.nan, math.nan, len(codes), n_groups, "undefined", reliable=False)
    return score_interval(
        float(np.mean([part.value for part in defined])),
        np.mean([part.over_all(n_groups) for part in defined], axis=0),
        _mean_variance([part.working for part in defined]),
        n=len(codes),
        method=METHOD,
        n_scarce=min(part.n_scarce for part in defined),
        min_groups=min_groups,
    )


def _mean_variance(parts: Sequence[VarianceFunction]) -> VarianceFunction:
    """Return the working variance of the mean of independent statistics that all have the mean's value."""
    return lambda x: np.asarray(sum(part(x) for part in parts) / len(parts) ** 2)
