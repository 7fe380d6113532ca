"""Intervals of proportions (recall, precision, specificity, hit rate) and of F1, for images in groups."""

from __future__ import annotations

import math

import numpy as np
from scipy import special, stats

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.intervals import PRIOR_CORRELATION, ROUNDING, carried_degrees_of_freedom
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

EXACT_BELOW = 20
"""Below this effective n, Clopper-Pearson instead of Wilson."""

PRIOR_DEGREES_OF_FREEDOM = 8.0
"""How many degrees of freedom the assumed design effect is worth against the estimated one."""


def wilson_interval(successes: FloatArray, n: FloatArray, *, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Return Wilson's score interval, vectorised; counts may be fractional (effective sizes); n = 0 gives NaN.

    Source: Wilson 1927.
    """
    x, size = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    z = float(special.ndtri((1 + level) / 2))
    size = np.where(size > 0, size, np.nan)
    p = x / size
    centre = (p + z * z / (2 * size)) / (1 + z * z / size)
    half_width = z / (1 + z * z / size) * np.sqrt(p * (1 - p) / size + (z / (2 * size)) ** 2)
    return np.clip(centre - half_width, 0, 1), np.clip(centre + half_width, 0, 1)


def clopper_pearson_interval(
    successes: FloatArray, n: FloatArray, *, level: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return the exact interval, vectorised; counts may be fractional (effective sizes); n = 0 gives NaN.

    Source: Clopper and Pearson 1934, by the beta quantiles that extend it to fractional counts.
    """
    x, size = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    tail = (1 - level) / 2
    failures = size - x
    some, not_all = x > 0, failures > 0
    low = np.where(some, special.betaincinv(np.where(some, x, 1.0), failures + 1, tail), 0.0)
    high = np.where(not_all, special.betaincinv(x + 1, np.where(not_all, failures, 1.0), 1 - tail), 1.0)
    return np.where(size > 0, low, np.nan), np.where(size > 0, high, np.nan)


def design_effect(successes: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the design effect of grouped images on a proportion and its degrees of freedom, over the last axis.

    The design effect (at least 1) is the variance of the ratio estimator over groups, with leave-one-out residuals,
    divided by that of independent images. What few groups leave unknown is filled by the design effect of an
    intraclass correlation of .5, worth 8 degrees of freedom; without variation (all or none succeed) it stands alone.

    Args:
        successes: successes in each group, (..., G).
        counts: images in each group, all positive, (G,) or (..., G).

    Returns:
        design effect and degrees of freedom, (...,).

    Source: Rao and Scott 1992; Korn and Graubard 1998; Bell and McCaffrey 2002 (leave-one-out residuals).
    """
    x = np.asarray(successes, dtype=np.float64)
    m = np.broadcast_to(np.asarray(counts, dtype=np.float64), x.shape)
    n_groups = x.shape[-1]
    n = m.sum(axis=-1)
    p = x.sum(axis=-1) / n
    share = m / n[..., None]
    others = np.where(share < 1, 1 - share, 1.0)
    squares = ((x - p[..., None] * m) / others) ** 2
    variance = (n_groups - 1) / n_groups * squares.sum(axis=-1) / n**2
    independent = p * (1 - p) / np.maximum(n - 1, 1)
    known = (variance > ROUNDING) & (independent > 0)
    estimated = np.where(known, variance, 0.0) / np.where(known, independent, 1.0)
    df = np.where(known, carried_degrees_of_freedom(squares), 0.0)
    assumed = 1 + PRIOR_CORRELATION * ((m * m).sum(axis=-1) / n - 1)
    total_df = df + PRIOR_DEGREES_OF_FREEDOM
    blended = (df * estimated + PRIOR_DEGREES_OF_FREEDOM * assumed) / total_df
    single = (m == 1).all(axis=-1)
    return np.where(single, 1.0, np.maximum(blended, 1.0)), np.where(single, np.inf, total_df)


def proportion_bounds(
    successes: FloatArray, counts: FloatArray, *, level: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return the bounds of `proportion` from counts by group, vectorised over leading axes.

    Args:
        successes: successes in each group, (..., G).
        counts: images in each group, all positive, (G,) or (..., G).
        level: coverage, two-sided.
    """
    x = np.asarray(successes, dtype=np.float64)
    m = np.broadcast_to(np.asarray(counts, dtype=np.float64), x.shape)
    n = m.sum(axis=-1)
    p = x.sum(axis=-1) / n
    deff, df = design_effect(x, m)
    normal, t = special.ndtri((1 + level) / 2), stats.t.ppf((1 + level) / 2, df)
    varied = (p > 0) & (p < 1)
    size = n / deff * np.where(varied, (normal / t) ** 2, 1.0)
    exact = clopper_pearson_interval(p * size, size, level=level)
    score = wilson_interval(p * size, size, level=level)
    low, high = (np.where(size < EXACT_BELOW, e, s) for e, s in zip(exact, score, strict=True))
    return low, high


def proportion(successes: BoolArray, groups: IntArray, *, level: float = 0.95, method: str | None = None) -> Estimate:
    """Return the share of successes with an interval that holds for few images and correlated groups.

    Wilson's interval, or Clopper-Pearson below 20, on the effective n: n over the design effect of the groups, times
    the squared ratio of normal to t quantile (Korn and Graubard 1998). No images give NaN. In simulations (3 to 1,000
    images, groups of 1 to 12 images or one with half of them, intraclass correlations 0 to .9) it covers 94 % or more
    where groups are of similar size, and 90 % at worst: at correlation .9 with every sixth group twelve times as large.

    Args:
        successes: bool (n,): for recall, whether each positive image was found.
        groups: the independently sampled group of each image (patient), any integers, (n,).
        level: coverage, two-sided; .90 gives the one-sided 95 % bounds.
        method: how tables name the interval.
    """
    successes, groups = np.asarray(successes), np.asarray(groups)
    if successes.dtype != np.bool_ or successes.ndim != 1 or groups.shape != successes.shape:
        raise InputError(
            f"Successes of type {successes.dtype}, shape {successes.shape}, groups of shape {groups.shape}: "
            "expected booleans and one group each."
        )
    n = len(successes)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, method or "no images", reliable=False)
    codes = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(codes).astype(np.float64)
    found = np.bincount(codes, weights=successes.astype(np.float64)).astype(np.float64)
    low, high = proportion_bounds(found, counts, level=level)
    name = method or "Wilson or Clopper-Pearson on effective n"
    return Estimate(float(successes.mean()), float(low), float(high), n, len(counts), name)


def f1(labels: BoolArray, predictions: BoolArray, groups: IntArray, *, level: float = 0.95) -> Estimate:
    """Return F1 = 2 TP / (2 TP + FP + FN), in [0, 1], larger better, with the interval of a proportion.

    J = TP / (TP + FP + FN) is the share of hits among the images that are positive or predicted so: a proportion, of
    which F1 = 2 J / (1 + J) is a monotone function. So its interval is that of `proportion` for J, carried over. NaN
    where no image is positive or predicted so; `n` counts all images given.

    Args:
        labels, predictions: bool (n,).
        groups: the independently sampled group of each image (patient), any integers, (n,).
        level: coverage, two-sided.

    Source: Hand, Christen and Kirielle 2021 (F* = J).
    """
    labels, predictions, groups = np.asarray(labels), np.asarray(predictions), np.asarray(groups)
    union = labels | predictions
    hits = proportion((labels & predictions)[union], groups[union], level=level)
    value, low, high = (2 * x / (1 + x) for x in (hits.value, hits.low, hits.high))
    return Estimate(
        value, low, high, len(labels), len(np.unique(groups)), f"{hits.method}, as Jaccard index", hits.reliable
    )
