"""What a perfectly calibrated model of the same confidences and groups gives: outcomes drawn from the probabilities.

Within a group outcomes are correlated. Each image's outcome is "u < confidence" for a uniform u that is, with chance
sqrt(rho) by image, the one that its group shares, else its own. So every image stays calibrated exactly, and two images
of a group have the covariance rho (min(c, d) - c d): correlation rho where their confidences are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.calibration_bins import bin_edges, bins_of
from medvlm_probe.metrics.intervals import PRIOR_CORRELATION, carried_degrees_of_freedom
from medvlm_probe.metrics.proportions import PRIOR_DEGREES_OF_FREEDOM
from medvlm_probe.types import BoolArray, FloatArray, IntArray

OutcomeStatistic = Callable[[NDArray[np.float64]], FloatArray]
"""Takes uniforms (b, n) that decide the outcomes, and returns the statistic of each row, (b,) or (b, M)."""

_NUMBERS_AT_ONCE = 1 << 20


def within_group_correlation(confidence: FloatArray, correct: BoolArray, groups: IntArray) -> float:
    """Return rho, in [0, 1], as far as the data tell it; else `PRIOR_CORRELATION`.

    The sum over pairs of images of a group of the products of their residuals, over that of min(c, d) - c d. Residuals
    are taken from the frequency in bins of equal mass, so that miscalibration does not pass for correlation. What few
    groups leave open is filled by .5, worth 8 degrees of freedom. Without a group of two it does not matter and is 0.

    Args:
        confidence, correct: (n,).
        groups: (n,).
    """
    codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    if not len(sizes) or sizes.max() == 1:
        return 0.0
    bins = bins_of(confidence, bin_edges(confidence, max(1, min(10, len(confidence) // 30)), "mass"))
    counts = np.bincount(bins)
    frequency = (np.bincount(bins, weights=correct) / np.maximum(counts, 1))[bins]
    residual = (correct - frequency) * np.sqrt(counts / np.maximum(counts - 1, 1))[bins]
    products = np.bincount(codes, weights=residual) ** 2 - np.bincount(codes, weights=residual**2)
    possible = _possible_products(frequency, codes)
    total = float(possible.sum())
    if total <= 0:
        return PRIOR_CORRELATION
    found = float(products.sum()) / total
    df = float(carried_degrees_of_freedom(possible**2 / possible.max() ** 2))
    blended = (df * found + PRIOR_DEGREES_OF_FREEDOM * PRIOR_CORRELATION) / (df + PRIOR_DEGREES_OF_FREEDOM)
    return float(np.clip(blended, 0.0, 1.0))


def _possible_products(p: FloatArray, codes: IntArray) -> NDArray[np.float64]:
    """Return the sum over ordered pairs of each group's images of min(p, q) - p q, (G,)."""
    order = np.lexsort((p, codes))
    sizes = np.bincount(codes)
    rank = np.arange(len(p)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    above = np.repeat(sizes, sizes) - 1 - rank
    least = np.bincount(codes[order], weights=2 * p[order] * above, minlength=len(sizes))
    sums, squares = np.bincount(codes, weights=p), np.bincount(codes, weights=p * p)
    return np.maximum(least - (sums**2 - squares), 0.0)


def calibrated_uniforms(
    groups: IntArray, n_replicates: int, correlation: float, rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Yield the uniforms that decide outcomes, in blocks (b, n); images share their group's with chance sqrt(rho).

    Args:
        groups: (n,).
        n_replicates: B.
        correlation: rho, in [0, 1].
        rng: draws them.
    """
    codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    n, step = len(codes), max(1, _NUMBERS_AT_ONCE // max(1, len(codes)))
    paired = np.flatnonzero(sizes[codes] > 1) if correlation > 0 else np.zeros(0, dtype=np.int64)
    for start in range(0, n_replicates, step):
        size = min(step, n_replicates - start)
        u = rng.random((size, n))
        if len(paired):
            shared = rng.random((size, len(sizes)))[:, codes[paired]]
            u[:, paired] = np.where(rng.random(shared.shape) < np.sqrt(correlation), shared, u[:, paired])
        yield u


def calibrated_outcomes(
    confidence: FloatArray, groups: IntArray, n_replicates: int, correlation: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return outcomes of a perfectly calibrated model, bool (B, n); arguments as in `calibrated_uniforms`."""
    blocks = calibrated_uniforms(groups, n_replicates, correlation, rng)
    return np.concatenate([u < confidence for u in blocks])


def drawn_classes(probabilities: FloatArray, uniforms: FloatArray) -> NDArray[np.int64]:
    """Return the classes that uniforms (b, n) draw from rows of probabilities (n, K): the likeliest first, (b, n).

    So the top label is right exactly where its uniform is below the confidence.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    upto = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)[:, :-1]
    place = np.zeros(uniforms.shape, dtype=np.int64)
    for column in upto.T:
        place += uniforms >= column
    return order[np.arange(len(order)), place]


def calibrated_replicates(
    statistic: OutcomeStatistic,
    groups: IntArray,
    *,
    correlation: float,
    rng: np.random.Generator,
    n_replicates: int = 1000,
) -> NDArray[np.float64]:
    """Return each statistic on outcomes of a perfectly calibrated model, (B, M).

    Args:
        statistic: of uniforms (b, n), see `OutcomeStatistic`.
        groups: (n,).
        correlation: of outcomes within a group (`within_group_correlation`).
        rng: draws the replicates.
        n_replicates: B.

    Source: consistency resampling, Bröcker and Smith 2007; Vaicenavicius et al. 2019.
    """
    found = [np.asarray(statistic(u)) for u in calibrated_uniforms(groups, n_replicates, correlation, rng)]
    return np.concatenate([v[:, None] if v.ndim == 1 else v for v in found])
