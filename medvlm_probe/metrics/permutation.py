"""Permutation tests over independently sampled groups: what may be exchanged, p-values, families."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medvlm_probe.errors import InputError
from medvlm_probe.types import FloatArray, IntArray

Alternative = Literal["greater", "less", "two-sided"]


@dataclass(frozen=True)
class GroupPermutations:
    """Row permutations that move whole label vectors among groups of equal size.

    Attributes:
        kept: rows that take part, ascending, int64 (n_kept,). The others were thinned away.
        index: int32 (B, n_kept). Permuted labels are `labels[kept][index[b]]`, held against the data of rows `kept`.
        n_thinned: rows left out so that every group finds a partner of its size.
        n_exchangeable_groups: groups that have such a partner; where it is 0, every permutation is the identity.
    """

    kept: IntArray
    index: IntArray
    n_thinned: int
    n_exchangeable_groups: int


@dataclass(frozen=True)
class ExchangePlan:
    """Which rows take part, and which groups may exchange their label vectors.

    Attributes:
        kept, n_thinned, n_exchangeable_groups: as in `GroupPermutations`.
        members: positions in `kept`, ordered by group, (n_kept,).
        starts: where each group begins in `members`, (G,); groups are ordered by class.
        classes: which groups may exchange: equal numbers, ascending, (G,).
        row_group, row_offset: the group of each position in `kept`, and its place within the group, (n_kept,).
    """

    kept: IntArray
    members: IntArray
    starts: IntArray
    classes: IntArray
    row_group: IntArray
    row_offset: IntArray
    n_thinned: int
    n_exchangeable_groups: int


def plan_exchange(groups: IntArray, *, rng: np.random.Generator, strata: IntArray | None = None) -> ExchangePlan:
    """Match groups by size within each stratum, thinning those whose size nobody shares.

    From the largest size down, a group alone in its size class is thinned to a random subset of the next smaller size
    that its stratum has, and joins that class. A group alone in the smallest class stays whole and keeps its labels;
    the test stays exact. A group with rows in several strata keeps those of the stratum where it has most.

    Args:
        groups: the independently sampled group of each row (patient), any integers, (n,).
        rng: chooses the rows that thinning keeps.
        strata: rows exchange only within a stratum (site), any integers, (n,); None is one stratum.
    """
    groups = np.asarray(groups)
    n = len(groups)
    strata = np.zeros(n, dtype=np.int64) if strata is None else np.asarray(strata)
    if groups.ndim != 1 or strata.shape != groups.shape:
        raise InputError(
            f"Groups of shape {groups.shape} and strata of shape {strata.shape}: expected one of each per row."
        )
    codes = np.unique(groups, return_inverse=True)[1]
    _, strata = np.unique(strata, return_inverse=True)

    pairs, pair_of_row, counts = np.unique(np.stack([codes, strata]), axis=1, return_inverse=True, return_counts=True)
    by_count = np.lexsort((-counts, pairs[0]))
    main = by_count[np.unique(pairs[0][by_count], return_index=True)[1]]  # of each group: its stratum with most rows
    stratum, sizes = pairs[1][main], counts[main]
    target = _thinned_sizes(sizes, stratum)

    eligible = pair_of_row.ravel() == main[codes]
    rows = np.lexsort((rng.random(n), codes, ~eligible))[: int(eligible.sum())]  # in random order within each group
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.sort(rows[rank < target[codes[rows]]])

    _, classes = np.unique(np.stack([stratum, target]), axis=1, return_inverse=True)
    classes = classes.ravel()
    order = np.argsort(classes, kind="stable")
    slot = np.empty(len(order), dtype=np.int64)
    slot[order] = np.arange(len(order))
    row_group = slot[codes[kept]]
    members = np.argsort(row_group, kind="stable")
    starts = np.cumsum(target[order]) - target[order]
    row_offset = np.empty(len(kept), dtype=np.int64)
    row_offset[members] = np.arange(len(kept)) - starts[row_group[members]]
    class_sizes = np.bincount(classes, minlength=1)
    return ExchangePlan(
        kept=kept,
        members=members,
        starts=starts,
        classes=classes[order],
        row_group=row_group,
        row_offset=row_offset,
        n_thinned=n - len(kept),
        n_exchangeable_groups=int(class_sizes[class_sizes > 1].sum()),
    )


def _thinned_sizes(sizes: IntArray, stratum: IntArray) -> IntArray:
    """Return each group's size once lone sizes have joined the next smaller one of their stratum, (G,)."""
    target = sizes.copy()
    for s in range(int(stratum.max(initial=-1)) + 1):
        inside = np.flatnonzero(stratum == s)
        distinct, counts = np.unique(sizes[inside], return_counts=True)
        for k in range(len(distinct) - 1, 0, -1):
            if counts[k] == 1:
                target[inside[target[inside] == distinct[k]]] = distinct[k - 1]
                counts[k - 1] += 1
    return target


