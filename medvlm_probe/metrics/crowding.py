"""Which labels crowd together: who lies among the nearest neighbours of whom, against whole label vectors permuted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from medvlm_probe.metrics.embedding_inputs import images_of
from medvlm_probe.metrics.neighbours import NeighbourSearch
from medvlm_probe.metrics.pair_sums import quotient
from medvlm_probe.metrics.pairwise import BLOCK_SIZE, Space, distance_blocks, points_of
from medvlm_probe.metrics.resampling import holm, permutation_blocks, plan_exchange
from medvlm_probe.types import FloatArray, IntArray, finite_or_none

_ENTRIES_AT_ONCE = 2**17  # a few permutations at a time stay in the cache


@dataclass(frozen=True)
class Crowding:
    """Who lies next to whom: row a, column b is about the label b among the nearest neighbours of images with label a.

    Labels occur together in images, so a label's neighbours also carry what goes along with it: a row describes the
    company that a label keeps in the space, not which single finding the model confuses.

    Attributes:
        labels: L names.
        n_neighbors: k.
        n_positive: images with each label, (L,).
        share: of the k nearest neighbours (of other groups) of images with label a, the share that carries b among
            those where b is known, in [0, 1], (L, L). NaN where undefined.
        expected: the mean share when whole label vectors are permuted among groups, (L, L).
        enrichment: share / expected, at least 0; 1 is chance, (L, L).
        p_more, p_less: one-sided permutation p-values of a share this large, and this small, (L, L).
        p_adjusted: twice the smaller of the two after Holm's correction over all cells, (L, L).
        most_crowded: for each label, the other label whose share exceeds its expectation by most standard deviations of
            the null; None where none exceeds it.
        n_images: images in the graph and the test; n_left_out: those without a partner of their group's size.
    """

    labels: tuple[str, ...]
    n_neighbors: int
    n_positive: NDArray[np.int64]
    share: FloatArray
    expected: FloatArray
    enrichment: FloatArray
    p_more: FloatArray
    p_less: FloatArray
    p_adjusted: FloatArray
    most_crowded: tuple[str | None, ...]
    n_images: int
    n_left_out: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON objects; matrices are lists of rows, undefined numbers None."""
        matrices = ("share", "expected", "enrichment", "p_more", "p_less", "p_adjusted")
        return {
            "labels": list(self.labels),
            "n_neighbors": self.n_neighbors,
            "n_positive": [int(count) for count in self.n_positive],
            **{name: [[finite_or_none(x) for x in row] for row in getattr(self, name)] for name in matrices},
            "most_crowded": list(self.most_crowded),
            "n_images": self.n_images,
            "n_left_out": self.n_left_out,
        }


