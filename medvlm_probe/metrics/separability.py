"""How far a label's positives lie from its negatives in an embedding space, with honest intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.metrics.centroids import CentroidDistances, centroid_distances, cosine_silhouette
from medvlm_probe.metrics.cross_site import CrossSiteDistances, cross_site_distances
from medvlm_probe.metrics.crowding import Crowding, crowding
from medvlm_probe.metrics.distance_histograms import DistanceHistogram, distance_histograms
from medvlm_probe.metrics.embedding_inputs import Images, images_of
from medvlm_probe.metrics.energy_test import EnergyTest, energy_permutation_test
from medvlm_probe.metrics.label_distances import MIN_EFFECTIVE_DIMENSIONS, possible
from medvlm_probe.metrics.legacy_separability import LegacySeparability, legacy_separability
from medvlm_probe.metrics.neighbours import Neighbours, NeighbourSearch, label_purity
from medvlm_probe.metrics.pair_sums import LabelMarks, RowSums, distance_estimates, label_marks, pair_sums
from medvlm_probe.metrics.pairwise import (
    BLOCK_SIZE,
    Points,
    Space,
    distance_blocks,
    effective_dimensions,
    points_of,
    row_norms,
)
from medvlm_probe.metrics.resampling import holm
from medvlm_probe.metrics.squared_sums import SquaredSums, squared_sums
from medvlm_probe.types import Estimate, TestResult, finite_or_none

__all__ = [
    "CentroidDistances",
    "ClassDistances",
    "CrossSiteDistances",
    "Crowding",
    "DistanceHistogram",
    "LegacySeparability",
    "class_distances",
    "cross_site_distances",
    "crowding",
    "distance_histograms",
    "legacy_separability",
]

TOO_FEW = 10
"""Below so many positives or negatives a label is marked `too_few`."""


@dataclass(frozen=True)
class ClassDistances:
    """How one label's positives and negatives lie in an embedding space.

    Unknown labels are left out. All means are over pairs of images of different groups (patients), each pair with the
    same weight, so that two images of one patient never count as close.

    Attributes:
        label, space: what was compared, and in which space.
        n_positive, n_negative, n_unknown: images; n_groups: groups with a known label.
        too_few: fewer than 10 positives or negatives.
        prevalence: positives among the known, in [0, 1]: what `neighbour_purity` is compared with.
        intra_positive, intra_negative, inter: mean Euclidean distance within positives, within negatives, and between a
            positive and a negative; at least 0, at most 2 in the space `l2`.
        ratio: inter over the mean of intra_positive and intra_negative. 1 where the classes do not differ, above 1
            where they do; ratio - 1 is the energy distance over (intra_positive + intra_negative).
        energy_distance: 2 inter - intra_positive - intra_negative on all images (Szekely and Rizzo 2013; unbiased, so
            it can be negative), its permutation p-value (one-sided) and that after Holm's correction over the labels.
            The p-value is NaN without `rng`.
        energy_distance_estimate: the same with its interval.
        n_tested: images that the permutation test used; n_not_tested: those it left out (see `class_distances`).
        centroids: distances to and between the classes' mean vectors.
        neighbour_purity: share of positives among the k nearest neighbours (of other groups) of positives, in [0, 1].
        silhouette: mean cosine silhouette of the positives, in [-1, 1].
    """

    label: str
    space: Space
    n_positive: int
    n_negative: int
    n_unknown: int
    n_groups: int
    too_few: bool
    prevalence: float
    intra_positive: Estimate
    intra_negative: Estimate
    inter: Estimate
    ratio: Estimate
    energy_distance: TestResult
    energy_distance_estimate: Estimate
    n_tested: int
    n_not_tested: int
    centroids: CentroidDistances
    neighbour_purity: Estimate
    silhouette: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON objects; undefined numbers are None."""
        return {
            "label": self.label,
            "space": self.space,
            "n_positive": self.n_positive,
            "n_negative": self.n_negative,
            "n_unknown": self.n_unknown,
            "n_groups": self.n_groups,
            "too_few": self.too_few,
            "prevalence": finite_or_none(self.prevalence),
            "intra_positive": self.intra_positive.to_json(),
            "intra_negative": self.intra_negative.to_json(),
            "inter": self.inter.to_json(),
            "ratio": self.ratio.to_json(),
            "energy_distance": self.energy_distance.to_json(),
            "energy_distance_estimate": self.energy_distance_estimate.to_json(),
            "n_tested": self.n_tested,
            "n_not_tested": self.n_not_tested,
            "centroids": self.centroids.to_json(),
            "neighbour_purity": self.neighbour_purity.to_json(),
            "silhouette": self.silhouette.to_json(),
        }


