"""How well labels are separated in an embedding space, as one row of numbers that settings are compared by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.metrics.centroids import cosine_silhouette
from medvlm_probe.metrics.embedding_inputs import Images, images_of
from medvlm_probe.metrics.group_jackknife import MIN_GROUPS
from medvlm_probe.metrics.held_out_accuracy import FoldValues, neighbour_accuracy, probe_accuracy
from medvlm_probe.metrics.intervals import Transform, group_folds, jackknife_interval
from medvlm_probe.metrics.neighbours import Neighbours, NeighbourSearch
from medvlm_probe.metrics.pair_sums import LabelMarks, PairSums, RowSums, label_marks, pair_sums, quotient
from medvlm_probe.metrics.pairwise import BLOCK_SIZE, Points, Space, distance_blocks, points_of
from medvlm_probe.metrics.squared_sums import SquaredSums, squared_sums
from medvlm_probe.types import Estimate, FloatArray, IntArray

N_FOLDS = 20

QUANTITIES: dict[str, str] = {
    "intra_positive": "mean distance between two positives, smaller is tighter",
    "intra_negative": "mean distance between two negatives",
    "inter": "mean distance between a positive and a negative",
    "ratio": "inter over the mean of both intra, 1 without separation, larger better",
    "silhouette": "mean cosine silhouette of the positives, -1 to 1, larger better",
    "davies_bouldin": "sum of both spreads (root mean square) over the distance of the centroids, smaller better",
    "fisher_ratio": "variance between over variance within classes, 0 without separation, larger better",
    "knn_accuracy": "balanced accuracy of nearest neighbours in other groups, .5 by chance",
    "probe_accuracy": "balanced accuracy of a linear probe on held-out groups, .5 by chance",
}
"""What a row holds, each a mean over labels."""


def labels_in_row(labels: FloatArray, groups: IntArray) -> NDArray[np.bool_]:
    """Return which labels (L,) a row is the mean of: those with at least `MIN_GROUPS` groups of either class.

    Args:
        labels: 1, 0 or NaN, (n, L).
        groups: (n,).
    """
    return np.array(
        [
            min(len(np.unique(groups[label == 1])), len(np.unique(groups[label == 0]))) >= MIN_GROUPS
            for label in np.asarray(labels).T
        ],
        dtype=bool,
    )


def separability_row(
    embeddings: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    label_names: Sequence[str] | None = None,
    space: Space = "l2",
    n_neighbors: int = 10,
    rng: np.random.Generator,
) -> dict[str, Estimate]:
    """Return how well labels are separated, a mean over labels for each of `QUANTITIES`.

    Give it held-out images only: nothing is fitted on what it scores, but a tuned model's own training images would
    flatter it. Labels with under `MIN_GROUPS` groups of either class are not in the mean (`labels_in_row`); with none
    left every number is undefined. Distances and what follows from them are U-statistics over pairs of different
    groups, free from the bias by which few positives look far apart; `davies_bouldin` and `fisher_ratio` are made from
    means over labels of such squared distances. Intervals are jackknives, over groups, or over folds of groups for
    silhouette and accuracies. Davies-Bouldin is infinite where the centroids are no further apart than chance puts
    them, and has no upper bound where that is not excluded.

    Args:
        embeddings: image vectors before normalisation, (n, d).
        labels: 1, 0 or NaN, (n,) or (n, L).
        groups: the independently sampled group (patient) of each image, (n,); None makes each its own.
        label_names: L names.
        space: `l2` (for comparing models) or `raw`; the silhouette is always of directions.
        n_neighbors: k of the neighbours.
        rng: draws the folds.

    Raises:
        InputError: as `class_distances`.

    Source: Davies and Bouldin 1979 with q = 2; Rousseeuw 1987; Fisher 1936.
    """
    images = images_of(embeddings, labels, groups, label_names=label_names)
    chosen = labels_in_row(images.labels, images.groups)
    n_labels = int(chosen.sum())
    if not n_labels:
        return dict.fromkeys(QUANTITIES, _no_label(images))
    images = replace(images, labels=np.ascontiguousarray(images.labels[:, chosen]))
    points = points_of(images.embeddings, space, images.order)
    directions = points if space == "l2" else points_of(images.embeddings, "l2", images.order)
    marks = label_marks(images.labels)
    neighbours, distances = _one_pass(points, images, marks, n_neighbors)
    squared = squared_sums(points, images.groups, marks.columns)
    folds = group_folds(images.groups, N_FOLDS, rng)
    row = _Row(images, n_labels)
    first = _LeaveOneOut.of(images, marks, distances * points.unit)
    second = _LeaveOneOut.of(images, marks, squared.sums * points.unit**2)
    return {
        "intra_positive": row.by_group(first.intra_positive.mean(axis=1), "log"),
        "intra_negative": row.by_group(first.intra_negative.mean(axis=1), "log"),
        "inter": row.by_group(first.inter.mean(axis=1), "log"),
        "ratio": row.by_group(first.mean_ratio()),
        "silhouette": row.by_fold(_silhouettes(directions, images, marks, folds), -1.0),
        "davies_bouldin": _davies_bouldin(row.by_group(_separation(second))),
        "fisher_ratio": row.by_group(_fisher_ratio(second)),
        "knn_accuracy": row.by_fold(neighbour_accuracy(neighbours, images.labels, folds), 0.0),
        "probe_accuracy": row.by_fold(probe_accuracy(points.exact(slice(None)), images.labels, folds), 0.0),
    }


def ratio_difference(
    embeddings: ArrayLike, others: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None, *, space: Space = "l2"
) -> Estimate:
    """Return by how much the ratio of `separability_row` differs between two embeddings of the same images.

    Above 0 labels lie farther apart in the first. The interval is a group jackknife of the difference itself, so what
    both share cancels.

    Args:
        embeddings, others: image vectors before normalisation, (n, d) and (n, e).
        labels, groups, space: as in `separability_row`.

    Raises:
        InputError: as `class_distances`.
    """
    ratios = []
    for vectors in (embeddings, others):
        images = images_of(vectors, labels, groups)
        images = replace(
            images, labels=np.ascontiguousarray(images.labels[:, labels_in_row(images.labels, images.groups)])
        )
        if not images.labels.shape[1]:
            n_groups = int(images.groups[-1]) + 1
            return Estimate(
                math.nan,
                math.nan,
                math.nan,
                len(images.groups),
                n_groups,
                "no label with enough groups",
                reliable=False,
            )
        points, marks = points_of(images.embeddings, space, images.order), label_marks(images.labels)
        rows = RowSums(marks.columns)
        for block in distance_blocks(points, images.groups, block_size=BLOCK_SIZE):
            block.clear_same_group()
            rows.update(block)
        ratios.append(_LeaveOneOut.of(images, marks, rows.sums * points.unit).mean_ratio())
    difference = ratios[0] - ratios[1]
    n_scarce = _Row(images, images.labels.shape[1]).n_scarce
    return jackknife_interval(float(difference[0]), difference[1:], n=len(images.groups), n_scarce=n_scarce)


def _no_label(images: Images) -> Estimate:
    n, n_groups = len(images.groups), int(images.groups[-1]) + 1
    return Estimate(math.nan, math.nan, math.nan, n, n_groups, "no label with enough groups", reliable=False)


@dataclass(frozen=True)
class _Row:
    """Turns values with and without groups into estimates of a mean over labels."""

    images: Images
    n_labels: int

    @property
    def over(self) -> str:
        return f"mean over {self.n_labels} labels" if self.n_labels > 1 else "one label"

    @property
    def n_scarce(self) -> int:
        """The fewest groups of either class that any label has."""
        found = [len(np.unique(self.images.groups[label == side])) for label in self.images.labels.T for side in (0, 1)]
        return min(found)

    def by_group(self, values: NDArray[np.float64], transform: Transform = "identity") -> Estimate:
        """Return the estimate of values (1 + G,): on all groups, then without each."""
        scale: Transform = transform if (values > 0).all() else "identity"
        return jackknife_interval(
            float(values[0]),
            values[1:],
            n=len(self.images.groups),
            method=f"{self.over}, group jackknife",
            transform=scale,
            n_scarce=self.n_scarce,
        )

    def by_fold(self, values: FoldValues, low: float) -> Estimate:
        """Return the estimate of a bounded statistic from folds of groups; its range is `low` to 1."""
        found = jackknife_interval(
            float(values.value.mean()),
            values.without.mean(axis=1),
            n=len(self.images.groups),
            method=f"{self.over}, jackknife over {len(values.without)} folds of groups",
            n_scarce=self.n_scarce,
            n_groups=int(self.images.groups[-1]) + 1,
        )
        return replace(found, low=float(np.maximum(found.low, low)), high=float(np.minimum(found.high, 1.0)))


@dataclass(frozen=True, eq=False)
class _LeaveOneOut:
    """Mean distances of each label on all groups (first row) and without each group, (1 + G, L) each."""

    intra_positive: NDArray[np.float64]
    intra_negative: NDArray[np.float64]
    inter: NDArray[np.float64]
    prevalence: NDArray[np.float64]

    @classmethod
    def of(cls, images: Images, marks: LabelMarks, sums: FloatArray) -> _LeaveOneOut:
        everyone = np.arange(int(images.groups[-1]) + 1)
        columns = []
        for k, label in enumerate(images.labels.T):
            found = pair_sums(label, images.groups, sums[:, marks.positive[k]], sums[:, marks.known[k]])
            means = [
                np.r_[value, left] for value, left in zip(found.means(), found.means_without(everyone), strict=True)
            ]
            columns.append([*means, _prevalence(found)])
        return cls(*(np.stack(part, axis=1) for part in zip(*columns, strict=True)))

    def mean_ratio(self) -> NDArray[np.float64]:
        """Return the mean over labels of inter over the mean of both intra, (1 + G,)."""
        return np.asarray((2 * self.inter / (self.intra_positive + self.intra_negative)).mean(axis=1))


def _prevalence(sums: PairSums) -> NDArray[np.float64]:
    positives = np.r_[0.0, sums.positives]
    known = positives + np.r_[0.0, sums.negatives]
    return quotient(positives.sum() - positives, known.sum() - known)


def _separation(squares: _LeaveOneOut) -> NDArray[np.float64]:
    """Return the mean squared distance of the centroids over the squared mean sum of both spreads, (1 + G,)."""
    spreads = np.sqrt(squares.intra_positive / 2) + np.sqrt(squares.intra_negative / 2)
    between = squares.inter - (squares.intra_positive + squares.intra_negative) / 2
    return quotient(between.mean(axis=1), spreads.mean(axis=1) ** 2)


def _davies_bouldin(separation: Estimate) -> Estimate:
    """Return one over the root of the separation; it has no upper bound where that of no separation is not excluded."""

    def inverse(x: float) -> float:
        return x if math.isnan(x) else 1 / math.sqrt(x) if x > 0 else math.inf

    low, high = inverse(separation.high), inverse(separation.low)
    return replace(separation, value=inverse(separation.value), low=low, high=high)


def _fisher_ratio(squares: _LeaveOneOut) -> NDArray[np.float64]:
    p = squares.prevalence
    within = p * squares.intra_positive / 2 + (1 - p) * squares.intra_negative / 2
    between = squares.inter - (squares.intra_positive + squares.intra_negative) / 2
    return np.asarray(quotient(p * (1 - p) * between, within).mean(axis=1))


def _one_pass(
    points: Points, images: Images, marks: LabelMarks, n_neighbors: int
) -> tuple[Neighbours, NDArray[np.float64]]:
    """Return the neighbours of other groups, and sums of distances to the marked images of other groups, (n, C)."""
    rows, search = RowSums(marks.columns), NeighbourSearch(len(points), n_neighbors)
    for block in distance_blocks(points, images.groups, block_size=BLOCK_SIZE):
        search.update(block)
        block.clear_same_group()
        rows.update(block)
    return search.finish(points, images.order), rows.sums


def _silhouettes(points: Points, images: Images, marks: LabelMarks, folds: IntArray) -> FoldValues:
    def values(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        part, groups = points.take(rows), images.groups[rows]
        sums: SquaredSums = squared_sums(part, groups, marks.columns[rows])
        return np.array(
            [
                cosine_silhouette(part, sums, label[rows], groups, marks, k).value
                for k, label in enumerate(images.labels.T)
            ]
        )

    everything = np.arange(len(points))
    without = [values(everything[folds != fold]) for fold in range(int(folds.max()) + 1)]
    return FoldValues(values(everything), np.stack(without))
