"""What a method that was fitted on drawn labels gains on other images, over several draws: interval and p-value."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from medvlm_probe.metrics.intervals import (
    MIN_DEGREES_OF_FREEDOM,
    MIN_GROUPS,
    jackknife_variance,
    mean_without_groups,
)
from medvlm_probe.types import Estimate, FloatArray, IntArray

METHOD = "paired group jackknife and spread over draws"


def gain_over_draws(gains: FloatArray, groups: IntArray) -> tuple[Estimate, float]:
    """Return the mean gain of a draw with its interval, and the two-sided p-value of no gain.

    Two things vary: which patients the gain is measured on (group jackknife of the gain averaged over draws), and which
    labels were drawn (variance of the draws' means, over their number). Variances add; degrees of freedom are
    Satterthwaite's. Draws from one pool overlap, so the second is what this pool shows of it.

    Args:
        gains: of each draw and image, NaN where undefined, (R, n).
        groups: the independently sampled group of each image, (n,).

    Returns:
        The estimate, above 0 where there is a gain; and p in [0, 1], 1 where nothing varies.
    """
    given = np.asarray(gains, dtype=np.float64)
    defined = ~np.isnan(given).any(axis=0)
    kept = given[:, defined]
    codes = np.asarray(groups)[defined]
    n, n_groups = int(defined.sum()), len(np.unique(codes))
    if n_groups < 2:
        return Estimate(math.nan, math.nan, math.nan, n, n_groups, METHOD, reliable=False), 1.0
    value, without = mean_without_groups(kept.mean(axis=0), codes)
    variance, freedom = (float(part) for part in jackknife_variance(without))
    between = float(kept.mean(axis=1).var(ddof=1)) / len(kept) if len(kept) > 1 else 0.0
    total = variance + between
    if total <= 0:
        return Estimate(value, value, value, n, n_groups, METHOD, reliable=False), 1.0
    terms = [(variance, freedom)] + ([(between, len(kept) - 1.0)] if between > 0 else [])
    freedom = max(total**2 / sum(part**2 / max(df, 1e-9) for part, df in terms if part > 0), 1.0)
    error = math.sqrt(total)
    half = float(stats.t.ppf(0.975, freedom)) * error
    p_value = float(2 * stats.t.sf(abs(value) / error, freedom))
    reliable = n_groups >= MIN_GROUPS and freedom >= MIN_DEGREES_OF_FREEDOM
    return Estimate(value, value - half, value + half, n, n_groups, METHOD, reliable), p_value
