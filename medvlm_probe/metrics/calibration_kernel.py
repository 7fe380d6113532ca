"""Calibration errors without bins: by kernel density (beta or Dirichlet kernels), and the smooth calibration error.

Values are at least 0, smaller better, NaN for fewer than two images. Kernel densities take n^2 steps in blocks, so that
memory stays small; the beta kernel's takes images by cells above `CELLS_ABOVE` of them, within 1e-5 of the same value.
`calibration_forms` has both at few points, for bands and intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, special

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration_cells import CELLS_ABOVE, cells_of
from medvlm_probe.metrics.calibration_outcomes import checked_probabilities, outcomes_of
from medvlm_probe.types import BoolArray, FloatArray, IntArray

Kernel = Literal["beta", "dirichlet"]

EDGE = 1e-6
"""Kernels see probabilities within [EDGE, 1 - EDGE]: at exactly 0 and 1 the logarithm would have no value."""

_NUMBERS_AT_ONCE = 1 << 18
_GRID = 4096
_LEGACY_BANDWIDTHS = ((100, 0.3), (500, 0.2), (2000, 0.1))


def kde_calibration_error(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    kernel: Kernel = "beta",
    bandwidth: float | None = None,
    legacy: bool = False,
) -> float:
    """Return the mean over images of |frequency among images of like confidence - own confidence|.

    The frequency is the kernel regression without the image itself. `beta`: of P(y = 1) for (n,), of the top label for
    (n, K); in [0, 1]. `dirichlet`: of the whole distribution (n, K), differences summed over classes; in [0, 2]. The
    kernel of an image p is the Dirichlet (beta) density of parameters p / bandwidth + 1.

    Args:
        probabilities: (n,) or (n, K).
        labels: 1, 0 or NaN (left out), or classes, (n,).
        kernel: `dirichlet` needs (n, K).
        bandwidth: above 0; by default `kde_bandwidth`.
        legacy: CalibPrompt's released code instead: Gaussian kernels on the confidence, whose bandwidth is .3 below 100
            images, .2 below 500, .1 below 2,000, else .05. It gives a calibrated model 7 to 13 % at 90 images.

    Raises:
        InputError: what is given does not fit; logits; a bandwidth not above 0.

    Source: Popordanoska, Sayer and Blaschko 2022; Chen 1999 (beta kernels).
    """
    found = outcomes_of(probabilities, labels)
    n = len(found.confidence)
    if n < 2:
        return math.nan
    if legacy:
        return _legacy(found.confidence, found.correct.astype(np.float64))
    if kernel == "dirichlet":
        p, y = checked_probabilities(probabilities, labels)
        if p.ndim == 1:
            raise InputError("The Dirichlet kernel needs probabilities (n, K); for (n,) use the beta kernel.")
        targets = (np.arange(p.shape[1]) == y[:, None]).astype(np.float64)
    else:
        p, targets = found.confidence[:, None], found.correct[:, None].astype(np.float64)
    h = kde_bandwidth(p) if bandwidth is None else bandwidth
    if kernel == "beta" and n > CELLS_ABOVE:
        return _error_by_cells(found.confidence, found.correct, h)
    gaps = np.concatenate(
        [np.abs(weights @ targets - p[rows]).sum(axis=1) for rows, weights in _weights(p, np.arange(n), h)]
    )
    return float(gaps.mean())


def kde_bandwidth(probabilities: FloatArray) -> float:
    """Return the bandwidth h whose kernels are as wide, on average, as Silverman's rule has Gaussian ones.

    The variance of a beta kernel is about p (1 - p) h, so h = sum_k (1.06 sd_k)^2 n^(-2/5) / sum_k mean p_k (1 - p_k),
    at least 1e-4, at most 1.

    Args:
        probabilities: confidences (n,) or (n, 1), or distributions (n, K).

    Source: Silverman 1986, equation 3.28.
    """
    p = np.asarray(probabilities, dtype=np.float64).reshape(len(probabilities), -1)
    width = float((p * (1 - p)).mean(axis=0).sum())
    spread = float(p.var(axis=0).sum())
    return float(np.clip(1.06**2 * spread * len(p) ** -0.4 / width, 1e-4, 1.0)) if width > 0 else 1.0


def kernel_weights(confidence: FloatArray, at: IntArray, bandwidth: float) -> NDArray[np.float64]:
    """Return what each image weighs in the kernel regression at images `at`, themselves left out, rows summing to 1.

    Args:
        confidence: (n,), n at least 2.
        at: image numbers, (m,).
        bandwidth: of the beta kernel, above 0.

    Returns:
        (m, n).
    """
    return np.concatenate([weights for _, weights in _weights(confidence[:, None], at, bandwidth)])


def _weights(p: FloatArray, at: IntArray, bandwidth: float) -> Iterator[tuple[IntArray, NDArray[np.float64]]]:
    """Yield image numbers and their rows of kernel weights, in blocks.

    In logarithms the density of kernel i at j is linear in log p_j / bandwidth, so a block is one matrix product.
    """
    inside = _inside(p)
    alpha, normaliser = _kernels(inside, bandwidth)
    logs = np.log(inside)
    step = max(1, _NUMBERS_AT_ONCE // len(p))
    for start in range(0, len(at), step):
        rows = at[start : start + step]
        # Only differences within a row matter: that to the row's largest keeps the exponential from overflowing.
        exponent = logs[rows] @ alpha.T - normaliser
        exponent[np.arange(len(rows)), rows] = -np.inf
        exponent -= exponent.max(axis=1, keepdims=True)
        weights = np.exp(exponent, out=exponent)
        weights /= weights.sum(axis=1, keepdims=True)
        yield rows, weights


def _inside(p: FloatArray) -> NDArray[np.float64]:
    """Return distributions (n, K) of p (n, K), or of P(y = 1) (n, 1), away from 0 and 1."""
    return np.clip(np.concatenate([p, 1 - p], axis=1) if p.shape[1] == 1 else p, EDGE, 1 - EDGE)


def _kernels(inside: FloatArray, bandwidth: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the kernels' parameters less 1, (n, K), and the logarithms of what normalises them, (n,)."""
    if not bandwidth > 0:
        raise InputError(f"Bandwidth {bandwidth:g}: expected above 0.")
    alpha = np.asarray(inside / bandwidth, dtype=np.float64)
    return alpha, special.gammaln(alpha + 1).sum(axis=1) - special.gammaln(alpha.sum(axis=1) + alpha.shape[1])


