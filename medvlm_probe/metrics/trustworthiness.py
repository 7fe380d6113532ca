"""How far a picture's neighbours are neighbours among the vectors that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.embedding_inputs import checked_embeddings
from medvlm_probe.metrics.pairwise import BLOCK_SIZE, Points, Space, distance_blocks, points_of
from medvlm_probe.types import FloatArray, IntArray, finite_or_none

MAX_SOURCES = 10_000
"""Above so many points, the neighbourhoods of a random subset are looked at, their ranks being among all points."""


@dataclass(frozen=True)
class Trustworthiness:
    """A property of one picture, so without an interval.

    Attributes:
        value: in [0, 1]; 1 where each point's neighbours in the picture are its nearest vectors, about .5 where the
            picture has nothing to do with them. NaN with fewer than four points.
        n_neighbors: k.
        n_sources: points whose neighbourhoods were looked at; n_points: all of them.
    """

    value: float
    n_neighbors: int
    n_sources: int
    n_points: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON; an undefined value is None."""
        return vars(self) | {"value": finite_or_none(self.value)}


def trustworthiness(
    vectors: ArrayLike,
    picture: ArrayLike,
    *,
    space: Space = "l2",
    n_neighbors: int = 10,
    max_sources: int = MAX_SOURCES,
    rng: np.random.Generator,
) -> Trustworthiness:
    """Return the trustworthiness of a picture: 1 - 2 / (n k (2n - 3k - 1)) sum_i sum_j max(0, r(i, j) - k).

    j runs over the k nearest of i in the picture, r(i, j) is the rank of j among all others by distance to i in the
    space of the vectors. Equal to scikit-learn's `trustworthiness` but for ties, which get their best rank. Distances
    pass in blocks: memory O(n k + n * block), time O(sources * n * d).

    Args:
        vectors: embeddings before normalisation, (n, d).
        picture: coordinates, (n, 2); finite.
        space: of the vectors' distances, `l2` (normalised) or `raw`.
        n_neighbors: k; held below n / 2, where the definition ends.
        max_sources: the most points i in the sum, which is then scaled up.
        rng: draws them.

    Raises:
        InputError: shapes that do not fit, values that are not finite.

    Source: Venna and Kaski 2001, "Neighborhood preservation in nonlinear projection methods".
    """
    array = checked_embeddings(vectors)
    plane = np.asarray(picture, dtype=np.float64)
    n = len(array)
    if plane.ndim != 2 or len(plane) != n or not np.isfinite(plane).all():
        raise InputError(f"Coordinates of shape {plane.shape} do not fit {n} vectors, or are not finite.")
    k = min(n_neighbors, (n - 1) // 2)
    if k < 1 or n < 4:
        return Trustworthiness(float("nan"), max(k, 0), n, n)
    sources = np.arange(n) if n <= max_sources else np.sort(rng.choice(n, max_sources, replace=False))
    nearest = _nearest(plane, sources, k)
    points = points_of(array, space, np.arange(n))
    excess = 0
    for start in range(0, len(sources), BLOCK_SIZE):
        rows = slice(start, start + BLOCK_SIZE)
        excess += int(np.maximum(_ranks(points, sources[rows], nearest[rows]) - k, 0).sum())
    return Trustworthiness(1 - 2 * excess / (len(sources) * k * (2 * n - 3 * k - 1)), k, len(sources), n)


def _nearest(plane: FloatArray, sources: IntArray, k: int) -> NDArray[np.int64]:
    """Return the k nearest other points of each source in the picture, (m, k)."""
    found = np.asarray(cKDTree(plane).query(plane[sources], k=k + 1)[1], dtype=np.int64)
    own = found == sources[:, None]
    # Among points that coincide, a point itself may be missing from its k + 1 nearest; the last one then goes.
    own[~own.any(axis=1), -1] = True
    return np.asarray(found[~own]).reshape(len(sources), k)


def _ranks(points: Points, rows: IntArray, others: IntArray) -> NDArray[np.int64]:
    """Return the rank (from 1) of given points (m, k) among all others, by their distance to points `rows`, (m, k)."""
    distances = np.empty((len(rows), len(points)), dtype=np.float32)
    everyone = np.arange(len(points))
    for block in distance_blocks(points.take(rows), rows, points, everyone):
        distances[block.rows, block.columns] = block.distances
    ranks = np.empty(others.shape, dtype=np.int64)
    for slot in range(others.shape[1]):
        limit = np.take_along_axis(distances, others[:, slot, None], axis=1)
        ranks[:, slot] = 1 + np.count_nonzero(distances < limit, axis=1)
    return ranks
