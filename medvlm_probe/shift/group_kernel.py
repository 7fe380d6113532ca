"""The discrepancy of two samples under a kernel, from the kernel's means between patients: value, null, jackknife.

Squared MMD and energy distance are both of the form mean K(x, x') + mean K(y, y') - 2 mean K(x, y), over pairs of
different groups. Summing the n x n kernel by group once makes each permutation a row of a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.group_jackknife import class_jackknife
from medvlm_probe.metrics.pairwise import distance_blocks
from medvlm_probe.shift.two_samples import SitePermutations, TwoSamples, image_weights
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

Kernel = Callable[[NDArray[np.float32]], None]
"""Turns distances over the points' unit into the kernel's values, in place."""


@dataclass(frozen=True, eq=False)
class GroupKernel:
    """Mean kernel values between groups.

    Attributes:
        between: less their mean, 0 on the diagonal, float32 (G, G); no discrepancy feels the mean.
        within: of each group with itself, its images' own values among them, less the same mean, (G,).
    """

    between: NDArray[np.float32]
    within: NDArray[np.float64]


def group_kernel(samples: TwoSamples, kernel: Kernel) -> GroupKernel:
    """Return the means of a kernel between groups; memory is 4 G^2 bytes and a block."""
    groups = samples.groups
    n_groups = len(samples.of_site)
    weights = image_weights(groups).astype(np.float32)
    between = np.zeros((n_groups, n_groups), dtype=np.float32)
    # Each image is its own group here: the pairs within a patient are wanted for the diagonal.
    for block in distance_blocks(samples.points, np.arange(len(groups))):
        values = block.distances
        block.clear_same_group()
        kernel(values)
        values *= weights[block.rows, None]
        values *= weights[None, block.columns]
        summed, rows = _summed(values, groups[block.rows])
        summed, columns = _summed(summed.T, groups[block.columns])
        between[rows, columns] += summed.T
        if block.mirrored:
            between[columns, rows] += summed
    within = between.diagonal().astype(np.float64)
    np.fill_diagonal(between, 0)
    centre = np.float32(between.sum(dtype=np.float64) / max(1, n_groups * (n_groups - 1)))
    between -= centre
    np.fill_diagonal(between, 0)
    return GroupKernel(between, within - centre)


def _summed(values: NDArray[np.float32], groups: IntArray) -> tuple[NDArray[np.float32], slice]:
    """Return the sums of rows by group, and which groups these are; groups are ascending without gaps."""
    span = slice(int(groups[0]), int(groups[-1]) + 1)
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return (values if len(starts) == len(groups) else np.add.reduceat(values, starts, axis=0)), span


@dataclass(frozen=True, eq=False)
class GroupSums:
    """What a discrepancy and its jackknife need of a kernel, whatever form it has.

    Attributes:
        to_reference, to_site: sum of the kernel from each group to the other groups of a sample, (G,).
        within: each group's kernel with itself, (G,).
    """

    to_reference: NDArray[np.float64]
    to_site: NDArray[np.float64]
    within: NDArray[np.float64]


def kernel_sums(kernel: GroupKernel, of_site: BoolArray) -> GroupSums:
    """Return the sums from each group to both samples."""
    marks = np.stack([~of_site, of_site], axis=1).astype(np.float32)
    sums = (kernel.between @ marks).astype(np.float64)
    return GroupSums(sums[:, 0], sums[:, 1], kernel.within)


def null_discrepancies(kernel: GroupKernel, permutations: SitePermutations, n_site: int) -> Iterator[FloatArray]:
    """Yield the discrepancy of each permutation, (b,); one product of G x G with the smaller sample's marks a block."""
    n_groups = len(kernel.within)
    row_sums = kernel.between.sum(axis=1, dtype=np.float64)
    total = float(row_sums.sum())
    g, h = n_groups - n_site, n_site
    for masks in permutations.blocks():
        marks = masks.astype(np.float32)
        within_site = np.einsum("bg,bg->b", marks @ kernel.between, marks, dtype=np.float64)
        from_site = masks @ row_sums
        across = from_site - within_site
        within_reference = total - 2 * from_site + within_site
        yield within_reference / (g * (g - 1)) + within_site / (h * (h - 1)) - 2 * across / (g * h)


def discrepancy_estimate(sums: GroupSums, of_site: BoolArray, *, n: int, unit: float, name: str) -> Estimate:
    """Return the discrepancy with a 95 % interval by the jackknife over groups, a stratum each sample.

    The value is unbiased: 0 on average where both samples have one distribution, so at times below 0. The interval is
    built on sqrt(value + offset), the offset being what pairs of a group with itself would add: there the variance is
    nearly constant, also where the samples hardly differ and the plain value's variance vanishes.

    Args:
        sums: by `kernel_sums`.
        of_site: (G,).
        n: images.
        unit: what the value is multiplied with.
        name: of the statistic, for `method`.
    """
    g, h = float((~of_site).sum()), float(of_site.sum())
    a, b, c = sums.to_reference[~of_site].sum(), sums.to_site[of_site].sum(), sums.to_site[~of_site].sum()
    value = a / (g * (g - 1)) + b / (h * (h - 1)) - 2 * c / (g * h)
    lost_here = np.where(of_site, sums.to_site, sums.to_reference)
    lost_across = np.where(of_site, sums.to_reference, sums.to_site)
    reference, site = ~of_site, of_site
    without = np.empty(len(of_site))
    without[reference] = (
        (a - 2 * lost_here[reference]) / ((g - 1) * (g - 2))
        + b / (h * (h - 1))
        - 2 * (c - lost_across[reference]) / ((g - 1) * h)
    )
    without[site] = (
        a / (g * (g - 1))
        + (b - 2 * lost_here[site]) / ((h - 1) * (h - 2))
        - 2 * (c - lost_across[site]) / (g * (h - 1))
    )
    offset = (sums.within[reference].mean() - a / (g * (g - 1))) / g + (
        sums.within[site].mean() - b / (h * (h - 1))
    ) / h
    return class_jackknife(
        float(value) * unit,
        without * unit,
        of_site,
        n=n,
        fewest=int(min(g, h)),
        method=f"{name}, group jackknife",
        offset=float(offset) * unit,
    )
