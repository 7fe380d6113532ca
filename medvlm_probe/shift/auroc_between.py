"""AUROC over pairs of images of different patients and of one fold, weighted, and without each patient in turn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.intervals import auroc_variance, effective_size, score_interval
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class FoldAuroc:
    """An AUROC in [0, 1], NaN without a pair, and its value without each group, (G,)."""

    value: float
    without: NDArray[np.float64]


def fold_auroc(
    positive: BoolArray, scores: FloatArray, groups: IntArray, folds: IntArray, weights: FloatArray
) -> FoldAuroc:
    """Return how often a positive scores above a negative of its own fold and of another group; ties are half.

    Scores of different folds come from different fits, whose offsets under no signal run against the labels: pairs
    across folds would put a useless classifier below .5.

    Args:
        positive: (n,).
        scores: (n,).
        groups: codes 0 ... G - 1, each within one fold, (n,).
        folds: (n,).
        weights: of images, (n,); a pair weighs the product.
    """
    signed = np.where(positive, weights, -weights)
    won, pairs = _sums_over_pairs(signed, scores, folds)
    own_won, own_pairs = _sums_over_pairs(signed, scores, groups)
    n_groups = int(groups.max(initial=-1)) + 1

    def by_group(values: FloatArray, mask: BoolArray) -> NDArray[np.float64]:
        return np.bincount(groups[mask], weights=values[mask], minlength=n_groups).astype(np.float64)

    everything = np.ones(len(groups), dtype=bool)
    numerator = float((won - own_won)[positive].sum())
    denominator = float((pairs - own_pairs)[positive].sum())
    left_won = numerator - by_group(won - own_won, everything)
    left_pairs = denominator - by_group(pairs - own_pairs, everything)
    least = 1e-9 * max(denominator, 1e-300)
    without = np.where(left_pairs > least, left_won / np.where(left_pairs > least, left_pairs, 1.0), np.nan)
    value = numerator / denominator if denominator > 0 else float("nan")
    return FoldAuroc(value, np.clip(without, 0.0, 1.0))


def _sums_over_pairs(
    signed: FloatArray, scores: FloatArray, segments: IntArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each image's won pairs and its pairs with the other kind in its segment, by weight, (n,) each.

    Args:
        signed: weights, below 0 for negatives.
        scores, segments: (n,).
    """
    order = np.lexsort((scores, segments))
    s, where, w = scores[order], segments[order], signed[order]
    positives, negatives = np.maximum(w, 0.0), np.maximum(-w, 0.0)
    new_segment = np.r_[True, where[1:] != where[:-1]]
    new_run = new_segment | np.r_[True, s[1:] != s[:-1]]
    run, segment = np.cumsum(new_run) - 1, np.cumsum(new_segment) - 1
    run_segment = segment[new_run]
    sums = {}
    for name, part in (("positive", positives), ("negative", negatives)):
        tied = np.bincount(run, weights=part)
        total = np.bincount(segment, weights=part)
        before = np.cumsum(tied) - tied
        starts = np.flatnonzero(np.r_[True, run_segment[1:] != run_segment[:-1]])
        below = before - before[starts][run_segment] + tied / 2
        sums[name] = below[run], total[segment]
    won, pairs = np.empty(len(w)), np.empty(len(w))
    below_negatives, all_negatives = sums["negative"]
    below_positives, all_positives = sums["positive"]
    won[order] = np.where(w > 0, w * below_negatives, -w * (all_positives - below_positives))
    pairs[order] = np.where(w > 0, w * all_negatives, -w * all_positives)
    return won, pairs


def auroc_estimate(
    auroc: FoldAuroc,
    positive: BoolArray,
    groups: IntArray,
    weights: FloatArray,
    *,
    method: str,
    null_deviation: float = 0.0,
) -> Estimate:
    """Return the AUROC with its score interval.

    Args:
        auroc: by `fold_auroc`.
        positive, groups, weights: as there.
        method: how tables name the interval.
        null_deviation: the AUROC's standard deviation where there is no signal, classifiers fitted anew. What it has
            beyond the given classifiers' is what their training on few groups adds; the interval is that much wider.
    """
    sizes = [_effective(groups[mask], weights[mask]) for mask in (positive, ~positive)]
    n_scarce = min(len(np.unique(groups[mask])) for mask in (positive, ~positive))
    working = auroc_variance(*sizes)
    wider = max(1.0, null_deviation / math.sqrt(float(working(np.asarray(0.5)))))
    return score_interval(
        auroc.value,
        auroc.value + wider * (auroc.without - auroc.value),
        lambda x: wider**2 * working(x),
        n=len(groups),
        method=method,
        n_scarce=n_scarce,
        min_groups=10,
    )


def _effective(groups: IntArray, weights: FloatArray) -> float:
    """Return what the images are worth; groups of weight 1 in all are worth one each and more by what they hold."""
    if not len(groups):
        return 1.0
    plain = effective_size(groups)
    return max(1.0, plain if np.ptp(weights) == 0 else min(plain, float(weights.sum()) ** 2 / float(weights @ weights)))
