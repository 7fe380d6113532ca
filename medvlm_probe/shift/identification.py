"""What moved between a reference and a site: how frequent a label is, how images look, both, or nothing.

The reference has labels and embeddings, the site embeddings alone. The rule:

1. `none` where neither the distance between the embeddings nor the prevalence's change is significant (Holm over both).
2. The reference is re-weighted to the site's estimated prevalence and the distance is tested again. `prevalence` where
   what remains does not exceed its null.
3. Else images look different. A change of appearance moves scores too, and an estimate of prevalence that takes them as
   they are would follow. So the prevalence is estimated from the shape of the scores, free of a common move and
   stretch: `both` where its interval excludes the reference's prevalence, else `covariate`. Where classes overlap much
   that interval is wide, and `covariate` then says that appearance changed, not that prevalence did not.

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
from medvlm_probe.shift.identification_parts import (
    Discriminant,
    components,
    discriminant,
    kernel_features,
    shape_prevalence,
)
from medvlm_probe.shift.mixture import MixtureFit, fit_mixture, remaining_test
from medvlm_probe.shift.two_sides import checked_binary
from medvlm_probe.types import BoolArray, Estimate, IntArray, TestResult

Shift = Literal["none", "prevalence", "covariate", "both"]

N_RESAMPLES = 200
METHOD_MOMENTS = "soft black-box shift estimation by a held-out discriminant, t interval over groups of both sides"
METHOD_SHAPE = "shape of the discriminant's scores, percentile bootstrap over groups of both sides"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ShiftIdentification:
    """What moved, and the steps that led there.

    Attributes:
        shift: `none`, `prevalence`, `covariate` or `both`.
        reference_prevalence: of the label.
        site_prevalence: by moments: right under label shift, moved by a change of appearance.
        shape_prevalence: by the shape of the scores: also right where all scores moved and stretched alike, but rough.
        overall: test of the distance between the embeddings.
        prevalence: test of the difference between the two prevalences (statistic: their difference).
        remaining: test of the distance after re-weighting to `site_prevalence`; p-values unadjusted.
        after_density_ratio: the same after re-weighting image by image; approximate, it rejects too often where the
            weights are uneven, and the decision does not use it.
        effective_share: what share of the reference's images those weights still use, in (0, 1]; near 0 the reference
            has no images like the site's, whatever the test says.
    """

    shift: Shift
    reference_prevalence: Estimate
    site_prevalence: Estimate
    shape_prevalence: Estimate
    overall: TestResult
    prevalence: TestResult
    remaining: TestResult
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
    level: float = 0.05,
    n_resamples: int = N_RESAMPLES,
) -> ShiftIdentification:
    """Name the shift of one label between a reference and a site.

    Args:
        labels: of the reference's images, 1, 0 or NaN (left out), (n,): a finding, or any finding against none.
        reference_embeddings, site_embeddings: (n, d) and (m, d); looked at L2-normalised.
        reference_groups, site_groups: the independently sampled group of each image; the sides share none.
        rng: draws features, folds, multipliers and replicates.
        level: of each decision.
        n_resamples: of the shape's bootstrap.

    Raises:
        InputError: shapes or values that do not fit, a reference without positives or negatives, or fewer than 20
            groups on a side.
    """
    x, y = checked_embeddings(reference_embeddings), checked_embeddings(site_embeddings)
    label = checked_binary(labels, len(x))
    own, other = checked_groups(reference_groups, len(x)), checked_groups(site_groups, len(y))
    known = ~np.isnan(label)
    x, positive, own = x[known], label[known] == 1, np.unique(own[known], return_inverse=True)[1]
    if min(len(np.unique(own)), len(np.unique(other))) < 20 or x.shape[1] != y.shape[1]:
        raise InputError(
            f"Embeddings {x.shape} and {y.shape} in {len(np.unique(own))} and {len(np.unique(other))} groups: expected "
            "as many dimensions, and at least 20 groups (patients) on each side."
        )
    parts = components(x, y)
    scores = discriminant(parts, positive, own, rng)
    of_reference, of_site = kernel_features(x, y, rng)
    features = np.hstack([of_reference, parts.reference]), np.hstack([of_site, parts.site])
    blocks = np.repeat([0, 1], [of_reference.shape[1], parts.reference.shape[1]])

    nothing = np.zeros(len(x), dtype=np.int64), np.ones((len(x), 1)), np.ones((len(y), 1))
    overall = _tested(
        fit_mixture(*nothing, own, other, reference_features=features[0], site_features=features[1]), blocks, rng
    )
    weighted = _weighted_fit(scores, positive, own, other, features)
    prevalence, estimate = _prevalence(weighted, positive, own, len(y), len(np.unique(other)))
    adjusted = holm(np.array([overall.p_value, prevalence.p_value]))
    overall, prevalence = (
        TestResult(test.statistic, test.p_value, float(p))
        for test, p in zip((overall, prevalence), adjusted, strict=True)
    )
    remaining = _tested(weighted, blocks, rng)
    value, low, high = shape_prevalence(
        positive, scores.reference, scores.site, own, other, rng=rng, n_resamples=n_resamples
    )
    shape = Estimate(value, low, high, len(y), len(np.unique(other)), METHOD_SHAPE)
    ratio = fit_density_ratio(parts.reference, parts.site, own, other)
    left = weighted_remainder(ratio, parts.reference, *features, own, other)
    return ShiftIdentification(
        shift=_decision(overall, prevalence, remaining, shape, float(positive.mean()), level),
        reference_prevalence=proportion(positive, own),
        site_prevalence=estimate,
        shape_prevalence=shape,
        overall=overall,
        prevalence=prevalence,
        remaining=remaining,
        after_density_ratio=_tested(left, blocks, rng),
        effective_share=ratio.effective_share,
    )


def _decision(
    overall: TestResult,
    prevalence: TestResult,
    remaining: TestResult,
    shape: Estimate,
    reference: float,
    level: float,
) -> Shift:
    if min(overall.p_adjusted, prevalence.p_adjusted) > level:
        return "none"
    if remaining.p_value > level:
        return "prevalence" if prevalence.p_value <= level else "covariate"
    return "covariate" if shape.low <= reference <= shape.high else "both"


def _tested(fit: MixtureFit, blocks: IntArray, rng: np.random.Generator) -> TestResult:
    """Test what remains, each block of features at the same expected size under the null."""
    noise = (fit.remaining_by_group**2).sum(axis=0)
    sizes = np.bincount(blocks, weights=noise)
    return remaining_test(fit, rng=rng, feature_weights=1 / np.maximum(sizes, 1e-300)[blocks] / len(sizes))


def _weighted_fit(
    scores: Discriminant, positive: BoolArray, own: IntArray, other: IntArray, features: tuple[Array, Array]
) -> MixtureFit:
    p, q = 1 / (1 + np.exp(-scores.reference)), scores.site_probabilities
    return fit_mixture(
        positive.astype(np.int64),
        np.stack([1 - p, p], axis=1),
        np.stack([1 - q, q], axis=1),
        own,
        other,
        reference_features=features[0],
        site_features=features[1],
    )


def _prevalence(
    fit: MixtureFit, positive: BoolArray, own: IntArray, n_site: int, n_groups: int
) -> tuple[TestResult, Estimate]:
    """Return the test of the change of prevalence, and the site's prevalence with its interval."""
    share = float(positive.mean())
    of_share = np.bincount(own, weights=positive - share) / len(positive)
    contributions = fit.shares_by_group[:, 1].copy()
    df = min(len(np.unique(own[positive])), len(np.unique(own[~positive])), n_groups) - 1
    reach = float(stats.t.ppf(0.975, max(df, 1))) * math.sqrt(float(contributions @ contributions))
    value, raw = float(fit.shares[1]), float(fit.raw_shares[1])
    low, high = np.clip([raw - reach, raw + reach], 0, 1)
    estimate = Estimate(
        value, min(float(low), value), max(float(high), value), n_site, n_groups, METHOD_MOMENTS, reliable=df >= 9
    )
    contributions[: fit.n_reference_groups] -= of_share
    t = (raw - share) / max(math.sqrt(float(contributions @ contributions)), 1e-300)
    p_value = float(2 * stats.t.sf(abs(t), max(df, 1)))
    return TestResult(value - share, max(p_value, 1e-300)), estimate
