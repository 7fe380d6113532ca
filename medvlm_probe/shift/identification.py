"""What moved between a reference and a site: how frequent a label is, how images look, both, or nothing.

The reference has labels and embeddings; the site embeddings, and perhaps labels. The rule:

1. The look moved where the reference, re-weighted to the site's prevalence, still lies further from the site than
   chance would leave it (level .02).
2. Where it did not, the prevalence moved if it differs from the reference's (level .05): `prevalence`, else `none`.
   The two levels add up, so that where nothing moved `none` is named in 93 % at least.
3. Where it did, and the site has no labels: a change of look moves the scores too. Without any assumption a prevalence
   cannot then be told. `identification_move` states one (a look has no liking for the label's direction) and estimates
   the prevalence under it: `both` where that differs from the reference's, else `covariate`, which says that the look
   changed and not that the prevalence did not.

With the site's own labels nothing is assumed: prevalences are compared, and the reference is re-weighted by the truth.

Beside it: whether re-weighting the reference image by image (density ratio of a classifier) takes the distance away,
that is whether the reference has images like the site's at all.

Source of the question and of re-weighting and testing again: Roschewitz, Mehta, Jones and Glocker 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.classification import checked_groups
from medvlm_probe.metrics.embedding_inputs import checked_embeddings
from medvlm_probe.metrics.permutation import holm
from medvlm_probe.metrics.proportions import proportion
from medvlm_probe.shift.density_ratio import fit_density_ratio, weighted_remainder
from medvlm_probe.shift.identification_move import look_move, prevalence_despite_move
from medvlm_probe.shift.identification_parts import components, discriminant, kernel_features
from medvlm_probe.shift.mixture import MixtureFit, fit_mixture, remaining_test
from medvlm_probe.shift.two_sides import checked_binary
from medvlm_probe.types import BoolArray, Estimate, FloatArray, IntArray, TestResult

Shift = Literal["none", "prevalence", "covariate", "both"]
Evidence = Literal["labels", "scores"]

LEVEL = 0.05
"""Of a changed prevalence."""

LOOK_LEVEL = 0.02
"""Of a changed look."""

MIN_GROUPS, MIN_OF_A_KIND = 20, 5
METHOD_MOMENTS = "soft black-box shift estimation by a held-out discriminant, t interval over groups of both sides"
METHOD_DESPITE_MOVE = "profile likelihood of the scores, moved as far as directions across the label's"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ShiftIdentification:
    """What moved, and the steps that led there.

    Attributes:
        shift: `none`, `prevalence`, `covariate` or `both`.
        evidence: whether the site's prevalence is known from its labels, or estimated from scores.
        reference_prevalence: of the label.
        site_prevalence: by labels where they are the evidence; else by moments of the scores: right where images with,
            and without, the label look as they do at the reference.
        prevalence_despite_move: by scores alone, also where the look moved; its assumption is that of
            `identification_move`.
        look_moved_by: how far images lie apart in directions across the label's, in standard deviations within classes
            (root mean square over directions, noise taken off).
        separation: distance of the classes' mean scores in the same unit; below 2 they overlap much.
        overall: test of the distance between the embeddings.
        prevalence: test of the difference between the two prevalences (statistic: their difference).
        remaining: test of the distance after re-weighting to `site_prevalence`; p-values unadjusted.
        despite_move: test of the difference between `prevalence_despite_move` and the reference's.
        after_density_ratio: of the distance after re-weighting image by image; approximate, it rejects too often where
            the weights are uneven, and the decision does not use it.
        effective_share: what share of the reference's images those weights still use, in (0, 1]; near 0 the reference
            has no images like the site's, whatever the test says.
    """

    shift: Shift
    evidence: Evidence
    reference_prevalence: Estimate
    site_prevalence: Estimate
    prevalence_despite_move: Estimate
    look_moved_by: float
    separation: float
    overall: TestResult
    prevalence: TestResult
    remaining: TestResult
    despite_move: TestResult
    after_density_ratio: TestResult
    effective_share: float


def identify_shift(
    labels: ArrayLike,
    reference_embeddings: ArrayLike,
    site_embeddings: ArrayLike,
    reference_groups: IntArray,
    site_groups: IntArray,
    *,
    rng: np.random.Generator,
    site_labels: ArrayLike | None = None,
) -> ShiftIdentification:
    """Name the shift of one label between a reference and a site.

    Args:
        labels: of the reference's images, 1, 0 or NaN (left out), (n,): a finding, or any finding against none.
        reference_embeddings, site_embeddings: (n, d) and (m, d); looked at L2-normalised.
        reference_groups, site_groups: the independently sampled group of each image; the sides share none.
        rng: draws features, folds and multipliers.
        site_labels: as `labels`, (m,): the site's prevalence is then known. None goes by scores.

    Raises:
        InputError: shapes or values that do not fit, fewer than 20 groups on a side, fewer than 5 of the reference's
            with the label or without it, or embeddings that vary in fewer than three directions.
    """
    x, y = checked_embeddings(reference_embeddings), checked_embeddings(site_embeddings)
    x, label, own = _known(x, labels, reference_groups)
    positive = label == 1
    truth, other = None, _codes(site_groups, len(y))
    if site_labels is not None:
        y, told, other = _known(y, site_labels, site_groups)
        truth = told == 1
    _check(x, y, positive, own, other)
    parts = components(x, y)
    scores = discriminant(parts, positive, own, rng)
    of_reference, of_site = kernel_features(x, y, rng)
    features = np.hstack([of_reference, parts.reference]), np.hstack([of_site, parts.site])
    blocks = np.repeat([0, 1], [of_reference.shape[1], parts.reference.shape[1]])

    nothing = np.zeros(len(x), dtype=np.int64), np.ones((len(x), 1)), np.ones((len(y), 1))
    overall = _tested(
        fit_mixture(*nothing, own, other, reference_features=features[0], site_features=features[1]), blocks, rng
    )
    by_scores = 1 / (1 + np.exp(-scores.reference)), scores.site_probabilities
    known = by_scores if truth is None else (np.asarray(positive, np.float64), np.asarray(truth, np.float64))
    weighted = _weighted_fit(known, positive, own, other, features)
    prevalence, estimate = _prevalence(weighted, positive, own, len(y), len(np.unique(other)))
    remaining = _tested(weighted, blocks, rng)
    move = look_move(x, y, positive, own, other, rng)
    scored = weighted if truth is None else _weighted_fit(by_scores, positive, own, other, None)
    despite = prevalence_despite_move(
        positive,
        scores,
        move,
        reference_error=math.sqrt(float((scored.shares_by_group[: scored.n_reference_groups, 1] ** 2).sum())),
        difference_error=math.sqrt(float((_of_reference(scored, positive, own) ** 2).sum())),
        design_effect=_design_effect(by_scores[1], other),
    )
    ratio = fit_density_ratio(parts.reference, parts.site, own, other)
    share = float(positive.mean())
    adjusted = holm(np.array([overall.p_value, prevalence.p_value]))
    return ShiftIdentification(
        shift=_named(remaining.p_value, prevalence.p_value, despite.p_value if truth is None else prevalence.p_value),
        evidence="scores" if truth is None else "labels",
        reference_prevalence=proportion(positive, own),
        site_prevalence=estimate if truth is None else proportion(truth, other),
        prevalence_despite_move=Estimate(
            despite.value, despite.low, despite.high, len(y), len(np.unique(other)), METHOD_DESPITE_MOVE
        ),
        look_moved_by=move.deviation,
        separation=despite.separation,
        overall=TestResult(overall.statistic, overall.p_value, float(adjusted[0])),
        prevalence=TestResult(prevalence.statistic, prevalence.p_value, float(adjusted[1])),
        remaining=remaining,
        despite_move=TestResult(despite.value - share, max(despite.p_value, 1e-300)),
        after_density_ratio=_tested(weighted_remainder(ratio, parts.reference, *features, own, other), blocks, rng),
        effective_share=ratio.effective_share,
    )


def _known(embeddings: FloatArray, labels: ArrayLike, groups: IntArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return the rows whose label is known, with labels and codes of groups."""
    label = checked_binary(labels, len(embeddings))
    known = ~np.isnan(label)
    codes = _codes(groups, len(embeddings))[known]
    return embeddings[known], label[known], _codes(codes, len(codes))


