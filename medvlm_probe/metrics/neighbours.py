"""The graph of nearest neighbours outside the own group, and how pure a label is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.group_jackknife import class_jackknife, rarer_class
from medvlm_probe.metrics.pairwise import Block, Points
from medvlm_probe.types import Estimate, FloatArray, IntArray

SPARE_NEIGHBOURS = 8
"""Neighbours kept beyond k: they absorb float32 ties, and stand in when the jackknife leaves a group out."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of each point among the points of other groups.

    Attributes:
        indices: positions, nearest first, int64 (n, k + spare); -1 where other groups hold fewer points.
        n_neighbors: k; the columns beyond are spare.
    """

    indices: NDArray[np.int64]
    n_neighbors: int

    @property
    def nearest(self) -> NDArray[np.int64]:
        """The k nearest, (n, k), -1 where there are fewer."""
        return self.indices[:, : self.n_neighbors]


class NeighbourSearch:
    """Keeps the nearest columns of each row while blocks of distances go by."""

    def __init__(self, n: int, n_neighbors: int) -> None:
        if n_neighbors < 1:
            raise InputError(f"{n_neighbors} neighbours: expected at least 1.")
        self.n_neighbors = n_neighbors
        self.distances = np.full((n, n_neighbors + SPARE_NEIGHBOURS), np.inf, dtype=np.float32)
        self.indices = np.full(self.distances.shape, -1, dtype=np.int64)

    def update(self, block: Block) -> None:
        """Take a block in; distances within groups must still be infinite."""
        self._merge(block.distances, block.rows.start, block.columns.start, block.rows)
        if block.mirrored:
            self._merge(block.distances.T, block.columns.start, block.rows.start, block.columns)

    def _merge(self, distances: NDArray[np.float32], first_row: int, first_column: int, rows: slice) -> None:
        closer = distances < self.distances[rows].max(axis=1)[:, None]
        # Of a transposed view, nonzero on the contiguous transpose is several times faster; a stable sort restores
        # rows.
        if closer.flags.c_contiguous:
            i, j = np.divmod(np.flatnonzero(closer), closer.shape[1])
        else:
            j, i = np.divmod(np.flatnonzero(closer.T), closer.shape[0])
            by_row = np.argsort(i, kind="stable")
            i, j = i[by_row], j[by_row]
        if not i.size:
            return
        counts = np.bincount(i, minlength=len(distances))
        changed = np.flatnonzero(counts)
        slot = np.arange(len(i)) - np.repeat((np.cumsum(counts) - counts)[changed], counts[changed])
        line = np.repeat(np.arange(len(changed)), counts[changed])
        width = self.distances.shape[1]
        merged = np.full((len(changed), width + int(counts.max())), np.inf, dtype=np.float32)
        where = np.full(merged.shape, -1, dtype=np.int64)
        merged[:, :width] = self.distances[changed + first_row]
        where[:, :width] = self.indices[changed + first_row]
        merged[line, width + slot] = distances[i, j]
        where[line, width + slot] = j + first_column
        best = np.argpartition(merged, width - 1, axis=1)[:, :width]
        self.distances[changed + first_row] = np.take_along_axis(merged, best, axis=1)
        self.indices[changed + first_row] = np.take_along_axis(where, best, axis=1)

    def finish(self, points: Points, tie_order: IntArray) -> Neighbours:
        """Return the neighbours in the order of their float64 distances; ties go by `tie_order` (n,)."""
        i, slot = np.nonzero(self.indices >= 0)
        exact = np.full(self.indices.shape, np.inf)
        exact[i, slot] = points.exact_distances(i, points, self.indices[i, slot])
        ties = np.where(self.indices >= 0, tie_order[self.indices], len(tie_order))
        order = np.lexsort((ties, exact), axis=1)
        return Neighbours(np.take_along_axis(self.indices, order, axis=1), self.n_neighbors)


def label_purity(neighbours: Neighbours, label: FloatArray, groups: IntArray) -> Estimate:
    """Return the share of positives among the k nearest neighbours of positives, in [0, 1].

    Neighbours whose label is unknown count neither above nor below the line. The interval is a jackknife over groups:
    each group is left out as a source and as a neighbour, the next nearest moving up. A share of exactly 0 or 1 has no
    jackknife variance; its open end is then the one-sided bound of a binomial with one trial per group of positives.

    Args:
        neighbours: of all points, in group order.
        label: 1, 0 or NaN, (n,).
        groups: ascending codes, (n,).
    """
    sources = np.flatnonzero(label == 1)
    method = f"{neighbours.n_neighbors}-NN share, group jackknife"
    found = neighbours.indices[sources]
    known = (found >= 0) & ~np.isnan(label)[found]
    positive = known & (label[found] == 1)
    k = neighbours.n_neighbors
    hits, seen = positive[:, :k].sum(axis=1), known[:, :k].sum(axis=1)
    n_groups = len(np.unique(groups[sources]))
    if not seen.sum():
        return Estimate(math.nan, math.nan, math.nan, len(sources), n_groups, method, reliable=False)

    value = hits.sum() / seen.sum()
    n_codes = int(groups[-1]) + 1
    lost_hits = np.bincount(groups[sources], hits, minlength=n_codes)
    lost_seen = np.bincount(groups[sources], seen, minlength=n_codes)
    owner = np.where(found >= 0, groups[found], -1)
    for slot in range(k):
        left_out = owner[:, slot]
        first = (left_out >= 0) & (owner[:, :slot] != left_out[:, None]).all(axis=1)
        stays = owner != left_out[:, None]
        moves_up = stays & (np.cumsum(stays, axis=1) <= k)
        lost_hits += np.bincount(left_out[first], (hits - (positive & moves_up).sum(axis=1))[first], minlength=n_codes)
        lost_seen += np.bincount(left_out[first], (seen - (known & moves_up).sum(axis=1))[first], minlength=n_codes)

    units, rarer = rarer_class(label, groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        leave_one_out = (hits.sum() - lost_hits[units]) / (seen.sum() - lost_seen[units])
    estimate = class_jackknife(
        float(value), leave_one_out, rarer, n=len(sources), fewest=int(rarer.sum()), method=method
    )
    low, high = max(estimate.low, 0.0), min(estimate.high, 1.0)
    if value in (0.0, 1.0):
        open_end = 1 - 0.025 ** (1 / n_groups)
        low, high = (0.0, open_end) if value == 0 else (1 - open_end, 1.0)
    return replace(estimate, low=low, high=high, n_groups=n_groups)
