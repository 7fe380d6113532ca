"""The distributions of the distances within positives, within negatives and between them: exact counts, in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.embedding_inputs import images_of
from medvlm_probe.metrics.pair_sums import label_marks
from medvlm_probe.metrics.pairwise import BLOCK_SIZE, Block, Space, distance_blocks, points_of
from medvlm_probe.types import BoolArray, FloatArray

KINDS = ("intra_positive", "intra_negative", "inter")

_FINE_BINS = 4096


@dataclass(frozen=True)
class DistanceHistogram:
    """One label's distances over pairs of images of different groups.

    Attributes:
        label, space: what was compared, and in which space.
        edges: of the bins, in units of the distance, the same for all labels of a call, (b + 1,).
        counts: kind (`intra_positive`, `intra_negative`, `inter`) to the number of pairs in each bin, (b,).
        density: kind to counts over their sum and the bins' width, so that each has area 1, (b,); 0 without pairs.
    """

    label: str
    space: Space
    edges: FloatArray
    counts: dict[str, NDArray[np.int64]]
    density: dict[str, NDArray[np.float64]]


def distance_histograms(
    embeddings: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    label_names: Sequence[str] | None = None,
    space: Space = "l2",
    bins: int = 80,
    block_size: int = BLOCK_SIZE,
) -> tuple[DistanceHistogram, ...]:
    """Return every label's histograms of all distances between images of different groups, from one pass in blocks.

    Args:
        embeddings: image vectors before normalisation, (n, d).
        labels: 1, 0 or NaN, (n,) or (n, L).
        groups: the independently sampled group (patient) of each image, (n,); None makes each image its own.
        label_names: L names.
        space: `l2` or `raw`.
        bins: the most bins of equal width over the range that distances occupy, at most 4,096.
        block_size: of the distances; no result depends on it.

    Raises:
        InputError: as `class_distances`, or bins out of range.
    """
    if not 1 <= bins <= _FINE_BINS:
        raise InputError(f"{bins} bins: expected 1 to {_FINE_BINS}.")
    images = images_of(embeddings, labels, groups, label_names=label_names)
    points = points_of(images.embeddings, space, images.order)
    reach = 2.0 if space == "l2" else 2 * points.unit * float(np.sqrt(points.squared_norms.max(initial=0)))
    reach = (reach if reach > 0 else 1.0) * (1 + 1e-6)
    marks = label_marks(images.labels)
    positive, known = images.labels == 1, ~np.isnan(images.labels)
    fine = np.zeros((len(images.names), 3, _FINE_BINS), dtype=np.int64)
    for block in distance_blocks(points, images.groups, block_size=block_size):
        block.clear_same_group(value=-1.0)
        bin_of = (block.distances * np.float32(_FINE_BINS * points.unit / reach)).astype(np.int32)
        bin_of[block.distances < 0] = _FINE_BINS
        totals = {}
        for k, column in enumerate(marks.known):
            if column not in totals:
                totals[column] = _count(bin_of, block, known[:, k], known[:, k])
            within = _count(bin_of, block, positive[:, k], positive[:, k])
            negative = known[:, k] & ~positive[:, k]
            across = _count(bin_of, block, positive[:, k], negative) + _count(bin_of, block, negative, positive[:, k])
            fine[k] += np.stack([within, totals[column] - within - across, across]) * (2 if block.mirrored else 1)
    fine //= 2

    occupied = np.flatnonzero(fine.any(axis=(0, 1)))
    first, last = (int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else (0, _FINE_BINS)
    width = -(-(last - first) // bins)
    starts = np.arange(first, last, width)
    edges = reach / _FINE_BINS * np.append(starts, starts[-1] + width)
    padded = np.pad(fine, ((0, 0), (0, 0), (0, width)))[:, :, first : first + width * len(starts)]
    coarse = padded.reshape(len(images.names), 3, len(starts), width).sum(axis=3)
    return tuple(
        DistanceHistogram(
            label=name,
            space=space,
            edges=edges,
            counts=dict(zip(KINDS, counts, strict=True)),
            density={kind: c / max(1, c.sum()) / np.diff(edges) for kind, c in zip(KINDS, counts, strict=True)},
        )
        for name, counts in zip(images.names, coarse, strict=True)
    )


def _count(bin_of: NDArray[np.int32], block: Block, rows: BoolArray, columns: BoolArray) -> NDArray[np.int64]:
    """Return how many of the block's pairs from some rows to some columns fall into each fine bin."""
    down, across = np.flatnonzero(rows[block.rows]), np.flatnonzero(columns[block.columns])
    chosen = bin_of if (len(down), len(across)) == bin_of.shape else bin_of[down[:, None], across]
    return np.bincount(chosen.ravel(), minlength=_FINE_BINS + 1)[:_FINE_BINS]
