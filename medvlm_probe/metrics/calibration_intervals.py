"""Debiased calibration errors with intervals: sizes of a vector of mean residuals, by inverting a test over its size.

A binned calibration error is the size |x| of a vector of mean residuals (one entry a bin), a kernel's that of a vector
over points. Noise makes |x| larger on average than the size of the truth, the more the nearer the truth is to 0, so
neither |x| nor a bootstrap of it is centred. The interval keeps each size for which |truth + noise| falls on either
side of |x| with at least 2.5 % chance; the debiased value is the one for which it falls there with even chances. How a
size is spread over the entries is not known: three ways of spreading are tried, and the interval holds what any allows.
Simulated (50 to 2,000 images, groups correlated 0 and .5, calibrated and not): `tests/statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medvlm_probe.metrics.calibration_bins import bin_edges, bins_of
from medvlm_probe.metrics.intervals import PRIOR_CORRELATION, carried_degrees_of_freedom
from medvlm_probe.metrics.proportions import PRIOR_DEGREES_OF_FREEDOM
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

TOLD_BY_GROUPS = 200.0
"""From so many degrees of freedom on the groups tell the noise, and one reading of the outcomes' variances will do."""

METHOD = "debiased, test inversion over groups"

_DRAWS = 400
_SIZES = 17
_NUMBERS_AT_ONCE = 1 << 20

Size = Callable[[FloatArray], NDArray[np.float64]]


@dataclass(frozen=True)
class ResidualForm:
    """A statistic size(x + offset) of x = sum over entries of matrix[i] (y_i - p_i); its truth is size(E x).

    Attributes:
        matrix: rows of the linear map for entries (images, or images by label) given by number: (k,) to (k, m).
        size: (..., m) to (...,).
        share: how much of each coordinate the entries hold, (k,) to (k, m), summing to 1 over all entries: what x loses
            when a group is left out.
        offset: what the estimator adds to x by itself, (m,): the bias of kernels, no part of the truth.
    """

    matrix: Callable[[IntArray], NDArray[np.float64]]
    size: Size
    share: Callable[[IntArray], NDArray[np.float64]]
    offset: FloatArray


def total(x: FloatArray) -> NDArray[np.float64]:
    """Return the sum of absolute values over the last axis."""
    return np.asarray(np.abs(x).sum(axis=-1))


def outcome_variances(p: FloatArray, correct: FloatArray | BoolArray, n_bins: int = 10) -> NDArray[np.float64]:
    """Return two readings of each outcome's variance q (1 - q), (2, n), from the frequency q in bins of equal width.

    With two more outcomes of either kind in each bin, so that a bin whose answers all came true does not count as
    certain (Agresti and Coull 1998); and with one more of the bin's mean probability, which does not take a rare label
    for a noisy one. Where images are few, too much noise makes an error look too small, and too little makes it look
    certain.
    """
    bins = bins_of(p, bin_edges(p, n_bins, "width"))
    counts, hits = np.bincount(bins), np.bincount(bins, weights=correct)
    mean = np.bincount(bins, weights=p) / np.maximum(counts, 1)
    readings = np.stack([(hits + 2) / (counts + 4), (hits + mean) / (counts + 1)])
    return np.asarray((readings * (1 - readings))[:, bins])


@dataclass(frozen=True)
class Noise:
    """How x varies between samples: its value, covariance, and the covariance's degrees of freedom."""

    value: NDArray[np.float64]
    covariance: NDArray[np.float64]
    degrees_of_freedom: float