def _codes(groups: IntArray, n: int) -> IntArray:
    return np.asarray(np.unique(checked_groups(groups, n), return_inverse=True)[1], dtype=np.int64)


def _check(x: FloatArray, y: FloatArray, positive: BoolArray, own: IntArray, other: IntArray) -> None:
    sizes = len(np.unique(own)), len(np.unique(other))
    if min(sizes) < MIN_GROUPS or x.shape[1] != y.shape[1]:
        raise InputError(
            f"Embeddings {x.shape} and {y.shape} in {sizes[0]} and {sizes[1]} groups: expected as many dimensions, and "
            f"at least {MIN_GROUPS} groups (patients) on each side."
        )
    kinds = [len(np.unique(own[kind])) for kind in (positive, ~positive)]
    if min(kinds) < MIN_OF_A_KIND:
        raise InputError(
            f"The reference has {kinds[0]} groups (patients) with the label and {kinds[1]} without it: expected at "
            f"least {MIN_OF_A_KIND} of each."
        )


def _named(remaining: float, prevalence: float, despite_move: float) -> Shift:
    if remaining > LOOK_LEVEL:
        return "prevalence" if prevalence <= LEVEL else "none"
    return "both" if despite_move <= LEVEL else "covariate"


def _tested(fit: MixtureFit, blocks: IntArray, rng: np.random.Generator) -> TestResult:
    """Test what remains, each block of features at the same expected size under the null."""
    noise = (fit.remaining_by_group**2).sum(axis=0)
    sizes = np.bincount(blocks, weights=noise)
    return remaining_test(fit, rng=rng, feature_weights=1 / np.maximum(sizes, 1e-300)[blocks] / len(sizes))


