"""Centroid distances and the cosine silhouette of a label, from sums of squared distances alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medvlm_probe.metrics.embedding_inputs import CHUNK_ROWS
from medvlm_probe.metrics.group_jackknife import class_jackknife, rarer_class
from medvlm_probe.metrics.pair_sums import LabelMarks, pair_sums, small_sample_bias
from medvlm_probe.metrics.pairwise import Points
from medvlm_probe.metrics.squared_sums import SquaredSums
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray, finite_or_none

FOLDS = 50
"""Folds of groups in each stratum of the silhouette's jackknife; where there are no more groups, each is its own."""


@dataclass(frozen=True)
class CentroidDistances:
    """Euclidean distances to and between the centroids (mean vectors) of a label's positives and negatives.

    Attributes:
        between: distance between the centroids, freed from what few images alone produce: the root of the unbiased
            squared distance E|x - y|^2 - E|x - x'|^2 / 2 - E|y - y'|^2 / 2 over pairs of different groups, 0 where that
            is negative.
        between_plug_in: distance between the two mean vectors as they are. Descriptive: too large with few positives.
        positive_spread, negative_spread: mean distance of an image to its own centroid. Descriptive: too small with
            few.
    """

    between: Estimate
    between_plug_in: float
    positive_spread: float
    negative_spread: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON objects; undefined numbers are None."""
        return {
            "between": self.between.to_json(),
            "between_plug_in": finite_or_none(self.between_plug_in),
            "positive_spread": finite_or_none(self.positive_spread),
            "negative_spread": finite_or_none(self.negative_spread),
        }


def centroid_distances(
    points: Points, squared: SquaredSums, label: FloatArray, groups: IntArray, marks: LabelMarks, k: int
) -> CentroidDistances:
    """Return the centroid distances of label k.

    Args:
        points: all images, in group order.
        squared: their sums for the columns of `marks`.
        label: column k of the labels, (n,).
        groups: ascending codes, (n,).
        marks: where label k's columns are.
        k: the label.
    """
    positive, known = marks.positive[k], marks.known[k]
    pairs = pair_sums(label, groups, squared.sums[:, positive], squared.sums[:, known])
    intra_positive, intra_negative, inter = pairs.means()
    units, rarer = rarer_class(label, groups)
    without = pairs.means_without(units)
    between = class_jackknife(
        inter - (intra_positive + intra_negative) / 2,
        without[2] - (without[0] + without[1]) / 2,
        rarer,
        n=int(squared.counts[known]),
        fewest=int(rarer.sum()),
        method="group jackknife of the squared distance",
        offset=small_sample_bias(intra_positive, intra_negative, pairs) / 2,
    )
    centroids, spreads = [], []
    squares = points.squared_norms.astype(np.float64)
    for mask, total, to_total in (
        (label == 1, squared.totals[positive], squared.to_totals[:, positive]),
        (
            label == 0,
            squared.totals[known] - squared.totals[positive],
            squared.to_totals[:, known] - squared.to_totals[:, positive],
        ),
    ):
        count = mask.sum()
        centroid = total / count if count else np.full(len(total), np.nan)
        to_centroid = squares[mask] - 2 * to_total[mask] / max(count, 1) + centroid @ centroid
        centroids.append(centroid)
        spreads.append(float(np.sqrt(np.maximum(to_centroid, 0)).sum()) / count if count else math.nan)
    unit = points.unit
    return CentroidDistances(
        between=replace(
            between, value=unit * _root(between.value), low=unit * _root(between.low), high=unit * _root(between.high)
        ),
        between_plug_in=unit * float(np.linalg.norm(centroids[0] - centroids[1])),
        positive_spread=unit * spreads[0],
        negative_spread=unit * spreads[1],
    )


def _root(square: float) -> float:
    return math.nan if math.isnan(square) else math.sqrt(max(square, 0.0))


def cosine_silhouette(
    points: Points, squared: SquaredSums, label: FloatArray, groups: IntArray, marks: LabelMarks, k: int
) -> Estimate:
    """Return the mean cosine silhouette of label k's positives against its negatives, in [-1, 1].

    For each positive, a and b are its mean cosine distances (1 - cosine) to the positives and to the negatives of other
    groups; its silhouette is (b - a) / max(a, b) (Rousseeuw 1987), above 0 where positives lie nearer to positives. The
    interval is a jackknife over groups, or over `FOLDS` folds of groups in each stratum where there are more.

    Args:
        points: all images in the space `l2`, in group order; there |x - y|^2 / 2 is the cosine distance.
        squared, label, groups, marks, k: as for `centroid_distances`.
    """
    positive = label == 1
    counts = squared.counts[marks.positive[k]], squared.counts[marks.known[k]] - squared.counts[marks.positive[k]]
    to_positives = squared.sums[positive, marks.positive[k]]
    to_negatives = squared.sums[positive, marks.known[k]] - to_positives
    n_positive = int(counts[0])
    own = groups[positive]
    n_codes = int(groups.max(initial=-1)) + 1
    other_positives = counts[0] - np.bincount(own, minlength=n_codes)[own]
    other_negatives = counts[1] - np.bincount(groups[label == 0], minlength=n_codes)[own]
    units, rarer = rarer_class(label, groups)
    fold_of_unit, rarer_fold = _folds(rarer)
    method = "group jackknife"
    if len(rarer_fold) < len(units):
        method = f"jackknife over {len(rarer_fold)} folds of groups"
    n_groups = len(np.unique(own))
    if n_groups < 2 or not (other_negatives > 0).all():
        return Estimate(math.nan, math.nan, math.nan, n_positive, n_groups, method, reliable=False)

    fold_of_group = np.full(n_codes, -1)
    fold_of_group[units] = fold_of_unit
    fold = fold_of_group[groups]
    parts = [_fold_sums(points, fold, mask, len(rarer_fold)) for mask in (positive, label == 0)]
    rows = np.flatnonzero(positive)
    without, stays = np.zeros(len(rarer_fold)), np.zeros(len(rarer_fold))
    for start in range(0, n_positive, CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        x, squares = points.centred[rows[chunk]].astype(np.float64), points.squared_norms[rows[chunk], None]
        left = [
            (total[chunk, None] - (squares * part.counts + part.squares - 2 * x @ part.totals.T))
            / _at_least_one_or_nan(members[chunk, None] - part.counts)
            for total, members, part in zip(
                (to_positives, to_negatives), (other_positives, other_negatives), parts, strict=True
            )
        ]
        other = fold[rows[chunk], None] != np.arange(len(rarer_fold))
        without += np.where(other, _silhouettes(left[0], left[1]), 0.0).sum(axis=0)
        stays += other.sum(axis=0)
    value = _silhouettes(to_positives / other_positives, to_negatives / other_negatives).mean()
    estimate = class_jackknife(
        float(value),
        without / _at_least_one_or_nan(stays),
        rarer_fold,
        n=n_positive,
        fewest=int(rarer.sum()),
        method=method,
    )
    return replace(estimate, low=max(estimate.low, -1.0), high=min(estimate.high, 1.0), n_groups=n_groups)


def _at_least_one_or_nan(counts: FloatArray) -> FloatArray:
    return np.where(counts > 0, counts, np.nan)


def _silhouettes(a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    larger = np.maximum(a, b)
    return np.asarray((b - a) / np.where(larger == 0, 1.0, larger))


@dataclass(frozen=True)
class _FoldSums:
    totals: NDArray[np.float64]
    squares: NDArray[np.float64]
    counts: NDArray[np.float64]


def _fold_sums(points: Points, fold: IntArray, mask: BoolArray, n_folds: int) -> _FoldSums:
    """Return what squared distances to each fold's images within a mask need."""
    rows = np.flatnonzero(mask)
    pick = sparse.csr_array((np.ones(len(rows), dtype=np.float32), (fold[rows], rows)), shape=(n_folds, len(points)))
    squares = np.bincount(fold[rows], points.squared_norms[rows], minlength=n_folds).astype(np.float64)
    totals = np.asarray(pick @ points.centred, dtype=np.float64)
    return _FoldSums(totals, squares, np.bincount(fold[rows], minlength=n_folds).astype(np.float64))


def _folds(rarer: BoolArray) -> tuple[IntArray, BoolArray]:
    """Return each unit's fold, and whether each fold is of the stratum of the rarer class."""
    fold = np.empty(len(rarer), dtype=np.int64)
    strata: list[bool] = []
    for stratum in (True, False):
        units = np.flatnonzero(rarer == stratum)
        n_folds = min(len(units), FOLDS)
        fold[units] = len(strata) + np.arange(len(units)) % max(1, n_folds)
        strata += [stratum] * n_folds
    return fold, np.array(strata, dtype=bool)
