"""Calibration errors by bins: expected (equal width), adaptive (equal mass), maximum, classwise.

Bins are closed on the left; the last is closed on both sides. All values are in [0, 1], smaller better, NaN without an
image. Each is the plain value, biased upwards for few images: `calibration_estimates` has the debiased one with its
interval, and what a perfectly calibrated model of that size shows.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration_outcomes import checked_probabilities, outcomes_of
from medvlm_probe.types import FloatArray

Binning = Literal["width", "mass"]

SURE = 0.9
"""Confidence above which a wrong answer counts as a confident one."""


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, n_bins: int = 10, legacy: bool = False
) -> float:
    """Return ECE: sum over bins of equal width of (n_b / n) |frequency - mean confidence|.

    Args:
        probabilities: (n,) P(y = 1), or (n, K) for the top label.
        labels: 1, 0 or NaN (left out), (n,); or classes, (n,).
        n_bins: at least 1.
        legacy: CalibPrompt's released code: a confidence of exactly 1 is in no bin, but weighs in the last one.

    Raises:
        InputError: what is given does not fit; logits.

    Source: Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017.
    """
    gaps, weights = _gaps(probabilities, labels, n_bins, legacy)
    return float(gaps @ weights) if weights.any() else math.nan


def maximum_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, n_bins: int = 10, legacy: bool = False
) -> float:
    """Return MCE: the largest |frequency - mean confidence| of a bin that holds any image; as ECE otherwise.

    With `legacy` the largest term of the (legacy) ECE instead, as CalibPrompt's released code has it: never above ECE.
    """
    gaps, weights = _gaps(probabilities, labels, n_bins, legacy)
    if not weights.any():
        return math.nan
    return float((gaps * weights if legacy else gaps).max())


def adaptive_calibration_error(probabilities: ArrayLike, labels: ArrayLike, n_bins: int = 10) -> float:
    """Return ECE over bins of equal mass: their edges are quantiles of the confidences (`bin_edges`); else as ECE.

    Source: Nguyen and O'Connor 2015; Nixon et al. 2019 (there for all classes).
    """
    found = outcomes_of(probabilities, labels)
    if not len(found.confidence):
        return math.nan
    bins = bins_of(found.confidence, bin_edges(found.confidence, n_bins, "mass"))
    return float(np.abs(np.bincount(bins, weights=found.correct - found.confidence)).sum() / len(bins))


def classwise_calibration_error(probabilities: ArrayLike, labels: ArrayLike, n_bins: int = 10) -> float:
    """Return the mean over classes of the ECE of p_k against the frequency of class k, in [0, 1].

    Args:
        probabilities: (n, K).
        labels: classes, (n,).
        n_bins: at least 1.

    Raises:
        InputError: what is given does not fit.

    Source: Kull et al. 2019.
    """
    p, y = checked_probabilities(probabilities, labels)
    if p.ndim == 1:
        raise InputError("Classwise calibration error needs probabilities (n, K); for (n,) it is the ECE itself.")
    return float(np.mean([expected_calibration_error(p[:, k], y == k, n_bins) for k in range(p.shape[1])]))


def bin_edges(confidence: FloatArray, n_bins: int, binning: Binning) -> NDArray[np.float64]:
    """Return the inner edges of bins, ascending, at most n_bins - 1.

    Of equal mass: the quantiles 1 / n_bins, 2 / n_bins, ... by the averaged inverted distribution function, as
    scikit-learn's KBinsDiscretizer (1.7 on) has them. Tied confidences are never parted: edges that coincide are one,
    so there may be fewer bins, and a value that many images share has its own.

    Args:
        confidence: (n,).
        n_bins: at least 1.
        binning: `width` or `mass`.

    Raises:
        InputError: n_bins below 1.
    """
    if n_bins < 1:
        raise InputError(f"{n_bins} bins: expected 1 or more.")
    shares = np.arange(1, n_bins) / n_bins
    if binning == "width" or not len(confidence):
        return shares
    return np.unique(np.quantile(confidence, shares, method="averaged_inverted_cdf"))


def bins_of(confidence: FloatArray, edges: FloatArray) -> NDArray[np.int64]:
    """Return the bin of each confidence, 0..len(edges), (n,)."""
    return np.searchsorted(edges, confidence, side="right").astype(np.int64)


def _gaps(
    probabilities: ArrayLike, labels: ArrayLike, n_bins: int, legacy: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each bin's |frequency - mean confidence|, 0 where empty, and its share of the images, (n_bins,)."""
    found = outcomes_of(probabilities, labels)
    bins = bins_of(found.confidence, bin_edges(found.confidence, n_bins, "width"))
    weights = np.bincount(bins, minlength=n_bins) / max(1, len(bins))
    inside = found.confidence < 1 if legacy else np.ones(len(bins), dtype=bool)
    counts = np.bincount(bins[inside], minlength=n_bins)
    sums = np.bincount(bins[inside], weights=(found.correct - found.confidence)[inside], minlength=n_bins)
    return np.abs(sums) / np.maximum(counts, 1), weights


def answers(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the confidence of each answer and whether it is right, (n,) each: top label, or the likelier of two."""
    found = outcomes_of(probabilities, labels)
    if np.ndim(probabilities) == 2:
        return found.confidence, found.correct
    present = found.confidence >= 0.5
    return np.where(present, found.confidence, 1 - found.confidence), present == found.correct
