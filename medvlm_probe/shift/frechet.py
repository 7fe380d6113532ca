"""The Fréchet distance between two samples of patients, and its permutation test.

Source: Dowson and Landau 1982 (the distance between normal distributions); Ledoit and Wolf 2004 (shrinkage).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medvlm_probe.metrics.intervals import group_folds, jackknife_interval
from medvlm_probe.metrics.pairwise import Points
from medvlm_probe.shift.two_samples import ShiftTest, SitePermutations, TwoSamples, against_null, mean_by_group
from medvlm_probe.types import BoolArray, FloatArray, IntArray

N_DIRECTIONS = 64
N_JACKKNIFE_FOLDS = 40
_ROWS = 4_096
_GROUPS_AT_ONCE = 1 << 14


def frechet_test(
    samples: TwoSamples, permutations: SitePermutations, rng: np.random.Generator, *, n_directions: int = N_DIRECTIONS
) -> ShiftTest:
    """Test by the Fréchet distance |m - n|^2 + tr(A + B - 2 (A B)^(1/2)) of equally many patients of both samples.

    The distance between two halves of one site is far from 0, and falls with the number of patients; so the larger
    sample is thinned to the smaller one's patients, both covariances are shrunk alike, and the effect is what the
    distance has beyond the median of its permutations. It is taken along the principal directions of both samples
    together, at most 64 (whose share of the variance `settings` states): a permutation then costs a millisecond.

    Args:
        samples: both samples.
        permutations: of their groups.
        rng: draws the order in which groups are thinned, and the jackknife's folds.
        n_directions: most principal directions.
    """
    moments = group_moments(samples, n_directions)
    priority = rng.permutation(len(samples.of_site))
    site, reference = thinned(samples.of_site[None], priority)
    m = int(site.sum())
    shrinkage = moments.shrinkage(m)
    unit = samples.points.unit**2
    statistic = float(moments.distances(site, reference, shrinkage)[0]) * unit

    def null_distances() -> Iterator[FloatArray]:
        for masks in permutations.blocks():
            yield unit * moments.distances(*thinned(masks, priority), shrinkage)

    null = against_null(statistic, null_distances())
    chosen = np.flatnonzero(site[0] | reference[0])
    folds = group_folds(chosen, N_JACKKNIFE_FOLDS, rng, strata=site[0, chosen].astype(np.int64))
    left = np.ones((int(folds.max()) + 1, len(samples.of_site)), dtype=bool)
    left[folds, chosen] = False
    without = unit * moments.distances(site & left, reference & left, shrinkage)
    beyond = null.quantiles[1]
    estimate = jackknife_interval(
        statistic,
        without,
        n=int(np.isin(samples.groups, chosen).sum()),
        n_groups=len(chosen),
        n_scarce=m,
        transform="log",
        method="Fréchet distance beyond its null median, jackknife over folds of groups",
    )
    effect = replace(estimate, value=estimate.value - beyond, low=estimate.low - beyond, high=estimate.high - beyond)
    settings = (
        f"{m} groups of each, {moments.n_directions} directions ({moments.share:.0%} of the variance), "
        f"shrinkage {shrinkage:.2g}"
    )
    return ShiftTest(statistic, effect, null.p_value, null.quantiles, len(null.values), settings)


def thinned(of_site: BoolArray, priority: IntArray) -> tuple[BoolArray, BoolArray]:
    """Return which groups stand for the site and for the reference, as many of each, (b, G) both.

    Args:
        of_site: (b, G), with as many marks in each row.
        priority: a rank of each group; the larger sample keeps its groups of the lowest ranks, (G,).
    """
    order = np.argsort(priority)
    at_site = int(of_site[0].sum())
    m = min(at_site, of_site.shape[1] - at_site)
    chosen = []
    for masks in (of_site, ~of_site):
        ordered = masks[:, order]
        kept = np.zeros_like(masks)
        kept[:, order] = ordered & (np.cumsum(ordered, axis=1) <= m)
        chosen.append(kept)
    return chosen[0], chosen[1]


@dataclass(frozen=True, eq=False)
class GroupMoments:
    """Means and mean outer products of each group's images along r principal directions.

    Attributes:
        means: float32 (G, r).
        products: the lower triangles of the mean outer products, float32 (G, r (r + 1) / 2).
        share: of the images' variance that the directions hold, in [0, 1].
    """

    means: NDArray[np.float32]
    products: NDArray[np.float32]
    share: float

    @property
    def n_directions(self) -> int:
        """r."""
        return int(self.means.shape[1])

    def shrinkage(self, m: int) -> float:
        """Return the share of a multiple of the identity that suits a covariance of m groups, in [0, 1].

        Ledoit and Wolf's, from all groups, so permutations leave it as it is, and both covariances get the same.
        """
        rows, columns = np.tril_indices(self.n_directions)
        twice = np.where(rows == columns, 1.0, 2.0)
        covariance = self.products.mean(axis=0, dtype=np.float64)
        starts = range(0, len(self.products), _GROUPS_AT_ONCE)
        squares = [((self.products[k : k + _GROUPS_AT_ONCE] - covariance) ** 2) @ twice for k in starts]
        spread = float(np.concatenate(squares).mean()) / m
        mean_variance = float(covariance[rows == columns].mean())
        away = float(((covariance - mean_variance * (rows == columns)) ** 2) @ twice)
        return min(1.0, spread / away) if away > 0 else 1.0

    def distances(self, site: BoolArray, reference: BoolArray, shrinkage: float) -> NDArray[np.float64]:
        """Return the squared Fréchet distance, over the points' unit squared, for b choices of groups (b, G), (b,)."""
        first_mean, first = self._normal(site, shrinkage)
        second_mean, second = self._normal(reference, shrinkage)
        return np.asarray(((first_mean - second_mean) ** 2).sum(axis=1) + covariance_distances(first, second))

    def _normal(self, chosen: BoolArray, shrinkage: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        marks = chosen.astype(np.float32)
        n = chosen.sum(axis=1)[:, None]
        mean = (marks @ self.means).astype(np.float64) / n
        flat = (marks @ self.products).astype(np.float64) / n
        r = self.n_directions
        rows, columns = np.tril_indices(r)
        covariance = np.empty((len(chosen), r, r))
        covariance[:, rows, columns] = covariance[:, columns, rows] = flat
        covariance -= mean[:, :, None] * mean[:, None, :]
        covariance *= (n / np.maximum(n - 1, 1))[:, :, None]
        mean_variance = np.trace(covariance, axis1=1, axis2=2) / r
        covariance *= 1 - shrinkage
        covariance += shrinkage * mean_variance[:, None, None] * np.eye(r)
        return mean, covariance


def covariance_distances(first: FloatArray, second: FloatArray) -> NDArray[np.float64]:
    """Return tr(A + B - 2 (A B)^(1/2)), at least 0, for symmetric matrices without negative eigenvalues, (b, r, r)."""
    root = _roots(first)
    middle = np.linalg.eigvalsh(np.swapaxes(root, 1, 2) @ second @ root)
    cross = np.sqrt(np.maximum(middle, 0.0)).sum(axis=1)
    traces = np.trace(first, axis1=1, axis2=2) + np.trace(second, axis1=1, axis2=2)
    return np.asarray(np.maximum(traces - 2 * cross, 0.0))


def _roots(matrices: FloatArray) -> NDArray[np.float64]:
    """Return R with R R' = A for symmetric matrices without negative eigenvalues, (b, r, r)."""
    try:
        return np.asarray(np.linalg.cholesky(matrices))
    except np.linalg.LinAlgError:  # one of them has an eigenvalue of 0
        values, axes = np.linalg.eigh(matrices)
        return np.asarray(axes * np.sqrt(np.maximum(values, 0.0))[:, None, :])


def group_moments(samples: TwoSamples, n_directions: int) -> GroupMoments:
    """Return the groups' moments along the principal directions of all images together."""
    coordinates, share = principal_coordinates(samples.points, n_directions)
    rows, columns = np.tril_indices(coordinates.shape[1])
    starts = np.append(np.flatnonzero(np.diff(samples.groups, prepend=-1)), len(samples.groups))
    products = np.empty((len(samples.of_site), len(rows)), dtype=np.float32)
    step = max(1, _ROWS * len(samples.of_site) // len(samples.groups))
    for first in range(0, len(products), step):
        last = min(first + step, len(products))
        part = slice(starts[first], starts[last])
        x = coordinates[part]
        products[first:last] = mean_by_group(x[:, rows] * x[:, columns], samples.groups[part] - first)
    means = np.asarray(samples.group_means(coordinates), dtype=np.float32)
    return GroupMoments(means, products, share)


def principal_coordinates(points: Points, n_directions: int) -> tuple[NDArray[np.float32], float]:
    """Return the points' coordinates along their own principal directions, float32 (n, r), and their share of variance.

    At most as many directions as there are points or dimensions; largest variance first.
    """
    x = points.centred
    small = x.shape[1] <= len(x)
    values, axes = np.linalg.eigh((x.T @ x if small else x @ x.T).astype(np.float64))
    total = float(np.maximum(values, 0.0).sum())
    values, axes = values[::-1], axes[:, ::-1]
    r = max(1, min(n_directions, int((values > 1e-6 * max(values[0], 0.0)).sum())))
    share = float(values[:r].sum() / total) if total > 0 else 1.0
    if small:
        return np.asarray(x @ axes[:, :r].astype(np.float32)), share
    return (axes[:, :r] * np.sqrt(np.maximum(values[:r], 0.0))).astype(np.float32), share
