"""How frequent a finding is at a site without labels, from a model's scores there and at a labelled reference.

Two estimates under one assumption, that images with the finding score as they do at the reference, and those without
too (label shift): black-box shift estimation from calls at a threshold, and expectation maximisation from calibrated
probabilities. The assumption is tested, and where scores do not separate the label, nothing can be told.
For one answer of several an image see `class_shift`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.classification import checked_groups
from medvlm_probe.metrics.intervals import VarianceFunction, effective_size, score_interval
from medvlm_probe.metrics.label_correction import LabelerErrors, corrected_prevalence, labeler_errors
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.shift.mixture import fit_mixture, remaining_test
from medvlm_probe.shift.two_sides import checked_binary, checked_column
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray, TestResult

METHOD_BBSE = "black-box shift estimation, Lang-Reiczigel interval on effective n of both sides"
METHOD_EM = "expectation maximisation, score interval over groups of both sides"
MIN_GROUPS = 10
"""Below so many groups at the site the intervals are marked unreliable."""

MIN_REFERENCE_GROUPS = 20
"""The same for groups with, or without, the finding at the reference: with ten, intervals held the truth in 83 %."""

RIDGE = 1e-2
N_CUTS = 100

Verdict = Literal["usable", "assumption does not hold", "cannot be told"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class LabelShift:
    """A label's prevalence at a site, estimated without labels there.

    Attributes:
        reference: its prevalence at the reference.
        bbse: black-box shift estimation, (q - f) / (h - f) with q the share called at the site, h and f the reference's
            shares called of positives and negatives.
        em: expectation maximisation.
        threshold: the least score that is called.
        sensitivity, specificity: of the calls at the reference; NaN where they are no better than chance.
        condition_number: of the matrix of calls given the label; 1 is a perfect classifier, infinite tells nothing.
        misfit: greatest distance between the site's score distribution and the best mixture of the reference's two, in
            [0, 1] (Kolmogorov-Smirnov).
        misfit_test: of the squared distance, integrated; the null is that the site is such a mixture.
        verdict: `cannot be told` where sensitivity + specificity may be 1; `assumption does not hold` where the test
            refutes it at .05; else `usable`. A mixture that fits does not prove label shift.
    """

    reference: Estimate
    bbse: Estimate
    em: Estimate
    threshold: float
    sensitivity: float
    specificity: float
    condition_number: float
    misfit: float
    misfit_test: TestResult
    verdict: Verdict


def estimate_label_shift(
    labels: ArrayLike,
    reference_scores: ArrayLike,
    site_scores: ArrayLike,
    reference_groups: IntArray,
    site_groups: IntArray,
    *,
    rng: np.random.Generator,
    threshold: float | None = None,
    level: float = 0.05,
) -> LabelShift:
    """Return a label's prevalence at a site by both methods, and whether they can be believed.

    Args:
        labels: of the reference's images, 1, 0 or NaN (left out), (n,).
        reference_scores, site_scores: of any kind, finite, larger = more likely present, (n,) and (m,). The reference
            must not be what the model was trained on.
        reference_groups, site_groups: the independently sampled group of each image; the sides share none.
        rng: draws the multipliers of the misfit's null.
        threshold: the least score that is called; None takes the middle between the mean scores of both kinds.
        level: of the misfit test.

    Raises:
        InputError: shapes or values that do not fit, or a reference without positives or negatives.

    Source: Lipton, Wang and Smola 2018; Saerens, Latinne and Decaestecker 2002; Rogan and Gladen 1978.
    """
    scores = checked_column(reference_scores, None, "Reference scores")
    site = checked_column(site_scores, None, "Site scores")
    label = checked_binary(labels, len(scores))
    own, other = checked_groups(reference_groups, len(scores)), checked_groups(site_groups, len(site))
    known = ~np.isnan(label)
    positive, scores, own = label[known] == 1, scores[known], own[known]
    cut = float((scores[positive].mean() + scores[~positive].mean()) / 2) if threshold is None else threshold
    curve = fit_platt(positive, scores, own)
    misfit, test = _mixture_of_scores(positive, scores, site, own, other, curve, rng)
    errors = _errors(positive, scores >= cut, own)
    told = errors is not None and errors.better_than_chance
    fewest = min(len(np.unique(groups)) for groups in (own[positive], own[~positive]))
    reliable = told and fewest >= MIN_REFERENCE_GROUPS and len(np.unique(other)) >= MIN_GROUPS
    verdict: Verdict = "usable" if test.p_value > level else "assumption does not hold"
    return LabelShift(
        reference=proportion(positive, own),
        bbse=_bbse(site >= cut, other, errors, reliable),
        em=_em(curve, scores, positive, site, other, reliable),
        threshold=cut,
        sensitivity=errors.sensitivity.value if errors else math.nan,
        specificity=errors.specificity.value if errors else math.nan,
        condition_number=_condition(positive, scores >= cut),
        misfit=misfit,
        misfit_test=test,
        verdict=verdict if told else "cannot be told",
    )


def _errors(positive: BoolArray, called: BoolArray, groups: IntArray) -> LabelerErrors | None:
    if called[positive].mean() <= called[~positive].mean():
        return None
    return labeler_errors(positive, called, groups)


def _bbse(called: BoolArray, groups: IntArray, errors: LabelerErrors | None, reliable: bool) -> Estimate:
    n, n_groups = len(called), len(np.unique(groups))
    if errors is None:
        return Estimate(math.nan, 0.0, 1.0, n, n_groups, METHOD_BBSE, reliable=False)
    found = corrected_prevalence(called, groups, errors)
    return Estimate(found.value, found.low, found.high, n, n_groups, METHOD_BBSE, reliable)


def _condition(positive: BoolArray, called: BoolArray) -> float:
    h, f = called[positive].mean(), called[~positive].mean()
    singular = np.linalg.svd(np.array([[h, f], [1 - h, 1 - f]]), compute_uv=False)
    return float(singular[0] / singular[1]) if singular[1] > 1e-12 else math.inf


@dataclass(frozen=True, eq=False)
class PlattCurve:
    """log odds = intercept + slope * (score - centre) / scale on the reference, with what each group adds to its error.

    Attributes:
        prevalence: of the reference.
        by_group: contributions to the errors of intercept, slope and log odds of the prevalence, (G, 3).
    """

    centre: float
    scale: float
    intercept: float
    slope: float
    prevalence: float
    by_group: Array

    def standardised(self, scores: FloatArray) -> Array:
        """Return the scores on the curve's scale."""
        return np.asarray((scores - self.centre) / self.scale)

    def density_ratio(self, scores: FloatArray) -> Array:
        """Return the density of a score with the finding over that without it."""
        odds = self.intercept + self.slope * self.standardised(scores) - special.logit(self.prevalence)
        return np.asarray(np.exp(np.clip(odds, -30, 30)))

    def probabilities(self, scores: FloatArray) -> Array:
        """Return P(present) at the reference's prevalence."""
        return np.asarray(special.expit(self.intercept + self.slope * self.standardised(scores)))


