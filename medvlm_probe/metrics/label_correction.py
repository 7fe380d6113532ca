"""What a model is worth, and how frequent a finding is, once the errors of whoever gave the labels are taken off.

A labeler (a program that reads reports, a person) has a sensitivity and a specificity against a better reference,
measured on other patients. Prevalence then follows by Rogan and Gladen 1978, a model's recall and specificity by
Staquet et al. 1981. Both need a labeler better than chance; Staquet's needs also that model and labeler err
independently given the truth, so it comes with the range that any dependence could give.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.intervals import VarianceFunction, effective_size, jackknife_variance, score_bounds
from medvlm_probe.metrics.proportions import design_effect, proportion
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

METHOD_PREVALENCE = "Rogan-Gladen, Lang-Reiczigel interval on effective n"
METHOD_RATE = "Staquet, conditional independence, score interval over groups of both samples"
REFUTED = "the counts refute independence"

ENOUGH = 10
"""Below so many groups with, or without, the finding on either side a corrected interval is marked unreliable."""


@dataclass(frozen=True, eq=False)
class LabelerErrors:
    """How often a labeler is right, measured against a reference on images that the correction does not use.

    Attributes:
        sensitivity: share of the reference's positives that the labeler calls positive, in [0, 1].
        specificity: share of its negatives that the labeler calls negative.
        hits, positives: by group that has positives, (G,): those that the labeler found, and all of them.
        rejections, negatives: the same of negatives, (H,).
    """

    sensitivity: Estimate
    specificity: Estimate
    hits: FloatArray
    positives: FloatArray
    rejections: FloatArray
    negatives: FloatArray

    @property
    def youden(self) -> float:
        """Sensitivity + specificity - 1: what is left of a signal that is seen through the labeler; 1 for no errors."""
        return self.sensitivity.value + self.specificity.value - 1

    @property
    def better_than_chance(self) -> bool:
        """Whether the intervals, too, say that the labeler is better than chance."""
        return self.sensitivity.low + self.specificity.low > 1


@dataclass(frozen=True)
class CorrectedRate:
    """A model's recall or specificity: against the labels as they are, and corrected.

    Attributes:
        apparent: against the labels.
        corrected: against what the labels stand for, if model and labeler err independently.
        low_if_dependent, high_if_dependent: the least and greatest value that any dependence allows; no sampling error.
        independence_refuted: with independent errors recall or specificity would lie outside [0, 1] by more than
            chance, so model and labeler err together; both corrected values are then marked unreliable.
    """

    apparent: Estimate
    corrected: Estimate
    low_if_dependent: float
    high_if_dependent: float
    independence_refuted: bool


def labeler_errors(reference: ArrayLike, labelled: ArrayLike, groups: IntArray) -> LabelerErrors:
    """Return a labeler's sensitivity and specificity against a reference.

    Args:
        reference, labelled: 1, 0 or NaN (image left out), (n,).
        groups: (n,).

    Raises:
        InputError: shapes that do not fit, no positive or no negative, or sensitivity + specificity of at most 1.
    """
    truth, given = np.asarray(reference, dtype=np.float64), np.asarray(labelled, dtype=np.float64)
    codes = np.asarray(groups)
    if truth.ndim != 1 or truth.shape != given.shape or codes.shape != truth.shape:
        raise InputError(f"Reference {truth.shape}, labels {given.shape} and groups {codes.shape} must be (n,) alike.")
    known = ~np.isnan(truth) & ~np.isnan(given)
    positive, called, codes = truth[known] == 1, given[known] == 1, codes[known]
    if not positive.any() or positive.all():
        raise InputError(
            f"The reference has {int(positive.sum()):,} positives and {int((~positive).sum()):,} negatives that are "
            "labelled too; a labeler's errors need both."
        )
    sensitivity = proportion(called[positive], codes[positive])
    specificity = proportion(~called[~positive], codes[~positive])
    if sensitivity.value + specificity.value <= 1:
        raise InputError(
            f"Sensitivity {sensitivity.value:.3f} and specificity {specificity.value:.3f} sum to 1 or less: these "
            "labels say no more than chance about the reference, and nothing can be corrected for them."
        )
    hits, positives = _by_group(called[positive], codes[positive])
    rejections, negatives = _by_group(~called[~positive], codes[~positive])
    return LabelerErrors(sensitivity, specificity, hits, positives, rejections, negatives)


def corrected_prevalence(labelled: BoolArray, groups: IntArray, errors: LabelerErrors) -> Estimate:
    """Return the share of images that have the finding: (q + specificity - 1) / (sensitivity + specificity - 1).

    The interval is Lang and Reiczigel's, with the uncertainty of all three, on sample sizes divided by the groups'
    design effects; where the labeler's intervals allow chance it is unreliable.

    Args:
        labelled: whether the labeler calls each image positive, bool (n,).
        groups: (n,).
        errors: of the labeler, from other patients.

    Source: Rogan and Gladen 1978; Lang and Reiczigel 2014.
    """
    called, codes = np.asarray(labelled, dtype=bool), np.asarray(groups)
    if not len(called):
        return Estimate(math.nan, math.nan, math.nan, 0, 0, METHOD_PREVALENCE, reliable=False)
    share = float(called.mean())
    value = (share + errors.specificity.value - 1) / errors.youden
    z = float(special.ndtri(0.975))
    n = _worth(*_by_group(called, codes))
    n_positive, n_negative = _worth(errors.hits, errors.positives), _worth(errors.rejections, errors.negatives)
    q = (n * share + z * z / 2) / (n + z * z)
    se = (n_positive * errors.sensitivity.value + 1) / (n_positive + 2)
    sp = (n_negative * errors.specificity.value + 1) / (n_negative + 2)
    youden = se + sp - 1
    centre = (q + sp - 1) / youden if youden > 0 else 0.5
    of_se, of_sp = se * (1 - se) / (n_positive + 2), sp * (1 - sp) / (n_negative + 2)
    shift = 2 * z * z * (centre * of_se - (1 - centre) * of_sp)
    spread = math.sqrt(q * (1 - q) / (n + z * z) + centre**2 * of_se + (1 - centre) ** 2 * of_sp) / abs(youden)
    low, high = np.clip([centre + shift - z * spread, centre + shift + z * spread], 0, 1) if youden > 0 else (0.0, 1.0)
    value = float(np.clip(value, 0, 1))
    return Estimate(
        value,
        min(float(low), value),
        max(float(high), value),
        len(called),
        len(np.unique(codes)),
        METHOD_PREVALENCE,
        reliable=errors.better_than_chance,
    )


def corrected_recall(
    labelled: BoolArray, predicted: BoolArray, groups: IntArray, errors: LabelerErrors
) -> CorrectedRate:
    """Return a model's recall, apparent and corrected: (P(T, L) - P(T) f) / (P(L) - f) with f = 1 - specificity.

    T: predicted, L: labelled positive. Only the labeler's specificity counts. NaN where no more images are labelled
    positive than f makes without any finding.

    Args:
        labelled, predicted: bool (n,).
        groups: (n,).
        errors: of the labeler, from other patients.

    Raises:
        InputError: shapes that do not fit.

    Source: Staquet, Rozencweig, Lee and Muggia 1981; bounds: `dependence_bounds`.
    """
    return _corrected(labelled, predicted, groups, errors, of_negatives=False)


def corrected_specificity(
    labelled: BoolArray, predicted: BoolArray, groups: IntArray, errors: LabelerErrors
) -> CorrectedRate:
    """Return a model's specificity, apparent and corrected; as `corrected_recall`, with the labeler's sensitivity."""
    return _corrected(labelled, predicted, groups, errors, of_negatives=True)


def dependence_bounds(
    labelled: BoolArray, predicted: BoolArray, sensitivity: float, specificity: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the (least, greatest) recall and specificity that fit the counts under any dependence given the truth.

    How many images have the finding among those labelled positive, and among the others, follows from the labeler's
    errors; which of them the model calls is bounded by both margins only. These bounds are sharp, and those of every
    conditional covariance that keeps probabilities within 0 and 1. NaN where the corrected prevalence is not within
    (0, 1).

    Args:
        labelled, predicted: bool (n,).
        sensitivity, specificity: of the labeler; their sum is above 1.

    Source: Vacek 1985 (conditional covariance); Frechet's bounds.
    """
    p = (float(np.mean(labelled)) + specificity - 1) / (sensitivity + specificity - 1)
    if not 0 < p < 1:
        return (math.nan, math.nan), (math.nan, math.nan)
    least = most = 0.0
    for label, share in ((labelled, p * sensitivity), (~labelled, p * (1 - sensitivity))):
        size, called = float(np.mean(label)), float(np.mean(label & predicted))
        least += max(0.0, called + share - size)
        most += min(called, share)
    called = float(np.mean(predicted))

    def within(low: float, high: float) -> tuple[float, float]:
        return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))

    recall = within(least / p, most / p)
    return recall, within(1 - (called - least) / (1 - p), 1 - (called - most) / (1 - p))


