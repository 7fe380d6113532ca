"""Scores of probabilities that need no bins: Brier, log likelihood, overconfidence, risk against coverage.

`probabilities` is (n,) P(y = 1) with labels 1, 0 or NaN (left out), or (n, K) with classes; all raise InputError for
logits and for shapes or labels that do not fit, and are NaN without an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.metrics.calibration_bins import SURE, Binning, answers, bin_edges, bins_of
from medvlm_probe.metrics.calibration_outcomes import checked_probabilities, outcomes_of
from medvlm_probe.types import BoolArray, FloatArray

CLIP = 1e-12
"""Probabilities of what came true below this count as this in the log likelihood: a certain error costs 27.6."""


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean of (p - y)^2, in [0, 1], for (n,); of sum_k (p_k - [k = y])^2, in [0, 2], for (n, K).

    For K = 2 that is twice the score of (n,). Smaller is better; the score is proper. Source: Brier 1950.
    """
    return _mean(brier_terms(probabilities, labels))


def negative_log_likelihood(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean of -log of the probability of what came true, clipped at `CLIP`, in [0, 27.6], smaller better."""
    return _mean(log_terms(probabilities, labels))


def brier_terms(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return each image's term of the Brier score, (n,) or fewer where labels are unknown."""
    p, y = checked_probabilities(probabilities, labels)
    if p.ndim == 1:
        known = ~np.isnan(y)
        return (p[known] - y[known]) ** 2
    return np.asarray(((p - (np.arange(p.shape[1]) == y[:, None])) ** 2).sum(axis=1))


def log_terms(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return each image's term of the negative log likelihood, (n,) or fewer where labels are unknown."""
    p, y = checked_probabilities(probabilities, labels)
    if p.ndim == 1:
        known = ~np.isnan(y)
        return log_loss(np.where(y == 1, p, 1 - p)[known])
    return log_loss(p[np.arange(len(p)), y.astype(np.int64)])


def log_loss(p: FloatArray) -> NDArray[np.float64]:
    """Return -log of probabilities, clipped at `CLIP`, of any shape."""
    return np.asarray(-np.log(np.clip(p, CLIP, 1.0)))


@dataclass(frozen=True)
class BrierParts:
    """Brier score = reliability - resolution + uncertainty, exactly.

    Attributes:
        reliability: sum over bins of n_b / n (frequency - mean confidence)^2, smaller better.
        resolution: sum of n_b / n (frequency - overall frequency)^2, less the variance of confidences within bins, plus
            twice their covariance with outcomes there (the within-bin terms), larger better.
        uncertainty: overall frequency x (1 - it): what knowing the frequency alone scores.
    """

    reliability: float
    resolution: float
    uncertainty: float

    @property
    def score(self) -> float:
        """The Brier score."""
        return self.reliability - self.resolution + self.uncertainty


def brier_decomposition(
    probabilities: ArrayLike, labels: ArrayLike, n_bins: int = 10, binning: Binning = "width"
) -> BrierParts:
    """Return the parts of the Brier score; for (n, K) the sums of the classes' own parts.

    Source: Murphy 1973; Stephenson, Coelho and Jolliffe 2008 (the within-bin terms, which make it exact for any bins).
    """
    p, y = checked_probabilities(probabilities, labels)
    if p.ndim == 1:
        known = ~np.isnan(y)
        return _binary_parts(p[known], y[known], n_bins, binning)
    parts = [_binary_parts(p[:, k], (y == k).astype(np.float64), n_bins, binning) for k in range(p.shape[1])]
    return BrierParts(
        sum(part.reliability for part in parts),
        sum(part.resolution for part in parts),
        sum(part.uncertainty for part in parts),
    )


def _binary_parts(p: FloatArray, y: FloatArray, n_bins: int, binning: Binning) -> BrierParts:
    if not len(p):
        return BrierParts(math.nan, math.nan, math.nan)
    bins = bins_of(p, bin_edges(p, n_bins, binning))
    counts = np.maximum(np.bincount(bins), 1)
    mean, frequency = (np.bincount(bins, weights=values) / counts for values in (p, y))
    base = float(y.mean())
    within_p, within_y = p - mean[bins], y - frequency[bins]
    return BrierParts(
        reliability=float(np.mean((frequency - mean)[bins] ** 2)),
        resolution=float(
            np.mean((frequency[bins] - base) ** 2) - np.mean(within_p**2) + 2 * np.mean(within_p * within_y)
        ),
        uncertainty=base * (1 - base),
    )


@dataclass(frozen=True)
class Overconfidence:
    """How confident the answers are against how often they are right.

    An answer is the top label for (n, K); for (n,) "present" from .5 on at confidence p, else "absent" at 1 - p.

    Attributes:
        overconfidence: mean confidence minus accuracy, in [-1, 1]: above 0 over-confident, below 0 under-confident.
        sure_errors: wrong answers above confidence .9, as a share of all wrong answers, in [0, 1], smaller better.
        sure_error_confidence: their mean confidence, in (.9, 1]; NaN where there are none.
        error_confidence: mean confidence of all wrong answers, in [0, 1], smaller better; NaN where all are right.
        n_errors, n_sure_errors: their numbers.
    """

    overconfidence: float
    sure_errors: float
    sure_error_confidence: float
    error_confidence: float
    n_errors: int
    n_sure_errors: int


def overconfidence(probabilities: ArrayLike, labels: ArrayLike) -> Overconfidence:
    """Return how confident the answers are, right and wrong ones."""
    confidence, right = answers(probabilities, labels)
    sure = ~right & (confidence > SURE)
    n_errors, n_sure = int((~right).sum()), int(sure.sum())
    return Overconfidence(
        overconfidence=_mean(confidence - right),
        sure_errors=n_sure / n_errors if n_errors else math.nan,
        sure_error_confidence=_mean(confidence[sure]),
        error_confidence=_mean(confidence[~right]),
        n_errors=n_errors,
        n_sure_errors=n_sure,
    )


def calibration_in_the_large(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return mean confidence minus frequency, in [-1, 1]: P(y = 1) for (n,), the top label for (n, K); 0 is best."""
    found = outcomes_of(probabilities, labels)
    return _mean(found.confidence - found.correct)


def risk_coverage_area(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the area under the risk-coverage curve, in [0, 1], smaller better.

    The mean over images of the error rate among the answers at least as confident as its own: tied confidences are
    answered together. Answers as in `Overconfidence`. Source: El-Yaniv and Wiener 2010; Geifman et al. 2019.
    """
    confidence, right = answers(probabilities, labels)
    return risk_coverage(confidence, right)[0] if len(right) else math.nan


def risk_coverage(confidence: FloatArray, right: BoolArray) -> tuple[float, NDArray[np.float64]]:
    """Return the area, and its derivative with respect to the weight of each image (weights sum to 1), (n,).

    Args:
        confidence: (n,), at least one.
        right: bool (n,).
    """
    levels, level = np.unique(-confidence, return_inverse=True)
    count = np.bincount(level, minlength=len(levels)).astype(np.float64)
    errors = np.bincount(level, weights=(~right).astype(np.float64), minlength=len(levels))
    taken, wrong = np.cumsum(count), np.cumsum(errors)
    risk = wrong / taken
    n = taken[-1]
    area = float(count @ risk / n)
    # Each later level's risk moves by (error - risk) / taken; from_here sums that over this level and all below it.
    per_error = np.cumsum((count / taken)[::-1])[::-1]
    per_image = np.cumsum((count * risk / taken)[::-1])[::-1]
    return area, risk[level] + ~right * per_error[level] - per_image[level] - area


def risk_coverage_curve(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coverage, ascending in (0, 1], and the error rate among that share of the most confident answers."""
    confidence, right = answers(probabilities, labels)
    levels, level = np.unique(-confidence, return_inverse=True)
    taken = np.cumsum(np.bincount(level, minlength=len(levels)))
    wrong = np.cumsum(np.bincount(level, weights=(~right).astype(np.float64), minlength=len(levels)))
    return taken / max(1, len(right)), wrong / taken


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else math.nan
