"""The permutation test of the energy distance between a label's positives and negatives."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.pairwise import Points, distance_blocks
from medvlm_probe.metrics.resampling import permutation_blocks, plan_exchange
from medvlm_probe.types import FloatArray, IntArray

PERMUTATIONS_AT_ONCE = 256

ENOUGH_EXCEEDANCES = 200
"""A label whose permuted statistic was as large as its own so often draws no more: its p-value is known to 7 %."""

_GATHER_SHARE = 0.08  # below this share of the images, picking entries beats a matrix product
_GATHER_ENTRIES = 2**20
_STRIP = 512
_ROUNDING = 1e-6  # of sums of float32 distances, relative to the largest distance
_POSITIVE, _NEGATIVE, _UNKNOWN = 0, 1, 2


@dataclass(frozen=True)
class EnergyTest:
    """What the permutation test gives for L labels.

    Attributes:
        p_values: one-sided, large distances being the evidence; NaN where undefined, (L,).
        n_images: images that took part.
        n_left_out: images that did not: beyond the cap on images, or in a group without a partner of its size.
    """

    p_values: FloatArray
    n_images: int
    n_left_out: int


def energy_permutation_test(
    points: Points,
    labels: FloatArray,
    groups: IntArray,
    strata: IntArray,
    *,
    n_permutations: int,
    max_images: int,
    rng: np.random.Generator,
) -> EnergyTest:
    """Permute whole label vectors among groups of equal size within a stratum, and compare the energy distances.

    Which images form a group does not change under permutation, so pairs within groups stay out of the null as they
    stay out of the statistic. With n images and B permutations a common label costs n^2 B multiplications, a rare one
    far less; above `max_images`, whole groups are drawn (see `subset_of_groups`).

    A label stops after L permutations when h = `ENOUGH_EXCEEDANCES` of them were as extreme as its own: p = h / L. Else
    p = (1 + b) / (1 + B). Both keep the level (Besag and Clifford 1991).

    Args:
        points: all images, in group order.
        labels: 1, 0 or NaN, (n, L).
        groups: ascending codes, (n,).
        strata: codes of the sites, (n,).
        n_permutations: B.
        max_images: the most images that take part.
        rng: draws the subset, the thinning and the permutations.
    """
    chosen = subset_of_groups(labels, groups, max_images, rng)
    plan = plan_exchange(groups[chosen], rng=rng, strata=strata[chosen])
    kept = chosen[plan.kept]
    distances = _cross_group_distances(points.take(kept), groups[kept])
    forms = [_LabelForm.of(labels[kept, k], groups[kept], distances) for k in range(labels.shape[1])]
    identity = np.arange(len(kept))[None]
    observed = np.array([form.energy_distances(distances, identity)[0] for form in forms])
    rounding = _ROUNDING * float(np.abs(distances).max(initial=0.0))
    p_values = np.full(len(forms), np.nan)
    testable = plan.n_exchangeable_groups > 0 and n_permutations > 0
    open_labels: list[int] = np.flatnonzero(~np.isnan(observed)).tolist() if testable else []
    exceeded, drawn = np.zeros(len(forms), dtype=np.int64), 0
    blocks = permutation_blocks(plan, n_permutations=n_permutations, rng=rng, block_size=PERMUTATIONS_AT_ONCE)
    for index in blocks:
        still_open: list[int] = []
        for k in open_labels:
            hits = np.flatnonzero(forms[k].energy_distances(distances, index) >= observed[k] - rounding)
            missing = ENOUGH_EXCEEDANCES - exceeded[k]
            if len(hits) >= missing:
                p_values[k] = ENOUGH_EXCEEDANCES / (drawn + hits[missing - 1] + 1)
            else:
                exceeded[k] += len(hits)
                still_open.append(k)
        open_labels, drawn = still_open, drawn + len(index)
        if not open_labels:
            break
    p_values[open_labels] = (1 + exceeded[open_labels]) / (1 + n_permutations)
    return EnergyTest(p_values, len(kept), len(groups) - len(kept))


def subset_of_groups(
    labels: FloatArray, groups: IntArray, max_images: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the rows of at most `max_images` images in whole groups, ascending; all rows where they are no more.

    The choice sees labels and groups, never embeddings, so a permutation test stays exact. Half the places are dealt to
    the labels in turn, rarest first, for groups that hold their positives; the rest go to groups drawn evenly.

    Args:
        labels: 1, 0 or NaN, (n, L).
        groups: ascending codes 0 ... G - 1, (n,).
        max_images: the most rows.
        rng: draws the groups.
    """
    if len(groups) <= max_images:
        return np.arange(len(groups))
    sizes = np.bincount(groups)
    holds = np.stack([np.bincount(groups, column == 1, minlength=len(sizes)) > 0 for column in labels.T])
    shuffled = rng.permutation(len(sizes))
    share = max_images // (2 * len(holds))
    taken = np.zeros(len(sizes), dtype=bool)
    for row in holds[np.argsort(holds.sum(axis=1), kind="stable")]:
        candidates = shuffled[row[shuffled] & ~taken[shuffled]]
        taken[candidates[np.cumsum(sizes[candidates]) <= share]] = True
    rest = shuffled[~taken[shuffled]]
    taken[rest[np.cumsum(sizes[rest]) <= max_images - sizes[taken].sum()]] = True
    return np.flatnonzero(taken[groups])