def noise_of(form: ResidualForm, residual: FloatArray, variance: FloatArray, groups: IntArray) -> Noise:
    """Return how x varies, from the groups as far as they can tell.

    The groups' own covariance (jackknife) is blended with a working one: outcomes of the given variances, correlated at
    .5 within groups, worth 8 degrees of freedom.

    Args:
        form: the statistic.
        residual: y - p, (n,).
        variance: of each outcome, (n,).
        groups: (n,).
    """
    codes = np.unique(groups, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(int(codes.max(initial=-1)) + 1))
    m, n_groups = len(form.offset), len(starts)
    value = np.zeros(m)
    blocks = list(_group_blocks(starts, len(order), max(1, _NUMBERS_AT_ONCE // m)))
    for *_, begin, end in blocks:
        value += residual[order[begin:end]] @ form.matrix(order[begin:end])
    empirical, working = np.zeros((m, m)), np.zeros((m, m))
    squares = []
    singles = n_groups == len(order)
    for first, last, begin, end in blocks:
        rows, at = order[begin:end], starts[first:last] - begin
        matrix = form.matrix(rows)
        held = np.add.reduceat(form.share(rows), at)
        moved = np.add.reduceat(matrix * residual[rows, None], at) - value * held
        moved /= np.where(held < 1, 1 - held, 1.0)
        empirical += moved.T @ moved
        squares.append((moved**2).sum(axis=1))
        scaled = matrix * np.sqrt(variance[rows])[:, None]
        alone = scaled.T @ scaled
        if singles:
            working += alone
        else:
            together = np.add.reduceat(scaled, at)
            working += PRIOR_CORRELATION * (together.T @ together) + (1 - PRIOR_CORRELATION) * alone
    df = float(carried_degrees_of_freedom(np.concatenate(squares))) if n_groups > 1 else 0.0
    worth = df + PRIOR_DEGREES_OF_FREEDOM
    empirical *= (n_groups - 1) / n_groups
    return Noise(value, (df * empirical + PRIOR_DEGREES_OF_FREEDOM * working) / worth, worth)


def _group_blocks(starts: IntArray, n: int, rows_at_once: int) -> list[tuple[int, int, int, int]]:
    """Return (first group, last group + 1, first row, last row + 1) of blocks of whole groups."""
    blocks, first = [], 0
    while first < len(starts):
        last = int(np.searchsorted(starts, starts[first] + rows_at_once, side="right")) - 1
        last = min(max(last, first + 1), len(starts))
        if last == len(starts) - 1 and n - starts[first] <= rows_at_once:
            last = len(starts)
        blocks.append((first, last, int(starts[first]), int(starts[last]) if last < len(starts) else n))
        first = last
    return blocks


def error_estimate(
    form: ResidualForm,
    residual: FloatArray,
    variances: FloatArray,
    groups: IntArray,
    *,
    n: int,
    rng: np.random.Generator,
    reliable: bool = True,
    level: float = 0.95,
    method: str = METHOD,
) -> Estimate:
    """Return the debiased size and its interval (see the module), both within [0, 1].

    The interval holds what either reading of the outcomes' variances allows, where the groups leave them open.

    Args:
        form: the statistic.
        residual: y - p of each entry, (k,).
        variances: readings of each entry's variance, (2, k), as of `outcome_variances`.
        groups: of each entry, (k,).
        n: images (or entries) behind the value.
        rng: draws the noise.
        reliable: whether simulation supports the interval at this size.
        level: coverage, two-sided.
        method: how tables name the interval.
    """
    noises = [noise_of(form, residual, variances[0], groups)]
    if noises[0].degrees_of_freedom < TOLD_BY_GROUPS:
        noises += [noise_of(form, residual, variance, groups) for variance in variances[1:]]
    tail = (1 - level) / 2
    found = np.concatenate([_sizes(form, noise, rng, [tail, 0.5, 1 - tail]) for noise in noises])
    high, middle, low = np.clip(found.T, 0.0, 1.0)
    n_groups = len(np.unique(groups))
    return Estimate(float(middle.mean()), float(low.min()), float(high.max()), n, n_groups, method, reliable)


def _sizes(form: ResidualForm, noise: Noise, rng: np.random.Generator, quantiles: list[float]) -> NDArray[np.float64]:
    """Return the sizes for which the observed one is each quantile, (patterns, quantiles); noise is multivariate t.

    A size is spread over the entries as x is, as x after moving each entry one standard error towards 0, and evenly in
    standard errors.
    """
    x = noise.value
    roots, vectors = np.linalg.eigh(noise.covariance)
    drawn = rng.standard_normal((_DRAWS, len(x))) * np.sqrt(np.maximum(roots, 0)) @ vectors.T
    df = noise.degrees_of_freedom
    drawn *= np.sqrt(df / stats.chi2.ppf((np.arange(_DRAWS) + 0.5) / _DRAWS, df))[rng.permutation(_DRAWS), None]
    observed = float(form.size(x + form.offset))
    return np.array(
        [_sizes_at(form, pattern, drawn, observed, quantiles) for pattern in _patterns(x, noise.covariance)]
    )


def _patterns(x: FloatArray, covariance: FloatArray) -> list[NDArray[np.float64]]:
    error = np.sqrt(np.maximum(np.diag(covariance), 0))
    shrunk = np.sign(x) * np.maximum(np.abs(x) - error, 0)
    if not shrunk.any():
        shrunk = np.where(np.abs(x) == np.abs(x).max(), x, 0.0)
    patterns = [np.asarray(p) for p in (x, shrunk, np.where(x < 0, -error, error))]
    return [p for p in patterns if p.any()] or [np.ones(len(x))]


def _sizes_at(
    form: ResidualForm, pattern: FloatArray, drawn: FloatArray, observed: float, quantiles: list[float]
) -> list[float]:
    """Return the size of truth for which the observed one is each quantile, given how the truth is spread."""

    def simulated(scale: float) -> NDArray[np.float64]:
        return np.quantile(form.size(scale * pattern + form.offset + drawn), quantiles)

    most = max(1.0, observed / max(float(form.size(pattern)), 1e-12))
    for _ in range(30):
        if simulated(most)[0] > observed:
            break
        most *= 1.5
    scales = np.linspace(0, most, _SIZES)
    table = np.maximum.accumulate([simulated(scale) for scale in scales], axis=0)
    sizes = np.maximum.accumulate(form.size(scales[:, None] * pattern))
    return [0.0 if observed <= column[0] else float(np.interp(observed, column, sizes)) for column in table.T]


def undefined(n_groups: int = 0) -> Estimate:
    """Return the estimate where there is no image."""
    return Estimate(math.nan, math.nan, math.nan, 0, n_groups, "undefined: no images", reliable=False)
