"""How much the scores of a label's positives and negatives overlap, by kernel densities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.embedding_inputs import checked_labels, codes
from medvlm_probe.metrics.group_jackknife import class_jackknife, rarer_class
from medvlm_probe.metrics.permutation import ExchangePlan, permutation_blocks, permutation_p_value, plan_exchange
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

GRID_POINTS = 200
BANDWIDTH_SHARE = 0.6
"""Of Silverman's bandwidth: with all of it the smoothing itself makes separated classes overlap (simulated)."""

_COARSER = 4
_NUMBERS_AT_ONCE = 2**22

MIN_GROUPS = 20
"""Below so many groups of the rarer class the interval is marked unreliable: at 10 it covers 90 to 95 %."""


@dataclass(frozen=True, eq=False)
class Overlap:
    """The overlap coefficient of two classes: the area under the smaller of both densities.

    Attributes:
        estimate: in [0, 1]; 1 where both classes score alike, 0 where no threshold errs.
        p_value: one-sided, of an overlap this small where labels are permuted among groups; NaN where undefined.
        chance: the middle 95 % of the overlaps of permuted labels: under 1, as small classes never look quite alike.
        n_positive, n_negative: images.
        grid, positive, negative: the two densities at equal steps; empty where undefined.
    """

    estimate: Estimate
    p_value: float
    chance: tuple[float, float]
    n_positive: int
    n_negative: int
    grid: FloatArray = field(default_factory=lambda: np.empty(0))
    positive: FloatArray = field(default_factory=lambda: np.empty(0))
    negative: FloatArray = field(default_factory=lambda: np.empty(0))


def overlaps(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    strata: ArrayLike | None = None,
    n_permutations: int = 9_999,
    rng: np.random.Generator,
) -> tuple[Overlap, ...]:
    """Return how much the scores of each label's positives and negatives overlap, integral of min(f, g).

    Both densities have one Gaussian kernel, `BANDWIDTH_SHARE` of Silverman's for the smaller class and the spread
    within classes. The interval is a jackknife over groups; it reaches up to 1 where permuted labels give an overlap as
    small in more than 2.5 % of cases, since an estimate cannot come out at 1. Unreliable under `MIN_GROUPS` groups of
    the rarer class. Undefined with fewer than two images of either class, or where all scores within classes are equal.

    Permutations exchange whole label vectors, unknown entries with them, among groups of equal size within a stratum,
    the same ones for all labels; images without a partner of their group's size take no part. Their densities have a
    quarter of the grid.

    Args:
        scores: finite, (n, L).
        labels: 1, 0 or NaN (left out), (n, L).
        groups: the independently sampled group (patient) of each image, (n,); None makes each its own.
        strata: sites, (n,).
        n_permutations: of the null.
        rng: draws the permutations.

    Raises:
        InputError: shapes or values that do not fit.

    Source: Inman and Bradley 1989 (overlap coefficient); Silverman 1986, equation 3.31 (bandwidth).
    """
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 2 or not np.isfinite(s).all():
        raise InputError(f"Scores of shape {s.shape}: expected finite numbers (n, L).")
    y = checked_labels(labels, len(s))
    if y.shape != s.shape:
        raise InputError(f"Labels of shape {y.shape} do not fit scores of shape {s.shape}.")
    of = codes(groups, len(s), "groups")
    where = codes(np.zeros(len(s)) if strata is None else strata, len(s), "strata")
    plan = plan_exchange(of, rng=rng, strata=where)
    smooth = [_smoothing(s[:, k], y[:, k]) for k in range(s.shape[1])]
    null = _permuted(smooth, y[plan.kept], plan, n_permutations, rng)
    return tuple(_overlap(smooth[k], y[:, k], of, null[k]) for k in range(s.shape[1]))


@dataclass(frozen=True, eq=False)
class _Smoothing:
    """A kernel for each image at each point of a grid, (n, GRID_POINTS)."""

    grid: FloatArray
    kernels: FloatArray

    @property
    def step(self) -> float:
        return float(self.grid[1] - self.grid[0])


