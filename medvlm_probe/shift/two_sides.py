"""Intervals of statistics that a reference and a site give together, each with independently sampled groups of its own.

The variances of leaving out groups (or folds of groups) of either side add up, since the sides share no group.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.intervals import binomial_variance, group_folds, jackknife_interval, score_interval
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

N_FOLDS = 20

TwoSidedStatistic = Callable[[BoolArray, BoolArray], FloatArray]
"""Takes which rows of the reference (n,) and of the site (m,) are kept; returns (M,), NaN where undefined."""


@dataclass(frozen=True, eq=False)
class TwoSided:
    """M statistics on everything, and without each fold of groups of either side.

    Attributes:
        value: (M,).
        without_reference: (F, M).
        without_site: (E, M).
        n: images of the site.
        n_groups: groups of the site.
        fewest_groups: groups of the side that has fewer.
    """

    value: NDArray[np.float64]
    without_reference: NDArray[np.float64]
    without_site: NDArray[np.float64]
    n: int
    n_groups: int
    fewest_groups: int

    def pooled(self, column: int) -> NDArray[np.float64]:
        """Return leave-one-out values of one statistic whose plain jackknife variance is the sum of both sides'."""
        return pooled_leave_one_out(self.without_reference[:, column], self.without_site[:, column]) + float(
            self.value[column]
        )


def pooled_leave_one_out(*sides: FloatArray) -> NDArray[np.float64]:
    """Return deviations (all sides' units together) whose jackknife variance is the sum of the sides' variances."""
    total = sum(len(side) for side in sides)
    parts = []
    for side in sides:
        shrink = (len(side) - 1) / len(side) * total / (total - 1)
        parts.append((np.asarray(side, dtype=np.float64) - np.mean(side)) * math.sqrt(shrink))
    return np.concatenate(parts)


def leave_folds_out(
    statistic: TwoSidedStatistic,
    reference_groups: IntArray,
    site_groups: IntArray,
    *,
    rng: np.random.Generator,
    n_folds: int = N_FOLDS,
    reference_strata: IntArray | None = None,
) -> TwoSided:
    """Evaluate a statistic on everything and without each fold of groups, one side at a time.

    Args:
        statistic: see `TwoSidedStatistic`.
        reference_groups, site_groups: the independently sampled group of each image, (n,) and (m,).
        rng: deals the groups to folds.
        n_folds: of each side; at most as many as it has groups.
        reference_strata: spread evenly over the reference's folds, such as `strata_with(labels == 1, groups)`, (n,).
    """
    folds = (
        group_folds(reference_groups, n_folds, rng, strata=reference_strata),
        group_folds(site_groups, n_folds, rng),
    )
    all_reference, all_site = (np.ones(len(fold), dtype=bool) for fold in folds)
    counts = [len(np.unique(groups)) for groups in (reference_groups, site_groups)]
    return TwoSided(
        value=np.asarray(statistic(all_reference, all_site), dtype=np.float64),
        without_reference=np.stack([statistic(folds[0] != k, all_site) for k in range(int(folds[0].max()) + 1)]),
        without_site=np.stack([statistic(all_reference, folds[1] != k) for k in range(int(folds[1].max()) + 1)]),
        n=len(site_groups),
        n_groups=counts[1],
        fewest_groups=min(counts),
    )


def bounded_estimate(
    found: TwoSided,
    column: int,
    *,
    size: float,
    method: str,
    bounds: tuple[float, float] = (0.0, 1.0),
    n_scarce: int | None = None,
    min_groups: int = 10,
) -> Estimate:
    """Return the score interval of a statistic in a bounded range, from both sides' folds.

    Args:
        found: of `leave_folds_out`.
        column: which statistic.
        size: how many independent images it is worth where the folds cannot tell (see `harmonic_size`).
        method: how tables name the interval.
        bounds: the statistic's range.
        n_scarce: groups on the scarcest side; by default those of the side with fewer.
        min_groups: fewest of them at which the interval counts as reliable.
    """
    value = float(found.value[column])
    if not math.isfinite(value) or size <= 0:
        return Estimate(value, math.nan, math.nan, found.n, found.n_groups, method, reliable=False)
    return score_interval(
        value,
        found.pooled(column),
        binomial_variance(size),
        n=found.n,
        method=method,
        bounds=bounds,
        n_scarce=found.fewest_groups if n_scarce is None else n_scarce,
        min_groups=min_groups,
        n_groups=found.n_groups,
    )


def plain_estimate(found: TwoSided, column: int, *, method: str, n_scarce: int | None = None) -> Estimate:
    """Return the t interval of a statistic without a bounded range, from both sides' folds."""
    return jackknife_interval(
        float(found.value[column]),
        found.pooled(column),
        n=found.n,
        method=method,
        n_scarce=found.fewest_groups if n_scarce is None else n_scarce,
        n_groups=found.n_groups,
    )


def harmonic_size(*sizes: float) -> float:
    """Return 1 / (sum of 1 / size): the independent images that a difference of several samples is worth."""
    return 0.0 if min(sizes) <= 0 else 1 / sum(1 / size for size in sizes)


def checked_column(values: ArrayLike, n: int | None, what: str) -> NDArray[np.float64]:
    """Return finite numbers as float64 (n,), refusing other shapes.

    Raises:
        InputError: another shape, or a value that is not finite.
    """
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not len(column) or (n is not None and len(column) != n):
        expected = "(n,), at least one" if n is None else f"({n},)"
        raise InputError(f"{what} of shape {column.shape}: expected {expected}.")
    if not np.isfinite(column).all():
        raise InputError(
            f"{what} hold {int((~np.isfinite(column)).sum()):,} values that are not finite: leave them out."
        )
    return column


def checked_binary(labels: ArrayLike, n: int) -> NDArray[np.float64]:
    """Return labels of 1, 0 and NaN as float64 (n,).

    Raises:
        InputError: another shape or value, or no positive or no negative.
    """
    column = np.asarray(labels, dtype=np.float64)
    if column.shape != (n,) or not (np.isnan(column) | (column == 0) | (column == 1)).all():
        raise InputError(f"Labels of shape {column.shape}: expected ({n},) of 1 (present), 0 (absent) or NaN.")
    if not (column == 1).any() or not (column == 0).any():
        raise InputError(
            f"The reference has {int((column == 1).sum()):,} positives and {int((column == 0).sum()):,} negatives: "
            "both are needed. Take another label or a larger reference."
        )
    return column