def class_distances(
    embeddings: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    label_names: Sequence[str] | None = None,
    space: Space = "l2",
    strata: ArrayLike | None = None,
    n_neighbors: int = 10,
    n_permutations: int = 9_999,
    max_permutation_images: int = 4_000,
    block_size: int = BLOCK_SIZE,
    rng: np.random.Generator | None = None,
) -> tuple[ClassDistances, ...]:
    """Return how each label's positives and negatives lie in an embedding space.

    All labels share one pass over the distances, in blocks: memory O(n (d + L) + block_size^2), exact for any n, no
    random subset. Intervals are jackknifes over groups; where simulation shows that they fail they are marked
    unreliable: with fewer than 10 groups of the rarer class, and, for the contrasts (ratio, energy distance, distance
    between centroids, silhouette), where the energy distance's interval reaches 0 in a space of fewer than 3 effective
    dimensions (there its variance vanishes to first order). What is undefined (no or one positive, all images in one
    group) is NaN.

    The permutation test exchanges whole label vectors among groups of equal size within a stratum. It costs n^2 per
    permutation, so above `max_permutation_images` it uses a random subset of whole groups, in which those that hold
    positives of rare labels are favoured; images without a partner of their group's size are left out too. Both are
    counted in `n_not_tested`; the statistic reported is that of all images.

    Args:
        embeddings: image vectors before normalisation, (n, d); finite, and not zero in the space `l2`.
        labels: 1 (present), 0 (absent) or NaN (not known), (n,) for one label or (n, L).
        groups: the independently sampled group (patient) of each image, (n,); None makes each image its own.
        label_names: L names.
        space: `l2` compares vectors of length 1, `raw` the vectors as they are.
        strata: sites, (n,): permutations stay within them.
        n_neighbors: k of the neighbour purity. The graph is over all images of other groups, whatever is known of them.
        n_permutations: B; 9,999 or more for a p-value that people read.
        max_permutation_images: the most images in the permutation test.
        block_size: rows and columns of a block of distances; no result depends on it.
        rng: draws the permutations. None runs no test.

    Raises:
        InputError: shapes that do not fit, values that are not finite or no labels, zero vectors.
    """
    images = images_of(embeddings, labels, groups, strata=strata, label_names=label_names)
    points = points_of(images.embeddings, space, images.order)
    measured = _measure(images, points, n_neighbors, block_size)
    test = None
    if rng is not None and n_permutations > 0:
        test = energy_permutation_test(
            points,
            images.labels,
            images.groups,
            images.strata,
            n_permutations=n_permutations,
            max_images=max_permutation_images,
            rng=rng,
        )
    flat = effective_dimensions(points) < MIN_EFFECTIVE_DIMENSIONS
    entries = [_describe(k, images, measured, flat) for k in range(len(images.names))]
    return tuple(_with_test(entries, test))


@dataclass(frozen=True)
class _Measured:
    """What all labels share: sums of distances and of squared ones, neighbours, and the same for unit vectors."""

    points: Points
    marks: LabelMarks
    distance_sums: NDArray[np.float64]
    neighbours: Neighbours
    squared: SquaredSums
    cosine: tuple[Points, SquaredSums] | None


def _measure(images: Images, points: Points, n_neighbors: int, block_size: int) -> _Measured:
    marks = label_marks(images.labels)
    rows = RowSums(marks.columns)
    search = NeighbourSearch(len(points), n_neighbors)
    for block in distance_blocks(points, images.groups, block_size=block_size):
        search.update(block)
        block.clear_same_group()
        rows.update(block)
    squared = squared_sums(points, images.groups, marks.columns)
    cosine: tuple[Points, SquaredSums] | None = None
    if points.space == "l2":
        cosine = points, squared
    elif row_norms(images.embeddings).all():
        directions = points_of(images.embeddings, "l2", images.order)
        cosine = directions, squared_sums(directions, images.groups, marks.columns)
    neighbours = search.finish(points, images.order)
    return _Measured(points, marks, rows.sums * points.unit, neighbours, squared, cosine)


def _describe(k: int, images: Images, measured: _Measured, flat: bool) -> ClassDistances:
    """Return label k's entry, before any permutation test."""
    label, groups, marks = images.labels[:, k], images.groups, measured.marks
    n_positive, n_negative = int((label == 1).sum()), int((label == 0).sum())
    n_known = n_positive + n_negative
    to_positives, to_known = measured.distance_sums[:, marks.positive[k]], measured.distance_sums[:, marks.known[k]]
    pairs = pair_sums(label, groups, to_positives, to_known)
    found = possible(distance_estimates(pairs, label, groups), measured.points.space, flat=flat)
    centroids = centroid_distances(measured.points, measured.squared, label, groups, marks, k)
    silhouette = Estimate(np.nan, np.nan, np.nan, n_positive, 0, "undefined: zero vectors", reliable=False)
    if measured.cosine is not None:
        silhouette = cosine_silhouette(*measured.cosine, label, groups, marks, k)
    degenerate = flat and not found.energy_distance.low > 0

    def checked(estimate: Estimate) -> Estimate:
        return replace(estimate, reliable=estimate.reliable and not degenerate)

    return ClassDistances(
        label=images.names[k],
        space=measured.points.space,
        n_positive=n_positive,
        n_negative=n_negative,
        n_unknown=len(label) - n_known,
        n_groups=len(np.unique(groups[~np.isnan(label)])),
        too_few=min(n_positive, n_negative) < TOO_FEW,
        prevalence=n_positive / n_known if n_known else np.nan,
        intra_positive=found.intra_positive,
        intra_negative=found.intra_negative,
        inter=found.inter,
        ratio=found.ratio,
        energy_distance=TestResult(found.energy_distance.value, np.nan),
        energy_distance_estimate=found.energy_distance,
        n_tested=0,
        n_not_tested=len(label),
        centroids=replace(centroids, between=checked(centroids.between)),
        neighbour_purity=label_purity(measured.neighbours, label, groups),
        silhouette=checked(silhouette),
    )


def _with_test(entries: list[ClassDistances], test: EnergyTest | None) -> list[ClassDistances]:
    """Return the entries with the p-values of the permutation test, corrected as one family."""
    if test is None:
        return entries
    tested = zip(entries, test.p_values, holm(test.p_values), strict=True)
    return [
        replace(
            entry,
            energy_distance=TestResult(entry.energy_distance.statistic, float(p_value), float(p_adjusted)),
            n_tested=test.n_images,
            n_not_tested=test.n_left_out,
        )
        for entry, p_value, p_adjusted in tested
    ]
