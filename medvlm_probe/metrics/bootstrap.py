"""The bootstrap over groups by weights: studentised and BCa intervals of any weighted statistic."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

from medvlm_probe.metrics.intervals import TRANSFORMS, Transform, group_folds, leave_one_out
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

WeightedStatistic = Callable[[FloatArray], FloatArray]
"""Takes row weights (b, n) and returns (b,), or (b, M) for M statistics at once; NaN where undefined."""

STUDENTISED_MIN_GROUPS = 20
"""Below so many groups in its smallest stratum a studentised interval is marked unreliable."""

BCA_MIN_GROUPS = 40
"""The same of a BCa interval: at 25 groups it covers 90 to 93 %."""

MAX_UNDEFINED = 0.01
"""Above this share of replicates without a value a bootstrap interval is marked unreliable."""


def strata_with(positives: BoolArray, groups: IntArray) -> IntArray:
    """Return 1 for the rows of groups that hold a positive, else 0, (n,): strata in which every replicate has some.

    Args:
        positives: bool (n,).
        groups: (n,).
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    holds = np.bincount(codes, weights=np.asarray(positives, dtype=np.float64)) > 0
    return holds[codes].astype(np.int64)


def group_bootstrap_weights(
    groups: IntArray, n_resamples: int, rng: np.random.Generator, *, strata: IntArray | None = None
) -> FloatArray:
    """Return how often each row is drawn when whole groups are drawn with replacement, float64 (B, n).

    With strata, each stratum's number of groups stays what it is: with those of `strata_with` no replicate is without
    positives. A group counts to the stratum of its last row.

    Args:
        groups: the independently sampled group of each row, any integers, (n,).
        n_resamples: B.
        rng: draws the groups.
        strata: any integers, (n,); None is one stratum.
    """
    codes, members = _groups_by_stratum(groups, strata)
    counts = np.empty((n_resamples, sum(len(m) for m in members)))
    for inside in members:
        counts[:, inside] = _draws(len(inside), len(inside), n_resamples, rng)
    return counts[:, codes]


def _groups_by_stratum(groups: IntArray, strata: IntArray | None) -> tuple[IntArray, list[IntArray]]:
    """Return each row's group code 0..G-1, and the codes that lie in each stratum."""
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    stratum = np.zeros(int(codes.max(initial=-1)) + 1, dtype=np.int64)
    if strata is not None:
        stratum[codes] = np.unique(np.asarray(strata), return_inverse=True)[1]
    return codes, [np.flatnonzero(stratum == s) for s in range(int(stratum.max(initial=-1)) + 1)]


