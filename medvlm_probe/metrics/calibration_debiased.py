"""Binned calibration errors with their bias taken off by formula, as other tools publish them."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.calibration_bins import Binning, bin_edges, bins_of
from medvlm_probe.metrics.calibration_outcomes import outcomes_of

Norm = Literal["l1", "l2"]


def debiased_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, n_bins: int = 10, *, norm: Norm = "l2", binning: Binning = "mass"
) -> float:
    """Return the debiased calibration error of images that are independent, in [0, 1], smaller better; NaN without any.

    `l2`: the root of sum_b n_b / n ((frequency - confidence)^2 - frequency (1 - frequency) / (n_b - 1)), 0 where it is
    below 0; bins of one image are left out. `l1`: ECE less what normal noise of the bins' frequencies adds to it, at
    least 0. For images in groups, and with an interval, use `calibration_estimates`.

    Args:
        probabilities: (n,) P(y = 1), or (n, K) for the top label.
        labels: 1, 0 or NaN (left out), or classes, (n,).
        n_bins: at least 1.
        norm: `l1` or `l2`.
        binning: bins of equal `mass` or `width`.

    Raises:
        InputError: what is given does not fit; logits.

    Source: Bröcker 2012; Ferro and Fricker 2012; Kumar, Liang and Ma 2019, definition 4.1 (l2) and their code (l1).
    """
    if norm not in ("l1", "l2"):
        raise InputError(f"Norm '{norm}': expected l1 or l2.")
    found = outcomes_of(probabilities, labels)
    if not len(found.confidence):
        return math.nan
    bins = bins_of(found.confidence, bin_edges(found.confidence, n_bins, binning))
    bins = np.unique(bins, return_inverse=True)[1]
    counts = np.bincount(bins).astype(np.float64)
    frequency = np.bincount(bins, weights=found.correct) / counts
    gap = frequency - np.bincount(bins, weights=found.confidence) / counts
    weight = counts / counts.sum()
    if norm == "l2":
        several = counts > 1
        terms = gap**2 - frequency * (1 - frequency) / np.maximum(counts - 1, 1)
        return math.sqrt(max(0.0, float((weight * terms)[several].sum())))
    error = np.sqrt(frequency * (1 - frequency) / counts)
    z = gap / np.where(error > 0, error, 1.0)
    noisy = error * math.sqrt(2 / math.pi) * np.exp(-(z**2) / 2) + gap * (2 * special.ndtr(z) - 1)
    bias = np.where(error > 0, noisy - np.abs(gap), 0.0)
    return max(0.0, float(weight @ (np.abs(gap) - bias)))
