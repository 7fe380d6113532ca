"""Whether clusters of embeddings follow a label, a view or a site: adjusted Rand index and mutual information."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.intervals import jackknife_interval
from medvlm_probe.metrics.permutation import (
    group_label_permutations,
    permutation_blocks,
    permutation_p_value,
    plan_exchange,
)
from medvlm_probe.types import Estimate, FloatArray, IntArray, finite_or_none

N_STARTS = 10
_NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True)
class ClusterAgreement:
    """How far clusters and categories are the same division of images.

    Attributes:
        n_clusters, n_categories: on either side; n_images: with a known category.
        adjusted_rand: 1 where both divide alike, 0 on average by chance, can be negative.
        mutual_information: normalised by the mean of both entropies, in [0, 1]; above 0 by chance, see the null.
        p_rand, p_information: one-sided, of values this large where categories are permuted among groups.
        null_rand_high, null_information: what permuted categories give: the 97.5 % quantile of the one, the mean of the
            other.
        n_tested: images that the permutations used.
    """

    n_clusters: int
    n_categories: int
    n_images: int
    adjusted_rand: Estimate
    mutual_information: Estimate
    p_rand: float
    p_information: float
    null_rand_high: float
    null_information: float
    n_tested: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON objects; undefined numbers are None."""
        return {
            name: value.to_json()
            if isinstance(value, Estimate)
            else finite_or_none(value)
            if isinstance(value, float)
            else value
            for name, value in vars(self).items()
        }


def k_means(vectors: FloatArray, n_clusters: int, *, seed: int, n_starts: int = N_STARTS) -> NDArray[np.int64]:
    """Return each vector's cluster, (n,), codes 0 ... k - 1: the best of several starts of k-means++ and Lloyd.

    Args:
        vectors: (n, d), best of length 1.
        n_clusters: k, at most n.
        seed: of the starts.
        n_starts: how many.

    Raises:
        InputError: more clusters than vectors, or fewer than two.
    """
    if not 2 <= n_clusters <= len(vectors):
        raise InputError(f"{n_clusters} clusters of {len(vectors)} vectors: expected at least 2, at most one each.")
    from sklearn.cluster import KMeans

    fitted = KMeans(n_clusters=n_clusters, n_init=n_starts, random_state=seed).fit(vectors)
    return np.asarray(fitted.labels_, dtype=np.int64)


def adjusted_rand_index(tables: ArrayLike) -> NDArray[np.float64]:
    """Return the adjusted Rand index of contingency tables (..., K, C) of counts; 1 where nothing is divided at all.

    Equal to scikit-learn's `adjusted_rand_score`. Source: Hubert and Arabie 1985.
    """
    counts = np.asarray(tables, dtype=np.float64)

    def pairs(x: FloatArray) -> FloatArray:
        return x * (x - 1) / 2

    n = counts.sum(axis=(-2, -1))
    together = pairs(counts).sum(axis=(-2, -1))
    rows, columns = pairs(counts.sum(axis=-1)).sum(axis=-1), pairs(counts.sum(axis=-2)).sum(axis=-1)
    expected = rows * columns / np.maximum(pairs(n), 1.0)
    span = (rows + columns) / 2 - expected
    return np.asarray(np.where(span > 0, (together - expected) / np.where(span > 0, span, 1.0), 1.0))


def normalised_mutual_information(tables: ArrayLike) -> NDArray[np.float64]:
    """Return the mutual information of contingency tables (..., K, C) over the mean entropy, in [0, 1]; 0 without any.

    Equal to scikit-learn's `normalized_mutual_info_score` where either side divides.
    """
    counts = np.asarray(tables, dtype=np.float64)
    shares = counts / counts.sum(axis=(-2, -1), keepdims=True)
    first, second = shares.sum(axis=-1), shares.sum(axis=-2)
    h_first, h_second = -xlogy(first, first).sum(axis=-1), -xlogy(second, second).sum(axis=-1)
    joint = -xlogy(shares, shares).sum(axis=(-2, -1))
    mean = (h_first + h_second) / 2
    information = np.maximum(h_first + h_second - joint, 0.0)
    return np.asarray(np.where(mean > 0, information / np.where(mean > 0, mean, 1.0), 0.0))


def cluster_agreements(
    clusters: ArrayLike,
    categories: ArrayLike,
    groups: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    of_groups: bool = False,
    n_permutations: int = 9_999,
    rng: np.random.Generator,
) -> tuple[ClusterAgreement, ...]:
    """Return how far clusters follow each of T divisions into categories, beside what permuted categories give.

    Intervals are jackknives over groups for the clusters as they were found: they do not hold what another sample would
    do to the clusters. Unreliable with under 10 groups outside the largest category, and where the permuted values
    reach the value (an index near 0 has hardly any variance to first order).

    Args:
        clusters: codes, (n,).
        categories: codes, (n, T); all divisions are permuted together.
        groups: the independently sampled group (patient) of each image, any integers, (n,).
        strata: sites, (n,): categories are exchanged within them.
        of_groups: the category belongs to whole groups, as a site does: whole groups of any size then change it, and
            the parts of a group with several categories count as groups; one division at a time. Else the categories of
            groups of equal size are exchanged, and images without a partner of their group's size take no part.
        n_permutations: B.
        rng: draws the permutations.

    Raises:
        InputError: shapes that do not fit, or no images.
    """
    first, of = (np.unique(x, return_inverse=True)[1] for x in (clusters, groups))
    given = np.asarray(categories)
    if given.ndim != 2 or not len(first) or not len(first) == len(given) == len(of):
        raise InputError(
            f"{len(first)} clusters, categories of shape {given.shape} and {len(of)} groups: expected one an image."
        )
    if of_groups and given.shape[1] != 1:
        raise InputError(f"{given.shape[1]} divisions of whole groups: expected one at a time.")
    seconds = [np.unique(column, return_inverse=True)[1] for column in given.T]
    if of_groups:
        rows, blocks = _permuted_groups(seconds[0], of, n_permutations, rng)
        drawn = ([block] for block in blocks)
    else:
        rows, index = _exchanges(of, strata, n_permutations, rng)
        drawn = ([second[rows][some] for second in seconds] for some in index)
    sizes = [(int(first.max()) + 1, int(second.max()) + 1) for second in seconds]
    null: list[list[NDArray[np.float64]]] = [[] for _ in seconds]
    for block in drawn:
        for found, permuted, size in zip(null, block, sizes, strict=True):
            found.append(_indices(_tables(first[rows], permuted, size)))
    return tuple(
        _agreement(first, second, of, rows, np.concatenate([*found, np.empty((0, 2))]))
        for second, found in zip(seconds, null, strict=True)
    )


