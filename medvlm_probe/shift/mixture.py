"""Is a site a mixture of the reference's classes in other shares: the shares by moments, and what distance remains.

Under label shift the site's mean of any function of an image is the mean of the reference's class means, weighted by
the site's shares of the classes. Some functions (moments) tell the shares; the others (features) say whether the site
is such a mixture at all. Everything is linear in the groups, so one multiplier bootstrap holds the noise of both sides
and of the shares that were estimated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.errors import InputError
from medvlm_probe.metrics.permutation import permutation_p_value
from medvlm_probe.types import FloatArray, IntArray, TestResult

N_DRAWS = 999
EDGE = 5.0
"""Standard errors from 0 within which a share may be drawn beyond the edge of the simplex."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MixtureFit:
    """The site as a mixture of the reference's classes.

    Attributes:
        shares: of the K classes at the site, on the simplex, (K,).
        raw_shares: as the moments give them, summing to 1, perhaps outside [0, 1], (K,).
        condition_number: of the matrix of class means of the moments; infinite where they do not tell the classes.
        remaining: site's mean of each feature less the mixture's, (M,).
        remaining_by_group: what each group of either side contributes to its error where `raw_shares` lie on the
            simplex, (G, M).
        shares_by_group: what each contributes to the error of `raw_shares`, (G, K).
        class_means: of each feature at the reference, (K, M).
        n_reference_groups: the first rows of both.
    """

    shares: Array
    raw_shares: Array
    condition_number: float
    remaining: Array
    remaining_by_group: Array
    shares_by_group: Array
    class_means: Array
    n_reference_groups: int

    @property
    def share_variances(self) -> Array:
        """The variance of each of `raw_shares` over groups of both sides, (K,)."""
        return np.asarray((self.shares_by_group**2).sum(axis=0))


def fit_mixture(
    classes: IntArray,
    reference_moments: FloatArray,
    site_moments: FloatArray,
    reference_groups: IntArray,
    site_groups: IntArray,
    *,
    reference_features: FloatArray | None = None,
    site_features: FloatArray | None = None,
) -> MixtureFit:
    """Return the shares that match the site's mean moments, and what they leave of its mean features.

    With calls (one-hot) as moments the shares are those of black-box shift estimation; with probabilities, its soft
    form.

    Args:
        classes: of the reference's images, 0 ... K - 1, each present, (n,).
        reference_moments, site_moments: K functions of an image that sum to 1, (n, K) and (m, K).
        reference_groups, site_groups: (n,) and (m,); the sides share no group.
        reference_features, site_features: any M functions of an image, (n, M) and (m, M); None is none.

    Raises:
        InputError: a class without images, or shapes that do not fit.

    Source: Lipton, Wang and Smola 2018; Azizzadenesheli et al. 2019 (soft); Garg et al. 2020 (all are moments).
    """
    codes = np.asarray(classes)
    n_classes = reference_moments.shape[1]
    counts = np.bincount(codes, minlength=n_classes)
    if len(counts) != n_classes or (counts == 0).any() or site_moments.shape[1] != n_classes:
        raise InputError(
            f"Classes with {counts.tolist()} reference images for {n_classes} moments: each class needs images."
        )
    n, m = len(codes), len(site_moments)
    of_reference = np.zeros((n, 0)) if reference_features is None else np.asarray(reference_features)
    of_site = np.zeros((m, 0)) if site_features is None else np.asarray(site_features)
    own = np.unique(reference_groups, return_inverse=True)[1]
    other = np.unique(site_groups, return_inverse=True)[1]
    member = np.zeros((n, n_classes))
    member[np.arange(n), codes] = 1 / counts[codes]
    matrix = np.asarray(reference_moments, dtype=np.float64).T @ member
    inverse, condition = _inverse(matrix)
    raw = inverse @ np.asarray(site_moments, dtype=np.float64).mean(axis=0)
    raw = raw / raw.sum() if abs(raw.sum()) > 1e-9 else np.full(n_classes, 1 / n_classes)
    shares = _on_simplex(raw)

    weights = shares[codes] / counts[codes] * _inflation(codes, own)
    lead_reference = group_sums((reference_moments - matrix.T[codes]) * weights[:, None], own)
    lead_site = _site_sums(site_moments, other)
    share_groups = np.concatenate([-lead_reference, lead_site]) @ inverse.T
    class_means = member.T @ of_reference
    feature_reference = group_sums((of_reference - class_means[codes]) * weights[:, None], own)
    feature_groups = np.concatenate([-feature_reference, _site_sums(of_site, other)]) - share_groups @ class_means
    return MixtureFit(
        shares=shares,
        raw_shares=raw,
        condition_number=condition,
        remaining=of_site.mean(axis=0) - shares @ class_means,
        remaining_by_group=feature_groups,
        shares_by_group=share_groups,
        class_means=class_means,
        n_reference_groups=len(lead_reference),
    )


