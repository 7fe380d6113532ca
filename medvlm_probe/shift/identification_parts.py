"""What identification looks at: features of an image, a held-out discriminant of the label, the shape of its scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from medvlm_probe.metrics.bootstrap import group_bootstrap_weights, strata_with
from medvlm_probe.metrics.intervals import group_folds
from medvlm_probe.types import BoolArray, FloatArray, IntArray

N_COMPONENTS = 20
N_FREQUENCIES = 128
N_FOLDS = 5
MEDIAN_ROWS = 500
SHAPE_BINS = 400
SHAPE_GRID = np.linspace(0.01, 0.99, 50)
_SHAPE_CUTS = np.linspace(-2.5, 2.5, 41)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Components:
    """Standardised principal components of the reference's normalised embeddings, of both sides.

    Attributes:
        reference: mean 0, variance 1, (n, k).
        site: on the same axes, (m, k).
    """

    reference: Array
    site: Array


def components(reference: FloatArray, site: FloatArray) -> Components:
    """Return up to `N_COMPONENTS` of them; the site has no say in the axes."""
    x, y = unit_rows(reference), unit_rows(site)
    centre = x.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov((x - centre).T))
    kept = [i for i in range(len(values) - 1, -1, -1) if values[i] > 1e-9 * values[-1]][:N_COMPONENTS]
    root = axes[:, kept] / np.sqrt(values[kept])
    return Components(np.asarray((x - centre) @ root), np.asarray((y - centre) @ root))


def unit_rows(vectors: FloatArray) -> Array:
    """Return L2-normalised rows as float64."""
    x = np.asarray(vectors, dtype=np.float64)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300))


def kernel_features(reference: FloatArray, site: FloatArray, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return random Fourier features whose mean distance is the MMD of the RBF kernel at the median distance.

    Args:
        reference, site: embeddings, (n, d) and (m, d), which are normalised.
        rng: draws frequencies and the rows of the median.

    Returns:
        (n, 2 F) and (m, 2 F).

    Source: Rahimi and Recht 2007; Gretton et al. 2012.
    """
    both = np.concatenate([unit_rows(reference), unit_rows(site)])
    some = both[rng.choice(len(both), min(MEDIAN_ROWS, len(both)), replace=False)]
    squares = (some**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * some @ some.T
    median = float(np.sqrt(np.median(distances[np.triu_indices(len(some), 1)])))
    phases = both @ (rng.standard_normal((both.shape[1], N_FREQUENCIES)) / max(median, 1e-12))
    features = np.concatenate([np.cos(phases), np.sin(phases)], axis=1) / np.sqrt(N_FREQUENCIES)
    return features[: len(reference)], features[len(reference) :]


@dataclass(frozen=True, eq=False)
class Discriminant:
    """Log odds of a label by linear discriminants that have not seen the image's fold.

    Attributes:
        reference: (n,).
        site: the mean over the folds' discriminants, (m,).
        site_by_fold: of each, (F, m).
    """

    reference: Array
    site: Array
    site_by_fold: Array

    @property
    def site_probabilities(self) -> Array:
        """P(present) at the reference's prevalence, averaged over folds, (m,)."""
        return np.asarray(special.expit(self.site_by_fold).mean(axis=0))


def discriminant(parts: Components, positive: BoolArray, groups: IntArray, rng: np.random.Generator) -> Discriminant:
    """Fit a linear discriminant of the label on the reference's components, cross-fitted over groups.

    Args:
        parts: of both sides.
        positive: bool (n,).
        groups: of the reference's images, (n,).
        rng: deals groups to folds, those with a positive evenly.
    """
    folds = group_folds(groups, N_FOLDS, rng, strata=strata_with(positive, groups))
    own, other = np.empty(len(positive)), []
    for fold in range(int(folds.max()) + 1):
        axis, offset = linear_log_odds(parts.reference[folds != fold], positive[folds != fold])
        own[folds == fold] = parts.reference[folds == fold] @ axis + offset
        other.append(parts.site @ axis + offset)
    stacked = np.stack(other)
    return Discriminant(own, stacked.mean(axis=0), stacked)


def linear_log_odds(x: Array, positive: BoolArray) -> tuple[Array, float]:
    """Return axis and offset of the log odds x @ axis + offset of two normal classes with one shrunk covariance."""
    from sklearn.covariance import ledoit_wolf

    means = [x[positive].mean(axis=0), x[~positive].mean(axis=0)]
    covariance = ledoit_wolf(x - np.where(positive[:, None], means[0], means[1]), assume_centered=True)[0]
    axis = np.linalg.solve(covariance, means[0] - means[1])
    share = float(positive.mean())
    return axis, float(special.logit(share) - axis @ (means[0] + means[1]) / 2)


def shape_prevalence(
    positive: BoolArray,
    scores: FloatArray,
    site_scores: FloatArray,
    groups: IntArray,
    site_groups: IntArray,
    *,
    rng: np.random.Generator,
    n_resamples: int,
) -> tuple[float, float, float]:
    """Return the site's prevalence from the shape of its scores alone, with bounds of a group bootstrap of both sides.

    The site's scores may be moved and stretched by any common amount, as a change of appearance does to first order.
    Of all mixtures of the reference's two classes the one is taken whose distribution, at mean 0 and variance 1, is
    nearest to the site's. Where the classes overlap much, the bounds are wide.

    Args:
        positive, scores, groups: of the reference, (n,).
        site_scores, site_groups: (m,).
        rng: draws the groups.
        n_resamples: B.

    Returns:
        the estimate, and the 2.5 % and 97.5 % quantiles of the replicates.
    """
    pooled = np.concatenate([scores, site_scores])
    edges = np.linspace(pooled.min() - 1e-9, pooled.max() + 1e-9, SHAPE_BINS + 1)

    def counted(weights: Array, values: FloatArray) -> Array:
        bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, SHAPE_BINS - 1)
        return np.stack([np.bincount(bins, weights=row, minlength=SHAPE_BINS) for row in weights]).astype(np.float64)

    own = np.concatenate(
        [
            np.ones((1, len(scores))),
            group_bootstrap_weights(groups, n_resamples, rng, strata=strata_with(positive, groups)),
        ]
    )
    other = np.concatenate([np.ones((1, len(site_scores))), group_bootstrap_weights(site_groups, n_resamples, rng)])
    present = counted(own[:, positive], scores[positive])
    absent = counted(own[:, ~positive], scores[~positive])
    site = counted(other, site_scores)
    found = np.array([_nearest_shape(*rows, edges) for rows in zip(present, absent, site, strict=True)])
    low, high = np.quantile(found[1:], [0.025, 0.975]) if n_resamples else (np.nan, np.nan)
    return float(found[0]), float(low), float(high)


def _nearest_shape(present: Array, absent: Array, site: Array, edges: Array) -> float:
    """Return the share of `present` at which the mixture's standardised distribution is nearest to the site's."""
    centres = (edges[1:] + edges[:-1]) / 2
    p, q, target = (mass / max(float(mass.sum()), 1e-300) for mass in (present, absent, site))
    mixtures = SHAPE_GRID[:, None] * p + (1 - SHAPE_GRID[:, None]) * q

    def places(mass: Array) -> Array:
        mean = mass @ centres
        deviation = np.sqrt(np.maximum(mass @ centres**2 - mean**2, 1e-300))
        return np.asarray(mean[..., None] + deviation[..., None] * _SHAPE_CUTS)

    def below(mass: Array, at: Array) -> Array:
        return np.asarray(np.interp(at, edges, np.concatenate([[0.0], np.cumsum(mass)])))

    at = places(mixtures)
    found = SHAPE_GRID[:, None] * below(p, at) + (1 - SHAPE_GRID[:, None]) * below(q, at)
    losses = ((found - below(target, places(target))) ** 2).sum(axis=1)
    return float(SHAPE_GRID[int(losses.argmin())])
