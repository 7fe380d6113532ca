"""Macro recall, precision and F1 at one threshold for all labels, for every threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.metrics.pair_sums import quotient
from medvlm_probe.metrics.ranking import checked_ranking


@dataclass(frozen=True, eq=False)
class MacroCurves:
    """Unweighted means over labels at each threshold, (T,) each, in [0, 1]; NaN where no label defines one.

    Descriptive: a threshold read off these curves was chosen on the images that they show.
    """

    threshold: NDArray[np.float64]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    f1: NDArray[np.float64]


def macro_threshold_curves(labels: ArrayLike, scores: ArrayLike, *, n_thresholds: int = 201) -> MacroCurves:
    """Return the curves at equal steps from the least to the greatest score; a label is called from its threshold on.

    As in `macro_threshold_estimates`, a label takes no part where a metric is undefined for it: recall and F1 without
    positives, precision without calls.

    Args:
        labels: 1, 0 or NaN (left out), (n, L).
        scores: finite, (n, L).
        n_thresholds: T.

    Raises:
        InputError: shapes or values that do not fit.
    """
    y, s = checked_ranking(labels, scores)
    thresholds = np.linspace(s.min(), s.max(), n_thresholds)
    parts = []
    for label, score in zip(y.T, s.T, strict=True):
        positives, known = np.sort(score[label == 1]), np.sort(score[~np.isnan(label)])
        hits = (len(positives) - np.searchsorted(positives, thresholds, side="left")).astype(np.float64)
        called = (len(known) - np.searchsorted(known, thresholds, side="left")).astype(np.float64)
        total = np.full(n_thresholds, float(len(positives)))
        f1 = np.where(total > 0, 2 * hits / np.maximum(total + called, 1), np.nan)
        parts.append((quotient(hits, total), quotient(hits, called), f1))
    recall, precision, f1 = (_mean_where_defined(np.stack(curves)) for curves in zip(*parts, strict=True))
    return MacroCurves(thresholds, recall, precision, f1)


def _mean_where_defined(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    return quotient(np.nansum(curves, axis=0), (~np.isnan(curves)).sum(axis=0))