def _corrected(
    labelled: BoolArray, predicted: BoolArray, groups: IntArray, errors: LabelerErrors, *, of_negatives: bool
) -> CorrectedRate:
    label, model, codes = np.asarray(labelled, bool), np.asarray(predicted, bool), np.asarray(groups)
    if label.ndim != 1 or label.shape != model.shape or codes.shape != label.shape:
        raise InputError(
            f"Labels {label.shape}, predictions {model.shape} and groups {codes.shape} must be (n,) alike."
        )
    bounds = dependence_bounds(label, model, errors.sensitivity.value, errors.specificity.value)[of_negatives]
    se, sp = errors.sensitivity.value, errors.specificity.value
    # Specificity is the recall of what is absent: present and absent swap their roles everywhere.
    both = (
        _rate(label, model, codes, (errors.rejections, errors.negatives), 1 - sp, se),
        _rate(~label, ~model, codes, (errors.hits, errors.positives), 1 - se, sp),
    )
    if of_negatives:
        label, model = ~label, ~model
    apparent = proportion(model[label], codes[label])
    found = both[of_negatives].estimate
    refuted = any(part.refuted for part in both)
    n_scarce = min(len(np.unique(codes[label])), len(errors.positives), len(errors.negatives))
    corrected = replace(
        found,
        method=f"{METHOD_RATE}; {REFUTED}" if refuted else METHOD_RATE,
        reliable=found.reliable and n_scarce >= ENOUGH and errors.better_than_chance and not refuted,
    )
    return CorrectedRate(apparent, corrected, *bounds, independence_refuted=refuted)