def _weighted_fit(
    present: tuple[FloatArray, FloatArray],
    positive: BoolArray,
    own: IntArray,
    other: IntArray,
    features: tuple[Array, Array] | None,
) -> MixtureFit:
    """Match the site's mean probability of presence (or its labels) by a mixture of the reference's classes."""
    own_moments, site_moments = (np.stack([1 - p, p], axis=1) for p in present)
    return fit_mixture(
        positive.astype(np.int64),
        own_moments,
        site_moments,
        own,
        other,
        reference_features=features[0] if features else None,
        site_features=features[1] if features else None,
    )


def _of_reference(fit: MixtureFit, positive: BoolArray, own: IntArray) -> Array:
    """Return what each of the reference's groups adds to the error of the difference between the prevalences."""
    of_share = np.bincount(own, weights=positive - float(positive.mean())) / len(positive)
    return np.asarray(fit.shares_by_group[: fit.n_reference_groups, 1] - of_share)


def _design_effect(probabilities: Array, groups: IntArray) -> float:
    """Return the variance of the mean over groups as a multiple of that over images, at least 1."""
    centred = probabilities - probabilities.mean()
    return max(float((np.bincount(groups, weights=centred) ** 2).sum()) / max(float(centred @ centred), 1e-300), 1.0)


def _prevalence(
    fit: MixtureFit, positive: BoolArray, own: IntArray, n_site: int, n_groups: int
) -> tuple[TestResult, Estimate]:
    """Return the test of the change of prevalence, and the site's prevalence with its interval."""
    contributions = fit.shares_by_group[:, 1].copy()
    df = min(len(np.unique(own[positive])), len(np.unique(own[~positive])), n_groups) - 1
    reach = float(stats.t.ppf(0.975, max(df, 1))) * math.sqrt(float(contributions @ contributions))
    value, raw = float(fit.shares[1]), float(fit.raw_shares[1])
    low, high = np.clip([raw - reach, raw + reach], 0, 1)
    estimate = Estimate(
        value, min(float(low), value), max(float(high), value), n_site, n_groups, METHOD_MOMENTS, reliable=df >= 9
    )
    contributions[: fit.n_reference_groups] = _of_reference(fit, positive, own)
    share = float(positive.mean())
    t = (raw - share) / max(math.sqrt(float(contributions @ contributions)), 1e-300)
    p_value = float(2 * stats.t.sf(abs(t), max(df, 1)))
    return TestResult(value - share, max(p_value, 1e-300)), estimate
