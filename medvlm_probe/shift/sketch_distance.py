"""How far two sketches' embeddings are apart: squared MMD with its test and interval, and the Fréchet distance.

Without a shift the difference D of the mean features is near to normal, so its squared length is a sum of chi-squared
variables weighted by the eigenvalues of the features' covariance. Three moments of that sum come from the sketches: the
covariance's trace from all patients, those of its square and cube from the folds, freed from the bias of so few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medvlm_probe.metrics.group_jackknife import class_jackknife
from medvlm_probe.metrics.pairwise import row_norms
from medvlm_probe.shift.frechet import N_DIRECTIONS, covariance_distances
from medvlm_probe.shift.sketch import Sketch
from medvlm_probe.types import Estimate, FloatArray, TestResult

FEWEST_FOLDS = 5
"""Of each side: fewer tell too little about the spread, and no interval is given."""

FEWEST_FOR_TEST = 200
"""Patients of each side below which no p-value is given: with 100, 6.9 % of 1,000 were at most .05 without a shift."""

LEAST_P_VALUE = 1e-4
"""Three moments say little about a tail farther out, so nothing smaller is given."""

_MOST_DIRECTIONS = 10_000

METHOD_MMD = "squared MMD of random features, jackknife over folds of patients"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SketchDistance:
    """How far apart two sketches' embeddings are.

    Attributes:
        mmd: squared MMD, unbiased; its interval is NaN where a side has fewer than five folds.
        test: of it, one-sided; None there too, and under 200 patients of a side.
        frechet: |m - n|^2 + tr(A + B - 2 (A B)^(1/2)) of unit vectors along the leading directions, both covariances
            shrunk alike. Above 0 also without a shift, the more so the fewer patients: compare it between sites of
            like size, and read `mmd` where a sentence is needed.
        frechet_mean: the part of the means, freed from what few patients add; 0 on average without a shift.
    """

    mmd: Estimate
    test: TestResult | None
    frechet: float
    frechet_mean: float


def sketch_distance(reference: Sketch, site: Sketch) -> SketchDistance:
    """Return how far two sketches of one plan are apart; noise that an export declares is taken off."""
    sides = [_side(sketch) for sketch in (reference, site)]
    enough = min(len(side.patients) for side in sides) >= FEWEST_FOLDS
    value = _squared_mmd(*sides)
    n = [_images(sketch) for sketch in (reference, site)]
    total, groups = sum(n), round(sum(side.n for side in sides))
    if not enough:
        mmd = Estimate(value, math.nan, math.nan, total, groups, METHOD_MMD, reliable=False)
        return SketchDistance(mmd, None, *_frechet(reference, site))
    left = [_squared_mmd(sides[0].without(k), sides[1]) for k in range(len(sides[0].patients))]
    left += [_squared_mmd(sides[0], sides[1].without(k)) for k in range(len(sides[1].patients))]
    of_site = np.repeat([False, True], [len(side.patients) for side in sides])
    offset = sum(side.spread / side.n for side in sides)
    mmd = class_jackknife(
        value, np.array(left), of_site, n=total, fewest=round(min(s.n for s in sides)), method=METHOD_MMD, offset=offset
    )
    mmd = Estimate(mmd.value, mmd.low, mmd.high, total, groups, METHOD_MMD, mmd.reliable)
    test = _test(*sides) if min(side.n for side in sides) >= FEWEST_FOR_TEST else None
    return SketchDistance(mmd, test, *_frechet(reference, site))


def _images(sketch: Sketch) -> int:
    n = float(sketch.images[0])
    return round(n if math.isfinite(n) else sketch.n_patients)


@dataclass(frozen=True, eq=False)
class _Side:
    """One sketch's folds: patients (K,), sums of features (K, F), of their squared lengths (K,), variance of noise."""

    patients: Array
    features: Array
    lengths: Array
    noise: float

    @property
    def n(self) -> float:
        return float(self.patients.sum())

    @property
    def total(self) -> Array:
        return np.asarray(self.features.sum(axis=0))

    @property
    def squared_total(self) -> float:
        """Squared length of the sum, without what noise adds to it."""
        return float(self.total @ self.total) - self.noise * self.features.size

    @property
    def within(self) -> float:
        """Mean kernel between two different patients."""
        return (self.squared_total - float(self.lengths.sum())) / (self.n * (self.n - 1))

    @property
    def spread(self) -> float:
        """Trace of the covariance of patients' mean features."""
        return max(float(self.lengths.sum()) / self.n - self.within, 0.0)

    def without(self, fold: int) -> _Side:
        kept = np.arange(len(self.patients)) != fold
        return _Side(self.patients[kept], self.features[kept], self.lengths[kept], self.noise)

    def residuals(self) -> Array:
        """Folds' sums about the mean of all, of covariance like that of one patient each, (K, F)."""
        about = self.features - self.patients[:, None] * (self.total / self.n)
        return np.asarray(about / np.sqrt(self.patients)[:, None])


def _side(sketch: Sketch) -> _Side:
    return _Side(
        sketch.fold_patients, sketch.fold_features, sketch.fold_lengths, sketch.noise.get("fold_features", 0.0) ** 2
    )