def fit_platt(positive: BoolArray, scores: FloatArray, groups: IntArray) -> PlattCurve:
    """Fit P(present | score) on the reference by logistic regression, with a faint ridge on the slope.

    Args:
        positive: bool (n,), of both kinds.
        scores: (n,).
        groups: codes, (n,).

    Source: Platt 1999; that EM needs calibrated probabilities: Alexandari, Kundaje and Shrikumar 2020.
    """
    centre, scale = float(scores.mean()), max(float(scores.std()), 1e-12)
    x = np.stack([np.ones(len(scores)), (scores - centre) / scale], axis=1)
    y = positive.astype(np.float64)
    share = float(y.mean())
    beta = np.array([special.logit(share), 0.0])
    penalty = np.diag([0.0, RIDGE])
    for _ in range(100):
        p = special.expit(x @ beta)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + penalty
        step = np.linalg.solve(hessian, x.T @ (y - p) - penalty @ beta)
        beta = beta + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    p = special.expit(x @ beta)
    hessian = (x * (p * (1 - p))[:, None]).T @ x + penalty
    codes = np.unique(groups, return_inverse=True)[1]
    rows = np.column_stack(
        [np.linalg.solve(hessian, (x * (y - p)[:, None]).T).T, (y - share) / (share * (1 - share) * len(y))]
    )
    by_group = np.stack([np.bincount(codes, weights=column) for column in rows.T], axis=1).astype(np.float64)
    return PlattCurve(centre, scale, float(beta[0]), float(beta[1]), share, by_group)