@dataclass(frozen=True)
class _Rate:
    """A corrected recall, and whether its value before it is held within [0, 1] lies outside beyond chance."""

    estimate: Estimate
    refuted: bool


def _rate(
    label: BoolArray,
    model: BoolArray,
    codes: IntArray,
    validation: tuple[FloatArray, FloatArray],
    false: float,
    sensitivity: float,
) -> _Rate:
    """Return the corrected recall with its interval.

    It solves mean((T - x)(L - f)) = 0, so its interval keeps every x whose mean is within reach of 0 under the variance
    that would hold at x: that of independent errors at x, plus that of f. Leaving out each group of either sample
    scales it to what the groups show (`score_bounds`).
    """
    right, total = validation
    n, n_groups = len(label), len(np.unique(codes))
    by_group = np.stack([_by_group(mask, codes)[0] for mask in (label & model, model, label, np.ones(n, dtype=bool))])
    sums = by_group.sum(axis=1, keepdims=True)
    if not n or sums[2, 0] / n <= false:
        return _Rate(Estimate(math.nan, math.nan, math.nan, n, n_groups, METHOD_RATE, reliable=False), False)
    left = total.sum() - total
    without_other = 1 - (right.sum() - right) / np.where(left > 0, left, np.nan)
    raw = float(_solved(sums, np.array([false]))[0])
    value = float(np.clip(raw, 0, 1))
    without = np.concatenate([_solved(sums - by_group, np.array([false])), _solved(sums, without_other)])
    low, high = score_bounds(
        np.asarray(value),
        without,
        _working_variance(sums[:, 0] / n, effective_size(codes), validation, sensitivity),
    )
    refuted = abs(raw - value) > float(special.ndtri(0.975)) * math.sqrt(float(jackknife_variance(without)[0]))
    estimate = Estimate(value, float(low), float(high), n, n_groups, METHOD_RATE, reliable=math.isfinite(float(low)))
    return _Rate(estimate, refuted)


def _solved(counts: FloatArray, false: FloatArray) -> NDArray[np.float64]:
    """Return recall from the counts (found, called, labelled, images), (4, k), and false positive rates, (k,)."""
    found, called, labelled, n = counts
    below = labelled - n * false
    return np.asarray(np.where(below > 0, (found - called * false) / np.where(below > 0, below, 1.0), np.nan))


def _working_variance(
    shares: FloatArray, n_independent: float, validation: tuple[FloatArray, FloatArray], sensitivity: float
) -> VarianceFunction:
    """Return x -> the variance of a corrected recall of x under independent errors.

    (T - x)(L - f) has the mean square p x (1 - x) E[(L - f)^2 | D] + (1 - p) E[(T - x)^2 | not D] f (1 - f). The
    labeler's false positive rate enters by its shrunk share, so that it has variance where no false positive was seen.
    """
    right, total = validation
    size, specificity = _worth(right, total), float(right.sum() / total.sum())
    f = 1 - (size * specificity + 1) / (size + 2)
    of_f = f * (1 - f) / (size + 2)
    rate, share = float(shares[1]), float(shares[2])
    excess = max(share - (1 - specificity), 1e-9)
    edge = 1 / max(n_independent, 2)
    p = float(np.clip((share - f) / max(sensitivity - f, 1e-9), edge, 1 - edge))
    given_present = sensitivity * (1 - f) ** 2 + (1 - sensitivity) * f**2

    def variance(x: FloatArray) -> FloatArray:
        false_calls = np.clip((rate - p * x) / (1 - p), 0, 1)
        given_absent = (1 - x) ** 2 * false_calls + x**2 * (1 - false_calls)
        squares = p * x * (1 - x) * given_present + (1 - p) * given_absent * f * (1 - f)
        return np.asarray((squares / n_independent + (rate - x) ** 2 * of_f) / excess**2)

    return variance


def _worth(right: FloatArray, total: FloatArray) -> float:
    """Return how many independent images grouped ones are worth for a share, from counts by group."""
    effect, _ = design_effect(right, total)
    return float(total.sum() / effect)


def _by_group(mask: BoolArray, groups: IntArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how many of each group's images are marked, and how many it has, (G,) each."""
    codes = np.unique(groups, return_inverse=True)[1]
    marked = np.bincount(codes, weights=mask.astype(np.float64))
    return marked.astype(np.float64), np.bincount(codes).astype(np.float64)