def remaining_test(
    fit: MixtureFit, *, rng: np.random.Generator, feature_weights: FloatArray | None = None, n_draws: int = N_DRAWS
) -> TestResult:
    """Test whether what remains exceeds what two samples of such groups leave by chance.

    The statistic is the weighted sum of squared remaining differences; its null draws are those of the groups'
    contributions under standard normal multipliers. Where shares may lie at the edge of the simplex, draws are put back
    onto it as the shares themselves were: there what remains is no longer linear in the groups.

    Args:
        fit: of `fit_mixture`, with features.
        rng: draws the multipliers.
        feature_weights: (M,); None weighs all alike, to a sum of 1.
        n_draws: B.

    Source: van der Vaart and Wellner 1996, chapter 2.9 (multiplier bootstrap).
    """
    n_features = len(fit.remaining)
    weights = np.full(n_features, 1 / max(n_features, 1)) if feature_weights is None else np.asarray(feature_weights)
    scales = np.sqrt(weights)
    statistic = float(fit.remaining**2 @ weights)
    scaled = fit.remaining_by_group * scales
    if (fit.shares > EDGE * np.sqrt(fit.share_variances)).all():
        # Squared lengths of normal vectors with this covariance: chi-squared numbers, weighed by its eigenvalues.
        products = scaled.T @ scaled if n_features <= len(scaled) else scaled @ scaled.T
        eigenvalues = np.clip(np.linalg.eigvalsh(products), 0.0, None)
        null = rng.standard_normal((n_draws, len(eigenvalues))) ** 2 @ eigenvalues
    else:
        draws = _normal_draws(np.concatenate([scaled, fit.shares_by_group], axis=1), n_draws, rng)
        raw = fit.shares + draws[:, n_features:]
        left = draws[:, :n_features] + (raw - _on_simplex(raw)) @ (fit.class_means * scales)
        null = (left**2).sum(axis=1)
    return TestResult(statistic, permutation_p_value(statistic, null))


def _normal_draws(contributions: Array, n_draws: int, rng: np.random.Generator) -> Array:
    """Return sums of contributions (G, M) under standard normal multipliers, (n_draws, M)."""
    if contributions.shape[1] > len(contributions):
        return np.asarray(rng.standard_normal((n_draws, len(contributions))) @ contributions)
    values, vectors = np.linalg.eigh(contributions.T @ contributions)
    roots = vectors * np.sqrt(np.clip(values, 0.0, None))
    return np.asarray(rng.standard_normal((n_draws, len(values))) @ roots.T)


def _on_simplex(raw: Array) -> Array:
    """Return shares without negative ones, summing to 1, (..., K)."""
    kept = np.maximum(raw, 0.0)
    return np.asarray(kept / kept.sum(axis=-1, keepdims=True))


def _inverse(matrix: Array) -> tuple[Array, float]:
    """Return the (pseudo-)inverse and the condition number; a singular matrix leaves its null space untouched."""
    singular = np.linalg.svd(matrix, compute_uv=False)
    condition = float(singular[0] / singular[-1]) if singular[-1] > 1e-12 * singular[0] else float("inf")
    return np.asarray(np.linalg.pinv(matrix, rcond=1e-12)), condition


def _inflation(codes: IntArray, groups: IntArray) -> Array:
    """Return sqrt(G / (G - 1)) by each image's class, G its groups, (n,): a mean of few groups varies more."""
    n_groups = np.array([max(len(np.unique(groups[codes == k])), 2) for k in range(int(codes.max()) + 1)], dtype=float)
    inflation: Array = np.sqrt(n_groups / (n_groups - 1))
    return inflation[codes]


def group_sums(values: FloatArray, groups: IntArray) -> Array:
    """Return the sums of rows (n, M) over each group that occurs, in ascending order, (G, M)."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) > 0])
    return np.asarray(np.add.reduceat(np.asarray(values, dtype=np.float64)[order], starts, axis=0))


def _site_sums(values: FloatArray, groups: IntArray) -> Array:
    centred = np.asarray(values, dtype=np.float64) - np.mean(values, axis=0)
    n_groups = max(int(groups.max()) + 1, 2)
    return group_sums(centred, groups) * (math.sqrt(n_groups / (n_groups - 1)) / len(centred))