def _cross_group_distances(points: Points, groups: IntArray) -> NDArray[np.float32]:
    """Return all distances less their mean, 0 within groups, (n, n); the energy distance does not feel the mean."""
    matrix = np.empty((len(points), len(points)), dtype=np.float32)
    for block in distance_blocks(points, groups):
        matrix[block.rows, block.columns] = block.distances
        if block.mirrored:
            matrix[block.columns, block.rows] = block.distances.T
    sizes = np.bincount(groups)
    within = np.isinf(matrix)
    matrix[within] = 0
    n_pairs = len(groups) ** 2 - int(sizes @ sizes)
    matrix -= np.float32(matrix.sum(dtype=np.float64) / max(1, n_pairs))
    matrix[within] = 0
    return matrix


@dataclass(frozen=True)
class _LabelForm:
    """One label's energy distance as quadratic forms in the indicators of its smaller classes.

    With classes positive, negative and unknown, the sums of distances within and between all three follow from those of
    all but the largest class and from the row sums.
    """

    classes: NDArray[np.int8]
    small: tuple[int, ...]
    large: int
    sizes: tuple[int, ...]
    n_pairs: tuple[float, float, float]
    row_sums: NDArray[np.float64]

    @classmethod
    def of(cls, label: FloatArray, groups: IntArray, distances: NDArray[np.float32]) -> _LabelForm:
        classes = np.where(label == 1, _POSITIVE, np.where(label == 0, _NEGATIVE, _UNKNOWN)).astype(np.int8)
        sizes = np.bincount(classes, minlength=3)
        order = [int(c) for c in np.argsort(sizes, kind="stable") if sizes[c]]
        p = np.bincount(groups, classes == _POSITIVE)
        n = np.bincount(groups, classes == _NEGATIVE)
        n_pairs = (
            float(p.sum() ** 2 - p @ p),
            float(n.sum() ** 2 - n @ n),
            float(p.sum() * n.sum() - p @ n),
        )
        row_sums = distances.sum(axis=1, dtype=np.float64)
        return cls(classes, tuple(order[:-1]), order[-1], tuple(int(s) for s in sizes), n_pairs, row_sums)

    def energy_distances(self, distances: NDArray[np.float32], index: IntArray) -> NDArray[np.float64]:
        """Return the energy distance under each row permutation, (b,); NaN where a class has no pair of groups."""
        if min(self.n_pairs) <= 0:
            return np.full(len(index), np.nan)
        permuted = self.classes[index]
        indicators = {c: (permuted == c).astype(np.float32) for c in self.small}
        members = {c: np.nonzero(permuted == c)[1].reshape(len(index), self.sizes[c]) for c in self.small}
        to_all = {c: self.row_sums[members[c]].sum(axis=1) for c in self.small}
        sums: dict[tuple[int, int], NDArray[np.float64]] = {}
        for a, b in combinations_with_replacement(self.small, 2):
            if max(self.sizes[a], self.sizes[b]) < _GATHER_SHARE * len(self.classes):
                sums[a, b] = _gathered(distances, members[a], members[b])
            else:
                sums[a, b] = _multiplied(distances, indicators[a], indicators[b])
            sums[b, a] = sums[a, b]
        large = self.large
        everything = self.row_sums.sum() - 2 * sum(to_all.values())
        sums[large, large] = everything + sum(sums[a, b] for a in self.small for b in self.small)
        for a in self.small:
            sums[a, large] = sums[large, a] = to_all[a] - sum(sums[a, b] for b in self.small)
        within_positive = sums[_POSITIVE, _POSITIVE] / self.n_pairs[0]
        within_negative = sums[_NEGATIVE, _NEGATIVE] / self.n_pairs[1]
        between = sums[_POSITIVE, _NEGATIVE] / self.n_pairs[2]
        return 2 * between - within_positive - within_negative


def _gathered(distances: NDArray[np.float32], a: IntArray, b: IntArray) -> NDArray[np.float64]:
    """Return the sums over all pairs of members of a and b, (B,), by picking entries; a is (B, p), b is (B, q)."""
    flat = distances.ravel()
    result = np.empty(len(a))
    step = max(1, _GATHER_ENTRIES // max(1, a.shape[1] * b.shape[1]))
    for start in range(0, len(a), step):
        part = slice(start, start + step)
        entries = flat.take(a[part, :, None] * len(distances) + b[part, None, :])
        result[part] = entries.reshape(len(entries), -1).sum(axis=1)
    return result


def _multiplied(distances: NDArray[np.float32], a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    """Return the sums over all pairs of members of a and b, (B,), as matrix products; indicators (B, n)."""
    if a is not b:
        between: NDArray[np.float64] = np.einsum("ij,ij->i", a @ distances, b).astype(np.float64)
        return between
    result = np.zeros(len(a))
    for start in range(0, len(distances), _STRIP):
        strip = distances[start : start + _STRIP, start:]
        product = a[:, start : start + _STRIP] @ strip
        product[:, : len(strip)] *= 0.5
        result += np.einsum("ij,ij->i", product, a[:, start:]).astype(np.float64)
    return 2 * result
