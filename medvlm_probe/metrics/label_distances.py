"""Distances within and between each label's positives and negatives, and nothing else: one pass, for many cohorts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from numpy.typing import ArrayLike

from medvlm_probe.metrics.embedding_inputs import images_of
from medvlm_probe.metrics.pair_sums import DistanceEstimates, RowSums, distance_estimates, label_marks, pair_sums
from medvlm_probe.metrics.pairwise import (
    BLOCK_SIZE,
    Space,
    distance_blocks,
    effective_dimensions,
    points_of,
)
from medvlm_probe.types import Estimate

MIN_EFFECTIVE_DIMENSIONS = 3.0
"""In fewer effective dimensions, intervals of contrasts that reach "no difference" are marked unreliable."""


def label_distances(
    embeddings: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    label_names: Sequence[str] | None = None,
    space: Space = "l2",
    block_size: int = BLOCK_SIZE,
) -> dict[str, DistanceEstimates]:
    """Return label to its mean distances, as `class_distances` defines them, without its tests and neighbours.

    Args:
        embeddings: image vectors before normalisation, (n, d); finite, and not zero in the space `l2`.
        labels: 1, 0 or NaN (not known), (n,) or (n, L).
        groups: the independently sampled group (patient) of each image, (n,); None makes each image its own.
        label_names: L names.
        space: `l2` compares vectors of length 1, `raw` the vectors as they are.
        block_size: rows and columns of a block of distances; no result depends on it.

    Raises:
        InputError: shapes that do not fit, values that are not finite or no labels, zero vectors.
    """
    images = images_of(embeddings, labels, groups, strata=None, label_names=label_names)
    points = points_of(images.embeddings, space, images.order)
    marks = label_marks(images.labels)
    rows = RowSums(marks.columns)
    for block in distance_blocks(points, images.groups, block_size=block_size):
        block.clear_same_group()
        rows.update(block)
    sums = rows.sums * points.unit
    flat = effective_dimensions(points) < MIN_EFFECTIVE_DIMENSIONS
    found = {}
    for k, name in enumerate(images.names):
        label = images.labels[:, k]
        pairs = pair_sums(label, images.groups, sums[:, marks.positive[k]], sums[:, marks.known[k]])
        found[name] = possible(distance_estimates(pairs, label, images.groups), space, flat=flat)
    return found


def possible(found: DistanceEstimates, space: Space, *, flat: bool) -> DistanceEstimates:
    """Return the estimates with bounds that unit vectors can have, and contrasts marked that are not to be relied on.

    Args:
        found: as estimated.
        space: of the distances: at most 2 in `l2`.
        flat: the points vary in fewer than `MIN_EFFECTIVE_DIMENSIONS` directions.
    """
    most = 2.0 if space == "l2" else math.inf
    degenerate = flat and not found.energy_distance.low > 0

    def bounded(distance: Estimate) -> Estimate:
        return distance if math.isnan(distance.high) else replace(distance, high=min(distance.high, most))

    def checked(contrast: Estimate) -> Estimate:
        return replace(contrast, reliable=contrast.reliable and not degenerate)

    return DistanceEstimates(
        bounded(found.intra_positive),
        bounded(found.intra_negative),
        bounded(found.inter),
        checked(found.ratio),
        checked(found.energy_distance),
    )
