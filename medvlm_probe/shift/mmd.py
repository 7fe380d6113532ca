"""Squared maximum mean discrepancy between two samples of patients: exact, by random features, in linear time.

Source: Gretton, Borgwardt, Rasch, Schölkopf and Smola 2012, "A kernel two-sample test"; Rahimi and Recht 2007 and Yu,
Suresh, Choromanski, Holtmann-Rice and Kumar 2016 (random features, orthogonal ones).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.intervals import jackknife_interval, mean_without_groups
from medvlm_probe.metrics.pairwise import Points
from medvlm_probe.shift.group_kernel import (
    GroupSums,
    discrepancy_estimate,
    group_kernel,
    kernel_sums,
    null_discrepancies,
)
from medvlm_probe.shift.two_samples import (
    PERMUTATIONS_AT_ONCE,
    ShiftTest,
    SitePermutations,
    TwoSamples,
    against_null,
    mean_by_group,
)
from medvlm_probe.types import BoolArray, FloatArray, IntArray

EXACT_GROUPS = 10_000
"""Up to so many groups the kernel between groups is held whole (400 MB); beyond, random features stand in."""

N_FREQUENCIES = 1_024
MEDIAN_GROUPS = 2_048
_ROWS = 1_024


def median_bandwidth(points: Points, groups: IntArray, rng: np.random.Generator) -> float:
    """Return the median distance between images of different groups, in the points' own scale, above 0.

    From one random image of each group, and of at most 2,048 groups, whatever their sample: so permutations leave it
    as it is.

    Args:
        points: in group order.
        groups: ascending codes, (n,).
        rng: draws groups and images.
    """
    images = one_image_per_group(groups, rng)
    if len(images) > MEDIAN_GROUPS:
        images = images[np.sort(rng.choice(len(images), MEDIAN_GROUPS, replace=False))]
    x = points.centred[images].astype(np.float64)
    squares = (x**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * x @ x.T
    median = float(np.median(distances[np.triu_indices(len(x), 1)]))
    # More than half of the images are copies of one another: any width serves, the mean distance is not 0 by then.
    squared = median if median > 1e-12 else float(np.maximum(distances, 0).mean())
    return math.sqrt(squared) * points.unit if squared > 0 else points.unit


def one_image_per_group(groups: IntArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the position of a random image of each group, (G,); groups are ascending codes."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    sizes = np.diff(np.append(starts, len(groups)))
    return np.asarray(starts + rng.integers(sizes), dtype=np.int64)


def mmd_test(
    samples: TwoSamples, permutations: SitePermutations, rng: np.random.Generator, *, bandwidth: float | None = None
) -> ShiftTest:
    """Test by the unbiased squared MMD with the kernel exp(-|x - y|^2 / (2 s^2)), s the median distance.

    The effect is the squared MMD itself, at most 2 and mostly below .1 between sites; 0 on average without a shift.
    Exact up to 10,000 groups; above, with 2,048 random Fourier features, whose error is near .001.

    Args:
        samples: both samples.
        permutations: of their groups.
        rng: draws the images behind the median distance, and random features.
        bandwidth: s; the median distance where None.
    """
    if bandwidth is None:
        bandwidth = median_bandwidth(samples.points, samples.groups, rng)
    if len(samples.of_site) > EXACT_GROUPS:
        return feature_mmd_test(samples, permutations, rng, bandwidth=bandwidth)
    scale = np.float32(-0.5 * (samples.points.unit / bandwidth) ** 2)

    def gaussian(values: NDArray[np.float32]) -> None:
        np.square(values, out=values)
        np.multiply(values, scale, out=values)
        np.exp(values, out=values)

    kernel = group_kernel(samples, gaussian)
    effect = discrepancy_estimate(
        kernel_sums(kernel, samples.of_site), samples.of_site, n=len(samples.groups), unit=1.0, name="squared MMD"
    )
    null = against_null(effect.value, null_discrepancies(kernel, permutations, samples.n_groups[1]))
    return ShiftTest(
        effect.value, effect, null.p_value, null.quantiles, len(null.values), f"RBF kernel, bandwidth {bandwidth:.4g}"
    )


@dataclass(frozen=True, eq=False)
class FourierMap:
    """A fixed map to features whose products approximate the kernel exp(-|x - y|^2 / (2 s^2)).

    Attributes:
        frequencies: float32 (d, R), for vectors in their own scale.
    """

    frequencies: NDArray[np.float32]

    def __call__(self, vectors: FloatArray) -> NDArray[np.float32]:
        """Return features of length 1, float32 (n, 2 R), of vectors (n, d)."""
        angles = np.asarray(vectors, dtype=np.float32) @ self.frequencies
        features = np.empty((len(angles), 2 * angles.shape[1]), dtype=np.float32)
        np.cos(angles, out=features[:, : angles.shape[1]])
        np.sin(angles, out=features[:, angles.shape[1] :])
        features *= np.float32(1 / math.sqrt(angles.shape[1]))
        return features


def fourier_map(n_dimensions: int, n_frequencies: int, bandwidth: float, rng: np.random.Generator) -> FourierMap:
    """Draw frequencies, orthogonal within each run of d of them, which makes their error smaller.

    Args:
        n_dimensions: d.
        n_frequencies: R; the features are twice as many.
        bandwidth: s.
        rng: draws them.
    """
    runs = []
    for start in range(0, n_frequencies, n_dimensions):
        axes = np.linalg.qr(rng.standard_normal((n_dimensions, n_dimensions)))[0]
        lengths = np.sqrt(rng.chisquare(n_dimensions, n_dimensions))
        runs.append((axes * lengths)[:, : n_frequencies - start])
    return FourierMap((np.concatenate(runs, axis=1) / bandwidth).astype(np.float32))


def feature_mmd_test(
    samples: TwoSamples,
    permutations: SitePermutations,
    rng: np.random.Generator,
    *,
    n_frequencies: int = N_FREQUENCIES,
    bandwidth: float | None = None,
) -> ShiftTest:
    """Test by the squared MMD of random Fourier features: linear in the images, and any permutation is exact still.

    Args:
        samples, permutations: as `mmd_test`.
        rng: draws the frequencies.
        n_frequencies: R; the kernel's error at a pair of images is about 1 / sqrt(2 R).
        bandwidth: s; the median distance where None.
    """
    points, groups = samples.points, samples.groups
    if bandwidth is None:
        bandwidth = median_bandwidth(points, groups, rng)
    to_features = fourier_map(points.centred.shape[1], n_frequencies, bandwidth / points.unit, rng)
    features = group_features(to_features, points, groups)
    features -= features.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.einsum("gf,gf->g", features, features, dtype=np.float64)
    of_site = samples.of_site
    to_samples = [
        (features @ features[mask].sum(axis=0, dtype=np.float64).astype(np.float32)).astype(np.float64)
        - np.where(mask, lengths, 0.0)
        for mask in (~of_site, of_site)
    ]
    sums = GroupSums(to_samples[0], to_samples[1], lengths)
    effect = discrepancy_estimate(sums, of_site, n=len(groups), unit=1.0, name="squared MMD, random features")
    null = against_null(effect.value, _null_of_features(features, lengths, permutations, samples.n_groups[1]))
    settings = f"RBF kernel, bandwidth {bandwidth:.4g}, {2 * n_frequencies} random features"
    return ShiftTest(effect.value, effect, null.p_value, null.quantiles, len(null.values), settings)


def group_features(to_features: FourierMap, points: Points, groups: IntArray) -> NDArray[np.float32]:
    """Return the mean features of each group's images, float32 (G, 2 R), a thousand images at a time."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    result = np.empty((len(starts), 2 * to_features.frequencies.shape[1]), dtype=np.float32)
    ends = np.append(starts[1:], len(groups))
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + _ROWS, side="right")))
        rows = slice(starts[first], ends[last - 1])
        result[first:last] = mean_by_group(to_features(points.centred[rows]), groups[rows] - groups[rows.start])
        first = last
    return result