def _em(
    curve: PlattCurve, scores: FloatArray, positive: BoolArray, site: FloatArray, groups: IntArray, reliable: bool
) -> Estimate:
    """Return the prevalence at which EM comes to rest, with an interval that has width at 0 and 1 too.

    EM's fixed point is the root of U(x) = mean (r - 1) / (1 + x (r - 1)), r the density ratio of both kinds, which
    falls in x. The working variance at x is that which the reference would show at a prevalence of x; the groups of
    both sides scale it (`score_bounds`).
    """
    n_groups = int(groups.max()) + 1
    if curve.slope <= 0:
        return Estimate(math.nan, 0.0, 1.0, len(site), n_groups, METHOD_EM, reliable=False)
    z, ratio = curve.standardised(site), curve.density_ratio(site)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _terms(ratio, middle).mean() > 0 else (low, middle)
    value = round((low + high) / 2, 12)
    terms = _terms(ratio, value)
    of_site = np.bincount(groups, weights=terms - terms.mean()) / len(site)
    of_reference = curve.by_group @ _gradient(ratio, z, value, np.full(len(z), 1 / len(z)))
    deviations = np.concatenate([of_reference, of_site]) / float((terms**2).mean())
    return score_interval(
        value,
        value + deviations - deviations.mean(),
        _working_variance(curve, scores, positive, effective_size(groups)),
        n=len(site),
        method=METHOD_EM,
        n_scarce=n_groups if reliable else 0,
        min_groups=MIN_GROUPS,
        n_groups=n_groups,
    )


def _terms(ratio: Array, x: float) -> Array:
    return np.asarray((ratio - 1) / (1 + x * (ratio - 1)))


def _gradient(ratio: Array, z: Array, x: float, weights: Array) -> Array:
    """Return the derivatives of U by intercept, slope and log odds of the reference's prevalence, (3,)."""
    slope = weights * ratio / (1 + x * (ratio - 1)) ** 2
    return np.array([slope.sum(), (slope * z).sum(), -slope.sum()])


def _working_variance(curve: PlattCurve, scores: FloatArray, positive: BoolArray, n_site: float) -> VarianceFunction:
    z, ratio = curve.standardised(scores), curve.density_ratio(scores)

    def at(x: float) -> float:
        weights = np.where(positive, x / positive.sum(), (1 - x) / (~positive).sum())
        information = float(weights @ _terms(ratio, x) ** 2)
        of_reference = curve.by_group @ _gradient(ratio, z, x, weights)
        return (information / n_site + float(of_reference @ of_reference)) / max(information, 1e-12) ** 2

    return lambda x: np.vectorize(at, otypes=[float])(x)


def _mixture_of_scores(
    positive: BoolArray,
    scores: FloatArray,
    site: FloatArray,
    own: IntArray,
    other: IntArray,
    curve: PlattCurve,
    rng: np.random.Generator,
) -> tuple[float, TestResult]:
    """Fit the site's score distribution by a mixture of the reference's two, and test what remains."""
    cuts = np.unique(np.quantile(np.concatenate([scores, site]), np.arange(1, N_CUTS) / N_CUTS))
    p, q = curve.probabilities(scores), curve.probabilities(site)
    fit = fit_mixture(
        positive.astype(np.int64),
        np.stack([1 - p, p], axis=1),
        np.stack([1 - q, q], axis=1),
        own,
        other,
        reference_features=(scores[:, None] <= cuts).astype(np.float64),
        site_features=(site[:, None] <= cuts).astype(np.float64),
    )
    return float(np.abs(fit.remaining).max()), remaining_test(fit, rng=rng)


def site_weights(labels: ArrayLike, prevalence: float) -> Array:
    """Return the weight of each reference image at which the reference has the site's prevalence, (n,), mean 1.

    Args:
        labels: 1 or 0, (n,), of both kinds.
        prevalence: of the site, in [0, 1].

    Raises:
        InputError: labels of one kind only, or a prevalence outside [0, 1].
    """
    label = checked_binary(labels, len(np.asarray(labels)))
    if np.isnan(label).any() or not 0 <= prevalence <= 1:
        raise InputError(f"A prevalence of {prevalence} and labels of 1 and 0 are expected, the former in [0, 1].")
    share = float(label.mean())
    return np.where(label == 1, prevalence / share, (1 - prevalence) / (1 - share))
