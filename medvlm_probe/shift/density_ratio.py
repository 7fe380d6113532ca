"""Re-weighting a reference, image by image, to look like a site: the odds of a classifier that tells the two apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from medvlm_probe.shift.mixture import MixtureFit, group_sums
from medvlm_probe.types import FloatArray, IntArray

RIDGE = 1.0

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DensityRatio:
    """Weights of the reference's images at which they stand for the site's.

    Attributes:
        weights: summing to 1, (n,).
        effective_share: the share of the reference that they still use, in (0, 1]; near 0 the reference has hardly an
            image like the site's, and no test on the weighted images says anything.
        slope_by_group: what each group of either side contributes to the error of the classifier's slopes, (G, k).
    """

    weights: Array
    effective_share: float
    slope_by_group: Array


def fit_density_ratio(
    reference: FloatArray, site: FloatArray, reference_groups: IntArray, site_groups: IntArray
) -> DensityRatio:
    """Fit a logistic regression of site against reference; its odds are proportional to the ratio of their densities.

    Args:
        reference, site: standardised features, (n, k) and (m, k).
        reference_groups, site_groups: codes from 0, (n,) and (m,).

    Source: Bickel, Brückner and Scheffer 2009.
    """
    n, m = len(reference), len(site)
    x = np.column_stack([np.ones(n + m), np.concatenate([reference, site])])
    is_site = np.repeat([0.0, 1.0], [n, m])
    penalty = np.diag(np.r_[0.0, np.full(x.shape[1] - 1, RIDGE)])
    beta = np.zeros(x.shape[1])
    beta[0] = np.log(m / n)
    for _ in range(50):
        p = special.expit(x @ beta)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + penalty
        step = np.linalg.solve(hessian, x.T @ (is_site - p) - penalty @ beta)
        beta = beta + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    log_odds = np.asarray(reference, dtype=np.float64) @ beta[1:]
    weights = np.asarray(special.softmax(log_odds))
    codes = np.concatenate([reference_groups, np.asarray(site_groups) + int(np.max(reference_groups)) + 1])
    scores = group_sums(x * (is_site - special.expit(x @ beta))[:, None], codes)
    slopes = np.linalg.solve(hessian, scores.T).T[:, 1:]
    return DensityRatio(weights, float(1 / (n * (weights**2).sum())), np.asarray(slopes))


def weighted_remainder(
    ratio: DensityRatio,
    reference: FloatArray,
    reference_features: FloatArray,
    site_features: FloatArray,
    reference_groups: IntArray,
    site_groups: IntArray,
) -> MixtureFit:
    """Return what the re-weighted reference leaves of the site's mean features, for `mixture.remaining_test`.

    The groups' contributions hold the error of the weights too.

    Args:
        ratio: of `fit_density_ratio`.
        reference: what it was fitted on, (n, k).
        reference_features, site_features: (n, M) and (m, M).
        reference_groups, site_groups: codes from 0, (n,) and (m,).
    """
    w = ratio.weights[:, None]
    means = ratio.weights @ reference_features, np.mean(site_features, axis=0)
    centred = reference_features - means[0]
    moved = (w * (reference - ratio.weights @ reference)).T @ centred
    by_group = np.concatenate(
        [
            group_sums(-w * centred, reference_groups),
            group_sums((site_features - means[1]) / len(site_features), site_groups),
        ]
    )
    return MixtureFit(
        shares=np.ones(1),
        raw_shares=np.ones(1),
        condition_number=1.0,
        remaining=means[1] - means[0],
        remaining_by_group=by_group - ratio.slope_by_group @ moved,
        shares_by_group=np.zeros((len(by_group), 1)),
        class_means=means[0][None],
        n_reference_groups=len(np.unique(reference_groups)),
    )
