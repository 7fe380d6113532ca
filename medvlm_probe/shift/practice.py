"""What a model would mean in practice: findings missed and false alarms per 1,000 examinations, and referral.

Referral: images that the model is least sure of, or that look least like the reference, go to a reader, who is taken
to be right about them; what counts is how good the model is on the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.classification import checked_groups
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.shift.two_sides import checked_binary, checked_column
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray

METHOD = "product of two proportions, square-and-add of their intervals"
SHARES = tuple(round(0.05 * k, 2) for k in range(20))

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PerThousand:
    """Expected numbers per 1,000 examinations.

    Attributes:
        missed: with the finding, not called: 1000 prevalence (1 - recall).
        false_alarms: called without it: 1000 (1 - prevalence) (1 - specificity).
        called: all that are called, without an interval (its parts depend on one another).
        prevalence: that it was computed at.
    """

    missed: Estimate
    false_alarms: Estimate
    called: float
    prevalence: Estimate


def per_thousand(recall: Estimate, specificity: Estimate, prevalence: Estimate | float) -> PerThousand:
    """Return what a model's errors come to per 1,000 examinations.

    The three estimates must be independent of one another: recall and specificity come from different images, and the
    prevalence from others than either or from a share that does not depend on the model. An undefined one gives NaN.

    Args:
        recall, specificity: of the model, at its threshold.
        prevalence: of the finding among examinations, with its interval, or a number that is known.
    """
    known = prevalence if isinstance(prevalence, Estimate) else _exact(float(prevalence))
    if not 0 <= known.value <= 1 and not math.isnan(known.value):
        raise InputError(f"A prevalence of {known.value}: expected a number in [0, 1].")
    absent = _complement(known)
    found = known.value * recall.value + absent.value * (1 - specificity.value)
    return PerThousand(
        missed=_product(known, _complement(recall)),
        false_alarms=_product(absent, _complement(specificity)),
        called=1000 * found,
        prevalence=known,
    )


def _exact(value: float) -> Estimate:
    return Estimate(value, value, value, 0, 0, "given")


def _complement(e: Estimate) -> Estimate:
    return Estimate(1 - e.value, 1 - e.high, 1 - e.low, e.n, e.n_groups, e.method, e.reliable)


def _product(a: Estimate, b: Estimate) -> Estimate:
    """Return 1000 a b, its bounds from how far each factor's own bound lies from its value.

    Source: Zou and Donner 2008 (MOVER: variances recovered from the limits), on products; within [0, 1000].
    """
    value = a.value * b.value
    down = math.hypot((a.value - a.low) * b.value, (b.value - b.low) * a.value)
    up = math.hypot((a.high - a.value) * b.value, (b.high - b.value) * a.value)
    # Where one factor is 0 its error times the other's counts too.
    up = max(up, (a.high - a.value) * (b.high - b.value)) if value == 0 else up
    n = min((e.n for e in (a, b) if e.n), default=0)
    n_groups = min((e.n_groups for e in (a, b) if e.n), default=0)
    low, high = max(0.0, value - down), min(1.0, value + up)
    if math.isnan(value):
        low = high = math.nan
    return Estimate(1000 * value, 1000 * low, 1000 * high, n, n_groups, METHOD, a.reliable and b.reliable)


@dataclass(frozen=True)
class ReferralPoint:
    """One plan: images whose doubt lies above a threshold go to a reader.

    Attributes:
        threshold: of doubt; infinite refers nobody.
        referred: share of the images that goes to a reader.
        recall, specificity, error: of the model on the rest (error: share of wrong calls).
        team_recall: of model and reader together, the reader taken to find all that is referred.
    """

    threshold: float
    referred: Estimate
    recall: Estimate
    specificity: Estimate
    error: Estimate
    team_recall: Estimate


def doubt_of_calls(probabilities: ArrayLike, threshold: float) -> Array:
    """Return how near each image lies to being called otherwise, in [0, 1], 1 at the threshold, (n,).

    Both sides of the threshold are stretched to the same length, so that a rare label's positives and negatives are
    referred alike.

    Args:
        probabilities: P(present), (n,).
        threshold: the least probability that is called, in (0, 1).
    """
    p = checked_column(probabilities, None, "Probabilities")
    if not 0 < threshold < 1 or (p < 0).any() or (p > 1).any():
        raise InputError(f"Probabilities and a threshold of {threshold}: expected [0, 1], and a threshold in (0, 1).")
    return np.where(p >= threshold, (1 - p) / (1 - threshold), p / threshold)


def referral_curve(
    labels: ArrayLike,
    called: BoolArray,
    doubt: ArrayLike,
    groups: IntArray,
    *,
    shares: tuple[float, ...] = SHARES,
) -> tuple[ReferralPoint, ...]:
    """Return how the model does on the rest as ever more images go to a reader.

    Descriptive: its thresholds are quantiles of the images that it shows. Choose a plan with `choose_referral` on one
    split and read its worth with `referral_at` on another.

    Args:
        labels: 1, 0 or NaN (left out), (n,).
        called: bool (n,).
        doubt: larger goes first: `doubt_of_calls`, or an outlier score, (n,).
        groups: (n,).
        shares: to refer, each in [0, 1).
    """
    label, calls, values, codes = _known(labels, called, doubt, groups)
    return tuple(_point(label, calls, values, codes, _threshold_of(values, share)) for share in shares)


def referral_at(
    labels: ArrayLike, called: BoolArray, doubt: ArrayLike, groups: IntArray, threshold: float
) -> ReferralPoint:
    """Return what a plan whose threshold was chosen on other images does on these; arguments as `referral_curve`."""
    return _point(*_known(labels, called, doubt, groups), threshold)


def choose_referral(
    labels: ArrayLike,
    called: BoolArray,
    doubt: ArrayLike,
    groups: IntArray,
    *,
    least_recall: float | None = None,
    most_error: float | None = None,
) -> ReferralPoint | None:
    """Return the plan that refers fewest images so that model and reader reach a recall, or the model's error falls.

    Args:
        labels, called, doubt, groups: of a split that the result does not use, as `referral_curve` takes them.
        least_recall: of model and reader together, in (0, 1].
        most_error: share of wrong calls on the rest, in [0, 1).

    Returns:
        the plan on these images; None where no referral short of everything reaches it.
    """
    if least_recall is None and most_error is None:
        raise InputError("Say what the plan must reach: least_recall, most_error, or both.")
    label, calls, values, codes = _known(labels, called, doubt, groups)

    def reaches(threshold: float) -> bool:
        kept = values <= threshold
        missed = float((label & ~calls & kept).sum()) / max(float(label.sum()), 1.0)
        wrong = float((label != calls)[kept].mean())
        enough = least_recall is None or 1 - missed >= least_recall - 1e-12
        return enough and (most_error is None or wrong <= most_error + 1e-12)

    candidates = [math.inf, *np.unique(values)[::-1].tolist()]
    chosen = next((t for t in candidates if reaches(t)), None)
    return None if chosen is None else _point(label, calls, values, codes, chosen)


def _known(
    labels: ArrayLike, called: BoolArray, doubt: ArrayLike, groups: IntArray
) -> tuple[BoolArray, BoolArray, Array, IntArray]:
    values = checked_column(doubt, None, "Doubt")
    label = checked_binary(labels, len(values))
    calls = np.asarray(called)
    if calls.shape != values.shape or calls.dtype != np.bool_:
        raise InputError(f"Calls of type {calls.dtype}, shape {calls.shape}: expected booleans ({len(values)},).")
    codes = checked_groups(groups, len(values))
    known = ~np.isnan(label)
    return label[known] == 1, calls[known], values[known], codes[known]


def _threshold_of(doubt: FloatArray, share: float) -> float:
    if not 0 <= share < 1:
        raise InputError(f"A share of {share} to refer: expected a number in [0, 1).")
    return math.inf if share == 0 else float(np.quantile(doubt, 1 - share, method="inverted_cdf"))


def _point(label: BoolArray, called: BoolArray, doubt: FloatArray, groups: IntArray, threshold: float) -> ReferralPoint:
    kept = doubt <= threshold

    def share(of: BoolArray, mask: BoolArray) -> Estimate:
        return proportion(of[mask], groups[mask])

    return ReferralPoint(
        threshold=threshold,
        referred=share(~kept, np.ones(len(kept), dtype=bool)),
        recall=share(called, label & kept),
        specificity=share(~called, ~label & kept),
        error=share(called != label, kept),
        team_recall=share(called | ~kept, label),
    )