def _null_of_features(
    features: NDArray[np.float32], lengths: FloatArray, permutations: SitePermutations, n_site: int
) -> Iterator[FloatArray]:
    g, h = len(features) - n_site, n_site
    total = features.sum(axis=0, dtype=np.float64)
    for masks in permutations.blocks():
        site = (masks.astype(np.float32) @ features).astype(np.float64)
        reference = total - site
        own = masks @ lengths
        within_site = (site**2).sum(axis=1) - own
        within_reference = (reference**2).sum(axis=1) - (lengths.sum() - own)
        across = (site * reference).sum(axis=1)
        yield within_reference / (g * (g - 1)) + within_site / (h * (h - 1)) - 2 * across / (g * h)


def linear_mmd_test(samples: TwoSamples, permutations: SitePermutations, rng: np.random.Generator) -> ShiftTest:
    """Test by the linear-time squared MMD: a mean of independent terms, each of two patients of either sample.

    It uses one image of a patient and as many patients of the larger sample as the smaller has, so it sees far less
    than `mmd_test`; but its terms are independent, so its interval is that of a mean. Changing sides between the
    patients of one term turns its sign: the permutations are sign flips, as many as `permutations` holds.
    """
    bandwidth = median_bandwidth(samples.points, samples.groups, rng)
    images = one_image_per_group(samples.groups, rng)
    n_terms = min(samples.n_groups) // 2
    drawn = [
        samples.points.centred[images[rng.permutation(np.flatnonzero(mask))[: 2 * n_terms]]].astype(np.float64)
        for mask in (~samples.of_site, samples.of_site)
    ]
    (x, x_other), (y, y_other) = ((vectors[::2], vectors[1::2]) for vectors in drawn)
    scale = -0.5 * (samples.points.unit / bandwidth) ** 2

    def kernel(a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
        return np.asarray(np.exp(scale * ((a - b) ** 2).sum(axis=1)))

    terms = kernel(x, x_other) + kernel(y, y_other) - kernel(x, y_other) - kernel(x_other, y)
    value, without = mean_without_groups(terms, np.arange(n_terms))
    effect = jackknife_interval(
        value, without, n=4 * n_terms, n_groups=4 * n_terms, n_scarce=n_terms, method="linear-time squared MMD, t"
    )
    null = against_null(value, _sign_flips(terms, len(permutations), rng))
    settings = f"RBF kernel, bandwidth {bandwidth:.4g}, {n_terms} terms"
    return ShiftTest(value, effect, null.p_value, null.quantiles, len(null.values), settings)


def _sign_flips(terms: FloatArray, n_permutations: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    for start in range(0, n_permutations, PERMUTATIONS_AT_ONCE):
        flipped: BoolArray = rng.random((min(PERMUTATIONS_AT_ONCE, n_permutations - start), len(terms))) < 0.5
        yield (terms.sum() - 2 * (flipped @ terms)) / len(terms)