def _squared_mmd(reference: _Side, site: _Side) -> float:
    across = float(reference.total @ site.total) / (reference.n * site.n)
    return reference.within + site.within - 2 * across


def _test(reference: _Side, site: _Side) -> TestResult:
    """Test by D's squared length, against three moments of its null."""
    sides = (reference, site)
    value = _squared_mmd(reference, site)
    scale = sum(1 / side.n for side in sides)
    noise = sum(side.noise * side.features.size / side.n**2 for side in sides)
    spread = sum(side.n * side.spread for side in sides) / sum(side.n for side in sides) + noise / scale
    residuals = np.concatenate([side.residuals() for side in sides])
    squared_length = value + sum(side.spread / side.n for side in sides) + noise
    p_value = tail_of_weighted_chi_squares(squared_length / scale, spread, residuals @ residuals.T, len(residuals) - 2)
    return TestResult(value, max(p_value, LEAST_P_VALUE))


def tail_of_weighted_chi_squares(value: float, trace: float, products: Array, df: int) -> float:
    """Return P(z'z >= value) for normal z whose covariance C is known from a few residuals, in [0, 1].

    A chi-squared variable is shifted and scaled to the mean, variance and third moment of z'z: tr C, 2 tr C^2 and
    8 tr C^3.

    Args:
        value: a squared length.
        trace: tr C.
        products: of the residuals with each other, (m, m), m > df of them; R R' where R'R / df estimates C.
        df: their degrees of freedom, above 2.

    Source: Liu, Tang and Zhang 2009 (three moments of a quadratic form); Himeno and Yamada 2014 (unbiased traces of
        powers of a covariance).
    """
    s = products / df
    first, second, third = float(np.trace(s)), float((s**2).sum()), float(((s @ s) * s).sum())
    squares = df**2 / ((df - 1) * (df + 2)) * (second - first**2 / df)
    cubes = third - 3 * first * second / df + 2 * first**3 / df**2
    cubes *= df**4 / ((df - 1) * (df - 2) * (df + 2) * (df + 4))
    if not trace > 0:
        return 1.0
    # What any covariance of this trace and so many dimensions keeps to.
    squares = min(max(squares, trace**2 / _MOST_DIRECTIONS), trace**2)
    cubes = min(max(cubes, squares**2 / trace), squares**1.5)
    freedom = squares**3 / cubes**2
    away = (value - trace) / math.sqrt(2 * squares)
    return float(stats.chi2.sf(freedom + away * math.sqrt(2 * freedom), freedom))


def sketch_moments(sketch: Sketch) -> tuple[Array, Array]:
    """Return the mean (d,) and covariance (d, d) of patients' unit vectors."""
    n, d = sketch.n_patients, sketch.plan.features.n_dimensions
    rows, columns = np.tril_indices(d)
    mean = sketch.embedding / n
    covariance = np.empty((d, d))
    covariance[rows, columns] = covariance[columns, rows] = sketch.products / n
    return mean, (covariance - np.outer(mean, mean)) * n / (n - 1)


def sketch_outlier_scores(sketch: Sketch, vectors: FloatArray) -> Array:
    """Return the squared Mahalanobis distance of image vectors (n, d) from a sketch's patients, (n,), from 0 on.

    Of unit vectors, by the sketch's covariance, shrunk; larger = more outlying. Scores of the sketch's own patients
    would come out low.
    """
    mean, covariance = sketch_moments(sketch)
    values, axes = np.linalg.eigh(shrunk_covariance(covariance, sketch.n_patients))
    # Noise in an export can leave directions of no or negative variance.
    values = np.maximum(values, 1e-6 * max(float(values.max()), 1e-300))
    units = np.asarray(vectors, dtype=np.float64) / row_norms(vectors)[:, None]
    return np.asarray(((((units - mean) @ axes) ** 2) / values).sum(axis=1))


def _frechet(reference: Sketch, site: Sketch) -> tuple[float, float]:
    (first, second), covariances = zip(*(sketch_moments(sketch) for sketch in (reference, site)), strict=True)
    counts = [sketch.n_patients for sketch in (reference, site)]
    axes = np.linalg.eigh(sum(covariances))[1][:, -N_DIRECTIONS:]
    small = [shrunk_covariance(axes.T @ covariance @ axes, min(counts)) for covariance in covariances]
    apart = float((((first - second) @ axes) ** 2).sum())
    by_chance = sum(float(np.trace(c)) / n for c, n in zip(covariances, counts, strict=True))
    unbiased = float(((first - second) ** 2).sum()) - by_chance
    return apart + float(covariance_distances(small[0][None], small[1][None])[0]), unbiased


def shrunk_covariance(covariance: Array, n: float) -> Array:
    """Return a covariance of n patients, shrunk to a multiple of the identity (Chen et al. 2010, OAS)."""
    r = len(covariance)
    trace, squares = float(np.trace(covariance)), float((covariance**2).sum())
    away = (n + 1 - 2 / r) * (squares - trace**2 / r)
    share = min(1.0, ((1 - 2 / r) * squares + trace**2) / away) if away > 0 else 1.0
    return np.asarray((1 - share) * covariance + share * trace / r * np.eye(r))