def permutation_blocks(
    plan: ExchangePlan, *, n_permutations: int, rng: np.random.Generator, block_size: int | None = None
) -> Iterator[IntArray]:
    """Yield blocks of row permutations, int32 (b, n_kept), in all `n_permutations` rows.

    The permutations do not depend on `block_size`, which defaults to what keeps a block under about 64 MiB.
    """
    n_groups = len(plan.classes)
    if block_size is None:
        block_size = max(1, 2**22 // max(1, len(plan.kept)))
    for start in range(0, n_permutations, block_size):
        b = min(block_size, n_permutations - start)
        # Classes are ascending, so sorting class + uniform shuffles within classes and moves nothing across them.
        source = np.argsort(plan.classes + rng.random((b, n_groups)), axis=1)
        yield plan.members[plan.starts[source[:, plan.row_group]] + plan.row_offset].astype(np.int32)


def group_permutations(
    groups: IntArray,
    *,
    n_permutations: int,
    rng: np.random.Generator,
    strata: IntArray | None = None,
) -> GroupPermutations:
    """Permute whole label vectors among groups of equal size within a stratum, for testing labels against data.

    Images of one patient resemble each other and share labels, so exchanging images rejects far too often; exchanging
    the patients' label vectors keeps both dependences. Sizes are matched as `plan_exchange` says. For many rows, draw
    in blocks: `permutation_blocks(plan_exchange(...))` gives the same permutations for the same `rng`.

    Args:
        groups: the independently sampled group of each row (patient), any integers, (n,).
        n_permutations: B; 9,999 or more for a p-value that people read.
        rng: draws thinning and permutations.
        strata: rows exchange only within a stratum (site), any integers, (n,); None is one stratum.
    """
    plan = plan_exchange(groups, rng=rng, strata=strata)
    index = np.concatenate(list(permutation_blocks(plan, n_permutations=n_permutations, rng=rng)) or [_no_rows(plan)])
    return GroupPermutations(plan.kept, index, plan.n_thinned, plan.n_exchangeable_groups)


def _no_rows(plan: ExchangePlan) -> IntArray:
    return np.empty((0, len(plan.kept)), dtype=np.int32)


@dataclass(frozen=True)
class GroupLabelPermutations:
    """Permutations of a label that each whole group carries, such as its site.

    Attributes:
        labels: each group's label, in the order of `np.unique(groups)`, (G,).
        row_group: the group of each row, 0..G-1, (n,).
        index: int32 (B, G). Permuted labels are `labels[index[b]]` by group, `labels[index[b]][row_group]` by row.
    """

    labels: IntArray
    row_group: IntArray
    index: IntArray


def group_label_permutations(
    labels: IntArray,
    groups: IntArray,
    *,
    n_permutations: int,
    rng: np.random.Generator,
    strata: IntArray | None = None,
) -> GroupLabelPermutations:
    """Permute the labels that whole groups carry, for comparing sites: patients of any size move as a whole.

    Where (B, G) numbers are too many, ask for fewer several times: the same `rng` goes on with the same permutations.

    Args:
        labels: the label of each row, the same in all rows of a group, integers, (n,).
        groups: the independently sampled group of each row, any integers, (n,).
        n_permutations: B; 9,999 or more for a p-value that people read.
        rng: draws the permutations.
        strata: groups exchange only within a stratum, any integers, the same in all rows of a group, (n,).
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    _, first, codes = np.unique(groups, return_index=True, return_inverse=True)
    rows = np.zeros_like(codes) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    for name, column in (("label", labels), ("stratum", rows)):
        several = np.flatnonzero(column != column[first][codes])
        if len(several):
            raise InputError(
                f"Group {groups[several[0]]} has rows of more than one {name}. Permuting whole groups needs one each: "
                "leave such groups out, or make the parts groups of their own."
            )
    stratum = rows[first]
    order = np.argsort(stratum, kind="stable")
    index = np.empty((n_permutations, len(first)), dtype=np.int32)
    step = max(1, 2**22 // max(1, len(first)))
    for start in range(0, n_permutations, step):
        block = index[start : start + step]
        block[:, order] = order[np.argsort(stratum[order] + rng.random(block.shape), axis=1)]
    return GroupLabelPermutations(labels[first], codes, index)


def permutation_p_value(
    observed: float,
    null: FloatArray,
    alternative: Alternative = "greater",
    *,
    relative_tolerance: float = 1e-8,
) -> float:
    """Return (1 + b) / (1 + B) in (0, 1], b of B null values being at least as extreme as the observed one.

    Values within `relative_tolerance` of the observed one (relative to the largest magnitude seen) count as ties, and
    so as extreme; so does a NaN. `two-sided` doubles the smaller one-sided p-value. A NaN observation gives NaN.

    Source: Phipson and Smyth 2010, "Permutation p-values should never be zero".
    """
    null = np.asarray(null, dtype=np.float64)
    if np.isnan(observed):
        return float("nan")
    tolerance = relative_tolerance * max(abs(observed), float(np.nanmax(np.abs(null), initial=0.0)))
    undefined = np.isnan(null)
    greater = (1 + np.sum((null >= observed - tolerance) | undefined)) / (1 + null.size)
    less = (1 + np.sum((null <= observed + tolerance) | undefined)) / (1 + null.size)
    if alternative == "greater":
        return float(greater)
    if alternative == "less":
        return float(less)
    return float(min(1.0, 2 * min(greater, less)))


def sequential_p_value(
    observed: float,
    null_blocks: Iterable[FloatArray],
    *,
    n_exceedances: int = 20,
    relative_tolerance: float = 1e-8,
) -> tuple[float, int]:
    """Return a p-value that stops drawing once it is clearly large, and the permutations used; one-sided, "greater".

    Draws until `n_exceedances` null values are at least as extreme as the observed one, after L draws say: p = that
    number / L. If the blocks end before, p = (1 + b) / (1 + B). Either way P(p <= a) <= a under the null for every a.

    Args:
        observed: the statistic, larger being more extreme.
        null_blocks: null values in blocks, computed as they are asked for.
        n_exceedances: more give a more precise p-value; its relative error is about 1 / sqrt(n_exceedances).
        relative_tolerance: null values so little below the observed one count as ties.

    Source: Besag and Clifford 1991, "Sequential Monte Carlo p-values".
    """
    if np.isnan(observed):
        return float("nan"), 0
    drawn = exceeded = 0
    for block in null_blocks:
        values = np.asarray(block, dtype=np.float64)
        tolerance = relative_tolerance * max(abs(observed), float(np.nanmax(np.abs(values), initial=0.0)))
        hits = np.flatnonzero((values >= observed - tolerance) | np.isnan(values))
        missing = n_exceedances - exceeded
        if len(hits) >= missing:
            drawn += int(hits[missing - 1]) + 1
            return n_exceedances / drawn, drawn
        exceeded += len(hits)
        drawn += len(values)
    return (1 + exceeded) / (1 + drawn), drawn


def holm(p_values: FloatArray) -> FloatArray:
    """Return Holm's adjusted p-values, which hold the family-wise error; a NaN stays NaN and does not count.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


@dataclass(frozen=True)
class NullBand:
    """The central band of what a null model gives: a value outside it is not explained by chance at this level.

    Attributes:
        low, high: bounds; NaN where no replicate is defined.
        median: of the replicates: what a statistic that is biased at this size shows under the null.
        level: the band's probability under the null, at least.
        n_replicates: defined replicates behind it.
    """

    low: float
    high: float
    median: float
    level: float
    n_replicates: int


def null_band(replicates: FloatArray, *, level: float = 0.95) -> NullBand:
    """Return the band that holds a new draw of the null model with at least the given probability.

    Its bounds are order statistics, k-th smallest and k-th largest of B with k = floor((B + 1) (1 - level) / 2), which
    makes the probability exact rather than asymptotic; with too few replicates for k = 1 the extremes serve.

    Args:
        replicates: the statistic under the null model, (B,); NaN replicates are left out.
        level: two-sided.
    """
    values = np.asarray(replicates, dtype=np.float64)
    values = np.sort(values[~np.isnan(values)])
    if not len(values):
        return NullBand(math.nan, math.nan, math.nan, level, 0)
    # Rounding guards against (B + 1) tail landing just below the integer that it is.
    k = max(1, int(np.floor(round((len(values) + 1) * (1 - level) / 2, 9))))
    return NullBand(float(values[k - 1]), float(values[-k]), float(np.median(values)), level, len(values))