def _agreement(
    first: IntArray, second: IntArray, of: IntArray, rows: IntArray, null: NDArray[np.float64]
) -> ClusterAgreement:
    """Return one division's agreement from codes (n,), the rows that were permuted and their null indices (B, 2)."""
    size = int(first.max()) + 1, int(second.max()) + 1
    table = _tables(first, second[None], size)[0]
    values = _indices(table[None])[0]
    without = _without_groups(first, second, of, table)
    tested = _indices(_tables(first[rows], second[rows][None], size))[0]
    p_values = [permutation_p_value(float(tested[k]), null[:, k]) for k in range(2)]
    largest = int(np.bincount(second).argmax())
    scarce = len(np.unique(of[second != largest]))
    estimates = []
    for k, least in enumerate((-1.0, 0.0)):
        found = jackknife_interval(
            float(values[k]), without[:, k], n=len(first), method="group jackknife, given the clusters", n_scarce=scarce
        )
        reliable = found.reliable and p_values[k] <= 0.025
        low, high = float(np.maximum(found.low, least)), float(np.minimum(found.high, 1.0))
        estimates.append(replace(found, low=low, high=high, reliable=reliable))
    return ClusterAgreement(
        n_clusters=size[0],
        n_categories=size[1],
        n_images=len(first),
        adjusted_rand=estimates[0],
        mutual_information=estimates[1],
        p_rand=p_values[0],
        p_information=p_values[1],
        null_rand_high=float(np.quantile(null[:, 0], 0.975)) if len(null) else math.nan,
        null_information=float(null[:, 1].mean()) if len(null) else math.nan,
        n_tested=len(rows),
    )


def _indices(tables: IntArray) -> NDArray[np.float64]:
    """Return both indices of contingency tables (b, K, C), (b, 2)."""
    return np.stack([adjusted_rand_index(tables), normalised_mutual_information(tables)], axis=1)


def _tables(first: IntArray, second: IntArray, size: tuple[int, int]) -> NDArray[np.int64]:
    """Return the contingency tables of codes (n,) with each row of codes (b, n), (b, K, C)."""
    cells = first * size[1] + second + (np.arange(len(second)) * size[0] * size[1])[:, None]
    return np.bincount(cells.ravel(), minlength=len(second) * size[0] * size[1]).reshape(-1, *size)


def _without_groups(first: IntArray, second: IntArray, of: IntArray, table: IntArray) -> NDArray[np.float64]:
    """Return both indices without each group, (G, 2)."""
    n_groups, width = int(of.max()) + 1, table.size
    order = np.argsort(of, kind="stable")
    starts = np.searchsorted(of[order], np.arange(n_groups + 1))
    step = max(1, _NUMBERS_AT_ONCE // width)
    parts = []
    for begin in range(0, n_groups, step):
        end = min(begin + step, n_groups)
        rows = order[starts[begin] : starts[end]]
        cells = (of[rows] - begin) * width + first[rows] * table.shape[1] + second[rows]
        own = np.bincount(cells, minlength=(end - begin) * width).reshape(-1, *table.shape)
        left = table - own
        whole = left.sum(axis=(-2, -1)) > 0
        indices = np.full((end - begin, 2), np.nan)
        indices[whole] = _indices(left[whole])
        parts.append(indices)
    return np.concatenate(parts)


def _exchanges(
    of: IntArray, strata: ArrayLike | None, n_permutations: int, rng: np.random.Generator
) -> tuple[IntArray, Iterator[IntArray]]:
    """Return the rows that take part, and blocks of permutations of them."""
    sites = None if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    plan = plan_exchange(of, rng=rng, strata=sites)
    step = max(1, _NUMBERS_AT_ONCE // max(1, 4 * len(plan.kept)))
    return plan.kept, permutation_blocks(plan, n_permutations=n_permutations, rng=rng, block_size=step)


def _permuted_groups(
    second: IntArray, of: IntArray, n_permutations: int, rng: np.random.Generator
) -> tuple[IntArray, Iterator[IntArray]]:
    parts = of * (int(second.max()) + 1) + second
    rows = np.arange(len(second))
    step = max(1, _NUMBERS_AT_ONCE // max(1, 4 * len(second)))

    def blocks() -> Iterator[IntArray]:
        for start in range(0, n_permutations, step):
            some = min(step, n_permutations - start)
            drawn = group_label_permutations(second, parts, n_permutations=some, rng=rng)
            yield drawn.labels[drawn.index][:, drawn.row_group]

    return rows, blocks()