def _smoothing(scores: FloatArray, label: FloatArray) -> _Smoothing | None:
    known = ~np.isnan(label)
    counts = int((label == 1).sum()), int((label == 0).sum())
    width = _bandwidth(scores[known], label[known] == 1) if min(counts) >= 2 else 0.0
    if not width > 0:
        return None
    grid = np.linspace(scores.min() - 3 * width, scores.max() + 3 * width, GRID_POINTS)
    kernels = np.exp(-0.5 * ((scores[:, None] - grid) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    return _Smoothing(grid, kernels)


def _overlap(smooth: _Smoothing | None, label: FloatArray, of: IntArray, null: NDArray[np.float64]) -> Overlap:
    """Return one label's overlap; the first of its null values is that of the labels as they are."""
    known = ~np.isnan(label)
    counts = int((label == 1).sum()), int((label == 0).sum())
    n_groups = len(np.unique(of[known]))
    if smooth is None:
        empty = Estimate(math.nan, math.nan, math.nan, int(known.sum()), n_groups, "undefined", reliable=False)
        return Overlap(empty, math.nan, (math.nan, math.nan), *counts)
    densities, value, without, rarer = _with_leave_one_out(smooth, label, of)
    p_value = permutation_p_value(-null[0], -null[1:]) if len(null) > 1 else math.nan
    estimate = class_jackknife(value, without, rarer, n=int(known.sum()), fewest=int(rarer.sum()))
    estimate = replace(
        estimate,
        low=max(estimate.low, 0.0),
        high=min(estimate.high, 1.0) if p_value <= 0.025 else 1.0,
        reliable=estimate.reliable and int(rarer.sum()) >= MIN_GROUPS,
        method="kernel densities, group jackknife",
        n_groups=n_groups,
    )
    low, high = np.nanquantile(null[1:], [0.025, 0.975]) if len(null) > 1 else (math.nan, math.nan)
    return Overlap(estimate, p_value, (float(low), float(high)), *counts, smooth.grid, *densities)


def _bandwidth(scores: FloatArray, positive: BoolArray) -> float:
    parts = scores[positive], scores[~positive]
    within = sum(float(((part - part.mean()) ** 2).sum()) for part in parts) / max(len(scores) - 2, 1)
    return float(BANDWIDTH_SHARE * 1.06 * math.sqrt(within) * min(len(part) for part in parts) ** -0.2)


def _common_area(first: FloatArray, second: FloatArray, step: float) -> NDArray[np.float64]:
    return np.asarray(np.minimum(first, second).sum(axis=-1) * step)


def _with_leave_one_out(
    smooth: _Smoothing, label: FloatArray, of: IntArray
) -> tuple[tuple[FloatArray, FloatArray], float, FloatArray, BoolArray]:
    """Return both densities, the overlap, the overlap without each group, and which groups hold the rarer class."""
    units, rarer = rarer_class(label, of)
    densities, without = [], []
    for mask in (label == 1, label == 0):
        rows = np.flatnonzero(mask)
        shape = int(of.max()) + 1, len(rows)
        member = sparse.csr_array((np.ones(len(rows)), (of[rows], np.arange(len(rows)))), shape=shape)
        total, gone = smooth.kernels[rows].sum(axis=0), np.bincount(of[rows], minlength=shape[0])[units]
        left = np.where(len(rows) > gone, len(rows) - gone, np.nan)
        densities.append(total / len(rows))
        without.append((total - np.asarray(member @ smooth.kernels[rows])[units]) / left[:, None])
    value = float(_common_area(densities[0], densities[1], smooth.step))
    return (densities[0], densities[1]), value, _common_area(without[0], without[1], smooth.step), rarer


def _permuted(
    smooth: Sequence[_Smoothing | None],
    labels: FloatArray,
    plan: ExchangePlan,
    n_permutations: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return each label's overlap as it is and under each permutation, on the images that take part, (L, 1 + B)."""
    n = len(plan.kept)
    kernels = [None if one is None else one.kernels[plan.kept, ::_COARSER].astype(np.float32) for one in smooth]
    classes = (labels == 1).astype(np.float32), (labels == 0).astype(np.float32)

    def areas(index: IntArray) -> NDArray[np.float64]:
        found = np.full((len(smooth), len(index)), np.nan)
        for k, (one, kernel) in enumerate(zip(smooth, kernels, strict=True)):
            counts = [float(rows[:, k].sum()) for rows in classes]
            if one is not None and kernel is not None and min(counts) > 0:
                first, second = (
                    rows[:, k][index] @ kernel / count for rows, count in zip(classes, counts, strict=True)
                )
                found[k] = _common_area(first, second, one.step * _COARSER)
        return found

    step = max(1, _NUMBERS_AT_ONCE // max(1, n))
    blocks = permutation_blocks(plan, n_permutations=n_permutations, rng=rng, block_size=step)
    return np.concatenate([areas(np.arange(n)[None]), *(areas(index) for index in blocks)], axis=1)