def crowding(
    embeddings: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    label_names: Sequence[str] | None = None,
    n_neighbors: int = 10,
    strata: ArrayLike | None = None,
    n_permutations: int = 9_999,
    rng: np.random.Generator,
    space: Space = "l2",
    block_size: int = BLOCK_SIZE,
) -> Crowding:
    """Return which labels lie among the nearest neighbours of which, with a permutation test of every pair.

    The graph of neighbours is fixed; whole label vectors are permuted among groups of equal size within a stratum, so
    that which labels go together, and how images of one patient resemble each other, is the same under the null. Images
    without a partner of their group's size are left out of graph and test, and counted. Unknown labels count neither
    above nor below the line.

    Args:
        embeddings: image vectors before normalisation, (n, d).
        labels: 1, 0 or NaN, (n, L).
        groups: the independently sampled group (patient) of each image, (n,); None makes each image its own.
        label_names: L names.
        n_neighbors: k.
        strata: sites, (n,): permutations stay within them.
        n_permutations: B; with L labels, Holm's correction needs B near 40 L^2 to find a single pair.
        rng: draws thinning and permutations.
        space: `l2` or `raw`.
        block_size: of the distances; no result depends on it.

    Raises:
        InputError: as `class_distances`.
    """
    images = images_of(embeddings, labels, groups, strata=strata, label_names=label_names)
    plan = plan_exchange(images.groups, rng=rng, strata=images.strata)
    points = points_of(images.embeddings, space, images.order[plan.kept])
    kept_groups, values = images.groups[plan.kept], images.labels[plan.kept]
    search = NeighbourSearch(len(points), n_neighbors)
    for block in distance_blocks(points, kept_groups, block_size=block_size):
        search.update(block)
    graph = _adjacency(search.finish(points, points.rows).nearest)

    counts = _NeighbourCounts.of(values)
    observed = counts.shares(graph, np.arange(len(points))[None])[0]
    total, squares, defined, as_large, as_small = np.zeros((5, *observed.shape))
    step = max(4, _ENTRIES_AT_ONCE // max(1, counts.columns.size))
    for index in permutation_blocks(plan, n_permutations=n_permutations, rng=rng, block_size=step):
        null = counts.shares(graph, index)
        # Equal counts give equal quotients, so ties need no tolerance. A NaN counts as extreme.
        as_large += (~(null < observed)).sum(axis=0)
        as_small += (~(null > observed)).sum(axis=0)
        total += np.nansum(null, axis=0)
        squares += np.nansum(null**2, axis=0)
        defined += (~np.isnan(null)).sum(axis=0)

    testable = ~np.isnan(observed) & (defined > 0) & (plan.n_exchangeable_groups > 0)
    p_more = np.where(testable, (1 + as_large) / (1 + n_permutations), np.nan)
    p_less = np.where(testable, (1 + as_small) / (1 + n_permutations), np.nan)
    p_two_sided = np.minimum(1.0, 2 * np.minimum(p_more, p_less))
    expected = quotient(total, np.where(testable, defined, np.nan))
    spread = np.sqrt(np.maximum(quotient(squares, defined) - expected**2, 0))
    return Crowding(
        labels=images.names,
        n_neighbors=n_neighbors,
        n_positive=(values == 1).sum(axis=0),
        share=observed,
        expected=expected,
        enrichment=quotient(observed, expected),
        p_more=p_more,
        p_less=p_less,
        p_adjusted=holm(p_two_sided.ravel()).reshape(p_two_sided.shape),
        most_crowded=_most_crowded(images.names, quotient(observed - expected, spread)),
        n_images=len(points),
        n_left_out=len(images.groups) - len(points),
    )


def _adjacency(nearest: IntArray) -> sparse.csr_array:
    """Return the graph as float32 (n, n): row i holds 1 at the neighbours of i."""
    rows, slots = np.nonzero(nearest >= 0)
    ones = np.ones(len(rows), dtype=np.float32)
    return sparse.csr_array((ones, (rows, nearest[rows, slots])), shape=(len(nearest), len(nearest)))


@dataclass(frozen=True)
class _NeighbourCounts:
    """Indicator columns from which the shares follow: each label's positives, then each set of known images."""

    columns: NDArray[np.float32]
    known_column: NDArray[np.int64]

    @classmethod
    def of(cls, labels: FloatArray) -> _NeighbourCounts:
        known, column = np.unique(~np.isnan(labels), axis=1, return_inverse=True)
        columns = np.concatenate([labels == 1, known], axis=1).astype(np.float32)
        return cls(columns, labels.shape[1] + column.ravel())

    def shares(self, graph: sparse.csr_array, index: IntArray) -> NDArray[np.float64]:
        """Return the matrix of shares under each row permutation, (b, L, L), for index (b, n)."""
        b, n = index.shape
        n_labels = len(self.known_column)
        permuted = self.columns[index.T]
        found = np.asarray(graph @ permuted.reshape(n, -1)).reshape(n, b, -1)
        positive = permuted[:, :, :n_labels]
        counts = np.matmul(positive.transpose(1, 2, 0), found.transpose(1, 0, 2)).astype(np.float64)
        below = counts[:, :, self.known_column]
        return quotient(counts[:, :, :n_labels], below)


def _most_crowded(names: tuple[str, ...], excess: FloatArray) -> tuple[str | None, ...]:
    others = np.where(np.eye(len(names), dtype=bool) | np.isnan(excess), -np.inf, excess)
    best = others.argmax(axis=1)
    return tuple(names[k] if row[k] > 0 else None for row, k in zip(others, best, strict=True))