def _error_by_cells(confidence: FloatArray, correct: BoolArray, bandwidth: float) -> float:
    """Return the beta kernel's error with every image at the mean of its cell, itself left out still."""
    cells = cells_of(confidence)
    hits = cells.sums(correct)
    inside = _inside(cells.mean[:, None])
    alpha, normaliser = _kernels(inside, bandwidth)
    gaps = 0.0
    step = max(1, _NUMBERS_AT_ONCE // len(cells))
    for start in range(0, len(cells), step):
        rows = np.arange(start, min(start + step, len(cells)))
        own = np.arange(len(rows)), rows
        exponent = np.log(inside[rows]) @ alpha.T - normaliser
        # A lone image sees none of its cell; else the largest exponent could be its own, and all others vanish.
        exponent[own] = np.where(cells.counts[rows] > 1, exponent[own], -np.inf)
        weights = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        near, itself = weights @ hits, weights[own]
        others = weights @ cells.counts - itself
        right = np.abs((near - itself) / others - cells.mean[rows])
        wrong = np.abs(near / others - cells.mean[rows])
        gaps += float(hits[rows] @ right + (cells.counts[rows] - hits[rows]) @ wrong)
    return gaps / len(confidence)


def kernel_weights_by_cell(
    confidence: FloatArray, at: IntArray, bandwidth: float
) -> tuple[NDArray[np.float64], IntArray]:
    """Return what an image of each cell weighs in the kernel regression at images `at`, (m, K), and the cells, (n,).

    As `kernel_weights` for many images: they lie at their cells' means, and the image itself is not left out, one among
    the thousands that a kernel holds.
    """
    cells = cells_of(confidence)
    alpha, normaliser = _kernels(_inside(cells.mean[:, None]), bandwidth)
    exponent = np.log(_inside(confidence[at, None])) @ alpha.T - normaliser
    weights = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return weights / (weights @ cells.counts)[:, None], cells.of


def _legacy(confidence: FloatArray, correct: FloatArray) -> float:
    n = len(confidence)
    bandwidth = next((h for below, h in _LEGACY_BANDWIDTHS if n < below), 0.05)
    gaps = np.empty(n)
    step = max(1, _NUMBERS_AT_ONCE // n)
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        weights = np.exp(-((confidence[rows, None] - confidence) ** 2) / (2 * bandwidth**2))
        weights[np.arange(len(rows)), rows] = 0
        gaps[rows] = np.abs(weights @ correct / np.maximum(weights.sum(axis=1), 1e-10) - confidence[rows])
    return float(gaps.mean())


def smooth_calibration_error(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return smECE: the mean absolute residual after Gaussian smoothing whose width equals the value itself, in [0, 1].

    Residuals y - p are smoothed over p with a Gaussian that is reflected at 0 and 1; the wider, the smaller the result;
    the value is where width and result meet. Residuals lie on a grid of 4,096 cells. Binary or top label.

    Args:
        probabilities: (n,) or (n, K).
        labels: 1, 0 or NaN (left out), or classes, (n,).

    Raises:
        InputError: what is given does not fit; logits.

    Source: Błasiok and Nakkiran 2023, "Smooth ECE: principled reliability diagrams via kernel smoothing".
    """
    found = outcomes_of(probabilities, labels)
    if not len(found.confidence):
        return math.nan
    return float(smooth(gridded_coefficients(found.confidence, found.correct - found.confidence), steps=40)[0])


def gridded_coefficients(confidence: FloatArray, residual: FloatArray) -> NDArray[np.float64]:
    """Return the cosine coefficients of the mean residual over a grid of 4,096 cells, (1, 4096)."""
    place = confidence * _GRID - 0.5
    left = np.floor(place).astype(np.int64)
    share = place - left
    cells = np.zeros(_GRID)
    for cell, weight in ((left, 1 - share), (left + 1, share)):
        cells += np.bincount(np.clip(cell, 0, _GRID - 1), weights=weight * residual, minlength=_GRID)
    return np.asarray(fft.dct(cells, type=2)[None] / (2 * len(confidence)))


def smooth(coefficients: FloatArray, *, steps: int = 5) -> NDArray[np.float64]:
    """Return smECE from cosine coefficients a_k = mean of residual x cos(k pi p), k = 0 .. m - 1, (..., m) to (...,).

    In them smoothing is a factor: exp(-(k pi width)^2 / 2), reflections included (the heat kernel of a rod).

    Args:
        coefficients: (..., m).
        steps: halvings of the interval that holds the value, before a last linear interpolation; 5 give it to about
            1e-4, 40 to rounding.
    """
    a = np.asarray(coefficients, dtype=np.float64)
    decay = -((np.pi * np.arange(a.shape[-1])) ** 2) / 2

    def excess(width: NDArray[np.float64]) -> NDArray[np.float64]:
        density = fft.dct(a * np.exp(decay * width[..., None] ** 2), type=3, axis=-1)
        return np.asarray(np.abs(density).mean(axis=-1) - width)

    # However wide the smoothing, the mean residual stays; and the value at that width is an upper bound.
    low = np.abs(a[..., 0])
    above = np.maximum(excess(low), 0.0)
    high = low + above
    below = np.minimum(excess(high), 0.0)
    for _ in range(steps):
        width = (low + high) / 2
        found = excess(width)
        wider = found > 0
        low, above = np.where(wider, width, low), np.where(wider, found, above)
        high, below = np.where(wider, high, width), np.where(wider, below, found)
    span = above - below
    return np.asarray(low + (high - low) * np.where(span > 0, above / np.where(span > 0, span, 1.0), 0.0))