def _draws(n_draws: int, n_groups: int, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    """Return how often each group is drawn, (B, n_groups): counted draws are several times faster than multinomials."""
    drawn = rng.integers(n_groups, size=(n_resamples, n_draws)) + n_groups * np.arange(n_resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n_resamples * n_groups)
    return counts.reshape(n_resamples, n_groups).astype(np.float64)


def _fold_weights(
    groups: IntArray, n_resamples: int, rng: np.random.Generator, strata: IntArray | None, n_folds: int
) -> FloatArray:
    """Return row weights by fold, (K, B, n), whose sum over folds is a draw as of `group_bootstrap_weights`.

    Every draw belongs to one fold, also where one group is drawn several times: leaving out a fold then tells a
    replicate's sampling error. If all copies of a group left together, it would come out too large by the factor of
    about the square root of 2.
    """
    codes, members = _groups_by_stratum(groups, strata)
    n_groups = sum(len(m) for m in members)
    used = min(n_folds, n_groups)
    counts = np.zeros((used, n_resamples, n_groups))
    first = 0
    for inside in members:
        sizes = np.bincount((first + np.arange(len(inside))) % used, minlength=used)
        for fold, size in enumerate(sizes):
            counts[fold][:, inside] = _draws(int(size), len(inside), n_resamples, rng)
        first += len(inside)
    return counts[:, :, codes]


def studentised_bootstrap(
    statistic: WeightedStatistic,
    groups: IntArray,
    *,
    rng: np.random.Generator,
    n_resamples: int = 1999,
    strata: IntArray | None = None,
    transform: Transform = "identity",
    n_folds: int = 20,
    level: float = 0.95,
    method: str = "studentised bootstrap over groups",
) -> list[Estimate]:
    """Return the bootstrap-t interval of each statistic, from replicates that each have their own standard error.

    Standard errors, also the observed one, come from leaving out each of `n_folds` folds of groups. Replicates where
    the statistic is undefined are left out (the interval is conditional on its being defined) and counted; a replicate
    whose standard error is 0 or undefined counts as extreme on the side where it lies, so that the interval is too
    wide rather than too narrow. See `bootstrap_is_reliable` for when it is marked unreliable.

    Args:
        statistic: of row weights (b, n); returns (b,) or (b, M).
        groups: the independently sampled group of each row, (n,).
        rng: draws folds and replicates.
        n_resamples: B.
        strata: as in `group_bootstrap_weights`; for rare positives those of `strata_with`.
        transform: the scale on which the interval is built; values beyond its edge are held at it.
        n_folds: folds of each standard error, whose cost is that many evaluations of the statistic.
        level: coverage, two-sided.
        method: how tables name the interval.

    Source: Efron and Tibshirani 1993, chapter 12.5.
    """
    groups = np.asarray(groups)
    n, n_groups = len(groups), len(np.unique(groups))
    forward, backward = _clipped(transform)

    def with_errors(by_fold: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        weights = by_fold.sum(axis=0)
        raw = _columns(statistic(weights))
        without = np.stack([forward(_columns(statistic(weights - fold))) for fold in by_fold])
        return raw, forward(raw), np.sqrt((len(by_fold) - 1) * without.var(axis=0))

    fold_of_row = group_folds(groups, n_folds, rng, strata=strata)
    used = int(fold_of_row.max()) + 1
    everything = (fold_of_row == np.arange(used)[:, None, None]).astype(np.float64)
    observed, centre, error = (x[0] for x in with_errors(everything))
    rounding = 1e-9 * error
    pivots = []
    for size in _block_sizes(n_resamples, used * n):
        raw, value, spread = with_errors(_fold_weights(groups, size, rng, strata, n_folds))
        difference = value - centre
        certain = spread > rounding
        extreme = np.where(np.abs(difference) <= rounding, 0.0, np.copysign(np.inf, difference))
        t = np.where(certain, difference / np.where(certain, spread, 1.0), extreme)
        pivots.append(np.where(np.isnan(raw), np.nan, t))
    t = np.concatenate(pivots)
    estimates = []
    for m in range(t.shape[1]):
        # Without a standard error (value at its edge, too few groups) nothing is excluded.
        varies = bool(error[m] > 1e-12 * max(1.0, abs(centre[m])))
        lower, upper = _outer_quantiles(t[:, m], level) if varies else (-math.inf, math.inf)
        reach = error[m] if varies else 1.0
        low, high = centre[m] - upper * reach, centre[m] - lower * reach
        reliable = varies and bootstrap_is_reliable(observed[m], t[:, m], groups, strata, STUDENTISED_MIN_GROUPS)
        estimates.append(
            Estimate(float(observed[m]), float(backward(low)), float(backward(high)), n, n_groups, method, reliable)
        )
    return estimates


def bca_bootstrap(
    statistic: WeightedStatistic,
    groups: IntArray,
    *,
    rng: np.random.Generator,
    n_resamples: int = 1999,
    strata: IntArray | None = None,
    level: float = 0.95,
    method: str = "BCa bootstrap over groups",
) -> list[Estimate]:
    """Return the bias-corrected and accelerated interval of each statistic, from replicates over groups.

    Needs no standard errors, so it is cheaper than `studentised_bootstrap`; it stays within the statistic's range, and
    it is too narrow for few groups. Undefined replicates are left out and counted, as there.

    Args:
        statistic: of row weights (b, n); returns (b,) or (b, M).
        groups: the independently sampled group of each row, (n,).
        rng: draws the replicates.
        n_resamples: B.
        strata: as in `group_bootstrap_weights`; for rare positives those of `strata_with`.
        level: coverage, two-sided.
        method: how tables name the interval.

    Source: Efron 1987; Efron and Tibshirani 1993, chapter 14 (acceleration from the jackknife).
    """
    groups = np.asarray(groups)
    n, n_groups = len(groups), len(np.unique(groups))
    observed = _columns(statistic(np.ones((1, n))))[0]
    replicates = np.concatenate(
        [
            _columns(statistic(group_bootstrap_weights(groups, size, rng, strata=strata)))
            for size in _block_sizes(n_resamples, n)
        ]
    )
    without = _columns(leave_one_out(statistic, groups))
    influence = without.mean(axis=0) - without
    sixth = 6 * (influence**2).sum(axis=0) ** 1.5
    acceleration = np.where(sixth > 0, (influence**3).sum(axis=0) / np.where(sixth > 0, sixth, 1.0), 0.0)
    z = special.ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    estimates = []
    for m, value in enumerate(observed):
        defined = np.sort(replicates[~np.isnan(replicates[:, m]), m])
        reliable = bootstrap_is_reliable(value, replicates[:, m], groups, strata, BCA_MIN_GROUPS)
        if not len(defined) or not math.isfinite(value):
            estimates.append(Estimate(float(value), math.nan, math.nan, n, n_groups, method, reliable=False))
            continue
        below = ((defined < value).sum() + (defined <= value).sum()) / (2 * len(defined))
        shift = special.ndtri(np.clip(below, 1 / (len(defined) + 1), 1 - 1 / (len(defined) + 1)))
        moved = shift + (shift + z) / (1 - acceleration[m] * (shift + z))
        low, high = np.quantile(defined, special.ndtr(moved))
        estimates.append(
            Estimate(float(value), float(low), float(high), n, n_groups, method, bool(reliable and low < high))
        )
    return estimates


def bootstrap_is_reliable(
    value: float, replicates: FloatArray, groups: IntArray, strata: IntArray | None, min_groups: int
) -> bool:
    """Say whether simulation (`analyses/interval_coverage.py`) supports a bootstrap interval of this size.

    It does from `min_groups` groups in the smallest stratum on, where the value is defined and at most `MAX_UNDEFINED`
    of the replicates are not.
    """
    rows = np.zeros(len(groups), dtype=np.int64) if strata is None else np.asarray(strata)
    smallest = min(len(np.unique(groups[rows == s])) for s in np.unique(rows))
    return bool(math.isfinite(value) and smallest >= min_groups and np.isnan(replicates).mean() <= MAX_UNDEFINED)


def _block_sizes(n_resamples: int, numbers_each: int) -> list[int]:
    step = max(1, 2**22 // max(1, numbers_each))
    return [min(step, n_resamples - start) for start in range(0, n_resamples, step)]


def _columns(values: FloatArray) -> FloatArray:
    values = np.asarray(values, dtype=np.float64)
    return values[:, None] if values.ndim == 1 else values


def _outer_quantiles(pivots: FloatArray, level: float) -> tuple[float, float]:
    """Return the order statistics just outside the two quantiles, of the pivots that are defined."""
    defined = pivots[~np.isnan(pivots)]
    if not len(defined):
        return -math.inf, math.inf
    tail = (1 - level) / 2
    return float(np.quantile(defined, tail, method="lower")), float(np.quantile(defined, 1 - tail, method="higher"))


def _clipped(transform: Transform) -> tuple[Callable[[FloatArray], FloatArray], Callable[[float], float]]:
    """Return a transform, held just within its range, and its inverse."""
    forward, backward = TRANSFORMS[transform]
    least, most = {"identity": (-np.inf, np.inf), "log": (1e-12, np.inf), "logit": (1e-6, 1 - 1e-6)}[transform]
    return lambda x: forward(np.clip(x, least, most)), backward
