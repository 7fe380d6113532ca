"""How much the scores of a label's positives and negatives overlap, by kernel densities."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.embedding_inputs import checked_labels, codes
from medvlm_probe.metrics.group_jackknife import class_jackknife, rarer_class
from medvlm_probe.metrics.permutation import permutation_blocks, permutation_p_value, plan_exchange
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

GRID_POINTS = 200
BANDWIDTH_SHARE = 0.6
"""Of Silverman's bandwidth: with all of it the smoothing itself makes separated classes overlap (simulated)."""

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


def overlap(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    strata: ArrayLike | None = None,
    n_permutations: int = 999,
    rng: np.random.Generator,
) -> Overlap:
    """Return how much the scores of positives and negatives overlap, integral of min(f, g).

    Both densities have one Gaussian kernel, `BANDWIDTH_SHARE` of Silverman's for the smaller class and the spread
    within classes. The interval is a jackknife over groups; it reaches up to 1 where permuted labels give an overlap as
    small in more than 2.5 % of cases, since an estimate cannot come out at 1. Unreliable under `MIN_GROUPS` groups of
    the rarer class. Undefined with fewer than two images of either class, or where all scores are the same.

    Args:
        scores: finite, (n,).
        labels: 1, 0 or NaN (left out), (n,).
        groups: the independently sampled group (patient) of each image, (n,); None makes each its own.
        strata: sites, (n,): labels are permuted among groups of equal size within them.
        n_permutations: of the null.
        rng: draws the permutations.

    Raises:
        InputError: shapes or values that do not fit.

    Source: Inman and Bradley 1989 (overlap coefficient); Silverman 1986, equation 3.31 (bandwidth).
    """
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 1 or not np.isfinite(s).all():
        raise InputError(f"Scores of shape {s.shape}: expected finite numbers (n,).")
    label = checked_labels(labels, len(s))[:, 0]
    known = ~np.isnan(label)
    of, where = (
        codes(groups, len(s), "groups")[known],
        codes(np.zeros(len(s)) if strata is None else strata, len(s), "strata"),
    )
    s, y = s[known], label[known] == 1
    counts = int(y.sum()), int((~y).sum())
    n_groups = len(np.unique(of))
    width = _bandwidth(s, y) if min(counts) >= 2 else 0.0
    if not width > 0:
        empty = Estimate(math.nan, math.nan, math.nan, len(s), n_groups, "undefined", reliable=False)
        return Overlap(empty, math.nan, (math.nan, math.nan), *counts)
    grid = np.linspace(s.min() - 3 * width, s.max() + 3 * width, GRID_POINTS)
    step = float(grid[1] - grid[0])
    kernels = np.exp(-0.5 * ((s[:, None] - grid) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    value, densities, without, rarer = _with_leave_one_out(kernels, y, of, step)
    null, tested = _permuted(kernels, y, of, where[known], step, n_permutations, rng)
    p_value = permutation_p_value(-tested, -null)
    estimate = class_jackknife(value, without, rarer, n=len(s), fewest=int(rarer.sum()))
    estimate = replace(
        estimate,
        low=max(estimate.low, 0.0),
        high=1.0 if p_value > 0.025 else min(estimate.high, 1.0),
        reliable=estimate.reliable and int(rarer.sum()) >= MIN_GROUPS,
        method="kernel densities, group jackknife",
    )
    low, high = np.quantile(null, [0.025, 0.975])
    return Overlap(estimate, p_value, (float(low), float(high)), *counts, grid, *densities)


def _bandwidth(scores: FloatArray, positive: BoolArray) -> float:
    parts = scores[positive], scores[~positive]
    within = sum(float(((part - part.mean()) ** 2).sum()) for part in parts) / max(len(scores) - 2, 1)
    return float(BANDWIDTH_SHARE * 1.06 * math.sqrt(within) * min(len(part) for part in parts) ** -0.2)


def _common_area(first: FloatArray, second: FloatArray, step: float) -> NDArray[np.float64]:
    return np.asarray(np.minimum(first, second).sum(axis=-1) * step)


def _with_leave_one_out(
    kernels: FloatArray, positive: BoolArray, of: IntArray, step: float
) -> tuple[float, tuple[FloatArray, FloatArray], FloatArray, BoolArray]:
    """Return the overlap, both densities, the overlap without each group, and which groups hold the rarer class."""
    units, rarer = rarer_class(positive.astype(np.float64), of)
    totals, counts, own, own_counts = [], [], [], []
    for mask in (positive, ~positive):
        rows = np.flatnonzero(mask)
        member = sparse.csr_array(
            (np.ones(len(rows)), (of[rows], np.arange(len(rows)))), shape=(int(of.max()) + 1, len(rows))
        )
        own.append(np.asarray(member @ kernels[rows])[units])
        own_counts.append(np.bincount(of[rows], minlength=int(of.max()) + 1)[units])
        totals.append(kernels[rows].sum(axis=0))
        counts.append(len(rows))
    densities = totals[0] / counts[0], totals[1] / counts[1]
    left = [np.where(count > gone, count - gone, np.nan) for count, gone in zip(counts, own_counts, strict=True)]
    without = _common_area((totals[0] - own[0]) / left[0][:, None], (totals[1] - own[1]) / left[1][:, None], step)
    return float(_common_area(*densities, step)), densities, without, rarer


def _permuted(
    kernels: FloatArray,
    positive: BoolArray,
    of: IntArray,
    strata: IntArray,
    step: float,
    n_permutations: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], float]:
    """Return the overlaps of permuted labels, (B,), and that of the labels as they are on the same images."""
    plan = plan_exchange(of, rng=rng, strata=strata)
    kernels, label = kernels[plan.kept], positive[plan.kept].astype(np.float64)
    n_positive, everything = label.sum(), kernels.sum(axis=0)
    if not 0 < n_positive < len(label):
        return np.full(n_permutations, np.nan), math.nan

    def areas(rows: FloatArray) -> NDArray[np.float64]:
        inside = rows @ kernels
        return _common_area(inside / n_positive, (everything - inside) / (len(label) - n_positive), step)

    blocks = permutation_blocks(plan, n_permutations=n_permutations, rng=rng)
    return np.concatenate([areas(label[index]) for index in blocks]), float(areas(label[None])[0])
