"""What identification looks at: features of an image, a held-out discriminant of the label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from medvlm_probe.metrics.bootstrap import strata_with
from medvlm_probe.metrics.intervals import group_folds
from medvlm_probe.types import BoolArray, FloatArray, IntArray

N_COMPONENTS = 20
N_FREQUENCIES = 128
N_FOLDS = 5
MEDIAN_ROWS = 500

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
        site_by_fold: of each fold's discriminant, (F, m).
    """

    reference: Array
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
    folds = group_folds(groups, N_FOLDS, rng, strata=strata_of(positive, groups))
    own, other = np.empty(len(positive)), []
    for fold in range(int(folds.max()) + 1):
        axis, offset = linear_log_odds(parts.reference[folds != fold], positive[folds != fold])
        own[folds == fold] = parts.reference[folds == fold] @ axis + offset
        other.append(parts.site @ axis + offset)
    return Discriminant(own, np.stack(other))


def linear_log_odds(x: Array, positive: BoolArray) -> tuple[Array, float]:
    """Return axis and offset of the log odds x @ axis + offset of two normal classes with one shrunk covariance."""
    root, gap = whitening(x, positive)
    means = x[positive].mean(axis=0) + x[~positive].mean(axis=0)
    axis = root.T @ gap
    return axis, float(special.logit(float(positive.mean())) - axis @ means / 2)


def whitening(x: Array, positive: BoolArray) -> tuple[Array, Array]:
    """Return the matrix that makes rows of `x` white within classes, (k, k), and the classes' distance then, (k,).

    Source: Ledoit and Wolf 2004 (the shrunk covariance).
    """
    from sklearn.covariance import ledoit_wolf

    means = [x[positive].mean(axis=0), x[~positive].mean(axis=0)]
    covariance = ledoit_wolf(x - np.where(positive[:, None], means[0], means[1]), assume_centered=True)[0]
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    return root, root @ (means[0] - means[1])


def strata_of(positive: BoolArray, groups: IntArray) -> IntArray:
    """Return whether each row's group has images with the label, without it, or both, as a code, (n,)."""
    return np.asarray(strata_with(positive, groups).astype(np.int64) + 2 * strata_with(~positive, groups))
