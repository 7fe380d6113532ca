"""Sums of squared distances to marked images of other groups, in time linear in the number of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.embedding_inputs import CHUNK_ROWS
from medvlm_probe.metrics.pairwise import Points
from medvlm_probe.types import FloatArray, IntArray


@dataclass(frozen=True)
class SquaredSums:
    """What squared distances to C sets of images need; everything over the points' `unit`.

    Attributes:
        sums: of squared distances from each image to the marked images of other groups, (n, C).
        totals: the sum of each set's centred vectors, (C, d).
        counts: images in each set, (C,).
        to_totals: inner products of centred vectors with `totals`, (n, C).
    """

    sums: NDArray[np.float64]
    totals: NDArray[np.float64]
    counts: NDArray[np.float64]
    to_totals: NDArray[np.float64]


def squared_sums(points: Points, groups: IntArray, marks: FloatArray) -> SquaredSums:
    """Return the sums for points in group order (n, d), ascending group codes (n,) and marks of 0 and 1, (n, C)."""
    n, n_sets = marks.shape
    squares = points.squared_norms.astype(np.float64)
    counts, square_totals = marks.sum(axis=0, dtype=np.float64), squares @ marks
    totals = np.zeros((n_sets, points.centred.shape[1]))
    for start in range(0, n, CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        totals += marks[part].T.astype(np.float64) @ points.centred[part].astype(np.float64)
    to_totals = np.empty((n, n_sets))
    for start in range(0, n, CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        to_totals[part] = points.centred[part].astype(np.float64) @ totals.T
    sums = squares[:, None] * counts + square_totals - 2 * to_totals
    for rows in _groups_of_one_size(groups):
        sums[rows] -= _within(points, rows, marks)
    return SquaredSums(sums, totals, counts, to_totals)


def _groups_of_one_size(groups: IntArray) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of groups of two images or more, (g, size), about a chunk of rows at a time."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    sizes = np.diff(np.append(starts, len(groups)))
    for size in np.unique(sizes[sizes > 1]):
        first = starts[sizes == size]
        step = max(1, CHUNK_ROWS // int(size))
        for k in range(0, len(first), step):
            yield first[k : k + step, None] + np.arange(size)


def _within(points: Points, rows: IntArray, marks: FloatArray) -> NDArray[np.float64]:
    """Return sums of squared distances to the marked images of the own group, (g, size, C), for rows (g, size)."""
    x = points.centred[rows].astype(np.float64)
    mark = marks[rows].astype(np.float64)
    squares = points.squared_norms[rows].astype(np.float64)
    own_totals = np.swapaxes(mark, 1, 2) @ x
    own_squares = np.einsum("gs,gsc->gc", squares, mark)
    products = x @ np.swapaxes(own_totals, 1, 2)
    return np.asarray(squares[:, :, None] * mark.sum(axis=1)[:, None] + own_squares[:, None] - 2 * products)
