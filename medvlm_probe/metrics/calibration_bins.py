"""Calibration errors by bins: expected (equal width), adaptive (equal mass), maximum, classwise; reliability tables.

Bins are closed on the left; the last is closed on both sides. All values are in [0, 1], smaller better, NaN without an
image. Each is the plain value, biased upwards for few images: `calibration_estimates` has the debiased one with its
interval, and what a perfectly calibrated model of that size shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration_outcomes import checked_probabilities, outcomes_of
from medvlm_probe.metrics.proportions import proportion_bounds
from medvlm_probe.types import BoolArray, FloatArray, IntArray

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


@dataclass(frozen=True)
class ReliabilityBins:
    """A reliability diagram as a table, one row a bin, (b,) each; NaN where a bin is empty.

    Attributes:
        low, high: the bin's edges.
        n, n_groups: its images and groups.
        confidence: mean confidence.
        frequency: share of answers that came true.
        frequency_low, frequency_high: the frequency's interval, Wilson's on the groups' effective n.
        band_low, band_high: where the frequency lies for a perfectly calibrated model; NaN unless asked for.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: NDArray[np.int64]
    n_groups: NDArray[np.int64]
    confidence: NDArray[np.float64]
    frequency: NDArray[np.float64]
    frequency_low: NDArray[np.float64]
    frequency_high: NDArray[np.float64]
    band_low: NDArray[np.float64]
    band_high: NDArray[np.float64]

    def rows(self) -> list[dict[str, float | int]]:
        """Return one dict a bin, for tables."""
        names = list(self.__dataclass_fields__)
        return [{name: getattr(self, name)[b].item() for name in names} for b in range(len(self.n))]


def reliability_bins(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: IntArray | None = None,
    *,
    n_bins: int = 10,
    binning: Binning = "width",
    draws: BoolArray | None = None,
) -> ReliabilityBins:
    """Return the table of a reliability diagram.

    Args:
        probabilities, labels: as in `expected_calibration_error`.
        groups: the independently sampled group of each image, (n,); by default each its own.
        n_bins: at least 1.
        binning: bins of equal `width` or `mass`.
        draws: outcomes of a perfectly calibrated model, bool (B, images with a known label), as
            `calibration_null.calibrated_outcomes` draws them; without them the band is NaN.

    Raises:
        InputError: what is given does not fit.
    """
    found = outcomes_of(probabilities, labels)
    c, y = found.confidence, found.correct
    own = np.arange(len(c)) if groups is None else np.unique(np.asarray(groups)[found.kept], return_inverse=True)[1]
    edges = bin_edges(c, n_bins, binning)
    bins = bins_of(c, edges)
    size = len(edges) + 1
    n = np.bincount(bins, minlength=size)
    blank = np.full((6, size), np.nan)
    mean, frequency, low, high, band_low, band_high = blank
    groups_in = np.zeros(size, dtype=np.int64)
    for b in np.flatnonzero(n):
        inside = bins == b
        codes = np.unique(own[inside], return_inverse=True)[1]
        counts = np.bincount(codes).astype(np.float64)
        hits = np.bincount(codes, weights=y[inside].astype(np.float64))
        groups_in[b] = len(counts)
        mean[b], frequency[b] = c[inside].mean(), y[inside].mean()
        low[b], high[b] = proportion_bounds(hits, counts)
        if draws is not None:
            band_low[b], band_high[b] = np.quantile(draws[:, inside].mean(axis=1), [0.025, 0.975])
    outer = np.concatenate([[0.0], edges, [1.0]])
    return ReliabilityBins(outer[:-1], outer[1:], n, groups_in, mean, frequency, low, high, band_low, band_high)


def confidence_histogram(
    probabilities: ArrayLike, labels: ArrayLike, *, n_bins: int = 20
) -> list[dict[str, float | int]]:
    """Return how confident right and wrong answers are, one dict a bin of equal width: low, high, n_right, n_wrong.

    The answer for (n,) is "present" from .5 on at confidence p, else "absent" at 1 - p; for (n, K) it is the top label.
    Arguments and errors as in `expected_calibration_error`.
    """
    confidence, right = answers(probabilities, labels)
    bins = bins_of(confidence, bin_edges(confidence, n_bins, "width"))
    counts = [np.bincount(bins[mask], minlength=n_bins) for mask in (right, ~right)]
    return [
        {"low": b / n_bins, "high": (b + 1) / n_bins, "n_right": int(counts[0][b]), "n_wrong": int(counts[1][b])}
        for b in range(n_bins)
    ]


def answers(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the confidence of each answer and whether it is right, (n,) each: top label, or the likelier of two."""
    found = outcomes_of(probabilities, labels)
    if np.ndim(probabilities) == 2:
        return found.confidence, found.correct
    present = found.confidence >= 0.5
    return np.where(present, found.confidence, 1 - found.confidence), present == found.correct
