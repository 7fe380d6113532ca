"""Mean distances within and between two classes over pairs of different groups, and their jackknife over groups.

All means are U-statistics over pairs of images from different groups. Leaving a group out changes the sums only by that
group's own row sums, so one pass over the distances gives every leave-one-out value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.group_jackknife import class_jackknife, rarer_class
from medvlm_probe.metrics.pairwise import Block
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray


class RowSums:
    """Adds up each point's distances to the marked points of other groups, for C marks, over the points' unit."""

    def __init__(self, marks: FloatArray) -> None:
        self.marks = np.ascontiguousarray(marks, dtype=np.float32)
        self.sums = np.zeros(marks.shape)

    def update(self, block: Block) -> None:
        """Take a block in; distances within groups must be 0."""
        self.sums[block.rows] += block.distances @ self.marks[block.columns]
        if block.mirrored:
            self.sums[block.columns] += block.distances.T @ self.marks[block.rows]


@dataclass(frozen=True)
class LabelMarks:
    """The columns that all labels' row sums need: positives of each label, and each distinct set of known images.

    Attributes:
        columns: float32 (n, C) of 0 and 1.
        positive: column of each label's positives, (L,).
        known: column of each label's known images, (L,).
    """

    columns: NDArray[np.float32]
    positive: NDArray[np.int64]
    known: NDArray[np.int64]


def label_marks(labels: FloatArray) -> LabelMarks:
    """Return the marks of labels (n, L) of 1, 0 and NaN."""
    known, column = np.unique(~np.isnan(labels), axis=1, return_inverse=True)
    n_labels = labels.shape[1]
    columns = np.concatenate([labels == 1, known], axis=1).astype(np.float32)
    return LabelMarks(columns, np.arange(n_labels), n_labels + column.ravel())


@dataclass(frozen=True)
class PairSums:
    """Sums over ordered pairs of images from different groups, by the group of the first image.

    Attributes:
        positive_positive, positive_negative, negative_positive, negative_negative: the sum of distances from the
            group's images of the first class to the other groups' images of the second, (G,).
        positives, negatives: the group's images, (G,).
    """

    positive_positive: FloatArray
    positive_negative: FloatArray
    negative_positive: FloatArray
    negative_negative: FloatArray
    positives: FloatArray
    negatives: FloatArray

    @property
    def n_pairs(self) -> tuple[float, float, float]:
        """Ordered pairs within positives, within negatives, and from positives to negatives."""
        p, n = self.positives, self.negatives
        return (
            float(p.sum() ** 2 - p @ p),
            float(n.sum() ** 2 - n @ n),
            float(p.sum() * n.sum() - p @ n),
        )

    def means(self) -> tuple[float, float, float]:
        """Return intra_positive, intra_negative and inter; NaN where there is no pair."""
        sums = (self.positive_positive.sum(), self.negative_negative.sum(), self.positive_negative.sum())
        first, second, third = (float(quotient(s, c)) for s, c in zip(sums, self.n_pairs, strict=True))
        return first, second, third

    def means_without(self, units: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the same three means without each of some groups, (len(units),) each."""
        p, n = self.positives, self.negatives
        pairs = self.n_pairs
        total_p, total_n = p.sum(), n.sum()
        p, n = p[units], n[units]
        intra_positive = self.positive_positive.sum() - 2 * self.positive_positive[units]
        intra_negative = self.negative_negative.sum() - 2 * self.negative_negative[units]
        inter = self.positive_negative.sum() - self.positive_negative[units] - self.negative_positive[units]
        left = (
            pairs[0] - 2 * p * (total_p - p),
            pairs[1] - 2 * n * (total_n - n),
            pairs[2] - p * (total_n - n) - n * (total_p - p),
        )
        return quotient(intra_positive, left[0]), quotient(intra_negative, left[1]), quotient(inter, left[2])


def pair_sums(label: FloatArray, groups: IntArray, to_positives: FloatArray, to_known: FloatArray) -> PairSums:
    """Return the pair sums of one label.

    Args:
        label: 1, 0 or NaN, (n,).
        groups: codes, (n,).
        to_positives, to_known: each image's sum of distances to the other groups' positives and known images, (n,).
    """
    n_codes = int(groups.max(initial=-1)) + 1
    positive, negative = label == 1, label == 0
    to_negatives = to_known - to_positives

    def by_group(mask: BoolArray, values: FloatArray) -> FloatArray:
        return np.bincount(groups[mask], values[mask], minlength=n_codes).astype(np.float64)

    ones = np.ones(len(label))
    return PairSums(
        by_group(positive, to_positives),
        by_group(positive, to_negatives),
        by_group(negative, to_positives),
        by_group(negative, to_negatives),
        by_group(positive, ones),
        by_group(negative, ones),
    )


def small_sample_bias(intra_positive: float, intra_negative: float, sums: PairSums) -> float:
    """Return how much larger the energy distance of the two samples as they are is than its unbiased estimate.

    Each class's mean distance over its effective number of groups, (sum p)^2 / sum p^2.
    """
    p, n = sums.positives, sums.negatives
    return float(intra_positive * quotient(p @ p, p.sum() ** 2) + intra_negative * quotient(n @ n, n.sum() ** 2))


@dataclass(frozen=True)
class DistanceEstimates:
    """The means and what is made of them; see `class_distances` for the definitions."""

    intra_positive: Estimate
    intra_negative: Estimate
    inter: Estimate
    ratio: Estimate
    energy_distance: Estimate


def distance_estimates(sums: PairSums, label: FloatArray, groups: IntArray) -> DistanceEstimates:
    """Return the five estimates of one label with their jackknife intervals over groups."""
    intra_positive, intra_negative, inter = sums.means()

    def within(value: float, counts: FloatArray, which: int) -> Estimate:
        units = np.flatnonzero(counts)
        without = sums.means_without(units)[which]
        return class_jackknife(
            value, without, np.zeros(len(units), dtype=bool), n=int(counts.sum()), fewest=len(units), log=True
        )

    units, rarer = rarer_class(label, groups)
    without = sums.means_without(units)
    n, fewest = int(sums.positives.sum() + sums.negatives.sum()), int(rarer.sum())
    spread, spread_without = (intra_positive + intra_negative) / 2, (without[0] + without[1]) / 2
    bias = small_sample_bias(intra_positive, intra_negative, sums)
    ratio, ratio_without = quotient(inter, spread), quotient(without[2], spread_without)
    ratio_offset = float(quotient(bias, 2 * spread)) - 1
    return DistanceEstimates(
        intra_positive=within(intra_positive, sums.positives, 0),
        intra_negative=within(intra_negative, sums.negatives, 1),
        inter=class_jackknife(inter, without[2], rarer, n=n, fewest=fewest, log=True),
        ratio=class_jackknife(float(ratio), ratio_without, rarer, n=n, fewest=fewest, offset=ratio_offset),
        energy_distance=class_jackknife(
            2 * (inter - spread), 2 * (without[2] - spread_without), rarer, n=n, fewest=fewest, offset=bias
        ),
    )


def quotient(numerator: FloatArray | float, denominator: FloatArray | float) -> NDArray[np.float64]:
    """Return numerator / denominator, NaN where that is undefined."""
    below = np.asarray(denominator, dtype=np.float64)
    return np.asarray(numerator / np.where(below > 0, below, np.nan))
