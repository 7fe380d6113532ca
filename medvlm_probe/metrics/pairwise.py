"""Euclidean distances between all pairs of embeddings in blocks: float32 where that is safe, float64 elsewhere.

The Gram identity |x - y|^2 = |x|^2 + |y|^2 - 2 x.y is as fast as a matrix product, and cancels where two points lie
close together against their norms. Centring makes the norms small; squared distances that are still small against them
are computed again from the difference in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.embedding_inputs import CHUNK_ROWS, rows_in_words
from medvlm_probe.types import BoolArray, FloatArray, IntArray

Space = Literal["l2", "raw"]

BLOCK_SIZE = 512

# Relative to |x|^2 + |y|^2. float32 rounding of a squared distance is near 2e-7 of that sum, so above the first limit a
# distance is right to about 3e-6; a float64 product is trusted down to the second.
_SAFE_IN_FLOAT32 = 1 / 32
_SAFE_IN_FLOAT64 = 1e-7
_WHOLE_BLOCK_SHARE = 1 / 32
_EXACT_ENTRIES = 2**17  # vector entries compared at once: they stay in the cache


@dataclass(frozen=True)
class Points:
    """Embeddings in a declared space, centred and scaled for float32.

    Attributes:
        centred: float32 (n, d): the points minus their mean, over `unit`.
        squared_norms: of `centred`, float32 (n,).
        unit: distances between rows of `centred` times this are distances between the points.
        source, scale, rows: point i is `source[rows[i]] * scale[rows[i]]`, in float64.
        space: `"l2"` (vectors of length 1, distances in [0, 2]) or `"raw"`.
    """

    centred: NDArray[np.float32]
    squared_norms: NDArray[np.float32]
    unit: float
    source: FloatArray
    scale: NDArray[np.float64]
    rows: IntArray
    space: Space

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: IntArray) -> Points:
        """Return some of the points, with the same centre and unit."""
        return Points(
            self.centred[positions],
            self.squared_norms[positions],
            self.unit,
            self.source,
            self.scale,
            self.rows[positions],
            self.space,
        )

    def exact(self, positions: IntArray | slice) -> NDArray[np.float64]:
        """Return points in float64, uncentred, (m, d)."""
        rows = self.rows[positions]
        return np.asarray(self.source[rows], dtype=np.float64) * self.scale[rows, None]

    def exact_distances(self, i: IntArray, other: Points, j: IntArray) -> NDArray[np.float64]:
        """Return distances of paired points in float64 from their differences, over `unit`, (m,)."""
        result = np.empty(len(i))
        step = max(1, _EXACT_ENTRIES // self.centred.shape[1])
        for start in range(0, len(i), step):
            part = slice(start, start + step)
            difference = (self.exact(i[part]) - other.exact(j[part])) / self.unit
            result[part] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
        return result


def points_of(embeddings: FloatArray, space: Space, rows: IntArray) -> Points:
    """Return rows of finite embeddings (n, d) as points; in the space `l2` a zero vector is refused."""
    if space not in get_args(Space):
        raise InputError(f"Space '{space}' is not known: expected 'l2' (normalised) or 'raw'.")
    norms = row_norms(embeddings)
    if space == "l2":
        refuse_zero_vectors(norms)
    scale = 1 / norms if space == "l2" else np.ones(len(embeddings))
    chunks = [slice(start, start + CHUNK_ROWS) for start in range(0, len(rows), CHUNK_ROWS)]

    def exact(chunk: slice) -> NDArray[np.float64]:
        return np.asarray(embeddings[rows[chunk]], dtype=np.float64) * scale[rows[chunk], None]

    mean = sum((exact(chunk).sum(axis=0) for chunk in chunks), np.zeros(embeddings.shape[1])) / len(rows)
    squares = np.concatenate([((exact(chunk) - mean) ** 2).sum(axis=1) for chunk in chunks])
    unit = float(np.sqrt(squares.mean()))
    unit = unit if unit > 0 else 1.0
    centred = np.empty((len(rows), embeddings.shape[1]), dtype=np.float32)
    for chunk in chunks:
        centred[chunk] = (exact(chunk) - mean) / unit
    return Points(centred, (squares / unit**2).astype(np.float32), unit, embeddings, scale, rows, space)


def row_norms(embeddings: FloatArray) -> NDArray[np.float64]:
    """Return the length of each row in float64, (n,); rows whose length overflows are refused."""
    norms = np.empty(len(embeddings))
    for start in range(0, len(embeddings), CHUNK_ROWS):
        chunk = np.asarray(embeddings[start : start + CHUNK_ROWS], dtype=np.float64)
        norms[start : start + CHUNK_ROWS] = np.sqrt(np.einsum("ij,ij->i", chunk, chunk))
    too_long = np.flatnonzero(~np.isfinite(norms))
    if too_long.size:
        raise InputError(f"Embeddings too large for float64 in {rows_in_words(too_long)}: scale them down first.")
    return norms


def refuse_zero_vectors(norms: FloatArray) -> None:
    """Raise if a vector has no direction."""
    zero = np.flatnonzero(norms == 0)
    if zero.size:
        raise InputError(
            f"Embeddings are zero vectors in {rows_in_words(zero)}, which cannot be normalised: "
            "leave these images out, or use the raw space."
        )


def effective_dimensions(points: Points) -> float:
    """Return the participation ratio (tr C)^2 / tr(C^2) of the points' covariance C: 1 on a line, d where all
    directions vary alike; NaN where all points coincide.
    """
    x = points.centred
    gram = (x.T @ x if x.shape[1] < len(x) else x @ x.T).astype(np.float64)
    total = float((gram * gram).sum())
    return float(np.trace(gram)) ** 2 / total if total > 0 else float("nan")


@dataclass(frozen=True)
class Block:
    """Distances between a run of rows and a run of columns.

    Attributes:
        rows, columns: positions of the points.
        distances: float32, over the points' `unit`; infinite within a group. The memory is used again for the next
            block.
        same_group: where row and column belong to one group; None where no pair does.
        mirrored: the same pairs stand for columns and rows too (an off-diagonal block of a symmetric matrix).
    """

    rows: slice
    columns: slice
    distances: NDArray[np.float32]
    same_group: BoolArray | None
    mirrored: bool

    def clear_same_group(self, value: float = 0.0) -> None:
        """Set the distances within groups to a value."""
        if self.same_group is not None:
            self.distances[self.same_group] = value


def distance_blocks(
    rows: Points,
    row_groups: IntArray,
    columns: Points | None = None,
    column_groups: IntArray | None = None,
    *,
    block_size: int = BLOCK_SIZE,
) -> Iterator[Block]:
    """Yield all distances between two sets of points, or the upper triangle of blocks within one.

    Groups (n,) must be ascending: then only blocks near the diagonal hold pairs of one group. Memory: one block.

    Args:
        rows, columns: points with one centre and unit; without columns, the pairs within `rows`.
        row_groups, column_groups: codes of the independently sampled groups.
        block_size: rows and columns of a block.
    """
    symmetric = columns is None
    if columns is None or column_groups is None:
        columns, column_groups = rows, row_groups
    buffer = np.empty(block_size * block_size, dtype=np.float32)
    for i in range(0, len(rows), block_size):
        down = slice(i, min(i + block_size, len(rows)))
        doubled = -2 * rows.centred[down]
        for j in range(i if symmetric else 0, len(columns), block_size):
            across = slice(j, min(j + block_size, len(columns)))
            shape = (down.stop - down.start, across.stop - across.start)
            squares = buffer[: shape[0] * shape[1]].reshape(shape)
            np.matmul(doubled, columns.centred[across].T, out=squares)
            squares += rows.squared_norms[down, None]
            squares += columns.squared_norms[None, across]
            same = None
            if row_groups[i] <= column_groups[across.stop - 1] and column_groups[j] <= row_groups[down.stop - 1]:
                same = row_groups[down, None] == column_groups[None, across]
                squares[same] = np.inf
            _mend(squares, rows, down, columns, across)
            yield Block(down, across, np.sqrt(squares, out=squares), same, mirrored=symmetric and j > i)


def _mend(squares: NDArray[np.float32], rows: Points, down: slice, columns: Points, across: slice) -> None:
    """Replace the squared distances that float32 cancellation spoils."""
    a, b = rows.squared_norms[down], columns.squared_norms[across]
    if squares.min() >= _SAFE_IN_FLOAT32 * (a.max() + b.max()):
        return
    i, j = np.nonzero(squares < _SAFE_IN_FLOAT32 * np.add.outer(a, b))
    if len(i) > _WHOLE_BLOCK_SHARE * squares.size:
        x, y = rows.exact(down) / rows.unit, columns.exact(across) / rows.unit
        centre = x.mean(axis=0)
        x, y = x - centre, y - centre
        sums = np.add.outer((x**2).sum(axis=1), (y**2).sum(axis=1))
        products = sums - 2 * (x @ y.T)
        spoilt = products[i, j] < _SAFE_IN_FLOAT64 * sums[i, j]
        squares[i[~spoilt], j[~spoilt]] = products[i[~spoilt], j[~spoilt]]
        i, j = i[spoilt], j[spoilt]
    squares[i, j] = rows.exact_distances(i + down.start, columns, j + across.start) ** 2
